"""Models without files: metadata and tensors as tests/gold describes them, and the reference figures beside them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from math import prod
from pathlib import Path
from typing import Any

from llamamodel_operator.core.gguf.ggml_types import GGML_TYPES
from llamamodel_operator.core.gguf.model import GgufModel, Tensor, Value

__all__ = [
    "GOLD",
    "Case",
    "architecture_cases",
    "described",
    "gold_cases",
    "gold_model",
    "invented_cases",
    "made_up",
    "placement_cases",
    "settings_cases",
]

GOLD = Path(__file__).parents[1] / "gold"
TYPE_NUMBERS = {known.name: number for number, known in GGML_TYPES.items()}


@dataclass(frozen=True, eq=False, kw_only=True)
class Case:
    """What llama.cpp says that a command line takes.

    Attributes:
        model: its name in models.json or architectures.json.
        args: of llama-server, without the model.
        gpus: how many it saw.
        devices: bytes of "model", "context" and "compute" for each device by name: gpu0, gpu1, host.
    """

    model: str
    args: tuple[str, ...]
    gpus: int
    devices: Mapping[str, Mapping[str, int]]

    def __str__(self) -> str:
        return f"{self.model} {' '.join(self.args)} on {self.gpus}"


def described(description: Mapping[str, Any]) -> GgufModel:
    """The model of a description: {"metadata", "lengths", "tensors"}; see tests/gold/README.md."""
    metadata: dict[str, Value] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in description["metadata"].items()
    }
    lengths = {key: len(value) for key, value in metadata.items() if isinstance(value, tuple)}
    return GgufModel(
        parts=(),
        metadata=metadata,
        lengths={**lengths, **description.get("lengths", {})},
        tensors=tuple(_tensors(description["tensors"])),
    )


def _tensors(rows: Sequence[Sequence[Any]]) -> Iterator[Tensor]:
    for name, type_name, shape, blocks in rows:
        number = TYPE_NUMBERS[type_name]
        size = prod(shape) // GGML_TYPES[number].block * GGML_TYPES[number].block_size
        for one in [name.replace("*", str(block), 1) for block in blocks] if blocks else [name]:
            yield Tensor(name=one, type=number, shape=tuple(shape), size=size)


def made_up(architecture: str, **metadata: Any) -> GgufModel:
    """A small model of an architecture; keyword arguments are its keys, a dot written as two underscores."""
    keys = {"block_count": 4, "context_length": 4096, "embedding_length": 64, "attention__head_count": 4, **metadata}
    named = {f"{architecture}.{key.replace('__', '.')}": value for key, value in keys.items() if value is not None}
    blocks = list(range(min(int(keys["block_count"] or 0), 64)))
    squares = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_up", "ffn_gate", "ffn_down")
    rows = [
        ["token_embd.weight", "F16", [64, 1000], []],
        ["output_norm.weight", "F32", [64], []],
        *(["blk.*." + name + ".weight", "F32", [64], blocks] for name in ("attn_norm", "ffn_norm")),
        *(["blk.*." + name + ".weight", "F16", [64, 64], blocks] for name in squares),
    ]
    return described({"metadata": {"general.architecture": architecture, **named}, "tensors": rows})


def gold_cases() -> list[Case]:
    """Nine models, 220 settings."""
    return _cases(json.loads((GOLD / "memory.json").read_text()))


def architecture_cases() -> list[Case]:
    """Published models of further architectures."""
    return _cases(_described("architectures")["cases"])


def invented_cases() -> list[Case]:
    """Small invented models of more architectures."""
    return _cases(_described("invented")["cases"])


def placement_cases() -> list[Case]:
    """The nine models with settings that decide where things are."""
    return _cases(json.loads((GOLD / "placements.json").read_text()))


def settings_cases() -> list[Case]:
    """Published models of other sizes and types, each with settings that were drawn by lot."""
    return _cases(_described("settings")["cases"])


def _cases(documents: Sequence[Mapping[str, Any]]) -> list[Case]:
    return [
        Case(
            model=document["model"].partition(" ")[0],
            args=tuple(document["args"]),
            gpus=document["gpus"],
            devices={device["name"]: device for device in document["devices"]},
        )
        for document in documents
    ]


@cache
def gold_model(name: str) -> GgufModel:
    """A model of a case."""
    described_models: Mapping[str, Any] = _models()
    for file in ("architectures", "invented", "settings"):
        described_models = {**_described(file)["models"], **described_models}
    return described(described_models[name])


@cache
def _models() -> Mapping[str, Any]:
    return dict(json.loads((GOLD / "models.json").read_text()))


@cache
def _described(file: str) -> dict[str, Any]:
    return dict(json.loads((GOLD / f"{file}.json").read_text()))
