"""Names, labels and owner of the objects made for a LlamaModel."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from llamamodel_operator.api.labels import (
    CONTAINER,
    INSTANCE_LABEL,
    MANAGED_BY_LABEL,
    MANAGER,
    MODEL_LABEL,
    NAME_LABEL,
)
from llamamodel_operator.api.llamamodel import LlamaModel

__all__ = ["child_metadata", "child_name", "labels", "selector"]

_MAX_LENGTH = 63
_SERVICE_NAME = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")  # RFC 1035 label, what a Service needs


@lru_cache(maxsize=1024)  # the gateway asks for each request
def child_name(model_name: str) -> str:
    """Name of the Deployment and the Service: the model's own where that is a valid Service name.

    Else a readable rest of it and a hash: `qwen2.5-7b` becomes `qwen2-5-7b-` and eight hex digits.
    """
    if len(model_name) <= _MAX_LENGTH and _SERVICE_NAME.fullmatch(model_name):
        return model_name
    digest = hashlib.sha256(model_name.encode()).hexdigest()[:8]
    readable = re.sub(r"[^a-z0-9]+", "-", model_name.lower()).strip("-")
    if not readable[:1].isalpha():
        readable = f"m-{readable}".rstrip("-")
    return f"{readable[: _MAX_LENGTH - 9].rstrip('-')}-{digest}"


def selector(name: str) -> dict[str, str]:
    """Labels by which Deployment and Service find the pods of the model with this child name. Never changes."""
    return {MODEL_LABEL: name}


def labels(name: str) -> dict[str, str]:
    """Labels of every object and pod of the model with this child name."""
    return {
        NAME_LABEL: CONTAINER,
        INSTANCE_LABEL: name,
        MANAGED_BY_LABEL: MANAGER,
        **selector(name),
    }


def child_metadata(
    model: LlamaModel, *, name: str | None = None, also: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Metadata of an object that is made for this LlamaModel and goes with it.

    Args:
        name: where it is not the child name.
        also: labels besides those of every object, or in their place.
    """
    child = child_name(model.name)
    return {
        "name": name or child,
        "namespace": model.namespace,
        "labels": {**labels(child), **(also or {})},
        "ownerReferences": [model.owner_reference()],
    }
