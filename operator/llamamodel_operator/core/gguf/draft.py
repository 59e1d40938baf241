"""Draft models: whether llama-server takes one for speculative decoding with a model.

As common_speculative_are_compatible in common/speculative.cpp of llama.cpp decides it when the server starts.
"""

from __future__ import annotations

from types import MappingProxyType

from llamamodel_operator.core.gguf.model import GgufModel
from llamamodel_operator.core.gguf.problem import GgufError, GgufProblem, shown

__all__ = ["check_draft"]

_MOST_TOKENS_APART = 128
"""SPEC_VOCAB_MAX_SIZE_DIFFERENCE in common/speculative.cpp."""

_OWN_VOCABULARY = frozenset({"eagle3", "dflash", "gemma4-assistant"})
"""Architectures of drafts that work on the model's own states, with rules of their own."""

_VOCABULARIES = MappingProxyType(
    {"llama": "SPM", "bert": "WPM", "gpt2": "BPE", "t5": "UGM", "rwkv": "RWKV", "plamo2": "PLaMo-2"}
)
"""tokenizer.ggml.model → type of vocabulary: llama_vocab::impl::load in src/llama-vocab.cpp."""


def check_draft(draft: GgufModel, *, base: GgufModel, file: str) -> None:
    """Whether the vocabularies are alike. The texts of the tokens, which have to be the same as well, are not compared.

    Args:
        draft: the smaller model.
        base: the model that it is to help.
        file: path of the draft, for messages.

    Raises:
        GgufError: they are not.
    """
    if draft.architecture in _OWN_VOCABULARY:
        return
    kinds = [_VOCABULARIES.get(model.text("tokenizer.ggml.model")) for model in (draft, base)]
    if None not in kinds and kinds[0] != kinds[1]:
        raise _error(file, f"its vocabulary is of type {kinds[0]}, that of the model of type {kinds[1]}")
    for key in ("tokenizer.ggml.add_bos_token", "tokenizer.ggml.add_eos_token"):
        values = [model.metadata.get(key) for model in (draft, base)]
        if all(isinstance(value, bool) for value in values) and values[0] != values[1]:
            raise _error(file, f"its {key} is {shown(str(values[0]))}, that of the model {shown(str(values[1]))}")
    sizes = [_vocabulary_size(model) for model in (draft, base)]
    if None not in sizes and abs((sizes[0] or 0) - (sizes[1] or 0)) > _MOST_TOKENS_APART:
        raise _error(
            file,
            f"it has {sizes[0]:,} tokens, the model {sizes[1]:,}; llama.cpp allows {_MOST_TOKENS_APART} more or less",
        )


def _vocabulary_size(model: GgufModel) -> int | None:
    if (count := model.lengths.get("tokenizer.ggml.tokens")) is not None:
        return count
    value = model.metadata.get(f"{model.architecture}.vocab_size")
    return value if isinstance(value, int) else None


def _error(file: str, message: str) -> GgufError:
    return GgufError(
        GgufProblem.DRAFT_INCOMPATIBLE,
        file=file,
        message=f"{message}: take a smaller model of the same family as draft",
    )
