"""Kubernetes resource quantities as numbers; apart from their type, so that what needs no types starts quickly."""

from __future__ import annotations

import re
from decimal import Decimal

__all__ = ["parse_quantity"]

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
