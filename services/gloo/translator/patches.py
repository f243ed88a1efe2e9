"""Options to patches: each feature's share, joined; two features that write the same field are refused."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from operator import attrgetter
from typing import Any

import betterproto2

from protos import gloo
from protos._generated.schema import MESSAGES
from services.gloo.features import FEATURES
from services.gloo.plugin import Hook, Patch, Policy, Scope
from services.gloo.translator.supported import PACKAGE
from shared.codec.encode import pack
from shared.report import Report, join


@dataclass(slots=True, kw_only=True)
class Joined:
    """What all features together add to one message."""

    fields: dict[str, Any] = field(default_factory=dict)
    action: dict[str, Any] = field(default_factory=dict)
    protocol: dict[str, Any] = field(default_factory=dict)
    filters: dict[str, betterproto2.Message] = field(default_factory=dict)
    forwarding: list[str] = field(default_factory=list)  # the options that concern the upstream

    def add(self, patch: Patch) -> list[str]:
        """Take over a feature's patch; give the names that were taken already."""
        taken: list[str] = []
        for mine, theirs in (
            (self.fields, patch.fields),
            (self.action, patch.action),
            (self.protocol, patch.protocol),
            (self.filters, patch.filters),
        ):
            if theirs:
                taken += [name for name in theirs if name in mine]
                mine.update(theirs)
        return taken

    def write(self, message: betterproto2.Message) -> None:
        """Put the fields and filter settings onto *message*."""
        for name, value in self.fields.items():
            setattr(message, name, value)
        if self.filters:
            packed = {name: pack(config) for name, config in self.filters.items()}
            setattr(message, "typed_per_filter_config", packed)  # noqa: B010


def join_patches(
    place: str,
    options: betterproto2.Message | None,
    path: str,
    policy: Policy,
    report: Report,
    matchers: Sequence[gloo.Matcher] = (),
) -> Joined:
    """What the options of one place (``on_route``, …) come to."""
    joined = Joined()
    if options is None:
        return joined
    values, hooks = _hooks(place, type(options).__name__)
    for value, (name, hook) in zip(values(options), hooks, strict=True):
        if value is not None:
            at = join(path, name)
            scope = Scope(path=at, report=report, policy=policy, matchers=matchers)
            patch = hook(value, scope)
            if taken := joined.add(patch):
                report.error(at, f"contradicts another option ({', '.join(taken)})")
            if patch.action:
                joined.forwarding.append(at)
    return joined


@cache
def _hooks(place: str, message: str) -> tuple[Callable[[Any], tuple[Any, ...]], tuple[tuple[str, Hook], ...]]:
    fields = MESSAGES[PACKAGE + message]
    hooks = tuple((f.name, getattr(f, place)) for f in FEATURES if getattr(f, place) is not None)
    getters = [attrgetter(fields[name][0]) for name, _ in hooks]
    return (lambda options: tuple(getter(options) for getter in getters)), hooks
