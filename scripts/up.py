"""Run the whole system of the Procfile, say when it is ready, and leave nothing behind.

Every port can be moved by its environment variable (see PORTS), all together by PORT_OFFSET, so that two
stacks fit on one machine. Settings and Envoy's bootstrap are rendered from examples/ into
``.run/<HTTP port>/``; what the processes print goes to ``stack.log`` there.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType

import yaml

ROOT = Path(__file__).resolve().parent.parent
PORTS = {
    "HTTP_PORT": 8080,
    "HTTPS_PORT": 8443,
    "ENVOY_ADMIN_PORT": 19000,
    "XDS_PORT": 9977,
    "CONSUL_PORT": 8500,
    "PETSTORE_PORT": 8090,
    "GLOO_ADMIN_PORT": 9091,
    "GATEWAY_ADMIN_PORT": 9092,
    "DISCOVERY_ADMIN_PORT": 9093,
}
PUBLIC = ("HTTP_PORT", "HTTPS_PORT")
READY_SECONDS = 90.0
STOP_SECONDS = 15.0


def main() -> int:
    started = time.monotonic()
    ports = choose_ports(os.environ)
    refuse_taken(ports)
    run_dir = ROOT / ".run" / str(ports["HTTP_PORT"])
    render(run_dir, ports)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupted)
    adopt_orphans()
    print(
        f"== starting Consul, petstore, gloo, gateway, discovery, Envoy (log: {shown(run_dir)}/stack.log)",
        flush=True,
    )
    runner = start(run_dir, ports)
    try:
        wait_until_ready(runner, ports)
        print(f"== ready after {time.monotonic() - started:.1f} s\n\n{welcome(run_dir, ports)}", flush=True)
        runner.wait()
        raise Broken("the stack fell over")
    except Broken as broken:
        stop(runner)
        print(f"== {broken}{diagnosis(run_dir / 'stack.log')}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\n== stopping", flush=True)
        stop(runner)
        print("== stopped")
        return 0


class Broken(Exception):
    """The stack does not come up, or fell over."""


def interrupted(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


# Ports


def choose_ports(environ: Mapping[str, str]) -> dict[str, int]:
    offset = number_of(environ, "PORT_OFFSET", 0)
    ports = {name: number_of(environ, name, port + offset) for name, port in PORTS.items()}
    ports["CONSUL_SERVER_PORT"] = number_of(environ, "CONSUL_SERVER_PORT", ports["CONSUL_PORT"] - 200)
    ports["CONSUL_SERF_PORT"] = number_of(environ, "CONSUL_SERF_PORT", ports["CONSUL_PORT"] - 199)
    users: dict[int, str] = {}
    for name, port in ports.items():
        if not 0 < port < 65536:
            sys.exit(f"{name}={port} is not a port; set {name} to a number from 1 to 65535")
        if port in users:
            sys.exit(f"{users[port]} and {name} are both {port}; set {name} to another port")
        users[port] = name
    return ports


def number_of(environ: Mapping[str, str], name: str, default: int) -> int:
    text = environ.get(name) or str(default)
    try:
        return int(text)
    except ValueError:
        sys.exit(f"{name}={text} is not a number")


def refuse_taken(ports: Mapping[str, int]) -> None:
    taken = [name for name, port in ports.items() if is_taken(port, everywhere=name in PUBLIC)]
    for name in taken:
        print(
            f"port {ports[name]} is in use; stop what listens there, or set {name} to another port",
            file=sys.stderr,
        )
    if taken:
        sys.exit("nothing was started (PORT_OFFSET=10000 moves all ports at once)")


def is_taken(port: int, *, everywhere: bool) -> bool:
    families = [(socket.AF_INET, "0.0.0.0" if everywhere else "127.0.0.1")]
    if everywhere and socket.has_ipv6:
        families.append((socket.AF_INET6, "::"))
    for family, address in families:
        try:
            with socket.socket(family) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((address, port))
        except PermissionError:
            sys.exit(f"port {port} may be used by root alone; set the variable to one above 1023")
        except OSError:
            if family == socket.AF_INET:
                return True
    return False


# What the processes read


def render(run_dir: Path, ports: Mapping[str, int]) -> None:
    """Settings, bootstrap and petstore's registration with this stack's addresses."""
    shutil.rmtree(run_dir / "state", ignore_errors=True)  # Consul starts empty: nothing old may be served
    for folder in ("state", "data/gloo-system"):
        (run_dir / folder).mkdir(parents=True, exist_ok=True)

    settings = yaml.safe_load((ROOT / "examples/data/gloo-system/default.yaml").read_text())
    settings["consul"]["address"] = f"127.0.0.1:{ports['CONSUL_PORT']}"
    settings["gloo"]["xdsBindAddr"] = f"127.0.0.1:{ports['XDS_PORT']}"
    # None runs here; it is looked for when something refers to a secret.
    vault = os.environ.get("VAULT_PORT", "8200")
    settings["vaultSecretSource"]["address"] = f"http://127.0.0.1:{vault}"
    write(run_dir / "data/gloo-system/default.yaml", yaml.safe_dump(settings, sort_keys=False))

    bootstrap = yaml.safe_load((ROOT / "examples/data/envoy.yaml").read_text())
    (endpoint,) = bootstrap["static_resources"]["clusters"][0]["load_assignment"]["endpoints"][0][
        "lb_endpoints"
    ]
    endpoint["endpoint"]["address"]["socket_address"] = {
        "address": "127.0.0.1",
        "port_value": ports["XDS_PORT"],
    }
    bootstrap["admin"]["address"]["socket_address"]["port_value"] = ports["ENVOY_ADMIN_PORT"]
    write(run_dir / "envoy.yaml", yaml.safe_dump(bootstrap, sort_keys=False))

    service = json.loads((ROOT / "examples/petstore/petstore-service.json").read_text())
    write(
        run_dir / "petstore-service.json",
        json.dumps(service | {"Port": ports["PETSTORE_PORT"]}, indent=2) + "\n",
    )


def write(path: Path, text: str) -> None:
    """Replace the file as a whole, so that nobody reads half of it."""
    scratch = path.with_name(path.name + ".new")
    scratch.write_text(text)
    scratch.replace(path)


# Processes


def start(run_dir: Path, ports: Mapping[str, int]) -> subprocess.Popen[bytes]:
    """honcho in a session of its own, so that Ctrl-C reaches us alone; it stops when we die."""
    environ = os.environ | {name: str(port) for name, port in ports.items()} | {"RUN_DIR": str(run_dir)}
    command = [sys.executable, "-m", "honcho", "--no-colour", "-f", "Procfile", "-e", os.devnull, "start"]
    with (run_dir / "stack.log").open("wb") as log:
        return subprocess.Popen(
            command,
            cwd=ROOT,
            env=environ | {"PYTHONUNBUFFERED": "1"},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=stop_with_parent,
        )


def wait_until_ready(runner: subprocess.Popen[bytes], ports: Mapping[str, int]) -> None:
    waiting: dict[str, Callable[[], bool]] = {
        "Consul": lambda: len(ask(ports["CONSUL_PORT"], "/v1/status/leader") or b"") > 2,
        "petstore": lambda: ask(ports["PETSTORE_PORT"], "/healthz") is not None,
        "gateway": lambda: ask(ports["GATEWAY_ADMIN_PORT"], "/readyz") is not None,
        "discovery": lambda: ask(ports["DISCOVERY_ADMIN_PORT"], "/readyz") is not None,
        "gloo": lambda: ask(ports["GLOO_ADMIN_PORT"], "/readyz") is not None,
        "Envoy": lambda: ask(ports["ENVOY_ADMIN_PORT"], "/ready") is not None,
    }
    until = time.monotonic() + READY_SECONDS
    while waiting:
        for name in [name for name, is_ready in waiting.items() if is_ready()]:
            del waiting[name]
            print(f"   {name} is ready", flush=True)
        if runner.poll() is not None:
            raise Broken("the stack fell over")
        if time.monotonic() > until:
            raise Broken(f"not ready after {READY_SECONDS:.0f} s: {', '.join(waiting)}")
        time.sleep(0.1)


def ask(port: int, path: str) -> bytes | None:
    """The answer, or None when it is not a 200."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=2) as answer:
            body: bytes = answer.read()
            return body
    except OSError:
        return None


def stop(runner: subprocess.Popen[bytes]) -> None:
    """Ask honcho to stop all; whoever is left after a while, or after a second Ctrl-C, is killed."""
    try:
        runner.terminate()
        runner.wait(STOP_SECONDS)
    except (subprocess.TimeoutExpired, KeyboardInterrupt):
        pass
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    while left := descendants(os.getpid()):
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, 0)[0]:
                pass


def descendants(pid: int) -> list[int]:
    """All processes under *pid*; those whose parent died have come to us (see adopt_orphans)."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
            if state != "Z":
                children.setdefault(int(parent), []).append(int(stat.parent.name))
    found, queue = [], [pid]
    while queue:
        below = children.get(queue.pop(), [])
        found += below
        queue += below
    return found


def adopt_orphans() -> None:
    """Become the parent of orphaned descendants, and stop when our own parent (make) dies."""
    prctl(36, 1)  # PR_SET_CHILD_SUBREAPER
    stop_with_parent()


def stop_with_parent() -> None:
    prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


def prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


# What is printed


def welcome(run_dir: Path, ports: Mapping[str, int]) -> str:
    consul, here = f"127.0.0.1:{ports['CONSUL_PORT']}", "http://127.0.0.1"
    glooctl = ".venv/bin/glooctl"
    if ports["CONSUL_PORT"] != PORTS["CONSUL_PORT"]:
        glooctl = f"CONSUL_HTTP_ADDR={consul} {glooctl}"
    service = "examples/petstore/petstore-service.json"
    if ports["PETSTORE_PORT"] != PORTS["PETSTORE_PORT"]:
        service = f"{shown(run_dir)}/petstore-service.json"
    return f"""\
   HTTP through Envoy   {here}:{ports["HTTP_PORT"]}
   HTTPS                https://127.0.0.1:{ports["HTTPS_PORT"]} (once there is a certificate: examples/tls)
   Envoy's admin        {here}:{ports["ENVOY_ADMIN_PORT"]}/config_dump
   Consul               {here}:{ports["CONSUL_PORT"]}/ui
   petstore itself      {here}:{ports["PETSTORE_PORT"]}/api/pets
   gloo                 {here}:{ports["GLOO_ADMIN_PORT"]}/debug
   gateway              {here}:{ports["GATEWAY_ADMIN_PORT"]}/debug
   discovery            {here}:{ports["DISCOVERY_ADMIN_PORT"]}/debug

Try these two, in another terminal: register petstore in Consul, and give it a route.

   curl -X PUT --data @{service} http://{consul}/v1/agent/service/register
   {glooctl} add route --path-exact /all-pets --dest-name petstore --prefix-rewrite /api/pets --use-consul

Then: curl {here}:{ports["HTTP_PORT"]}/all-pets
Ctrl-C stops everything.
"""


def shown(path: Path) -> str:
    return str(path.relative_to(ROOT))


def diagnosis(log: Path, lines: int = 20) -> str:
    """Which process ended first, and what it said at the end; else the end of everything."""
    text = log.read_text(errors="replace")
    said, which = text.splitlines(), ""
    if ended := re.search(r"^\S+ system +\| (\w+)\.1 stopped \(rc=(-?\d+)\)$", text, re.M):
        said = [line for line in said if f" {ended[1]}.1 " in line.partition("|")[0]]
        which = f": {ended[1]} ended by itself ({ended[2]})"
    return f"{which}; the end of {shown(log)}:\n" + "\n".join(said[-lines:])


if __name__ == "__main__":
    sys.exit(main())
