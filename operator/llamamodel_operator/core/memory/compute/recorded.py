"""Which layers of a graph make a difference to the memory that it takes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from llamamodel_operator.core.gguf.geometry import Geometry
from llamamodel_operator.core.memory.compute.batch import Block
from llamamodel_operator.core.memory.placement import Placement

__all__ = ["moved_tensors", "recorded_layers"]

REPEATS = 2
"""So many layers of a kind after one of a kind are recorded: the next ones would find the same free blocks."""
NEXT = 2
"""Layers before another device, where what they leave to do is drawn to it, and after one that may leave something to
layers that read a state first."""
SPARSE_LAYERS = 10
"""First layers of Gemma 3n, which have a sparse feed-forward network (n_layer_sparsity in src/models/gemma3n.cpp)."""


def moved_tensors(placement: Placement) -> dict[int, dict[str, int]]:
    """For each layer that has any: devices of tensors that are not where the layer is."""
    result: dict[int, dict[str, int]] = {}
    for name, device in placement.moved.items():
        prefix, _, rest = name.partition("blk.")
        number, _, own = rest.removesuffix(".weight").partition(".")
        block = int(number) if number.isdigit() and len(number) < 6 else len(placement.layers)
        if prefix in ("", "dec.") and block < len(placement.layers) and device != placement.layers[block]:
            result.setdefault(block, {})[own] = device
    return result


def recorded_layers(
    geometry: Geometry, blocks: Sequence[Block], placement: Placement, moved: Mapping[int, Mapping[str, int]]
) -> Iterator[tuple[int, bool]]:
    """The layers that make a difference: first and last ones of each kind on each device."""
    depth = geometry.depth
    seen: dict[object, int] = {}
    previous: object = None
    following = NEXT if any(layer.recurrent for layer in geometry.layers) else 0
    until = -1
    for index in range(depth):
        block = blocks[index]
        elsewhere = tuple(moved[index].items()) if index in moved else None
        sparse = (index < SPARSE_LAYERS and block.has("laurel_l")) or index < geometry.deepstack_layers
        owner = block.layer.shares_cache_of
        if owner is not None and placement.caches[owner] != placement.layers[index]:
            previous = None  # each such layer has copies of its own of the cache, all of them at a time
            yield index, index == depth - 1
            continue
        key = (id(block), placement.layers[index], placement.caches[index], elsewhere, sparse)
        count = seen.get((previous, key), 0)
        seen[previous, key] = count + 1
        previous = key
        border = placement.layers[index] != placement.layers[min(index + following, depth - 1)]
        if count < REPEATS:
            until = index + following
        if index <= until or border or index == depth - 1:
            yield index, index == depth - 1
