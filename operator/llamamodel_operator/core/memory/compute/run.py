"""What of a run its graph depends on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

__all__ = ["RecordedLayer", "Run"]


class RecordedLayer(NamedTuple):
    """A layer that is recorded.

    Attributes:
        like: the index of the first layer that is built in the same way.
        device: of its weights, and where it computes.
        cache: the device of the cache that it reads.
        moved: devices of its tensors that are elsewhere, by their names as a block has them.
        skipped: devices of the layers before it that are not recorded, where these leave something.
    """

    like: int
    device: int
    cache: int
    moved: tuple[tuple[str, int], ...]
    skipped: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Run:
    """Of runs that are equal in it, the graph is the same, however large the context and however many layers there are.

    Attributes:
        layers: that are recorded.
        first, head, output: the devices of the first layer, of the output norm and of the output matrix.
        tokens: of the batch.
        slots, streams, outputs, embedding, pooling: as `Context` has them.
        flash_attention: it is used, and not given up.
        given_up: flash attention is, after the cache was made for it: V is transposed each time it is read.
        cache_type_k, cache_type_v: as `MemorySettings` has them.
        pinned: without flash attention, what is mixed of a cache on the host is put there; the dry run forgets that.
    """

    layers: tuple[RecordedLayer, ...]
    first: int
    head: int
    output: int
    tokens: int
    slots: int
    streams: int
    outputs: int
    embedding: bool
    pooling: str
    flash_attention: bool
    given_up: bool
    cache_type_k: str
    cache_type_v: str
    pinned: bool
