"""The ``dataclass`` of generated messages: as the standard one, at a fraction of its price.

A process loads some thousand message classes and uses some dozens. The standard decorator looks at all fields
of each and compiles an ``__init__`` for it, which visits them again for every message made. This one looks at
the fields of a class when somebody asks for them, and has one ``__init__`` for all, which starts from the
values of an empty message. Type checkers see the standard one.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable
from typing import Any, TypeVar

C = TypeVar("C", bound=type[Any])
Blank = tuple[dict[str, Any], tuple[tuple[str, Callable[[], Any]], ...]]


_lock = threading.Lock()


def dataclass(*, eq: bool, repr: bool) -> Callable[[C], C]:
    def decorate(cls: Any) -> Any:
        cls.__dataclass_fields__ = _Fields()
        cls.__init__, cls.__eq__, cls.__bool__ = _init, _equal, _holds_something
        return cls

    return decorate


class _Fields:
    """Stands where the fields of a dataclass do, until they are wanted."""

    def __get__(self, message: object, cls: Any) -> Any:
        with _lock:
            if vars(cls)["__dataclass_fields__"] is self:
                cls.__doc__ = cls.__doc__ or cls.__name__  # or its signature is looked up for one
                dataclasses.dataclass(cls, eq=False, repr=False, init=False)
        return cls.__dataclass_fields__


def _init(self: Any, *given: Any, **values: Any) -> None:
    cls = self.__class__
    blank: Blank = vars(cls).get("_blank") or _make_blank(cls)
    shared, own = blank
    if given:
        values |= zip(shared, given, strict=False)
    held = self.__dict__ = shared | values
    for name, make in own:
        if name not in values:
            held[name] = make()
    if len(held) != len(shared):
        strangers = ", ".join(sorted(values.keys() - shared.keys()))
        raise TypeError(f"{cls.__name__} has no field {strangers}")


def _make_blank(cls: Any) -> Blank:
    """The values of an empty message, and which of them no two messages may share."""
    defaults: dict[str, Any] = {field.name: field.default_factory for field in dataclasses.fields(cls)}
    shared = {name: make() for name, make in defaults.items()} | {"_unknown_fields": b""}
    cls._blank = shared, tuple(item for item in defaults.items() if item[1] in (list, dict))
    return cls._blank  # type: ignore[no-any-return]


def _equal(self: Any, other: object) -> Any:
    return self.__dict__ == other.__dict__ if type(self) is type(other) else NotImplemented


def _holds_something(self: Any) -> bool:
    cls = self.__class__
    blank: Blank = vars(cls).get("_blank") or _make_blank(cls)
    return bool(self.__dict__ != blank[0])
