"""Files that are no sound GGUF files: each with the reason that has to come out, all small, some said to be huge."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass

from llamamodel_operator.core.gguf.problem import GgufProblem
from support.gguf import gguf_bytes, layer_tensors, llama_metadata

__all__ = ["HOSTILE", "Hostile"]

GIB = 1 << 30


@dataclass(frozen=True)
class Hostile:
    """A file.

    Attributes:
        start: its first bytes.
        fill: byte that the rest consists of.
        size: bytes of all; None for those of `start`.
        words: what the message has to say.
    """

    name: str
    start: bytes
    reason: GgufProblem
    words: str = ""
    fill: int = 0
    size: int | None = None

    @property
    def length(self) -> int:
        return len(self.start) if self.size is None else self.size

    def reader(self) -> Callable[[int, int], bytes]:
        def read(offset: int, length: int) -> bytes:
            length = max(0, min(length, self.length - offset))
            begin = self.start[offset : offset + length]
            return begin + bytes([self.fill]) * (length - len(begin))

        return read


def _u32(value: int) -> bytes:
    return struct.pack("<I", value)


def _u64(value: int) -> bytes:
    return struct.pack("<Q", value)


def _text(value: bytes) -> bytes:
    return _u64(len(value)) + value


def _head(*, tensors: int = 0, keys: int = 0, version: int = 3) -> bytes:
    return b"GGUF" + _u32(version) + _u64(tensors) + _u64(keys)


def _tensor(name: bytes = b"a", *, shape: tuple[int, ...] = (32,), type_: int = 0, offset: int = 0) -> bytes:
    dimensions = b"".join(_u64(length) for length in shape)
    return _text(name) + _u32(len(shape)) + dimensions + _u32(type_) + _u64(offset)


def _key(name: bytes, type_: int, value: bytes) -> bytes:
    return _text(name) + _u32(type_) + value


_SOUND, _DATA = gguf_bytes(metadata=llama_metadata(), tensors=layer_tensors())

NOT, INVALID, CUT = GgufProblem.NOT_GGUF, GgufProblem.INVALID_HEADER, GgufProblem.MODEL_TRUNCATED
TOO_LARGE, VERSION = GgufProblem.TOO_LARGE, GgufProblem.UNSUPPORTED_VERSION

HOSTILE = (
    Hostile("an empty file", b"", NOT, "an empty file"),
    Hostile("random bytes", bytes(range(200, 255)), NOT, "the bytes c8 c9"),
    Hostile("a file of zeros", b"", NOT, "nothing but zeros", size=GIB),
    Hostile("a safetensors file", _u64(60) + b'{"__metadata__":{}}', NOT, "a safetensors file", size=100),
    Hostile("a zip archive", b"PK\x03\x04" + b"\0" * 40, NOT, "a zip archive"),
    Hostile("a Git LFS pointer", b"version https://git-lfs.github.com/spec/v1\noid sha256:ab", NOT, "git lfs pull"),
    Hostile("an HTML page", b"\n <!DOCTYPE html><html>", NOT, "an HTML page"),
    Hostile("an XML error of an object store", b"<?xml version='1.0'?><Error/>", NOT, "an XML document"),
    Hostile("a pickle", b"\x80\x02}q\0.", NOT, "a pickle"),
    Hostile("a model of before GGUF", b"lmgg" + b"\0" * 40, NOT, "before GGUF"),
    Hostile("a part of the magic", b"GGU", NOT),
    Hostile("the magic alone", b"GGUF", CUT, "copy it again"),
    Hostile("version 0", _head(version=0), VERSION, "version 0"),
    Hostile("version 4", _head(version=4), VERSION, "version 4"),
    Hostile("a version that is random", _head(version=0x71652351), VERSION),
    Hostile("no counts", _head()[:12], CUT),
    Hostile("2^64 - 1 tensors", _head(tensors=2**64 - 1), INVALID, "18,446,744,073,709,551,615 tensors"),
    Hostile("2^63 keys", _head(keys=2**63), INVALID, "keys"),
    Hostile("as many keys as are allowed, none there", _head(keys=16_384), CUT),
    Hostile("16,384 keys that are all empty", _head(keys=16_384), INVALID, "without a name", size=GIB),
    Hostile("a key of 2^60 bytes", _head(keys=1) + _u64(2**60), INVALID, "the name of a key", size=GIB),
    Hostile("a key without a name", _head(keys=1) + _key(b"", 0, b"\0"), INVALID, "without a name"),
    Hostile("a key twice", _head(keys=2) + 2 * _key(b"a.b", 0, b"\0"), INVALID, "a.b twice"),
    Hostile("a type that is not known", _head(keys=1) + _key(b"a.b", 13, b"\0"), INVALID, "type 13"),
    Hostile("a text of 2^62 bytes", _head(keys=1) + _key(b"a", 8, _u64(2**62)), INVALID, "length", size=GIB),
    Hostile("a text beyond the end", _head(keys=1) + _key(b"a", 8, _u64(5000)), CUT, "copy it again"),
    Hostile("a text of 1 GiB", _head(keys=1) + _key(b"a", 8, _u64(GIB)), TOO_LARGE, size=4 * GIB),
    Hostile("2^40 numbers", _head(keys=1) + _key(b"a", 9, _u32(4) + _u64(2**40)), INVALID, size=GIB),
    Hostile("2^30 numbers of 8 bytes", _head(keys=1) + _key(b"a", 9, _u32(10) + _u64(GIB)), TOO_LARGE, size=9 * GIB),
    Hostile("2^30 empty texts", _head(keys=1) + _key(b"a", 9, _u32(8) + _u64(GIB)), TOO_LARGE, size=9 * GIB),
    Hostile(
        "texts whose lengths lead around 2^64",
        _head(keys=1) + _key(b"a", 9, _u32(8) + _u64(100_000) + 9 * _u64(2**64 - 8)),
        INVALID,
        size=GIB,
    ),
    Hostile(
        "texts that are all said to be as long as no file is",
        _head(keys=1) + _key(b"a", 9, _u32(8) + _u64(4096)),
        INVALID,
        fill=1,
        size=9 * GIB,
    ),
    Hostile(
        "values of more than 8 MiB that would all be kept",
        _head(keys=12) + b"".join(_key(b"k%d" % n, 8, _text(b"x" * 1_000_000)) for n in range(12)),
        TOO_LARGE,
        "the values of its keys",
    ),
    Hostile(
        "an array of arrays",
        _head(keys=1) + _key(b"a.b", 9, (_u32(9) + _u64(1)) * 20 + _u32(0) + _u64(1) + b"\0"),
        INVALID,
        "array of arrays",
    ),
    Hostile(
        "a million arrays in one another",
        _head(keys=1) + _key(b"a.b", 9, (_u32(9) + _u64(1)) * 1_000_000),
        INVALID,
        "array of arrays",
    ),
    Hostile("an array of an unknown type", _head(keys=1) + _key(b"a", 9, _u32(77) + _u64(1)), INVALID, "type 77"),
    Hostile("an alignment of 0", _head(keys=1) + _key(b"general.alignment", 4, _u32(0)), INVALID, "power of two"),
    Hostile("an alignment of 33", _head(keys=1) + _key(b"general.alignment", 4, _u32(33)), INVALID, "power of two"),
    Hostile("an alignment in words", _head(keys=1) + _key(b"general.alignment", 8, _text(b"x")), INVALID, "is x"),
    Hostile("an alignment of 2^31", _head(keys=1, tensors=1) + _key(b"general.alignment", 4, _u32(2**31)), CUT),
    Hostile("65,536 tensors of no name", _head(tensors=65_536), INVALID, "twice", size=GIB),
    Hostile("a tensor's name of 64 bytes", _head(tensors=1) + _tensor(b"x" * 64), INVALID, "63 at most"),
    Hostile("a tensor of 5 dimensions", _head(tensors=1) + _tensor(shape=(1, 1, 1, 1, 1)), INVALID, "5 dimensions"),
    Hostile("a tensor of 2^32 - 1 dimensions", _head(tensors=1) + _text(b"a") + _u32(2**32 - 1), INVALID, "dimensions"),
    Hostile(
        "a tensor of 2^66 elements", _head(tensors=1) + _tensor(shape=(2**33, 2**33)), INVALID, "too many elements"
    ),
    Hostile("a tensor of no known type", _head(tensors=1) + _tensor(type_=999), INVALID, "type 999"),
    Hostile("a tensor of a removed type", _head(tensors=1) + _tensor(type_=31), INVALID, "type 31"),
    Hostile("a row that is no multiple of a block", _head(tensors=1) + _tensor(shape=(33,), type_=8), INVALID, "32"),
    Hostile("a tensor twice", _head(tensors=2) + _tensor() + _tensor(offset=128), INVALID, "twice"),
    Hostile("tensors that overlap", _head(tensors=2) + _tensor() + _tensor(b"b", offset=64), INVALID, "expected 128"),
    Hostile("tensors with a gap", _head(tensors=2) + _tensor() + _tensor(b"b", offset=256), INVALID, "expected 128"),
    Hostile("a tensor at 2^64 - 32", _head(tensors=1) + _tensor(offset=2**64 - 32), INVALID, "expected 0"),
    Hostile("a tensor beyond the end", _head(tensors=1) + _tensor(shape=(2**40,)), CUT, "tensor a ends"),
    Hostile("a sound header without its data", _SOUND, CUT, "token_embd.weight ends"),
    Hostile("a file that lacks its last byte", _SOUND, CUT, "blk.1.ffn_down.weight", size=len(_SOUND) + _DATA - 1),
)
