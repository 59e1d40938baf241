"""The estimate: per GPU and for the host, in bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

from llamamodel_operator.core.gguf.geometry import Geometry
from llamamodel_operator.core.gguf.geometry_rules import INDEXED, KNOWN
from llamamodel_operator.core.gguf.model import GgufModel
from llamamodel_operator.core.memory.cache import cache_bytes, state_bytes
from llamamodel_operator.core.memory.compute import compute_buffers
from llamamodel_operator.core.memory.context import Context, context_of
from llamamodel_operator.core.memory.grouping import MemoryModel
from llamamodel_operator.core.memory.placement import HOST, Placement, by_device, place
from llamamodel_operator.core.memory.rough import rough_compute
from llamamodel_operator.core.memory.settings import MemorySettings
from llamamodel_operator.core.memory.weights import adapter_bytes, model_bytes, projector_bytes

__all__ = ["DeviceMemory", "Draft", "MemoryEstimate", "MemoryModel", "estimate_memory"]

APPROXIMATE_COMPUTE = INDEXED - {"minimax-m3"} | {"graniteswitch", "grok"}
"""Architectures whose scratch buffers are larger than their graph here says."""


@dataclass(frozen=True, kw_only=True)
class DeviceMemory:
    """Bytes on one GPU, or on the host.

    Attributes:
        weights: of the model and the draft model.
        kv_cache: of both.
        recurrent_state: of both.
        compute: scratch buffers of both.
        output: logits and embeddings; always on the host.
        adapters: LoRA.
        projector: weights and scratch buffer of the multimodal projector.
        overhead: the driver's own context, which llama.cpp does not see.
        prompt_cache: on the host: what the server may keep of prompts that may come again.
    """

    weights: int = 0
    kv_cache: int = 0
    recurrent_state: int = 0
    compute: int = 0
    output: int = 0
    adapters: int = 0
    projector: int = 0
    overhead: int = 0
    prompt_cache: int = 0

    @property
    def total(self) -> int:
        """Sum of all."""
        return sum(getattr(self, field.name) for field in fields(self))


@dataclass(frozen=True, kw_only=True)
class Draft:
    """A draft model and how it is run."""

    model: GgufModel | MemoryModel
    settings: MemorySettings


@dataclass(frozen=True, kw_only=True)
class MemoryEstimate:
    """What a llama-server takes.

    Attributes:
        gpus: in llama.cpp's order; empty without one.
        host: the rest.
        context_size: cells of all slots together, as llama.cpp settles them.
        slot_context_size: tokens that one slot can hold.
        slots: as settled.
        layers: of the model, the output layer not counted.
        gpu_layers: how many are offloaded, the output layer counted.
        uncertain: why the figures may be wrong; empty where every rule is known.
    """

    gpus: tuple[DeviceMemory, ...]
    host: DeviceMemory
    context_size: int
    slot_context_size: int
    slots: int
    layers: int
    gpu_layers: int
    uncertain: tuple[str, ...] = ()


def estimate_memory(
    model: GgufModel | MemoryModel,
    *,
    settings: MemorySettings,
    gpus: int,
    draft: Draft | None = None,
    adapters: Sequence[GgufModel] = (),
    projector: GgufModel | None = None,
    overhead: int = 0,
    offloads_operations: bool = True,
) -> MemoryEstimate:
    """What `llama-server` with these settings takes on `gpus` GPUs and on the host. Pure, a millisecond or so.

    Args:
        model: for more than one estimate of a model, `MemoryModel.of` it once.
        settings: of the command line.
        gpus: that the pod has.
        draft: a smaller model that drafts.
        adapters: LoRA.
        projector: multimodal.
        overhead: bytes of the driver's own context on each GPU.
        offloads_operations: the back end copies weights of the host to the GPU for large batches, as CUDA and
            Vulkan do; scratch buffers then hold a copy.

    Raises:
        UnsupportedModelError: the header lacks what llama.cpp needs to load it; the message names the key.
    """
    grouped = model if isinstance(model, MemoryModel) else MemoryModel.of(model)
    gpus = max(gpus, 0)
    parts = _Parts()
    parts.add("overhead", dict.fromkeys(range(gpus), overhead))
    parts.add("prompt_cache", {HOST: settings.prompt_cache_bytes})
    own = _of_model(grouped, settings, gpus, parts, offloads_operations)
    uncertain = [*own.uncertain]
    if draft is not None:
        drafter = draft.model if isinstance(draft.model, MemoryModel) else MemoryModel.of(draft.model)
        drafted = _of_model(drafter, draft.settings, gpus, parts, offloads_operations)
        uncertain += (f"draft model: {reason}" for reason in drafted.uncertain)
    parts.add("adapters", adapter_bytes(grouped, own.placement, adapters))
    if projector is not None:
        device = 0 if gpus and settings.projector_offload else HOST
        parts.add("projector", {device: projector_bytes(projector)})
        uncertain.append("projector: its scratch buffer depends on the images; an upper guess is counted")
    return MemoryEstimate(
        gpus=tuple(parts.of(device) for device in range(gpus)),
        host=parts.of(HOST),
        context_size=own.context.size,
        slot_context_size=own.context.slot_size,
        slots=own.context.slots,
        layers=len(grouped.geometry.layers),
        gpu_layers=own.placement.gpu_layers,
        uncertain=tuple(uncertain),
    )


class _Parts:
    """Bytes by field of `DeviceMemory` and by device, while they are added up."""

    def __init__(self) -> None:
        self._sizes: dict[str, dict[int, int]] = {}

    def add(self, name: str, sizes: Mapping[int, int]) -> None:
        total = self._sizes.setdefault(name, {})
        for device, size in sizes.items():
            total[device] = total.get(device, 0) + size

    def of(self, device: int) -> DeviceMemory:
        return DeviceMemory(**{name: sizes.get(device, 0) for name, sizes in self._sizes.items()})


@dataclass(frozen=True, kw_only=True)
class _Settled:
    placement: Placement
    context: Context
    uncertain: tuple[str, ...]


def _of_model(model: MemoryModel, settings: MemorySettings, gpus: int, parts: _Parts, offloads: bool) -> _Settled:
    """Add what one model takes to the parts."""
    geometry = model.geometry
    context = context_of(geometry, settings)
    placement = place(model, settings, gpus=gpus)
    repacks = settings.repack and not (gpus and offloads)
    parts.add("weights", model_bytes(model, placement, repacks=repacks))
    parts.add("kv_cache", _per_device(placement, cache_bytes(geometry, context, settings)))
    parts.add("recurrent_state", _per_device(placement, state_bytes(geometry, context)))
    parts.add("output", {HOST: output_bytes(geometry, context)})
    compute, uncertain = _compute(model, placement, context, settings, offloads=offloads)
    parts.add("compute", compute)
    return _Settled(
        placement=placement,
        context=context,
        uncertain=(*geometry.uncertain, *placement.uncertain, *uncertain),
    )


def _compute(
    model: MemoryModel, placement: Placement, context: Context, settings: MemorySettings, *, offloads: bool
) -> tuple[dict[int, int], tuple[str, ...]]:
    """Bytes of scratch buffers per device, and why they may be wrong."""
    try:
        buffers = compute_buffers(
            model.compute,
            placement=placement,
            context=context,
            settings=settings,
            offloads_operations=offloads,
        )
    except (ArithmeticError, LookupError, TypeError, ValueError):
        # the graph is put together from the file's tensors, and these are not of an architecture that is known
        return rough_compute(model.geometry, placement, context), (
            "scratch buffers: the tensors are not those of a known graph; an upper guess is counted",
        )
    sizes = {HOST: buffers.host, **dict(enumerate(buffers.gpus))}
    if model.geometry.architecture in KNOWN - APPROXIMATE_COMPUTE:
        return sizes, ()
    for device, rough in rough_compute(model.geometry, placement, context).items():
        sizes[device] = max(sizes.get(device, 0), rough)
    return sizes, ("scratch buffers: the graph of this architecture is not known in full; an upper guess is counted",)


def output_bytes(geometry: Geometry, context: Context) -> int:
    """Logits and embeddings of one batch's outputs, in f32.

    Source: llama_context::output_reserve in src/llama-context.cpp. An embedding server reserves a row for each token
    of a batch when the first batch comes; it is counted from the start.
    """
    rows = max(context.outputs, context.slots)
    width = geometry.vocabulary + (geometry.embedding_out if context.embedding or geometry.decoder_layers else 0)
    return rows * width * 4


def _per_device(placement: Placement, sizes: Sequence[int]) -> dict[int, int]:
    """Bytes of blocks' caches per device, divided over GPUs where split mode tensor does so."""
    result = by_device(placement.caches, sizes)
    if placement.shares and placement.divides_caches:
        total = sum(size for device, size in result.items() if device != HOST)
        host = result.get(HOST, 0)
        result = {gpu: round(total * share) for gpu, share in zip(placement.used, placement.shares, strict=True)}
        result[HOST] = host
    return result
