"""Last good snapshots on disk: what a restarted gloo serves while Consul is away.

One file a role in the folder given with ``--state-dir``, replaced as a whole: a line of JSON that says what
follows, the resources' bytes, and a digest over all of it. A file that is cut off, altered or of another
format is set aside with a warning, never served.

With the snapshot goes what is held back from it, so that nothing refused is sent again, and what endpoints
were made of, so that a cluster of something broken goes on following its service.

Secrets are left out: keys do not belong on this disk. An Envoy keeps those that it has.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any, TypeVar

import orjson

from protos import gloo
from services.gloo.memory import Following, Tls
from services.gloo.parts import parts_of
from services.gloo.quarantine.held import Blame, Held, Place
from services.gloo.resources import ROUTES, SECRET, Resource, Resources, Snapshot, TypeUrl, resource
from services.gloo.translator.consul import ConsulSelection, SubsetKeys
from services.gloo.translator.secret import signs
from services.gloo.translator.sources import Origin
from shared.codec.decode import decode
from shared.codec.documents import to_document
from shared.incremental.memo import Memo
from shared.ref import Ref, Source
from shared.report import Report

log = logging.getLogger(__name__)

T = TypeVar("T")

FORMAT = 1
SUFFIX = ".snapshot"
SET_ASIDE = ".unusable"
DIGEST_BYTES = 32
MOST_BYTES = 256 * 2**20  # of one role; a larger snapshot is not kept
MOST_ROLES = 256
QUIET_SECONDS = 1.0  # a snapshot is written when it has stood for so long …
CEILING_SECONDS = 10.0  # … or when the one on disk is older than this


class Unusable(Exception):
    """A file that holds no snapshot we can serve; the text says why."""


@dataclass(frozen=True, slots=True)
class State:
    """What is kept of a role; for *following*, *partial* and *tls* see ``Memory``."""

    snapshot: Snapshot
    held: tuple[Held, ...] = ()
    following: Mapping[str, Following] = field(default_factory=dict)
    partial: tuple[tuple[str, str], ...] = ()
    tls: Tls = field(default_factory=dict)


class Spelling(Memo[object, orjson.Fragment]):
    """JSON of values; what was spelt in the last round is not spelt again."""

    def of(self, value: T, spell: Callable[[T], object]) -> orjson.Fragment:
        known = self.known(value)
        if known is None:
            text = memoryview(orjson.dumps(spell(value))).tobytes()  # what orjson gives has room to spare
            known = orjson.Fragment(text)
        return self.keep(value, known)


def pack(role: str, state: State, written: float) -> bytes:
    """The state as the bytes of a file; *written* is Unix time."""
    return b"".join(pieces(role, state, written, Spelling()))


def pieces(role: str, state: State, written: float, spelling: Spelling) -> list[bytes]:
    """``pack`` in pieces, since together they are large; *spelling* is the role's."""
    bodies: list[bytes] = []
    types: dict[str, list[Any]] = {}
    for type_url, resources in state.snapshot.by_type.items():
        if type_url == SECRET:
            continue
        listed = types[type_url] = []
        for each in resources.by_name.values():
            if signs(each.name):
                continue  # there is a key in it
            listed.append(spelling.of(each, _resource))
            bodies.append(each.body)
    told = {
        "format": FORMAT,
        "role": role,
        "written": written,
        "types": types,
        "held": [_held(each) for each in state.held],
        "following": {name: spelling.of(each, _following) for name, each in state.following.items()},
        "partial": state.partial,
        "tls": {name: [_tls(*each) for each in tls.items()] for name, tls in state.tls.items()},
    }
    spelling.end_round()
    head = orjson.dumps(told)
    content, digest = [head, b"\n", *bodies], blake2b(digest_size=DIGEST_BYTES)
    for piece in content:
        digest.update(piece)
    return [*content, digest.digest()]


def _resource(each: Resource) -> list[Any]:
    return [each.name, len(each.body), _sources(each.sources)]


def _sources(sources: Iterable[Source]) -> list[tuple[str, str, str]]:
    return [(kind, *ref) for kind, ref in sorted(sources)]


def _sources_of(listed: list[list[str]]) -> list[Source]:
    return [Source(kind, Ref(namespace, name)) for kind, namespace, name in listed]


def _held(held: Held) -> list[Any]:
    """What stands in for it is in the snapshot."""
    place, blame = held.place, held.blame
    stands_in = held.good is not None
    sources = [] if place.type_url == ROUTES else _sources(held.sources)
    refused = f"{held.refused:016x}"
    return [place.type_url, place.name, held.part, refused, stands_in, blame.node, blame.text, sources]


def _held_of(role: str, snapshot: Snapshot, listed: list[Any]) -> Held:
    type_url, name, part, refused, stands_in, node, text, sources = listed
    kind = TypeUrl(type_url)
    served = snapshot.of(kind).by_name.get(name)
    return Held(
        place=Place(role, kind, name),
        part=part,
        refused=int(refused, 16),
        good=parts_of(kind, served.body).get(part) if served and stands_in else None,
        blame=Blame(client="", node=node, text=text),
        at=time.monotonic(),
        sources=frozenset(_sources_of(sources)) or (served.sources if served else frozenset()),
    )


def _following(following: Following) -> list[Any]:
    chosen, cut = following.selection, following.subsets
    return [
        chosen.service,
        *(chosen.data_centers, chosen.instance_tags, chosen.blacklist_tags, chosen.exact_tags),
        *(cut.tags, cut.data_centers),
        _sources(following.sources),
    ]


def _following_of(listed: list[Any]) -> Following:
    service, *lists, sources = listed
    centers, tags, blacklist, exact, cut_tags, cut_centers = (tuple(each) for each in lists)
    selection = ConsulSelection(
        service=service,
        data_centers=centers,
        instance_tags=tags,
        blacklist_tags=blacklist,
        exact_tags=exact,
    )
    subsets = SubsetKeys(tags=cut_tags, data_centers=cut_centers)
    return Following(selection, subsets, tuple(_sources_of(sources)))


def _tls(origin: Origin, config: gloo.SslConfig) -> list[Any]:
    """Names of secrets are in it, and nothing of what is in them."""
    return [_sources([origin.source]), origin.path, to_document(config)]


def _tls_of(listed: list[Any]) -> tuple[Origin, gloo.SslConfig]:
    sources, path, document = listed
    [source] = _sources_of(sources)
    config = decode(gloo.SslConfig, document, Report())
    if config is None:
        raise Unusable("it has a TLS configuration that this gloo cannot read")
    return Origin(source=source, path=path), config


def unpack(raw: bytes) -> tuple[str, State, float]:
    """Role, state and time of a file; raises ``Unusable``."""
    content, digest = raw[:-DIGEST_BYTES], raw[-DIGEST_BYTES:]
    if blake2b(content, digest_size=DIGEST_BYTES).digest() != digest:
        raise Unusable("it was cut off or altered, or is no snapshot at all")
    head, _, rest = content.partition(b"\n")
    try:
        told = orjson.loads(head)
        if told["format"] != FORMAT:
            raise Unusable(f"it has format {told['format']}, and this gloo reads format {FORMAT}")
        by_type, at = {}, 0
        for type_url, listed in told["types"].items():
            members = []
            for name, size, sources in listed:
                members.append(resource(name, rest[at : at + size], _sources_of(sources)))
                at += size
            by_type[TypeUrl(type_url)] = Resources.of(members)
        role, snapshot = str(told["role"]), Snapshot(by_type)
        held = tuple(_held_of(role, snapshot, listed) for listed in told.get("held", ()))
        following = {name: _following_of(listed) for name, listed in told.get("following", {}).items()}
        partial = tuple((routes, host) for routes, host in told.get("partial", ()))
        tls = {name: dict(map(_tls_of, listed)) for name, listed in told.get("tls", {}).items()}
        return role, State(snapshot, held, following, partial, tls), float(told["written"])
    except (orjson.JSONDecodeError, LookupError, TypeError, ValueError) as error:
        raise Unusable(f"it cannot be read: {error}") from error


class LastGood:
    """The folder of last good snapshots. ``keep`` is called with every published one, ``run`` writes."""

    def __init__(self, folder: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._folder = folder
        self._clock = clock
        self._pending: dict[str, tuple[State | None, float]] = {}
        self._first: dict[str, float] = {}
        self._spellings: defaultdict[str, Spelling] = defaultdict(Spelling)
        self._news = asyncio.Event()
        self._writing = asyncio.Lock()

    def load(self) -> Iterator[tuple[str, State, float]]:
        """What is there: role, state, and when it was written."""
        self._folder.mkdir(parents=True, exist_ok=True)
        for path in sorted(self._folder.glob(f"*{SUFFIX}"))[:MOST_ROLES]:
            try:
                yield unpack(path.read_bytes())
            except (Unusable, OSError) as error:
                log.warning(
                    "a last good snapshot is set aside", extra={"path": str(path), "error": str(error)}
                )
                with contextlib.suppress(OSError):
                    path.replace(path.with_suffix(SET_ASIDE))

    def keep(self, role: str, state: State | None) -> None:
        """Have *state* written soon; None: the role is no more, and its file goes."""
        now = self._clock()
        self._pending[role] = (state, now)
        self._first.setdefault(role, now)
        self._news.set()

    def withhold(self, role: str) -> None:
        """The snapshot waiting to be written is not good after all."""
        self._pending.pop(role, None)
        self._first.pop(role, None)

    async def run(self) -> None:
        while True:
            await self._news.wait()
            if (wait := self._due(self._clock())) > 0:
                await asyncio.sleep(wait)
                continue
            self._news.clear()
            await self.flush()

    async def flush(self) -> None:
        """Write all that waits, now, beside the event loop, and have written what is being written."""
        async with self._writing:
            pending, self._pending = self._pending, {}
            self._first.clear()
            for role, (state, _) in pending.items():
                try:
                    await asyncio.to_thread(self._write, role, state)
                except OSError as error:
                    log.error("a last good snapshot is not kept", extra={"role": role, "error": str(error)})

    def _due(self, now: float) -> float:
        """Seconds until the first of those that wait should be written."""
        return min(
            (
                min(changed + QUIET_SECONDS, self._first[role] + CEILING_SECONDS) - now
                for role, (_, changed) in self._pending.items()
            ),
            default=0.0,
        )

    def _write(self, role: str, state: State | None) -> None:
        path = self._folder / f"{blake2b(role.encode(), digest_size=8).hexdigest()}{SUFFIX}"
        if state is None:
            self._spellings.pop(role, None)
            path.unlink(missing_ok=True)
            return
        content = pieces(role, state, time.time(), self._spellings[role])
        if (size := sum(map(len, content))) > MOST_BYTES:
            log.warning("a snapshot is too large to be kept", extra={"role": role, "bytes": size})
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=self._folder, delete=False) as scratch:
            scratch.writelines(content)
            scratch.flush()
            os.fsync(scratch.fileno())
        os.replace(scratch.name, path)
