"""From a LlamaModel to everything that should exist for it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llamamodel_operator.api.labels import APPLIED_HASH_ANNOTATION, REVISION_LABEL
from llamamodel_operator.api.llamamodel import LlamaModel
from llamamodel_operator.core.engine.argv import PORT
from llamamodel_operator.core.objects.deployment import build_deployment
from llamamodel_operator.core.objects.names import child_name
from llamamodel_operator.core.objects.service import build_service

__all__ = ["ImageDefaults", "Plan", "make_plan"]


@dataclass(frozen=True, kw_only=True)
class ImageDefaults:
    """Images for LlamaModels that name none.

    Attributes:
        cpu: for models without a GPU.
        by_resource: for models with one, by the name of the extended resource.
        gpu: for models with a GPU of a resource that `by_resource` does not know.
    """

    cpu: str
    gpu: str
    by_resource: Mapping[str, str]

    def choose(self, model: LlamaModel) -> str:
        """The image that the model's pods run."""
        if model.spec.image:
            return model.spec.image
        if model.spec.gpu is None:
            return self.cpu
        return self.by_resource.get(model.spec.gpu.resource_name, self.gpu)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What should be. A dry run shows exactly this.

    Attributes:
        name: of every child.
        revision: digest of the pod template, which the pods carry as a label.
        image: of the container.
        command: program and arguments as the user would type them.
        endpoint: base URL inside the cluster.
        objects: the children, each with the digest of itself as an annotation.
    """

    name: str
    revision: str
    image: str
    command: tuple[str, ...]
    endpoint: str
    objects: tuple[Mapping[str, Any], ...]


def make_plan(model: LlamaModel, *, images: ImageDefaults) -> Plan:
    """Everything that should exist for this model. Pure: the same model always gives the same plan."""
    name = child_name(model.name)
    image = images.choose(model)
    deployment = build_deployment(model, image=image)
    template = deployment["spec"]["template"]
    revision = _digest(template)
    template["metadata"]["labels"][REVISION_LABEL] = revision
    (container,) = template["spec"]["containers"]
    return Plan(
        name=name,
        revision=revision,
        image=image,
        command=("llama-server", *(argument.replace("$$", "$") for argument in container["args"])),
        endpoint=f"http://{name}.{model.namespace}.svc:{PORT}",
        objects=tuple(_stamped(child) for child in (build_service(model), deployment)),
    )


def _stamped(child: dict[str, Any]) -> dict[str, Any]:
    metadata = child["metadata"]
    annotations = {**metadata.get("annotations", {}), APPLIED_HASH_ANNOTATION: _digest(child)}
    return {**child, "metadata": {**metadata, "annotations": annotations}}


def _digest(value: Mapping[str, Any]) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
