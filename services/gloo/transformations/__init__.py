"""Templates and expressions, compiled to data that one Lua program in Envoy runs.

What users write never becomes code: ``runtime.lua`` stands in the listeners, the same for all, and gets a
route's transformations as a JSON document.
"""

from importlib.resources import files


def source(*names: str) -> str:
    """A Lua program of several files: what the first ones define the others use."""
    return "".join((files(__name__) / name).read_text() for name in names)
