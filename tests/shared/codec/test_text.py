"""Texts: YAML and JSON in and out, and status written into what people wrote."""

from __future__ import annotations

import contextlib
import json
import string
import subprocess
import sys
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.codec.text import parse, render, render_json, set_status
from shared.errors import InvalidDocument

STATUS = {
    "state": "Accepted",
    "reportedBy": "gateway",
    "subresourceStatuses": {"*v1.Proxy.a.b": {"state": "Accepted"}},
}
STATUS_TEXT = """\
status:
  reportedBy: gateway
  state: Accepted
  subresourceStatuses:
    '*v1.Proxy.a.b':
      state: Accepted
"""

# Reading


def test_plain_words_stay_words() -> None:
    words = ["on", "010", "12:30:45", "2026-11-22", "0x1F", "1_000", "=", "1.2.3", ".", "y", "15s", "-x", "+"]

    assert parse("a:\n- {}".format("\n- ".join(words)).encode()) == {"a": words}


def test_numbers_truth_and_nothing_are_more() -> None:
    text = b"a: 1\nb: -1.5\nc: true\nd: null\ne: ~\nf:\ng: 1e3\nh: .inf\ni: 0\nj: .5\nk: False\nl: +3"

    assert parse(text) == {
        "a": 1, "b": -1.5, "c": True, "d": None, "e": None, "f": None, "g": 1000.0, "h": float("inf"), "i": 0,
        "j": 0.5, "k": False, "l": 3,
    }  # fmt: skip


def test_quotes_and_tags_decide() -> None:
    assert parse(b"a: '1'\nb: \"true\"\nc: !!str 1\nd: !!float 1\ne: !!int 7\nf: ! x") == {
        "a": "1", "b": "true", "c": "1", "d": 1.0, "e": 7, "f": "x",
    }  # fmt: skip


def test_keys_are_text() -> None:
    assert parse(b"1: a\ntrue: b\n1.10: c\n") == {"1": "a", "true": "b", "1.10": "c"}


def test_anchors_and_merges() -> None:
    text = b"x: &x {a: 1, b: 2}\ny:\n  <<: *x\n  b: 3\nz:\n  <<: [{a: 5}, *x]\nw: *x\n"

    assert parse(text) == {
        "x": {"a": 1, "b": 2}, "y": {"a": 1, "b": 3}, "z": {"a": 5, "b": 2}, "w": {"a": 1, "b": 2},
    }  # fmt: skip


def test_json_flow_yaml_and_a_byte_order_mark() -> None:
    assert parse(b' {"a": [1, "\\ud83d\\ude00"]}\n') == {"a": [1, "\N{GRINNING FACE}"]}
    assert parse(b"{a: b, c: [d]}") == {"a": "b", "c": ["d"]}
    assert parse(b'{"a": 1, # why\n "b": 2,}') == {"a": 1, "b": 2}
    assert parse(b"\xef\xbb\xbfa: 1") == {"a": 1} == parse(b'\xef\xbb\xbf{"a": 1}')


NO_MAPPING = "line 1, column 1: expected a mapping at the top, such as metadata: {name: …}"
BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("raw", "problem"),
    [
        (b"", "the document is empty"),
        (b"# nothing\n", "the document is empty"),
        (b"---\n", "the document is empty"),
        (b"- a", NO_MAPPING),
        (b"abc", NO_MAPPING),
        (b"[1]", NO_MAPPING),
        (b"a: 1\n---\nb: 2\n", "line 2, column 1: one document expected, here starts another"),
        (b"a: 1\nb: {c: 1, c: 2}\n", "line 2, column 11: the key 'c' stands here twice"),
        (b'{"a": 1,\n "a": 2}', "line 2, column 2: the key 'a' stands here twice"),
        (b"a: b: c", "line 1, column 5: mapping values are not allowed in this context"),
        (b"a:\n\tb: 1", "line 2, column 1: found character that cannot start any token"),
        (b'{"a": 1 "b": 2}', "line 1, column 12: did not find expected ',' or '}'"),
        (b"a: *b", "line 1, column 4: *b stands for nothing that was named before it"),
        (b"a: &a [*a]", "line 1, column 8: *a stands for nothing that was named before it"),
        (
            b"a: !!python/name:os x",
            "line 1, column 4: the tag tag:yaml.org,2002:python/name:os has no meaning here",
        ),
        (b"a: !x {}", "line 1, column 4: the tag !x has no meaning here"),
        (b"a: !!int x", "line 1, column 4: the tag tag:yaml.org,2002:int has no meaning here"),
        (b"? [a]\n: b", "line 1, column 3: expected a plain name as key"),
        (b"<<: 1", "line 1, column 1: expected a mapping to merge"),
        (b"a: \x00", "not a text: it contains a NUL byte"),
        (b"a: \xff", "not UTF-8 text: byte 4 is 0xff"),
        (b"\x1f\x8b\x08\x00", "not UTF-8 text: byte 2 is 0x8b"),
        (b"a: \x01", "not YAML: unacceptable character #x0001: control characters are not allowed"),
        (b"a: " + b"[" * 100_000, "line 1, column 103: nested deeper than 100 levels"),
        (b"{" * 100_000, None),
        (b'{"a":' * 100_000, "line 1, column 501: nested deeper than 100 levels"),
        (b'{"a":' * 600 + b"1" + b"}" * 600, "line 1, column 501: nested deeper than 100 levels"),
        (b"- " * 100_000, None),
        (
            b"".join(b" " * n + b"a:\n" for n in range(3000)),
            "line 101, column 101: nested deeper than 100 levels",
        ),
        (BOMB.encode(), "line 6, column 8: the aliases unfold to too large a document"),
    ],
)  # fmt: skip
def test_what_is_no_document_is_refused_with_its_place(raw: bytes, problem: str | None) -> None:
    with pytest.raises(InvalidDocument) as refused:
        parse(raw)

    assert problem is None or str(refused.value) == problem


def test_a_hundred_levels_are_allowed() -> None:
    assert parse(b'{"a":' * 100 + b"1" + b"}" * 100)
    assert parse(b"{a: " * 100 + b"1" + b"}" * 100)


def test_ordinary_use_of_aliases_is_no_bomb() -> None:
    assert len(parse(b"a: &a [x, y]\nb:\n" + b"- *a\n" * 30_000)["b"]) == 30_000


@given(st.binary(max_size=40))
@settings(max_examples=300, deadline=None)
def test_garbage_is_a_document_or_refused(raw: bytes) -> None:
    for text in (raw, b"a: " + raw, b'{"a":' + raw):
        with contextlib.suppress(InvalidDocument):
            assert isinstance(parse(text), dict)


# Writing

PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=12)
    | st.text(string.digits + "-+.:_eExo~ \n#", max_size=8)
    | st.sampled_from(["yes", "On", "null", "~", "1e3", "010", "0o7", "12:30:45", "2026-11-22", "=", "<<"])
    | st.sampled_from(["a\nb\n", "\n x", "- a", "a\n\n", "# a", "a: b"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip
DOCUMENTS = st.dictionaries(st.text(max_size=6), PLAIN, max_size=4)


@given(DOCUMENTS)
@settings(max_examples=400, deadline=None)
def test_what_is_rendered_is_read_as_it_was(document: dict[str, Any]) -> None:
    assert parse(render(document).encode()) == document
    assert parse(render_json(document)) == document
    assert parse(render_json(document, compact=True)) == document


@given(DOCUMENTS)
@settings(max_examples=200, deadline=None)
def test_other_readers_of_yaml_read_our_words_as_words(document: dict[str, Any]) -> None:
    def words(item: Any) -> Any:
        if isinstance(item, dict):
            return {words(key): words(value) for key, value in item.items()}
        return (
            [words(value) for value in item]
            if isinstance(item, list)
            else item
            if isinstance(item, str)
            else None
        )

    assert words(yaml.safe_load(render(document))) == words(document)


def test_yaml_is_for_people() -> None:
    document = {
        "virtualHost": {
            "domains": ["*"],
            "routes": [{"matchers": [{"prefix": "/"}], "options": {"timeout": "15s"}}],
        },
        "metadata": {"name": "default", "labels": {"a": "yes", "b": "1"}, "annotations": {}},
        "cert": "-----BEGIN\nabc\n-----END\n",
    }

    assert render(document) == (
        "cert: |\n  -----BEGIN\n  abc\n  -----END\n"
        "metadata:\n  annotations: {}\n  labels:\n    a: 'yes'\n    b: '1'\n  name: default\n"
        "virtualHost:\n  domains:\n  - '*'\n  routes:\n"
        "  - matchers:\n    - prefix: /\n    options:\n      timeout: 15s\n"
    )  # fmt: skip


def test_equal_documents_are_equal_json() -> None:
    assert render_json({"b": 1, "a": {"d": 1, "c": 2}}) == render_json({"a": {"c": 2, "d": 1}, "b": 1})
    assert render_json({"b": [], "a": "ü"}, compact=True) == '{"a":"ü","b":[]}'.encode()
    assert render_json({"a": 1}) == b'{\n  "a": 1\n}'


# Status


def test_comments_order_and_style_survive() -> None:
    raw = b"""\
# The shop's front door.
metadata: {name: shop, namespace: default}   # do not rename

status:
  state: Rejected   # our words
  reason: "old"

# All routes.
virtualHost:
    domains: [ "shop.example.com" ]
    routes:
    -   matchers:
        - prefix: '/'   # everything
"""

    written = set_status(raw, STATUS)

    before, _, rest = raw.partition(b"status:\n")
    assert written == before + STATUS_TEXT.encode() + rest[rest.index(b"\n# All") :]
    assert set_status(written, None) == before + rest[rest.index(b"\n# All") :]


@pytest.mark.parametrize(
    ("raw", "written"),
    [
        ("a: 1\n", "a: 1\nstatus:\n  state: Accepted\n"),
        ("a: 1", "a: 1\nstatus:\n  state: Accepted"),
        ("a: 1\r\nb: 2\r\n", "a: 1\r\nb: 2\r\nstatus:\r\n  state: Accepted\r\n"),
        ("a: 1\r\nstatus: {}\r\nb: 2\r\n", "a: 1\r\nstatus:\r\n  state: Accepted\r\nb: 2\r\n"),
        ("status:\na: 1\n", "status:\n  state: Accepted\na: 1\n"),
        ("a: 1\nstatus:", "a: 1\nstatus:\n  state: Accepted"),
        ("a: 1\nstatus: # none yet\nb: 1", "a: 1\nstatus:\n  state: Accepted\nb: 1"),
        ('"status": {state: Pending,\n  reason: x}\nb: 1\n', "status:\n  state: Accepted\nb: 1\n"),
        ("a: ü\nstatus: grüße\nb: €\n", "a: ü\nstatus:\n  state: Accepted\nb: €\n"),
        ("status:\n  reason: |\n    a\n    b\n\n\nb: 3\n", "status:\n  state: Accepted\n\n\nb: 3\n"),
        ("status:\n- a\n- b\nb: 3\n", "status:\n  state: Accepted\nb: 3\n"),
        ("  a: 1\n  status: x\n  b: 1\n", "  a: 1\n  status:\n    state: Accepted\n  b: 1\n"),
        ("---\na: 1\n...\n", "---\na: 1\nstatus:\n  state: Accepted\n...\n"),
        ("---\na: 1\n# the end\n", "---\na: 1\n# the end\nstatus:\n  state: Accepted\n"),
        ("a: |+\n  x\n\n", "a: |+\n  x\n\nstatus:\n  state: Accepted\n"),
        ("a: >-\n  x", "a: >-\n  x\nstatus:\n  state: Accepted"),
        ("a: |\n  x", "status:\n  state: Accepted\na: |\n  x"),
        ("a:\t1\t# tab\nstatus:\tx\nb: 1\n", "a:\t1\t# tab\nstatus:\n  state: Accepted\nb: 1\n"),
        ("a: &x\n  b: 1\nstatus: *x\nc: *x\n", "a: &x\n  b: 1\nstatus:\n  state: Accepted\nc: *x\n"),
        ("namespacedStatuses: {a: 1}\n", "namespacedStatuses: {a: 1}\nstatus:\n  state: Accepted\n"),
        ("{a: 1}\n", '{a: 1, "status": {"state": "Accepted"}}\n'),
        ("{}", '{"status":{"state":"Accepted"}}'),
        ("{ }", '{"status": {"state": "Accepted"} }'),
        ("{a: 1, status: {state: x}, b: 2} # c", '{a: 1, status: {"state": "Accepted"}, b: 2} # c'),
        ("{\n  a: 1, # one\n  b: 2\n}", '{\n  a: 1, # one\n  b: 2,\n  "status": {"state": "Accepted"}\n}'),
        ('{"a":1}\n', '{"a":1,"status":{"state":"Accepted"}}\n'),
        ('{"a": 1, "status": {}}', '{"a": 1, "status": {"state": "Accepted"}}'),
        ('{\n  "status": {},\n  "a": 1\n}', '{\n  "status": {\n    "state": "Accepted"\n  },\n  "a": 1\n}'),
        ('{\n    "a": 1\n}\n', '{\n    "a": 1,\n    "status": {"state": "Accepted"}\n}\n'),
        ("\ufeffa: 1\n", "\ufeffa: 1\nstatus:\n  state: Accepted\n"),
    ],
)  # fmt: skip
def test_only_the_status_changes(raw: str, written: str) -> None:
    assert set_status(raw.encode(), {"state": "Accepted"}).decode() == written


@pytest.mark.parametrize(
    ("raw", "written"),
    [
        ("a: 1\nstatus:\n  state: x\nb: 2\n", "a: 1\nb: 2\n"),
        ("a: 1\nstatus: x", "a: 1\n"),
        ("{status: x, a: 1}", "{a: 1}"),
        ("{a: 1, status: x}", "{a: 1}"),
        ('{"a":1,"status":{}}', '{"a":1}'),
        ("a: 1\n", "a: 1\n"),
        ("status: x\n", "{}\n"),
    ],
)
def test_the_status_can_be_taken_out(raw: str, written: str) -> None:
    assert set_status(raw.encode(), None).decode() == written


def test_an_equal_status_leaves_the_very_text() -> None:
    raw = b"status: {reportedBy: gateway , state: 'Accepted'} # mine\n"

    assert set_status(raw, {"state": "Accepted", "reportedBy": "gateway"}) is raw


@pytest.mark.parametrize(
    "raw",
    [
        b"status: &s {state: x}\na: *s\n",  # taking the anchor away would break the rest
        b"? status\n: x\n",
        b'{"a": "\\ud83d\\ude00", "b": 1 }',  # JSON that YAML's reader does not take
        b"a: |+\n  x\n\n\n...\n",
    ],
)
def test_where_surgery_cannot_be_right_the_document_is_rendered_anew(raw: bytes) -> None:
    wanted = {**parse(raw), "status": STATUS}

    assert parse(set_status(raw, STATUS)) == wanted


def test_what_cannot_be_read_is_not_written() -> None:
    with pytest.raises(InvalidDocument):
        set_status(b"a: b: c", STATUS)


PARTS = st.sampled_from(
    [
        "metadata: {name: a, namespace: b}\n",
        "# a comment\nmetadata:\n  name: a # ü\n\n",
        "'x y': [1,\n  2]\n",
        "virtualHost:\n  routes:\n  - matchers:\n    - prefix: /\n    # inner comment\n",
        "list:\n- a\n- b: c\n  d: |\n    text\n    more\n",
        "folded: >-\n  some words\n  and more\n\n# after\n",
        "empty:\n",
        "namespacedStatuses:\n  statuses:\n    a:\n      state: Accepted\n",
        "quoted: \"a\\nb # no comment\"\n\n\n",
        "flow: {status: {state: inner}}\n",
        "deep:\n  status:\n    state: inner\n",
    ]
)  # fmt: skip
STATUSES = st.none() | st.fixed_dictionaries(
    {"state": st.sampled_from(["Accepted", "Rejected"])},
    optional={
        "reason": st.text(max_size=20) | st.sampled_from(["a\nb\n", "x: y # z", "yes", "'"]),
        "subresourceStatuses": st.dictionaries(
            st.text(max_size=5), st.just({"state": "Accepted"}), max_size=2
        ),
        "details": st.dictionaries(st.text(max_size=5), PLAIN, max_size=2),
    },
)
OLD = st.sampled_from(
    [
        "",
        "status: {}\n",
        "status:\n",
        "status: {state: Pending} # c\n",
        "status:\n  reason: |\n    a\n\n    b\n",
        '"status":\n- 1\n',
        STATUS_TEXT,
    ]
)


@given(
    st.lists(PARTS, max_size=4), OLD, st.lists(PARTS, max_size=4), STATUSES, STATUSES,
    st.sampled_from(["\n", "\r\n"]), st.sampled_from(["", "---\n"]), st.booleans(),
)  # fmt: skip
@settings(max_examples=400, deadline=None)
def test_everything_outside_the_status_stays(
    above: list[str],
    old: str,
    below: list[str],
    status: Any,
    then: Any,
    newline: str,
    start: str,
    ended: bool,
) -> None:
    seen: set[str] = set()
    above = [part for part in above if not (part in seen or seen.add(part))]  # type: ignore[func-returns-value]
    below = [part for part in below if not (part in seen or seen.add(part))]  # type: ignore[func-returns-value]
    head, tail = start + "".join(above), "".join(below)
    text = (head + old + tail).replace("\n", newline)
    raw = (text if ended else text.rstrip()).encode()
    try:
        before = parse(raw)
    except InvalidDocument:
        return  # a key twice, or nothing at all

    for wanted in (status, then, None):
        raw = set_status(raw, wanted)

        after = parse(raw)
        assert {key: item for key, item in after.items() if key != "status"} == {
            key: item for key, item in before.items() if key != "status"
        }
        assert after.get("status") == wanted
        if ended and (above or below):
            kept = raw.decode()
            assert head.removeprefix(start).replace("\n", newline).rstrip() in kept
            assert tail.replace("\n", newline).rstrip() in kept
            assert kept.startswith(start.replace("\n", newline))


@given(DOCUMENTS, STATUSES, st.sampled_from([None, 1, 2]), st.booleans())
@settings(max_examples=300, deadline=None)
def test_json_in_any_layout_stays_json(
    document: dict[str, Any], status: Any, indent: int | None, ascii: bool
) -> None:
    raw = json.dumps(document, indent=indent, ensure_ascii=ascii).encode()
    wanted = {key: item for key, item in document.items() if key != "status"}
    if status is not None:
        wanted["status"] = status

    written = set_status(raw, status)

    assert json.loads(written) == wanted


def test_the_command_line_manages_without_orjson() -> None:
    program = """
import sys
sys.modules["orjson"] = None
from shared.codec.text import parse, render_json, set_status
from shared.errors import InvalidDocument
both = {"b": "\u00fc", "a": {}}
print(parse(b'{"a": [1, 2.5, null]}'), render_json(both), render_json({"a": 1}, compact=True))
print(set_status(b'{"a":1}', {"state": "Accepted"}), set_status(b"a: 1", {"state": "Accepted"}))
for raw in (b'{"a": 1, "a": 2}', b'{"a": ' * 5000, b'{"a": NaN, "a": 1}', rb'{"a": "\\ud800"}'):
    try:
        print(parse(raw))
    except InvalidDocument as error:
        print(error)
"""

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)

    assert done.stdout.decode().splitlines() == [
        "{'a': [1, 2.5, None]} " + repr('{\n  "a": {},\n  "b": "ü"\n}'.encode()) + " b'{\"a\":1}'",
        'b\'{"a":1, "status": {"state": "Accepted"}}\' b\'a: 1\\nstatus:\\n  state: Accepted\'',
        "line 1, column 10: the key 'a' stands here twice",
        "line 1, column 601: nested deeper than 100 levels",
        "line 1, column 12: the key 'a' stands here twice",
        "line 1, column 10: found invalid Unicode character escape code",
    ]
