"""The graph of a run: what the host fills, the layers, the head."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llamamodel_operator.core.gguf.geometry import Layer
from llamamodel_operator.core.memory.cache import row_bytes
from llamamodel_operator.core.memory.compute.batch import F16, F32, I64, Batch, Later
from llamamodel_operator.core.memory.compute.graph import Graph, PerCell
from llamamodel_operator.core.memory.compute.layers import LATE_OUTPUTS, build_layer, outputs, settled
from llamamodel_operator.core.memory.compute.run import Run
from llamamodel_operator.core.memory.compute.tape import Tape
from llamamodel_operator.core.memory.context import QUANTIZED_TYPES
from llamamodel_operator.core.memory.grouping import WITHOUT_OUTPUT
from llamamodel_operator.core.memory.placement import HOST

if TYPE_CHECKING:
    from llamamodel_operator.core.memory.compute.model import ComputeModel

__all__ = ["record"]

I32 = 4
OUTPUTS_AFTER_NORM = frozenset(
    (
        *("cohere2moe", "gemma4", "gpt-oss", "hy_v3", "mimo2", "nemotron_h", "nemotron_h_moe", "qwen35", "qwen35moe"),
        *("qwen3next", "step35"),
    )
)
"""All tokens pass the output norm as well (h_nextn in src/models/*.cpp)."""
WITHOUT_LOGITS = WITHOUT_OUTPUT | {"gemma-embedding", "llama-embed", "t5encoder"}
"""Their graphs end with embeddings."""
LOGITS_OR_EMBEDDINGS = frozenset(("lfm2", "lfm2moe"))
WITHOUT_OUTPUT_NORM = frozenset(("bert", "jina-bert-v2", "jina-bert-v3", "nomic-bert", "nomic-bert-moe"))


def record(model: ComputeModel, run: Run) -> Graph:
    """The graph of a model in a run."""
    geometry = model.geometry
    tape = Tape(HOST)
    quantised = tuple(
        kind in QUANTIZED_TYPES and length % 64 == 0 and not geometry.mla
        for kind, length in (
            (run.cache_type_k, max((layer.key_length for layer in geometry.kinds), default=1)),
            (run.cache_type_v, max((layer.value_length for layer in geometry.kinds), default=1)),
        )
    )
    batch = Batch(
        tape=tape,
        geometry=geometry,
        run=run,
        tokens=run.tokens,
        rotated=(quantised[0], quantised[1]),
        groups=model.groups,
        scaled=model.scaled,
        weights_scaled=model.weights_scaled,
        layer_norm=model.layer_norm,
        side_by_side=model.side_by_side,
        cache_types=(
            row_bytes(run.cache_type_k, 32) * 1000 // 32,
            row_bytes(run.cache_type_v, 32) * 1000 // 32,
        ),
    )
    residual = _inputs(model, batch)
    before = settled(residual)
    for number, layer in enumerate(run.layers, 1):
        _skipped_copies(batch, layer.skipped)
        tape.device, batch.cache = layer.device, layer.cache
        batch.index, batch.moved = layer.like, dict(layer.moved)
        before = build_layer(batch, model.blocks[layer.like], before, last=number == len(run.layers))
    _head(model, batch, before())
    return tape.graph()


def _skipped_copies(batch: Batch, skipped: tuple[int, ...]) -> None:
    """Copies for layers that are not recorded: those for all layers of a device are there at a time."""
    width = batch.f32(batch.geometry.per_layer_embedding)
    for device in skipped:
        if batch.geometry.decoder_layers:
            batch.tape.use(batch.buckets(), device=device)
        elif width and device != batch.run.first:
            batch.tape.use(batch.tape.part(width, batch.per_layer()), device=device)


def _inputs(model: ComputeModel, batch: Batch) -> int:
    """What the host fills, and the residual stream before the first layer.

    Source: build_inp_embd, build_inp_pos, build_inp_out_ids and build_attn_inp_* in src/llama-graph.cpp.
    """
    tape, geometry, run, inputs = batch.tape, model.geometry, batch.run, batch.inputs
    tokens = batch.tokens
    size = batch.f32(geometry.embedding)
    ids = tape.input(tokens * I32)
    tape.input(size * (1 + geometry.deepstack_layers))
    if any(layer.recurrent for layer in geometry.kinds):
        inputs["states"] = tape.input(run.slots * I32)
        inputs["other_states"] = tape.input(I32)
    inputs["positions"] = tape.input(tokens * I32 * geometry.positions)
    element = F16 if run.flash_attention else F32
    attending = [layer for layer in geometry.kinds if layer.heads]
    values = max((layer.value_length * layer.kv_heads for layer in attending), default=0)
    windows: dict[bool, Layer] = {}
    for layer in attending:
        windows.setdefault(layer.window, layer)
    for window, layer in windows.items():
        prefix = "window_" if window else ""
        if geometry.memory:
            inputs[prefix + "k_rows"] = tape.input(tokens * I64)
            inputs[prefix + "v_rows"] = tape.input(
                tokens * I64 * (1 if run.flash_attention or run.given_up else values)
            )
            sides = (layer.key_length & -layer.key_length, 64)
            for kind, rotated, side in zip("kv", batch.rotated, sides, strict=True):
                if rotated:  # build_input_k_rot and build_input_v_rot in src/llama-kv-cache.cpp
                    inputs[f"{prefix}{kind}_rotation"] = tape.input(side * side * F32)
        inputs[prefix + "mask"] = tape.input(batch.cells(layer, 1000 * tokens * element))
    if geometry.decoder_layers:
        inputs["buckets"] = tape.input(PerCell(thousandths=1000 * tokens * I32, window=False))
        inputs["encoded"] = tape.input(geometry.embedding * geometry.context_length * F32)
        inputs["cross_mask"] = tape.input(geometry.context_length * tokens * element)
    inputs["outputs"] = tape.input(run.outputs * I32)
    tape.device = HOST
    residual = tape.op(size, ids)
    top = model.top
    if geometry.deepstack_layers:
        residual = ~tape.free(size * (1 + geometry.deepstack_layers), residual)
        batch.extras["deepstack"] = residual
    positions = tape.op(size, inputs["positions"]) if "position_embd" in top else None
    if "token_types" in top:
        residual = tape.free(size, residual, tape.outside(geometry.embedding * F32, HOST), in_place=True)
    if positions is not None:
        residual = tape.free(size, positions, residual, in_place=True)
    rows = 0
    if "per_layer_token_embd" in top:
        rows = tape.op(batch.f32(geometry.per_layer_embedding * len(geometry.layers)), ids)
    tape.device = run.first
    if "per_layer_token_embd" in top:
        residual = tape.free(size, residual, in_place=True)
        batch.layer_embeddings = _per_layer(model, batch, residual, rows)
    if "token_embd_norm" in top and geometry.architecture not in ("lfm2", "lfm2moe"):
        residual = tape.op(size, residual, in_place=True)
    if "altup_proj" in top:
        residual = _stacked(model, batch, residual)
    return residual


def _per_layer(model: ComputeModel, batch: Batch, residual: int, rows: int) -> Later:
    """Embeddings of each layer's own (project_per_layer_inputs in src/models/gemma3n.cpp and gemma4.cpp)."""
    tape, geometry = batch.tape, model.geometry
    size = batch.f32(geometry.per_layer_embedding * len(geometry.layers))
    scaled = tape.free(size, rows, in_place=True)
    device = tape.device

    def record() -> int:
        before, tape.device = tape.device, device
        projected = tape.op(size, residual)
        normed = tape.op(size, ~projected)
        total = tape.free(size, normed, scaled, in_place=True)
        result = tape.free(size, ~total)
        tape.device = before
        return result

    return record


def _stacked(model: ComputeModel, batch: Batch, residual: int) -> int:
    """The residual streams of Gemma 3n, made of one."""
    tape = batch.tape
    size = batch.f32(model.geometry.embedding)
    others = model.top["altup_proj"][2]
    repeated = tape.free(size * others, residual)
    projected = tape.op(size * others, repeated)
    magnitude = tape.free(batch.f32(1), tape.free(size, residual))
    product = tape.free(size * others, projected, magnitude)
    tape.use(tape.free(batch.f32(others), tape.free(size * others, projected)))
    return tape.free(size * (others + 1), residual, product)


def _merged(model: ComputeModel, batch: Batch, residual: int) -> int:
    """The residual streams of Gemma 3n, made one again."""
    tape = batch.tape
    size = batch.f32(model.geometry.embedding)
    others = model.top["altup_unembd_proj"][2]
    projected = tape.op(size * others, ~residual)
    magnitude = tape.free(batch.f32(1), tape.free(size, ~residual))
    product = tape.free(size * others, projected, magnitude)
    tape.use(tape.free(batch.f32(others), tape.free(size * others, projected)))
    return tape.free(size, ~residual, ~product)


def _head(model: ComputeModel, batch: Batch, residual: int) -> None:
    """The output norm, the logits, and pooled embeddings.

    Source: the ends of the graphs in src/models/*.cpp; build_pooling in src/llama-graph.cpp.
    """
    tape, geometry, run = batch.tape, model.geometry, batch.run
    tape.device = run.head
    if "altup_unembd_proj" in model.top:
        residual = _merged(model, batch, residual)
    architecture = geometry.architecture
    if architecture in LATE_OUTPUTS and architecture not in OUTPUTS_AFTER_NORM:
        (residual,) = outputs(batch, residual)
    embeddings = residual
    if geometry.architecture not in WITHOUT_OUTPUT_NORM:
        embeddings = batch.norm("", residual)
    if architecture in OUTPUTS_AFTER_NORM:
        (embeddings,) = outputs(batch, embeddings)
    size = batch.f32(geometry.embedding)
    tape.keep(embeddings)
    if architecture not in WITHOUT_LOGITS and not (architecture in LOGITS_OR_EMBEDDINGS and run.embedding):
        tape.device = run.output
        tape.keep(tape.op(batch.f32(geometry.vocabulary), embeddings))
        tape.device = run.head
    if not run.embedding:
        return
    if run.pooling == "mean":
        means = tape.input(batch.tokens * batch.sequences * F32)
        turned = tape.free(size, ~embeddings)
        tape.keep(tape.free(geometry.embedding * batch.sequences * F32, turned, means))
    elif run.pooling != "none":
        chosen = tape.input(batch.sequences * I32)
        tape.keep(tape.free(geometry.embedding * batch.sequences * F32, embeddings, chosen))
