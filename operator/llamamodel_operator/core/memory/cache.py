"""Bytes of the KV cache and of recurrent states, layer by layer."""

from __future__ import annotations

from collections.abc import Callable

from llamamodel_operator.core.gguf.geometry import Geometry, Layer
from llamamodel_operator.core.memory.context import Context, padded
from llamamodel_operator.core.memory.grouping import ALIGNMENT
from llamamodel_operator.core.memory.settings import MemorySettings

__all__ = ["CACHE_TYPES", "cache_bytes", "row_bytes", "state_bytes"]

CACHE_TYPES = {
    "f32": (1, 4),
    "f16": (1, 2),
    "bf16": (1, 2),
    "q8_0": (32, 34),
    "q5_1": (32, 24),
    "q5_0": (32, 22),
    "q4_1": (32, 20),
    "q4_0": (32, 18),
    "iq4_nl": (32, 18),
}
"""Elements and bytes of a block of each type that -ctk and -ctv take (ggml/src/ggml-common.h)."""
F32 = 4


def row_bytes(type_name: str, elements: int) -> int:
    """Bytes of so many elements (ggml_row_size); of an unknown type, of f32."""
    block, size = CACHE_TYPES.get(type_name, CACHE_TYPES["f32"])
    return -(-elements // block) * size


def cache_bytes(geometry: Geometry, context: Context, settings: MemorySettings) -> list[int]:
    """Bytes of each block's KV cache, indexer caches included.

    Source: the constructor of llama_kv_cache in src/llama-kv-cache.cpp ([TAG_V_CACHE_VARIABLE]: without flash
    attention V is stored transposed, all layers with the widest one's size); llama_kv_cache_iswa for two sizes;
    llama_kv_cache_dsa, llama_kv_cache_msa and llama_memory_hybrid_idx for indexers.
    """
    if not geometry.memory:
        return [0] * len(geometry.layers)
    widest = 0
    if not context.flash_attention:
        widest = max(layer.value_length * layer.kv_heads for layer in geometry.kinds)
    return _of_layers(
        geometry,
        lambda layer: _layer_bytes(layer, geometry.mla, widest, context, settings) if layer.cached else 0,
    )


def _of_layers(geometry: Geometry, size_of: Callable[[Layer], int]) -> list[int]:
    """Bytes of each layer; equal layers are the same object, so each kind is asked for once."""
    sizes = {id(layer): size_of(layer) for layer in geometry.kinds}
    return [sizes[id(layer)] for layer in geometry.layers]


def _layer_bytes(layer: Layer, mla: bool, widest: int, context: Context, settings: MemorySettings) -> int:
    key = row_bytes(settings.cache_type_k, layer.key_length * layer.kv_heads)
    value = 0 if mla else row_bytes(settings.cache_type_v, widest or layer.value_length * layer.kv_heads)
    index = row_bytes(settings.cache_type_k, layer.index_length)
    index_value = row_bytes(settings.cache_type_v, layer.index_values)
    cells = context.window_size if layer.window else context.slot_size
    return ((key + value) * cells + (index + index_value) * context.slot_size) * context.streams


def state_bytes(geometry: Geometry, context: Context) -> list[int]:
    """Bytes of each block's recurrent states: f32, for each slot, whatever the context.

    Source: the constructor of llama_memory_recurrent in src/llama-memory-recurrent.cpp.
    """
    each = _aligned(geometry.conv_state, context) + _aligned(geometry.recurrent_state, context)
    return _of_layers(geometry, lambda layer: each + _aligned(layer.further_state, context) if layer.recurrent else 0)


def _aligned(elements: int, context: Context) -> int:
    return padded(elements * F32 * context.slots, ALIGNMENT)
