"""A shelf: one type of one role, as it is wanted, as it is served, and as it was good."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from services.gloo.parts import parts_of
from services.gloo.quarantine.case import Case
from services.gloo.quarantine.held import Held, Place, Version
from services.gloo.quarantine.stand_ins import replaced
from services.gloo.resources import EMPTY, ROUTES, Resource, Resources, TypeUrl
from services.gloo.translator.forwarding import one_before


@dataclass(slots=True)
class Shelf:
    """*good* is what was accepted last, or, for the names in *assumed*, what was served first and nobody has
    refused so far."""

    role: str
    type_url: TypeUrl
    wanted: Resources = EMPTY
    served: Resources = EMPTY
    good: dict[str, Resource] = field(default_factory=dict)
    assumed: set[str] = field(default_factory=set)
    cases: dict[str, Case] = field(default_factory=dict)

    def case(self, name: str) -> Case:
        if name not in self.cases:
            self.cases[name] = Case(Place(self.role, self.type_url, name))
        return self.cases[name]

    def want(self, wanted: Resources, restored: Iterable[Held]) -> None:
        """Translation's newest; a part that changed is held no more. What was *restored* is held anew."""
        there, before = wanted.by_name, self.wanted.by_name
        for name in there.keys() - self.good.keys() - before.keys():
            good = one_before(there[name], self.good.values())
            self.good[name] = good or there[name]
            if good is None:
                self.assumed.add(name)
        for name in self.good.keys() - there.keys():
            del self.good[name]
            self.assumed.discard(name)
        for name, case in list(self.cases.items()):
            if name not in there or (case.idle and self.type_url != ROUTES):
                del self.cases[name]
        for held in restored:
            if held.place.type_url == self.type_url and held.place.name in there:
                self.case(held.place.name).held[held.part] = held
        self.wanted = wanted
        for name, case in self.cases.items():
            if case.replaces and before.get(name) is not there[name]:
                case.drop_changed(self.wanted_parts(name))

    def serve(self) -> Resources:
        """What is wanted, but for what is held or left out for now."""
        put, drop = [], []
        for name, case in self.cases.items():
            if case.replaces:
                made = replaced(case, self.wanted.by_name[name], self.good.get(name))
                put += [made] if made is not None else []
                drop += [name] if made is None else []
        served = self.wanted.patched(put=put, drop=drop) if put or drop else self.wanted
        if (put or drop) and served == self.served:
            served = self.served  # the same set for the same content: streams compare by identity
        self.served = served
        if self.type_url == ROUTES:
            for name, each in served.by_name.items():
                published = self.case(name).published
                if not published or published[-1] != each.digest:
                    published.append(each.digest)
        return served

    def prove(self, resource: Resource) -> None:
        """An Envoy has accepted it."""
        if resource.name in self.wanted.by_name:
            self.good[resource.name] = resource
            self.assumed.discard(resource.name)

    def disprove(self, name: str) -> None:
        """What was assumed to be good was not."""
        del self.good[name]
        self.assumed.discard(name)

    def proven(self, version: Version) -> bool:
        """Whether it is in what an Envoy has accepted last."""
        name = version.place.name
        return name not in self.assumed and version.is_in(self.good_parts(name))

    def wanted_parts(self, name: str) -> Mapping[str, bytes]:
        return parts_of(self.type_url, self.wanted.by_name[name].body)

    def good_parts(self, name: str) -> Mapping[str, bytes]:
        """Empty when nothing was good."""
        good = self.good.get(name)
        return parts_of(self.type_url, good.body) if good is not None else {}
