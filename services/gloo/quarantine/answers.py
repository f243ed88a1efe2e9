"""An Envoy's answers: what a yes proves, whom a no makes suspect, and whose no counts for nothing.

Both functions say whether something else is to be served for the answer.
"""

from __future__ import annotations

from collections.abc import Collection, Container

from services.gloo.parts import WHOLE, parts_of
from services.gloo.quarantine.case import Case
from services.gloo.quarantine.held import Blame, Version
from services.gloo.quarantine.search import begin, move_on
from services.gloo.quarantine.shelf import Shelf
from services.gloo.resources import ROUTES, Resource


def accepted(
    shelf: Shelf, case: Case, resource: Resource, client: str, connected: Container[str], now: float
) -> bool:
    case.outvoted.discard(client)
    if resource.digest in case.refused:
        return _cleared(shelf, case, resource, client, connected)
    if shelf.type_url == ROUTES:
        if resource.digest not in case.published:
            return False  # an answer from before the last decision
        while case.published[0] != resource.digest:
            case.published.popleft()
    shelf.prove(resource)
    if not case.groups or (client != case.asked and case.asked in connected):
        return False
    move_on(shelf, case, now)
    return True


def _cleared(shelf: Shelf, case: Case, resource: Resource, client: str, connected: Container[str]) -> bool:
    """Somebody takes what was refused: it is good, and who refused it is on its own."""
    refuser = case.refused.pop(resource.digest)
    if refuser != client and refuser in connected:
        case.outvoted.add(refuser)
    shelf.prove(resource)
    parts = parts_of(shelf.type_url, resource.body) if case.held else {}
    clear = [part for part, held in case.held.items() if held.version.is_in(parts)]
    for part in clear:
        del case.held[part]
    moved = bool(clear or case.groups)
    case.groups.clear()
    return moved


def refused(
    shelf: Shelf, case: Case, resource: Resource, blame: Blame, taken: Collection[Version], now: float
) -> bool:
    """*taken* are versions of the resource's parts that an Envoy somewhere accepts."""
    good = shelf.good.get(resource.name)
    if blame.client in case.outvoted:
        return False
    if good is not None and good.digest == resource.digest and resource.name not in shelf.assumed:
        case.outvoted.add(blame.client)
        return False
    if not _awaited(shelf, case, resource):
        return False  # something else is served by now, and will have its own answer
    suspects = _suspects(shelf, resource)
    if not suspects:
        return False
    innocent = {version.part for version in taken if version.is_in(suspects)}
    suspects = {part: body for part, body in suspects.items() if part not in innocent}
    if not suspects:
        case.outvoted.add(blame.client)
        return False
    case.note_refused(resource.digest, blame.client)
    begin(shelf, case, resource, suspects, blame, now)
    return True


def _awaited(shelf: Shelf, case: Case, resource: Resource) -> bool:
    if shelf.type_url == ROUTES:
        return resource.digest in case.published
    served = shelf.served.by_name.get(resource.name)
    return served is not None and served.digest == resource.digest


def _suspects(shelf: Shelf, resource: Resource) -> dict[str, bytes]:
    """The parts of a refused resource that nobody has accepted so far."""
    parts, good = parts_of(shelf.type_url, resource.body), shelf.good_parts(resource.name)
    found = {part: body for part, body in parts.items() if good.get(part) != body}
    if not found and resource.name in shelf.assumed:
        shelf.disprove(resource.name)
        found, good = dict(parts), {}
    if WHOLE not in good and len(found) > 1:
        found.pop(WHOLE, None)  # without it nothing could be offered
    return found
