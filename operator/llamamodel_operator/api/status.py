"""`LlamaModel.status`: what was observed, small, and nothing in it that ticks."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from llamamodel_operator.api.base import ApiModel
from llamamodel_operator.api.conditions import Condition
from llamamodel_operator.api.findings import Finding

__all__ = ["EndpointsStatus", "EngineStatus", "LastFailure", "LlamaModelStatus", "LoraAdapterStatus", "Phase"]


class Phase(StrEnum):
    """One word for the printer column. Programs use the conditions."""

    PENDING = "Pending"
    LOADING = "Loading"
    READY = "Ready"
    UPDATING = "Updating"
    SUSPENDED = "Suspended"
    FAILED = "Failed"


class EngineStatus(ApiModel):
    """The llama-server that runs."""

    image: str
    """Image that the pods of this generation run."""
    build: str | None = None
    """Build of llama.cpp in it, as its running server says; absent before one said."""
    flags: str | None = None
    """Build whose flags the command line is written for. Settled until the spec or the image changes; scaling and
    suspending do not count."""
    settled_for: str | None = None
    """Digest of the spec and the image that `flags` was settled for."""


class EndpointsStatus(ApiModel):
    """Where the optional endpoints of llama-server are, inside the cluster."""

    metrics: str | None = None
    """URL of the Prometheus metrics; absent where they are off."""
    slots: str | None = None
    """URL of the state of the slots; absent where it is off."""


class LoraAdapterStatus(ApiModel):
    """One LoRA adapter."""

    name: str
    """Its name in the spec."""
    id: Annotated[int, Field(json_schema_extra={"format": "int32"})]
    """The id by which requests choose it."""
    scale: float
    """The scale that is wanted."""
    loaded: Annotated[int, Field(json_schema_extra={"format": "int32"})]
    """Pods in which it has this scale, as they say themselves."""


class LastFailure(ApiModel):
    """How a container of this LlamaModel last ended without being asked to."""

    reason: str
    """Reason in one word, such as OutOfMemory or CrashLoop."""
    message: str
    """The last lines that the container wrote, or what the kubelet said."""
    exit_code: Annotated[int, Field(json_schema_extra={"format": "int32"})]
    """Exit status of the container; 128 + N where signal N ended it."""
    time: Annotated[str, Field(json_schema_extra={"format": "date-time"})]
    """When it ended."""


class LlamaModelStatus(ApiModel):
    """What the operator observed. Written only when it changes."""

    observed_generation: Annotated[int, Field(json_schema_extra={"format": "int64"})] = 0
    """The metadata.generation that this status speaks of."""
    phase: Phase | None = None
    """One word for people; programs use the conditions."""
    replicas: Annotated[int, Field(json_schema_extra={"format": "int32"})] = 0
    """Pods that exist."""
    ready_replicas: Annotated[int, Field(json_schema_extra={"format": "int32"})] = 0
    """Pods that answer."""
    selector: str | None = None
    """Label selector of the pods, for autoscalers."""
    endpoint: str | None = None
    """Base URL of the OpenAI-compatible API inside the cluster, without /v1."""
    served_model_name: str | None = None
    """The `model` of a request."""
    engine: EngineStatus | None = None
    """The llama-server that runs."""
    endpoints: EndpointsStatus | None = None
    """Where the optional endpoints are."""
    lora_adapters: Annotated[list[LoraAdapterStatus] | None, Field(max_length=32)] = None
    """The LoRA adapters and their scales."""
    command: list[str] | None = None
    """The command line of the container, secrets masked."""
    findings: Annotated[list[Finding] | None, Field(max_length=64)] = None
    """What was found before anything ran: errors first, then warnings."""
    conditions: Annotated[
        list[Condition],
        Field(
            default_factory=list,
            max_length=32,
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
        ),
    ]
    """Accepted, Available, Progressing, Ready, each with reason and message."""
    last_failure: LastFailure | None = None
    """How a container last ended without being asked to, kept until the spec changes."""
