"""`LlamaModel.spec`: which GGUF to serve, and how. Types own their defaults, bounds and documentation."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated, Any, Self

from pydantic import AfterValidator, Field, model_validator

from llamamodel_operator.api.base import ApiModel, cel, kubernetes_type, matching
from llamamodel_operator.api.engine import CacheType, EngineSpec, GpuLayers
from llamamodel_operator.api.labels import RESERVED_LABELS, RESERVED_PREFIX
from llamamodel_operator.api.quantity import Quantity, parse_quantity
from llamamodel_operator.api.sources import (
    OBJECT_NAME,
    ChatTemplate,
    GgufFile,
    Grammar,
    ModelSource,
    PvcFile,
    SystemPrompt,
)

__all__ = [
    "DEFAULT_API_KEY_ENTRY",
    "DEFAULT_STARTUP_TIMEOUT_SEC",
    "ApiKeySecret",
    "Endpoints",
    "Gpu",
    "LlamaModelSpec",
    "LogColors",
    "Logging",
    "LoraAdapter",
    "MemoryPolicy",
    "Projector",
    "PullPolicy",
    "RequestDefaults",
    "Resources",
    "Speculative",
    "Task",
]

DEFAULT_API_KEY_ENTRY = "api-keys"
DEFAULT_STARTUP_TIMEOUT_SEC = 300
DEFAULT_TIMEOUT_SEC = 3600
"""Of llama-server (--timeout), in current builds."""
_STOP_SEC = 30
"""What a server takes to end once nothing is left to do: it gives back GPU memory."""


def _keyed_by(*keys: str) -> dict[str, Any]:
    """The list may hold only one item with these keys, as the pod's own list."""
    return {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": list(keys)}


class SecretReference(ApiModel):
    """A Secret in the namespace of the LlamaModel."""

    name: Annotated[str, Field(min_length=1, max_length=253), *OBJECT_NAME]
    """Name of the Secret."""


class ApiKeySecret(ApiModel):
    """The Secret with the API keys of a namespace's models, meant to be one for all of them."""

    name: Annotated[str, Field(min_length=1, max_length=253), *OBJECT_NAME]
    """Name of the Secret, in the namespace of the LlamaModel."""

    key: Annotated[
        str,
        Field(min_length=1, max_length=253),
        *matching("[-._a-zA-Z0-9]+", "must be a key of a Secret: letters, digits, '-', '_' and '.'"),
    ] = DEFAULT_API_KEY_ENTRY
    """Entry of the Secret: one key a line; empty lines and lines that begin with # are none. Unset: api-keys."""


class PullPolicy(StrEnum):
    """When the kubelet pulls an image."""

    ALWAYS = "Always"
    IF_NOT_PRESENT = "IfNotPresent"
    NEVER = "Never"


class MemoryPolicy(StrEnum):
    """What to do about a model that does not fit the GPUs it may run on."""

    WARN = "Warn"
    BLOCK = "Block"


def _some_memory(value: str | int | None) -> str | int | None:
    if value is not None and not 1 << 20 <= parse_quantity(value) <= 1 << 50:
        raise ValueError(f"must be between 1Mi and 1Pi; found {value!r}: write it with its unit, such as 24Gi")
    return value


_SOME_MEMORY = Field(
    json_schema_extra=cel(
        ("type(self) == int || isQuantity(string(self))", "not a quantity: write it with its unit, such as 24Gi"),
        (
            "type(self) == int ? (self >= 1048576 && self <= 1125899906842624) : !isQuantity(string(self)) ||"
            " (quantity(string(self)).compareTo(quantity('1Mi')) >= 0"
            " && quantity(string(self)).compareTo(quantity('1Pi')) <= 0)",
            "must be between 1Mi and 1Pi: write it with its unit, such as 24Gi",
        ),
    )
)

_NVIDIA = "nvidia.com/gpu"
_INT32 = 2**31 - 1


class Gpu(ApiModel):
    """The GPUs of each pod."""

    count: Annotated[int, Field(ge=1, le=64)] = 1
    """GPUs per pod. Unset: 1."""

    resource_name: Annotated[
        str,
        Field(min_length=3, max_length=317),
        *matching(
            "[a-z0-9]([-a-z0-9.]*[a-z0-9])?/[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?",
            "must be an extended resource name such as nvidia.com/gpu, amd.com/gpu or gpu.intel.com/xe",
        ),
    ] = _NVIDIA
    """Extended resource that the node advertises. It also selects the default image. Unset: nvidia.com/gpu."""

    memory: Annotated[Quantity | None, AfterValidator(_some_memory), _SOME_MEMORY] = None
    """Memory of each GPU, such as 24Gi, for nodes that carry no label that says it. It wins over labels. Unset: as
    the labels of GPU feature discovery (nvidia.com/gpu.memory, amd.com/gpu.vram) say. It chooses no nodes: that is
    up to nodeSelector."""


class Resources(ApiModel):
    """CPU, memory and other resources of the llama-server container; GPUs are asked for in spec.gpu."""

    requests: Annotated[dict[str, Quantity] | None, Field(max_length=32)] = None
    """What the scheduler sets aside, such as {cpu: "2", memory: 4Gi}."""

    limits: Annotated[dict[str, Quantity] | None, Field(max_length=32)] = None
    """What the container may use at most. Past the memory limit it is killed; the page cache of a memory-mapped
    model counts as memory that can be reclaimed."""


class Endpoints(ApiModel):
    """Optional HTTP endpoints of llama-server."""

    metrics: bool | None = None
    """Serve Prometheus metrics at /metrics (--metrics). Unset: yes."""

    slots: bool | None = None
    """Serve the state of the slots at /slots (--slots, --no-slots). Unset: yes."""


class LogColors(StrEnum):
    """Whether log lines are coloured. Not on and off: unquoted, YAML reads those as booleans."""

    AUTO = "auto"
    ENABLED = "enabled"
    DISABLED = "disabled"


class Logging(ApiModel):
    """What llama-server writes to its log."""

    verbose: bool | None = None
    """Write everything (--log-verbose); it may include what users wrote. Unset: no."""

    timestamps: bool | None = None
    """Begin each line with a timestamp (--log-timestamps). Unset: yes."""

    colors: LogColors | None = None
    """Colour the lines (--log-colors): auto (on a terminal, so not in a pod), enabled or disabled. Unset: auto."""


class Task(StrEnum):
    """What the model is for."""

    GENERATE = "generate"
    EMBED = "embed"
    RERANK = "rerank"


class Speculative(ApiModel):
    """Speculative decoding: a small model drafts tokens that the large one only checks. Same output, more speed,
    more memory. Both need the same vocabulary."""

    draft_model: ModelSource
    """The small model."""

    max_tokens: Annotated[int | None, Field(ge=1, le=1024)] = None
    """Most tokens of a draft (--spec-draft-n-max). Unset: 3 in current builds, 16 in older ones."""

    min_tokens: Annotated[int | None, Field(ge=0, le=1024)] = None
    """Fewest tokens of a draft; shorter ones are not used (--spec-draft-n-min). Unset: 0."""

    min_probability: Annotated[float | None, Field(ge=0, le=1)] = None
    """Probability below which drafting stops (--spec-draft-p-min). Unset: as the build has it."""

    gpu_layers: GpuLayers | None = None
    """Layers of the draft model in GPU memory (--spec-draft-ngl). Unset: auto where spec.gpu is given, else 0."""

    cache_type_k: CacheType | None = None
    """Element type of the draft model's K cache (--spec-draft-type-k). Unset: f16."""

    cache_type_v: CacheType | None = None
    """Element type of the draft model's V cache (--spec-draft-type-v). Unset: f16."""

    model_config = ApiModel.model_config | {
        "json_schema_extra": cel(
            (
                "!(has(self.minTokens) && has(self.maxTokens)) || self.minTokens <= self.maxTokens",
                "minTokens must not be larger than maxTokens",
            )
        )
    }

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if self.min_tokens and self.max_tokens and self.min_tokens > self.max_tokens:
            raise ValueError("minTokens must not be larger than maxTokens")
        return self


def _no_list_marks(file: GgufFile) -> GgufFile:
    if "," in file.path or ":" in file.path:
        raise ValueError("path must not contain ',' or ':', with which llama-server separates adapters and scales")
    return file


class LoraAdapter(ApiModel):
    """A LoRA adapter that is applied to the model."""

    name: Annotated[
        str,
        Field(min_length=1, max_length=63),
        *matching("[a-z0-9]([-a-z0-9.]*[a-z0-9])?", "must be lower case letters, digits, '-' and '.'"),
    ]
    """Name of the adapter, unique in this LlamaModel."""

    pvc: Annotated[
        GgufFile,
        Field(
            json_schema_extra=cel(
                (
                    "!self.path.matches('[,:]')",
                    "path must not contain ',' or ':', with which llama-server separates adapters and scales",
                )
            )
        ),
        AfterValidator(_no_list_marks),
    ]
    """The adapter as a GGUF file on a PersistentVolumeClaim."""

    scale: Annotated[float | None, Field(ge=-100, le=100)] = None
    """How strongly it acts; 0 is not at all. Unset: 1. A change acts on running pods at once and restarts nothing,
    while adding or removing an adapter rolls them."""

    @property
    def settled_scale(self) -> float:
        """The scale, the default filled in."""
        return 1.0 if self.scale is None else self.scale


class Projector(ApiModel):
    """The projector (mmproj) that lets a model see images or hear sound."""

    pvc: GgufFile
    """The projector as a GGUF file on a PersistentVolumeClaim."""

    offload: bool | None = None
    """Keep it in GPU memory (--mmproj-offload). Unset: yes."""


class RequestDefaults(ApiModel):
    """What a request that does not say otherwise asks for, in OpenAI's names."""

    model_config = ApiModel.model_config | {"alias_generator": None}

    temperature: Annotated[float | None, Field(ge=0, le=100)] = None
    """Sampling temperature (--temp)."""
    top_p: Annotated[float | None, Field(ge=0, le=1)] = None
    """Nucleus sampling (--top-p)."""
    top_k: Annotated[int | None, Field(ge=0, le=_INT32)] = None
    """Tokens that are sampled from (--top-k); 0 for all."""
    min_p: Annotated[float | None, Field(ge=0, le=1)] = None
    """Least probability in relation to the likeliest token (--min-p)."""
    max_tokens: Annotated[int | None, Field(ge=-1, le=_INT32)] = None
    """Most tokens of an answer (--predict); -1 for no limit."""
    seed: Annotated[int | None, Field(ge=-1, le=_INT32)] = None
    """Seed of the sampler (--seed); -1 for another one each time."""
    presence_penalty: Annotated[float | None, Field(ge=-2, le=2)] = None
    """Penalty for tokens that occurred (--presence-penalty)."""
    frequency_penalty: Annotated[float | None, Field(ge=-2, le=2)] = None
    """Penalty for tokens by how often they occurred (--frequency-penalty)."""
    repeat_penalty: Annotated[float | None, Field(ge=0.01, le=10)] = None
    """Penalty for repetition, 1 for none (--repeat-penalty)."""
    stop: Annotated[list[Annotated[str, Field(min_length=1, max_length=256)]] | None, Field(max_length=16)] = None
    """Texts at which an answer ends. For requests through the gateway."""


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
        Field(min_length=1, max_length=253),
        *matching("[^, \\x00-\\x1f\\x7f]+", "must not contain commas, spaces or control characters"),
    ] = None
    """Name under which clients ask for the model, the `model` of an OpenAI request. Unset: metadata.name."""

    task: Task | None = None
    """What the model is for: generate (completions and chat), embed (/v1/embeddings alone) or rerank (/v1/rerank).
    Unset: generate."""

    replicas: Annotated[int, Field(ge=0, le=1000, json_schema_extra={"format": "int32"})] = 1
    """Number of pods. 0 frees the GPUs. The target of `kubectl scale` and of autoscalers."""

    suspend: bool = False
    """Stop all pods and free their GPUs, whatever `replicas` says; the Service and the status stay."""

    startup_timeout_sec: Annotated[int | None, Field(ge=1, le=86_400)] = None
    """Seconds that a container may take from its start until the model answers. Past it the kubelet restarts the
    container. Unset: 300, and for large files 120 and one second for each 50 MB, settled when the spec or the file
    changes. Reckon with the file's size divided by the throughput of its storage."""

    termination_grace_period_seconds: Annotated[int | None, Field(ge=0, le=86_400)] = None
    """Seconds that a pod which is to stop may take to finish the answers that it has begun; it stops as soon as no slot
    is busy. 0 cuts them off. Unset: engine.timeoutSec (3600 where that is unset, too) and 30 more."""

    image: Annotated[
        str | None,
        Field(min_length=1, max_length=1024),
        *matching(
            "[a-zA-Z0-9][-a-zA-Z0-9._:/@]*",
            "must be an image reference such as ghcr.io/ggml-org/llama.cpp:server-cuda-b10434",
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

    api_key_secret_ref: ApiKeySecret | None = None
    """API keys that llama-server asks for (--api-key-file): all paths but /health are closed to requests without one
    of them. The Secret is mounted, so that its keys hold from the start of a pod on. The gateway and the operator show
    the key that podKeys.secretName of the chart names for the namespace. Unset: the port of the pods is open to whoever
    reaches it."""

    endpoints: Endpoints = Endpoints()
    """Optional HTTP endpoints of llama-server."""

    logging: Logging = Logging()
    """What llama-server writes to its log."""

    speculative: Speculative | None = None
    """Speculative decoding with a draft model."""

    lora_adapters: Annotated[list[LoraAdapter] | None, Field(max_length=32, json_schema_extra=_keyed_by("name"))] = None
    """LoRA adapters that are applied to the model, each with its scale."""

    projector: Projector | None = None
    """The projector (mmproj) of a model that takes images or sound."""

    chat_template: ChatTemplate | None = None
    """How a conversation becomes a prompt. Unset: as the GGUF says."""

    grammar: Grammar | None = None
    """What every answer must conform to, unless the request brings its own grammar. Tool calls do not work under
    it."""

    system_prompt: SystemPrompt | None = None
    """What a conversation begins with when the request has no system message."""

    request_defaults: RequestDefaults | None = None
    """What a request that does not say otherwise asks for, such as {temperature: 0.2, max_tokens: 512}. Those that
    llama-server has a flag for hold for the model's own Service too, the others for requests through the gateway."""

    extra_args: Annotated[
        list[Annotated[str, Field(max_length=65_536)]] | None,
        Field(max_length=512),
    ] = None
    """More arguments for llama-server, each a word, such as ["--top-n-sigma", "1.5"]. They are checked against the
    build that will run. What has a field of its own is refused here."""

    memory_policy: MemoryPolicy | None = None
    """What to do where the model, as estimated, is known not to fit the GPUs of any node that it may run on: Warn
    (start it, and say so) or Block (start no pod until it fits; what runs already is left alone). Unset: Warn."""

    require_offload: bool | None = None
    """Be Ready only where the servers' own logs do not say that they run without a GPU, although spec.gpu asks for one.
    Unset: no, Ready all the same, and the condition Offloaded tells."""

    env: Annotated[
        list[dict[str, Any]] | None,
        Field(
            max_length=128,
            json_schema_extra={"items": kubernetes_type("core.v1.EnvVar"), **_keyed_by("name")},
        ),
    ] = None
    """Environment variables of the container. Command line arguments, which the operator sets from the fields
    above, win over LLAMA_ARG_* variables; the same setting in both is refused. HOME is set by the operator, to a
    writable folder."""

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
                " [has(self.resources.limits) ? self.resources.limits : {},"
                " has(self.resources.requests) ? self.resources.requests : {}].all(given,"
                f" !((has(self.gpu.resourceName) ? self.gpu.resourceName : '{_NVIDIA}') in given))",
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

    @model_validator(mode="after")
    def _adapters_have_names_of_their_own(self) -> Self:
        names = [adapter.name for adapter in self.lora_adapters or ()]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(f"loraAdapters: two adapters are named {twice!r}")
        return self

    @property
    def settled_task(self) -> Task:
        """What the model is for, the default filled in."""
        return self.task or Task.GENERATE

    @property
    def settled_memory_policy(self) -> MemoryPolicy:
        """What to do where it does not fit, the default filled in."""
        return self.memory_policy or MemoryPolicy.WARN

    @property
    def files(self) -> tuple[PvcFile, ...]:
        """Every file on a volume that the pods read, each once, the model first."""
        return tuple(dict.fromkeys(file for _, file in self._named_files()))

    @property
    def claims(self) -> dict[str, str]:
        """Every PersistentVolumeClaim that the pods mount, the model's first, with the first field that names it."""
        found: dict[str, str] = {}
        for field, file in self._named_files():
            found.setdefault(file.claim_name, f"spec.{field}.pvc.claimName")
        return found

    def _named_files(self) -> Iterator[tuple[str, PvcFile]]:
        yield "model", self.model.pvc
        if self.speculative:
            yield "speculative.draftModel", self.speculative.draft_model.pvc
        for index, adapter in enumerate(self.lora_adapters or ()):
            yield f"loraAdapters[{index}]", adapter.pvc
        if self.projector:
            yield "projector", self.projector.pvc
        if self.chat_template and self.chat_template.pvc:
            yield "chatTemplate", self.chat_template.pvc
        if self.grammar and self.grammar.pvc:
            yield "grammar", self.grammar.pvc

    @property
    def wanted_replicas(self) -> int:
        """Pods that should run: none while suspended."""
        return 0 if self.suspend else self.replicas

    @property
    def settled_grace_period_sec(self) -> int:
        """Seconds that a pod may take to stop, the default filled in."""
        if self.termination_grace_period_seconds is not None:
            return self.termination_grace_period_seconds
        return (self.engine.timeout_sec or DEFAULT_TIMEOUT_SEC) + _STOP_SEC

    @property
    def settled_startup_timeout_sec(self) -> int:
        """Seconds from container start to readiness, the default filled in."""
        return self.startup_timeout_sec or DEFAULT_STARTUP_TIMEOUT_SEC
