"""Kubernetes resource quantities ("500m", "24Gi"): parsing and comparison by value."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Annotated

from pydantic import BeforeValidator, Field

__all__ = ["Quantity", "parse_quantity", "same_quantity"]

# https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/
_PATTERN = re.compile(
    r"(?P<number>[+-]?(?:\d+(?:\.\d*)?|\.\d+))(?P<suffix>[eE][+-]?\d{1,3}|[KMGTPE]i|[numkMGTPE])?", re.ASCII
)
_DECIMAL = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50, "Ei": 60}


def parse_quantity(value: str | int) -> Decimal:
    """The value in its base unit (bytes, cores, pieces).

    Raises:
        ValueError: not a quantity; the message says what one looks like.
    """
    match = _PATTERN.fullmatch(str(value))
    if match is None:
        raise ValueError(f"{value!r} is not a quantity: write a number and a unit without a space, such as 4Gi or 500m")
    number, suffix = Decimal(match["number"]), match["suffix"] or ""
    if suffix in _BINARY:
        return number * (1 << _BINARY[suffix])
    if suffix in _DECIMAL:
        return number.scaleb(_DECIMAL[suffix])
    return number.scaleb(int(suffix[1:]))


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
