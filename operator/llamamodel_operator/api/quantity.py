"""Kubernetes resource quantities ("500m", "24Gi"): parsing and comparison by value."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field

from llamamodel_operator.api.amounts import parse_quantity

__all__ = ["Quantity", "parse_quantity", "same_quantity"]


def same_quantity(left: object, right: object) -> bool:
    """Whether two written forms mean the same amount ("1000m" and 1); the API server rewrites them at will."""
    if not isinstance(left, str | int) or not isinstance(right, str | int):
        return False
    try:
        return parse_quantity(left) == parse_quantity(right)
    except ValueError:
        return False


def _checked(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise ValueError(f"{value!r} must be a whole number, or text such as 4Gi or 500m")
    parse_quantity(value)
    return str(value)


_EXPECTED = "write a number and a unit without a space, such as 4Gi or 500m"

Quantity = Annotated[
    str | int,
    BeforeValidator(_checked),
    Field(
        json_schema_extra={
            "x-kubernetes-int-or-string": True,
            "maxLength": 64,
            "x-kubernetes-validations": [
                {
                    "rule": "type(self) == int || isQuantity(string(self))",
                    "message": f"not a quantity: {_EXPECTED}",
                    "messageExpression": f"'\"' + string(self) + '\" is not a quantity: {_EXPECTED}'",
                }
            ],
        }
    ),
]
"""A resource quantity as the user wrote it; compare with `same_quantity`, never as text."""
