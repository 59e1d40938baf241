"""The Service: one stable address for the pods of a model."""

from __future__ import annotations

from typing import Any

from llamamodel_operator.api.llamamodel import LlamaModel
from llamamodel_operator.core.engine.settings import PORT
from llamamodel_operator.core.objects.names import child_name, labels, selector

__all__ = ["build_service"]


def build_service(model: LlamaModel) -> dict[str, Any]:
    """A ClusterIP Service in the namespace of the model."""
    name = child_name(model.name)
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": name,
            "namespace": model.namespace,
            "labels": labels(name),
            "ownerReferences": [model.owner_reference()],
        },
        "spec": {
            "type": "ClusterIP",
            "publishNotReadyAddresses": False,
            "selector": selector(name),
            "ports": [{"name": "http", "port": PORT, "protocol": "TCP", "targetPort": "http", "appProtocol": "http"}],
        },
    }
