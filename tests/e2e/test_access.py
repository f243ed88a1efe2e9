"""A Consul that lets nobody in without a token."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.support.consul import REPOSITORY, ConsulServer
from tests.support.ports import free_port
from tests.support.stack import GATEWAY, ROLES, Stack, to_upstream, virtual_service
from tests.support.waiting import eventually

pytestmark = pytest.mark.e2e

ROOT = "root-token"
ACLS = {
    "primary_datacenter": "dc1",
    "acl": {"enabled": True, "default_policy": "deny", "tokens": {"master": ROOT, "agent": ROOT}},
}


class Guarded(ConsulServer):
    """Asks for a token; the tests have the one that may do everything."""

    async def call(self, method: str, path: str, body: object = None, *, token: str = ROOT) -> Any:
        return await super().call(method, path, body, token=token)

    async def token_for(self, rules: str) -> str:
        made = await self.call("PUT", "/v1/acl/policy", {"Name": "gloo", "Rules": rules})
        token = await self.call("PUT", "/v1/acl/token", {"Policies": [{"ID": made["ID"]}]})
        return str(token["SecretID"])


def documented_policy() -> str:
    (rules,) = re.findall(r"```hcl\n(.*?)```", (REPOSITORY / "docs" / "running.md").read_text(), re.S)
    return str(rules)


async def test_the_policy_in_the_manual_is_enough_and_the_token_is_never_shown(tmp_path: Path) -> None:
    stack = Stack(tmp_path)
    stack.consul = consul = Guarded(tmp_path / "consul", extra=ACLS)
    try:
        await consul.start()
        await eventually(lambda: consul.call("GET", "/v1/acl/tokens"))
        token = await consul.token_for(documented_policy())
        stack.write_settings(consul={"address": consul.address, "token": token, "serviceDiscovery": {}})
        await stack.put("Gateway", "gateway-proxy", GATEWAY | {"bindPort": stack.http_port})
        for role in ROLES:
            stack.start_role(role, flags=["--log-level", "debug"])
        stack.start_envoy("envoy", stack.admin_port)
        port = free_port()
        stack.start_petstore(port)
        for role in ROLES:
            await stack.ready(role)

        await stack.register("petstore", port)
        await stack.put("VirtualService", "pets", virtual_service(to_upstream("/", "petstore")))
        await stack.answers("/api/pets", 200)
        pages = [str(await stack.debug(role, role)) for role in ROLES]
        keys = await consul.call("GET", "/v1/kv/gloo/_?keys")
        said = [stack.processes[role].output() for role in ROLES]
    finally:
        await stack.stop()

    assert {key.rpartition("/")[0] for key in keys} >= {f"gloo/_members/{role}" for role in ROLES}
    for text in (*pages, *said):
        assert token not in text
        assert "ermission denied" not in text
        assert "takes no check of ours" not in text
