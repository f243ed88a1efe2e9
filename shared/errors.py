"""The error types: one small tree, and a flag the supervisor reads.

::

    ControlPlaneError
    ├── InvalidDocument            a text that is not YAML, JSON or UTF-8
    ├── InvalidResource            a document that breaks its schema or a rule, at a path
    ├── InvalidSettings            the settings file or a flag cannot be used; the process ends with 2
    └── ConsulError
        ├── ConsulUnavailable      no usable answer: transport, 5xx, 429, no leader   (retryable)
        ├── ConsulDenied           401 or 403: the ACL token does not suffice         (retryable)
        ├── ConsulConflict         a check-and-set or a transaction was refused
        └── ConsulRefused          the request itself is wrong: 400, 413, …
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar


class ControlPlaneError(Exception):
    """Base class; ``retryable`` tells the supervisor what to do next."""

    retryable: ClassVar[bool] = False


class InvalidDocument(ControlPlaneError):
    """A text cannot be read as YAML or JSON; *line* and *column* count from 1 where they are known."""

    def __init__(self, problem: str, *, line: int | None = None, column: int | None = None) -> None:
        where = f"line {line}, column {column}: " if line is not None else ""
        super().__init__(f"{where}{problem}")
        self.problem = problem
        self.line = line
        self.column = column


class InvalidResource(ControlPlaneError):
    """A document breaks its schema or a rule at ``path``; it goes into a report, never up the stack."""

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(f"{path}: {problem}" if path else problem)
        self.path = path
        self.problem = problem


class InvalidSettings(ControlPlaneError):
    """Settings, a flag or an environment variable cannot be used; the text says which and why."""


class ConsulError(ControlPlaneError):
    """Consul answered otherwise than hoped; *operation* names what was asked, as ``kv list gloo/``."""

    def __init__(self, operation: str, problem: str, *, status: int | None = None) -> None:
        super().__init__(f"consul {operation}: {f'HTTP {status}: ' if status else ''}{problem}")
        self.operation = operation
        self.problem = problem
        self.status = status


class ConsulUnavailable(ConsulError):
    """Consul did not give a usable answer."""

    retryable = True


class ConsulDenied(ConsulError):
    """Consul's ACLs refuse the operation to our token."""

    retryable = True


class ConsulConflict(ConsulError):
    """A check-and-set lost, or a transaction was refused; *failed* are the indexes of what failed in it."""

    def __init__(self, operation: str, problem: str, *, failed: Sequence[int] = ()) -> None:
        super().__init__(operation, problem, status=409)
        self.failed = tuple(failed)


class ConsulRefused(ConsulError):
    """Consul will not take this request however often it is sent."""
