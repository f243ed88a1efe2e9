"""Label selectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from protos.gateway import RouteTableSelectorExpression as Expression
from protos.gateway import RouteTableSelectorExpressionOperator as Operator
from services.gateway.translator import labels
from shared.errors import InvalidResource

LABELS = {"color": "red", "size": "7"}


def expression(operator: str, *values: str, key: str = "color") -> Expression:
    return Expression(key=key, operator=Operator[operator], values=list(values))


@pytest.mark.parametrize(
    ("wanted", "expressions", "matches"),
    [
        ({}, [], True),
        ({"color": "red"}, [], True),
        ({"color": "red", "size": "8"}, [], False),
        ({}, [expression("Equals", "red")], True),
        ({}, [expression("DoubleEquals", "blue")], False),
        ({}, [expression("NotEquals", "blue")], True),
        ({}, [expression("NotEquals", "x", key="absent")], True),
        ({}, [expression("Equals", "", key="absent")], False),
        ({}, [expression("In", "blue", "red")], True),
        ({}, [expression("NotIn", "blue", "red")], False),
        ({}, [expression("Exists")], True),
        ({}, [expression("Exists", key="absent")], False),
        ({}, [expression("DoesNotExist", key="absent")], True),
        ({}, [expression("GreaterThan", "6", key="size")], True),
        ({}, [expression("LessThan", "7", key="size")], False),
        ({}, [expression("GreaterThan", "6")], False),
        ({"color": "red"}, [expression("Exists", key="absent")], False),
    ],
)
def test_labels_match(wanted: Mapping[str, str], expressions: Sequence[Expression], matches: bool) -> None:
    assert labels.match(LABELS, wanted, expressions) is matches


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        (expression("Equals"), "e[0].values: Equals takes exactly one value"),
        (expression("In"), "e[0].values: In takes one or more values"),
        (expression("Exists", "x"), "e[0].values: Exists takes no values"),
        (expression("LessThan", "x"), "e[0].values[0]: LessThan takes a whole number, not 'x'"),
        (expression("Equals", "x", key=""), "e[0].key: is missing"),
    ],
)
def test_a_senseless_expression_is_an_error(wrong: Expression, problem: str) -> None:
    with pytest.raises(InvalidResource) as raised:
        labels.check([wrong], "e")

    assert str(raised.value) == problem
