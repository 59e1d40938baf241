"""What `llamamodel inspect` prints of a GGUF file: a table for people, JSON for programs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from llamamodel_operator.cli.terminal import clean, json_text, paint, table
from llamamodel_operator.core.gguf.adapter import adapter_of
from llamamodel_operator.core.gguf.ggml_types import GGML_TYPES
from llamamodel_operator.core.gguf.loading import check_loadable
from llamamodel_operator.core.gguf.model import GgufModel
from llamamodel_operator.core.gguf.problem import GgufError
from llamamodel_operator.core.gguf.projector import projector_of
from llamamodel_operator.core.gguf.summary import ModelSummary, summary_of

__all__ = ["inspection_json", "inspection_text"]

_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB")
_MOST_SHOWN = 5


def inspection_text(model: GgufModel, *, tensors: bool) -> str:
    """A table of names and values; with `tensors` another of all tensors."""
    rows = [(name, clean(value)) for name, value in _rows(model)]
    width = max(len(name) for name, _ in rows)
    lines = [f"{paint(name.ljust(width), 'dim')}  {value}" for name, value in rows]
    if problem := _problem(model):
        lines.append(f"{paint('warning', 'warning')}  {clean(problem)}")
    if tensors:
        heads = ("TENSOR", "TYPE", "SHAPE", "BYTES")
        listed = [
            (clean(tensor.name), GGML_TYPES[tensor.type].name, _shape(tensor.shape), f"{tensor.size:,}")
            for tensor in model.tensors
        ]
        lines += ["", table(heads, listed)]
    return "\n".join(lines)


def inspection_json(model: GgufModel, *, tensors: bool) -> str:
    """One object; sizes are bytes."""
    found = summary_of(model)
    document: dict[str, Any] = {
        "kind": found.kind,
        "architecture": found.architecture,
        "name": found.name,
        "parameters": found.parameters,
        "quantization": found.quantization,
        "sizeBytes": model.size,
        "files": [
            {"name": part.name, "sizeBytes": part.size, "headerBytes": part.header_size, "sha256": part.header_digest}
            for part in model.parts
        ],
        "digest": model.digest,
        "version": model.version,
        "byteOrder": "big" if model.big_endian else "little",
        "layers": found.layers,
        "embeddingLength": found.embedding_length,
        "heads": found.heads,
        "kvHeads": found.kv_heads,
        "experts": found.experts,
        "expertsUsed": found.experts_used,
        "slidingWindow": found.sliding_window,
        "contextLength": found.context_length,
        "vocabulary": found.vocabulary,
        "chatTemplate": "present" if found.chat_templates else "absent",
        "chatTemplates": list(found.chat_templates),
        "adapter": _adapter(model, found),
        "projector": _projector(model, found),
        "tensorCount": len(model.tensors),
        "tensorTypes": {name: {"count": count, "bytes": size} for name, count, size in _types(model)},
        "warning": _problem(model),
    }
    if tensors:
        document["tensors"] = [
            {
                "name": tensor.name,
                "type": GGML_TYPES[tensor.type].name,
                "shape": list(tensor.shape),
                "sizeBytes": tensor.size,
            }
            for tensor in model.tensors
        ]
    return json_text(document)


def _rows(model: GgufModel) -> Iterator[tuple[str, str]]:
    found = summary_of(model)
    yield "Kind", found.kind
    yield "Architecture", found.architecture or "(not said)"
    if found.name:
        yield "Name", found.name
    yield "Parameters", f"{_short(found.parameters)} ({found.parameters:,})"
    yield "Quantization", found.quantization or "(not said)"
    yield "Size", f"{_size(model.size)} ({model.size:,} bytes)"
    if len(model.parts) > 1:
        yield "Parts", f"{len(model.parts)}, all there"
    for name, value in (
        ("Layers", found.layers),
        ("Embedding", found.embedding_length),
        ("Context", found.context_length),
        ("Heads", found.heads),
        ("KV heads", found.kv_heads),
        ("Sliding window", found.sliding_window),
        ("Vocabulary", found.vocabulary),
    ):
        if value is not None:
            yield name, f"{value:,}"
    if found.experts:
        used = f", {found.experts_used:,} used for each token" if found.experts_used else ""
        yield "Experts", f"{found.experts:,}{used}"
    if found.kind == "model":
        yield "Chat template", ", ".join(found.chat_templates[:_MOST_SHOWN]) or "absent"
    yield from _adapter_rows(model, found)
    yield from _projector_rows(model, found)
    types = ", ".join(f"{count:,} {name} ({_size(size)})" for name, count, size in _types(model)[:_MOST_SHOWN])
    yield "Tensors", f"{len(model.tensors):,}: {types}" if types else "none"
    yield "Format", f"GGUF version {model.version}, {'big' if model.big_endian else 'little'}-endian"
    yield "Digest", model.digest


def _adapter_rows(model: GgufModel, found: ModelSummary) -> Iterator[tuple[str, str]]:
    said = _adapter(model, found)
    if said is None:
        return
    yield "Rank", ", ".join(map(str, said["ranks"])) or "none"
    yield "Alpha", f"{said['alpha']:g}"
    more = len(said["targets"]) - _MOST_SHOWN
    yield "Targets", ", ".join(said["targets"][:_MOST_SHOWN]) + (f" and {more:,} more" if more > 0 else "")


def _projector_rows(model: GgufModel, found: ModelSummary) -> Iterator[tuple[str, str]]:
    said = _projector(model, found)
    if said is None:
        return
    yield "Projector", said["type"] or "(not said)"
    yield "Inputs", ", ".join(said["inputs"]) or "(not said)"
    if said["embeddingWidth"]:
        yield "For embeddings", f"of {said['embeddingWidth']:,}"


def _adapter(model: GgufModel, found: ModelSummary) -> dict[str, Any] | None:
    if found.kind != "adapter":
        return None
    said = adapter_of(model, file=model.parts[0].name)
    return {"ranks": list(said.ranks), "alpha": said.alpha, "targets": list(said.targets)}


def _projector(model: GgufModel, found: ModelSummary) -> dict[str, Any] | None:
    if found.kind != "mmproj":
        return None
    said = projector_of(model, file=model.parts[0].name)
    return {"type": said.type, "inputs": list(said.inputs), "embeddingWidth": said.embedding_width}


def _problem(model: GgufModel) -> str | None:
    try:
        check_loadable(model, file=model.parts[0].name)
    except GgufError as error:
        return error.message
    return None


def _types(model: GgufModel) -> list[tuple[str, int, int]]:
    """(type, how many tensors, bytes of them), those with most bytes first."""
    counts: Counter[int] = Counter(tensor.type for tensor in model.tensors)
    sizes: Counter[int] = Counter()
    for tensor in model.tensors:
        sizes[tensor.type] += tensor.size
    return [(GGML_TYPES[number].name, counts[number], size) for number, size in sizes.most_common()]


def _shape(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape)) or "one value"


def _size(size_bytes: int) -> str:
    size, unit = float(size_bytes), _UNITS[0]
    for unit in _UNITS:
        if size < 1024 or unit == _UNITS[-1]:
            break
        size /= 1024
    return f"{size:.0f} {unit}" if unit == _UNITS[0] else f"{size:.2f} {unit}"


def _short(count: int) -> str:
    for unit, name in ((10**12, "T"), (10**9, "B"), (10**6, "M"), (10**3, "k")):
        if count >= unit:
            return f"{count / unit:.2f}{name}"
    return str(count)
