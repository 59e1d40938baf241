"""Scratch buffers of a model whose graph is not known: an upper guess from its widths."""

from __future__ import annotations

from llamamodel_operator.core.gguf.geometry import Geometry, Layer
from llamamodel_operator.core.memory.context import Context
from llamamodel_operator.core.memory.placement import HOST, Placement

__all__ = ["rough_compute"]

F32 = 4
RESIDUALS, WIDTHS = 6, 3
"""Tensors of the width of the residual stream, and of a layer's widest parts, that are alive at a time."""


def rough_compute(geometry: Geometry, placement: Placement, context: Context) -> dict[int, int]:
    """Bytes on each device that computes: activations of the widest layer, attention scores, masks and logits."""
    tokens, cells = context.micro_batch, context.slot_size
    widest = max(_width(layer, geometry) for layer in geometry.kinds)
    flash = context.flash_attention and not geometry.architecture.startswith("t5")  # their biases forbid it
    heads = max(layer.heads for layer in geometry.kinds)
    every = tokens * F32 * (RESIDUALS * geometry.embedding + WIDTHS * widest)
    every += 2 * cells * tokens * F32  # masks
    every += 0 if flash else 2 * cells * tokens * heads * F32  # attention scores
    every += 2 * cells * tokens * F32 if any(layer.index_length for layer in geometry.kinds) else 0
    every += 2 * context.slots * F32 * (geometry.conv_state + geometry.recurrent_state)
    if placement.caches != placement.layers:
        rows = max(layer.kv_heads * (layer.key_length + layer.value_length) for layer in geometry.kinds)
        every += rows * context.size * F32  # a layer's cache is copied to be read
    result = dict.fromkeys({*placement.layers, HOST}, every)
    rows = max(context.outputs, tokens if context.embedding else 0)
    result[placement.output] = result.get(placement.output, 0) + rows * geometry.vocabulary * F32
    return result


def _width(layer: Layer, geometry: Geometry) -> int:
    attention = layer.heads * layer.key_length + layer.kv_heads * (layer.key_length + layer.value_length)
    experts = layer.experts_used * (layer.expert_feed_forward + geometry.embedding)
    state_space = 3 * geometry.ssm_inner + 2 * geometry.ssm_groups * geometry.ssm_state if layer.recurrent else 0
    return max(attention, layer.feed_forward, experts + geometry.shared_feed_forward, state_space)
