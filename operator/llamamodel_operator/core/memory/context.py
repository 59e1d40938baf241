"""How many cells, slots and tokens at a time a context has, as llama.cpp settles what is asked."""

from __future__ import annotations

from dataclasses import dataclass

from llamamodel_operator.core.gguf.geometry import Geometry
from llamamodel_operator.core.memory.settings import AUTO_SLOTS, MemorySettings

__all__ = ["CELLS", "Context", "context_of", "padded"]

CELLS = 256
"""Cells of a cache come in so many (llama_context's constructor in src/llama-context.cpp)."""
WITHOUT_FLASH_ATTENTION = frozenset(("grok",))
QUANTIZED_TYPES = frozenset(("q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl"))


def padded(count: int, multiple: int) -> int:
    """The count, rounded up to a multiple (GGML_PAD)."""
    return -(-count // multiple) * multiple


@dataclass(frozen=True, kw_only=True)
class Context:
    """Of one model under some settings.

    Attributes:
        slots: sequences at a time (n_seq_max).
        streams: caches side by side: one where they share it, else one for each slot.
        size: cells of all of them (n_ctx).
        slot_size: tokens that one slot can hold, and cells of one stream (n_ctx_seq).
        window_size: cells of one stream for layers that attend within a sliding window.
        batch, micro_batch: tokens at a time, logically and on the device (n_batch, n_ubatch).
        outputs: rows of logits that are asked of one batch at most (n_outputs_max).
        flash_attention: it is used.
        embedding: the server gives embeddings, of all tokens.
        pooling: none, mean, cls, last or rank.
    """

    slots: int
    streams: int
    size: int
    slot_size: int
    window_size: int
    batch: int
    micro_batch: int
    outputs: int
    flash_attention: bool
    embedding: bool
    pooling: str


def context_of(geometry: Geometry, settings: MemorySettings) -> Context:
    """The context that llama-server makes.

    Source: llama_context::llama_context and llama_init_from_model in src/llama-context.cpp, llama_kv_cache_iswa in
    src/llama-kv-cache-iswa.cpp, server_output_limits in tools/server/server-context.cpp.
    """
    slots = AUTO_SLOTS if settings.slots is None else max(settings.slots, 1)
    unified = settings.slots is None if settings.unified is None else settings.unified
    asked = settings.context_size or geometry.context_length
    micro = settings.micro_batch_size or settings.batch_size
    batch = min(settings.batch_size, micro) if settings.embedding else settings.batch_size
    if geometry.causal:
        batch = min(asked, batch)
    micro = max(min(batch, micro), 1)
    size = slot_size = padded(max(asked, 1), CELLS)
    if not unified:
        slot_size = max(padded(size // slots, CELLS), CELLS)
        size = slot_size * slots
    window = slot_size
    if geometry.window_kind != "none" and not settings.swa_full:
        window = padded(min(slot_size, geometry.window * (slots if unified else 1) + micro), CELLS)
    pooling = settings.pooling or geometry.pooling or "none"
    pooled = settings.pooling not in (None, "none")
    outputs = batch if settings.embedding or pooled else slots * (1 + settings.draft_tokens)
    if geometry.decoder_layers:
        outputs = batch  # each token of the encoder is an output
    return Context(
        slots=slots,
        streams=1 if unified else slots,
        size=size,
        slot_size=slot_size,
        window_size=window,
        batch=batch,
        micro_batch=micro,
        outputs=max(min(outputs, batch), 1),
        flash_attention=_flash_attention(geometry, settings),
        embedding=settings.embedding,
        pooling=pooling,
    )


def _flash_attention(geometry: Geometry, settings: MemorySettings) -> bool:
    """Whether it is used; `auto` is on wherever the GPU has it, which is taken for granted here."""
    if geometry.architecture in WITHOUT_FLASH_ATTENTION:
        return False
    return settings.flash_attention != "off" or settings.split_mode == "tensor"
