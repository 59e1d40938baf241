"""What a file is that is no GGUF file, by its first bytes."""

from __future__ import annotations

__all__ = ["what_it_is"]

_MAGICS = (
    (b"PK\x03\x04", "a zip archive, as PyTorch's .pt and .bin files are"),
    (b"PK\x05\x06", "an empty zip archive"),
    (b"\x1f\x8b", "a file compressed by gzip"),
    (b"\x28\xb5\x2f\xfd", "a file compressed by zstd"),
    (b"\xfd7zXZ\0", "a file compressed by xz"),
    (b"BZh", "a file compressed by bzip2"),
    (b"version https://git-lfs.github.com/spec/", "a Git LFS pointer instead of the file: run `git lfs pull`"),
    (b"lmgg", "a GGML file of before GGUF"),
    (b"fmgg", "a GGMF file of before GGUF"),
    (b"tjgg", "a GGJT file of before GGUF"),
    (b"algg", "a LoRA adapter of before GGUF"),
    (b"FUGG", "a GGUF file with its first bytes in the wrong order"),
    (b"\x89HDF", "an HDF5 file"),
    (b"\x80\x02", "a pickle of Python"),
    (b"\x80\x04", "a pickle of Python"),
    (b"\x7fELF", "a program"),
)
_TEXTS = (
    (b"<!doctype html", "an HTML page, such as a log-in page or an error"),
    (b"<html", "an HTML page, such as a log-in page or an error"),
    (b"<?xml", "an XML document, such as an error of an object store"),
    (b"{", "a JSON document"),
)


def what_it_is(start: bytes) -> str:
    """In words, with an article: "a zip archive"."""
    if not start:
        return "an empty file"
    for magic, words in _MAGICS:
        if start.startswith(magic):
            return words
    # safetensors: the length of a JSON object, 64 bits, then this object
    if start[8:9] == b"{" and 2 <= int.from_bytes(start[:8], "little") <= 100_000_000:
        return "a safetensors file"
    text = start[:512].lstrip().lower()
    for magic, words in _TEXTS:
        if text.startswith(magic):
            return words
    if not start.strip(b"\0"):
        return "nothing but zeros, as of a download that never finished"
    return f"the bytes {start[:8].hex(' ')}"
