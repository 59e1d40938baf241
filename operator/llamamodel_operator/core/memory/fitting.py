"""What fits into given GPU memory: the largest context, the most layers, settings that are left to us."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeAlias

from llamamodel_operator.core.gguf.model import GgufModel
from llamamodel_operator.core.memory.estimate import Draft, MemoryEstimate, estimate_memory
from llamamodel_operator.core.memory.grouping import MemoryModel
from llamamodel_operator.core.memory.settings import ALL_LAYERS, AUTO_SLOTS, MemorySettings

__all__ = [
    "Found",
    "Load",
    "fits",
    "largest_context",
    "most_context",
    "most_layers",
    "search",
    "settle",
    "shared_by_memory",
    "streams",
]

CELLS = 256
"""llama.cpp rounds each slot's context up to a multiple of it (src/llama-context.cpp, llama_context)."""
SMALLEST_CONTEXT = 4096
"""Tokens per slot that automatic layers are not traded for; llama.cpp's own --fit-ctx has the same default."""
CONTEXT_WITHOUT_FIGURES = 8192
"""Tokens per slot where the context is automatic and nobody knows how much memory there is."""


@dataclass(frozen=True, kw_only=True)
class Load:
    """What a llama-server is to load, and how.

    Attributes:
        model: that it serves.
        settings: how.
        draft: the draft model.
        adapters: LoRA.
        projector: of images and sound.
        overhead: bytes on each GPU that llama.cpp does not see.
    """

    model: GgufModel
    settings: MemorySettings
    draft: Draft | None = None
    adapters: tuple[GgufModel, ...] = ()
    projector: GgufModel | None = None
    overhead: int = 0

    @cached_property
    def grouped(self) -> MemoryModel:
        """The model, made ready for many estimates.

        Raises:
            UnsupportedModelError: the header lacks what llama.cpp needs to load it.
        """
        return MemoryModel.of(self.model)

    @cached_property
    def _grouped_draft(self) -> MemoryModel | None:
        draft = self.draft.model if self.draft else None
        return MemoryModel.of(draft) if isinstance(draft, GgufModel) else draft

    def with_settings(self, settings: MemorySettings) -> Load:
        """The same, loaded otherwise; what was made ready is kept."""
        other = replace(self, settings=settings)
        other.__dict__.update(
            {name: self.__dict__[name] for name in ("grouped", "_grouped_draft") if name in self.__dict__}
        )
        return other

    def estimate(self, *, gpus: int, settings: MemorySettings | None = None) -> MemoryEstimate:
        """The estimate, with other settings if any are given; the draft model shares context and slots."""
        used = settings or self.settings
        draft = None
        if self.draft is not None and self._grouped_draft is not None:
            shared = replace(
                self.draft.settings, context_size=used.context_size, slots=used.slots, unified=used.unified
            )
            draft = Draft(model=self._grouped_draft, settings=shared)
        return estimate_memory(
            self.grouped,
            settings=used,
            gpus=gpus,
            draft=draft,
            adapters=self.adapters,
            projector=self.projector,
            overhead=self.overhead,
        )


def fits(estimate: MemoryEstimate, memory: Sequence[int]) -> bool:
    """Whether each GPU has the bytes that are needed on it. Without a GPU there is nothing that could not fit."""
    return len(estimate.gpus) <= len(memory) and all(
        gpu.total <= has for gpu, has in zip(estimate.gpus, memory, strict=False)
    )


def largest_context(load: Load, *, memory: Sequence[int]) -> int:
    """The largest --ctx-size (all slots together) that fits, and no slot above the model's training context.

    A multiple of 256 for each slot that has a cache of its own; 0 where not even that fits.
    """
    found = most_context(load, load.settings, memory=memory)
    return found[0] if found else 0


def settle(load: Load, *, gpus: int, memory: Sequence[int] | None, layers: bool, context: bool) -> MemorySettings:
    """The settings with plain numbers instead of what is automatic.

    All layers go to the GPUs where they fit with the smallest context that is worth it, and the context is then the
    largest that fits; elsewhere the context is that smallest one, and as many layers as fit go to the GPUs. llama.cpp's
    own order (common/fit.cpp) is the same, but that it moves experts first, which spec.engine.cpuMoeLayers is for.

    Args:
        load: what is to be loaded.
        gpus: how many GPUs the pod gets.
        memory: bytes of each; None where nobody knows. All layers are offloaded then, and the context is a modest one.
        layers: whether the number of layers on the GPUs is automatic.
        context: whether the context is automatic.
    """
    settings = load.settings
    caches = streams(settings)
    if layers:
        settings = replace(settings, gpu_layers=ALL_LAYERS if gpus else 0)
    if memory is None or not gpus:
        if context:
            settings = replace(settings, context_size=_at_most_trained(load, CONTEXT_WITHOUT_FIGURES) * caches)
    else:
        if context:
            smallest = _at_most_trained(load, SMALLEST_CONTEXT) * caches
            most = most_context(load, settings, memory=memory)
            enough = most and (most[0] >= smallest or not layers)
            settings = replace(settings, context_size=most[0] if most and enough else smallest)
        if layers:
            offloaded = most_layers(load, settings, memory=memory)
            settings = offloaded[1] if offloaded else replace(settings, gpu_layers=0)
    if layers:
        settings = replace(settings, gpu_layers=load.estimate(gpus=gpus, settings=settings).gpu_layers)
    return settings


def shared_by_memory(settings: MemorySettings, memory: Sequence[int]) -> MemorySettings:
    """The settings with the shares that llama.cpp takes where none are given: those of the free memory.

    Source: src/llama-model.cpp, llama_model::load_tensors (splits).
    """
    if settings.tensor_split or len(set(memory)) < 2:
        return settings
    return replace(settings, tensor_split=tuple(float(has) for has in memory))


# --- searches

Found: TypeAlias = tuple[int, MemorySettings, MemoryEstimate]
"""A number, the settings with it, and what they take."""


def search(
    load: Load, memory: Sequence[int], apply: Callable[[int], MemorySettings], low: int, high: int
) -> Found | None:
    """The largest number from low to high with which it fits, given that less takes less; None where none does."""
    best: Found | None = None
    candidate = high
    while low <= high:
        settings = apply(candidate)
        estimate = load.estimate(gpus=len(memory), settings=settings)
        if fits(estimate, memory):
            best, low = (candidate, settings, estimate), candidate + 1
        else:
            high = candidate - 1
        candidate = (low + high) // 2
    return best


def streams(settings: MemorySettings) -> int:
    """How many caches there are: one for each slot, or one for all."""
    unified = settings.slots is None if settings.unified is None else settings.unified
    return 1 if unified else settings.slots or AUTO_SLOTS


def _at_most_trained(load: Load, tokens: int) -> int:
    return min(tokens, load.grouped.geometry.context_length or tokens)


def most_context(load: Load, settings: MemorySettings, *, memory: Sequence[int]) -> Found | None:
    unit = CELLS * streams(settings)
    trained = load.grouped.geometry.context_length * streams(settings) or settings.context_size
    found = search(load, memory, lambda units: replace(settings, context_size=units * unit), 1, max(1, trained // unit))
    return (found[0] * unit, *found[1:]) if found else None


def most_layers(load: Load, settings: MemorySettings, *, memory: Sequence[int]) -> Found | None:
    asked = load.estimate(gpus=len(memory), settings=settings).gpu_layers
    return search(load, memory, lambda layers: replace(settings, gpu_layers=layers), 0, asked)
