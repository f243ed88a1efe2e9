"""What running processes go on with although Consul has lost it, as their notes in Consul have it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from glooctl.objects import Objects
from glooctl.replicas import Replica, told_in


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """What one process holds; *running* says whether it is there to be answered."""

    key: str
    id: str
    process: str
    held: Mapping[str, Mapping[str, Any]]
    running: bool

    def lines(self) -> Iterator[tuple[str, int, str]]:
        """Of what it holds how many, since when."""
        for what, told in self.held.items():
            yield in_words(what), told["count"], when(told["since"])

    def names(self) -> Iterator[tuple[str, str]]:
        """Each thing it holds, by what it is; of very many not all are told."""
        for what, told in self.held.items():
            for name in told["names"]:
                yield in_words(what), _readable(name)


def notes_of(objects: Objects, running: Sequence[Replica]) -> list[Note]:
    """The notes of all processes that hold something."""
    names = {f"{replica.service}/{replica.name}" for replica in running}
    prefix = f"{objects.root}/_holds/"
    notes = []
    for pair in objects.consul.list(prefix):
        document = told_in(pair.value)
        if "held" in document:
            name = pair.key.removeprefix(prefix)
            note = Note(
                key=pair.key,
                id=str(document["id"]),
                process=name.replace("/", " ", 1),
                held=document["held"],
                running=name in names,
            )
            notes.append(note)
    return notes


def when(moment: float) -> str:
    """A Unix time as people are shown it."""
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="seconds")


def in_words(what: str) -> str:
    """``VirtualService`` of ``gloo/gateway.solo.io/v1/VirtualService/``; what is no prefix of keys stays."""
    return what.rstrip("/").split("/v1/")[-1] if what.endswith("/") else what


def _readable(name: str) -> str:
    if not name.startswith("["):
        return name
    service, instance, node, *_ = json.loads(name)
    return f"{service} {instance} on {node}"
