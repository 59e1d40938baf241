"""What people want to know of a GGUF model, in its own words: for the command line and for status."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from math import prod

from llamamodel_operator.core.gguf.ggml_types import FILE_TYPES, GGML_TYPES
from llamamodel_operator.core.gguf.model import GgufModel, Value

__all__ = ["ModelSummary", "summary_of"]

_GUESSED = 1024
"""LLAMA_FTYPE_GUESSED in include/llama.h, added where the file does not say."""

_CHAT_TEMPLATE = "tokenizer.chat_template"


@dataclass(frozen=True, kw_only=True)
class ModelSummary:
    """What a model is; None and empty where it does not say.

    Attributes:
        kind: model, adapter, mmproj, …
        parameters: elements of all tensors.
        quantization: such as Q4_K_M; by the most common type of tensor where the file does not say.
        heads, kv_heads: of the layer that has most.
        context_length: that it was trained with.
        vocabulary: how many tokens.
        chat_templates: names; "default" of the one that has none.
    """

    architecture: str
    name: str
    kind: str
    parameters: int
    quantization: str
    layers: int | None
    embedding_length: int | None
    heads: int | None
    kv_heads: int | None
    experts: int | None
    experts_used: int | None
    sliding_window: int | None
    context_length: int | None
    vocabulary: int | None
    chat_templates: tuple[str, ...]


def summary_of(model: GgufModel) -> ModelSummary:
    """The summary of a model, an adapter or a projector."""

    def whole(key: str) -> int | None:
        return _largest(model.metadata.get(f"{model.architecture}.{key}"))

    tokens = model.lengths.get("tokenizer.ggml.tokens")
    return ModelSummary(
        architecture=model.architecture,
        name=model.text("general.name") or model.text("general.basename"),
        kind=model.text("general.type") or ("mmproj" if model.architecture == "clip" else "model"),
        parameters=sum(prod(tensor.shape) for tensor in model.tensors),
        quantization=_quantization(model),
        layers=whole("block_count"),
        embedding_length=whole("embedding_length"),
        heads=whole("attention.head_count"),
        kv_heads=whole("attention.head_count_kv"),
        experts=whole("expert_count"),
        experts_used=whole("expert_used_count"),
        sliding_window=whole("attention.sliding_window"),
        context_length=whole("context_length"),
        vocabulary=whole("vocab_size") if tokens is None else tokens,
        chat_templates=_chat_templates(model),
    )


def _quantization(model: GgufModel) -> str:
    number = model.metadata.get("general.file_type")
    if isinstance(number, int) and (name := FILE_TYPES.get(number & ~_GUESSED)):
        return name
    sizes: Counter[int] = Counter()
    for tensor in model.tensors:
        sizes[tensor.type] += tensor.size
    return GGML_TYPES[sizes.most_common(1)[0][0]].name if sizes else ""


def _chat_templates(model: GgufModel) -> tuple[str, ...]:
    names = []
    for key in (*model.metadata, *model.lengths):
        if key == _CHAT_TEMPLATE:
            names.append("default")
        elif key.startswith(_CHAT_TEMPLATE + "."):
            names.append(key.removeprefix(_CHAT_TEMPLATE + "."))
    return tuple(dict.fromkeys(names))


def _largest(value: Value | None) -> int | None:
    if isinstance(value, tuple):
        return max((item for item in value if isinstance(item, int)), default=None)
    return value if isinstance(value, int) else None
