"""`llamamodel inspect`: what it prints of models, adapters and projectors, and how it ends."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from llamamodel_operator.cli.inspect_command import inspect
from support.gguf import (
    Metadata,
    layer_tensors,
    llama_metadata,
    write_adapter,
    write_gguf,
    write_parts,
    write_projector,
)


def run(*words: str | Path) -> Result:
    return CliRunner().invoke(inspect, [str(word) for word in words], standalone_mode=False)


def rows(result: Result) -> dict[str, str]:
    lines = (line.split("  ", 1) for line in result.stdout.splitlines() if "  " in line)
    return {name: value.strip() for name, value in lines}


def test_a_model_is_shown_as_a_table(tmp_path: Path) -> None:
    metadata: Metadata = {
        **llama_metadata(),
        "llama.expert_count": 8,
        "llama.expert_used_count": 2,
        "llama.attention.head_count_kv": [0, 2],
        "tokenizer.chat_template": "{{ messages }}",
        "tokenizer.chat_template.tool_use": "{{ tools }}",
    }
    files = write_parts(tmp_path, "model", metadata=metadata, tensors=layer_tensors(), parts=2)
    result = run(files[0])
    assert result.return_value == 0
    found = rows(result)
    assert found["Architecture"] == "llama"
    assert found["Parameters"] == "139.58k (139,584)"
    assert found["Quantization"] == "F16"
    assert found["Parts"] == "2, all there"
    assert found["KV heads"] == "2"
    assert found["Experts"] == "8, 2 used for each token"
    assert found["Chat template"] == "default, tool_use"
    assert found["Tensors"] == "21: 16 F16 (272.00 KiB), 5 F32 (1.25 KiB)"


def test_json_has_the_same_with_bytes(tmp_path: Path) -> None:
    file = write_gguf(tmp_path / "model.gguf", metadata=llama_metadata(), tensors=layer_tensors())
    found = json.loads(run(file, "-o", "json", "--tensors").stdout)
    assert found["kind"] == "model"
    assert found["layers"] == 2
    assert found["contextLength"] == 4096
    assert found["sizeBytes"] == file.stat().st_size
    assert found["files"][0]["name"] == "model.gguf"
    assert found["chatTemplate"] == "absent"
    assert found["warning"] is None
    assert found["tensors"][0] == {
        "name": "token_embd.weight",
        "type": "F16",
        "shape": [64, 512],
        "sizeBytes": 65536,
    }


def test_tensors_are_listed_when_asked_for(tmp_path: Path) -> None:
    file = write_gguf(tmp_path / "model.gguf", metadata=llama_metadata(), tensors=layer_tensors())
    assert "blk.1.ffn_down.weight     F16   128 x 64  16,384" in run(file, "--tensors").stdout


def test_an_adapter_and_a_projector_show_their_own_facts(tmp_path: Path) -> None:
    adapter = rows(run(write_adapter(tmp_path / "lora.gguf", rank=16, alpha=32)))
    assert (adapter["Kind"], adapter["Rank"], adapter["Alpha"]) == ("adapter", "16", "32")
    assert adapter["Targets"] == "blk.0.attn_q.weight"
    projector = rows(run(write_projector(tmp_path / "mmproj.gguf")))
    assert (projector["Kind"], projector["Projector"], projector["Inputs"]) == ("mmproj", "mlp", "vision")
    assert projector["For embeddings"] == "of 64"


def test_what_llama_cpp_does_not_load_is_a_warning(tmp_path: Path) -> None:
    result = run(write_gguf(tmp_path / "old.gguf", metadata=llama_metadata(), version=1))
    assert result.return_value == 0
    assert "warning  old.gguf: this is version 1 of GGUF" in result.stdout


@pytest.mark.parametrize(
    ("name", "code", "words"),
    [
        ("cut.gguf", 1, "error: ModelTruncated: "),
        ("zip.gguf", 1, "error: NotGGUF: "),
        ("missing.gguf", 2, "error: ModelFileNotFound: "),
        (".", 2, "error: NotAFile: "),
        ("adapter.gguf", 1, "error: AdapterIncompatible: "),
    ],
)
def test_a_file_that_is_not_sound_gives_one_line(tmp_path: Path, name: str, code: int, words: str) -> None:
    cut = write_gguf(tmp_path / "cut.gguf", metadata=llama_metadata(), tensors=layer_tensors())
    cut.write_bytes(cut.read_bytes()[:-1])
    (tmp_path / "zip.gguf").write_bytes(b"PK\x03\x04")
    write_gguf(tmp_path / "adapter.gguf", metadata={"general.architecture": "llama", "general.type": "adapter"})
    result = run(tmp_path / name)
    assert (result.return_value, result.stdout) == (code, "")
    assert result.stderr.startswith(words)
    assert result.stderr.count("\n") == 1


def test_a_file_cannot_steer_the_terminal(tmp_path: Path) -> None:
    metadata = {**llama_metadata(), "general.name": "\x1b[2Jevil\u202e", "tokenizer.chat_template.\x1b[31m": "x"}
    file = write_gguf(tmp_path / "model.gguf", metadata=metadata, tensors=[("a\x1b[1m", "F32", ())])
    for words in ((), ("--tensors",), ("-o", "json", "--tensors")):
        result = run(file, *words)
        assert result.return_value == 0
        assert all(line.isprintable() for line in result.stdout.split("\n"))
