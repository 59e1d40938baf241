"""Throws damaged GGUF files at the reader for some time: one clear error each, quickly, or it fails.

    PYTHONPATH=tests hack/uv run --frozen python hack/fuzz/headers.py --seconds 600 --seed 1

Damages sound files of all versions, byte orders and kinds: lengths and counts above all, for they lead readers astray.
A failure prints the seed and the number of the case, which together give the same file again, and saves it.
"""

from __future__ import annotations

import argparse
import json
import random
import struct
import sys
import time
import traceback
from pathlib import Path

from llamamodel_operator.core.gguf.adapter import check_adapter
from llamamodel_operator.core.gguf.draft import check_draft
from llamamodel_operator.core.gguf.loading import check_model
from llamamodel_operator.core.gguf.model import GgufModel
from llamamodel_operator.core.gguf.parts import read_model
from llamamodel_operator.core.gguf.problem import GgufError
from llamamodel_operator.core.gguf.projector import check_projector
from llamamodel_operator.core.gguf.summary import summary_of
from llamamodel_operator.core.gguf.window import Read
from support.gguf import Metadata, Shapes, Typed, gguf_bytes, layer_tensors, llama_metadata

_SLOWEST_SEC = 2.0
_NUMBERS = (0, 1, 2, 7, 8, 9, 12, 13, 31, 127, 255, 4095, 4097, 2**16, 2**30, 2**31, 2**32 - 1, 2**32, 2**63, 2**64 - 1)


def seeds() -> list[tuple[bytes, int]]:
    """Sound files: header, and how many bytes of data follow."""
    rich: Metadata = {
        **llama_metadata(),
        "tokenizer.ggml.tokens": [f"t{n}" for n in range(5000)],
        "tokenizer.ggml.scores": [0.0] * 5000,
        "tokenizer.chat_template": "{{ x }}",
        "a.flags": [True, False],
        "a.big": Typed("uint64", 2**64 - 1),
        "general.alignment": 64,
    }
    split: Metadata = {**llama_metadata(), "split.no": 0, "split.count": 3, "split.tensors.count": 21}
    lora: Metadata = {"general.architecture": "llama", "general.type": "adapter", "adapter.type": "lora"}
    factors: Shapes = [("blk.0.attn_q.weight.lora_a", "F32", (64, 8)), ("blk.0.attn_q.weight.lora_b", "F32", (8, 64))]
    clip: Metadata = {"general.architecture": "clip", "clip.projector_type": "mlp", "clip.has_vision_encoder": True}
    made = [
        gguf_bytes(metadata=llama_metadata(), tensors=layer_tensors(), version=version, big_endian=big_endian)
        for version in (1, 2, 3)
        for big_endian in (False, True)
    ]
    made.append(gguf_bytes(metadata=rich, tensors=layer_tensors(type_name="Q4_K", embedding=256, feed_forward=256)))
    made.append(gguf_bytes(metadata=split, tensors=layer_tensors()[:7]))
    made.append(gguf_bytes(metadata=lora, tensors=factors))
    made.append(gguf_bytes(metadata=clip, tensors=[("mm.2.weight", "F16", (64, 64))]))
    return made


def damaged(sound: bytes, dice: random.Random) -> bytes:
    """The file with a few things changed, cut out, put in or repeated."""
    data = bytearray(sound)
    for _ in range(dice.choice((1, 1, 1, 2, 3, 8))):
        at = dice.randrange(len(data) + 1) if dice.random() < 0.7 else dice.randrange(min(len(data), 64) + 1)
        kind = dice.randrange(6)
        if kind == 0:
            data[at : at + 8] = struct.pack(dice.choice("<>") + "Q", dice.choice(_NUMBERS))
        elif kind == 1:
            data[at : at + 4] = struct.pack(dice.choice("<>") + "I", dice.choice(_NUMBERS) % 2**32)
        elif kind == 2:
            data[at : at + 1] = bytes([dice.randrange(256)])
        elif kind == 3:
            del data[at : at + dice.choice((1, 4, 8, 100))]
        elif kind == 4:
            data[at:at] = dice.randbytes(dice.choice((1, 4, 8, 12)))
        else:
            data[at:at] = data[at : at + dice.choice((8, 30, 200))]
    return bytes(data)


def check(data: bytes, size: int, base: GgufModel | None) -> GgufModel | None:
    """Everything that is done with a header; an exception other than `GgufError` gets out."""

    def open_file(name: str) -> tuple[Read, int, str]:
        return (
            lambda offset, length: data[offset : offset + length].ljust(min(length, size - offset), b"\0"),
            size,
            name,
        )

    try:
        model = read_model(open_file, name="model-00001-of-00003.gguf")
    except GgufError as error:
        if not error.message.isprintable() or len(error.message) > 2000:
            raise AssertionError(f"a message that is too long, or steers terminals: {error.message!r}") from error
        return None
    document = json.dumps(model.to_document(), allow_nan=False)
    if GgufModel.from_document(json.loads(document)).digest != model.digest:
        raise AssertionError("the document gives another model")
    summary_of(model)
    for compare in (check_adapter, check_projector, check_draft):
        try:
            check_model(model, file="m")
            compare(model, base=base or model, file="x")
        except GgufError:
            continue
    return model


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    options = parser.parse_args()
    print(f"seed {options.seed}")
    sound = seeds()
    base = check(*_whole(sound[4]), None)
    end, case, found, slowest = time.monotonic() + options.seconds, 0, 0, 0.0
    while time.monotonic() < end:
        dice = random.Random(f"{options.seed} {case}")  # noqa: S311 (to have the same again)
        header, hole = dice.choice(sound)
        data = damaged(header, dice)
        size = len(data) + dice.choice((hole, hole, hole, 0, 2**30, 2**40))
        begun = time.monotonic()
        try:
            found += check(data, size, base) is not None
        except Exception:
            traceback.print_exc()
            return _failed(data, f"seed {options.seed}, case {case}")
        took = time.monotonic() - begun
        slowest = max(slowest, took)
        if took > _SLOWEST_SEC:
            return _failed(data, f"seed {options.seed}, case {case}: {took:.1f} s, of a file of {size:,} bytes")
        case += 1
    print(f"{case:,} files, {found:,} of them sound after all, the slowest took {slowest:.2f} s; nothing found")
    return 0


def _whole(sound: tuple[bytes, int]) -> tuple[bytes, int]:
    header, hole = sound
    return header, len(header) + hole


def _failed(data: bytes, what: str) -> int:
    file = Path("fuzz-gguf-failed.bin")
    file.write_bytes(data)
    print(f"FAILED: {what}; saved as {file}")
    return 1


if __name__ == "__main__":
    sys.exit(main())
