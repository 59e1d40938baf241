"""`LlamaModel.spec`: which GGUF to serve, and how. Types own their defaults, bounds and documentation."""

from __future__ import annotations

import unicodedata
from enum import StrEnum
from typing import Annotated, Any, Self

from pydantic import AfterValidator, Field, model_validator

from llamamodel_operator.api.base import ApiModel, cel, kubernetes_type
from llamamodel_operator.api.engine import EngineSpec
from llamamodel_operator.api.labels import RESERVED_LABELS, RESERVED_PREFIX
from llamamodel_operator.api.quantity import Quantity

__all__ = [
    "DEFAULT_STARTUP_TIMEOUT_SEC",
    "Endpoints",
    "Gpu",
    "LlamaModelSpec",
    "ModelSource",
    "PullPolicy",
    "PvcFile",
    "Resources",
]

DEFAULT_STARTUP_TIMEOUT_SEC = 300

_NAME_RULE = (
    "self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$')",
    "must be the name of an object: lower case letters, digits, '-' and '.', a letter or digit at either end",
)


def _relative_file(path: str) -> str:
    if path.startswith("/"):
        raise ValueError(f"{path!r} must be relative to the root of the volume: remove the leading /")
    if ".." in path.split("/"):
        raise ValueError(f"{path!r} must not contain '..': name the file from the root of the volume")
    if path.endswith("/"):
        raise ValueError(f"{path!r} must name a file, not a folder")
    if any(unicodedata.category(character) == "Cc" for character in path):
        raise ValueError(f"{path!r} must not contain control characters")
    return path


class PvcFile(ApiModel):
    """A file on a PersistentVolumeClaim in the namespace of the LlamaModel."""

    claim_name: Annotated[str, Field(min_length=1, max_length=253, json_schema_extra=cel(_NAME_RULE))]
    """Name of the PersistentVolumeClaim. It is mounted read-only."""

    path: Annotated[
        str,
        Field(
            min_length=1,
            max_length=1024,
            json_schema_extra=cel(
                ("!self.startsWith('/')", "must be relative to the root of the volume: remove the leading /"),
                (
                    "!self.matches('(^|/)[.][.](/|$)')",
                    "must not contain '..': name the file from the root of the volume",
                ),
                ("!self.endsWith('/')", "must name a file, not a folder"),
                ("!self.matches('[[:cntrl:]]')", "must not contain control characters"),
            ),
        ),
        AfterValidator(_relative_file),
    ]
    """Path of the GGUF file, relative to the root of the volume. Of a model in several parts, the first part
    (…-00001-of-0000N.gguf); the others must lie beside it."""


class ModelSource(ApiModel):
    """Where the GGUF comes from."""

    pvc: PvcFile
    """A file on a PersistentVolumeClaim."""


def _keyed_by(*keys: str) -> dict[str, Any]:
    """The list may hold only one item with these keys, as the pod's own list."""
    return {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": list(keys)}


class SecretReference(ApiModel):
    """A Secret in the namespace of the LlamaModel."""

    name: Annotated[str, Field(min_length=1, max_length=253)]
    """Name of the Secret."""


class PullPolicy(StrEnum):
    """When the kubelet pulls an image."""

    ALWAYS = "Always"
    IF_NOT_PRESENT = "IfNotPresent"
    NEVER = "Never"


class Gpu(ApiModel):
    """The GPUs of each pod."""

    count: Annotated[int, Field(ge=1, le=64)] = 1
    """GPUs per pod."""

    resource_name: Annotated[
        str,
        Field(
            min_length=3,
            max_length=317,
            json_schema_extra=cel(
                (
                    "self.matches('^[a-z0-9]([-a-z0-9.]*[a-z0-9])?/[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$')",
                    "must be an extended resource name such as nvidia.com/gpu, amd.com/gpu or gpu.intel.com/xe",
                )
            ),
        ),
    ] = "nvidia.com/gpu"
    """Extended resource that the node advertises. It also selects the default image."""


class Resources(ApiModel):
    """CPU, memory and other resources of the llama-server container; GPUs are asked for in spec.gpu."""

    requests: Annotated[dict[str, Quantity] | None, Field(max_length=32)] = None
    """What the scheduler sets aside, such as {cpu: "2", memory: 4Gi}."""

    limits: Annotated[dict[str, Quantity] | None, Field(max_length=32)] = None
    """What the container may use at most. Past the memory limit it is killed; the page cache of a memory-mapped
    model counts as memory that can be reclaimed."""


class Endpoints(ApiModel):
    """Optional HTTP endpoints of llama-server."""

    metrics: bool = True
    """Serve Prometheus metrics at /metrics (--metrics)."""

    slots: bool = True
    """Serve the state of the slots at /slots (--slots, --no-slots)."""


_RESERVED = ", ".join(RESERVED_LABELS)
_LABEL_RULE = cel(
    (
        f"self.all(k, !k.startsWith('{RESERVED_PREFIX}') && !(k in {list(RESERVED_LABELS)!r}))",
        f"the operator sets {_RESERVED} and {RESERVED_PREFIX}* itself: choose other labels",
    )
)


def _no_reserved_labels(labels: dict[str, str] | None) -> dict[str, str] | None:
    for key in labels or {}:
        if key.startswith(RESERVED_PREFIX) or key in RESERVED_LABELS:
            raise ValueError(f"the operator sets {key} itself: choose another label")
    return labels


class LlamaModelSpec(ApiModel):
    """The model to serve and how to serve it. Only `model` is required."""

    model: ModelSource
    """Which GGUF file to serve."""

    served_model_name: Annotated[
        str | None,
        Field(
            min_length=1,
            max_length=253,
            json_schema_extra=cel(
                (
                    "self.matches('^[^,[:space:][:cntrl:]]+$')",
                    "must not contain commas, spaces or control characters",
                )
            ),
        ),
    ] = None
    """Name under which clients ask for the model, the `model` of an OpenAI request. Unset: metadata.name."""

    replicas: Annotated[int, Field(ge=0, le=1000, json_schema_extra={"format": "int32"})] = 1
    """Number of pods. 0 frees the GPUs. The target of `kubectl scale` and of autoscalers."""

    suspend: bool = False
    """Stop all pods and free their GPUs, whatever `replicas` says; the Service and the status stay."""

    startup_timeout_sec: Annotated[int | None, Field(ge=1, le=86_400)] = None
    """Seconds that a container may take from its start until the model answers. Past it the kubelet restarts the
    container. Unset: 300. Reckon with the file's size divided by the throughput of its storage."""

    image: Annotated[
        str | None,
        Field(
            min_length=1,
            max_length=1024,
            json_schema_extra=cel(
                (
                    "self.matches('^[a-zA-Z0-9][a-zA-Z0-9._:/@-]*$')",
                    "must be an image reference such as ghcr.io/ggml-org/llama.cpp:server-cuda-b10434",
                )
            ),
        ),
    ] = None
    """Image of llama-server whose entry point is the server itself. Unset: the operator's default for the GPU
    resource asked for."""

    image_pull_policy: PullPolicy | None = None
    """When the image is pulled. Unset: Always for the tag latest, else IfNotPresent."""

    image_pull_secrets: Annotated[
        list[SecretReference] | None, Field(max_length=32, json_schema_extra=_keyed_by("name"))
    ] = None
    """Secrets in the namespace of the LlamaModel that open private registries."""

    gpu: Gpu | None = None
    """The GPUs of each pod. Unset: none, the model runs on the CPU."""

    resources: Resources | None = None
    """CPU and memory of each pod."""

    engine: EngineSpec = EngineSpec()
    """Settings of llama-server."""

    endpoints: Endpoints = Endpoints()
    """Optional HTTP endpoints of llama-server."""

    env: Annotated[
        list[dict[str, Any]] | None,
        Field(
            max_length=128,
            json_schema_extra={"items": kubernetes_type("core.v1.EnvVar"), **_keyed_by("name")},
        ),
    ] = None
    """Environment variables of the container. Command line arguments, which the operator sets from the fields
    above, win over LLAMA_ARG_* variables. HOME is set by the operator, to a writable folder."""

    pod_security_context: Annotated[
        dict[str, Any] | None, Field(json_schema_extra=kubernetes_type("core.v1.PodSecurityContext"))
    ] = None
    """UID, GIDs and more of the pods, merged over the defaults: non-root, UID and GID 65532, seccomp
    RuntimeDefault. Set fsGroup or runAsUser where the files are not readable by others."""

    node_selector: Annotated[dict[str, str] | None, Field(max_length=64)] = None
    """Labels that a node must have."""

    tolerations: Annotated[
        list[dict[str, Any]] | None,
        Field(max_length=64, json_schema_extra={"items": kubernetes_type("core.v1.Toleration")}),
    ] = None
    """Taints that the pods accept."""

    affinity: Annotated[dict[str, Any] | None, Field(json_schema_extra=kubernetes_type("core.v1.Affinity"))] = None
    """Rules that attract the pods to nodes and to other pods, or keep them apart."""

    topology_spread_constraints: Annotated[
        list[dict[str, Any]] | None,
        Field(
            max_length=16,
            json_schema_extra={
                "items": kubernetes_type("core.v1.TopologySpreadConstraint"),
                **_keyed_by("topologyKey", "whenUnsatisfiable"),
            },
        ),
    ] = None
    """How the pods are spread over zones and nodes."""

    priority_class_name: Annotated[str | None, Field(min_length=1, max_length=253)] = None
    """PriorityClass of the pods."""

    runtime_class_name: Annotated[str | None, Field(min_length=1, max_length=253)] = None
    """RuntimeClass of the pods, such as nvidia where that is not the node's default."""

    service_account_name: Annotated[str | None, Field(min_length=1, max_length=253)] = None
    """ServiceAccount of the pods. No token is mounted. Unset: default."""

    pod_labels: Annotated[
        dict[str, str] | None,
        Field(max_length=64, json_schema_extra=_LABEL_RULE),
        AfterValidator(_no_reserved_labels),
    ] = None
    """Labels added to the pods. A change replaces them."""

    pod_annotations: Annotated[dict[str, str] | None, Field(max_length=64)] = None
    """Annotations added to the pods. A change replaces them."""

    model_config = ApiModel.model_config | {
        "json_schema_extra": cel(
            (
                "!has(self.gpu) || !has(self.resources) ||"
                " ((!has(self.resources.limits) || !(self.gpu.resourceName in self.resources.limits)) &&"
                " (!has(self.resources.requests) || !(self.gpu.resourceName in self.resources.requests)))",
                "GPUs are asked for in spec.gpu: remove them from spec.resources",
            )
        )
    }

    @model_validator(mode="after")
    def _gpus_in_one_place(self) -> Self:
        named = {**(self.resources.limits or {}), **(self.resources.requests or {})} if self.resources else {}
        if self.gpu and self.gpu.resource_name in named:
            raise ValueError("GPUs are asked for in spec.gpu: remove them from spec.resources")
        return self

    @property
    def wanted_replicas(self) -> int:
        """Pods that should run: none while suspended."""
        return 0 if self.suspend else self.replicas

    @property
    def settled_startup_timeout_sec(self) -> int:
        """Seconds from container start to readiness, the default filled in."""
        return self.startup_timeout_sec or DEFAULT_STARTUP_TIMEOUT_SEC
