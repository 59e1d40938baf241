"""`spec.engine`: what llama-server is told, by what the user means rather than by how a build spells it."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from llamamodel_operator.api.base import ApiModel, cel, matching
from llamamodel_operator.api.quantity import Quantity, parse_quantity

__all__ = [
    "DEFAULT_DEFRAG_THRESHOLD",
    "DEFAULT_PARALLEL_SLOTS",
    "DEFAULT_QUEUE_LIMIT",
    "MOST_THREADS",
    "CacheType",
    "ContextSize",
    "EngineSpec",
    "FlashAttention",
    "GpuLayers",
    "NumaPolicy",
    "Pooling",
    "RopeScaling",
    "SplitMode",
]


class CacheType(StrEnum):
    """Element types of the KV cache that llama.cpp offers."""

    F32 = "f32"
    F16 = "f16"
    BF16 = "bf16"
    Q8_0 = "q8_0"
    Q5_1 = "q5_1"
    Q5_0 = "q5_0"
    Q4_1 = "q4_1"
    Q4_0 = "q4_0"
    IQ4_NL = "iq4_nl"

    @property
    def quantized(self) -> bool:
        """Whether elements are stored in blocks of less than 16 bits each."""
        return self not in (CacheType.F32, CacheType.F16, CacheType.BF16)


class FlashAttention(StrEnum):
    """Whether the fused attention kernels are used. Not on and off: unquoted, YAML reads those as booleans."""

    AUTO = "auto"
    ENABLED = "enabled"
    DISABLED = "disabled"


class SplitMode(StrEnum):
    """How a model is spread over several GPUs."""

    NONE = "none"
    LAYER = "layer"
    ROW = "row"
    TENSOR = "tensor"


class NumaPolicy(StrEnum):
    """What llama.cpp does on a machine with several memory nodes."""

    DISTRIBUTE = "distribute"
    ISOLATE = "isolate"
    NUMACTL = "numactl"


class RopeScaling(StrEnum):
    """How positions past the trained context are scaled."""

    NONE = "none"
    LINEAR = "linear"
    YARN = "yarn"


class Pooling(StrEnum):
    """How the vectors of an input's tokens become one."""

    NONE = "none"
    MEAN = "mean"
    CLS = "cls"
    LAST = "last"
    RANK = "rank"


MOST_THREADS = 4096
DEFAULT_PARALLEL_SLOTS = 4
"""Slots of current builds where nobody says how many (tools/server/server.cpp); older ones have one."""
DEFAULT_QUEUE_LIMIT = 256
DEFAULT_DEFRAG_THRESHOLD = 0.1
_MOST_LAYERS = 100_000
_MOST_CONTEXT = 1 << 30


def _layers(value: object) -> object:
    if value in ("auto", "all"):
        return value
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MOST_LAYERS:
        return value
    raise ValueError(f"must be auto, all, or a number of layers from 0 on; found {value!r}")


def _context_size(value: object) -> object:
    if value == "auto":
        return value
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MOST_CONTEXT:
        return value
    raise ValueError(f"must be auto, or a number of tokens from 0 to {_MOST_CONTEXT}; found {value!r}")


def _cpu_moe_layers(value: object) -> object:
    if value == "all":
        return value
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MOST_LAYERS:
        return value
    raise ValueError(f"must be all, or a number of layers from 0 on; found {value!r}")


GpuLayers = Annotated[
    Literal["auto", "all"] | int,
    BeforeValidator(_layers),
    Field(
        json_schema_extra={
            "x-kubernetes-int-or-string": True,
            **cel(
                (
                    f"type(self) == int ? (self >= 0 && self <= {_MOST_LAYERS}) : self in ['auto', 'all']",
                    "must be auto, all, or a number of layers from 0 on",
                    "'must be auto, all, or a number of layers from 0 on; found \"' + string(self) + '\"'",
                )
            ),
        }
    ),
]

ContextSize = Annotated[
    Literal["auto"] | int,
    BeforeValidator(_context_size),
    Field(
        json_schema_extra={
            "x-kubernetes-int-or-string": True,
            **cel(
                (
                    f"type(self) == int ? (self >= 0 && self <= {_MOST_CONTEXT}) : self == 'auto'",
                    f"must be auto, or a number of tokens from 0 to {_MOST_CONTEXT}",
                    f"'must be auto, or a number of tokens from 0 to {_MOST_CONTEXT}; found \"' + string(self) + '\"'",
                )
            ),
        }
    ),
]

CpuMoeLayers = Annotated[
    Literal["all"] | int,
    BeforeValidator(_cpu_moe_layers),
    Field(
        json_schema_extra={
            "x-kubernetes-int-or-string": True,
            **cel(
                (
                    f"type(self) == int ? (self >= 0 && self <= {_MOST_LAYERS}) : self == 'all'",
                    "must be all, or a number of layers from 0 on",
                    "'must be all, or a number of layers from 0 on; found \"' + string(self) + '\"'",
                )
            ),
        }
    ),
]

TensorOverride = Annotated[
    str,
    Field(min_length=3, max_length=512),
    *matching(
        "[^,=\\x00-\\x1f\\x7f]+=[A-Za-z0-9_]+",
        "must be PATTERN=BUFFER, such as 'blk[.][0-9]+[.]ffn_.*_exps=CPU', without commas",
    ),
]


def _not_negative(value: str | int) -> str | int:
    if str(value).startswith("-"):
        raise ValueError(f"must be 0 or more; found {value!r}")
    if parse_quantity(value) > 1 << 40:
        raise ValueError(f"must be 1Ti or less; found {value!r}")
    return value


PromptCacheSize = Annotated[
    Quantity,
    AfterValidator(_not_negative),
    Field(
        json_schema_extra={
            "x-kubernetes-int-or-string": True,
            "maxLength": 64,
            **cel(
                ("type(self) == int || isQuantity(string(self))", "not a quantity: write 2Gi or 512Mi"),
                ("type(self) == int ? self >= 0 : !string(self).startsWith('-')", "must be 0 or more"),
                (
                    "type(self) == int ? self <= 1099511627776 :"
                    " !isQuantity(string(self)) || quantity(string(self)).compareTo(quantity('1Ti')) <= 0",
                    "must be 1Ti or less",
                ),
            ),
        }
    ),
]


class EngineSpec(ApiModel):
    """Settings of llama-server. What is left out keeps llama.cpp's own default, as the field says. The flag in
    parentheses is the one of current builds; older builds get theirs."""

    build: Annotated[int | None, Field(ge=1, le=10_000_000)] = None
    """Build of llama.cpp in the image, such as 10434 for b10434. Needed only where the image's tag does not say
    it. Flags are chosen and checked for this build."""

    context_size: ContextSize | None = None
    """Context size in tokens, all slots together (--ctx-size), or auto: the largest that fits the GPUs, at most what
    the model was trained with. 0: what the model was trained with. Unset: the same, and where that is known not to fit,
    MemoryFits is False and the largest that does is used. The KV cache grows in proportion to it."""

    parallel_slots: Annotated[int | None, Field(ge=1, le=256)] = None
    """How many requests one pod works on at once (--parallel). Unset: llama-server's choice, 4 slots that share
    one cache. Further requests wait in line."""

    queue_limit: Annotated[int | None, Field(ge=1, le=4096)] = None
    """Requests that may wait for a slot in one pod (--threads-http is this and the slots). Each holds one of the
    server's HTTP threads, and so a little memory; with all threads taken, connections wait, and /health does not
    answer. Unset: 256."""

    kv_unified: bool | None = None
    """One KV cache that all slots share (--kv-unified), so that one request may use all of the context, instead of
    an equal part for each slot. Unset: shared where parallelSlots is unset, else not."""

    gpu_layers: GpuLayers | None = None
    """How many layers are kept in GPU memory (--n-gpu-layers): auto (as many as fit), all, or a number. Unset: 0
    without spec.gpu, else as many as fit, and where that is known not to be all of them, MemoryFits is False. What is
    not on the GPU runs on the CPU, much more slowly."""

    batch_size: Annotated[int | None, Field(ge=1, le=1 << 20)] = None
    """Most tokens of prompts taken up in one step (--batch-size). Unset: 2048."""

    micro_batch_size: Annotated[int | None, Field(ge=1, le=1 << 20)] = None
    """Most tokens computed at once (--ubatch-size). Unset: 512. Compute buffers grow in proportion to it; an
    input to an embedding model must fit into it."""

    threads: Annotated[int | None, Field(ge=1, le=MOST_THREADS)] = None
    """CPU threads that generate tokens (--threads). Unset: the CPU limit rounded up where one is set, else
    llama-server counts the node's cores, which can be far more than the pod may use."""

    batch_threads: Annotated[int | None, Field(ge=1, le=MOST_THREADS)] = None
    """CPU threads that read prompts (--threads-batch). Unset: as threads."""

    cont_batching: bool | None = None
    """Take new requests up while others are being answered (--cont-batching). Unset: yes. Without it, a request
    waits until the batch before it is done."""

    tensor_split: Annotated[list[Annotated[float, Field(ge=0, le=1_000_000)]] | None, Field(max_length=15)] = None
    """Share of the model for each GPU, as proportions such as [3, 1] (--tensor-split), 15 at most. Unset: by free
    memory."""

    split_mode: SplitMode | None = None
    """How the model is spread over several GPUs (--split-mode): layer (whole layers to each), row (each layer cut
    into rows), tensor (in builds that offer it) or none (one GPU). Unset: layer."""

    main_gpu: Annotated[int | None, Field(ge=0, le=63)] = None
    """GPU that is used with splitMode none, and for intermediate results with row (--main-gpu). Unset: 0."""

    flash_attention: FlashAttention | None = None
    """Fused attention kernels (--flash-attn): auto, enabled or disabled. Unset: auto; builds before b6325 know no
    auto and leave them off. A quantized cacheTypeV needs them."""

    cache_type_k: CacheType | None = None
    """Element type of the K cache (--cache-type-k). Unset: f16. q8_0 halves its memory at a small loss."""

    cache_type_v: CacheType | None = None
    """Element type of the V cache (--cache-type-v). Unset: f16. A quantized type needs flash attention."""

    kv_offload: bool | None = None
    """Keep the KV cache in GPU memory (--kv-offload). Unset: yes. Without it, GPU memory is saved and every token
    costs a way to the host."""

    swa_full: bool | None = None
    """Keep the whole context for sliding window layers too (--swa-full). Unset: no, only their window is kept.
    Costs as much memory as full attention; makes reuse of older prompts possible."""

    defrag_threshold: Annotated[float | None, Field(ge=-1, le=1)] = None
    """Share of holes in the KV cache at which it is defragmented (--defrag-thold), negative for never. Unset: 0.1.
    Given only to builds that act on it; newer ones have no need of it."""

    prompt_cache_size: PromptCacheSize | None = None
    """Host memory for prompts that may come again (--cache-ram), such as 2Gi; 0 for none. Unset: an eighth of the
    memory limit, 8Gi at most; without a limit 1Gi, which then is part of the memory request."""

    memory_map: bool | None = None
    """Map the file into memory instead of reading it (--load-mode). Unset: llama-server's choice, which is to map."""

    memory_lock: bool | None = None
    """Forbid that the model is swapped out (--load-mode mlock). Unset: no. Needs a node whose limit on locked
    memory allows it."""

    numa: NumaPolicy | None = None
    """What to do on machines with several memory nodes (--numa): distribute, isolate or numactl. Unset: nothing."""

    cpu_moe_layers: CpuMoeLayers | None = None
    """Of a mixture of experts, how many layers, from the first on, keep their experts in host memory
    (--n-cpu-moe), or all (--cpu-moe). Unset: none. Saves much GPU memory and costs some speed."""

    override_tensors: Annotated[list[TensorOverride] | None, Field(max_length=64)] = None
    """Where tensors are kept, each PATTERN=BUFFER, such as 'blk[.][0-9]+[.]ffn_.*_exps=CPU' (--override-tensor).
    The pattern is a regular expression over the names of tensors."""

    rope_scaling: RopeScaling | None = None
    """How positions past the trained context are scaled (--rope-scaling): none, linear or yarn. Unset: as the
    model says."""

    rope_freq_base: Annotated[float | None, Field(ge=0, le=1e12)] = None
    """Base frequency of the rotary position embedding (--rope-freq-base). Unset: as the model says."""

    rope_freq_scale: Annotated[float | None, Field(ge=0, le=1e6)] = None
    """Factor of its frequencies (--rope-freq-scale); 0.5 stretches the context to twice its length. Unset: as the
    model says."""

    pooling: Pooling | None = None
    """How the vectors of an input's tokens become one (--pooling): mean, cls, last, rank or none. Unset: as the
    model says. For task embed; a model that says none, as those that generate text do, needs it there. Task rerank
    takes rank."""

    timeout_sec: Annotated[int | None, Field(ge=1, le=86_400)] = None
    """Seconds without a byte read or written after which llama-server closes a connection (--timeout). Unset: 3600
    in current builds, 600 in older ones."""

    skip_warmup: bool | None = None
    """Do not run an empty batch after loading (--no-warmup). Unset: no. The pod is ready sooner, and its first
    request takes longer."""

    check_tensors: bool | None = None
    """Look for invalid values (NaN, infinite scales) in the tensors while loading (--check-tensors). Unset: yes.
    Finds many damaged files before they answer nonsense."""

    model_config = ApiModel.model_config | {
        "json_schema_extra": cel(
            (
                "!(has(self.flashAttention) && self.flashAttention == 'disabled' && has(self.cacheTypeV)"
                " && !(self.cacheTypeV in ['f32', 'f16', 'bf16']))",
                "a quantized cacheTypeV needs flash attention: set flashAttention to enabled or auto,"
                " or cacheTypeV to f16, bf16 or f32",
            ),
            (
                "!(has(self.batchSize) && has(self.microBatchSize)) || self.microBatchSize <= self.batchSize",
                "microBatchSize must not be larger than batchSize",
            ),
        )
    }

    @property
    def settled_http_threads(self) -> int:
        """HTTP threads of the server: one for each slot, and for each request that waits for one."""
        slots = self.parallel_slots or DEFAULT_PARALLEL_SLOTS
        return slots + (DEFAULT_QUEUE_LIMIT if self.queue_limit is None else self.queue_limit)

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if self.flash_attention is FlashAttention.DISABLED and self.cache_type_v and self.cache_type_v.quantized:
            raise ValueError(
                "a quantized cacheTypeV needs flash attention: set flashAttention to enabled or auto,"
                " or cacheTypeV to f16, bf16 or f32"
            )
        if self.batch_size and self.micro_batch_size and self.micro_batch_size > self.batch_size:
            raise ValueError("microBatchSize must not be larger than batchSize")
        return self
