"""Options that are objects: one edit changes all routes that refer to them, and a mistake changes none."""

from __future__ import annotations

import pytest

from tests.support.backends import Backend
from tests.support.stack import Stack, to_upstream, virtual_service
from tests.support.waiting import eventually

pytestmark = pytest.mark.e2e


def adding(value: str) -> dict[str, object]:
    header = {"header": {"key": "x-from", "value": value}, "append": False}
    return {"options": {"headerManipulation": {"responseHeadersToAdd": [header]}}}


async def test_options_are_shared_by_reference(stack: Stack) -> None:
    async def says(path: str, value: str) -> None:
        await stack.answers(path)
        await eventually(
            lambda: stack.get(path), until=lambda answer: answer.headers.get("x-from", "") == value
        )

    async with Backend("pets") as pets:
        hosts = [{"addr": "127.0.0.1", "port": pets.port}]
        await stack.put("Upstream", "pets", {"static": {"hosts": hosts}})
        shared = to_upstream("/shared", "pets") | {
            "optionsConfigRefs": {"delegateOptions": [{"name": "shared"}]}
        }
        service = virtual_service(shared, to_upstream("/", "pets"))
        service["virtualHost"]["optionsConfigRefs"] = {"delegateOptions": [{"name": "host"}]}
        await stack.put("VirtualService", "web", service)
        missing = "virtualHost.routes[0].optionsConfigRefs.delegateOptions[0]: RouteOption gloo-system.shared"
        await stack.status_is("Warning", "VirtualService", "web", saying=missing)
        await says("/shared", "")

        await stack.put("RouteOption", "shared", adding("route"))
        await stack.put("VirtualHostOption", "host", adding("host"))
        await says("/", "host")
        await says("/shared", "host")  # the virtual host's headers are set after the route's
        await stack.delete("VirtualHostOption", "host")
        await says("/shared", "route")
        await stack.status_is("Accepted", "RouteOption", "shared")

        await stack.put("RouteOption", "shared", {"options": {"headrs": {}}})
        await stack.status_is("Rejected", "RouteOption", "shared", saying="options.headrs: unknown field")
        await stack.status_is("Warning", "VirtualService", "web", saying="its last good version serves")
        await says("/shared", "route")

        await stack.put("RouteOption", "shared", adding("again"))
        await says("/shared", "again")
        status = await stack.status_is("Accepted", "RouteOption", "shared")
        assert status["details"]["usedBy"] == ["VirtualService gloo-system.web"]

        await stack.put("RouteOption", "shared", {"options": {"timeout": "-1s"}})
        await stack.status_is(
            "Rejected", "RouteOption", "shared", saying="options.timeout: must not be negative"
        )
        note = "virtualHost.routes[0]: RouteOption gloo-system.shared: options.timeout: must not be negative"
        await stack.status_is("Warning", "VirtualService", "web", saying=note)
        await says("/shared", "again")
