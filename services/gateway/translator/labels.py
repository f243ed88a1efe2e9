"""Label selectors: equality and expressions, as Gloo took them from Kubernetes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from shared.errors import InvalidResource


class Expression(Protocol):
    """One requirement; every message that has expressions brings its own equal type."""

    @property
    def key(self) -> str: ...
    @property
    def operator(self) -> object: ...
    @property
    def values(self) -> Sequence[str]: ...


_ONE = {"Equals", "DoubleEquals", "NotEquals"}
_NONE = {"Exists", "DoesNotExist"}
_NUMBER = {"GreaterThan", "LessThan"}


def check(expressions: Sequence[Expression], path: str) -> None:
    """Raise ``InvalidResource`` at the first expression that makes no sense."""
    for i, expression in enumerate(expressions):
        at, operator, values = f"{path}[{i}]", _name(expression), expression.values
        if not expression.key:
            raise InvalidResource(f"{at}.key", "is missing")
        if operator in _NONE and values:
            raise InvalidResource(f"{at}.values", f"{operator} takes no values")
        if operator in _ONE | _NUMBER and len(values) != 1:
            raise InvalidResource(f"{at}.values", f"{operator} takes exactly one value")
        if operator in _NUMBER and _number(values[0]) is None:
            raise InvalidResource(f"{at}.values[0]", f"{operator} takes a whole number, not {values[0]!r}")
        if operator in {"In", "NotIn"} and not values:
            raise InvalidResource(f"{at}.values", f"{operator} takes one or more values")


def match(
    labels: Mapping[str, str], wanted: Mapping[str, str], expressions: Sequence[Expression] = ()
) -> bool:
    """Whether *labels* have all that is wanted; nothing wanted matches everything."""
    return all(labels.get(key) == value for key, value in wanted.items()) and all(
        _holds(labels.get(expression.key), expression) for expression in expressions
    )


def _holds(label: str | None, expression: Expression) -> bool:
    match _name(expression):
        case "Equals" | "DoubleEquals" | "In":
            return label in expression.values
        case "NotEquals" | "NotIn":
            return label not in expression.values
        case "Exists":
            return label is not None
        case "DoesNotExist":
            return label is None
        case operator:
            number, bound = _number(label), _number(expression.values[0])
            if number is None or bound is None:
                return False
            return number > bound if operator == "GreaterThan" else number < bound


def _name(expression: Expression) -> str:
    return str(getattr(expression.operator, "name", expression.operator))


def _number(text: str | None) -> int | None:
    try:
        return int(text or "")
    except ValueError:
        return None
