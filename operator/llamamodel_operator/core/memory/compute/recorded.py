"""Which layers of a graph make a difference to the memory that it takes."""

from __future__ import annotations

from collections.abc import Iterator

from llamamodel_operator.core.memory.compute.model import ComputeModel
from llamamodel_operator.core.memory.compute.run import RecordedLayer
from llamamodel_operator.core.memory.placement import Placement

__all__ = ["recorded_layers"]

REPEATS = 2
"""So many layers of a kind after one of a kind are recorded: the next ones would find the same free blocks."""
NEXT = 2
"""Layers before another device, where what they leave to do is drawn to it, and after one that may leave something to
layers that read a state first."""


def recorded_layers(model: ComputeModel, placement: Placement) -> Iterator[RecordedLayer]:
    """The layers that make a difference: first and last ones of each kind on each device."""
    geometry, owners, layers, caches = model.geometry, model.owners, placement.layers, placement.caches
    moved = _moved_tensors(model, placement)
    last = geometry.depth - 1
    following = NEXT if any(layer.recurrent for layer in geometry.kinds) else 0
    leaves_copies = bool(geometry.decoder_layers or geometry.per_layer_embedding)
    seen: dict[object, int] = {}
    previous: object = None
    until = -1
    skipped: tuple[int, ...] = ()
    for index, kind in enumerate(model.kinds[: geometry.depth]):
        device, owner = layers[index], owners[index]
        if owner != index and caches[owner] != device:
            until = max(until, index)  # each such layer has copies of its own of the cache, all of them at a time
            previous = None
        else:
            key = (kind, device, caches[index], moved.get(index))
            count = seen.get((previous, key), 0)
            if count < REPEATS:
                seen[previous, key] = count + 1
                until = index + following
            previous = key
        if index <= until or index == last or (following and layers[min(index + following, last)] != device):
            yield RecordedLayer(model.alike[index], device, caches[owner], moved.get(index, ()), skipped)
            skipped = ()
        elif leaves_copies:
            skipped += (device,)


def _moved_tensors(model: ComputeModel, placement: Placement) -> dict[int, tuple[tuple[str, int], ...]]:
    """For each layer that has any: devices of tensors that are not where the layer is."""
    result: dict[int, tuple[tuple[str, int], ...]] = {}
    for name, device in placement.moved.items():
        place = model.places.get(name)
        if place is not None and device != placement.layers[place[0]]:
            layer, own = place
            result[layer] = (*result.get(layer, ()), (own, device))
    return result
