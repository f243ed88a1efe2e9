"""The build hook: no wheel and no editable install without up-to-date generated messages."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class GenerateMessages(BuildHookInterface):  # type: ignore[type-arg]
    """Runs ``protos.generate`` before anything is packed, unless its output is newer than its sources."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        sys.path.insert(0, str(Path(self.root)))
        from protos.generate import generate, is_current

        if not is_current():
            generate()
