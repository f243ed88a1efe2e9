"""What ends a command: one line that says what to do, and an exit code."""

from __future__ import annotations


class CommandError(Exception):
    """Something could not be done; printed as one line on stderr. *code*: 1, or 2 for wrong usage."""

    def __init__(self, text: str, *, code: int = 1) -> None:
        super().__init__(text)
        self.code = code


class UsageError(CommandError):
    """The flags do not fit together; the line says which do."""

    def __init__(self, text: str) -> None:
        super().__init__(text, code=2)
