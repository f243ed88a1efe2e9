"""Functions of AWS Lambda: called by routes and nothing else, signed with keys that nobody gets to see."""

from __future__ import annotations

import io
import json
from base64 import b64decode
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from tests.support.aws import Aws, Invocation, returned
from tests.support.backends import Backend
from tests.support.stack import Stack, direct, to_upstream, virtual_service
from tests.support.waiting import eventually

pytestmark = pytest.mark.e2e

KEY, SECRET, OTHER = "AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCY", "another/secret+of/the+same"
UPSTREAM = {
    "region": "eu-central-1",
    "secretRef": {"name": "aws", "namespace": "gloo-system"},
    "lambdaFunctions": [
        {"logicalName": "echo", "lambdaFunctionName": "echo", "qualifier": "$LATEST"},
        {
            "logicalName": "arn",
            "lambdaFunctionName": "arn:aws:lambda:eu-central-1:123456789012:function:echo",
        },
    ],
}
PROXIED = {"isBase64Encoded": False, "statusCode": 201, "headers": {"x-a": "b"}, "body": "made"}


def calls(prefix: str, function: str = "echo", **options: Any) -> dict[str, Any]:
    """A route to a function; *options* are its destinationSpec's."""
    route = to_upstream(prefix, "functions")
    route["routeAction"]["single"]["destinationSpec"] = {"aws": {"logicalName": function, **options}}
    return route


class Site:
    """A stack with an Upstream of functions, its key in a directory."""

    def __init__(self, stack: Stack, aws: Aws, folder: Path) -> None:
        self.stack, self.aws, self.folder = stack, aws, folder

    def store(self, secret: str, **kind: Any) -> None:
        path = self.folder / "secrets" / "gloo-system" / "aws.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = path.with_suffix(".new")
        scratch.write_text(yaml.safe_dump(kind or {"aws": {"accessKey": KEY, "secretKey": secret}}))
        scratch.replace(path)

    async def serve(self, *routes: Mapping[str, Any]) -> None:
        await self.stack.put("Upstream", "functions", {"aws": UPSTREAM})
        await self.stack.put("VirtualService", "functions", virtual_service(*routes))

    async def ask(
        self, path: str, body: bytes | None = None, method: str = "POST", **headers: str
    ) -> tuple[int, Mapping[str, str], str]:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        url = f"http://127.0.0.1:{self.stack.http_port}{path}"
        async with (
            aiohttp.ClientSession() as http,
            http.request(
                method,
                url,
                data=io.BytesIO(body) if body else None,
                headers=named,
                skip_auto_headers=["content-type"],
            ) as answer,
        ):
            found = {name.lower(): value for name, value in answer.headers.items()}
            return answer.status, found, (await answer.read()).decode()

    async def called(self, path: str, body: bytes | None = None, **how: Any) -> Invocation:
        """What came of one request."""
        before = len(self.aws.calls)
        status, _, text = await self.ask(path, body, **how)
        assert len(self.aws.calls) == before + 1, (status, text, self.aws.forged[-1:])
        return self.aws.calls[-1]


@pytest.fixture(params=["delta"])
async def site(
    tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Site]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "of-envoy")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", OTHER)
    folder = tmp_path / "secret"
    async with Aws({KEY: SECRET}) as aws:
        settings = {
            "directorySecretSource": {"directory": str(folder)},
            "gloo": {"xdsBindAddr": "", "awsOptions": {"lambdaEndpoint": aws.address}},
        }
        stack = Stack(tmp_path, delta=request.param == "delta")
        settings["gloo"] |= stack.settings["gloo"]
        stack.settings |= settings
        site = Site(stack, aws, folder)
        site.store(SECRET)
        async with stack:
            yield site


async def test_requests_call_functions(site: Site) -> None:
    aws = site.aws
    aws.returns["echo"] = returned({"hello": "world"})
    await site.serve(
        calls("/plain"),
        calls("/arn", "arn"),
        calls("/later", invocationStyle="ASYNC"),
        calls("/wrapped", requestTransformation=True) | {"options": {"prefixRewrite": "/rewritten"}},
        calls("/unwrapped", responseTransformation=True),
        calls("/alb", unwrapAsAlb=True),
        calls("/api", unwrapAsApiGateway=True),
        calls("/retried", requestTransformation=True)
        | {"options": {"retries": {"retryOn": "5xx", "numRetries": 2}}},
    )
    await eventually(lambda: site.ask("/plain"), until=lambda answer: answer[0] == 200)

    # the body alone, and nothing of the request's own terms
    call = await site.called(
        "/plain/x?Qualifier=evil",
        b"\x00payload",
        x_amz_log_type="Tail",
        x_amz_security_token="t",
        authorization="Basic YTpi",
        cookie="a=b",
    )
    assert (call.function, call.qualifier, call.kind) == ("echo", "$LATEST", "RequestResponse")
    assert call.body == b"\x00payload"
    assert not call.headers.keys() & {"x-amz-log-type", "x-amz-security-token"}
    assert (call.by.key, call.by.region, call.by.service) == (KEY, "eu-central-1", "lambda")
    assert (await site.ask("/plain"))[2] == '{"hello": "world"}'
    assert (await site.called("/plain", method="GET")).body == b""
    assert (await site.called("/arn")).function == "arn:aws:lambda:eu-central-1:123456789012:function:echo"
    large = b"x" * 900_000
    assert (await site.called("/plain", large)).body == large
    status, _, _ = await site.ask("/plain", b"x" * 1_200_000)
    assert status == 413

    # the answer is not waited for
    status, _, text = await site.ask("/later", b"{}")
    assert (status, text, aws.calls[-1].kind) == (202, "", "Event")

    # the request as an event
    call = await site.called(
        "/wrapped/a?b=1&b=2&c", b'caf\xc3\xa9 "', method="PUT", x_a="1", authorization="Basic YTpi"
    )
    event = json.loads(call.body)
    assert event | {"headers": {}, "multiValueHeaders": {}} == {
        "httpMethod": "PUT",
        "path": "/wrapped/a",
        "queryString": "b=1&b=2&c",
        "queryStringParameters": {"b": "2", "c": ""},
        "multiValueQueryStringParameters": {"b": ["1", "2"], "c": [""]},
        "headers": {},
        "multiValueHeaders": {},
        "body": 'café "',
        "isBase64Encoded": False,
    }
    assert event["headers"]["x-a"] == "1"
    assert event["headers"]["authorization"] == "Basic YTpi"
    assert event["headers"]["host"] == f"127.0.0.1:{site.stack.http_port}"
    assert event["multiValueHeaders"]["x-a"] == ["1"]
    assert call.headers["content-type"] == "application/json"
    binary = json.loads((await site.called("/wrapped", b"\xff\x00")).body)
    assert (binary["body"], binary["isBase64Encoded"]) == ("/wA=", True)
    empty = json.loads((await site.called("/wrapped", method="GET")).body)
    assert (empty["body"], empty["queryStringParameters"], empty["httpMethod"]) == ("", {}, "GET")

    # a further try is the same call
    aws.failures = 2
    before = len(aws.calls)
    status, _, _ = await site.ask("/retried?a=1", b"again")
    tries = aws.calls[before:]
    assert (status, len(tries)) == (200, 3)
    assert {each.body for each in tries} == {tries[0].body}
    assert json.loads(tries[0].body)["path"] == "/retried"

    # what it returns as the answer
    for path in ("/unwrapped", "/alb", "/api"):
        aws.returns["echo"] = returned(PROXIED)
        status, headers, text = await site.ask(path)
        assert (status, headers["x-a"], text) == (201, "b", "made")
        aws.returns["echo"] = returned(
            {
                "multiValueHeaders": {"Set-Cookie": ["a=1", "b=2"], "Content-Type": ["text/x"]},
                "body": "/wA=",
                "isBase64Encoded": True,
            }
        )
        async with (
            aiohttp.ClientSession() as http,
            http.get(f"http://127.0.0.1:{site.stack.http_port}{path}") as answer,
        ):
            assert (answer.status, await answer.read()) == (200, b"\xff\x00")
            assert answer.headers.getall("set-cookie") == ["a=1", "b=2"]
            assert answer.headers["content-type"] == "text/x"
    for malformed in (
        [],
        {"statusCode": 99},
        {"statusCode": "2000"},
        {"body": {}},
        {"headers": {"x-a": "1\r\nx-b: 2"}},
        {"headers": {":status": "200"}},
        {"headers": []},
        {"multiValueHeaders": {"a": "b"}},
    ):
        aws.returns["echo"] = returned(malformed)
        assert (await site.ask("/alb"))[0] == 502, malformed
    assert (await site.ask("/plain"))[0] == 200

    # a function that fails
    aws.returns["echo"] = returned({"errorMessage": "no"}, X_Amz_Function_Error="Unhandled")
    for path in ("/plain", "/alb"):
        status, _, text = await site.ask(path)
        assert (status, json.loads(text)) == (504, {"errorMessage": "no"})
    assert aws.forged == []


async def test_nothing_but_a_route_to_a_function_is_signed(site: Site) -> None:
    async with Backend("pets") as pets:
        host = {"addr": "127.0.0.1", "port": pets.port}
        await site.stack.put("Upstream", "pets", {"static": {"hosts": [host]}})
        functions = {"upstream": {"name": "functions", "namespace": "gloo-system"}}
        await site.serve(
            calls("/call"),
            {"matchers": [{"prefix": "/chosen"}], "routeAction": {"clusterHeader": "x-cluster"}},
            to_upstream("/mirrored", "pets", shadowing={**functions, "percentage": 100}),
        )
        await eventually(lambda: site.ask("/call"), until=lambda answer: answer[0] == 200)
        before = len(site.aws.calls)

        status, _, text = await site.ask("/chosen/2015-03-31/functions/", x_cluster="functions_gloo-system")
        assert (status, text) == (404, "no route leads to a function of this upstream here")
        assert (await site.ask("/mirrored"))[0] == 200
        assert "mirrored" in str(pets.last)
        assert (len(site.aws.calls), site.aws.forged) == (before, [])


async def test_envoy_finds_a_key_by_itself_if_settings_say_so(site: Site) -> None:
    site.aws.keys["of-envoy"] = OTHER
    own = {name: value for name, value in UPSTREAM.items() if name != "secretRef"}
    await site.stack.put("Upstream", "own", {"aws": own})
    await site.stack.put("VirtualService", "own", virtual_service(to_upstream("/own", "own")))
    await site.stack.status_is("Rejected", "Upstream", "own", saying="aws.secretRef: required, unless")

    options = site.stack.settings["gloo"]["awsOptions"] | {"enableCredentialsDiscovey": True}
    options |= {"fallbackToFirstFunction": True, "propagateOriginalRouting": True}
    site.stack.write_settings(gloo=site.stack.settings["gloo"] | {"awsOptions": options})
    await eventually(lambda: site.ask("/own"), until=lambda answer: answer[0] == 200)
    call = await site.called("/own/x", method="PUT")
    assert (call.function, call.by.key) == ("echo", "of-envoy")
    told = {name: value for name, value in call.headers.items() if name.startswith("x-envoy-original-")}
    assert told == {
        "x-envoy-original-host": f"127.0.0.1:{site.stack.http_port}",
        "x-envoy-original-method": "PUT",
        "x-envoy-original-path": "/own/x",
    }


@pytest.mark.parametrize("site", ["delta", "state of the world"], indirect=True)
async def test_a_key_is_renewed_by_itself_and_shown_to_nobody(site: Site, tmp_path: Path) -> None:
    stack = site.stack
    await stack.stop_process("gloo")
    stack.start_role("gloo", flags=["--state-dir", str(tmp_path / "state")])
    await stack.ready("gloo")
    await site.serve(calls("/call"))
    await eventually(lambda: site.ask("/call"), until=lambda answer: answer[0] == 200)
    await stack.status_is("Accepted", "Upstream", "functions")
    clusters = await stack.envoy("/stats?filter=cluster_manager.cluster_(added|modified)")

    site.aws.keys[KEY] = OTHER
    assert (await site.ask("/call"))[0] == 403
    site.store(OTHER)
    await eventually(lambda: site.ask("/call"), until=lambda answer: answer[0] == 200)
    assert await stack.envoy("/stats?filter=cluster_manager.cluster_(added|modified)") == clusters

    site.store("", header={"headers": {"a": "b"}})
    await stack.status_is("Rejected", "Upstream", "functions", saying="is of kind header; aws is needed")
    assert (await site.ask("/call"))[0] == 200
    site.store(OTHER)
    await stack.status_is("Accepted", "Upstream", "functions")

    await eventually(lambda: list((tmp_path / "state").glob("*.snapshot")))
    await stack.stop_process("gloo")
    site.folder.rename(tmp_path / "away")
    stack.start_role("gloo", flags=["--state-dir", str(tmp_path / "state")])
    await stack.ready("gloo")
    connected = "control_plane.connected_state: 1"
    await eventually(lambda: stack.envoy("/stats?filter=control_plane"), until=lambda text: connected in text)
    await stack.put("VirtualService", "live", virtual_service(direct("/", "live"), domains=["live.com"]))
    await stack.answers("/", host="live.com", saying="live")
    assert (await site.ask("/call"))[0] == 200  # with the key that Envoy has
    (tmp_path / "away").rename(site.folder)
    await stack.status_is("Accepted", "Upstream", "functions")
    assert (await site.ask("/call"))[0] == 200

    rows = await stack.consul.call("GET", "/v1/kv/?recurse")
    pages = [
        await stack.debug("gloo", page)
        for page in ("gloo", "xds", "roles", "snapshot/gloo-system~gateway-proxy")
    ]
    told = [*written(tmp_path), *(b64decode(row["Value"] or "") for row in rows), str(pages).encode()]
    told.append((await stack.envoy("/config_dump?include_eds")).encode())
    assert any(b"aws:gloo-system/aws:eu-central-1" in each for each in told)
    for secret in (SECRET, OTHER):
        assert not any(secret.encode() in each for each in told)


def written(folder: Path) -> list[bytes]:
    """What is in the state directory, and all logs."""
    return [
        each.read_bytes() for each in (*(folder / "state").iterdir(), *folder.glob("*.log")) if each.is_file()
    ]
