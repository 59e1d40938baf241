"""One layer of each kind of architecture: from the residual stream to the residual stream."""

from __future__ import annotations

from llamamodel_operator.core.gguf.geometry import Geometry
from llamamodel_operator.core.memory.compute.attention import attention, latent_attention
from llamamodel_operator.core.memory.compute.batch import F16, F32, Batch, Block, Later
from llamamodel_operator.core.memory.compute.feed_forward import experts, feed_forward
from llamamodel_operator.core.memory.compute.recurrent import (
    channel_mix,
    delta_net,
    kimi_delta_net,
    mamba,
    read_state,
    rwkv6,
    rwkv7,
    short_convolution,
)

__all__ = ["LATE_OUTPUTS", "begins_at_once", "build_layer", "outputs", "reads_state_first", "settled", "variant_of"]

FEED_FORWARD_FIRST = frozenset(("cohere2", "cohere2moe", "command-r", "falcon"))
"""Attention and feed-forward are side by side, and the attention's last product comes after the feed-forward."""
WITHOUT_ROPE = frozenset(
    (
        "bert",
        "bloom",
        "gpt2",
        "jais",
        "jamba",
        "jina-bert-v2",
        "mpt",
        "nemotron_h",
        "nemotron_h_moe",
        "refact",
        "starcoder",
    )
)
MIXERS = frozenset(("attn_q", "attn_q_a", "attn_qkv", "shortconv.in_proj", "ssm_f_a", "ssm_in"))
"""A layer with one of these lets tokens see each other."""
FEED_FORWARD_NORMS = frozenset(("attn_output_norm", "ffn_norm", "ffn_norm_exps", "post_attention_norm"))
RESIDUAL_FIRST = frozenset(("lfm2", "lfm2moe"))
"""The residual stream is the first argument where something is added to it, and so what is written over."""
ROPE_IN_WINDOW = frozenset(("cohere2", "cohere2moe", "exaone4", "exaone-moe"))
"""Layers that attend to everything have no rotary positions."""
ROPE_STEPS = {"llama4": 4, "smollm3": 4}
"""Each so-manieth layer has no rotary positions (n_no_rope_layer_step)."""
NOT_NORMALISED = frozenset(("deepseek", "gpt-oss", "jamba", "llada-moe", "llama4", "olmoe", "qwen2moe"))
"""The chosen experts' weights are used as they are (norm_w is false)."""
SPARSE_LAYERS = 10
"""First layers of Gemma 3n, which have a sparse feed-forward network (n_layer_sparsity in src/models/gemma3n.cpp)."""
LATE_OUTPUTS = frozenset(
    (
        *("cohere2moe", "exaone-moe", "gemma3n", "gemma4", "gpt-oss", "hy_v3", "hy-v3", "mimo2", "nemotron_h"),
        *("nemotron_h_moe", "plamo2", "qwen35", "qwen35moe", "qwen3next", "step35"),
    )
)
"""The last layer computes all tokens; only the head is left with outputs."""
EAGER = frozenset(("qwen35", "qwen35moe", "qwen3next", "kimi-linear"))
"""A recurrent layer's states are read after its norm; elsewhere before what the layer before has left to do."""


def build_layer(batch: Batch, block: Block, before: Later, *, last: bool) -> Later:
    """Record a layer; the last one computes outputs only after its attention.

    What follows its last operation that is put into the graph at once (ggml_build_forward_expand) is recorded when the
    result is asked for.

    Source: the graphs in src/models/*.cpp.
    """
    architecture = batch.geometry.architecture
    last = last and architecture not in LATE_OUTPUTS
    if architecture in ("rwkv6", "rwkv7", "rwkv6qwen2", "arwkv7"):
        return _rwkv(batch, block, before, last=last)
    if block.has("laurel_l"):
        return settled(_gemma3n(batch, block, before()))
    if block.has("cross_attn_q"):
        return settled(_t5(batch, block, before()))
    if block.has("layer_output_norm"):
        return settled(_encoder(batch, block, before(), last=last))
    return _usual(batch, block, before, last=last)


def reads_state_first(architecture: str, block: Block) -> bool:
    """Whether a layer reads its state before the layer before it has finished."""
    return block.layer.recurrent and not block.has("attn_q") and architecture not in EAGER


def begins_at_once(block: Block) -> bool:
    """Whether a layer puts something into the graph before the next layer is built: a dense feed-forward does not."""
    return _has_mixer(block) or block.has("ffn_down_exps")


def settled(tensor: int) -> Later:
    """What there is nothing left to do about."""
    return lambda: tensor


def variant_of(geometry: Geometry, block: Block, index: int) -> tuple[bool, bool, bool]:
    """What of a layer depends on its number: a sparse feed-forward, further embeddings of images, no positions."""
    sparse = index < SPARSE_LAYERS and block.has("laurel_l")
    step = ROPE_STEPS.get(geometry.architecture)
    return sparse, index < geometry.deepstack_layers, step is not None and (index + 1) % step == 0


def _later(batch: Batch, rest: Later) -> Later:
    """Record the rest where this layer is, whenever that is."""
    device, moved = batch.tape.device, batch.moved

    def record() -> int:
        before = batch.tape.device, batch.moved
        batch.tape.device, batch.moved = device, moved
        result = rest()
        batch.tape.device, batch.moved = before
        return result

    return record


def _feed_norm(batch: Batch, block: Block, source: int) -> int:
    """The norm before the feed-forward."""
    return batch.norm("ffn_norm" if block.has("ffn_norm") else "post_attention_norm", source)


def _mixer(batch: Batch, block: Block, residual: int, normed: int, state: int | None) -> Later:
    """What lets tokens see each other."""
    tape, layer, geometry = batch.tape, block.layer, batch.geometry
    if block.has("ssm_f_a"):
        return kimi_delta_net(batch, block, normed)
    if block.has("ssm_beta") or block.has("ssm_ba"):
        return delta_net(batch, block, normed)
    if geometry.mla and block.has("attn_kv_a_mqa"):
        return latent_attention(batch, block, normed)
    if block.has("shortconv.in_proj"):
        return short_convolution(batch, block, normed, state)
    if block.has("ssm_in"):
        if not block.has("attn_q"):
            return mamba(batch, block, normed, state)
        attended = attention(batch, block, normed)
        state = read_state(batch)
        scanned = mamba(batch, block, batch.norm("attn_norm", residual), state)
        return lambda: tape.free(batch.f32(geometry.embedding), attended(), scanned(), in_place=True)
    gated = block.width("attn_q") == 2 * layer.heads * layer.key_length
    return attention(batch, block, normed, rope=_turns(batch, block), gated=gated)


def _turns(batch: Batch, block: Block) -> bool:
    """Whether the layer has rotary positions (use_rope in src/models/*.cpp)."""
    geometry, architecture = batch.geometry, batch.geometry.architecture
    if architecture in WITHOUT_ROPE or geometry.alibi:
        return False
    if architecture in ROPE_IN_WINDOW:
        return block.layer.window or geometry.window_kind == "none"
    return architecture not in ROPE_STEPS or (batch.index + 1) % ROPE_STEPS[architecture] != 0


def outputs(batch: Batch, *tensors: int) -> tuple[int, ...]:
    """Only the rows of tokens whose logits are asked for (inp_out_ids)."""
    batch.tokens = min(batch.tokens, batch.run.outputs)
    size = batch.f32(batch.geometry.embedding)
    return tuple(batch.tape.free(size, tensor, batch.inputs["outputs"]) for tensor in tensors)


def _usual(batch: Batch, block: Block, before: Later, *, last: bool) -> Later:
    """Norm, attention or another mixer, residual; norm, feed-forward or experts, residual."""
    tape = batch.tape
    state = None
    if reads_state_first(batch.geometry.architecture, block):
        state = read_state(batch)
    if not _has_mixer(block):
        return _only_feed(batch, block, before, last=last)
    residual = before()
    normed = batch.norm("attn_norm", residual) if block.has("attn_norm") else residual
    parallel = batch.side_by_side or FEED_FORWARD_NORMS.isdisjoint(block.shapes)
    if parallel and _has_feed(block):
        return settled(_parallel(batch, block, residual, normed, last=last))
    mixed = _mixer(batch, block, residual, normed, state)
    if block.has("ffn_norm_exps"):
        routed = experts(
            batch, block, batch.norm("ffn_norm_exps", residual), used=block.layer.experts_used, normalised=True
        )
        middle = _added(batch, mixed(), residual)
        fed = feed_forward(batch, block, batch.norm("ffn_norm", middle))
        fed = _added(batch, fed, middle)
        out = _added(batch, routed, fed)
        return settled(outputs(batch, out)[0] if last else out)

    def attended() -> int:
        out, skipped = mixed(), residual
        if last:
            out, skipped = outputs(batch, out, skipped)
        if not block.has("attn_norm") or (block.has("post_attention_norm") and block.has("ffn_norm")):
            out = batch.norm("post_attention_norm", out)
        if batch.scaled:
            out = tape.free(batch.f32(batch.geometry.embedding), out, in_place=True)
        return _added(batch, out, skipped)

    if not _has_feed(block):
        return _later(batch, attended)

    def rest() -> int:
        middle = attended()
        source = _feed_norm(batch, block, middle) if block.has("attn_norm") else middle
        return _finished(batch, block, _feed(batch, block, source), middle)()

    if not block.has("ffn_down_exps"):
        return _later(batch, rest)
    middle = attended()
    source = _feed_norm(batch, block, middle) if block.has("attn_norm") else middle
    return _later(batch, _finished(batch, block, _feed(batch, block, source), middle))


def _only_feed(batch: Batch, block: Block, before: Later, *, last: bool) -> Later:
    """A layer that does not let tokens see each other: only experts are put into the graph at once."""

    def fed() -> tuple[Later, int]:
        residual = before()
        normed = batch.norm("attn_norm", residual) if block.has("attn_norm") else residual
        if last:
            normed, residual = outputs(batch, normed, residual)
        return _feed(batch, block, normed), residual

    def added(rest: Later, residual: int) -> int:
        return _added(batch, rest(), residual)

    if not block.has("ffn_down_exps"):
        return _later(batch, lambda: added(*fed()))
    rest, residual = fed()
    return _later(batch, lambda: added(rest, residual))


def _finished(batch: Batch, block: Block, fed: Later, middle: int) -> Later:
    """The feed-forward's result added, and the layer's own embedding where it has one."""
    tape, geometry, index = batch.tape, batch.geometry, batch.index

    def rest() -> int:
        out = _added(batch, fed(), middle)
        if block.has("inp_gate"):
            size, width = batch.f32(geometry.embedding), batch.f32(geometry.per_layer_embedding)
            gate = tape.op(width, out)
            gate = tape.free(width, gate, tape.part(width, batch.per_layer()), in_place=True)
            out = tape.free(size, out, tape.op(size, gate), in_place=True)
        if block.has("layer_output_scale"):
            out = tape.op(batch.f32(geometry.embedding), out, in_place=True)
        if index < geometry.deepstack_layers:
            out = tape.free(batch.f32(geometry.embedding), out, batch.extras["deepstack"], in_place=True)
        return out

    return rest


def _added(batch: Batch, fed: int, middle: int) -> int:
    if batch.geometry.architecture in RESIDUAL_FIRST:
        fed, middle = middle, fed
    return batch.tape.free(batch.f32(batch.geometry.embedding), fed, middle, in_place=True)


def _has_mixer(block: Block) -> bool:
    return not MIXERS.isdisjoint(block.shapes)


def _has_feed(block: Block) -> bool:
    return block.has("ffn_up") or block.has("ffn_up_exps") or block.has("ffn_gate_up_exps")


def _feed(batch: Batch, block: Block, source: int) -> Later:
    """Dense, or experts at once and the shared ones beside them later."""
    tape = batch.tape
    if not block.has("ffn_down_exps"):
        return lambda: feed_forward(batch, block, source)
    normalised = batch.geometry.architecture not in NOT_NORMALISED
    routed = experts(batch, block, source, used=block.layer.experts_used, normalised=normalised, groups=batch.groups)

    def rest() -> int:
        fed, size = routed, batch.f32(batch.geometry.embedding)
        for suffix in ("_shexp", ""):
            if block.has("ffn_up" + suffix) and block.has("ffn_down" + suffix):
                shared = feed_forward(batch, block, source, suffix=suffix)
                if block.has("ffn_gate_inp_shexp"):
                    gate = tape.op(batch.f32(1), source)
                    shared = tape.free(size, shared, gate, in_place=True)
                fed = tape.free(size, fed, shared, in_place=True)
        return fed

    return rest


def _parallel(batch: Batch, block: Block, residual: int, normed: int, *, last: bool) -> int:
    """Attention and feed-forward of the same input; of the last layer's, the outputs are chosen as late as they can be.

    Falcon's larger models and GPT-NeoX have a norm for each.
    """
    mixed, tokens = _mixer(batch, block, residual, normed, None), batch.tokens

    def chosen(tensor: int) -> int:
        return outputs(batch, tensor)[0] if last else tensor

    def attended() -> int:
        few, batch.tokens = batch.tokens, tokens
        out = mixed()
        batch.tokens = few
        return chosen(out)

    if batch.side_by_side:
        residual = chosen(residual)
        fed = _feed(batch, block, batch.norm("ffn_norm", residual))()
        return _added(batch, _added(batch, fed, residual), attended())
    if batch.geometry.architecture not in FEED_FORWARD_FIRST:
        out = attended()
        fed = _feed(batch, block, chosen(normed))()
        return _added(batch, _added(batch, out, fed), chosen(residual))
    source = batch.norm("attn_norm", residual) if block.has("attn_norm_2") else normed
    fed = _feed(batch, block, chosen(source))()
    if batch.geometry.architecture == "falcon":
        return _added(batch, _added(batch, fed, attended()), chosen(residual))
    fed = _added(batch, fed, chosen(residual))
    return _added(batch, fed, attended())


def _encoder(batch: Batch, block: Block, residual: int, *, last: bool) -> int:
    """Norms after attention and after the feed-forward.

    Source: llama_model_bert::graph in src/models/bert.cpp.
    """
    rope = batch.geometry.architecture in ("nomic-bert", "nomic-bert-moe", "jina-bert-v3", "eurobert")
    out = attention(batch, block, residual, rope=rope)()
    if last:
        out, residual = outputs(batch, out, residual)
    middle = batch.norm("attn_output_norm", _added(batch, out, residual))
    return batch.norm("layer_output_norm", _added(batch, _feed(batch, block, middle)(), middle))


def _t5(batch: Batch, block: Block, residual: int) -> int:
    """A decoder's layer with biased attention, which is never flash attention, and attention to the encoder's output.

    Source: the decoder's graph in src/models/t5.cpp, build_pos_bias in src/llama-graph.cpp.
    """
    tape, layer, geometry = batch.tape, block.layer, batch.geometry
    size, heads = batch.f32(geometry.embedding), layer.heads
    q_size = batch.f32(heads * layer.key_length)
    encoded = geometry.context_length
    normed = batch.norm("attn_norm", residual)
    q, v, k = (tape.op(q_size, normed) for _ in range(3))
    tape.use(~k, batch.inputs["k_rows"], device=batch.cache)
    tape.use(~v, batch.inputs["v_rows"], device=batch.cache)
    kq_size = batch.cells(layer, 1000 * batch.tokens * heads * F32)
    values: tuple[int, ...] = ()
    if batch.run.flash_attention:  # V is not stored transposed then
        values = (tape.free(batch.cells(layer, 1000 * batch.run.streams * heads * layer.value_length * F16)),)
    kq = tape.free(kq_size, ~q)
    biases = batch.run.first if tape.device is None or not block.has("attn_rel_b") else tape.device
    bias = tape.free(kq_size, ~tape.at(biases, kq_size, batch.buckets()))
    kq = tape.free(kq_size, tape.free(kq_size, kq, bias, in_place=True), batch.mask(layer), in_place=True)
    out = tape.free(q_size, ~tape.free(q_size, *values, kq))
    middle = _added(batch, tape.op(size, out), residual)
    q = tape.op(q_size, batch.norm("cross_attn_norm", middle))
    k = tape.op(heads * layer.key_length * encoded * F32, batch.inputs["encoded"])
    v = tape.op(heads * layer.value_length * encoded * F32, batch.inputs["encoded"])
    if batch.run.flash_attention:
        k = tape.free(heads * layer.key_length * encoded * F16, ~k)
        v = tape.free(heads * layer.value_length * encoded * F16, ~v)
        out = tape.free(q_size, ~q, k, v, batch.inputs["cross_mask"])
    else:
        kq = tape.free(encoded * batch.tokens * heads * F32, ~k, ~q)
        kq = tape.free(encoded * batch.tokens * heads * F32, kq, batch.inputs["cross_mask"], in_place=True)
        v = tape.free(heads * layer.value_length * encoded * F32, ~v)
        out = tape.free(q_size, ~tape.free(q_size, v, kq))
    middle = _added(batch, tape.op(size, ~out), middle)
    return _added(batch, feed_forward(batch, block, batch.norm("ffn_norm", middle)), middle)


def _rwkv(batch: Batch, block: Block, before: Later, *, last: bool) -> Later:
    """Source: the graphs in src/models/rwkv6.cpp and src/models/rwkv7.cpp."""
    tape, geometry = batch.tape, batch.geometry
    size = batch.f32(geometry.embedding)
    state = read_state(batch)
    memory = read_state(batch, memory=True)
    residual = before()
    normed = tape.free(size, ~residual)
    time_mix = rwkv7 if geometry.architecture in ("rwkv7", "arwkv7") else rwkv6
    out = time_mix(batch, block, normed, state, memory)
    middle = tape.free(size, ~out, ~residual)
    if not block.has("attn_norm_2"):
        source = batch.norm("ffn_norm", middle)
        if last:
            source, middle = outputs(batch, source, middle)
        return _later(batch, lambda: _added(batch, feed_forward(batch, block, source), middle))
    second = tape.free(size, middle)
    stored = tape.free(geometry.conv_state * batch.sequences * F32, ~normed, ~second)
    tape.use(~stored, device=batch.cache)

    def rest() -> int:
        fed = channel_mix(batch, block, second, state)
        out = tape.free(size, fed, ~middle, in_place=True)
        return outputs(batch, out)[0] if last else out

    return _later(batch, rest)


def _gemma3n(batch: Batch, block: Block, residual: int) -> int:
    """Several residual streams, of which one is computed and the others are predicted and corrected.

    Source: the graph, altup_predict, altup_correct, laurel and gaussian_topk in src/models/gemma3n.cpp.
    """
    tape, geometry = batch.tape, batch.geometry
    size = batch.f32(geometry.embedding)
    streams = block.shapes["altup_correct_coef"][0]
    all_size = size * streams
    turned = tape.free(all_size, ~residual)
    routed = tape.op(batch.f32(streams), tape.free(size, ~residual))
    coefficients = tape.op(batch.f32(streams * streams), routed)
    product = tape.free(all_size, turned, ~coefficients)
    predicted = tape.free(all_size, ~product)
    predicted = tape.free(all_size, predicted, residual, in_place=True)
    normed = tape.free(size, ~predicted)
    out = attention(batch, block, normed)()
    out = tape.free(size, out, ~predicted, in_place=True)
    low = tape.op(batch.f32(block.width("laurel_l")), normed)
    laurel = tape.op(size, low)
    laurel = tape.free(size, laurel, normed, in_place=True)
    middle = tape.free(size, out, laurel, in_place=True)
    source = batch.norm("ffn_norm", middle)
    hidden_size = batch.f32(block.width("ffn_up"))
    up = tape.op(hidden_size, source)
    gate = tape.op(hidden_size, source)
    if batch.index < SPARSE_LAYERS:
        mean = tape.free(batch.f32(1), gate)
        squares = tape.free(hidden_size, gate, mean)
        total = tape.free(batch.f32(1), squares)
        total = tape.free(batch.f32(1), mean, total, in_place=True)
        gate = tape.free(hidden_size, gate, total, in_place=True)
    hidden = tape.free(hidden_size, up, gate, in_place=True)
    fed = tape.op(size, hidden)
    gated = tape.free(size, fed, middle, in_place=True)
    innovation = tape.free(size, gated, ~predicted)
    repeated = tape.free(all_size, innovation)
    routed = tape.op(batch.f32(streams), tape.free(size, gated))
    coefficients = tape.free(batch.f32(streams), ~tape.op(batch.f32(streams), routed))
    corrected = tape.free(all_size, repeated, coefficients, predicted, in_place=True)
    first = tape.op(size, ~corrected)
    width = geometry.per_layer_embedding
    narrow = tape.op(batch.f32(width), first)
    narrow = tape.free(batch.f32(width), narrow, tape.part(batch.f32(width), batch.per_layer()), in_place=True)
    first = tape.op(size, narrow)
    others = tape.free(size * (streams - 1), ~corrected, first)
    return tape.free(all_size, ~corrected, others)
