"""Layers with a recurrent state: Mamba, delta nets, RWKV and short convolutions."""

from __future__ import annotations

from llamamodel_operator.core.memory.compute.batch import F32, Batch, Block, Later

__all__ = ["channel_mix", "delta_net", "kimi_delta_net", "mamba", "read_state", "rwkv6", "rwkv7", "short_convolution"]


def read_state(batch: Batch, *, memory: bool = False) -> int:
    """The rows of a state that belong to the batch's sequences (build_rs in src/llama-graph.cpp)."""
    elements = batch.geometry.recurrent_state if memory else batch.geometry.conv_state
    rows = batch.tape.at(batch.cache, elements * batch.sequences * F32, batch.inputs["states"])
    batch.tape.use(batch.inputs["other_states"], device=batch.cache)
    return rows


def _convolution_input(batch: Batch, channels: int, kernel: int, state: int, source: int) -> int:
    """What came before and what is new, side by side; its end is stored."""
    tape = batch.tape
    size = channels * (batch.tokens + (kernel - 1) * batch.sequences) * F32
    joined = tape.free(size, ~state, source if source < 0 else ~source)
    tape.use(~joined, device=batch.cache)
    return joined


def mamba(batch: Batch, block: Block, normed: int, state: int | None) -> Later:
    """Mamba 1 and 2.

    Source: build_mamba_layer and build_mamba2_layer in src/models/mamba-base.cpp; build_plamo2_mamba_layer in
    src/models/plamo2.cpp.
    """
    tape, geometry = batch.tape, batch.geometry
    inner, state_size, groups = geometry.ssm_inner, geometry.ssm_state, geometry.ssm_groups
    plamo = geometry.architecture == "plamo2"
    second = not block.has("ssm_x")
    channels = inner + 2 * groups * state_size if second else inner
    state = read_state(batch) if state is None else state
    mixed = tape.op(batch.f32(block.width("ssm_in")), ~normed)
    source = ~mixed
    if plamo:
        mixed = tape.free(batch.f32(block.width("ssm_in")), ~mixed)
        source = ~tape.free(batch.f32(inner), ~mixed)
    joined = _convolution_input(batch, channels, geometry.ssm_conv, state, source)
    x = tape.op(batch.f32(channels), joined)
    parts: tuple[int, ...] = (~x,)
    if second:
        step = tape.free(batch.f32(geometry.ssm_rank), ~mixed)
    else:
        projected = tape.op(batch.f32(block.width("ssm_x")), x)
        rank = block.shapes["ssm_dt"][0]
        low = ~projected
        if block.has("ssm_dt_norm"):
            low = tape.free(batch.f32(rank), ~projected)
            b = tape.free(batch.f32(state_size), ~projected)
            c = tape.free(batch.f32(state_size), ~projected)
            parts = (~x, ~b, ~c)
        else:
            parts = (~x, ~projected)
        step = tape.op(batch.f32(block.width("ssm_dt")), low)
    scan_size = batch.f32(inner) + geometry.recurrent_state * batch.sequences * F32
    memory: tuple[int, ...] = ()
    if batch.cache != tape.device and tape.device is not None:  # the scan reads it where it is, so copies are made
        # the host's part leaves gaps that are not followed to the byte: as much again is added, to be on the safe side
        tape.apart[tape.device] = 2 * geometry.recurrent_state * batch.sequences * F32
        size = geometry.recurrent_state * batch.sequences * F32
        memory = (tape.outside(size, batch.cache), tape.outside(size, batch.cache))
    scanned = tape.op(scan_size, *(~tensor for tensor in memory[:1]), *parts, step, batch.inputs["states"])
    tape.use(*(~tensor for tensor in memory[1:]), batch.inputs["other_states"], device=tape.device)
    tape.use(~scanned, device=batch.cache)

    def rest() -> int:
        z = tape.free(batch.f32(inner), ~mixed)
        skipped = tape.op(batch.f32(inner), ~x if second or plamo else x, in_place=True)
        y = tape.free(batch.f32(inner), ~scanned, skipped, in_place=True)
        y = tape.free(batch.f32(inner), z, y)
        if block.has("ssm_norm") and second:
            y = tape.op(batch.f32(inner), ~y)
        return ~tape.op(batch.f32(block.width("ssm_out")), ~y)

    return rest


def delta_net(batch: Batch, block: Block, normed: int) -> Later:
    """Gated delta nets of Qwen 3 Next and Qwen 3.5.

    Source: build_layer_attn_linear in src/models/qwen3next.cpp and src/models/qwen35.cpp; build_conv_state,
    build_delta_net_fused and build_recurrent_attn in src/models/delta-net-base.cpp.
    """
    tape, geometry = batch.tape, batch.geometry
    inner, heads = geometry.ssm_inner, geometry.ssm_rank
    keys = geometry.ssm_groups * geometry.ssm_state
    channels = inner + 2 * keys
    state = read_state(batch)
    z = None
    if not block.has("attn_qkv"):
        z = tape.op(batch.f32(block.width("ssm_in")), normed)
        query = tape.free(batch.f32(keys), ~z)
        key = tape.free(batch.f32(keys), ~z)
        both = tape.free(batch.f32(2 * keys), ~query, ~key)
        value = tape.free(batch.f32(inner), ~z)
        mixed = tape.free(batch.f32(channels), both, ~value)
    else:
        mixed = tape.op(batch.f32(channels), normed)
    joined = _convolution_input(batch, channels, geometry.ssm_conv, state, mixed)
    memory = read_state(batch, memory=True)
    convolved = tape.op(batch.f32(channels), joined)
    repeated = geometry.architecture == "qwen3next" and keys != inner
    query = tape.free(batch.f32(keys), ~convolved)
    if repeated:
        query = tape.free(batch.f32(inner), ~query)
    key = tape.free(batch.f32(keys), ~convolved)
    if repeated:
        key = tape.free(batch.f32(inner), ~key)
    if block.has("ssm_ba"):
        both = tape.op(batch.f32(2 * heads), normed)
        gate = tape.free(batch.f32(heads), ~both)
        beta = tape.free(batch.f32(heads), ~both)
    else:
        gate = tape.free(batch.f32(heads), ~tape.op(batch.f32(heads), normed))
        beta = tape.free(batch.f32(heads), ~tape.op(batch.f32(heads), normed))
    size = batch.f32(inner) + geometry.recurrent_state * batch.sequences * F32
    result = tape.free(size, ~query, ~key, ~convolved, ~gate, ~beta, ~memory)
    tape.use(~result, device=batch.cache)

    def rest() -> int:
        out = tape.op(batch.f32(inner), ~result)
        gate = tape.op(batch.f32(inner), normed) if z is None else tape.free(batch.f32(inner), ~z)
        gate = tape.free(batch.f32(inner), ~gate)
        out = tape.free(batch.f32(inner), out, gate, in_place=True)
        return ~tape.op(batch.f32(block.width("ssm_out")), ~out)

    return rest


def kimi_delta_net(batch: Batch, block: Block, normed: int) -> Later:
    """Source: the graph in src/models/kimi-linear.cpp."""
    tape, geometry = batch.tape, batch.geometry
    inner = block.width("attn_q")
    state = read_state(batch)
    joined = []
    for name in ("attn_q", "attn_k", "attn_v"):
        part = tape.op(batch.f32(block.width(name)), normed)
        joined.append(_convolution_input(batch, inner, geometry.ssm_conv, state, part))
    memory = read_state(batch, memory=True)
    parts = []
    for number, part in enumerate(joined):
        convolved = tape.op(batch.f32(inner), part)
        activated = tape.free(batch.f32(inner), ~convolved)
        parts.append(tape.free(batch.f32(inner), ~activated) if number < 2 else activated)
    low = tape.op(batch.f32(block.width("ssm_f_a")), normed)
    gate = tape.op(batch.f32(inner), low)
    gate = tape.op(batch.f32(inner), ~gate)
    beta = tape.free(batch.f32(geometry.layers[0].heads), ~tape.op(batch.f32(geometry.layers[0].heads), normed))
    size = batch.f32(inner) + geometry.recurrent_state * batch.sequences * F32
    result = tape.free(size, parts[0], parts[1], ~parts[2], ~gate, beta, ~memory)
    tape.use(~result, device=batch.cache)

    def rest() -> int:
        out = tape.free(batch.f32(inner), ~result)
        out = tape.op(batch.f32(inner), ~out)
        low = tape.op(batch.f32(block.width("ssm_g_a")), ~normed)
        gate = tape.free(batch.f32(inner), ~tape.op(batch.f32(inner), low))
        out = tape.free(batch.f32(inner), out, gate, in_place=True)
        out = tape.free(batch.f32(inner), out)
        return tape.op(batch.f32(block.width("attn_output")), out)

    return rest


def short_convolution(batch: Batch, block: Block, normed: int, state: int | None) -> Later:
    """Source: build_shortconv_block in src/models/lfm2.cpp."""
    tape, geometry = batch.tape, batch.geometry
    width = geometry.embedding
    state = read_state(batch) if state is None else state
    parts = tape.op(batch.f32(block.width("shortconv.in_proj")), ~normed)
    product = tape.free(batch.f32(width), ~parts, ~parts)
    joined = _convolution_input(batch, width, geometry.short_conv, state, product)

    def rest() -> int:
        convolved = tape.op(batch.f32(width), joined)
        out = tape.free(batch.f32(width), ~parts, convolved, in_place=True)
        return ~tape.op(batch.f32(width), out)

    return rest


def _shifted(batch: Batch, state: int, normed: int) -> int:
    """The difference of each token to the one before."""
    size = batch.f32(batch.geometry.embedding)
    before = batch.tape.free(size, ~state, ~normed)
    return batch.tape.free(size, before, normed, in_place=True)


def rwkv6(batch: Batch, block: Block, normed: int, state: int, memory: int) -> int:
    """Source: build_rwkv6_time_mix in src/models/rwkv6-base.cpp."""
    tape, width = batch.tape, batch.geometry.embedding
    size = batch.f32(width)
    difference = _shifted(batch, state, normed)
    mixed = tape.op(size, ~difference)
    mixed = tape.free(size, mixed, ~normed, in_place=True)
    low = tape.op(batch.f32(block.width("time_mix_w1")), mixed)
    low = tape.free(batch.f32(block.width("time_mix_w1")), ~low)
    five = tape.op(5 * size, ~low)
    five = tape.free(5 * size, five, ~difference, ~normed, in_place=True)
    key = tape.op(size, ~five)
    value = tape.op(size, ~five)
    receptance = tape.op(size, ~five)
    low = tape.op(batch.f32(block.width("time_mix_decay_w1")), ~five)
    decay = tape.op(size, low)
    result_size = size + batch.geometry.recurrent_state * batch.sequences * F32
    result = tape.op(result_size, ~key, ~value, ~receptance, ~decay, memory)
    tape.use(~result, device=batch.cache)
    out = tape.free(size, ~result)
    out = tape.op(size, ~out)
    gate = tape.op(size, ~five)
    out = tape.free(size, out, gate, in_place=True)
    return tape.op(size, out)


def rwkv7(batch: Batch, block: Block, normed: int, state: int, memory: int) -> int:
    """Source: build_rwkv7_time_mix in src/models/rwkv7-base.cpp."""
    tape, width = batch.tape, batch.geometry.embedding
    size = batch.f32(width)
    count = 6 if block.has("time_mix_g1") else 5
    difference = _shifted(batch, state, normed)
    six = tape.free(count * size, difference)
    six = tape.op(count * size, six, normed, in_place=True)
    receptance = tape.op(size, ~six)
    decay = tape.op(size, tape.op(batch.f32(block.width("time_mix_w1")), ~six))
    key = tape.op(size, ~six)
    learning = tape.op(size, tape.op(batch.f32(block.width("time_mix_a1")), ~six))
    scaled = tape.op(size, key)
    more = tape.free(size, learning, scaled)
    more = tape.free(size, more, scaled, in_place=True)
    last = tape.free(size, key, more)
    value = tape.op(size, ~six)
    first = batch.extras.get("first_value")
    if first is None:
        batch.extras["first_value"] = value
    else:
        residual = tape.free(size, first, value)
        gate = tape.op(size, tape.op(batch.f32(block.width("time_mix_v1")), ~six))
        residual = tape.free(size, residual, gate, in_place=True)
        value = tape.free(size, value, residual, in_place=True)
    normal = tape.op(size, key)
    normal = tape.free(size, ~normal)
    negative = tape.free(size, normal)
    product = tape.free(size, normal, ~learning, in_place=True)
    result_size = size + batch.geometry.recurrent_state * batch.sequences * F32
    result = tape.free(result_size, ~receptance, ~decay, ~last, ~value, negative, product, memory)
    tape.use(~result, device=batch.cache)
    out = tape.free(size, ~result)
    out = tape.op(size, ~out)
    bonus = tape.free(size, ~last, ~receptance)
    weight = tape.free(batch.f32(width // max(batch.geometry.wkv_head, 1)), bonus)
    bonus = tape.free(size, ~value, weight)
    out = tape.free(size, out, ~bonus, in_place=True)
    if count == 6:
        gate = tape.op(size, tape.op(batch.f32(block.width("time_mix_g1")), ~six))
        out = tape.free(size, out, gate, in_place=True)
    return tape.op(size, out)


def channel_mix(batch: Batch, block: Block, normed: int, state: int) -> int:
    """Source: build_rwkv6_channel_mix and build_rwkv7_channel_mix."""
    tape, size = batch.tape, batch.f32(batch.geometry.embedding)
    difference = batch.tape.free(size, ~state, ~normed)
    difference = tape.free(size, ~difference, ~normed)
    gate = None
    if block.has("channel_mix_receptance"):
        mixed = tape.op(size, difference)
        mixed = tape.free(size, mixed, ~normed, in_place=True)
        gate = tape.op(size, mixed)
    mixed = tape.op(size, difference, in_place=True)
    mixed = tape.free(size, mixed, ~normed, in_place=True)
    hidden = tape.op(batch.f32(block.width("channel_mix_key")), mixed)
    out = tape.op(size, hidden)
    return tape.free(size, gate, out, in_place=True) if gate is not None else out
