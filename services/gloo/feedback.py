"""What Envoys answer, and what they are served for it.

Who refuses what is kept in Envoy's own words until the same Envoy accepts something else. The quarantine
decides what is held back for that; its stand-ins go to the cache at once, its words into statuses.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from services.gloo.parts import WHOLE, part_digest
from services.gloo.quarantine.held import Blame, Heard, Held, Place, Version
from services.gloo.quarantine.quarantine import RETRY_SECONDS, Quarantine
from services.gloo.refusals import Refusal, Told
from services.gloo.resources import CLUSTER, CONFIDENTIAL, ROUTES, SECRET, Resource, Snapshot, TypeUrl
from services.gloo.translator.secret import ref_of
from services.gloo.trials import Trials
from services.gloo.xds.cache import Cache
from shared.ref import Source

log = logging.getLogger(__name__)

MOST_NODE = 253  # characters of an Envoy's id that are repeated
MOST_REMEMBERED = 1024  # secrets that were refused


class Feedback:
    """The observer of the xDS server, between translation and the cache; *notify* is called with a role whose
    refusals differ. ``run`` gives the quarantine its time.

    ``stirred`` is set when there may be something to tell other replicas; ``hear`` takes what they tell.
    """

    def __init__(
        self,
        notify: Callable[[str], None],
        cache: Cache,
        *,
        retry: float = RETRY_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        # The objects behind what is held, as whoever translates now knows them.
        self.trace: Callable[[Held], frozenset[Source]] = lambda held: held.sources
        self.stirred = asyncio.Event()
        self._notify = notify
        self._cache = cache
        self._clock = clock
        self._quarantine = Quarantine(retry=retry)
        self._trials: Trials[Blame] = Trials()
        self._remembered: dict[tuple[str, str, str], tuple[int, str]] = {}  # what Envoys said of secrets last
        self._once: dict[str, int] = {}  # files that an Envoy said yes to once, and may not have looked at
        self._unsure: set[str] = set()
        self._nodes: dict[str, tuple[str, str]] = {}
        self._refusals: dict[str, dict[tuple[TypeUrl, str], Refusal]] = {}
        self._held: dict[str, list[Held]] = {}
        self._elsewhere: list[Refusal] = []  # what Envoys of other replicas refuse, and is not held
        self._told: dict[str, list[Refusal]] = {}  # by role, until something differs
        self._moved = asyncio.Event()

    # --- what is served -----------------------------------------------------------------------------------

    def publish(self, role: str, snapshot: Snapshot | None) -> None:
        """Serve what translation made, but for what is held back; None: the role is no more."""
        self._told.pop(role, None)
        self.stirred.set()
        if snapshot is None:
            self._quarantine.forget(role)
            self._trials.forget(role)
            self._cache.remove(role)
            self._held.pop(role, None)
            return
        self._want(role, snapshot)

    def _want(self, role: str, snapshot: Snapshot) -> None:
        now = self._clock()
        snapshot, guilty = self._trials.want(role, snapshot, now, watched=self.serves(role))
        condemned = [
            Held(
                place=Place(role, CLUSTER, new.name),
                part=WHOLE,
                refused=part_digest(new.body),
                good=before.body,
                blame=blame,
                at=now,
                sources=new.sources,
            )
            for new, before, blame in guilty
        ]
        self._quarantine.want(role, snapshot, condemned)
        if self._trials.wake_at() < float("inf"):
            self._moved.set()
        self._serve(role)

    def restore(self, role: str, snapshot: Snapshot, held: Iterable[Held]) -> None:
        """Serve what was served before a restart."""
        self._told.pop(role, None)
        self._quarantine.restore(role, snapshot, held)
        self._held[role] = self._quarantine.held(role)
        self._cache.set(role, snapshot)

    async def run(self) -> None:
        while True:
            self._moved.clear()
            wait = min(self._quarantine.wake_at(), self._trials.wake_at()) - self._clock()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait if wait < float("inf") else None):
                    await self._moved.wait()
            for role in self._quarantine.tick(self._clock()):
                self._serve(role)
            doubtful = {(each.role, each.name) for each in self._elsewhere if each.type_url == SECRET}
            for role in self._trials.tick(self._clock(), doubtful):
                self._want(role, self._trials.wanted(role))
                self._notify(role)

    def _serve(self, role: str) -> None:
        self._told.pop(role, None)
        if (served := self._quarantine.served(role)) is not None:
            self._cache.set(role, served)
        before, held = self._held.get(role, []), self._quarantine.held(role)
        if before == held:
            return
        self.stirred.set()
        self._held[role] = held
        for each in held:
            if each not in before:
                log.warning(
                    "an Envoy refused a part of its configuration, which is held back",
                    extra={"role": role, "refusal": str(self._refusal(each))},
                )
        self._notify(role)
        self._moved.set()

    # --- what is said of it -------------------------------------------------------------------------------

    def refusals(self, role: str) -> list[Refusal]:
        """What the Envoys of *role* refuse now; one resource refused by several stands there once."""
        if role not in self._told:
            self._told[role] = self._refusals_of(role)
        return self._told[role]

    def _refusals_of(self, role: str) -> list[Refusal]:
        told = [each for each in (*self.unheld(), *self._elsewhere) if each.role == role]
        found: dict[tuple[TypeUrl, str], Refusal] = {}
        for each in sorted(told, key=lambda refusal: (refusal.node, refusal.text)):
            found.setdefault((each.type_url, each.name), each)  # the same one whoever speaks
        return [*map(self._refusal, self._held.get(role, ())), *(found[key] for key in sorted(found))]

    def unheld(self) -> list[Refusal]:
        """What Envoys here refuse, of all roles, that nothing is held back for."""
        return [
            refusal
            for refused in self._refusals.values()
            for refusal in refused.values()
            if not self._quarantine.handles(Place(refusal.role, refusal.type_url, refusal.name))
        ]

    def held(self, role: str) -> list[Held]:
        return self._held.get(role, [])

    @property
    def held_back(self) -> int:
        """How many parts are held back, of all roles."""
        return sum(map(len, self._held.values()))

    @property
    def all_held(self) -> list[Held]:
        """What is held back, of all roles that there are."""
        return self._quarantine.all_held

    def stand_ins(self) -> list[bytes]:
        """The virtual hosts that stand in for others."""
        held = [each for role in self._held.values() for each in role if each.place.type_url == ROUTES]
        return [each.good for each in held if each.good and each.part != WHOLE]

    def standing_in(self, role: str) -> list[bytes]:
        """A role's listeners and clusters that stand in for others."""
        return [each.good for each in self._held.get(role, ()) if each.good and each.place.type_url != ROUTES]

    def good(self, role: str) -> bool:
        """Whether no Envoy refuses what is served now; secrets do not count, for they are not kept."""
        refused = any(each.role == role and each.type_url not in CONFIDENTIAL for each in self.unheld())
        return not (refused or self._quarantine.searching(role))

    def _refusal(self, held: Held) -> Refusal:
        return Refusal(
            role=held.place.role,
            node=held.blame.node,
            type_url=held.place.type_url,
            name=held.place.name,
            text=held.blame.text,
            sources=self.trace(held),
            part=held.part,
            held=held,
        )

    # --- what other replicas say --------------------------------------------------------------------------

    def hear(self, heard: Mapping[Version, Heard], told: Iterable[Told]) -> None:
        """Hold what was refused elsewhere as if it had been here, and speak of what is *told* without being
        held. Each call has all there is."""
        for role in self._quarantine.hear(heard):
            self._serve(role)
        before = self._elsewhere
        self._elsewhere = [self._of_another(each) for each in told]
        self._tell([*before, *self._elsewhere] if before != self._elsewhere else ())
        self._moved.set()

    def _of_another(self, told: Told) -> Refusal:
        place, snapshot = told.place, self._cache.get(told.place.role)
        known = snapshot.of(place.type_url).by_name.get(place.name) if snapshot else None
        return Refusal(
            role=place.role,
            node=told.node,
            type_url=place.type_url,
            name=place.name,
            text=told.text,
            sources=known.sources if known else frozenset(),
        )

    def approves(self, version: Version) -> bool:
        """Whether an Envoy here has accepted what one was heard to refuse."""
        return version in self._quarantine.approved

    def wanted(self, versions: Iterable[Version]) -> set[Version]:
        return self._quarantine.wanted(versions)

    def serves(self, role: str, client: str | None = None) -> bool:
        """Whether an Envoy of the role, or just that one, is here."""
        nodes = self._nodes.values() if client is None else [self._nodes.get(client, ("", ""))]
        return any(each == role for each, _ in nodes)

    def takes(self, role: str, secret: str) -> bool:
        """Whether listeners of the role may come to name a secret; ``notify`` is called when that differs."""
        return self._trials.takes(role, secret)

    # --- what Envoys say ----------------------------------------------------------------------------------

    def connected(self, client: str, role: str, node: str) -> None:
        self._nodes[client] = (role, node[:MOST_NODE])
        self._quarantine.connected(client)
        self.stirred.set()

    def disconnected(self, client: str) -> None:
        self._nodes.pop(client, None)
        self._quarantine.disconnected(client)
        self._moved.set()
        self.stirred.set()
        self._tell(self._refusals.pop(client, {}).values())

    def acked(
        self,
        client: str,
        role: str,
        type_url: TypeUrl,
        version: str,
        resources: tuple[Resource, ...],
        removed: tuple[str, ...],
    ) -> None:
        approved = len(self._quarantine.approved)
        moved = self._quarantine.accepted(client, role, type_url, resources, self._clock())
        if len(self._quarantine.approved) > approved:
            self.stirred.set()
        if refused := self._refusals.get(client):
            names = (*(each.name for each in resources), *removed)
            ended = [refused.pop((type_url, name)) for name in names if (type_url, name) in refused]
            self._tell(ended)
        if moved:
            self._serve(role)
        if type_url == SECRET:
            self._took_secrets(client, role, version, resources)

    def _took_secrets(self, client: str, role: str, version: str, resources: Iterable[Resource]) -> None:
        """An Envoy says yes to what it refused when it is sent the same again, for it does not look again.

        What it refused before this process began is not known here; so it has to take files in two ways.
        """
        node, taken = self._nodes.get(client, ("", client))[1], []
        for each in resources:
            secret = (role, node, each.name)
            digest, words = self._remembered.pop(secret, (each.digest, ""))
            if words and digest == each.digest:
                self.nacked(client, role, SECRET, version, (each,), words)
            elif digest == each.digest and ref_of(each.name) is None and self._tries(role, each.name):
                self._remember(secret, (digest, ""))
                if self._once.get(each.name) != digest:
                    self._once[each.name] = digest
                    self._unsure.add(each.name)
                    self._notify(role)
            else:
                taken.append(each.name)
                self._once.pop(each.name, None)
        if self._trials.taken(role, taken):
            self._want(role, self._trials.wanted(role))
            self._notify(role)

    def nacked(
        self,
        client: str,
        role: str,
        type_url: TypeUrl,
        version: str,
        resources: tuple[Resource, ...],
        message: str,
    ) -> None:
        node = self._nodes.get(client, ("", client))[1]
        blame = Blame(client=client, node=node, text=message)
        refused = self._refusals.setdefault(client, {})
        moved = tried = False
        for resource in resources:
            if type_url == SECRET:
                self._remember((role, node, resource.name), (resource.digest, message))
                self._once.pop(resource.name, None)
                about = replace(blame, text=f"secret {resource.name}: {message}")
                if self._trials.refused(role, resource.name, about):
                    tried = True
                    if not self._trials.listens(role, resource.name):
                        continue
            place = Place(role, type_url, resource.name)
            refused[type_url, resource.name] = Refusal(
                role=role,
                node=node,
                type_url=type_url,
                name=resource.name,
                text=message,
                sources=resource.sources,
            )
            moved |= self._quarantine.refused(place, blame, resource, self._clock())
        self._told.pop(role, None)
        self.stirred.set()
        if moved:
            self._moved.set()
            self._serve(role)
        if tried:
            self._want(role, self._trials.wanted(role))
        self._notify(role)

    def _tries(self, role: str, secret: str) -> bool:
        return self._trials.listens(role, secret) and not self._trials.takes(role, secret)

    def unsure(self) -> set[str]:
        """The files that Envoys are to be sent to in another way, since the last time."""
        unsure, self._unsure = self._unsure, set()
        return unsure

    def _remember(self, secret: tuple[str, str, str], refused: tuple[int, str]) -> None:
        self._remembered[secret] = refused
        if len(self._remembered) > MOST_REMEMBERED:
            del self._remembered[next(iter(self._remembered))]

    def _tell(self, differ: Iterable[Refusal]) -> None:
        for role in {refusal.role for refusal in differ}:
            self.stirred.set()
            self._told.pop(role, None)
            self._notify(role)
