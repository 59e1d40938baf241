"""What of a llama-server command line decides how much memory it takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["ALL_LAYERS", "AUTO_SLOTS", "MemorySettings"]

ALL_LAYERS = 2**31 - 1
"""`gpu_layers` and `cpu_moe_layers` for all layers, however many there are."""
AUTO_SLOTS = 4
"""Slots of a llama-server that is not told how many; they share one unified cache then."""


@dataclass(frozen=True, kw_only=True)
class MemorySettings:
    """As llama-server's flags give them; each default is llama-server's own (b10434 to b11669).

    Attributes:
        context_size: -c, cells of all slots together; 0 for what the model was trained with.
        slots: -np; None where it is not given: `AUTO_SLOTS` with a unified cache.
        unified: -kvu; None where it is not given.
        cache_type_k, cache_type_v: -ctk, -ctv.
        flash_attention: -fa.
        batch_size, micro_batch_size: -b, -ub.
        gpu_layers: -ngl; `ALL_LAYERS` for all. The output layer counts as one and is offloaded first.
        split_mode: -sm.
        tensor_split: -ts, shares of the GPUs; empty for equal ones.
        main_gpu: -mg.
        cpu_moe_layers: -ncmoe; `ALL_LAYERS` for -cmoe.
        override_tensors: -ot, (regular expression, buffer type) in their order.
        kv_offload: False for -nkvo.
        op_offload: False for --no-op-offload.
        repack: False for --no-repack.
        swa_full: --swa-full.
        embedding: --embeddings (also implied by --reranking).
        pooling: --pooling; None for the model's own.
        prompt_cache_bytes: --cache-ram.
        draft_tokens: --spec-draft-n-max where there is a draft model; 0 without one.
        projector_offload: False for --no-mmproj-offload.
    """

    context_size: int = 0
    slots: int | None = None
    unified: bool | None = None
    cache_type_k: str = "f16"
    cache_type_v: str = "f16"
    flash_attention: Literal["auto", "on", "off"] = "auto"
    batch_size: int = 2048
    micro_batch_size: int = 512
    gpu_layers: int = ALL_LAYERS
    split_mode: Literal["none", "layer", "row", "tensor"] = "layer"
    tensor_split: tuple[float, ...] = ()
    main_gpu: int = 0
    cpu_moe_layers: int = 0
    override_tensors: tuple[tuple[str, str], ...] = ()
    kv_offload: bool = True
    op_offload: bool = True
    repack: bool = True
    swa_full: bool = False
    embedding: bool = False
    pooling: str | None = None
    prompt_cache_bytes: int = 0
    draft_tokens: int = 0
    projector_offload: bool = True
