"""Bytes of llama.cpp's compute buffers on each device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from llamamodel_operator.core.gguf.geometry import Geometry
from llamamodel_operator.core.memory.cache import row_bytes
from llamamodel_operator.core.memory.compute.batch import F16, F32, I64, Batch, Block, Later
from llamamodel_operator.core.memory.compute.layers import (
    LATE_OUTPUTS,
    begins_at_once,
    build_layer,
    outputs,
    reads_state_first,
    settled,
)
from llamamodel_operator.core.memory.compute.recorded import moved_tensors, recorded_layers
from llamamodel_operator.core.memory.compute.tape import Tape
from llamamodel_operator.core.memory.context import QUANTIZED_TYPES, Context
from llamamodel_operator.core.memory.grouping import WITHOUT_OUTPUT, MemoryModel
from llamamodel_operator.core.memory.placement import HOST, Placement
from llamamodel_operator.core.memory.settings import MemorySettings

__all__ = ["ComputeBuffers", "ComputeModel", "compute_buffers"]

_LAYER_NORM, _RMS_NORM = "{}.attention.layer_norm_epsilon", "{}.attention.layer_norm_rms_epsilon"
_NOTHING: Mapping[str, int] = {}
I32 = 4
OFFLOADED_BATCH = 32
"""Tokens from which on operations with the host's weights run on a GPU."""
PIPELINE_COPIES = 4
"""GGML_SCHED_MAX_COPIES in ggml/CMakeLists.txt."""
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


@dataclass(frozen=True, kw_only=True)
class ComputeBuffers:
    """Bytes on each GPU and on the host."""

    gpus: tuple[int, ...]
    host: int


@dataclass(frozen=True, eq=False, kw_only=True)
class ComputeModel:
    """A model made ready: once for any number of estimates.

    Attributes:
        geometry: of it.
        blocks: its layers; those that are alike are the same object.
        largest: bytes of each layer's largest matrix, and of its largest matrix of experts.
        top: shapes of the tensors outside the layers.
        groups: of experts.
        scaled: what a layer adds is scaled before.
        weights_scaled: the chosen experts' weights are scaled.
        layer_norm: instead of RMS norm.
        side_by_side: attention and feed-forward have the same input, each with a norm of its own.
    """

    geometry: Geometry
    blocks: tuple[Block, ...]
    largest: tuple[tuple[int, int], ...]
    top: Mapping[str, tuple[int, ...]]
    groups: int
    scaled: bool
    weights_scaled: bool
    layer_norm: bool
    side_by_side: bool

    @staticmethod
    def of(model: MemoryModel) -> ComputeModel:
        """Group the shapes of a model's tensors."""
        geometry = model.geometry
        shapes: list[dict[str, tuple[int, ...]]] = [{} for _ in geometry.layers]
        top: dict[str, tuple[int, ...]] = {}
        largest = [(0, 0)] * len(geometry.layers)
        for name, tensor in model.tensors.items():
            block = model.homes.get(name)
            stem = name.removesuffix(".weight")
            if block is None or "blk." not in name:
                top[stem] = tensor.shape
                continue
            matrix, matrices = largest[block]
            if len(tensor.shape) > 1:
                experts = max(matrices, tensor.size) if "exps" in name else matrices
                largest[block] = (max(matrix, tensor.size), experts)
            if not name.startswith("enc."):
                shapes[block][stem.split(".", 2 + name.startswith("dec."))[-1]] = tensor.shape
        kinds: dict[object, Block] = {}
        blocks = []
        for layer, own in zip(geometry.layers, shapes, strict=True):
            key = (layer, tuple(sorted(own.items())))
            blocks.append(kinds.setdefault(key, Block(layer=layer, shapes=own)))
        metadata, prefix = model.model.metadata, geometry.architecture
        groups = metadata.get(f"{prefix}.expert_group_count", 0)
        return ComputeModel(
            geometry=geometry,
            blocks=tuple(blocks),
            largest=tuple(largest),
            top=top,
            groups=groups if isinstance(groups, int) else 0,
            scaled=metadata.get(f"{prefix}.residual_scale", 0) not in (0, 1),
            weights_scaled=metadata.get(f"{prefix}.expert_weights_scale", 0) not in (0, 1),
            layer_norm=_LAYER_NORM.format(prefix) in metadata and _RMS_NORM.format(prefix) not in metadata,
            side_by_side=prefix == "gptneox" and bool(metadata.get("gptneox.use_parallel_residual")),
        )


def compute_buffers(
    model: ComputeModel,
    *,
    placement: Placement,
    context: Context,
    settings: MemorySettings,
    offloads_operations: bool = False,
) -> ComputeBuffers:
    """What the largest graph takes: a full micro batch of prompt tokens of all slots.

    Source: llama_context::sched_reserve and graph_reserve in src/llama-context.cpp.

    Args:
        model: made ready.
        placement: of its layers.
        context: of the run.
        settings: of the command line.
        offloads_operations: the GPUs take over operations whose weights are on the host, and copy inputs while they
            compute: CUDA, ROCm, Vulkan and SYCL do, devices of other machines do not. False counts as llama.cpp's dry
            run does, which also forgets what is put on the host on purpose (ggml_backend_sched_reserve_size resets it).
    """
    given_up = (
        settings.flash_attention == "auto"
        and context.flash_attention
        and model.geometry.memory
        and settings.cache_type_v not in QUANTIZED_TYPES  # llama_init_from_model asks for it then
        and not _keeps_flash_attention(model, placement)
    )
    if given_up:
        context = replace(context, flash_attention=False)
    tape = _record(model, placement, context, settings, pinned=offloads_operations, given_up=given_up)
    peaks = dict(tape.peaks())
    if offloads_operations and placement.used:
        if settings.op_offload:
            _add_weights(model, placement, context, peaks)
        if _is_pipelined(model, placement, settings):
            for device, size in tape.copied().items():
                peaks[device] = peaks.get(device, 0) + (PIPELINE_COPIES - 1) * size
    return ComputeBuffers(gpus=tuple(peaks.get(gpu, 0) for gpu in range(placement.gpus)), host=peaks.get(HOST, 0))


def _keeps_flash_attention(model: ComputeModel, placement: Placement) -> bool:
    """Whether it stays on where it is not asked for.

    Where the cache is on the host, attention is drawn to what is put into the graph next. That may be a state that is
    read by the same layer or by the next one, and not be where the layer is; llama.cpp then takes it that the layer's
    device lacks flash attention.

    Source: llama_context::resolve_fused_ops in src/llama-context.cpp.
    """
    for index in range(model.geometry.depth):
        attends_outside = placement.caches[index] == HOST and model.blocks[index].has("attn_q")
        if attends_outside and _drawn_to(model, placement, index) != placement.layers[index]:
            return False
    return True


def _drawn_to(model: ComputeModel, placement: Placement, index: int) -> int:
    """The device of what comes next in the graph after a layer's attention."""
    block, depth = model.blocks[index], model.geometry.depth
    if block.has("ssm_in"):
        return placement.caches[index]
    if not block.has("ffn_down_exps"):
        following = next((later for later in range(index + 1, depth) if begins_at_once(model.blocks[later])), None)
        if following is not None and reads_state_first(model.geometry.architecture, model.blocks[following]):
            return placement.caches[following]
    return placement.layers[index]


def _add_weights(model: ComputeModel, placement: Placement, context: Context, peaks: dict[int, int]) -> None:
    """The largest matrix that is copied from the host to the first GPU, whose operations then run there.

    Each such operation begins a split, so that one copy's memory is used again for the next.

    Source: ggml_backend_sched_backend_id_from_cur and pass 5 of ggml_backend_sched_split_graph in
    ggml/src/ggml-backend.cpp; ggml_backend_cuda_device_offload_op in ggml/src/ggml-cuda/ggml-cuda.cu.
    """
    if min(context.size, context.micro_batch) < OFFLOADED_BATCH:
        return
    largest = 0
    whole_layers = False
    for index in range(model.geometry.depth):
        if placement.layers[index] == HOST:
            largest, whole_layers = max(largest, *model.largest[index]), True
        elif placement.moved.get(f"blk.{index}.ffn_down_exps.weight") == HOST:
            largest = max(largest, model.largest[index][1])
    if not largest:
        return
    first = placement.used[0]
    own = peaks.get(first, 0)
    peaks[first] = (max(own, peaks.get(HOST, 0)) if whole_layers else own) + largest


def _is_pipelined(model: ComputeModel, placement: Placement, settings: MemorySettings) -> bool:
    """Whether several GPUs compute at a time, each with copies of its inputs.

    Source: llama_context::llama_context in src/llama-context.cpp, GGML_SCHED_MAX_COPIES.
    """
    everything = placement.output != HOST and HOST not in placement.layers[: model.geometry.depth]
    overrides = settings.override_tensors or settings.cpu_moe_layers
    several = len(placement.used) > 1 and settings.split_mode == "layer"
    return several and everything and settings.kv_offload and not overrides


def _record(
    model: ComputeModel,
    placement: Placement,
    context: Context,
    settings: MemorySettings,
    *,
    pinned: bool,
    given_up: bool,
) -> Tape:
    geometry = model.geometry
    tokens = min(context.size, context.micro_batch)
    tokens = -(-tokens // context.slots) * context.slots
    tape = Tape(HOST)
    quantised = tuple(
        kind in QUANTIZED_TYPES and length % 64 == 0 and not geometry.mla
        for kind, length in (
            (settings.cache_type_k, max((layer.key_length for layer in geometry.layers), default=1)),
            (settings.cache_type_v, max((layer.value_length for layer in geometry.layers), default=1)),
        )
    )
    batch = Batch(
        tape=tape,
        geometry=geometry,
        context=context,
        tokens=tokens,
        rotated=(quantised[0], quantised[1]),
        groups=model.groups,
        scaled=model.scaled,
        weights_scaled=model.weights_scaled,
        layer_norm=model.layer_norm,
        side_by_side=model.side_by_side,
        cache_types=(
            row_bytes(settings.cache_type_k, 32) * 1000 // 32,
            row_bytes(settings.cache_type_v, 32) * 1000 // 32,
        ),
        first=placement.layers[0],
        pinned=pinned,
        given_up=given_up,
    )
    residual = _inputs(model, batch, placement)
    before = settled(residual)
    moved = moved_tensors(placement)
    done = 0
    for index, last in recorded_layers(geometry, model.blocks, placement, moved):
        _skipped_copies(batch, placement, range(done, index))
        done = index + 1
        block = model.blocks[index]
        tape.device = placement.layers[index]
        owner = block.layer.shares_cache_of
        batch.cache = placement.caches[index if owner is None else owner]
        batch.moved = moved.get(index, _NOTHING)
        batch.index = index
        before = build_layer(batch, block, before, last=last)
    _head(model, batch, placement, before())
    return tape


def _skipped_copies(batch: Batch, placement: Placement, skipped: Sequence[int]) -> None:
    """Copies for layers that are not recorded: those for all layers of a device are there at a time."""
    width = batch.f32(batch.geometry.per_layer_embedding)
    for index in skipped:
        device = placement.layers[index]
        if batch.geometry.decoder_layers:
            batch.tape.use(batch.buckets(), device=device)
        elif width and device != placement.layers[0]:
            batch.tape.use(batch.tape.part(width, batch.per_layer()), device=device)


def _inputs(model: ComputeModel, batch: Batch, placement: Placement) -> int:
    """What the host fills, and the residual stream before the first layer.

    Source: build_inp_embd, build_inp_pos, build_inp_out_ids and build_attn_inp_* in src/llama-graph.cpp.
    """
    tape, geometry, context, inputs = batch.tape, model.geometry, batch.context, batch.inputs
    tokens = batch.tokens
    size = batch.f32(geometry.embedding)
    ids = tape.input(tokens * I32)
    tape.input(size * (1 + geometry.deepstack_layers))
    if any(layer.recurrent for layer in geometry.layers):
        inputs["states"] = tape.input(context.slots * I32)
        inputs["other_states"] = tape.input(I32)
    inputs["positions"] = tape.input(tokens * I32 * geometry.positions)
    element = F16 if context.flash_attention else F32
    attending = [layer for layer in geometry.layers if layer.heads]
    values = max((layer.value_length * layer.kv_heads for layer in attending), default=0)
    windows = {layer.window: None for layer in attending}
    for window in windows:
        prefix = "window_" if window else ""
        cells = (context.window_size if window else context.slot_size) if geometry.memory else tokens
        if geometry.memory:
            inputs[prefix + "k_rows"] = tape.input(tokens * I64)
            inputs[prefix + "v_rows"] = tape.input(
                tokens * I64 * (1 if context.flash_attention or batch.given_up else values)
            )
            length = next(layer.key_length for layer in attending if layer.window == window)
            for kind, rotated, side in zip("kv", batch.rotated, (length & -length, 64), strict=True):
                if rotated:  # build_input_k_rot and build_input_v_rot in src/llama-kv-cache.cpp
                    inputs[f"{prefix}{kind}_rotation"] = tape.input(side * side * F32)
        inputs[prefix + "mask"] = tape.input(cells * tokens * element)
    if geometry.decoder_layers:
        inputs["buckets"] = tape.input(context.slot_size * tokens * I32)
        inputs["encoded"] = tape.input(geometry.embedding * geometry.context_length * F32)
        inputs["cross_mask"] = tape.input(geometry.context_length * tokens * element)
    inputs["outputs"] = tape.input(context.outputs * I32)
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
    tape.device = placement.layers[0]
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


def _head(model: ComputeModel, batch: Batch, placement: Placement, residual: int) -> None:
    """The output norm, the logits, and pooled embeddings.

    Source: the ends of the graphs in src/models/*.cpp; build_pooling in src/llama-graph.cpp.
    """
    tape, geometry = batch.tape, model.geometry
    tape.device = placement.output
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
    if architecture not in WITHOUT_LOGITS and not (architecture in LOGITS_OR_EMBEDDINGS and batch.context.embedding):
        tape.device = placement.moved.get("output.weight", placement.output)
        tape.keep(tape.op(batch.f32(geometry.vocabulary), embeddings))
        tape.device = placement.output
    if not batch.context.embedding:
        return
    if batch.context.pooling == "mean":
        means = tape.input(batch.tokens * batch.sequences * F32)
        turned = tape.free(size, ~embeddings)
        tape.keep(tape.free(geometry.embedding * batch.sequences * F32, turned, means))
    elif batch.context.pooling != "none":
        chosen = tape.input(batch.sequences * I32)
        tape.keep(tape.free(geometry.embedding * batch.sequences * F32, embeddings, chosen))
