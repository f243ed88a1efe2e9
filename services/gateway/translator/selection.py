"""Selection: which virtual services a gateway serves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from protos import gateway
from services.gateway.translator import labels
from services.gateway.translator.model import Head, Traits
from shared.ref import Ref
from shared.report import Report


def select(
    place: tuple[str, str], owner: Ref, head: Head, services: Mapping[Ref, Traits], report: Report
) -> list[Ref]:
    """The virtual services of *head* in order of name; *place* is the (proxy, listener) it makes.

    Gloo 1.2.4 takes an empty ``virtualServiceNamespaces`` for the gateway's own namespace, 1.21 for every
    namespace; we follow 1.21. In both, ``ssl`` decides between virtual services with and without TLS.
    """
    if head.members is not None:
        return sorted(ref for ref in head.members if ref in services)
    http: gateway.HttpGateway | None = head.selection
    if http is None:
        return []
    chosen = set(_chosen(http, owner, head.ssl, services, report))
    for ref, traits in services.items():  # what was read back from a stored Proxy stays where it was
        if traits.places is not None:
            (chosen.add if place in traits.places else chosen.discard)(ref)
    return sorted(chosen)


def _chosen(
    http: gateway.HttpGateway, owner: Ref, ssl: bool, services: Mapping[Ref, Traits], report: Report
) -> Iterator[Ref]:
    expressions = http.virtual_service_expressions
    wanted = http.virtual_service_selector
    if http.virtual_services and not expressions and not wanted:
        yield from _referenced(http, owner, ssl, services, report)
        return
    namespaces = frozenset(http.virtual_service_namespaces)
    for ref, traits in services.items():
        if (traits.ssl is not None) is not ssl:
            continue
        if namespaces and "*" not in namespaces and ref.namespace not in namespaces:
            continue
        if expressions is not None and expressions.expressions:
            if labels.match(traits.labels, {}, expressions.expressions):
                yield ref
        elif labels.match(traits.labels, wanted):
            yield ref


def _referenced(
    http: gateway.HttpGateway, owner: Ref, ssl: bool, services: Mapping[Ref, Traits], report: Report
) -> Iterator[Ref]:
    for i, named in enumerate(http.virtual_services):
        ref, path = Ref(named.namespace or owner.namespace, named.name), f"httpGateway.virtualServices[{i}]"
        traits = services.get(ref)
        if traits is None:
            report.error(path, f"virtual service {ref} not found")
        elif (traits.ssl is not None) is not ssl and traits.places is None:
            have = "sslConfig, but ssl is off" if traits.ssl is not None else "no sslConfig, but ssl is on"
            report.warn(path, f"virtual service {ref} has {have} here")
        else:
            yield ref
