"""Feed-forward networks: gated or not, and mixtures of experts."""

from __future__ import annotations

from llamamodel_operator.core.memory.compute.batch import Batch, Block

__all__ = ["experts", "feed_forward"]


def feed_forward(batch: Batch, block: Block, source: int, *, suffix: str = "") -> int:
    """Gate, up and down; without a gate, or with both in one matrix.

    Source: build_ffn in src/llama-graph.cpp.
    """
    tape = batch.tape
    width = block.width("ffn_up" + suffix)
    down = block.shapes["ffn_down" + suffix]
    if block.has("ffn_gate" + suffix):
        gate = batch.product(block, "ffn_gate" + suffix, source)
        up = batch.product(block, "ffn_up" + suffix, source)
        hidden = tape.free(batch.f32(width), gate, up)
    else:
        up = batch.product(block, "ffn_up" + suffix, source)
        hidden = up if width == down[0] else tape.free(batch.f32(down[0]), up)
    return batch.product(block, "ffn_down" + suffix, hidden)


def experts(batch: Batch, block: Block, source: int, *, used: int, normalised: bool, groups: int = 0) -> int:
    """Route each token to some experts, and add up what they make of it.

    Source: build_moe_ffn in src/llama-graph.cpp.
    """
    tape = batch.tape
    count = block.shapes["ffn_gate_inp"][1] if block.has("ffn_gate_inp") else batch.geometry.experts
    routed = batch.f32(count)
    probabilities = (
        batch.product(block, "ffn_gate_inp", source) if block.has("ffn_gate_inp") else tape.op(routed, source)
    )
    selection = probabilities
    if block.has("exp_probs_b.bias") or block.has("exp_probs_b") or batch.geometry.architecture == "llama4":
        selection = tape.free(routed, probabilities)
    if groups > 1:
        selection = _masked_groups(batch, selection, count, groups)
    order = tape.free(routed, selection)
    weights = tape.free(batch.f32(used), ~probabilities, ~order)
    if normalised:
        total = tape.free(batch.f32(1), ~weights)
        total = tape.free(batch.f32(1), total)
        weights = tape.free(batch.f32(used), ~weights, total)
    elif batch.geometry.architecture == "gpt-oss":
        weights = tape.free(batch.f32(used), ~weights)
    if batch.weights_scaled:
        weights = tape.free(batch.f32(used), ~weights)
    inside = ~source
    down_shape = block.shapes["ffn_down_exps"]
    weighted_first = batch.geometry.architecture == "llama4"
    if weighted_first:
        repeated = tape.free(batch.f32(block.shapes["ffn_down_exps"][1] * used), ~source)
        inside = tape.free(batch.f32(block.shapes["ffn_down_exps"][1] * used), repeated, ~weights, in_place=True)
    if block.has("ffn_gate_up_exps"):
        both = batch.product(block, "ffn_gate_up_exps", inside, ~order, times=used)
        hidden = tape.free(batch.f32(down_shape[0] * used), ~both, ~both)
    elif block.has("ffn_gate_exps"):
        gate = batch.product(block, "ffn_gate_exps", inside, ~order, times=used)
        up = batch.product(block, "ffn_up_exps", inside, ~order, times=used)
        hidden = tape.free(batch.f32(down_shape[0] * used), gate, up)
    else:
        hidden = batch.product(block, "ffn_up_exps", inside, ~order, times=used)
    down = batch.product(block, "ffn_down_exps", hidden, ~order, times=used)
    if not weighted_first:
        down = tape.free(batch.f32(down_shape[1] * used), down, ~weights, in_place=True)
    return tape.free(batch.f32(down_shape[1]), ~down)


def _masked_groups(batch: Batch, selection: int, count: int, groups: int) -> int:
    """Scores of groups of experts, and the selection with other groups' experts masked."""
    tape, routed = batch.tape, batch.f32(count)
    order = tape.free(routed, ~selection)
    scores = tape.free(batch.f32(2 * groups), ~selection, ~order)
    scores = tape.free(batch.f32(groups), ~scores)
    best = tape.free(batch.f32(groups), ~scores)
    filled = tape.free(routed, ~selection)
    kept = tape.free(routed, ~selection, ~best)
    tape.use(kept, ~best)
    return ~filled
