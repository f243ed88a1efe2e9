"""Targets: the gateways that objects of listener options name, since gateways do not refer to them.

As in Gloo 1.21 the gateways' own options go before theirs. In Kubernetes the older one goes before the newer;
here, where none has an age, it is the first by namespace and name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TypeAlias

from protos import gateway
from services.gateway.translator.model import GW, HLO, LO, MHG
from shared.ref import Ref, Source
from shared.report import Report
from shared.store.objects import Stored

ListenerOptions: TypeAlias = gateway.ListenerOption | gateway.HttpListenerOption

KINDS = {LO: (GW,), HLO: (GW, MHG)}
GROUPS = ("", "gateway.solo.io", "gateway.networking.k8s.io")
PATH = "targetRefs"


def targets_of(source: Source, options: ListenerOptions) -> frozenset[Source]:
    """The objects that *options* are for."""
    return frozenset(target for _, target in _targets(source, options))


def check_targets(source: Source, options: ListenerOptions) -> Report:
    """What is wrong with what *options*, the object *source*, say they are for."""
    report = Report()
    for i, target in enumerate(options.target_refs):
        if target.kind not in KINDS[source.kind]:
            known = " or ".join(KINDS[source.kind])
            report.error(f"{PATH}[{i}].kind", f"{target.kind!r} cannot be a target; {known} can")
        if target.group not in GROUPS:
            report.error(f"{PATH}[{i}].group", f"{target.group!r} is not known; gateway.solo.io is")
        if not target.name:
            report.error(f"{PATH}[{i}].name", "is missing")
        if target.section_name:
            report.error(f"{PATH}[{i}].sectionName", "a gateway has no sections here; name all of it")
    return report


def missing_targets(source: Source, options: ListenerOptions, objects: Mapping[Source, Stored]) -> Report:
    """Warnings of targets that are not there, or that the options are not for."""
    report = Report()
    for i, target in _targets(source, options):
        if target not in objects:
            report.warn(f"{PATH}[{i}]", f"{target} not found")
        elif source.kind == HLO and getattr(objects[target].message, "tcp_gateway", None) is not None:
            report.warn(f"{PATH}[{i}]", f"{target} is of TCP, so the options have no effect")
    if not options.target_refs:
        report.warn(PATH, f"names no {' or '.join(KINDS[source.kind])}, so the options have no effect")
    return report


def _targets(source: Source, options: ListenerOptions) -> Iterator[tuple[int, Source]]:
    for i, target in enumerate(options.target_refs):
        yield i, Source(target.kind, Ref(target.namespace or source.ref.namespace, target.name))
