"""Files that one server loads together: adapters, projectors and drafts that fit a model, and those that do not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llamamodel_operator.core.gguf.adapter import adapter_of, check_adapter
from llamamodel_operator.core.gguf.draft import check_draft
from llamamodel_operator.core.gguf.loading import check_model
from llamamodel_operator.core.gguf.model import GgufModel
from llamamodel_operator.core.gguf.problem import GgufError, GgufProblem
from llamamodel_operator.core.gguf.projector import check_projector, projector_of
from llamamodel_operator.shell.gguf_files import open_model
from support.gguf import (
    Metadata,
    Shapes,
    layer_tensors,
    llama_metadata,
    write_adapter,
    write_gguf,
    write_projector,
)

ADAPTER = {"general.architecture": "llama", "general.type": "adapter", "adapter.type": "lora"}


@pytest.fixture
def base(tmp_path: Path) -> GgufModel:
    return a_model(tmp_path, metadata=llama_metadata(), tensors=layer_tensors())


def a_model(tmp_path: Path, *, metadata: Metadata, tensors: Shapes = (), **options: Any) -> GgufModel:
    file = write_gguf(tmp_path / "some.gguf", metadata=metadata, tensors=tensors, **options)
    return open_model(file)


def test_an_adapter_says_what_it_changes(tmp_path: Path, base: GgufModel) -> None:
    targets = {"blk.0.attn_q.weight": (64, 64), "blk.1.ffn_down.weight": (128, 64)}
    adapter = open_model(write_adapter(tmp_path / "lora.gguf", rank=16, alpha=32, targets=targets))
    found = adapter_of(adapter, file="lora.gguf")
    assert (found.architecture, found.alpha, found.ranks) == ("llama", 32.0, (16,))
    assert found.targets == tuple(targets)
    check_adapter(adapter, base=base, file="lora.gguf")


def test_the_factors_of_the_token_embedding_are_stored_the_other_way_round(tmp_path: Path, base: GgufModel) -> None:
    tensors = [
        ("token_embd.weight.lora_a", "F32", (8, 512)),
        ("token_embd.weight.lora_b", "F32", (8, 64)),
        ("output_norm.weight", "F32", (64,)),
    ]
    check_adapter(a_model(tmp_path, metadata=ADAPTER, tensors=tensors), base=base, file="lora.gguf")


@pytest.mark.parametrize(
    ("metadata", "tensors", "words"),
    [
        (llama_metadata(), layer_tensors(), "general.type is model, expected adapter"),
        ({"general.architecture": "llama"}, [], "general.type is nothing, expected adapter"),
        ({**ADAPTER, "adapter.type": "dora"}, [], "adapter.type is dora, expected lora"),
        ({**ADAPTER, "adapter.type": 7}, [], "adapter.type is nothing, expected lora"),
        (
            {**ADAPTER, "general.architecture": "qwen3"},
            [],
            "for models of the architecture qwen3, but the model is llama",
        ),
        (
            ADAPTER,
            [("blk.7.attn_q.weight", 64, 64)],
            "changes the tensor blk.7.attn_q.weight, which the model does not",
        ),
        (ADAPTER, [("blk.0.attn_q.weight", 128, 64)], "128 x 64, but the model's tensor is 64 x 64"),
        (ADAPTER, [("blk.0.attn_k.weight", 64, 64)], "64 x 64, but the model's tensor is 64 x 32"),
        (ADAPTER, [("blk.0.attn_q.weight.lora_a", "F32", (64, 8))], "blk.0.attn_q.weight.lora_b is missing"),
        (ADAPTER, [("blk.0.attn_q.weight.lora_b", "F32", (8, 64))], "blk.0.attn_q.weight.lora_a is missing"),
        (ADAPTER, [("blk.0.attn_q.weight", "F32", (8, 64))], "it has a tensor blk.0.attn_q.weight, expected .lora_a"),
        (
            ADAPTER,
            [("blk.0.attn_q.weight.lora_a", "F32", (64, 8)), ("blk.0.attn_q.weight.lora_b", "F32", (16, 64))],
            "different ranks, 8 and 16",
        ),
    ],
)
def test_an_adapter_that_does_not_fit_is_named_with_its_tensor(
    tmp_path: Path,
    base: GgufModel,
    metadata: Metadata,
    tensors: list[tuple[str, int, int] | tuple[str, str, tuple[int, ...]]],
    words: str,
) -> None:
    rows: list[tuple[str, str, tuple[int, ...]]] = []
    for name, second, third in tensors:
        if isinstance(second, str) and isinstance(third, tuple):
            rows.append((name, second, third))
        elif isinstance(second, int) and isinstance(third, int):
            rows += [(f"{name}.lora_a", "F32", (second, 8)), (f"{name}.lora_b", "F32", (8, third))]
    adapter = a_model(tmp_path, metadata=metadata, tensors=rows)
    with pytest.raises(GgufError) as caught:
        check_adapter(adapter, base=base, file="adapters/lora.gguf")
    assert caught.value.reason is GgufProblem.ADAPTER_INCOMPATIBLE
    assert words in caught.value.message
    assert caught.value.message.startswith("adapters/lora.gguf: ")


def test_a_projector_says_what_it_is_for(tmp_path: Path, base: GgufModel) -> None:
    projector = open_model(write_projector(tmp_path / "mmproj.gguf", embedding=64))
    found = projector_of(projector, file="mmproj.gguf")
    assert (found.type, found.inputs, found.embedding_width) == ("mlp", ("vision",), 64)
    check_projector(projector, base=base, file="mmproj.gguf")


def test_a_projector_of_another_model_is_refused(tmp_path: Path, base: GgufModel) -> None:
    projector = open_model(write_projector(tmp_path / "mmproj.gguf", embedding=128))
    with pytest.raises(GgufError) as caught:
        check_projector(projector, base=base, file="mmproj.gguf")
    assert caught.value.reason is GgufProblem.PROJECTOR_INCOMPATIBLE
    assert "embeddings of 128, but those of the model are 64" in caught.value.message


@pytest.mark.parametrize(
    ("kind", "tensors", "width"),
    [
        ("gemma3", [("mm.input_projection.weight", "F16", (640, 1152))], 640),
        ("gemma4v", [("mm.input_projection.weight", "F16", (1152, 640))], 640),
        ("qwen2.5vl_merger", [("mm.2.bias", "F32", (640,))], 640),
        ("mlp", [("mm.2.weight", "F16", (64, 640)), ("mm.3.weight", "F16", (64, 64))], None),
        ("mlp", [], None),
        ("mlp", [("mm.2.weight", "F16", (64,))], None),
        ("tomorrow's", [("mm.2.weight", "F16", (64, 640))], None),
    ],
)
def test_the_width_of_a_projector_is_known_by_its_type_or_not_at_all(
    tmp_path: Path, base: GgufModel, kind: str, tensors: Shapes, width: int | None
) -> None:
    projector = open_model(write_projector(tmp_path / "mmproj.gguf", projector_type=kind, tensors=tensors))
    assert projector_of(projector, file="mmproj.gguf").embedding_width == width
    if width is None:
        check_projector(projector, base=base, file="mmproj.gguf")


def test_a_model_is_no_projector(base: GgufModel) -> None:
    with pytest.raises(GgufError, match=r"general.architecture is llama, expected clip") as caught:
        check_projector(base, base=base, file="model.gguf")
    assert caught.value.reason is GgufProblem.PROJECTOR_INCOMPATIBLE


_TOKENIZER: Metadata = {"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.add_bos_token": False}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, ""),
        ({"tokenizer.ggml.tokens": ["x"] * 628}, ""),
        ({"tokenizer.ggml.tokens": ["x"] * 629}, "it has 629 tokens, the model 500"),
        ({"tokenizer.ggml.tokens": ["x"] * 371}, "it has 371 tokens, the model 500"),
        ({"tokenizer.ggml.model": "llama"}, "its vocabulary is of type SPM, that of the model of type BPE"),
        ({"tokenizer.ggml.model": "tomorrow's"}, ""),
        ({"tokenizer.ggml.add_bos_token": True}, "its tokenizer.ggml.add_bos_token is True, that of the model False"),
        ({"general.architecture": "eagle3", "tokenizer.ggml.tokens": ["x"]}, ""),
    ],
)
def test_a_draft_has_to_have_the_models_vocabulary(tmp_path: Path, changes: Metadata, words: str) -> None:
    metadata: Metadata = {**llama_metadata(), **_TOKENIZER, "tokenizer.ggml.tokens": ["x"] * 500}
    base = a_model(tmp_path, metadata=metadata)
    draft = a_model(tmp_path, metadata={**metadata, **changes})
    if not words:
        check_draft(draft, base=base, file="draft.gguf")
        return
    with pytest.raises(GgufError) as caught:
        check_draft(draft, base=base, file="draft.gguf")
    assert caught.value.reason is GgufProblem.DRAFT_INCOMPATIBLE
    assert words in caught.value.message


@pytest.mark.parametrize(
    ("metadata", "options", "reason", "words"),
    [
        (llama_metadata(), {"version": 1}, GgufProblem.UNSUPPORTED_VERSION, "version 1"),
        (llama_metadata(), {"big_endian": True}, GgufProblem.UNSUPPORTED_VERSION, "big-endian"),
        (ADAPTER, {}, GgufProblem.INVALID_HEADER, "this is a LoRA adapter, expected a model"),
        ({"general.architecture": "clip"}, {}, GgufProblem.INVALID_HEADER, "this is a multimodal projector"),
        ({}, {}, GgufProblem.INVALID_HEADER, "general.architecture is missing"),
    ],
)
def test_what_llama_cpp_loads_as_no_model_is_told(
    tmp_path: Path, metadata: Metadata, options: dict[str, Any], reason: GgufProblem, words: str
) -> None:
    model = a_model(tmp_path, metadata=metadata, **options)
    with pytest.raises(GgufError) as caught:
        check_model(model, file="some.gguf")
    assert caught.value.reason is reason
    assert words in caught.value.message


def test_a_sound_model_is_one(base: GgufModel) -> None:
    check_model(base, file="some.gguf")
