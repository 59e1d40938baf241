"""Reads the header of one GGUF file: what it says of itself, and its tensors; never their data.

Format: docs/gguf.md in ggml, and what llama.cpp takes of it: gguf_init_from_reader in ggml/src/gguf.cpp.
"""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct, unpack
from struct import error as StructError  # noqa: N812 (it is a class)

from llamamodel_operator.core.gguf.foreign import what_it_is
from llamamodel_operator.core.gguf.ggml_types import GGML_TYPES
from llamamodel_operator.core.gguf.model import LONGEST_ARRAY, LONGEST_TEXT, Part, Scalar, Tensor, Value
from llamamodel_operator.core.gguf.problem import GgufError, GgufProblem, shown
from llamamodel_operator.core.gguf.window import AHEAD_BYTES, MAX_HEADER_BYTES, Read, Window

__all__ = ["Header", "read_header"]

_VERSIONS = (1, 2, 3)
_MAX_KEYS = 16_384
_MAX_TENSORS = 65_536
_MAX_KEPT_BYTES = 8 * 1024 * 1024
"""Rules of ours, far above any model: 50 keys, 3,000 tensors, 100 kB of templates."""
_MAX_KEY_LENGTH = 65_535
_MAX_NAME_LENGTH = 63
"""GGML_MAX_NAME in ggml/include/ggml.h, less the byte that ends it."""
_MAX_LENGTH = 2**30
"""Of strings and arrays: GGUF_MAX_STRING_LENGTH and GGUF_MAX_ARRAY_ELEMENTS in ggml/src/gguf.cpp."""
_MAX_DIMENSIONS = 4
_MAX_ELEMENTS = 2**63 - 1

_BOOL, _STRING, _ARRAY = 7, 8, 9
_NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", _BOOL: "?", 10: "Q", 11: "q", 12: "d"}
"""Type of a value → its code in `struct`."""
_SIZES = {type_: Struct(f"<{code}").size for type_, code in _NUMBERS.items()}
_ALIGNMENT_KEY, _DEFAULT_ALIGNMENT = "general.alignment", 32


@dataclass(frozen=True, kw_only=True)
class Header:
    """What one file says.

    Attributes:
        version: of the format.
        big_endian: its byte order; llama.cpp reads only files of its machine's own.
        part: name, size, digest.
        metadata, lengths, tensors: as in `GgufModel`.
    """

    version: int
    big_endian: bool
    part: Part
    metadata: dict[str, Value]
    lengths: dict[str, int]
    tensors: tuple[Tensor, ...]


def read_header(
    read: Read,
    *,
    size: int,
    name: str,
    place: str = "",
    most: int = MAX_HEADER_BYTES,
    ahead: int = AHEAD_BYTES,
) -> Header:
    """The header of the file of `size` bytes.

    It asks `read` for few pieces, one after the other, and for at most `ahead` bytes beyond the header.

    Args:
        read: gives bytes of the file.
        size: of the file, in bytes.
        name: for `Part`.
        place: path or address, for messages; the name where there is none.
        most: bytes that the header may have.
        ahead: bytes that are fetched beyond what is known to be needed, to keep the pieces few.

    Raises:
        GgufError: it is no GGUF file, is damaged, or ends before its tensors do.
    """
    return _Reader(Window(read, size=size, file=place or name, most=most, ahead=ahead), name=name).header()


class _Reader:
    def __init__(self, window: Window, *, name: str) -> None:
        self._window = window
        self._name = name
        self._at = 0
        self._expected = 0
        """Bytes of the header that must follow the value that is being read."""
        self._kept_bytes = 0
        self._metadata: dict[str, Value] = {}
        self._lengths: dict[str, int] = {}

    def header(self) -> Header:
        self._order = "<"
        version = self._version()
        # the first version had counts and lengths of 32 bits
        self._length = Struct(self._order + ("I" if version == 1 else "Q"))
        self._uint32 = Struct(self._order + "I")
        self._uint64 = Struct(self._order + "Q")
        self._dimension = self._length
        tensor_count = self._count("tensors", most=_MAX_TENSORS)
        key_count = self._count("keys", most=_MAX_KEYS)
        least_tensor, least_key = self._length.size + 1 + 4 + 4 + 8, self._length.size + 1 + 4 + 1
        for left in range(key_count - 1, -1, -1):
            self._expected = left * least_key + tensor_count * least_tensor
            self._read_key()
        alignment = self._alignment()
        tensors = []
        seen: set[str] = set()
        place = 0
        for left in range(tensor_count - 1, -1, -1):
            self._expected = left * least_tensor
            tensor, offset = self._tensor(seen)
            if offset != place:
                raise self._invalid(
                    f"the data of tensor {shown(tensor.name)} is said to begin at {offset:,} of the data, expected "
                    f"{place:,}, after the tensor before it"
                )
            place += -(-tensor.size // alignment) * alignment
            tensors.append(tensor)
        end = self._window.start + self._at
        header_size = -(-end // alignment) * alignment if tensors else end
        self._check_inside(tensors, header_size=header_size, alignment=alignment)
        self._window.advance(self._at, need=header_size - end)
        part = Part(
            name=self._name,
            size=self._window.size,
            header_size=header_size,
            header_digest=self._window.digest(header_size),
        )
        return Header(
            version=version,
            big_endian=self._order == ">",
            part=part,
            metadata=self._metadata,
            lengths=self._lengths,
            tensors=tuple(tensors),
        )

    # --- pieces

    def _version(self) -> int:
        window = self._window
        window.advance(0, need=min(8, window.size), expected=-8)
        if window.data[:4] != b"GGUF":
            found = what_it_is(window.data)
            raise self._error(GgufProblem.NOT_GGUF, f"found {found}, expected a GGUF file", offset=0)
        number = self._take(8)[4:]
        little = int.from_bytes(number, "little")
        if little & 0xFFFF == 0 and little:
            self._order = ">"
        version = int.from_bytes(number, "big" if self._order == ">" else "little")
        if version not in _VERSIONS:
            raise self._error(
                GgufProblem.UNSUPPORTED_VERSION, f"found version {version:,} of GGUF, expected 1, 2 or 3", offset=4
            )
        return version

    def _count(self, what: str, *, most: int) -> int:
        offset = self._offset
        count = self._number(self._length)
        if count > most:
            raise self._invalid(f"found a count of {count:,} {what}, expected {most:,} at most", offset=offset)
        return count

    def _read_key(self) -> None:
        offset = self._offset
        key = self._text(what="the name of a key", most=_MAX_KEY_LENGTH)
        if not key:
            raise self._invalid("found a key without a name", offset=offset)
        if key in self._metadata or key in self._lengths:
            raise self._invalid(f"found the key {shown(key)} twice", offset=offset)
        type_ = self._number(self._uint32)
        if type_ == _ARRAY:
            self._read_array(key)
        elif type_ == _STRING:
            length = self._checked_length(key)
            if length > LONGEST_TEXT:
                self._lengths[key] = length
                self._skip(length)
            else:
                self._metadata[key] = self._keep(length, items=1).decode(errors="replace")
        elif type_ in _NUMBERS:
            self._metadata[key] = self._scalar(type_)
        else:
            raise self._invalid(f"key {shown(key)} has type {type_}, expected one from 0 to 12")

    def _read_array(self, key: str) -> None:
        offset = self._offset
        type_ = self._number(self._uint32)
        count = self._checked_length(key)
        self._lengths[key] = count
        if type_ in _NUMBERS:
            if count <= LONGEST_ARRAY:
                self._metadata[key] = self._numbers(type_, count)
            else:
                self._skip(count * _SIZES[type_])
        elif type_ == _STRING and count <= LONGEST_ARRAY:
            self._metadata[key] = self._texts(key, count)
        elif type_ == _STRING:
            self._skip_texts(count)
        elif type_ == _ARRAY:
            raise self._invalid(f"key {shown(key)} is an array of arrays, which llama.cpp refuses", offset=offset)
        else:
            raise self._invalid(f"key {shown(key)} is an array of type {type_}, expected 0 to 12", offset=offset)

    def _alignment(self) -> int:
        alignment = self._metadata.get(_ALIGNMENT_KEY, _DEFAULT_ALIGNMENT)
        if isinstance(alignment, int) and 0 < alignment < 2**32 and alignment & (alignment - 1) == 0:
            return int(alignment)
        raise self._invalid(f"{_ALIGNMENT_KEY} is {shown(str(alignment))}, expected a power of two")

    def _tensor(self, seen: set[str]) -> tuple[Tensor, int]:
        offset = self._offset
        name = self._text(what="the name of a tensor", most=_MAX_NAME_LENGTH)
        if name in seen:
            raise self._invalid(f"found the tensor {shown(name)} twice", offset=offset)
        seen.add(name)
        dimensions = self._number(self._uint32)
        if dimensions > _MAX_DIMENSIONS:
            raise self._invalid(
                f"tensor {shown(name)} has {dimensions:,} dimensions, expected {_MAX_DIMENSIONS} at most",
                offset=offset,
            )
        shape = tuple(self._number(self._dimension) for _ in range(dimensions))
        elements = 1
        for length in shape:
            if length > _MAX_ELEMENTS or elements * length > _MAX_ELEMENTS:
                raise self._invalid(f"tensor {shown(name)} has the shape {shape}: too many elements", offset=offset)
            elements *= length
        number = self._number(self._uint32)
        type_ = GGML_TYPES.get(number)
        if type_ is None:
            raise self._invalid(
                f"tensor {shown(name)} is of type {number:,}, which is not known: it was removed, or is newer than "
                "this operator",
                offset=offset,
            )
        row = shape[0] if shape else 1
        if row % type_.block:
            raise self._invalid(
                f"tensor {shown(name)} has rows of {row:,} elements, expected a multiple of {type_.block} for "
                f"{type_.name}",
                offset=offset,
            )
        size = elements // type_.block * type_.block_size
        return Tensor(name=name, type=number, shape=shape, size=size), self._number(self._uint64)

    def _check_inside(self, tensors: list[Tensor], *, header_size: int, alignment: int) -> None:
        found, place = self._window.size, header_size
        for tensor in tensors:
            if tensor.size and place + tensor.size > found:
                raise self._error(
                    GgufProblem.MODEL_TRUNCATED,
                    f"tensor {shown(tensor.name)} ends at byte {place + tensor.size:,}, but the file has "
                    f"{found:,} bytes: it was not copied in full, copy it again",
                    offset=place,
                )
            place += -(-tensor.size // alignment) * alignment

    # --- values

    def _text(self, *, what: str, most: int) -> str:
        offset = self._offset
        length = self._number(self._length)
        if length > most:
            raise self._invalid(f"{what} has {length:,} bytes, expected {most:,} at most", offset=offset)
        return self._take(length).decode(errors="replace")

    def _checked_length(self, key: str) -> int:
        offset = self._offset
        length = self._number(self._length)
        if length > _MAX_LENGTH:
            raise self._invalid(
                f"key {shown(key)} has a length of {length:,}, expected {_MAX_LENGTH:,} at most", offset=offset
            )
        return length

    def _scalar(self, type_: int) -> Scalar:
        return self._numbers(type_, 1)[0]

    def _numbers(self, type_: int, count: int) -> tuple[Scalar, ...]:
        data = self._keep(count * _SIZES[type_], items=count)
        return unpack(f"{self._order}{count}{_NUMBERS[type_]}", data)

    def _texts(self, key: str, count: int) -> tuple[str, ...]:
        return tuple(self._keep(self._checked_length(key), items=1).decode(errors="replace") for _ in range(count))

    def _skip_texts(self, count: int) -> None:
        """Passes over strings: the one place where speed counts, with 262,144 tokens and as many merges."""
        length_size, unpack_from = self._length.size, self._length.unpack_from
        total, left, begun = count, count, self._offset
        while True:
            data, at = self._window.data, self._at
            try:
                for left in range(left, 0, -1):  # noqa: B007, B020 (how many are left is needed after it)
                    at += length_size + unpack_from(data, at)[0]
                left = 0
            except (StructError, OverflowError):
                pass  # the next length is not at hand, or there is none
            self._at = at
            if not left:
                self._skip(0)
                return
            passed = self._offset - begun
            each = length_size + max(passed // max(total - left, 1) - length_size, 0) * 3 // 4
            self._need(length_size, more=left * each)

    def _keep(self, length: int, *, items: int) -> bytes:
        self._kept_bytes += length + 8 * items
        if self._kept_bytes > _MAX_KEPT_BYTES:
            raise self._error(
                GgufProblem.TOO_LARGE,
                f"the values of its keys have more than {_MAX_KEPT_BYTES:,} bytes, tokens not counted",
                offset=self._offset,
            )
        return self._take(length)

    # --- bytes

    @property
    def _offset(self) -> int:
        return self._window.start + self._at

    def _number(self, form: Struct) -> int:
        if len(self._window.data) - self._at < form.size:
            self._need(form.size)
        value: int = form.unpack_from(self._window.data, self._at)[0]
        self._at += form.size
        return value

    def _take(self, length: int) -> bytes:
        if len(self._window.data) - self._at < length:
            self._need(length)
        at = self._at
        self._at += length
        return self._window.data[at : self._at]

    def _skip(self, length: int) -> None:
        self._at += length
        if self._at > len(self._window.data):
            self._need(0)

    def _need(self, length: int, *, more: int = 0) -> None:
        self._window.advance(self._at, need=length, expected=more + self._expected)
        self._at = 0

    # --- errors

    def _invalid(self, message: str, *, offset: int | None = None) -> GgufError:
        offset = self._offset if offset is None else offset
        return self._error(
            GgufProblem.INVALID_HEADER, f"{message}: the file is damaged, or no GGUF file", offset=offset
        )

    def _error(self, reason: GgufProblem, message: str, *, offset: int) -> GgufError:
        return GgufError(reason, file=self._window.file, message=message, offset=offset)
