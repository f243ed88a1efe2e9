"""The settings file: ``<dir>/<namespace>/<name>.yaml``, read strictly and watched for changes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from protos import gloo
from shared.codec import text
from shared.codec.decode import decode
from shared.codec.documents import to_document
from shared.errors import InvalidDocument, InvalidSettings
from shared.report import Report, join
from shared.runtime.latest import Latest

log = logging.getLogger(__name__)

ALWAYS_USED = ("metadata", "status", "namespacedStatuses")


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingsFile:
    """Where the settings are: the folder given with ``--dir``, a namespace and a name."""

    dir: Path
    namespace: str = "gloo-system"
    name: str = "default"

    @property
    def path(self) -> Path:
        """The file; ``.yml`` is taken when only that exists."""
        path = self.dir / self.namespace / f"{self.name}.yaml"
        other = path.with_suffix(".yml")
        return other if other.exists() and not path.exists() else path

    def read(self) -> tuple[gloo.Settings, Report]:
        """The settings, and warnings about fields we do not know; ``InvalidSettings`` otherwise."""
        path, report = self.path, Report()
        try:
            document = text.parse(path.read_bytes())
        except FileNotFoundError as error:
            raise InvalidSettings(
                f"no settings file {path}; create it, or point --dir, --namespace and --name at yours "
                "(--dir DIR reads DIR/<namespace>/<name>.yaml)"
            ) from error
        except OSError as error:
            raise InvalidSettings(f"cannot read the settings file {path}: {error.strerror}") from error
        except InvalidDocument as error:
            raise InvalidSettings(f"settings file {path}: {error}") from error
        settings = decode(gloo.Settings, document, report, unknown="warn")
        if settings is None:
            raise InvalidSettings(f"settings file {path}: {'; '.join(map(str, report.errors))}")
        if settings.directory_config_source is not None or settings.kubernetes_config_source is not None:
            # To read Consul although another place is named would be a bad surprise.
            raise InvalidSettings(
                f"settings file {path}: objects are kept in Consul alone: use consulKvSource"
            )
        return settings, report


def load_settings(dir: Path | str, namespace: str = "gloo-system", name: str = "default") -> gloo.Settings:
    """The settings once, without watching them."""
    return SettingsFile(dir=Path(dir), namespace=namespace, name=name).read()[0]


class LiveSettings:
    """The settings as they are now; what cannot be read later leaves the last good ones in force."""

    def __init__(self, file: SettingsFile, used: Collection[str] = ()) -> None:
        """Read *file*; when *used* names paths, warn of every set field that lies under none of them."""
        self._file = file
        self._used = (*used, *ALWAYS_USED) if used else ()
        self._seen = self._signature()
        settings, report = file.read()
        self.latest = Latest(settings)
        self._warned: set[str] = set()
        self._callbacks: list[Callable[[gloo.Settings], None]] = []
        self._warn(settings, report)

    @property
    def value(self) -> gloo.Settings:
        return self.latest.value

    def on_change(self, callback: Callable[[gloo.Settings], None]) -> None:
        """Call *callback* with the new settings whenever they differ."""
        self._callbacks.append(callback)

    def check(self) -> bool:
        """Read the file again if it was touched; whether the settings changed."""
        signature = self._signature()
        if signature == self._seen:
            return False
        self._seen = signature
        try:
            settings, report = self._file.read()
        except InvalidSettings as error:
            log.error("settings not taken over, the last good ones stay", extra={"error": str(error)})
            return False
        self._warn(settings, report)
        if not self.latest.set(settings):
            return False
        log.info("settings changed", extra={"path": str(self._file.path)})
        for callback in self._callbacks:
            callback(settings)
        return True

    def _signature(self) -> tuple[int, int, int] | None:
        try:
            found = self._file.path.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino

    def _warn(self, settings: gloo.Settings, report: Report) -> None:
        texts = [f"settings.{problem}" for problem in report.warnings]
        if self._used:
            texts += [
                f"settings.{path}: has no effect here" for path in unused(to_document(settings), self._used)
            ]
        for line in texts:
            if line not in self._warned:
                self._warned.add(line)
                log.warning(line)


def unused(document: Mapping[str, object], used: Collection[str], prefix: str = "") -> Iterator[str]:
    """The paths set in *document* that lie under none of *used*, each named once at its highest level."""
    for field, value in document.items():
        path = join(prefix, field)
        if path in used:
            continue
        if isinstance(value, Mapping) and any(known.startswith(f"{path}.") for known in used):
            yield from unused(value, used, path)
        else:
            yield path
