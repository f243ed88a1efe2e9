"""The list of recipes that people read first."""

from __future__ import annotations

import re
from pathlib import Path

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_every_recipe_is_listed_once() -> None:
    listed = (EXAMPLES / "README.md").read_text().partition("## Recipes")[2].partition("\n## ")[0]

    assert sorted(re.findall(r"^\| \[([\w-]+)/\]\(\1/\) \|", listed, re.MULTILINE)) == sorted(
        page.parent.name for page in EXAMPLES.glob("*/README.md")
    )
