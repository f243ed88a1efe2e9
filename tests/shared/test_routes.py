"""The order of routes is Gloo's, for messages and for plain documents alike."""

from __future__ import annotations

import random
from typing import Any

import pytest

from protos import gloo
from shared.routes import document_key, message_key, sort_routes

ORDERED: list[dict[str, Any]] = [
    {"matchers": [{"prefix": "/", "methods": ["GET", "POST"]}]},
    {"matchers": [{"exact": "/z", "methods": ["GET"]}]},
    {"matchers": [{"headers": [{"name": "a"}]}]},
    {"matchers": [{"exact": "/foo/bar"}]},
    {"matchers": [{"exact": "/foo"}]},
    {"matchers": [{"prefix": "/zzz"}, {"exact": "/a"}]},
    {"matchers": [{"regex": "/foo.*"}]},
    {"matchers": [{"regex": "/.*"}]},
    {"matchers": [{"prefix": "/é"}]},
    {"matchers": [{"prefix": "/b"}]},
    {"matchers": [{"prefix": "/aaaa"}]},
    {"matchers": [{"prefix": "/a"}]},
    {},
    {"matchers": [{"prefix": ""}]},
]


def message(document: dict[str, Any]) -> gloo.Route:
    matchers = []
    for each in document.get("matchers", ()):
        headers = [gloo.HeaderMatcher(**header) for header in each.get("headers", ())]
        matchers.append(gloo.Matcher(**{**each, "headers": headers}))
    return gloo.Route(matchers=matchers)


@pytest.mark.parametrize("seed", range(5))
def test_routes_come_in_gloos_order(seed: int) -> None:
    shuffled = random.Random(seed).sample(ORDERED, len(ORDERED))

    assert sort_routes(shuffled, document_key) == ORDERED
    assert sort_routes([message(each) for each in shuffled], message_key) == [message(e) for e in ORDERED]


def test_equal_routes_keep_their_order() -> None:
    routes = [{"name": str(i), "matchers": [{"prefix": "/"}]} for i in range(5)]

    assert sort_routes(routes, document_key) == routes


@pytest.mark.parametrize("matchers", [None, 3, ["x"], [{"prefix": 3, "methods": "GET"}]])
def test_a_document_of_any_shape_has_a_place(matchers: object) -> None:
    assert document_key({"matchers": matchers})
