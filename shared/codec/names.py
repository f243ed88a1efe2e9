"""What releases before 1.0 called the fields of the contract; both cases of every name are read."""

from __future__ import annotations

import re
from collections.abc import Mapping

INLINED: Mapping[str, tuple[str, ...]] = {"gloo.solo.io.Upstream": ("upstreamSpec", "upstream_spec")}
"""By message, the fields whose own fields now stand beside them."""

SINGLE = "matcher"
"""The old name of a list that used to be one value."""


def old_names(json_name: str, type_name: str) -> tuple[str, ...]:
    """The old names of a field of type *type_name*."""
    if json_name == "options" and type_name.startswith("gloo.solo.io."):
        scope = type_name.removeprefix("gloo.solo.io.").removesuffix("Options")
        name = f"{scope[:1].lower()}{scope[1:]}Plugins"
        return "plugins", name, snake(name)
    if json_name == "matchers" and type_name == "gloo.solo.io.Matcher":
        return (SINGLE,)
    return ()


def snake(name: str) -> str:
    return re.sub("[A-Z]", lambda found: f"_{found[0].lower()}", name)
