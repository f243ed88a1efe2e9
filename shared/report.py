"""Reports: what translation found wrong, in the user's words, fit to print unchanged."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from shared.errors import InvalidResource


@dataclass(frozen=True, slots=True)
class Problem:
    """One finding at ``path`` (dotted, in the document's own names; empty for the whole object)."""

    path: str
    text: str

    def __str__(self) -> str:
        return f"{self.path}: {self.text}" if self.path else self.text


@dataclass(slots=True)
class Report:
    """The errors and warnings of one object. An error rejects, a warning does not."""

    errors: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)

    def error(self, path: str, text: str) -> None:
        self.errors.append(Problem(path, text))

    def warn(self, path: str, text: str) -> None:
        self.warnings.append(Problem(path, text))

    @contextmanager
    def collect(self) -> Iterator[None]:
        """Turn an ``InvalidResource`` raised inside into an error; what follows goes on."""
        try:
            yield
        except InvalidResource as invalid:
            self.error(invalid.path, invalid.problem)

    def add(self, other: Report, prefix: str = "") -> None:
        """Take over *other*'s findings, their paths put under *prefix*."""
        for mine, theirs in ((self.errors, other.errors), (self.warnings, other.warnings)):
            mine.extend(Problem(join(prefix, problem.path), problem.text) for problem in theirs)

    @property
    def clean(self) -> bool:
        return not self.errors and not self.warnings


def join(prefix: str, path: str) -> str:
    """Two paths as one: ``join("routes[2]", "matchers")`` is ``routes[2].matchers``."""
    if not prefix or not path or path.startswith("["):
        return prefix + path
    return f"{prefix}.{path}"
