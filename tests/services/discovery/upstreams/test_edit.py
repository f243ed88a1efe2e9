import pytest

from services.discovery.upstreams.edit import Path, Value, edit
from shared.codec import text

BLOCK = b"""\
# kept by us
metadata:
  name: petstore   # the shop
  namespace: gloo-system
consul:
  # the service
  serviceName: petstore  # its name
  serviceTags:
  # first the old one
  - a
  - b  # the second
  # after the tags
  dataCenters: [dc1]  # where

sslConfig:
  sni: x
"""

TAGS: Path = ("consul", "serviceTags")


def test_a_list_changes_and_all_the_rest_stays() -> None:
    edited = edit(BLOCK, {TAGS: ["a", "b", "c"], ("consul", "dataCenters"): ["dc1", "dc2"]})

    assert edited == BLOCK.replace(b"  - a\n  - b  #", b"  - a\n  - b\n  - c  #").replace(
        b"[dc1]", b"[dc1, dc2]"
    )


def test_a_word_changes_before_its_comment() -> None:
    assert edit(BLOCK, {("consul", "serviceName"): "shop"}) == BLOCK.replace(
        b"serviceName: petstore", b"serviceName: shop"
    )


def test_a_list_becomes_empty() -> None:
    edited = edit(BLOCK, {TAGS: []})

    assert text.parse(edited)["consul"]["serviceTags"] == []
    assert b"# kept by us" in edited
    assert b"# after the tags" in edited


def test_a_missing_field_is_added_at_the_end_of_its_block() -> None:
    edited = edit(BLOCK, {("consul", "instanceTags"): ["x: y"], ("metadata", "annotations", "owner"): "us"})

    assert b"  dataCenters: [dc1]  # where\n  instanceTags:\n  - 'x: y'\n" in edited
    assert b"  namespace: gloo-system\n  annotations:\n    owner: us\nconsul:" in edited
    assert b"# kept by us" in edited


def test_a_field_is_added_at_the_end_of_a_text_without_a_last_line_break() -> None:
    edited = edit(b"consul:\n  serviceName: a", {TAGS: ["b"]})

    assert edited == b"consul:\n  serviceName: a\n  serviceTags:\n  - b\n"


@pytest.mark.parametrize(
    "raw",
    [
        b'{"consul": {"serviceName": "a", "serviceTags": ["x"]}, "metadata": {"name": "a"}}',
        b'{"consul": {"serviceName": "a"}, "metadata": {"name": "a"}}',
        b"{consul: {serviceName: a, serviceTags: []}, metadata: {name: a}}",
        b"consul: {serviceName: a}\n",
        b"consul: {}\n",
        b"consul:\n  serviceName: a\n  serviceTags:\nmetadata: {name: a}\n",
        b"consul:\n  serviceTags: &tags\n  - x\n  serviceName: a\nother: *tags\n",
        b"x: &c {serviceName: a}\nconsul: *c\n",
        b"consul:\n  serviceTags: |\n    text\n  serviceName: a\n",
        b"consul:\n  serviceName: |-\n    a\n# end",
        b"consul:\r\n  serviceName: a\r\n",
        "consul: {serviceName: 'ü'}\n# ü\n".encode(),
        b"metadata: {name: a}\n",
    ],
)
@pytest.mark.parametrize("tags", [["x", "y"], ["a, b", "yes", "#", "é", "- x", "a: b", ""], []])
def test_whatever_the_text_is_like_the_document_has_the_new_value(raw: bytes, tags: list[str]) -> None:
    changes: dict[Path, Value] = {TAGS: tags}
    before = text.parse(raw)

    after = text.parse(edit(raw, changes))

    assert after == {**before, "consul": {**(before.get("consul") or {}), "serviceTags": tags}}
