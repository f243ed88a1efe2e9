"""Artifacts in files: ``<directory>/artifacts/<namespace>/<name>.yaml``."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Iterator, Mapping, Set
from pathlib import Path

from shared.errors import InvalidSettings
from shared.ref import Ref
from shared.report import Report
from shared.store.keys import ARTIFACT, DEFAULT_ROOT, key
from shared.store.objects import Stored, decode_value

PERIOD = 1.0  # seconds; a round costs one stat a file
MOST_BYTES = 4 << 20

Change = tuple[Mapping[Ref, Stored], Set[Ref]]  # what is new, and what is gone


class ArtifactFiles:
    """Only files that differ are read again. Of *namespaces* only, empty: of all."""

    def __init__(self, directory: str, namespaces: Collection[str] = ()) -> None:
        if not directory:
            raise InvalidSettings("directoryArtifactSource.directory: required")
        self._root = Path(directory) / "artifacts"
        self._namespaces = namespaces
        self._versions: dict[Ref, str] = {}

    async def follow(self) -> AsyncIterator[Change]:
        """What there is now, be it nothing, and then every change."""
        yield await asyncio.to_thread(self.look)
        while True:
            await asyncio.sleep(PERIOD)
            put, gone = await asyncio.to_thread(self.look)
            if put or gone:
                yield put, gone

    def look(self) -> Change:
        """What is new since the last time."""
        found = dict(self._files())
        gone = self._versions.keys() - found.keys()
        put = {ref: self._read(ref) for ref, now in found.items() if self._versions.get(ref) != now}
        self._versions = found
        return put, gone

    def _files(self) -> Iterator[tuple[Ref, str]]:
        """The files there are, each with when and where it was written."""
        for path in sorted(self._root.glob("*/*.yaml")):
            ref = Ref(path.parent.name, path.stem)
            if self._namespaces and ref.namespace not in self._namespaces:
                continue
            try:
                stat = path.stat()
            except OSError:
                continue  # it went meanwhile
            yield ref, f"{stat.st_mtime_ns}-{stat.st_size}-{stat.st_ino}"

    def _read(self, ref: Ref) -> Stored:
        path, report = self._root / ref.namespace / f"{ref.name}.yaml", Report()
        where = key(DEFAULT_ROOT, ARTIFACT, ref)
        try:
            if path.stat().st_size > MOST_BYTES:
                report.error("", f"{path} is longer than {MOST_BYTES} bytes")
            elif (found := decode_value(DEFAULT_ROOT, where, path.read_bytes(), 0)) is not None:
                return found
        except OSError as error:
            report.error("", f"{path} cannot be read: {error.strerror}")
        return Stored(kind=ARTIFACT, ref=ref, key=where, index=0, raw=b"", report=report)
