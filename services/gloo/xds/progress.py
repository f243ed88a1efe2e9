"""How far a client is behind what its role is served. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from services.gloo.resources import Resources, TypeUrl
from services.gloo.xds.subscription import Comparisons, Subscription, same
from shared.ref import Source


@dataclass(frozen=True, slots=True, kw_only=True)
class Blame:
    """What a client's last refusal of a type was about, and the objects behind it."""

    message: str
    at: float
    resources: tuple[str, ...]
    objects: tuple[str, ...]


def missing(state: Subscription, target: Resources, compare: Comparisons) -> set[str]:
    """The names of which the client does not have the newest, or has not said that it has."""
    names = {*compare.changed(state.base, target), *state.differs}
    behind = {name for name in names if not same(state.has(name), target.by_name.get(name))}
    behind.update(name for flight in state.flights for name in flight.names)
    return {name for name in behind if state.covers(name)}


def refused(state: Subscription, target: Resources) -> set[str]:
    """The names whose newest resource the client would not take."""
    return {
        name
        for name, refusal in state.refused.items()
        if (want := target.by_name.get(name)) is not None and want.digest == refusal.digest
    }


def concerned(names: Iterable[str], state: Subscription, target: Resources, source: Source) -> set[str]:
    """Those of *names* whose resource comes from *source*, or came from it before it went."""
    either = ((name, target.by_name.get(name) or state.has(name)) for name in names)
    return {name for name, resource in either if resource is not None and source in resource.sources}


def sum_up(behind: Iterable[tuple[str, TypeUrl, int]], shown: int) -> list[dict[str, object]]:
    """The first few clients that are behind: node, type and how many resources it lacks."""
    listed = sorted(behind)[:shown]
    return [{"node": node, "type": type_url, "missing": count} for node, type_url, count in listed]
