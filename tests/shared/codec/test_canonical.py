"""Documents in today's words."""

from __future__ import annotations

from typing import Any

import pytest

from shared.codec.canonical import canonical
from shared.codec.decode import check
from shared.report import Report


@pytest.mark.parametrize(
    ("kind", "written", "today"),
    [
        (
            "gateway.solo.io.VirtualService",
            {
                "virtual_host": {
                    "virtual_host_plugins": {},
                    "routes": [
                        {
                            "matcher": {"query_parameters": [{"name": "a"}]},
                            "route_action": {"single": {"destination_spec": {}}},
                        }
                    ],
                }
            },
            {
                "virtualHost": {
                    "options": {},
                    "routes": [
                        {
                            "matchers": [{"queryParameters": [{"name": "a"}]}],
                            "routeAction": {"single": {"destinationSpec": {}}},
                        }
                    ],
                }
            },
        ),
        (
            "gloo.solo.io.Upstream",
            {"upstream_spec": {"consul": {"service_name": "a"}}, "use_http2": True},
            {"consul": {"serviceName": "a"}, "useHttp2": True},
        ),
        (
            "gloo.solo.io.Upstream",
            {"metadata": {"labels": {"use_http2": "a_b"}}, "static": {"hosts": []}},
            {"metadata": {"labels": {"use_http2": "a_b"}}, "static": {"hosts": []}},
        ),
    ],
)
def test_every_spelling_becomes_todays(kind: str, written: Any, today: Any) -> None:
    assert canonical(kind, written) == today
    assert check(kind, written, Report())
    assert check(kind, today, report := Report())
    assert not report.warnings


@pytest.mark.parametrize(
    "document", [None, 7, [], {"virtualHost": 7}, {"virtualHost": {"routes": {"a": 1}}}, {"no_field": {}}]
)
def test_what_is_no_document_of_its_kind_stands_as_it_is(document: Any) -> None:
    assert canonical("gateway.solo.io.VirtualService", document) == document
