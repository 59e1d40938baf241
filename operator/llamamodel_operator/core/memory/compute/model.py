"""What of a model its compute buffers depend on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial

from llamamodel_operator.core.gguf.geometry import Geometry
from llamamodel_operator.core.memory.compute.batch import Block
from llamamodel_operator.core.memory.compute.graph import Graph
from llamamodel_operator.core.memory.compute.layers import variant_of
from llamamodel_operator.core.memory.compute.recording import record
from llamamodel_operator.core.memory.compute.run import Run
from llamamodel_operator.core.memory.grouping import MemoryModel

__all__ = ["ComputeModel"]

_LAYER_NORM, _RMS_NORM = "{}.attention.layer_norm_epsilon", "{}.attention.layer_norm_rms_epsilon"
KEPT_GRAPHS = 8
"""Graphs of a model that are kept: of the many settings that a search tries, most have one of a few."""


@dataclass(frozen=True, eq=False, kw_only=True)
class ComputeModel:
    """A model made ready: once for any number of estimates.

    Attributes:
        geometry: of it.
        blocks: its layers; those that are alike are the same object.
        kinds: for each layer, the first one that is built in the same way but for its positions.
        alike: for each layer, the first one that is built in the same way.
        owners: for each layer, the one whose cache it reads.
        places: of tensors that are in a layer: its number, and their names as a block has them.
        largest: bytes of each layer's largest matrix.
        experts: bytes of the largest matrix of a layer's experts, by the name of their last matrix.
        top: shapes of the tensors outside the layers.
        groups: of experts.
        scaled: what a layer adds is scaled before.
        weights_scaled: the chosen experts' weights are scaled.
        layer_norm: instead of RMS norm.
        side_by_side: attention and feed-forward have the same input, each with a norm of its own.
    """

    geometry: Geometry
    blocks: tuple[Block, ...]
    kinds: tuple[int, ...]
    alike: tuple[int, ...]
    owners: tuple[int, ...]
    places: Mapping[str, tuple[int, str]]
    largest: tuple[int, ...]
    experts: Mapping[str, int]
    top: Mapping[str, tuple[int, ...]]
    groups: int
    scaled: bool
    weights_scaled: bool
    layer_norm: bool
    side_by_side: bool

    @cached_property
    def graph_of(self) -> Callable[[Run], Graph]:
        """The graph of a run; the last ones are kept."""
        return lru_cache(maxsize=KEPT_GRAPHS)(partial(record, self))

    @staticmethod
    def of(model: MemoryModel) -> ComputeModel:
        """Group the shapes of a model's tensors."""
        geometry = model.geometry
        shapes: list[dict[str, tuple[int, ...]]] = [{} for _ in geometry.layers]
        top: dict[str, tuple[int, ...]] = {}
        places: dict[str, tuple[int, str]] = {}
        largest, experts = [0] * len(geometry.layers), [0] * len(geometry.layers)
        for name, tensor in model.tensors.items():
            block = model.homes.get(name)
            stem = name.removesuffix(".weight")
            if block is None or "blk." not in name:
                top[stem] = tensor.shape
                continue
            if len(tensor.shape) > 1:
                largest[block] = max(largest[block], tensor.size)
                if "exps" in name:
                    experts[block] = max(experts[block], tensor.size)
            if not name.startswith("enc."):
                short = stem.split(".", 2 + name.startswith("dec."))[-1]
                shapes[block][short] = tensor.shape
                places[name] = (block, short)
        kinds: dict[object, Block] = {}
        blocks = []
        for layer, own in zip(geometry.layers, shapes, strict=True):
            key = (layer, tuple(sorted(own.items())))
            blocks.append(kinds.setdefault(key, Block(layer=layer, shapes=own)))
        variants = [variant_of(geometry, block, index) for index, block in enumerate(blocks)]
        owners = [layer.shares_cache_of for layer in geometry.layers]
        metadata, prefix = model.model.metadata, geometry.architecture
        groups = metadata.get(f"{prefix}.expert_group_count", 0)
        return ComputeModel(
            geometry=geometry,
            blocks=tuple(blocks),
            kinds=_firsts(
                (id(block), sparse or deep) for block, (sparse, deep, _) in zip(blocks, variants, strict=True)
            ),
            alike=_firsts((id(block), variant) for block, variant in zip(blocks, variants, strict=True)),
            owners=tuple(index if owner is None else owner for index, owner in enumerate(owners)),
            places=places,
            largest=tuple(largest),
            experts={f"blk.{index}.ffn_down_exps.weight": experts[index] for index in range(geometry.depth)},
            top=top,
            groups=groups if isinstance(groups, int) else 0,
            scaled=metadata.get(f"{prefix}.residual_scale", 0) not in (0, 1),
            weights_scaled=metadata.get(f"{prefix}.expert_weights_scale", 0) not in (0, 1),
            layer_norm=_LAYER_NORM.format(prefix) in metadata and _RMS_NORM.format(prefix) not in metadata,
            side_by_side=prefix == "gptneox" and bool(metadata.get("gptneox.use_parallel_residual")),
        )


def _firsts(values: Iterable[object]) -> tuple[int, ...]:
    """For each value, the position of the first one that equals it."""
    first: dict[object, int] = {}
    return tuple(first.setdefault(value, position) for position, value in enumerate(values))
