"""Commands against a real Consul, run as users run them."""

from __future__ import annotations

import base64
import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from shared.consul.client import Consul
from shared.ref import Ref
from shared.store.large import Part, ProxyWriter
from tests.support.consul import ConsulServer

pytestmark = pytest.mark.consul

VIRTUAL_SERVICE_KEY = "gloo/gateway.solo.io/v1/VirtualService/gloo-system/default"


def glooctl(
    server: ConsulServer | None, *words: str, stdin: str = "", **environ: str
) -> subprocess.CompletedProcess[str]:
    address = server.address if server else "127.0.0.1:1"
    environment = {**os.environ, "CONSUL_HTTP_ADDR": address, **environ}
    command = [sys.executable, "-m", "glooctl", *words]
    return subprocess.run(command, input=stdin, capture_output=True, text=True, env=environment, check=False)


def test_add_route_creates_the_default_virtual_service_and_prints_it(consul_server: ConsulServer) -> None:
    done = glooctl(
        consul_server,
        *[
            "add",
            "route",
            "--path-exact",
            "/all-pets",
            "--dest-name",
            "petstore",
            "--prefix-rewrite",
            "/api/pets",
            "--use-consul",
        ],
    )

    assert done.returncode == 0, done.stderr
    assert "| default " in done.stdout
    shown = yaml.safe_load(glooctl(consul_server, "get", "vs", "default", "-o", "yaml").stdout)
    assert shown["virtualHost"]["domains"] == ["*"]
    assert shown["virtualHost"]["routes"][0]["options"] == {"prefixRewrite": "/api/pets"}


def test_routes_are_added_sorted_and_removed(consul_server: ConsulServer) -> None:
    for prefix in ("/b", "/bb", "/a"):
        glooctl(consul_server, "add", "route", "--path-prefix", prefix, "--dest-name", "x")

    glooctl(consul_server, "route", "sort", "default")
    removed = glooctl(consul_server, "remove", "route", "default", "--index", "1")

    assert removed.returncode == 0, removed.stderr
    shown = json.loads(glooctl(consul_server, "get", "vs", "default", "-o", "json").stdout)
    assert [route["matchers"][0]["prefix"] for route in shown["virtualHost"]["routes"]] == ["/bb", "/a"]


def test_objects_are_created_from_files_shown_and_deleted(
    consul_server: ConsulServer, tmp_path: Path
) -> None:
    file = tmp_path / "objects.yaml"
    file.write_text(
        """
apiVersion: gateway.solo.io/v1
kind: VirtualService
metadata: {name: web}
spec:
  virtualHost: {domains: [example.com]}
---
metadata: {name: hosts, namespace: gloo-system}
static: {hosts: [{addr: 127.0.0.1, port: 80}]}
"""
    )

    assert glooctl(consul_server, "create", "-f", str(file)).returncode == 0
    assert "example.com" in glooctl(consul_server, "get", "vs", "web").stdout
    assert "- 127.0.0.1:80" in glooctl(consul_server, "get", "us", "hosts").stdout
    again = glooctl(consul_server, "create", "-f", str(file))
    assert (again.returncode, "already exists" in again.stderr) == (1, True)
    assert glooctl(consul_server, "delete", "vs", "web").stdout == "virtualservice web deleted\n"


def test_a_file_with_one_bad_document_creates_nothing(consul_server: ConsulServer) -> None:
    text = "metadata: {name: a}\nstatic: {hosts: []}\n---\nmetadata: {name: b}\nstatic: {hots: []}\n"

    done = glooctl(consul_server, "create", "-f", "-", stdin=text)

    assert done.returncode == 1
    assert "static.hots: unknown field, did you mean hosts?" in done.stderr
    assert "| a " not in glooctl(consul_server, "get", "us").stdout


def test_edit_opens_an_editor_and_writes_what_changed(consul_server: ConsulServer, tmp_path: Path) -> None:
    glooctl(consul_server, "create", "vs", "default", "--domains", "old.example")
    editor = tmp_path / "editor"
    editor.write_text('#!/bin/sh\nsed -i "s/old.example/new.example/" "$1"\n')
    editor.chmod(0o755)

    done = glooctl(consul_server, "edit", "vs", "default", EDITOR=str(editor))

    assert done.returncode == 0, done.stderr
    assert "new.example" in glooctl(consul_server, "get", "vs", "default").stdout
    unchanged = glooctl(consul_server, "edit", "vs", "default", EDITOR="true")
    assert unchanged.stderr == "nothing changed\n"


async def test_an_edit_leaves_the_authors_text_as_it_was(consul_server: ConsulServer, tmp_path: Path) -> None:
    written = (
        "# ours\nvirtual_host:  # the only one\n  domains: [old.example]\n"
        "namespacedStatuses: {statuses: {gloo-system: {state: Accepted}}}\n"
    )
    await consul_server.put(VIRTUAL_SERVICE_KEY, written)
    editor = tmp_path / "editor"
    editor.write_text('#!/bin/sh\n! grep -q Accepted "$1" && sed -i "s/old.example/new.example/" "$1"\n')
    editor.chmod(0o755)

    done = glooctl(consul_server, "edit", "vs", "default", EDITOR=str(editor))

    assert done.returncode == 0, done.stderr
    (row,) = await consul_server.call("GET", f"/v1/kv/{VIRTUAL_SERVICE_KEY}")
    text = base64.b64decode(row["Value"]).decode()
    assert text.startswith("# ours\nvirtual_host:  # the only one\n  domains: [new.example]\n")
    assert yaml.safe_load(text)["namespacedStatuses"]["statuses"] == {"gloo-system": {"state": "Accepted"}}


async def test_old_spellings_are_shown_and_edited_like_todays(consul_server: ConsulServer) -> None:
    route = "{matcher: {exact: /old}, route_action: {single: {upstream: {name: a, namespace: b}}}}"
    await consul_server.put(VIRTUAL_SERVICE_KEY, f"virtual_host: {{domains: [x.example], routes: [{route}]}}")

    shown = glooctl(consul_server, "get", "vs").stdout
    flags = ["--name", "default", "-x", "1", "--path-exact", "/all-pets", "--dest-name", "petstore"]
    added = glooctl(consul_server, "add", "route", *flags)

    assert "x.example" in shown
    assert "/old -> b.a (upstream)" in shown
    assert added.returncode == 0, added.stderr
    assert "/old -> b.a (upstream)" in added.stdout
    assert "/all-pets ->" in added.stdout


async def test_a_gateway_whose_name_is_in_its_value_alone_is_one_like_any_other(
    consul_server: ConsulServer,
) -> None:
    key = "gloo/gateway.solo.io/v1/Gateway/gloo-system"
    await consul_server.put(key, "{metadata: {name: third, namespace: gloo-system}, bindPort: 8085}")

    listed = glooctl(consul_server, "get", "gateway").stdout
    named = glooctl(consul_server, "get", "gateway", "third", "-o", "yaml").stdout
    deleted = glooctl(consul_server, "delete", "gateway", "third")

    assert "| third " in listed
    assert "bindPort: 8085" in named
    assert deleted.stdout == "gateway third deleted\n"
    assert "third" not in glooctl(consul_server, "get", "gateway").stdout


def test_edit_refuses_a_stale_resource_version(consul_server: ConsulServer) -> None:
    glooctl(consul_server, "create", "vs", "default")

    done = glooctl(
        consul_server, *["edit", "vs", "default", "--ssl-secret-name", "cert", "--resource-version", "1"]
    )

    assert done.returncode == 1
    assert "not 1; read it again" in done.stderr


async def test_an_undecodable_object_is_named_and_the_others_are_shown(consul_server: ConsulServer) -> None:
    glooctl(consul_server, "create", "vs", "good")
    await consul_server.put(VIRTUAL_SERVICE_KEY, b"\xff\x00garbage")

    done = glooctl(consul_server, "get", "vs")

    assert done.returncode == 1
    assert "| good " in done.stdout
    assert "gloo-system.default: undecodable" in done.stderr


def test_check_names_what_is_wrong_and_exits_with_1(consul_server: ConsulServer) -> None:
    glooctl(consul_server, "add", "route", "--path-prefix", "/", "--dest-name", "nowhere")

    done = glooctl(consul_server, "check")

    assert done.returncode == 1
    assert "gateway is not running" in done.stdout
    assert "references unknown upstream: (gloo-system nowhere)" in done.stdout
    assert done.stdout.endswith("Problems detected!\n")
    assert (
        "services"
        not in json.loads(glooctl(consul_server, *["check", "-x", "services", "-o", "json"]).stdout)[
            "problems"
        ]
    )


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["get", "upstreem"], 2, "did you mean upstream?"),
        (["get", "us", "--nope"], 2, "--nope"),
        (["get", "us", "-o", "xml"], 2, "known are table"),
        (["add", "route", "--path-exact", "/a"], 2, "exactly one destination"),
        (["get", "vs", "absent"], 1, "gloo-system.absent does not exist"),
        (["delete", "us", "absent"], 1, "gloo-system.absent does not exist"),
        (["create", "-f", "/nowhere"], 1, "cannot read /nowhere"),
        (["create", "vs", "Bad_Name"], 1, "metadata.name"),
        (["edit", "vs"], 2, "give the object's name"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_a_code(
    consul_server: ConsulServer, words: list[str], code: int, says: str
) -> None:
    done = glooctl(consul_server, *words, EDITOR="", VISUAL="")

    assert done.returncode == code
    assert says in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_consul_away_is_one_line_that_says_what_to_do() -> None:
    done = glooctl(None, "get", "us")

    assert done.returncode == 1
    assert "cannot reach Consul at http://127.0.0.1:1" in done.stderr
    assert "--consul-address" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_dry_run_writes_nothing(consul_server: ConsulServer) -> None:
    done = glooctl(consul_server, *["add", "route", "--path-exact", "/a", "--dest-name", "x", "--dry-run"])

    assert yaml.safe_load(done.stdout)["kind"] == "VirtualService"
    assert glooctl(consul_server, "get", "vs", "-o", "yaml").stdout == ""


def test_completion_scripts_are_valid(consul_server: ConsulServer) -> None:
    script = glooctl(consul_server, "completion", "bash").stdout

    asked = f'{script}\nCOMP_WORDS=(glooctl get up); COMP_CWORD=2; _glooctl; echo "${{COMPREPLY[@]}}"'
    done = subprocess.run(["bash", "-c", asked], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["upstream", "upstreamgroup"]


def test_it_starts_fast_and_imports_no_message_class() -> None:
    def seconds() -> float:
        """Of processor time, which other processes of the machine do not lengthen."""
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        glooctl(None, "version")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    assert min(seconds() for _ in range(5)) < 0.3
    code = "import sys, glooctl.app; print(sorted({'betterproto2', 'aiohttp'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


async def test_a_large_proxy_is_shown_whole(consul_server: ConsulServer) -> None:
    ref = Ref("gloo-system", "gateway-proxy")
    skeleton = {
        "metadata": {"name": ref.name, "namespace": ref.namespace},
        "listeners": [{"name": "l", "bindAddress": "::", "bindPort": 8080, "httpListener": {}}],
    }
    hosts = [
        json.dumps({"name": f"host-{i}", "domains": [f"{'x' * 1000}{i}.example.com"]}) for i in range(50)
    ]
    parts = [Part("listeners[0].httpListener.virtualHosts", body.encode()) for body in hosts]
    async with Consul(consul_server.config) as consul:
        assert await ProxyWriter(consul.kv, "gloo").write(ref, skeleton, parts, 0)

    shown = glooctl(consul_server, "get", "proxy")

    assert shown.returncode == 0, shown.stderr
    assert "| 50 " in shown.stdout
    document = json.loads(glooctl(consul_server, "get", "proxy", "-o", "json").stdout)
    assert len(document["listeners"][0]["httpListener"]["virtualHosts"]) == 50


def note(id: str, *names: str) -> bytes:
    held = {
        "gloo/gateway.solo.io/v1/VirtualService/": {"count": len(names), "since": 0.0, "names": list(names)}
    }
    return json.dumps({"id": id, "held": held}).encode()


NOTE_KEY = "gloo/_holds/gateway/gone-1"


async def test_release_lists_what_is_held_asks_and_clears_the_note_of_one_that_is_gone(
    consul_server: ConsulServer,
) -> None:
    await consul_server.put(NOTE_KEY, note("x", "gloo-system/a", "gloo-system/b"))

    listed = glooctl(consul_server, "release", "--dry-run")
    asked = glooctl(consul_server, "release")
    told = json.loads(glooctl(consul_server, "release", "--dry-run", "-o", "json").stdout)
    checked = glooctl(consul_server, "check")
    still = await consul_server.call("GET", f"/v1/kv/{NOTE_KEY}")
    done = glooctl(consul_server, "release", "--yes")

    assert "| VirtualService | gloo-system/a | gateway gone-1 (gone) |" in listed.stdout
    assert asked.returncode == 2
    assert "--yes" in asked.stderr
    assert list(told) == ["gateway gone-1"]
    assert "gateway gone-1, which is gone, went on with 2 of VirtualService" in checked.stdout
    assert still
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "Released.")
    assert await consul_server.call("GET", f"/v1/kv/{NOTE_KEY}") is None
    assert glooctl(consul_server, "release").stdout.startswith("Nothing is held")


async def test_release_says_which_process_does_not_follow(consul_server: ConsulServer) -> None:
    await consul_server.put("gloo/_members/gateway/gone-1", "{}")
    await consul_server.put(NOTE_KEY, note("x", "gloo-system/a"))

    done = glooctl(consul_server, "release", "--yes", "--timeout", "1s")

    assert done.returncode == 1
    assert "not done within 1 s: gateway gone-1" in done.stderr
    assert await consul_server.call("GET", f"/v1/kv/{NOTE_KEY}?raw") == {"released": "x"}


@pytest.mark.parametrize(
    ("kind", "spec", "word", "shown"),
    [
        ("RouteOption", {"options": {"timeout": "1s"}}, "rtopts", "| timeout |"),
        ("HttpListenerOption", {"options": {"buffer": {}}}, "hlisopts", "| buffer  |"),
        ("ListenerOption", {"options": {"tcpStats": True}}, "lisopts", "| tcpStats |"),
        ("MatchableHttpGateway", {"matcher": {"sslConfig": {}}, "httpGateway": {}}, "hgw", "| *   |"),
        ("MatchableTcpGateway", {"tcpGateway": {"tcpHosts": []}}, "tcpgateway", "| Pending |"),
    ],
)
def test_objects_that_others_use_are_created_shown_and_deleted(
    consul_server: ConsulServer, kind: str, spec: dict[str, Any], word: str, shown: str
) -> None:
    metadata = {"name": "quick", "namespace": "gloo-system"}
    document = {"apiVersion": "gateway.solo.io/v1", "kind": kind, "metadata": metadata, "spec": spec}

    created = glooctl(consul_server, "create", "-f", "-", stdin=yaml.safe_dump(document))
    got = glooctl(consul_server, "get", word)
    deleted = glooctl(consul_server, "delete", word, "quick")

    assert created.returncode == 0, created.stderr
    assert "| quick " in got.stdout
    assert shown in got.stdout
    assert deleted.returncode == 0, deleted.stderr
    assert "quick" not in glooctl(consul_server, "get", word).stdout


def test_artifacts_are_made_of_files_and_edited(consul_server: ConsulServer, tmp_path: Path) -> None:
    (tmp_path / "books.pb").write_bytes(b"\x0a\xf4\x02")
    (tmp_path / "readme").write_text("Bücher\n")
    files = ["--from-file", str(tmp_path / "books.pb"), "--from-file", f"about={tmp_path / 'readme'}"]

    done = glooctl(consul_server, "create", "artifact", "books", *files)
    assert done.returncode == 0, done.stderr
    assert "books.pb (4 bytes)" in done.stdout
    (tmp_path / "readme").write_bytes(b"\x01")
    glooctl(consul_server, "edit", "art", "books", "--from-file", str(tmp_path / "readme"))
    shown = yaml.safe_load(glooctl(consul_server, "get", "artifact", "books", "-o", "yaml").stdout)
    assert shown["data"] == {"books.pb": "CvQC", "about": "Bücher\n", "readme": "AQ=="}
    assert "artifact books deleted" in glooctl(consul_server, "delete", "artifact", "books").stdout

    for words, code, said in (
        (["create", "artifact", "books"], 2, "--from-file"),
        (["create", "artifact", "books", "--from-file", "=x"], 2, "is not [KEY=]FILE"),
        (["create", "artifact", "books", "--from-file", "absent"], 1, "cannot read absent"),
    ):
        done = glooctl(consul_server, *words)
        assert (done.returncode, said in done.stderr) == (code, True), done.stderr
