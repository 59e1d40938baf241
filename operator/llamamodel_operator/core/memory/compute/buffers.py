"""Bytes of llama.cpp's compute buffers on each device."""

from __future__ import annotations

from dataclasses import dataclass

from llamamodel_operator.core.memory.compute.layers import begins_at_once, reads_state_first
from llamamodel_operator.core.memory.compute.model import ComputeModel
from llamamodel_operator.core.memory.compute.recorded import recorded_layers
from llamamodel_operator.core.memory.compute.run import Run
from llamamodel_operator.core.memory.context import QUANTIZED_TYPES, Context, padded
from llamamodel_operator.core.memory.placement import HOST, Placement
from llamamodel_operator.core.memory.settings import MemorySettings

__all__ = ["ComputeBuffers", "compute_buffers"]

OFFLOADED_BATCH = 32
"""Tokens from which on operations with the host's weights run on a GPU."""
PIPELINE_COPIES = 4
"""GGML_SCHED_MAX_COPIES in ggml/CMakeLists.txt."""


@dataclass(frozen=True, kw_only=True)
class ComputeBuffers:
    """Bytes on each GPU and on the host."""

    gpus: tuple[int, ...]
    host: int


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
    tokens = min(context.size, context.micro_batch)
    graph = model.graph_of(
        Run(
            layers=tuple(recorded_layers(model, placement)),
            first=placement.layers[0],
            head=placement.output,
            output=placement.moved.get("output.weight", placement.output),
            tokens=padded(tokens, context.slots),
            slots=context.slots,
            streams=context.streams,
            outputs=context.outputs,
            embedding=context.embedding,
            pooling=context.pooling,
            flash_attention=context.flash_attention and not given_up,
            given_up=given_up,
            cache_type_k=settings.cache_type_k,
            cache_type_v=settings.cache_type_v,
            pinned=offloads_operations,
        )
    )
    pipelined = offloads_operations and _is_pipelined(model, placement, settings)
    peaks = graph.peaks(
        slot_size=context.slot_size,
        window_size=context.window_size,
        copies=PIPELINE_COPIES if pipelined else 1,
    )
    if offloads_operations and placement.used and settings.op_offload and tokens >= OFFLOADED_BATCH:
        _add_weights(model, placement, peaks)
    return ComputeBuffers(gpus=tuple(peaks.get(gpu, 0) for gpu in range(placement.gpus)), host=peaks.get(HOST, 0))


def _keeps_flash_attention(model: ComputeModel, placement: Placement) -> bool:
    """Whether it stays on where it is not asked for.

    Where the cache is on the host, attention is drawn to what is put into the graph next. That may be a state that is
    read by the same layer or by the next one, and not be where the layer is; llama.cpp then takes it that the layer's
    device lacks flash attention.

    Source: llama_context::resolve_fused_ops in src/llama-context.cpp.
    """
    if HOST not in placement.caches:
        return True
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


def _add_weights(model: ComputeModel, placement: Placement, peaks: dict[int, int]) -> None:
    """The largest matrix that is copied from the host to the first GPU, whose operations then run there.

    Each such operation begins a split, so that one copy's memory is used again for the next.

    Source: ggml_backend_sched_backend_id_from_cur and pass 5 of ggml_backend_sched_split_graph in
    ggml/src/ggml-backend.cpp; ggml_backend_cuda_device_offload_op in ggml/src/ggml-cuda/ggml-cuda.cu.
    """
    whole_layers = min(placement.layers.count(HOST), model.geometry.depth)  # they come first
    sizes = [*model.largest[:whole_layers]]
    if placement.moved:
        sizes += (size for name, size in model.experts.items() if placement.moved.get(name) == HOST)
    largest = max(sizes, default=0)
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
