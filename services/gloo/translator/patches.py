"""Options to patches: each feature's share, joined; two features that write the same field are refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache
from operator import attrgetter
from typing import Any, TypeVar

import betterproto2

from protos._generated.schema import MESSAGES
from services.gloo.features import FEATURES
from services.gloo.plugin import Feature, Hook, HttpFilter, Patch, Policy, Scope, within
from services.gloo.translator.supported import PACKAGE
from shared.codec.encode import pack
from shared.report import join

M = TypeVar("M", bound=betterproto2.Message)
EMPTY: dict[type, Any] = {list: [], dict: {}}


@dataclass(slots=True, kw_only=True)
class Joined:
    """What all features together add to one message."""

    fields: dict[str, Any] = field(default_factory=dict)
    action: dict[str, Any] = field(default_factory=dict)
    protocol: dict[str, Any] = field(default_factory=dict)
    manager: dict[str, Any] = field(default_factory=dict)
    filters: dict[str, betterproto2.Message] = field(default_factory=dict)
    network: dict[str, betterproto2.Message] = field(default_factory=dict)
    waiting: list[HttpFilter] = field(default_factory=list)
    clusters: set[str] = field(default_factory=set)
    forwarding: list[str] = field(default_factory=list)  # the options that concern the upstream

    def add(self, patch: Patch) -> list[str]:
        """Take over a feature's patch, lists in addition to what is there; give the names that were taken."""
        taken: list[str] = []
        for part in ("fields", "action", "protocol", "manager", "filters", "network"):
            if not (theirs := getattr(patch, part)):
                continue
            mine: dict[str, Any] = getattr(self, part)
            for name, value in theirs.items():
                if isinstance(value, list):
                    mine[name] = [*mine.get(name, ()), *value]
                    continue
                if name in mine:
                    taken.append(name)
                mine[name] = value
        self.waiting += patch.waiting
        self.clusters.update(patch.clusters)
        return taken

    def write(self, message: betterproto2.Message) -> None:
        """Put the fields and filter settings onto *message*."""
        for name, value in self.fields.items():
            setattr(message, name, value)
        if self.filters:
            packed = {name: pack(config) for name, config in self.filters.items()}
            setattr(message, "typed_per_filter_config", packed)  # noqa: B010


def join_patches(place: str, options: betterproto2.Message | None, scope: Scope) -> Joined:
    """What the *options* of one place (``on_route``, …) come to; *scope* is theirs."""
    joined = Joined()
    if options is None:
        return joined
    scope = replace(scope, options=options)
    values, hooks = _hooks(place, type(options).__name__)
    for value, (name, hook, default) in zip(values(options), hooks, strict=True):
        if value is None or value == EMPTY.get(type(value)):
            value = default(scope.policy) if default is not None else None
        if value is not None:
            at = join(scope.path, name)
            patch = hook(value, within(scope, name))
            if taken := joined.add(patch):
                scope.report.error(at, f"contradicts another option ({', '.join(taken)})")
            if patch.action:
                joined.forwarding.append(at)
    return joined


def looked_at(options: M | None, kind: type[M]) -> M:
    """Of the *options* around a route those that its features look at, so that others recompute nothing."""
    kept = kind()
    for attribute in _looked_at(kind.__name__) if options is not None else ():
        setattr(kept, attribute, getattr(options, attribute))
    return kept


@cache
def _looked_at(message: str) -> tuple[str, ...]:
    fields = MESSAGES[PACKAGE + message]
    return tuple(fields[name][0] for feature in FEATURES for name in feature.looks_at.get(message, ()))


Hooked = tuple[str, Hook, Callable[[Policy], Any] | None]


@cache
def _hooks(place: str, message: str) -> tuple[Callable[[Any], tuple[Any, ...]], tuple[Hooked, ...]]:
    there = [feature for feature in FEATURES if getattr(feature, place) is not None]
    hooks = tuple(
        ("" if feature.beside else feature.name, getattr(feature, place), feature.default)
        for feature in there
    )
    getters = [_getter(feature, message) for feature in there]
    return (lambda options: tuple(getter(options) for getter in getters)), hooks


def _getter(feature: Feature, message: str) -> Callable[[Any], Any]:
    """What a feature's hook gets of the options, None when it is not to be called."""
    fields = MESSAGES[PACKAGE + message]
    own = attrgetter(fields[feature.name][0])
    if not feature.beside:
        return own
    values = attrgetter(*(fields[name][0] for name in (feature.name, *feature.beside)))
    return lambda options: options if values(options) != values(type(options)()) else None
