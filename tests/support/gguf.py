"""Writes GGUF files for tests: sparse ones, in parts, adapters, projectors; of any version and byte order, also wrong.

The tensors' data is a hole in the file: a model of 50 GB takes a few kilobytes on disk.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

__all__ = [
    "Metadata",
    "Typed",
    "gguf_bytes",
    "layer_tensors",
    "llama_metadata",
    "tensor_size",
    "write_adapter",
    "write_gguf",
    "write_parts",
    "write_projector",
]

ALIGNMENT = 32
_CODES = {
    "uint8": (0, "B"),
    "int8": (1, "b"),
    "uint16": (2, "H"),
    "int16": (3, "h"),
    "uint32": (4, "I"),
    "int32": (5, "i"),
    "float32": (6, "f"),
    "bool": (7, "?"),
    "string": (8, ""),
    "uint64": (10, "Q"),
    "int64": (11, "q"),
    "float64": (12, "d"),
}


@dataclass(frozen=True)
class Typed:
    """A value, or a list of values, of a type that is not the usual one: `Typed("uint64", 7)`."""

    type: str
    value: object


Plain: TypeAlias = bool | int | float | str
Metadata: TypeAlias = Mapping[str, Plain | Sequence[Plain] | Typed]
"""Integers become uint32, or int32 and int64 where they do not fit; floats float32."""

Shapes: TypeAlias = Sequence[tuple[str, str, tuple[int, ...]]]
"""(name, name of the type, shape with the fastest-varying dimension first)"""


def tensor_size(type_name: str, shape: Sequence[int]) -> int:
    """Bytes of a tensor."""
    block, size = GGML_QUANT_SIZES[GGMLQuantizationType[type_name]]
    elements = 1
    for length in shape:
        elements *= length
    return elements // block * size


def gguf_bytes(
    *, metadata: Metadata, tensors: Shapes = (), version: int = 3, big_endian: bool = False
) -> tuple[bytes, int]:
    """The header, padded where there are tensors, and how many bytes of data follow it."""
    order = ">" if big_endian else "<"
    length = order + ("I" if version == 1 else "Q")

    def text(value: str) -> bytes:
        data = value.encode()
        return struct.pack(length, len(data)) + data

    def packed(type_name: str, value: object) -> bytes:
        if type_name == "string":
            return text(str(value))
        return struct.pack(order + _CODES[type_name][1], value)

    out = [b"GGUF", struct.pack(order + "I", version), struct.pack(length, len(tensors))]
    out.append(struct.pack(length, len(metadata)))
    for key, value in metadata.items():
        type_name, plain = (value.type, value.value) if isinstance(value, Typed) else (_type_name(value), value)
        out.append(text(key))
        number = _CODES[type_name][0]
        if isinstance(plain, (list, tuple)):
            out.append(struct.pack(order + "II", 9, number) + struct.pack(length, len(plain)))
            out += [packed(type_name, item) for item in plain]
        else:
            out.append(struct.pack(order + "I", number) + packed(type_name, plain))
    alignment = metadata.get("general.alignment", ALIGNMENT)
    assert isinstance(alignment, int)
    offset = 0
    for name, type_name, shape in tensors:
        out.append(text(name) + struct.pack(order + "I", len(shape)))
        out += [struct.pack(length, elements) for elements in shape]
        out.append(struct.pack(order + "IQ", GGMLQuantizationType[type_name], offset))
        offset += -(-tensor_size(type_name, shape) // alignment) * alignment
    header = b"".join(out)
    if tensors:
        header += b"\0" * (-len(header) % alignment)
    return header, offset


def write_gguf(
    path: Path,
    *,
    metadata: Metadata,
    tensors: Shapes = (),
    version: int = 3,
    big_endian: bool = False,
) -> Path:
    """Writes a file whose tensors are a hole."""
    header, data_size = gguf_bytes(metadata=metadata, tensors=tensors, version=version, big_endian=big_endian)
    with path.open("wb") as file:
        file.write(header)
        file.truncate(len(header) + data_size)
    return path


def write_parts(folder: Path, name: str, *, metadata: Metadata, tensors: Shapes, parts: int) -> list[Path]:
    """Writes `name`-00001-of-0000N.gguf and so on, as llama-gguf-split does: all other keys are in the first."""
    each = -(-len(tensors) // parts)
    files = []
    for number in range(parts):
        split: dict[str, Plain | Sequence[Plain] | Typed] = {
            "split.no": Typed("uint16", number),
            "split.count": Typed("uint16", parts),
            "split.tensors.count": Typed("int32", len(tensors)),
        }
        files.append(
            write_gguf(
                folder / f"{name}-{number + 1:05}-of-{parts:05}.gguf",
                metadata={**metadata, **split} if number == 0 else split,
                tensors=tensors[number * each : (number + 1) * each],
            )
        )
    return files


def llama_metadata(
    *,
    architecture: str = "llama",
    layers: int = 2,
    embedding: int = 64,
    heads: int = 4,
    kv_heads: int = 2,
    feed_forward: int = 128,
    context: int = 4096,
    vocabulary: int = 512,
) -> dict[str, Plain | Sequence[Plain] | Typed]:
    """Metadata of a small dense model without a tokenizer: llama.cpp's memory accounting can load it."""
    return {
        "general.architecture": architecture,
        "general.name": "Small test model",
        "general.type": "model",
        "general.file_type": 1,
        "tokenizer.ggml.model": "no_vocab",
        f"{architecture}.vocab_size": vocabulary,
        f"{architecture}.block_count": layers,
        f"{architecture}.embedding_length": embedding,
        f"{architecture}.attention.head_count": heads,
        f"{architecture}.attention.head_count_kv": kv_heads,
        f"{architecture}.feed_forward_length": feed_forward,
        f"{architecture}.context_length": context,
        f"{architecture}.attention.layer_norm_rms_epsilon": 1e-5,
    }


def layer_tensors(
    *,
    layers: int = 2,
    embedding: int = 64,
    heads: int = 4,
    kv_heads: int = 2,
    feed_forward: int = 128,
    vocabulary: int = 512,
    type_name: str = "F16",
) -> list[tuple[str, str, tuple[int, ...]]]:
    """The tensors that go with `llama_metadata` of the same figures."""
    kv_size = embedding // heads * kv_heads
    tensors: list[tuple[str, str, tuple[int, ...]]] = [
        ("token_embd.weight", type_name, (embedding, vocabulary)),
        ("output_norm.weight", "F32", (embedding,)),
        ("output.weight", type_name, (embedding, vocabulary)),
    ]
    for layer in range(layers):
        prefix = f"blk.{layer}."
        tensors += [
            (prefix + "attn_norm.weight", "F32", (embedding,)),
            (prefix + "attn_q.weight", type_name, (embedding, embedding)),
            (prefix + "attn_k.weight", type_name, (embedding, kv_size)),
            (prefix + "attn_v.weight", type_name, (embedding, kv_size)),
            (prefix + "attn_output.weight", type_name, (embedding, embedding)),
            (prefix + "ffn_norm.weight", "F32", (embedding,)),
            (prefix + "ffn_gate.weight", type_name, (embedding, feed_forward)),
            (prefix + "ffn_up.weight", type_name, (embedding, feed_forward)),
            (prefix + "ffn_down.weight", type_name, (feed_forward, embedding)),
        ]
    return tensors


def write_adapter(
    path: Path,
    *,
    architecture: str = "llama",
    rank: int = 8,
    alpha: float = 16.0,
    targets: Mapping[str, tuple[int, int]] | None = None,
) -> Path:
    """Writes a LoRA adapter; `targets` are tensors of the base model with their shapes."""
    targets = {"blk.0.attn_q.weight": (64, 64)} if targets is None else targets
    tensors: list[tuple[str, str, tuple[int, ...]]] = []
    for name, (columns, rows) in targets.items():
        tensors += [(f"{name}.lora_a", "F32", (columns, rank)), (f"{name}.lora_b", "F32", (rank, rows))]
    return write_gguf(
        path,
        metadata={
            "general.architecture": architecture,
            "general.type": "adapter",
            "adapter.type": "lora",
            "adapter.lora.alpha": float(alpha),
        },
        tensors=tensors,
    )


def write_projector(
    path: Path, *, embedding: int = 64, projector_type: str = "mlp", tensors: Shapes | None = None
) -> Path:
    """Writes a multimodal projector for images, for a model of that embedding width."""
    return write_gguf(
        path,
        metadata={
            "general.architecture": "clip",
            "general.type": "mmproj",
            "general.file_type": 1,
            "clip.has_vision_encoder": True,
            "clip.projector_type": projector_type,
            "clip.vision.projection_dim": embedding,
            "clip.vision.embedding_length": 32,
            "clip.vision.feed_forward_length": 64,
            "clip.vision.block_count": 1,
            "clip.vision.attention.head_count": 2,
            "clip.vision.attention.layer_norm_epsilon": 1e-5,
            "clip.vision.image_size": 28,
            "clip.vision.patch_size": 14,
        },
        tensors=[
            ("v.patch_embd.weight", "F16", (14, 14, 3, 32)),
            ("v.position_embd.weight", "F32", (32, 5)),
            ("mm.0.weight", "F16", (32, 64)),
            ("mm.2.weight", "F16", (64, embedding)),
        ]
        if tensors is None
        else tensors,
    )


def _type_name(value: object) -> str:
    items = list(value) if isinstance(value, (list, tuple)) else [value]
    if not items:
        return "uint32"
    if all(isinstance(item, bool) for item in items):
        return "bool"
    integers = [item for item in items if isinstance(item, int)]
    if len(integers) == len(items):
        low, high = min(integers), max(integers)
        if low >= 0 and high < 2**32:
            return "uint32"
        return "int32" if low >= -(2**31) and high < 2**31 else "int64"
    return "string" if isinstance(items[0], str) else "float32"
