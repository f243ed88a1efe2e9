"""Stand-ins: a resource as it is served while parts of it are held, or left out for now."""

from __future__ import annotations

from services.gloo.parts import WHOLE, domains_of, joined, parts_of, without_domains
from services.gloo.quarantine.case import Case
from services.gloo.resources import Resource


def replaced(case: Case, wanted: Resource, good: Resource | None) -> Resource | None:
    """The resource with stand-ins; None when nothing can be served."""
    type_url, waiting = case.place.type_url, case.waiting
    base = parts_of(type_url, good.body) if good and waiting else {}
    parts = parts_of(type_url, wanted.body)
    served: dict[str, bytes] = {}
    for part, body in parts.items():
        held = case.held.get(part)
        stand_in = held.good if held else base.get(part) if part in waiting else body
        if stand_in:
            served[part] = stand_in
    if WHOLE not in served:
        return None
    for part in sorted(served):
        if part != WHOLE and served[part] is not parts[part]:
            _give_up_domains(served, part, parts[part])
    return joined(type_url, wanted, served)


def _give_up_domains(served: dict[str, bytes], part: str, wanted: bytes) -> None:
    """A stand-in may have domains that the newer version gave up and another host took over since."""
    lower = {domain.lower() for domain in domains_of(served[part])}
    extra = lower - {domain.lower() for domain in domains_of(wanted)}
    if not extra:
        return
    others = (host for name, host in served.items() if name not in (part, WHOLE))
    taken = extra & {domain.lower() for host in others for domain in domains_of(host)}
    if taken and not (left := without_domains(served[part], taken)):
        del served[part]
    elif taken:
        served[part] = left
