"""The Service: one stable address for the pods of a model."""

from __future__ import annotations

from typing import Any

from llamamodel_operator.api.llamamodel import LlamaModel
from llamamodel_operator.core.engine.settings import PORT
from llamamodel_operator.core.objects.names import child_metadata, child_name, selector

__all__ = ["build_service"]


def build_service(model: LlamaModel) -> dict[str, Any]:
    """A ClusterIP Service in the namespace of the model."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": child_metadata(model),
        "spec": {
            "type": "ClusterIP",
            "publishNotReadyAddresses": False,
            "selector": selector(child_name(model.name)),
            "ports": [{"name": "http", "port": PORT, "protocol": "TCP", "targetPort": "http", "appProtocol": "http"}],
        },
    }
