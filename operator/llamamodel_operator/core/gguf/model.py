"""What the headers of a GGUF model say, merged over its parts; small enough to be kept as one JSON document."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from math import isfinite, nan
from typing import Any, TypeAlias

__all__ = ["LONGEST_ARRAY", "LONGEST_TEXT", "GgufModel", "Part", "Scalar", "Tensor", "Value"]

Scalar: TypeAlias = bool | int | float | str
Value: TypeAlias = Scalar | tuple[Scalar, ...]
"""Of a metadata key. Arrays longer than `LONGEST_ARRAY` and texts longer than `LONGEST_TEXT` are only counted."""

LONGEST_ARRAY = 4096
"""Items: lists with one per layer are kept, those with one per token are not."""

LONGEST_TEXT = 1024 * 1024
"""Bytes: chat templates are kept, a whole tokenizer in JSON is not."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Tensor:
    """One tensor.

    Attributes:
        name: such as blk.0.attn_q.weight.
        type: number of its ggml type, as in `gguf.GGMLQuantizationType`.
        shape: elements along each dimension, the fastest-varying first, as in the file.
        size: bytes of its data, without padding.
    """

    name: str
    type: int
    shape: tuple[int, ...]
    size: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """One file of the model.

    Attributes:
        name: of the file, relative to the folder of the first part.
        size: bytes of the file.
        header_size: bytes up to the first tensor's data.
        header_digest: hexadecimal SHA-256 of these bytes.
    """

    name: str
    size: int
    header_size: int
    header_digest: str


@dataclass(frozen=True, kw_only=True)
class GgufModel:
    """A model, an adapter or a projector.

    Attributes:
        parts: its files, in order; one where it is not split.
        metadata: of the first part.
        lengths: number of items of each array in the metadata, long ones included; bytes of each text left out.
        tensors: of all parts, in their order.
        version: of the GGUF format; llama.cpp loads 2 and 3.
        big_endian: byte order of the files; llama.cpp loads those of its own machine's.
    """

    parts: tuple[Part, ...]
    metadata: Mapping[str, Value]
    lengths: Mapping[str, int]
    tensors: tuple[Tensor, ...]
    version: int = 3
    big_endian: bool = False

    @property
    def architecture(self) -> str:
        """As in `general.architecture`; empty without one."""
        return self.text("general.architecture")

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(part.size for part in self.parts)

    @property
    def digest(self) -> str:
        """Hexadecimal SHA-256 over sizes and headers of the parts; not over their names, nor the tensors' data."""
        lines = (f"{part.size} {part.header_size} {part.header_digest}\n" for part in self.parts)
        return sha256("".join(lines).encode()).hexdigest()

    def text(self, key: str) -> str:
        """The text of a key; empty where there is none."""
        value = self.metadata.get(key)
        return value if isinstance(value, str) else ""

    def to_document(self) -> dict[str, Any]:
        """As JSON has it: lists for tuples, tensors as rows of name, type, shape and size, null for what is no number.

        About 60 bytes for each tensor.
        """
        return {
            "version": self.version,
            "bigEndian": self.big_endian,
            "parts": [[part.name, part.size, part.header_size, part.header_digest] for part in self.parts],
            "metadata": {key: _to_json(value) for key, value in self.metadata.items()},
            "lengths": dict(self.lengths),
            "tensors": [[tensor.name, tensor.type, list(tensor.shape), tensor.size] for tensor in self.tensors],
        }

    @staticmethod
    def from_document(document: Mapping[str, Any]) -> GgufModel:
        """What `to_document` made.

        Raises:
            ValueError: it is something else, such as a document of another version of the operator.
        """
        try:
            return GgufModel(
                version=int(document["version"]),
                big_endian=bool(document["bigEndian"]),
                parts=tuple(
                    Part(name=name, size=size, header_size=header_size, header_digest=digest)
                    for name, size, header_size, digest in document["parts"]
                ),
                metadata={key: _from_json(value) for key, value in document["metadata"].items()},
                lengths=dict(document["lengths"]),
                tensors=tuple(
                    Tensor(name=name, type=type_, shape=tuple(shape), size=size)
                    for name, type_, shape, size in document["tensors"]
                ),
            )
        except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
            raise ValueError(f"this is no document of a GGUF model: {type(error).__name__}: {error}") from error


def _to_json(value: Value) -> Any:
    if isinstance(value, tuple):
        return [_to_json(item) for item in value]
    return None if isinstance(value, float) and not isfinite(value) else value


def _from_json(value: Any) -> Value:
    if isinstance(value, list):
        return tuple(nan if item is None else item for item in value)
    return nan if value is None else value
