"""Secrets in files: ``<directory>/secrets/<namespace>/<name>.yaml``."""

from __future__ import annotations

import asyncio
from pathlib import Path

from services.gloo.secrets.source import Answer, Unavailable, answer_of
from shared.codec.text import parse
from shared.errors import InvalidDocument
from shared.ref import Ref

PERIOD = 1.0  # a round costs one stat a secret
MOST_BYTES = 1 << 20


class Directory:
    """A file's version is when and where it was written, so only changed files are read."""

    period = PERIOD

    def __init__(self, directory: str) -> None:
        self.name = f"directory {directory}"
        self._root = Path(directory) / "secrets"

    async def begin(self) -> None:
        if not await asyncio.to_thread(self._root.parent.is_dir):
            raise Unavailable(f"{self._root.parent} is no directory")

    async def read(self, ref: Ref, version: str) -> Answer | None:
        return await asyncio.to_thread(self._read, ref, version)

    async def close(self) -> None:
        pass

    def _read(self, ref: Ref, version: str) -> Answer | None:
        path = self._root / ref.namespace / f"{ref.name}.yaml"
        try:
            stat = path.stat()
            now = f"{stat.st_mtime_ns}-{stat.st_size}-{stat.st_ino}"
            if now == version:
                return None
            if stat.st_size > MOST_BYTES:
                return Answer(problem=f"{path} is longer than {MOST_BYTES} bytes", version=now)
            return answer_of(parse(path.read_bytes()), now)
        except (FileNotFoundError, NotADirectoryError):
            return Answer(problem=f"{path} does not exist", absent=True)
        except InvalidDocument:  # its words may quote the document
            return Answer(problem=f"{path} is neither YAML nor JSON", version=now)
        except OSError as error:
            return Answer(problem=f"{path} cannot be read: {error.strerror}", version="")
