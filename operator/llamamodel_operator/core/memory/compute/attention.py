"""Attention: with and without flash attention, and multi-head latent attention."""

from __future__ import annotations

from llamamodel_operator.core.gguf.geometry import Layer
from llamamodel_operator.core.memory.compute.batch import F16, F32, Batch, Block, Later
from llamamodel_operator.core.memory.placement import HOST

__all__ = ["attention", "latent_attention"]

NOT_STORED = -1 << 40
"""Instead of K and V where another layer's are read."""


def attention(batch: Batch, block: Block, normed: int, *, rope: bool = True, gated: bool = False) -> Later:
    """From the normalised input to the output projection's result, which is recorded later.

    Source: build_qkv and build_attn in src/llama-graph.cpp.
    """
    tape, layer = batch.tape, block.layer
    q_size = batch.f32(layer.heads * layer.key_length)
    k_size = batch.f32(layer.kv_heads * layer.key_length)
    v_size = batch.f32(layer.kv_heads * layer.value_length)
    turned = rope or block.has("attn_q_norm")
    positions = (batch.inputs["positions"],) if rope else ()
    architecture = batch.geometry.architecture
    rotated_k, rotated_v = batch.rotated if batch.geometry.memory else (False, False)

    def rotated(size: int, tensor: int, kind: str, *, whole: bool = True) -> int:
        """Multiplied with the matrix that spreads what is quantised; a part of a tensor is copied before."""
        tensor = tensor if whole else ~tape.free(size, tensor)
        return ~tape.free(size, tensor, batch.rotation(kind, layer))

    def project(name: str, size: int, *, turn: bool, rotate: bool) -> int:
        """A view of Q, K or V; a new tensor where it is normed or turned."""
        tensor = ~batch.product(block, name, normed)
        if turn:
            tensor = ~tape.free(size, tensor, *positions)
        return rotated(size, tensor, "v" if name == "attn_v" else "k") if rotate else tensor

    gate = None
    k = v = NOT_STORED
    if block.has("attn_qkv"):
        k = v = q = ~batch.product(block, "attn_qkv", normed)
        q = ~tape.free(q_size, q, *positions) if turned else q
        q = rotated(q_size, q, "k", whole=turned) if rotated_k else q
        v = rotated(v_size, v, "v", whole=False) if rotated_v else v
        k = ~tape.free(k_size, k, *positions) if turned else k
        k = rotated(k_size, k, "k", whole=turned) if rotated_k else k
    else:
        if gated:
            both = gate = ~batch.product(block, "attn_q", normed)
            q = ~tape.free(q_size, both, *positions)
            q = rotated(q_size, q, "k") if rotated_k else q
        else:
            q = project("attn_q", q_size, turn=turned, rotate=rotated_k)
        normed_v = architecture.startswith(("gemma3n", "gemma4"))
        stores = layer.cached or not batch.geometry.memory
        if stores and not block.has("attn_v"):  # V is K before its norm
            both = ~batch.product(block, "attn_k", normed)
            k = ~tape.free(k_size, both, *positions) if turned else both
            k = rotated(k_size, k, "k") if rotated_k else k
            v = ~tape.free(v_size, both) if normed_v else both
            v = rotated(v_size, v, "v") if rotated_v else v
        elif stores:
            steps = ["v", "k"]
            if batch.geometry.window_kind != "none" or not batch.geometry.memory:
                steps.reverse()
            for step in steps:
                if step == "k":
                    k = project("attn_k", k_size, turn=turned, rotate=rotated_k)
                else:
                    v = project("attn_v", v_size, turn=normed_v, rotate=rotated_v)
    out = _mixed(batch, block, q, k, v)

    def rest() -> int:
        source = ~out
        if rotated_v:
            source = ~tape.free(batch.f32(layer.heads * layer.value_length), source, batch.rotation("v", layer))
        if gate is not None:
            sigmoid = tape.free(q_size, gate)
            source = tape.free(q_size, source, sigmoid, in_place=True)
        return batch.product(block, "attn_output", source)

    return rest


def _mixed(batch: Batch, block: Block, q: int, k: int, v: int) -> int:
    """Store K and V, of which views are given, and mix V by the softmax of K and Q.

    Source: build_attn and build_attn_mha in src/llama-graph.cpp; cpy_k and cpy_v in src/llama-kv-cache.cpp.
    """
    tape, layer, geometry = batch.tape, block.layer, batch.geometry
    flash = batch.run.flash_attention
    k_width, v_width = layer.kv_heads * layer.key_length, layer.kv_heads * layer.value_length
    out_size = batch.f32(layer.heads * layer.value_length)
    kq_size = batch.cells(layer, 1000 * batch.tokens * layer.heads * F32)
    mask = batch.mask(layer)
    keys: tuple[int, ...] = (k,)
    values: tuple[int, ...] = (v,)
    outside: tuple[int, ...] = ()
    if geometry.memory:
        if k != NOT_STORED:
            tape.use(k, batch.rows("k", layer), device=batch.cache)
            tape.use(v, batch.rows("v", layer), device=batch.cache)
        outside = _outside(batch, block)
        keys, values = outside[:1], outside[1:]
        if flash:
            keys = _halved(batch, keys, layer, k_width, of=0)
            values = _halved(batch, values, layer, v_width, of=1)
    elif flash:
        keys = (tape.free(batch.f32(k_width) // 2, k),)
        values = (tape.free(batch.f32(v_width) // 2, v),)
    if flash:
        out = tape.free(out_size, q, *keys, *values, mask)
    else:
        if batch.run.given_up:
            values = (tape.free(batch.cells(layer, 1000 * batch.run.streams * v_width * F16), *values),)
        elif not geometry.memory:
            values = (tape.free(batch.f32(v_width), v),)
        kq = tape.free(kq_size, *keys, q)
        kq = tape.free(kq_size, kq, mask, in_place=True)
        kqv = tape.free(out_size, *values, kq)
        out = tape.at(batch.cache, out_size, ~kqv) if outside and batch.run.pinned else tape.free(out_size, ~kqv)
    return out


def _halved(batch: Batch, rows: tuple[int, ...], layer: Layer, width: int, *, of: int) -> tuple[int, ...]:
    """The cache of K (0) or V (1), so many elements a cell, made f16 where it is f32.

    Flash attention takes no other float.

    Source: ggml_cast in build_attn_mha.
    """
    if batch.cache_types[of] != F32 * 1000:
        return rows
    return (batch.tape.free(batch.cells(layer, 1000 * batch.run.streams * width * F16), *rows),)


def _outside(batch: Batch, block: Block) -> tuple[int, ...]:
    """K and V where their cache may not be where they are read: they are copied there."""
    tape, layer, streams = batch.tape, block.layer, batch.run.streams
    drawn = tape.device == HOST and "states" in batch.inputs  # to the GPU that reads a state next
    if (batch.cache == tape.device or tape.device is None) and not drawn:
        return ()
    bytes_k, bytes_v = batch.cache_types
    k = tape.outside(batch.cells(layer, streams * layer.kv_heads * layer.key_length * bytes_k), batch.cache)
    v = tape.outside(batch.cells(layer, streams * layer.kv_heads * layer.value_length * bytes_v), batch.cache)
    return (~k, ~v)


def latent_attention(batch: Batch, block: Block, normed: int) -> Later:
    """Multi-head latent attention, in its absorbed form: one key per token, of which the value is a part.

    Source: llama_model_deepseek2::graph in src/models/deepseek2.cpp; build_attn of llm_graph_input_attn_k and
    build_attn_mha in src/llama-graph.cpp.
    """
    tape, layer, geometry = batch.tape, block.layer, batch.geometry
    heads = layer.heads
    lora, rope = geometry.kv_lora_rank, layer.rope_length
    if block.has("attn_q_a"):
        q = batch.product(block, "attn_q_b", batch.product(block, "attn_q_a", normed))
    else:
        q = batch.product(block, "attn_q", normed)
    absorbed = tape.op(batch.f32(heads * lora), ~q)
    positions = batch.inputs["positions"]
    q_rope = tape.free(batch.f32(heads * rope), ~q, positions)
    q_all = tape.free(batch.f32(heads * (lora + rope)), ~absorbed, q_rope)
    compressed = batch.product(block, "attn_kv_a_mqa", normed)
    kv = tape.free(batch.f32(lora), ~compressed)
    k_rope = tape.free(batch.f32(rope), ~compressed, positions)
    k = tape.free(batch.f32(lora + rope), ~kv, k_rope)
    tape.use(~kv)
    tape.use(~k, batch.rows("k", layer), device=batch.cache)
    mask, streams = batch.mask(layer), batch.run.streams
    outside: tuple[int, ...] = ()
    if batch.cache != tape.device and tape.device is not None:
        size = batch.cells(layer, streams * layer.key_length * batch.cache_types[0])
        outside = (~tape.outside(size, batch.cache), ~tape.outside(size, batch.cache))
    value = batch.f32(heads * geometry.value_length_mla)
    if batch.run.flash_attention:
        keys = _halved(batch, outside[:1], layer, layer.key_length, of=0)
        values = _halved(batch, outside[1:], layer, lora, of=0)
        out = tape.free(batch.f32(heads * lora), ~q_all, *keys, *values, mask)
        out = tape.op(value, ~out)
        out = tape.free(value, ~out)
    else:
        size = batch.cells(layer, 1000 * batch.tokens * heads * F32)
        kq = tape.free(size, *outside[:1], ~q_all)
        kq = tape.free(size, kq, mask, in_place=True)
        v = tape.free(batch.cells(layer, 1000 * streams * lora * F16), *outside[1:])
        out = tape.free(batch.f32(heads * lora), v, kq)
        out = tape.op(value, out)
        out = tape.free(value, ~out)
    return lambda: batch.product(block, "attn_output", ~out)
