"""Small LoRA adapters for the model that tests serve, Gemma 3 270M: random, and strong enough to change its output."""

from __future__ import annotations

from pathlib import Path

import numpy
from gguf import GGUFWriter

LAYERS = 18
EMBEDDING = 640
FEED_FORWARD = 2048
"""Geometry of Gemma 3 270M."""

_RANK = 4
_STRENGTH = 0.05
"""Standard deviation of the factors. At a tenth of the scale output still changes, at the whole it is still text."""


def write_adapter(file: Path, *, seed: int, layers: int = LAYERS) -> Path:
    """Writes an adapter of about 0.8 MB that acts on the feed-forward network of each layer; returns the file.

    The same seed gives the same bytes. With more layers than the model has, llama-server refuses the adapter.
    """
    random = numpy.random.default_rng(seed)
    writer = GGUFWriter(file, arch="gemma3")
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", float(_RANK))  # llama.cpp scales by alpha / rank
    for layer in range(layers):
        for suffix, shape in (("lora_a", (_RANK, FEED_FORWARD)), ("lora_b", (EMBEDDING, _RANK))):
            factor = random.normal(scale=_STRENGTH, size=shape).astype(numpy.float32)
            writer.add_tensor(f"blk.{layer}.ffn_down.weight.{suffix}", factor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file
