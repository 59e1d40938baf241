"""Files that are wrong in one way each, made of a real model where that matters."""

from __future__ import annotations

import struct
from pathlib import Path

from gguf import GGUFReader

from support.gguf import layer_tensors, llama_metadata, write_gguf, write_parts, write_projector
from support.lora import LAYERS, write_adapter

__all__ = ["write_bad_files"]


def write_bad_files(folder: Path, good: Path) -> None:
    """Writes them into the folder.

    Args:
        good: Gemma 3 270M, Q4_K_M.
    """
    data = good.read_bytes()
    tensor = next(tensor for tensor in GGUFReader(good).tensors if tensor.tensor_type.name == "Q4_K")
    offset, name = int(tensor.data_offset), tensor.name.encode()
    info = data.index(struct.pack("<Q", len(name)) + name) + 8 + len(name)
    kind = info + 4 + 8 * struct.unpack_from("<I", data, info)[0]
    architecture = data.index(b"gemma3", data.index(b"general.architecture"))

    def write(file: str, *parts: bytes) -> None:
        (folder / file).write_bytes(b"".join(parts))

    def with_bytes(file: str, at: int, new: bytes) -> None:
        write(file, data[:at], new, data[at + len(new) :])

    write("empty.gguf")
    write("cut.gguf", data[:100_000_000])
    write("cut-header.gguf", data[:2000])
    write("zip.gguf", b"PK\3\4", data[4:100_000])
    write("version.gguf", data[:4], struct.pack("<I", 9), data[8:100_000])
    write("text.gbnf", b'root ::= "a" | nothere\n')
    write("text.jinja", b"{% for m in messages %}{{ m.content }}")
    with_bytes("architecture.gguf", architecture, b"gemmaX")
    with_bytes("nan.gguf", offset, struct.pack("<H", 0x7E00))
    with_bytes("type.gguf", kind, struct.pack("<I", 250))
    with_bytes("offsets.gguf", kind, struct.pack("<I", 0))
    write("tensor.gguf", data.replace(b"blk.3.ffn_down.weight", b"blk.3.ffn_dXwn.weight", 1))
    write("locked.gguf", data[:100_000])
    (folder / "locked.gguf").chmod(0)
    write_parts(folder, "two", metadata=llama_metadata(), tensors=layer_tensors(), parts=2)
    write_parts(folder, "half", metadata=llama_metadata(), tensors=layer_tensors(), parts=2)
    (folder / "half-00002-of-00002.gguf").unlink()
    write_adapter(folder / "adapter.gguf", seed=1, layers=LAYERS + 1)
    adapter = bytearray((folder / "adapter.gguf").read_bytes())
    adapter[24:32] = b"\xff" * 8
    write("adapter-bits.gguf", bytes(adapter))
    write_projector(folder / "projector.gguf", embedding=1024)
    write_gguf(folder / "small.gguf", metadata=llama_metadata(), tensors=layer_tensors())
