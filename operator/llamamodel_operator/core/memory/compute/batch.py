"""The batch that llama.cpp reserves its buffers for, and what all layers read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from llamamodel_operator.core.gguf.geometry import Geometry, Layer
from llamamodel_operator.core.memory.compute.graph import PerCell, Size
from llamamodel_operator.core.memory.compute.run import Run
from llamamodel_operator.core.memory.compute.tape import Tape

__all__ = ["F16", "F32", "I64", "Batch", "Block", "Later"]

F16, F32, I64 = 2, 4, 8
Later = Callable[[], int]
"""Records the rest of something, and gives its result."""
Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, eq=False, kw_only=True)
class Block:
    """One layer: its geometry, and the shapes of its tensors by their names after blk.N., without .weight."""

    layer: Layer
    shapes: Shapes

    def has(self, name: str) -> bool:
        """Whether there is such a tensor."""
        return name in self.shapes

    def width(self, name: str) -> int:
        """Elements that multiplying with it results in; 0 without it."""
        return self._widths.get(name, 0)

    @cached_property
    def _widths(self) -> Mapping[str, int]:
        return {name: shape[1] for name, shape in self.shapes.items() if len(shape) > 1}


@dataclass(kw_only=True)
class Batch:
    """While a graph is recorded.

    Attributes:
        tape: where it is recorded.
        geometry: of the model.
        run: whose graph it is.
        tokens: of the batch; fewer for the last layer, which computes outputs only.
        rotated: K and V are turned before they are cached, as their cache is quantised: (of K, of V).
        inputs: what the host fills, by name.
        index: of the current layer.
        moved: devices of the current layer's tensors that are elsewhere, by their names as a block has them.
        cache: the device of the current layer's cache.
        groups: of experts, of which only some are chosen from; 0 where they are not grouped.
        weights_scaled: the chosen experts' weights are scaled.
        layer_norm: instead of RMS norm.
        side_by_side: attention and feed-forward have the same input, each with a norm of its own.
        scaled: what a layer adds is scaled before.
        cache_types: bytes of an element of K and of V, in thousandths.
        layer_embeddings: how the embeddings of each layer's own are made, the first time that one is needed.
        extras: results that later layers read, by name.
    """

    tape: Tape
    geometry: Geometry
    run: Run
    tokens: int
    rotated: tuple[bool, bool] = (False, False)
    inputs: dict[str, int] = field(default_factory=dict)
    index: int = 0
    moved: Mapping[str, int] = field(default_factory=dict)
    cache: int = -1
    groups: int = 0
    scaled: bool = False
    weights_scaled: bool = False
    layer_norm: bool = False
    side_by_side: bool = False
    cache_types: tuple[int, int] = (2000, 2000)
    layer_embeddings: Callable[[], int] | None = None
    extras: dict[str, int] = field(default_factory=dict)

    def per_layer(self) -> int:
        """The embeddings of each layer's own."""
        made = self.extras.get("per_layer")
        if made is None:
            if self.layer_embeddings is None:
                raise LookupError("a layer takes an embedding of its own, but the model has none")
            made = self.extras["per_layer"] = self.layer_embeddings()
        return made

    def buckets(self) -> int:
        """T5's buckets of distances, of which each layer has a view of its own, and so a copy."""
        size = PerCell(thousandths=1000 * self.tokens * F32, window=False)
        return self.tape.part(size, self.inputs["buckets"])

    @property
    def sequences(self) -> int:
        """Of the batch."""
        return self.run.slots

    def f32(self, elements: int) -> int:
        """Bytes of so many elements for each token."""
        return elements * self.tokens * F32

    def product(self, block: Block, name: str, *sources: int, times: int = 1) -> int:
        """The product with one of the layer's matrices, or with so many of its experts' for each token.

        It is computed where the matrix is.
        """
        size = self.f32(block.width(name) * times)
        if name in self.moved:
            return self.tape.at(self.moved[name], size, *sources)
        return self.tape.op(size, *sources)

    def norm(self, name: str, source: int) -> int:
        """RMS norm, which may take its argument's place, or layer norm, which may not; its weights and bias may.

        Source: build_norm in src/llama-graph.cpp; ggml_op_can_inplace in ggml/src/ggml-alloc.c.
        """
        size = self.f32(self.geometry.embedding)
        normed = self.tape.free(size, source, in_place=not self.layer_norm)
        return self.tape.at(self.moved[name], size, normed) if name in self.moved else normed

    def cells(self, layer: Layer, thousandths: int) -> Size:
        """So many thousandths of a byte for each cell of one stream of a layer's cache.

        For each token of the batch where the model has no cache.
        """
        if not self.geometry.memory:
            return self.tokens * thousandths // 1000
        return PerCell(thousandths=thousandths, window=layer.window)

    def mask(self, layer: Layer) -> int:
        """The input that says which cells a token attends to."""
        return self.inputs["window_mask" if layer.window else "mask"]

    def rows(self, kind: str, layer: Layer) -> int:
        """The input that says which cells of the cache of K or V the batch goes to."""
        return self.inputs[f"window_{kind}_rows" if layer.window else f"{kind}_rows"]

    def rotation(self, kind: str, layer: Layer) -> int:
        """The matrix that K or V is multiplied with before it is quantised."""
        return self.inputs[f"window_{kind}_rotation" if layer.window else f"{kind}_rotation"]
