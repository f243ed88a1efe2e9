"""Last good snapshots on disk: what a restarted gloo serves while Consul is away.

One file a role in the folder given with ``--state-dir``, replaced as a whole: a line of JSON that says what
follows, the resources' bytes, and a digest over all of it. A file that is cut off, altered or of another
format is set aside with a warning, never served.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from hashlib import blake2b
from pathlib import Path
from typing import Any

import orjson

from services.gloo.resources import Resources, Snapshot, TypeUrl, resource
from shared.ref import Ref, Source

log = logging.getLogger(__name__)

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


def pack(role: str, snapshot: Snapshot, written: float) -> bytes:
    """The snapshot as the bytes of a file; *written* is Unix time."""
    bodies: list[bytes] = []
    types: dict[str, list[Any]] = {}
    for type_url, resources in snapshot.by_type.items():
        listed = types[type_url] = []
        for each in resources.by_name.values():
            sources = [
                [source.kind, source.ref.namespace, source.ref.name] for source in sorted(each.sources)
            ]
            listed.append([each.name, len(each.body), sources])
            bodies.append(each.body)
    head = orjson.dumps({"format": FORMAT, "role": role, "written": written, "types": types})
    content = b"\n".join([head, b"".join(bodies)])
    return content + blake2b(content, digest_size=DIGEST_BYTES).digest()


def unpack(raw: bytes) -> tuple[str, Snapshot, float]:
    """Role, snapshot and time of a file; raises ``Unusable``."""
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
                whose = [Source(kind, Ref(namespace, of)) for kind, namespace, of in sources]
                members.append(resource(name, rest[at : at + size], whose))
                at += size
            by_type[TypeUrl(type_url)] = Resources.of(members)
        return str(told["role"]), Snapshot(by_type), float(told["written"])
    except (orjson.JSONDecodeError, LookupError, TypeError, ValueError) as error:
        raise Unusable(f"it cannot be read: {error}") from error


class LastGood:
    """The folder of last good snapshots. ``keep`` is called with every published one, ``run`` writes."""

    def __init__(self, folder: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._folder = folder
        self._clock = clock
        self._pending: dict[str, tuple[Snapshot | None, float]] = {}
        self._first: dict[str, float] = {}
        self._news = asyncio.Event()

    def load(self) -> Iterator[tuple[str, Snapshot, float]]:
        """What is there: role, snapshot, and when it was written."""
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

    def keep(self, role: str, snapshot: Snapshot | None) -> None:
        """Have *snapshot* written soon; None: the role is no more, and its file goes."""
        now = self._clock()
        self._pending[role] = (snapshot, now)
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
        """Write all that waits, now, beside the event loop."""
        pending, self._pending = self._pending, {}
        self._first.clear()
        for role, (snapshot, _) in pending.items():
            try:
                await asyncio.to_thread(self._write, role, snapshot)
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

    def _write(self, role: str, snapshot: Snapshot | None) -> None:
        path = self._folder / f"{blake2b(role.encode(), digest_size=8).hexdigest()}{SUFFIX}"
        if snapshot is None:
            path.unlink(missing_ok=True)
            return
        content = pack(role, snapshot, time.time())
        if len(content) > MOST_BYTES:
            log.warning("a snapshot is too large to be kept", extra={"role": role, "bytes": len(content)})
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=self._folder, delete=False) as scratch:
            scratch.write(content)
            scratch.flush()
            os.fsync(scratch.fileno())
        os.replace(scratch.name, path)
