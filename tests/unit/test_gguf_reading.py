"""The reader of GGUF headers: what it finds in sound files, and what it says of all others."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from contextlib import suppress
from math import isnan
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamamodel_operator.core.gguf.ggml_types import FILE_TYPES, GGML_TYPES, row_size
from llamamodel_operator.core.gguf.model import LONGEST_ARRAY, LONGEST_TEXT, GgufModel
from llamamodel_operator.core.gguf.problem import GgufError, GgufProblem
from llamamodel_operator.core.gguf.reader import Header, read_header
from llamamodel_operator.core.gguf.window import AHEAD_BYTES, MAX_HEADER_BYTES
from support.gguf import Metadata, Typed, gguf_bytes, layer_tensors, llama_metadata, tensor_size

from .hostile_gguf import HOSTILE, Hostile


class Source:
    """Bytes in memory, and what was asked for of them."""

    def __init__(self, data: bytes, *, hole: int = 0) -> None:
        self.data = data
        self.size = len(data) + hole
        self.asked: list[int] = []

    def read(self, offset: int, length: int) -> bytes:
        self.asked.append(length)
        length = max(0, min(length, self.size - offset))
        return self.data[offset : offset + length].ljust(length, b"\0")


def a_header(data: bytes, *, hole: int = 0) -> Header:
    return read_header(Source(data, hole=hole).read, size=len(data) + hole, name="model.gguf")


def a_model(header: Header) -> GgufModel:
    return GgufModel(
        parts=(header.part,),
        metadata=header.metadata,
        lengths=header.lengths,
        tensors=header.tensors,
        version=header.version,
        big_endian=header.big_endian,
    )


@pytest.mark.parametrize("big_endian", [False, True], ids=["little", "big"])
@pytest.mark.parametrize("version", [1, 2, 3])
def test_reads_every_version_in_both_byte_orders(version: int, big_endian: bool) -> None:
    tensors = layer_tensors(type_name="Q8_0")
    data, hole = gguf_bytes(metadata=llama_metadata(), tensors=tensors, version=version, big_endian=big_endian)
    header = a_header(data, hole=hole)
    assert (header.version, header.big_endian) == (version, big_endian)
    assert header.metadata["llama.block_count"] == 2
    assert header.metadata["general.architecture"] == "llama"
    assert [tensor.name for tensor in header.tensors] == [name for name, _, _ in tensors]
    assert [tensor.shape for tensor in header.tensors] == [shape for _, _, shape in tensors]
    assert [tensor.size for tensor in header.tensors] == [tensor_size(type_, shape) for _, type_, shape in tensors]
    assert header.part.header_size == len(data)


@pytest.mark.parametrize("order", ["LITTLE", "BIG"])
def test_reads_what_the_gguf_package_writes(tmp_path: Path, order: str) -> None:
    import numpy
    from gguf import GGUFEndian, GGUFWriter

    file = tmp_path / "model.gguf"
    writer = GGUFWriter(file, arch="llama", endianess=GGUFEndian[order])
    writer.add_block_count(7)
    writer.add_head_count_kv([1, 2, 3])
    writer.add_rope_freq_base(0.5)
    writer.add_token_list(["a", "b", "c"])
    writer.add_chat_template("{{ messages }}")
    writer.add_tensor("token_embd.weight", numpy.zeros((3, 64), dtype=numpy.float32))
    writer.add_tensor("blk.0.attn_q.weight", numpy.zeros((5, 7, 64), dtype=numpy.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    header = a_header(file.read_bytes())
    assert header.big_endian is (order == "BIG")
    assert header.metadata["llama.block_count"] == 7
    assert header.metadata["llama.attention.head_count_kv"] == (1, 2, 3)
    assert header.metadata["llama.rope.freq_base"] == 0.5
    assert header.metadata["tokenizer.ggml.tokens"] == ("a", "b", "c")
    assert header.metadata["tokenizer.chat_template"] == "{{ messages }}"
    assert [(t.name, t.shape, t.size) for t in header.tensors] == [
        ("token_embd.weight", (64, 3), 768),
        ("blk.0.attn_q.weight", (64, 7, 5), 4480),
    ]


def test_every_type_of_value_is_read() -> None:
    values = {
        "uint8": 255,
        "int8": -128,
        "uint16": 65535,
        "int16": -32768,
        "uint32": 2**32 - 1,
        "int32": -(2**31),
        "float32": 0.5,
        "bool": True,
        "string": "grüße",
        "uint64": 2**64 - 1,
        "int64": -(2**63),
        "float64": 1e300,
    }
    metadata = {f"a.{name}": Typed(name, value) for name, value in values.items()}
    lists = {f"b.{name}": Typed(name, [value, value]) for name, value in values.items()}
    header = a_header(gguf_bytes(metadata={**metadata, **lists})[0])
    assert {key: header.metadata[key] for key in metadata} == {f"a.{name}": value for name, value in values.items()}
    assert {key: header.metadata[key] for key in lists} == {f"b.{k}": (v, v) for k, v in values.items()}
    assert set(header.lengths.values()) == {2}


def test_long_arrays_and_texts_are_only_counted() -> None:
    metadata: Metadata = {
        "a.kept": list(range(LONGEST_ARRAY)),
        "a.numbers": list(range(LONGEST_ARRAY + 1)),
        "a.texts": ["x" * (n % 300) for n in range(LONGEST_ARRAY + 1)],
        "a.text": "y" * (LONGEST_TEXT + 1),
        "a.last": 7,
    }
    header = a_header(gguf_bytes(metadata=metadata)[0])
    assert set(header.metadata) == {"a.kept", "a.last"}
    assert header.metadata["a.last"] == 7
    assert header.lengths == {
        "a.kept": LONGEST_ARRAY,
        "a.numbers": LONGEST_ARRAY + 1,
        "a.texts": LONGEST_ARRAY + 1,
        "a.text": LONGEST_TEXT + 1,
    }


def test_text_that_is_not_utf8_is_kept_as_far_as_it_goes() -> None:
    data, _ = gguf_bytes(metadata={"a.b": "xyz"})
    assert a_header(data.replace(b"xyz", b"x\xffz")).metadata["a.b"] == "x\ufffdz"


def test_an_alignment_of_its_own_is_kept_to() -> None:
    metadata = {**llama_metadata(), "general.alignment": 4096}
    data, hole = gguf_bytes(metadata=metadata, tensors=layer_tensors())
    assert a_header(data, hole=hole).part.header_size % 4096 == 0


@pytest.mark.parametrize(("tokens", "merges"), [(262_144, 0), (151_936, 151_387), (200_000, 514_906)])
def test_a_large_tokenizer_takes_few_requests_and_little_more_than_the_header(tokens: int, merges: int) -> None:
    metadata = {
        **llama_metadata(layers=80),
        "tokenizer.ggml.tokens": [f"token{n}" for n in range(tokens)],
        "tokenizer.ggml.scores": [0.0] * tokens,
        "tokenizer.ggml.token_type": Typed("int32", [1] * tokens),
        "tokenizer.ggml.merges": [f"tok en{n}" for n in range(merges)],
        "tokenizer.chat_template": "{{ messages }}" * 1000,
    }
    data, hole = gguf_bytes(metadata=metadata, tensors=layer_tensors(layers=80))
    source = Source(data, hole=hole + 10 * AHEAD_BYTES)
    header = read_header(source.read, size=source.size, name="model.gguf")
    assert header.lengths["tokenizer.ggml.tokens"] == tokens
    assert header.metadata["tokenizer.chat_template"] == "{{ messages }}" * 1000
    assert len(source.asked) <= 8
    assert sum(source.asked) <= header.part.header_size + AHEAD_BYTES


def test_bytes_that_come_one_at_a_time_give_the_same() -> None:
    data, hole = gguf_bytes(metadata=llama_metadata(), tensors=layer_tensors())
    source = Source(data, hole=hole)
    header = read_header(lambda offset, _: source.read(offset, 1), size=source.size, name="model.gguf")
    assert header == a_header(data, hole=hole)


def test_the_digest_is_of_the_header_and_of_the_size() -> None:
    data, hole = gguf_bytes(metadata=llama_metadata(), tensors=layer_tensors())
    model = a_model(a_header(data, hole=hole))
    assert model.digest == a_model(a_header(data, hole=hole)).digest
    assert model.digest != a_model(a_header(data, hole=hole + 1)).digest
    assert model.digest != a_model(a_header(data.replace(b"Small", b"Large"), hole=hole)).digest


def test_a_document_gives_back_the_model() -> None:
    metadata = {**llama_metadata(layers=110), "a.list": [1, 2], "a.flags": [True, False], "a.nan": float("nan")}
    data, hole = gguf_bytes(metadata=metadata, tensors=layer_tensors(layers=110))
    model = a_model(a_header(data, hole=hole))
    text = json.dumps(model.to_document(), separators=(",", ":"), allow_nan=False)
    again = GgufModel.from_document(json.loads(text))
    assert len(model.tensors) == 993
    assert len(text) < 60_000
    assert isnan(float(str(again.metadata["a.nan"])))
    assert again.tensors == model.tensors
    assert again.parts == model.parts
    without = {key: value for key, value in model.metadata.items() if key != "a.nan"}
    assert without.items() <= again.metadata.items()


@pytest.mark.parametrize("document", [{}, {"version": 3}, {"parts": 1}, [], None, "x"])
def test_another_document_is_refused(document: object) -> None:
    with pytest.raises(ValueError, match="no document of a GGUF model"):
        GgufModel.from_document(document)  # type: ignore[arg-type]


@pytest.mark.parametrize("hostile", HOSTILE, ids=lambda hostile: str(hostile.name))
def test_what_is_not_sound_is_named(hostile: Hostile) -> None:
    read, fetched = hostile.reader(), []

    def counted(offset: int, length: int) -> bytes:
        fetched.append(length)
        return read(offset, length)

    with pytest.raises(GgufError) as caught:
        read_header(counted, size=hostile.length, name="model.gguf")
    assert caught.value.reason is hostile.reason
    assert hostile.words in caught.value.message
    assert caught.value.message.startswith("model.gguf, byte ")
    assert sum(fetched) <= MAX_HEADER_BYTES + 16 * AHEAD_BYTES


def test_no_file_takes_much_memory() -> None:
    script = """
import resource, sys
from unit.hostile_gguf import HOSTILE
from llamamodel_operator.core.gguf.problem import GgufError
from llamamodel_operator.core.gguf.reader import read_header
pages = int(open("/proc/self/statm").read().split()[0])
limit = pages * resource.getpagesize() + 100 * 1024 * 1024
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
for hostile in HOSTILE:
    try:
        read_header(hostile.reader(), size=hostile.length, name=hostile.name)
    except GgufError:
        continue
    except MemoryError:
        sys.exit("out of memory: " + hostile.name)
    sys.exit("no error: " + hostile.name)
"""
    paths = [path for path in sys.path if path]
    tests = str(Path(__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:0] = {[*paths, tests]!r}\n{script}"],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_a_file_that_is_cut_off_anywhere_is_truncated() -> None:
    metadata = {**llama_metadata(), "a.texts": ["abc"] * 5, "a.list": [1, 2, 3]}
    data, hole = gguf_bytes(metadata=metadata, tensors=layer_tensors(layers=1))
    for length in (*range(4, len(data)), len(data) + 1, len(data) + hole - 1):
        with pytest.raises(GgufError) as caught:
            a_header(data[:length].ljust(length, b"\0"))
        assert caught.value.reason is GgufProblem.MODEL_TRUNCATED, length


def test_a_file_that_becomes_shorter_while_it_is_read_is_truncated() -> None:
    data, hole = gguf_bytes(metadata=llama_metadata(), tensors=layer_tensors())
    with pytest.raises(GgufError) as caught:
        read_header(Source(data[:500]).read, size=len(data) + hole, name="model.gguf")
    assert caught.value.reason is GgufProblem.MODEL_TRUNCATED


def test_the_types_are_those_of_the_gguf_package() -> None:
    from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType, LlamaFileType

    newer = {"Q2_0"}  # in llama.cpp, and not yet in the package
    wrong = {"Q8_1"}  # the package has the size that it had before 2024; it never is in a file
    package = {int(type_): (type_.name, *GGML_QUANT_SIZES[type_]) for type_ in GGMLQuantizationType}
    ours = {number: (type_.name, type_.block, type_.block_size) for number, type_ in GGML_TYPES.items()}
    assert {number for number in package if number not in ours} == set()
    for number, type_ in ours.items():
        assert package.get(number) == type_ or type_[0] in newer | wrong
    names = {int(type_): type_.name.removeprefix("MOSTLY_").removeprefix("ALL_") for type_ in LlamaFileType}
    del names[LlamaFileType.GUESSED]
    assert names.items() <= FILE_TYPES.items()
    assert row_size(12, 512) == 288


_TYPES = st.sampled_from(["F32", "F16", "Q8_0", "Q4_K", "BF16"])
_NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=12)
_VALUES = (
    st.booleans()
    | st.integers(0, 2**32 - 1)
    | st.floats(width=32, allow_nan=False)
    | st.text(st.characters(codec="utf-8"))
)
_LISTS = st.lists(st.booleans(), min_size=1) | st.lists(st.integers(-100, 2**32 - 1), min_size=1)
_TENSORS = st.dictionaries(
    _NAMES, st.tuples(_TYPES, st.lists(st.integers(0, 4), max_size=3).map(lambda more: (256, *more))), max_size=6
)


@given(
    metadata=st.dictionaries(_NAMES.map("x.{}".format), _VALUES | _LISTS, max_size=8),
    tensors=_TENSORS,
    version=st.sampled_from([1, 2, 3]),
    big_endian=st.booleans(),
)
def test_what_was_written_is_read(
    metadata: dict[str, object], tensors: dict[str, tuple[str, tuple[int, ...]]], version: int, big_endian: bool
) -> None:
    rows = [(name, type_, shape) for name, (type_, shape) in tensors.items()]
    data, hole = gguf_bytes(metadata=metadata, tensors=rows, version=version, big_endian=big_endian)  # type: ignore[arg-type]
    header = a_header(data, hole=hole)
    expected = {key: tuple(value) if isinstance(value, list) else value for key, value in metadata.items()}
    assert header.metadata == expected
    assert [(t.name, GGML_TYPES[t.type].name, t.shape) for t in header.tensors] == rows
    document = json.loads(json.dumps(a_model(header).to_document()))
    assert GgufModel.from_document(document).tensors == header.tensors


_SOUND, _HOLE = gguf_bytes(
    metadata={**llama_metadata(), "a.texts": ["abc", "d"], "a.list": [1, 2], "a.flag": True},
    tensors=layer_tensors(layers=1),
)


@given(
    changes=st.lists(
        st.tuples(
            st.integers(0, len(_SOUND) - 1),
            st.sampled_from([b"\0", b"\xff", b"\1", b"\x7f\xff\xff\xff", b"\xff" * 8, struct.pack("<Q", 2**32)])
            | st.binary(min_size=1, max_size=9),
        ),
        min_size=1,
        max_size=4,
    ),
    size=st.none() | st.integers(0, len(_SOUND) + _HOLE),
)
def test_a_damaged_file_gives_one_error_or_none(changes: list[tuple[int, bytes]], size: int | None) -> None:
    data = bytearray(_SOUND)
    for offset, piece in changes:
        data[offset : offset + len(piece)] = piece
    length = len(data) + _HOLE if size is None else size
    source = Source(bytes(data[:length]), hole=max(0, length - len(data)))
    try:
        header = read_header(source.read, size=source.size, name="model.gguf")
    except GgufError:
        return
    assert json.dumps(a_model(header).to_document(), allow_nan=False)


@given(data=st.binary(max_size=300), magic=st.sampled_from([b"", b"GGUF", b"GGUF\3\0\0\0", b"GGUF\0\0\0\3"]))
def test_any_bytes_give_one_error_or_none(data: bytes, magic: bytes) -> None:
    with suppress(GgufError):
        a_header(magic + data)
