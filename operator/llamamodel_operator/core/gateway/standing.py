"""How well a LlamaModel stands to have its served name at the gateway as a bare one: from its own object alone."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import Any

from llamamodel_operator.api.labels import TAKE_NAME_ANNOTATION

__all__ = ["Standing", "standing_of"]


class Standing(IntEnum):
    """Of those that want a name, the one with the lowest standing has it; of several, the elder."""

    HOLDS = 0
    """The operator has noted that it has the name."""
    WANTS = 1
    """Neither of the others."""
    REFUSED = 2
    """The operator has noted that a model of another namespace had the name: it is not had, also where nobody has it,
    until somebody asks for it by the annotation."""


def standing_of(raw: Mapping[str, Any], *, name: str) -> Standing:
    """Of a LlamaModel as the API server has it, regarding the name under which its spec wants to be served."""
    status = raw.get("status") or {}
    if status.get("gatewayName") == name:
        return Standing.HOLDS
    asked = (raw["metadata"].get("annotations") or {}).get(TAKE_NAME_ANNOTATION)
    return Standing.REFUSED if status.get("refusedName") == name != asked else Standing.WANTS
