"""Labels, annotations and names that the operator puts on what it makes."""

from __future__ import annotations

from llamamodel_operator.api.base import GROUP

MANAGER = "llamamodel-operator"
"""Field manager of every server-side apply, and the value of the managed-by label."""

NAME_LABEL = "app.kubernetes.io/name"
INSTANCE_LABEL = "app.kubernetes.io/instance"
MANAGED_BY_LABEL = "app.kubernetes.io/managed-by"
MODEL_LABEL = f"{GROUP}/model"
"""The child name of the LlamaModel (its own name where that is a valid Service name). Selects the pods."""

REVISION_LABEL = f"{GROUP}/revision"
"""Digest of the pod template, on pods: tells those of the present spec from those of earlier ones."""

APPLIED_HASH_ANNOTATION = f"{GROUP}/applied-hash"
"""Digest of what was last applied to a child: tells a field that is no longer wanted from one that never was."""

WATCH_LABEL = f"{GROUP}/watch"
"""On ConfigMaps, whatever its value: the operator is told of changes at once, of others within half a minute."""

INSPECT_ANNOTATION = f"{GROUP}/inspect"
"""On a LlamaModel: another value than before has its files inspected anew."""
SETTLE_ANNOTATION = f"{GROUP}/settle"
"""On a LlamaModel: another value than before has its automatic values (context, layers, memory request) settled anew,
which may roll its pods."""
TAKE_NAME_ANNOTATION = f"{GROUP}/take-name"
"""On a LlamaModel, with its served name as the value: it takes this name at the gateway, also where a LlamaModel of
another namespace had it before; not where one has it."""

CONTAINER = "llama-server"
"""Name of the container, and value of the name label."""

RESERVED_PREFIX = f"{GROUP}/"
RESERVED_LABELS = (NAME_LABEL, INSTANCE_LABEL, MANAGED_BY_LABEL)

MANAGED_SELECTOR = f"{MANAGED_BY_LABEL}={MANAGER}"

__all__ = [
    "APPLIED_HASH_ANNOTATION",
    "CONTAINER",
    "INSPECT_ANNOTATION",
    "INSTANCE_LABEL",
    "MANAGED_BY_LABEL",
    "MANAGED_SELECTOR",
    "MANAGER",
    "MODEL_LABEL",
    "NAME_LABEL",
    "RESERVED_LABELS",
    "RESERVED_PREFIX",
    "REVISION_LABEL",
    "SETTLE_ANNOTATION",
    "TAKE_NAME_ANNOTATION",
    "WATCH_LABEL",
]
