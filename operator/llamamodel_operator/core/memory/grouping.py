"""A model made ready for estimates: its geometry, and its tensors' bytes by where llama.cpp puts them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from typing import TYPE_CHECKING

from llamamodel_operator.core.gguf.geometry import Geometry
from llamamodel_operator.core.gguf.geometry_reading import geometry_of
from llamamodel_operator.core.gguf.model import GgufModel, Tensor
from llamamodel_operator.core.memory.context import padded
from llamamodel_operator.core.memory.patterns import matcher_of

if TYPE_CHECKING:
    from llamamodel_operator.core.memory.compute import ComputeModel

__all__ = ["ALIGNMENT", "WITHOUT_OUTPUT", "MemoryModel"]

ALIGNMENT = 32
"""Bytes that a tensor's place in a buffer is rounded up to; with CUDA 128, which is some kilobytes more in all."""
HOST_TENSORS = frozenset(("per_layer_token_embd", "position_embd", "token_embd", "token_types"))
"""LLM_TENSOR_LAYER_INPUT in src/llama-arch.cpp."""
FIRST_LAYER_TENSORS = frozenset(
    ("conv1d", "hrm", "nextn.pre_projection", "per_layer_model_proj", "per_layer_proj_norm", "token_embd_norm")
)
"""Without a layer in their names, but created as the first layer's."""
EVERY_DEVICE_TENSORS = frozenset(("rope_factors_long", "rope_factors_short", "rope_freqs"))
"""Copied to each device that has a layer (TENSOR_DUPLICATED in src/models/*.cpp)."""
UNUSED_TENSORS = ("cross_attn_rel_b.weight", "masked_embd_centroids.weight", "masked_embd_ordering.weight")
"""GGML_OP_NONE in src/llama-arch.cpp: in the file, but not loaded."""
WITHOUT_OUTPUT = frozenset(
    (
        *("bert", "bitnet", "clef", "eurobert", "jina-bert-v2", "jina-bert-v3", "modern-bert", "neo-bert"),
        *("nomic-bert", "nomic-bert-moe"),
    )
)
"""Architectures that make no output matrix of the embeddings where the file has none."""
EXPERT_TENSORS = tuple(f"ffn_{kind}_{group}exps" for kind in ("up", "down", "gate", "gate_up") for group in ("", "ch"))
"""What -cmoe and -ncmoe keep on the host (LLM_FFN_EXPS_REGEX in common/common.h)."""
FOLLOWED = re.compile(r"blk\.[0-9]+\.(?:attn_|ffn_|post_attention_norm)")
"""Tensors that are computed where they are put, so that scratch buffers follow them."""
KEPT_EXPRESSIONS = 32
"""Regular expressions whose tensors are kept."""


FEED_FORWARD = ("exp_probs_b", "ffn_down", "ffn_gate", "ffn_up")
EMBEDDINGS = ("nextn.embed_tokens", "nextn.shared_head")
LOADED_PREDICTIONS = {
    "cohere2moe": EMBEDDINGS,
    "hy_v3": (*FEED_FORWARD, *EMBEDDINGS),
    "qwen35moe": ("ffn_gate_up_exps",),
    "qwen3next": ("ffn_gate_up_exps",),
    "step35": ("attn_gate", "attn_k_norm", "attn_q_norm", *FEED_FORWARD, *EMBEDDINGS),
}
"""Tensors of blocks that predict further tokens which llama.cpp loads although it does not use them."""


@dataclass(frozen=True, kw_only=True)
class MemoryModel:
    """Of one model; made once, then used for any number of estimates.

    Attributes:
        model: the file.
        geometry: of it.
        tensors: of the file that llama.cpp loads, by name.
        sizes: bytes that each of them takes.
        blocks: for each block, bytes of its tensors.
        experts: for each block, names of its experts' tensors.
        host: bytes that are always on the host.
        output: bytes that go with the output layer, an output matrix made of the embeddings not counted.
        tied: bytes of that matrix, which is a copy where the output is on a GPU; 0 where the file has one.
        first: bytes that go with the first block.
        every: bytes that each device with a block has.
        homes: block of each tensor that belongs to one; other tensors are not in it.
    """

    model: GgufModel
    geometry: Geometry
    tensors: Mapping[str, Tensor]
    sizes: Mapping[str, int]
    blocks: tuple[int, ...]
    experts: tuple[tuple[str, ...], ...]
    host: int
    output: int
    tied: int
    first: int
    every: int
    homes: Mapping[str, int]

    @cached_property
    def compute(self) -> ComputeModel:
        """What its scratch buffers depend on."""
        from llamamodel_operator.core.memory.compute import ComputeModel  # it is made of this module's class

        return ComputeModel.of(self)

    @cached_property
    def not_followed(self) -> frozenset[str]:
        """Tensors of blocks that scratch buffers do not follow where they are put elsewhere."""
        return frozenset(name for name in self.homes if FOLLOWED.match(name) is None)

    @cached_property
    def matching(self) -> Callable[[str], tuple[str, ...]]:
        """Names of the tensors in which a regular expression is found; those of the last expressions are kept.

        Raises:
            UnreadablePatternError: the expression cannot be followed.
        """
        return lru_cache(maxsize=KEPT_EXPRESSIONS)(partial(_matching, tuple(self.tensors)))

    def is_input(self, name: str) -> bool:
        """Whether a tensor goes with the input, which is always on the host."""
        return name.rsplit(".", 1)[0] in HOST_TENSORS

    def is_copied(self, name: str) -> bool:
        """Whether each device has a tensor of its own."""
        return name.rsplit(".", 1)[0] in EVERY_DEVICE_TENSORS

    @staticmethod
    def of(model: GgufModel) -> MemoryModel:
        """Group the tensors of a model.

        Source: LLM_TENSOR_INFOS in src/llama-arch.cpp, llama_model_loader::create_tensor in
        src/llama-model-loader.cpp (TENSOR_SKIP, TENSOR_DUPLICATED).

        Raises:
            UnsupportedModelError: the header lacks what llama.cpp needs to load it; the message names the key.
        """
        geometry = geometry_of(model)
        count = len(geometry.layers)
        blocks, experts = [0] * count, [list[str]() for _ in range(count)]
        host = output = first = every = 0
        tensors: dict[str, Tensor] = {}
        sizes: dict[str, int] = {}
        homes: dict[str, int] = {}
        for tensor in model.tensors:
            name, size = tensor.name, padded(tensor.size, ALIGNMENT)
            block, own = _block(name)
            if name.endswith(UNUSED_TENSORS) or not _is_loaded(geometry, block, own):
                continue
            tensors[name], sizes[name] = tensor, size
            if block is not None and block < count:
                blocks[block] += size
                homes[name] = block
                if own.startswith(EXPERT_TENSORS):
                    experts[block].append(name)
                continue
            stem = name.rsplit(".", 1)[0]
            if stem in HOST_TENSORS:
                host += size
            elif stem in EVERY_DEVICE_TENSORS:
                every += size
            elif _goes_with_first(stem, geometry.architecture):
                first += size
                homes[name] = 0
            else:
                output += size
        return MemoryModel(
            model=model,
            geometry=geometry,
            tensors=tensors,
            sizes=sizes,
            blocks=tuple(blocks),
            experts=tuple(tuple(block_experts) for block_experts in experts),
            host=host,
            output=output,
            tied=_tied(sizes, geometry.architecture),
            first=first,
            every=every,
            homes=homes,
        )


def _matching(names: tuple[str, ...], expression: str) -> tuple[str, ...]:
    search = matcher_of(expression)
    return tuple(name for name in names if search(name) is not None)


def _block(name: str) -> tuple[int | None, str]:
    """Number of the block that a tensor belongs to, and the rest of its name."""
    start = name.find("blk.")
    if start not in (0, 4):  # 4: enc.blk. and dec.blk.
        return None, name
    number, _, own = name[start + 4 :].partition(".")
    return (int(number), own) if number.isascii() and number.isdigit() and len(number) < 6 else (None, name)


def _is_loaded(geometry: Geometry, block: int | None, own: str) -> bool:
    if block is None or block >= len(geometry.layers) or geometry.layers[block].loaded:
        return True
    return own.startswith(LOADED_PREDICTIONS.get(geometry.architecture, "\0"))


def _goes_with_first(stem: str, architecture: str) -> bool:
    if stem == "token_embd_norm":
        return architecture not in ("lfm2", "lfm2moe")  # the name of their output norm
    return stem in FIRST_LAYER_TENSORS or stem.startswith("hrm.")


def _tied(sizes: Mapping[str, int], architecture: str) -> int:
    return 0 if "output.weight" in sizes or architecture in WITHOUT_OUTPUT else sizes.get("token_embd.weight", 0)
