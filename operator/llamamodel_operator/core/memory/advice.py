"""What to change where a model does not fit: each change with what it takes then, in the order of harm."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from llamamodel_operator.core.memory.estimate import MemoryEstimate
from llamamodel_operator.core.memory.fitting import (
    Found,
    Load,
    fits,
    most_context,
    most_layers,
    search,
    shared_by_memory,
    streams,
)
from llamamodel_operator.core.memory.settings import MemorySettings

__all__ = ["Change", "ChangeKind", "changes"]

_SMALLEST_ADVISED = 512
"""Tokens per slot; a smaller context is no help."""
_MOST_GPUS = 16
"""llama.cpp takes no more (llama_max_devices)."""
_UNQUANTIZED = ("f32", "f16", "bf16")


class ChangeKind(StrEnum):
    """What can be changed, in the order of harm: first what a user hardly notices, last what costs money."""

    CACHE_Q8_0 = "cacheTypeQ8_0"
    CONTEXT = "contextSize"
    CACHE_AND_CONTEXT = "cacheTypeQ8_0AndContextSize"
    SLOTS = "parallelSlots"
    CACHE_Q4_0 = "cacheTypeQ4_0"
    EXPERTS = "cpuMoeLayers"
    LAYERS = "gpuLayers"
    GPU = "gpuCount"


@dataclass(frozen=True, kw_only=True)
class Change:
    """A change with which it fits.

    Attributes:
        kind: of change.
        flags: for the command line of llama-server.
        fields: of a LlamaModel's spec, with their values.
        settings: with the change.
        estimate: with the change.
    """

    kind: ChangeKind
    flags: tuple[str, ...]
    fields: Mapping[str, str | int | bool]
    settings: MemorySettings
    estimate: MemoryEstimate


def changes(load: Load, *, memory: Sequence[int]) -> tuple[Change, ...]:
    """What can be changed so that it fits, each change alone, in the order of harm.

    For a load that does not fit. Where no change to the cache, the context and the slots is enough by itself, a smaller
    context together with a cache of q8_0 is looked at too.
    """
    found = [change for attempt in _ATTEMPTS for change in attempt(load, memory)]
    if not any(change.kind in _MILD for change in found):
        found += _cache_and_context(load, memory)
    return tuple(sorted(found, key=lambda change: list(ChangeKind).index(change.kind)))


def _cache(load: Load, memory: Sequence[int], *, kind: ChangeKind, cache_type: str) -> Iterator[Change]:
    settings = _with_cache(load.settings, cache_type)
    if settings is None:
        return
    estimate = load.estimate(gpus=len(memory), settings=settings)
    if fits(estimate, memory):
        yield Change(
            kind=kind,
            flags=("-ctk", cache_type, "-ctv", cache_type),
            fields={"engine.cacheTypeK": cache_type, "engine.cacheTypeV": cache_type},
            settings=settings,
            estimate=estimate,
        )


def _cache_q8_0(load: Load, memory: Sequence[int]) -> Iterator[Change]:
    yield from _cache(load, memory, kind=ChangeKind.CACHE_Q8_0, cache_type="q8_0")


def _cache_q4_0(load: Load, memory: Sequence[int]) -> Iterator[Change]:
    yield from _cache(load, memory, kind=ChangeKind.CACHE_Q4_0, cache_type="q4_0")


def _with_cache(settings: MemorySettings, cache_type: str) -> MemorySettings | None:
    """None where that is no change, or the server would not start: a quantized V needs flash attention."""
    types = (settings.cache_type_k, settings.cache_type_v)
    if settings.flash_attention == "off" or not any(kind in _UNQUANTIZED for kind in types):
        return None
    return replace(settings, cache_type_k=cache_type, cache_type_v=cache_type)


def _context(load: Load, memory: Sequence[int]) -> Iterator[Change]:
    if found := _smaller_context(load, load.settings, memory):
        size, settings, estimate = found
        yield Change(
            kind=ChangeKind.CONTEXT,
            flags=("-c", str(size)),
            fields={"engine.contextSize": size},
            settings=settings,
            estimate=estimate,
        )


def _smaller_context(load: Load, settings: MemorySettings, memory: Sequence[int]) -> Found | None:
    now = load.estimate(gpus=len(memory), settings=settings).context_size
    found = most_context(load, settings, memory=memory)
    worth = found and _SMALLEST_ADVISED * streams(settings) <= found[0] < now
    return found if worth else None


def _slots(load: Load, memory: Sequence[int]) -> Iterator[Change]:
    """Fewer slots, each with the context that it has."""
    settings, now = load.settings, load.estimate(gpus=len(memory))
    alone = streams(settings) > 1

    def with_slots(slots: int) -> MemorySettings:
        size = now.slot_context_size * slots if alone else now.context_size
        return replace(settings, slots=slots, context_size=size, unified=not alone)

    if found := search(load, memory, with_slots, 1, now.slots - 1):
        slots, fewer, estimate = found
        yield Change(
            kind=ChangeKind.SLOTS,
            flags=("-np", str(slots), "-c", str(fewer.context_size), *(() if alone else ("-kvu",))),
            fields={"engine.parallelSlots": slots, "engine.contextSize": fewer.context_size}
            | ({} if alone else {"engine.kvUnified": True}),
            settings=fewer,
            estimate=estimate,
        )


def _experts(load: Load, memory: Sequence[int]) -> Iterator[Change]:
    """The fewest layers whose experts have to stay on the host."""
    settings = load.settings
    if not any("_exps." in tensor.name for tensor in load.model.tensors):
        return
    layers = load.estimate(gpus=len(memory)).layers
    more = layers - min(settings.cpu_moe_layers, layers)

    def kept(left: int) -> MemorySettings:
        return replace(settings, cpu_moe_layers=layers - left)

    if more and (found := search(load, memory, kept, 0, more - 1)):
        number = layers - found[0]
        yield Change(
            kind=ChangeKind.EXPERTS,
            flags=("-ncmoe", str(number)),
            fields={"engine.cpuMoeLayers": number},
            settings=found[1],
            estimate=found[2],
        )


def _layers(load: Load, memory: Sequence[int]) -> Iterator[Change]:
    if found := most_layers(load, load.settings, memory=memory):
        layers, settings, estimate = found
        yield Change(
            kind=ChangeKind.LAYERS,
            flags=("-ngl", str(layers)),
            fields={"engine.gpuLayers": layers},
            settings=settings,
            estimate=estimate,
        )


def _gpu(load: Load, memory: Sequence[int]) -> Iterator[Change]:
    """More GPUs like the smallest one, with equal shares; as few as are enough."""
    if load.settings.split_mode == "none":
        return
    settings = replace(load.settings, tensor_split=())
    for number in range(len(memory) + 1, _MOST_GPUS + 1):
        more = (*memory, *[min(memory)] * (number - len(memory)))
        shared = shared_by_memory(settings, more)
        estimate = load.estimate(gpus=number, settings=shared)
        if fits(estimate, more):
            yield Change(
                kind=ChangeKind.GPU, flags=(), fields={"gpu.count": number}, settings=shared, estimate=estimate
            )
            return


def _cache_and_context(load: Load, memory: Sequence[int]) -> Iterator[Change]:
    settings = _with_cache(load.settings, "q8_0")
    if settings is None:
        return
    if found := _smaller_context(load, settings, memory):
        size, smaller, estimate = found
        yield Change(
            kind=ChangeKind.CACHE_AND_CONTEXT,
            flags=("-ctk", "q8_0", "-ctv", "q8_0", "-c", str(size)),
            fields={"engine.cacheTypeK": "q8_0", "engine.cacheTypeV": "q8_0", "engine.contextSize": size},
            settings=smaller,
            estimate=estimate,
        )


_ATTEMPTS: tuple[Callable[[Load, Sequence[int]], Iterator[Change]], ...] = (
    _cache_q8_0,
    _context,
    _slots,
    _cache_q4_0,
    _experts,
    _layers,
    _gpu,
)
_MILD = (ChangeKind.CACHE_Q8_0, ChangeKind.CONTEXT, ChangeKind.SLOTS, ChangeKind.CACHE_Q4_0)
