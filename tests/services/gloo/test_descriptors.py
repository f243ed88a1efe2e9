"""Descriptors of gRPC services: what is wrong with them, and one method cut out of them."""

from __future__ import annotations

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorSet

from services.gloo.descriptors import called_by, is_template, problem_of, rules_of, services_of
from tests.support.bookstore import BOOKSTORE, bookstore


def test_services_are_known_by_their_full_names() -> None:
    services = services_of(bookstore())

    assert (services.names, services.problem) == ({BOOKSTORE, "books.v1.Archive"}, "")
    assert [method.name for method in services.methods(BOOKSTORE)] == ["GetBook", "AddBook", "SellBook"]
    assert problem_of(bookstore(), BOOKSTORE, offers_all=False) == ""


@pytest.mark.parametrize(
    "path", ["/", "/a", "/a/{b}", "/a/{b.c}:go", "/{a=b/*}/c", "/**", "/{a=**}/c", "/a.b*/%20"]
)
def test_templates_that_envoy_takes(path: str) -> None:
    assert is_template(path)


@pytest.mark.parametrize(
    "path", ["", "a", "/a/", "//a", "/a{b}", "/{a", "/a:b/c", "/{a=b/{c}}", "/**/{a=**}", "/{1}"]
)
def test_templates_that_envoy_refuses(path: str) -> None:
    assert not is_template(path)


def test_one_method_is_left_and_called_by_any_request() -> None:
    raw = called_by(bookstore(), BOOKSTORE, "AddBook", "/books/{id}")

    [method] = services_of(raw).methods(BOOKSTORE)
    rules = list(rules_of(method))
    paths = [rule.post or rule.put or rule.patch or rule.delete or rule.get for rule in rules]
    assert (method.name, set(paths), [rule.body for rule in rules]) == (
        "AddBook",
        {"/books/{id}"},
        ["*", "*", "*", "", ""],
    )
    assert services_of(raw).names == services_of(bookstore()).names
    [before], [after] = FileDescriptorSet.FromString(bookstore()).file, FileDescriptorSet.FromString(raw).file
    assert before.message_type == after.message_type
