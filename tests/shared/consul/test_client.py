"""The client against a real Consul with ACLs, TLS, a socket, and too few connections."""

from __future__ import annotations

import asyncio
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest

from shared.consul.blocking import WatchOptions, WatchState, watch_prefix
from shared.consul.client import Consul
from shared.consul.config import ConsulConfig
from shared.consul.operations import CheckIndex, Put
from shared.errors import ConsulDenied, ConsulUnavailable
from tests.support.consul import ConsulServer, consul_binary
from tests.support.waiting import eventually


async def test_datacenters_and_json_are_read(consul_server: ConsulServer) -> None:
    async with Consul(consul_server.config) as consul:
        assert await consul.datacenters() == ["dc1"]
        assert (await consul.get_json("/v1/agent/self"))["Config"]["NodeName"] == "test-node"
        assert await consul.get_json("/v1/kv/none") is None


async def test_a_datacenter_that_does_not_exist_is_no_answer(consul_server: ConsulServer) -> None:
    async with Consul(replace(consul_server.config, datacenter="nowhere")) as consul:
        with pytest.raises(ConsulUnavailable, match="No path to datacenter"):
            await consul.kv.get("a")


async def test_a_socket_serves_as_well_as_a_port(tmp_path: Path) -> None:
    socket = tmp_path / "consul.sock"
    server = ConsulServer(tmp_path, extra={"addresses": {"http": f"127.0.0.1 unix://{socket}"}})
    async with server, Consul(ConsulConfig.of(None, {"CONSUL_HTTP_ADDR": f"unix://{socket}"})) as consul:
        await consul.kv.put("a", b"1")
        assert await consul.kv.get("a") is not None


async def test_parked_watches_delay_no_write(consul_server: ConsulServer) -> None:
    async with Consul(consul_server.config) as consul:
        await consul.kv.put("gloo/a", b"0")
        index, _ = await consul.kv.list("gloo/")
        async with asyncio.TaskGroup() as tasks:
            parked = [tasks.create_task(consul.kv.list("gloo/", index=index, wait=20.0)) for _ in range(128)]
            await eventually(lambda: _established(consul_server.http_port), until=lambda open: open >= 128)

            await consul.kv.put("other/a", b"1")

            assert not any(task.done() for task in parked)
            await consul.kv.put("gloo/a", b"1")

    assert all(task.result()[0] > index for task in parked)


async def test_too_few_connections_are_typed_errors_and_recovered_from(tmp_path: Path) -> None:
    server = ConsulServer(tmp_path, extra={"limits": {"http_max_conns_per_client": 12}})
    async with server, Consul(server.config) as consul, asyncio.TaskGroup() as tasks:
        await consul.kv.put("gloo/a", b"1")  # one connection is ours from here on
        states = [WatchState(str(number)) for number in range(16)]
        options = WatchOptions(wait=1.0, max_backoff=0.2)

        async def follow(state: WatchState) -> None:
            async for _ in watch_prefix(consul.kv, "gloo/", options=options, state=state):
                pass

        watches = [tasks.create_task(follow(state)) for state in states]
        await eventually(lambda: sum(state.synced for state in states), until=lambda synced: synced >= 8)
        refused = await eventually(lambda: [state.problem for state in states if state.problem])
        assert all("closed without an answer" in problem or "reset" in problem for problem in refused)
        for number in range(5):
            await consul.kv.put("gloo/a", str(number).encode())

        for watch in watches[8:]:
            watch.cancel()
        await eventually(lambda: all(state.synced and not state.problem for state in states[:8]))
        for watch in watches[:8]:
            watch.cancel()


ACLS = {
    "primary_datacenter": "dc1",
    "acl": {
        "enabled": True,
        "default_policy": "deny",
        "tokens": {"master": "root-token", "agent": "root-token"},
    },
}


async def _token(server: ConsulServer, rules: str) -> str:
    name = f"policy-{time.monotonic_ns()}"
    await server.call("PUT", "/v1/acl/policy", {"Name": name, "Rules": rules}, token="root-token")
    made = await server.call("PUT", "/v1/acl/token", {"Policies": [{"Name": name}]}, token="root-token")
    return str(made["SecretID"])


async def test_acls_refuse_by_name_and_a_token_opens_reads_writes_and_transactions(tmp_path: Path) -> None:
    async with ConsulServer(tmp_path, extra=ACLS) as server:
        await eventually(lambda: _token(server, 'key_prefix "x/" { policy = "read" }'))
        token = await _token(server, 'key_prefix "gloo/" { policy = "write" }')

        async with Consul(server.config) as stranger:
            with pytest.raises(ConsulDenied, match="kv get gloo/a: HTTP 403: Permission denied"):
                await stranger.kv.get("gloo/a")
            with pytest.raises(ConsulDenied):
                await stranger.kv.put("gloo/a", b"1")
            with pytest.raises(ConsulDenied):
                await stranger.kv.txn([Put("gloo/a", b"1")])
        async with Consul(replace(server.config, token="no-such-token")) as stranger:
            with pytest.raises(ConsulDenied, match="ACL not found"):
                await stranger.kv.list("gloo/")
        async with Consul(replace(server.config, token=token)) as consul:
            await consul.kv.put("gloo/a", b"1")
            row = await consul.kv.get("gloo/a")
            assert row is not None
            await consul.kv.txn([CheckIndex("gloo/a", row.index), Put("gloo/b", b"2")])
            assert [raw["Key"] for raw in (await consul.kv.list("gloo/"))[1]] == ["gloo/a", "gloo/b"]
            with pytest.raises(ConsulDenied):
                await consul.kv.put("other/a", b"1")


async def test_a_watch_without_permission_publishes_nothing_and_recovers_when_it_is_given(
    tmp_path: Path,
) -> None:
    async with ConsulServer(tmp_path, extra=ACLS) as server:
        await eventually(lambda: _token(server, 'key_prefix "x/" { policy = "read" }'))
        await server.call("PUT", "/v1/kv/gloo/a", b"1", token="root-token")
        policy = await server.call("PUT", "/v1/acl/policy", {"Name": "ours", "Rules": ""}, token="root-token")
        made = await server.call("PUT", "/v1/acl/token", {"Policies": [{"Name": "ours"}]}, token="root-token")
        state, keys = WatchState(), []

        async with (
            Consul(replace(server.config, token=made["SecretID"])) as consul,
            asyncio.TaskGroup() as tasks,
        ):

            async def follow() -> None:
                options = WatchOptions(denied_pause=0.1)
                async for change in watch_prefix(consul.kv, "gloo/", options=options, state=state):
                    keys.append([row.key for row in change.changed])

            watch = tasks.create_task(follow())
            await eventually(lambda: state.errors, until=lambda errors: errors >= 2)
            assert "Permission denied" in state.problem
            assert keys == []
            await server.call(
                "PUT",
                f"/v1/acl/policy/{policy['ID']}",
                {"Name": "ours", "Rules": 'key_prefix "gloo/" { policy = "read" }'},
                token="root-token",
            )
            await eventually(lambda: keys, within=40.0)
            watch.cancel()

        assert keys == [["gloo/a"]]
        assert state.problem == ""


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CA, a server and a client certificate, by Consul's own tool."""
    directory = tmp_path_factory.mktemp("tls")
    for command in ("ca create", "cert create -server", "cert create -client"):
        subprocess.run(
            [consul_binary(), "tls", *command.split()], cwd=directory, check=True, capture_output=True
        )
    return directory


async def test_tls_with_a_private_ca_and_a_client_certificate(tmp_path: Path, certificates: Path) -> None:
    ca = str(certificates / "consul-agent-ca.pem")
    extra = {
        "ca_file": ca,
        "cert_file": str(certificates / "dc1-server-consul-0.pem"),
        "key_file": str(certificates / "dc1-server-consul-0-key.pem"),
        "verify_incoming_https": True,
    }
    async with ConsulServer(tmp_path, extra=extra, tls=True) as server:
        ours = ConsulConfig(
            scheme="https",
            port=server.https_port,
            ca_file=ca,
            cert_file=str(certificates / "dc1-client-consul-0.pem"),
            key_file=str(certificates / "dc1-client-consul-0-key.pem"),
        )
        for config in (
            ours,
            replace(ours, server_name="server.dc1.consul"),
            replace(ours, ca_file="", verify=False),
        ):
            async with Consul(config) as consul:
                await consul.kv.put("a", b"1")
                assert await consul.kv.get("a") is not None
        async with Consul(replace(ours, ca_file="")) as consul:
            with pytest.raises(ConsulUnavailable, match=r"(?i)certificate verify failed"):
                await consul.kv.get("a")
        async with Consul(replace(ours, server_name="elsewhere")) as consul:
            with pytest.raises(ConsulUnavailable, match=r"(?i)hostname mismatch"):
                await consul.kv.get("a")
        async with Consul(replace(ours, cert_file="", key_file="")) as consul:
            with pytest.raises(ConsulUnavailable):
                await consul.kv.get("a")


def _established(port: int) -> int:
    """Our open connections to *port*, as the kernel counts them."""
    lines = Path("/proc/self/net/tcp").read_text().splitlines()[1:]
    return sum(line.split()[2].endswith(f":{port:04X}") and line.split()[3] == "01" for line in lines)
