"""The search for the guilty among several suspects: left out by halves, until one must be it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from services.gloo.parts import part_digest
from services.gloo.quarantine.case import Case, Group
from services.gloo.quarantine.held import Blame, Held
from services.gloo.quarantine.shelf import Shelf
from services.gloo.quarantine.words import accused, counted
from services.gloo.resources import Resource


def begin(
    shelf: Shelf, case: Case, refused: Resource, suspects: Mapping[str, bytes], blame: Blame, now: float
) -> None:
    """Convict the only one of the *suspects*, or leave some out and see what becomes of the others."""
    case.asked, case.since = blame.client, now
    case.published.clear()
    for group in case.groups:
        group.blame = None
    digests = {part: part_digest(body) for part, body in suspects.items()}
    if len(suspects) == 1:
        ((part, digest),) = digests.items()
        convict(shelf, case, part, digest, blame, now)
        return
    aside = counted(blame.text, refused, suspects) or accused(blame.text, suspects)
    aside = aside or set(list(suspects)[len(suspects) // 2 :])
    beside = {part: digest for part, digest in digests.items() if part not in aside}
    case.groups.insert(0, Group({part: digests[part] for part in sorted(aside)}, blame, beside))


def move_on(shelf: Shelf, case: Case, now: float) -> None:
    """What was offered is accepted: offer, split or convict what was left out."""
    case.since = now
    case.published.clear()
    while case.groups:
        group = case.groups.pop(0)
        if group.blame is None:
            return
        if len(group.parts) > 1:
            parts, half = list(group.parts.items()), len(group.parts) // 2
            beside = group.beside | dict(parts[:half])
            case.groups.insert(0, Group(dict(parts[half:]), group.blame, beside))
            return
        for part, digest in group.parts.items():
            convict(shelf, case, part, digest, group.blame, now)


def convict(shelf: Shelf, case: Case, part: str, digest: int, blame: Blame, now: float) -> None:
    """Hold *part* until it changes."""
    if (held := case.held.get(part)) is not None:  # what stood in for it is refused, too
        case.held[part] = replace(held, good=b"", at=now)
        return
    name = case.place.name
    case.held[part] = Held(
        place=case.place,
        part=part,
        refused=digest,
        good=shelf.good_parts(name).get(part),
        blame=blame,
        at=now,
        sources=shelf.wanted.by_name[name].sources,
    )
