"""Selection: which virtual services a gateway serves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from protos import gateway
from services.gateway.translator import labels
from services.gateway.translator.model import Place, Section, Traits
from shared.ref import Ref
from shared.report import Report, join


def select(place: Place, section: Section, services: Mapping[Ref, Traits], report: Report) -> list[Ref]:
    """The virtual services of *section* in order of name; *place* is where it is in a Proxy.

    Gloo 1.2.4 takes an empty ``virtualServiceNamespaces`` for the gateway's own namespace, 1.21 for every
    namespace; we follow 1.21. In both, TLS decides between virtual services with and without it. What is
    found is told at the path of the object the section stands in.
    """
    if section.members is not None:
        return sorted(ref for ref in section.members if ref in services)
    if section.selection is None:
        return []
    chosen = set(_chosen(section, services, report))
    for ref, traits in services.items():  # what was read back from a stored Proxy stays where it was
        if traits.places is not None:
            (chosen.add if place in traits.places else chosen.discard)(ref)
    return sorted(chosen)


def _chosen(section: Section, services: Mapping[Ref, Traits], report: Report) -> Iterator[Ref]:
    http: gateway.HttpGateway = section.selection
    expressions = http.virtual_service_expressions
    wanted = http.virtual_service_selector
    if http.virtual_services and not expressions and not wanted:
        yield from _referenced(section, services, report)
        return
    namespaces = frozenset(http.virtual_service_namespaces)
    for ref, traits in services.items():
        if (traits.ssl is not None) is not section.ssl:
            continue
        if namespaces and "*" not in namespaces and ref.namespace not in namespaces:
            continue
        if expressions is not None and expressions.expressions:
            if labels.match(traits.labels, {}, expressions.expressions):
                yield ref
        elif labels.match(traits.labels, wanted):
            yield ref


def _referenced(section: Section, services: Mapping[Ref, Traits], report: Report) -> Iterator[Ref]:
    http: gateway.HttpGateway = section.selection
    owner = section.owner
    for i, named in enumerate(http.virtual_services):
        ref = Ref(named.namespace or owner.source.ref.namespace, named.name)
        path = join(owner.path, f"httpGateway.virtualServices[{i}]")
        traits = services.get(ref)
        if traits is None:
            report.error(path, f"virtual service {ref} not found")
        elif (traits.ssl is not None) is not section.ssl and traits.places is None:
            have = "sslConfig, but ssl is off" if traits.ssl is not None else "no sslConfig, but ssl is on"
            report.warn(path, f"virtual service {ref} has {have} here")
        else:
            yield ref
