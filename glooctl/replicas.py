"""Which of our processes run, as their member keys in Consul say."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from glooctl.errors import CommandError
from glooctl.objects import Objects

SERVICES = ("discovery", "gateway", "gloo")


@dataclass(frozen=True, slots=True, kw_only=True)
class Replica:
    """One process; *admin* is empty where it does not say where it can be asked."""

    service: str
    name: str
    admin: str = ""
    version: str = ""
    started: str = ""
    leads: bool = False

    def __str__(self) -> str:
        return f"{self.service} {self.name}"


def replicas_of(objects: Objects) -> list[Replica]:
    """All processes on this root key, by service and name."""
    members, leaders = f"{objects.root}/_members/", f"{objects.root}/_leaders/"
    leading = {
        pair.key.removeprefix(leaders): pair.value.decode(errors="replace")
        for pair in objects.consul.list(leaders)
        if pair.session
    }
    found = []
    for pair in objects.consul.list(members):
        service, _, name = pair.key.removeprefix(members).partition("/")
        told = told_in(pair.value)
        found.append(
            Replica(
                service=service,
                name=name,
                admin=str(told.get("admin") or ""),
                version=str(told.get("version") or ""),
                started=str(told.get("started") or ""),
                leads=leading.get(service) == name,
            )
        )
    return sorted(found, key=lambda one: (one.service, one.name))


def gloos(objects: Objects, addresses: Sequence[str]) -> list[Replica]:
    """The gloo processes to ask: those at *addresses*, else all that Consul knows of."""
    if addresses:
        return [Replica(service="gloo", name=address, admin=address) for address in addresses]
    found = [replica for replica in replicas_of(objects) if replica.service == "gloo"]
    if not found:
        raise CommandError("no gloo is running: Consul lists none; name one with --admin-address HOST:PORT")
    return found


def address_of(replica: Replica) -> str:
    if not replica.admin:
        raise CommandError(
            f"{replica} does not say where it can be asked: name it with --admin-address HOST:PORT"
        )
    return replica.admin


def told_in(value: bytes) -> dict[str, Any]:
    """What a process tells of itself in Consul; nothing when it cannot be read."""
    try:
        told = json.loads(value)
    except ValueError:
        return {}
    return told if isinstance(told, dict) else {}
