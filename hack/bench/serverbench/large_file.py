"""A large GGUF that loads and can be computed with: geometry of an 8B model, random weights, made-up words."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy
from gguf import GGUFWriter
from gguf.constants import GGMLQuantizationType, TokenType

__all__ = ["write_large_file"]

_EMBEDDING = 4096
_FEED_FORWARD = 14_336
_HEADS = 32
_KV_HEADS = 8
_VOCABULARY = 32_000
_BLOCK = 256
"""Elements of a Q4_K block."""
_BLOCK_BYTES = 144
"""Of them, 4 are the two half-precision scales that --check-tensors looks at (ggml-quants.c)."""
_SCALE = 0.0005

_Shape = tuple[int, int]


def write_large_file(file: Path, *, layers: int) -> Path:
    """Writes about 123 MB for each layer, and 150 MB besides; returns the file. The same layers give the same bytes."""
    writer = GGUFWriter(file, arch="llama")
    writer.add_name("random weights")
    writer.add_block_count(layers)
    writer.add_context_length(4096)
    writer.add_embedding_length(_EMBEDDING)
    writer.add_feed_forward_length(_FEED_FORWARD)
    writer.add_head_count(_HEADS)
    writer.add_head_count_kv(_KV_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(_EMBEDDING // _HEADS)
    _add_vocabulary(writer)
    norm = numpy.ones(_EMBEDDING, numpy.float32)
    weights = _weights(max(rows * columns for _, (rows, columns) in _matrices(1)))
    for name in _norms(layers):
        writer.add_tensor_info(name, norm.shape, norm.dtype, norm.nbytes)
    for name, (rows, columns) in _matrices(layers):
        row_bytes = columns // _BLOCK * _BLOCK_BYTES
        shape, kind = (rows, row_bytes), GGMLQuantizationType.Q4_K
        writer.add_tensor_info(name, shape, weights.dtype, rows * row_bytes, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for _ in _norms(layers):
        writer.write_tensor_data(norm)
    for _, (rows, columns) in _matrices(layers):
        writer.write_tensor_data(weights[: rows * columns // _BLOCK].reshape(rows, -1))
    writer.close()
    return file


def _add_vocabulary(writer: GGUFWriter) -> None:
    bytewise = [f"<0x{value:02X}>" for value in range(256)]
    tokens = ["<unk>", "<s>", "</s>", *bytewise]
    kinds = [TokenType.UNKNOWN, TokenType.CONTROL, TokenType.CONTROL, *[TokenType.BYTE] * 256]
    words = [f"word{number}" for number in range(_VOCABULARY - len(tokens))]
    writer.add_tokenizer_model("llama")
    writer.add_token_list([*tokens, *words])
    writer.add_token_scores([0.0] * _VOCABULARY)
    writer.add_token_types([*kinds, *[TokenType.NORMAL] * len(words)])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)


def _weights(elements: int) -> numpy.ndarray[tuple[int, int], numpy.dtype[numpy.uint8]]:
    """Q4_K blocks of random bits with small scales, enough for the largest matrix."""
    blocks = numpy.random.default_rng(1).integers(0, 256, (elements // _BLOCK, _BLOCK_BYTES), numpy.uint8)
    blocks[:, :4] = numpy.array([_SCALE, _SCALE], numpy.float16).view(numpy.uint8)
    return blocks


def _norms(layers: int) -> Iterator[str]:
    yield "output_norm.weight"
    for layer in range(layers):
        yield f"blk.{layer}.attn_norm.weight"
        yield f"blk.{layer}.ffn_norm.weight"


def _matrices(layers: int) -> Iterator[tuple[str, _Shape]]:
    """Rows and columns; a row is contiguous."""
    kv = _EMBEDDING // _HEADS * _KV_HEADS
    yield "token_embd.weight", (_VOCABULARY, _EMBEDDING)
    yield "output.weight", (_VOCABULARY, _EMBEDDING)
    for layer in range(layers):
        yield f"blk.{layer}.attn_q.weight", (_EMBEDDING, _EMBEDDING)
        yield f"blk.{layer}.attn_k.weight", (kv, _EMBEDDING)
        yield f"blk.{layer}.attn_v.weight", (kv, _EMBEDDING)
        yield f"blk.{layer}.attn_output.weight", (_EMBEDDING, _EMBEDDING)
        yield f"blk.{layer}.ffn_gate.weight", (_FEED_FORWARD, _EMBEDDING)
        yield f"blk.{layer}.ffn_up.weight", (_FEED_FORWARD, _EMBEDDING)
        yield f"blk.{layer}.ffn_down.weight", (_EMBEDDING, _FEED_FORWARD)
