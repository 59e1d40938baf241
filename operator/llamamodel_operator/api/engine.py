"""`spec.engine`: what llama-server is told, by what the user means rather than by how a build spells it."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from llamamodel_operator.api.base import ApiModel, cel

__all__ = ["MOST_THREADS", "CacheType", "EngineSpec", "FlashAttention"]


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


MOST_THREADS = 4096
_MOST_LAYERS = 100_000


def _layers(value: object) -> object:
    if value in ("auto", "all"):
        return value
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MOST_LAYERS:
        return value
    raise ValueError(f"must be auto, all, or a number of layers from 0 on; found {value!r}")


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


class EngineSpec(ApiModel):
    """Settings of llama-server. What is left out keeps llama.cpp's own default, as the field says."""

    context_size: Annotated[int | None, Field(ge=0, le=1 << 30)] = None
    """Context size in tokens, all slots together (--ctx-size). Unset or 0: what the model was trained with.
    The KV cache grows in proportion to it."""

    parallel_slots: Annotated[int | None, Field(ge=1, le=1024)] = None
    """How many requests one pod works on at once (--parallel). Unset: llama-server's choice, 4 slots that share
    one cache. Further requests wait in line."""

    gpu_layers: GpuLayers | None = None
    """How many layers are kept in GPU memory (--n-gpu-layers): auto (as many as fit), all, or a number.
    Unset: auto where spec.gpu is given, else 0. What is not on the GPU runs on the CPU, much more slowly."""

    batch_size: Annotated[int | None, Field(ge=1, le=1 << 20)] = None
    """Most tokens of prompts taken up in one step (--batch-size). Unset: 2048."""

    micro_batch_size: Annotated[int | None, Field(ge=1, le=1 << 20)] = None
    """Most tokens computed at once (--ubatch-size). Unset: 512. Compute buffers grow in proportion to it; an
    input to an embedding model must fit into it."""

    threads: Annotated[int | None, Field(ge=1, le=MOST_THREADS)] = None
    """CPU threads that generate tokens (--threads). Unset: the CPU limit rounded up where one is set, else
    llama-server counts the node's cores, which can be far more than the pod may use."""

    flash_attention: FlashAttention | None = None
    """Fused attention kernels (--flash-attn): auto, enabled or disabled. Unset: auto. A quantized cacheTypeV needs
    them."""

    cache_type_k: CacheType | None = None
    """Element type of the K cache (--cache-type-k). Unset: f16. q8_0 halves its memory at a small loss."""

    cache_type_v: CacheType | None = None
    """Element type of the V cache (--cache-type-v). Unset: f16. A quantized type needs flash attention."""

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

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if self.flash_attention is FlashAttention.DISABLED and self.cache_type_v and self.cache_type_v.quantized:
            raise ValueError("a quantized cacheTypeV needs flash attention: set flashAttention to enabled or auto")
        if self.batch_size and self.micro_batch_size and self.micro_batch_size > self.batch_size:
            raise ValueError("microBatchSize must not be larger than batchSize")
        return self
