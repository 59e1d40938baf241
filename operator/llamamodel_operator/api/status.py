"""`LlamaModel.status`: what was observed, small, and nothing in it that ticks."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from llamamodel_operator.api.base import ApiModel
from llamamodel_operator.api.conditions import Condition
from llamamodel_operator.api.findings import Finding

__all__ = [
    "ChatTemplatePresence",
    "DeviceMemoryStatus",
    "EndpointsStatus",
    "EngineStatus",
    "GpuMemoryStatus",
    "HostMemoryStatus",
    "LastFailure",
    "LlamaModelStatus",
    "LoraAdapterStatus",
    "MeasuredMemoryStatus",
    "MemoryStatus",
    "ModelStatus",
    "Phase",
    "SettledStatus",
]

_INT64 = Field(json_schema_extra={"format": "int64"})
_MOST_GPUS = 64


class Phase(StrEnum):
    """One word for the printer column. Programs use the conditions."""

    PENDING = "Pending"
    LOADING = "Loading"
    READY = "Ready"
    UPDATING = "Updating"
    SUSPENDED = "Suspended"
    FAILED = "Failed"


class SettledStatus(ApiModel):
    """Values that the spec leaves to the operator. Settled once for a spec and its files; a node that comes, goes or is
    relabelled changes none of them, nor does a newer operator. The annotation llamamodel.dev/settle has them settled
    anew."""

    file_digest: str | None = None
    """Digest of the sizes and headers of the files that they were settled for."""
    context_size: Annotated[int | None, _INT64] = None
    """Tokens of context, all slots together."""
    gpu_layers: Annotated[int | None, Field(json_schema_extra={"format": "int32"})] = None
    """Layers in GPU memory, the output layer counted."""
    startup_timeout_sec: Annotated[int | None, Field(json_schema_extra={"format": "int32"})] = None
    """Seconds that a container may take from its start until the model answers."""
    memory_request: str | None = None
    """Memory request of the container."""
    least_gpu_memory: str | None = None
    """The nodes are chosen by at least this much memory per GPU, as their label says."""


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
    """Digest of the spec and the image that `flags` and `settled` were settled for."""
    settled: SettledStatus | None = None
    """Values that the spec leaves to the operator; absent where nothing was known of the files."""


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
    """Reason in one word, such as OutOfGPUMemory; CrashLoop where the cause is not known."""
    message: str
    """The cause, in a sentence."""
    line: str | None = None
    """The line of its log that tells; absent where none does."""
    remedy: str | None = None
    """What to do; absent where nobody knows."""
    last_lines: str | None = None
    """The last lines that it wrote, where the cause is not known."""
    exit_code: Annotated[int, Field(json_schema_extra={"format": "int32"})]
    """Exit status of the container; 128 + N where signal N ended it."""
    time: Annotated[str, Field(json_schema_extra={"format": "date-time"})]
    """When it ended."""


class ChatTemplatePresence(StrEnum):
    """Whether the GGUF has a chat template."""

    PRESENT = "present"
    ABSENT = "absent"


class ModelStatus(ApiModel):
    """What the headers of the files say."""

    architecture: str | None = None
    """As llama.cpp names it, such as qwen3."""
    name: Annotated[str, Field(max_length=253)] | None = None
    """The name that the file gives itself."""
    parameters: Annotated[int, _INT64]
    """Number of weights."""
    quantization: str | None = None
    """How the weights are stored, such as Q4_K_M."""
    summary: str
    """Architecture and quantization, for the printer column."""
    size_bytes: Annotated[int, _INT64]
    """Bytes of all files of the model."""
    files: Annotated[int, Field(json_schema_extra={"format": "int32"})]
    """Number of files that the model consists of."""
    layers: Annotated[int | None, Field(json_schema_extra={"format": "int32"})] = None
    """Number of its layers."""
    context_length: Annotated[int | None, _INT64] = None
    """Tokens of context that it was trained with."""
    chat_template: ChatTemplatePresence
    """Whether the file brings a chat template."""
    digest: str
    """Digest of the sizes and headers of all files that the spec names."""


class DeviceMemoryStatus(ApiModel):
    """Memory by what takes it, in Mi, rounded up; what takes none is absent."""

    weights: str | None = None
    """The weights of the model and of the draft model."""
    kv_cache: str | None = None
    """The KV cache of both."""
    recurrent_state: str | None = None
    """The state of recurrent layers."""
    compute: str | None = None
    """Scratch buffers."""
    adapters: str | None = None
    """LoRA adapters."""
    projector: str | None = None
    """The projector and its scratch buffer."""
    total: str
    """The sum."""


class GpuMemoryStatus(DeviceMemoryStatus):
    """Memory of one GPU."""

    overhead: str | None = None
    """An allowance for the driver's own context."""
    available: str | None = None
    """What each GPU has, on the node among those that the pods may run on that has the most; absent where nobody
    knows."""


class HostMemoryStatus(DeviceMemoryStatus):
    """Memory of the container."""

    output: str | None = None
    """Logits and embeddings."""
    prompt_cache: str | None = None
    """What the server may keep of prompts that may come again."""


class MeasuredMemoryStatus(ApiModel):
    """What a running server said that it took."""

    gpus: Annotated[list[str], Field(max_length=_MOST_GPUS)]
    """Each GPU, without the driver's own context."""
    host: str | None = None
    """The host."""


class MemoryStatus(ApiModel):
    """What the model takes, as estimated from its header and the settings that it runs with."""

    gpus: Annotated[list[GpuMemoryStatus], Field(max_length=_MOST_GPUS)]
    """Each GPU, in llama.cpp's order; empty without one."""
    host: HostMemoryStatus
    """The container."""
    fits: str
    """True, False or Unknown, as the condition MemoryFits."""
    summary: str
    """What the fullest GPU takes and what it has, for the printer column."""
    context_size: Annotated[int, _INT64]
    """Tokens of context, all slots together."""
    max_context_size: Annotated[int | None, _INT64] = None
    """The largest context that would fit, all slots together; absent where nobody knows what the GPUs have."""
    gpu_layers: Annotated[int, Field(json_schema_extra={"format": "int32"})]
    """Layers in GPU memory, the output layer counted."""
    uncertain: Annotated[list[str] | None, Field(max_length=16)] = None
    """Why the figures may be wrong; absent where every rule is known."""
    measured: MeasuredMemoryStatus | None = None
    """What a running server said that it took; absent before one said."""


class LlamaModelStatus(ApiModel):
    """What the operator observed. Written only when it changes."""

    observed_generation: Annotated[int, Field(json_schema_extra={"format": "int64"})] = 0
    """The metadata.generation that this status speaks of."""
    phase: Phase | None = None
    """One word for people; programs use the conditions."""
    startup_deadline: Annotated[str, Field(json_schema_extra={"format": "date-time"})] | None = None
    """Until when the pod that loads the model has time to answer; absent where none loads."""
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
    gateway_name: str | None = None
    """The name that it has at the gateway besides `namespace/name`; absent where it has none or there is no gateway."""
    refused_name: str | None = None
    """The served name that a LlamaModel of another namespace has or had at the gateway: this one does not get it by
    itself, see the annotation llamamodel.dev/take-name; absent where there is none."""
    model: ModelStatus | None = None
    """What the headers of the files say; absent before they were read."""
    memory: MemoryStatus | None = None
    """What the model takes, as estimated; absent where the files could not be read."""
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
    """Accepted, Inspected, MemoryFits, Available, Progressing, Ready, each with reason and message."""
    last_failure: LastFailure | None = None
    """How a container last ended without being asked to, kept until the spec changes."""
