"""A graph as it is computed, and what laying it out takes on each device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeAlias

from llamamodel_operator.core.memory.compute.allocator import ALIGNMENT, Arena
from llamamodel_operator.core.memory.context import padded

__all__ = ["Graph", "PerCell", "Size", "Step"]


class PerCell(NamedTuple):
    """Bytes that grow with the context.

    Attributes:
        thousandths: of a byte, for each cell of one stream of a cache.
        window: it is the cache of layers that attend within the sliding window.
    """

    thousandths: int
    window: bool


Size: TypeAlias = int | PerCell
"""Bytes."""
Step: TypeAlias = tuple[int, int, tuple[int, ...], bool]
"""The tensor that is made; its device; the tensors that it is made of; whether it may take the place of one of them."""


class Graph:
    """Steps in the order in which they are computed, for any size of the context.

    Args:
        sizes: of all tensors.
        last: of each tensor, the tensor that is the last one to be made of it; -1 where it is never done with.
        steps: that make them.
        copied: what the host fills and what is copied to another device: the device and the tensor.
        apart: further bytes on each device.
    """

    def __init__(
        self,
        *,
        sizes: Sequence[Size],
        last: Sequence[int],
        steps: Sequence[Step],
        copied: Sequence[tuple[int, int]],
        apart: Mapping[int, int],
    ) -> None:
        self._sizes = [0 if isinstance(size, PerCell) else -(-size // ALIGNMENT) * ALIGNMENT for size in sizes]
        self._growing = [(tensor, size) for tensor, size in enumerate(sizes) if isinstance(size, PerCell)]
        self._last = last
        self._steps = steps
        self._copied = copied
        self._apart = apart

    def peaks(self, *, slot_size: int = 0, window_size: int = 0, copies: int = 1) -> dict[int, int]:
        """Bytes of each device's buffer.

        Source: ggml_gallocr_alloc_graph_impl and ggml_gallocr_allocate_node in ggml/src/ggml-alloc.c.

        Args:
            slot_size: cells of one stream.
            window_size: the same for layers that attend within the sliding window.
            copies: of inputs and of what is copied to another device, so that it can be written while another batch is
                computed.
        """
        last, sizes = self._last, self._sizes.copy()
        for tensor, per_cell in self._growing:
            cells = window_size if per_cell.window else slot_size
            sizes[tensor] = padded(cells * per_cell.thousandths // 1000, ALIGNMENT)
        arenas: dict[int, Arena] = {}
        places: dict[int, tuple[Arena, int, int]] = {}
        for tensor, device, sources, in_place in self._steps:
            size = sizes[tensor]
            if size:
                place = None
                if in_place:
                    for source in sources:
                        known = places.get(source)
                        if known is None or known[2] != size or last[source] != tensor:
                            continue
                        if sources.count(source) == 1 and ~source not in sources:
                            place = places.pop(source)
                            break
                if place is None:
                    arena = arenas.get(device) or arenas.setdefault(device, Arena())
                    place = (arena, arena.take(size), size)
                places[tensor] = place
            for source in sources:
                read = source if source >= 0 else ~source
                if last[read] == tensor and read in places:
                    arena, offset, length = places.pop(read)
                    arena.give(offset, length)
        peaks = {device: arena.peak for device, arena in arenas.items()}
        for device, size in self._apart.items():
            peaks[device] = peaks.get(device, 0) + size
        for device, tensor in self._copied if copies > 1 else ():
            peaks[device] = peaks.get(device, 0) + (copies - 1) * sizes[tensor]
        return peaks
