"""Manifests, built so that a test reads as a sentence: `a_model("gemma").in_("demo").with_(replicas=2)`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

__all__ = ["CLAIM", "Manifest", "a_claim", "a_deployment", "a_model", "a_service"]

CLAIM = "models"


@dataclass(frozen=True)
class Manifest:
    """What a user writes into a file."""

    api_version: str
    kind: str
    name: str
    namespace: str = ""
    spec: Mapping[str, Any] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    owners: tuple[Mapping[str, Any], ...] = ()

    def in_(self, namespace: str) -> Self:
        return replace(self, namespace=namespace)

    def named(self, name: str) -> Self:
        return replace(self, name=name)

    def with_(self, **fields: Any) -> Self:
        """More fields of the spec, by their names on the wire."""
        return replace(self, spec={**self.spec, **fields})

    def reading(self, path: str, *, claim: str = CLAIM) -> Self:
        """Another file."""
        return self.with_(model={"pvc": {"claimName": claim, "path": path}})

    def labelled(self, labels: Mapping[str, str]) -> Self:
        return replace(self, labels=labels)

    def owned_by(self, owner: Mapping[str, Any]) -> Self:
        return replace(self, owners=(owner,))

    @property
    def body(self) -> dict[str, Any]:
        """As the API server takes it."""
        metadata: dict[str, Any] = {"name": self.name}
        if self.namespace:
            metadata["namespace"] = self.namespace
        if self.labels:
            metadata["labels"] = dict(self.labels)
        if self.owners:
            metadata["ownerReferences"] = [dict(owner) for owner in self.owners]
        return {"apiVersion": self.api_version, "kind": self.kind, "metadata": metadata, "spec": dict(self.spec)}


def a_model(name: str = "gemma") -> Manifest:
    """A LlamaModel with nothing but its file."""
    return Manifest("llamamodel.dev/v1alpha1", "LlamaModel", name).reading("gemma.gguf")


def a_claim(name: str = CLAIM) -> Manifest:
    """A PersistentVolumeClaim; Pending until somebody plays its controller."""
    spec = {"accessModes": ["ReadOnlyMany"], "resources": {"requests": {"storage": "1Gi"}}}
    return Manifest("v1", "PersistentVolumeClaim", name, spec=spec)


def a_deployment(name: str) -> Manifest:
    """Somebody's Deployment that has nothing to do with models."""
    labels = {"app": name}
    containers = [{"name": "web", "image": "example.com/web:1"}]
    template = {"metadata": {"labels": labels}, "spec": {"containers": containers}}
    return Manifest("apps/v1", "Deployment", name, spec={"selector": {"matchLabels": labels}, "template": template})


def a_service(name: str) -> Manifest:
    """Somebody's Service that has nothing to do with models."""
    return Manifest("v1", "Service", name, spec={"selector": {"app": name}, "ports": [{"port": 80}]})
