from __future__ import annotations

from collections.abc import Iterator

from glooctl.app import main


class Interrupted(list[str]):
    """Somebody presses Ctrl-C while the words are read."""

    def __iter__(self) -> Iterator[str]:
        raise KeyboardInterrupt


def test_an_interruption_before_the_command_ends_without_a_traceback() -> None:
    assert main(Interrupted(["version"])) == 130
