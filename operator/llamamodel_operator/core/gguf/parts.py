"""Models of several files: which they are, whether they belong together, and what they are together.

llama.cpp finds them by their names, and by the keys split.no and split.count that `llama-gguf-split` writes:
llama_model_loader in src/llama-model-loader.cpp, llama_split_path and llama_split_prefix in src/llama.cpp.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from llamamodel_operator.core.gguf.model import GgufModel
from llamamodel_operator.core.gguf.problem import GgufError, GgufProblem, shown
from llamamodel_operator.core.gguf.reader import Header, read_header
from llamamodel_operator.core.gguf.window import LATER_AHEAD_BYTES, MAX_HEADER_BYTES, Read

__all__ = ["Open", "read_model"]

Open = Callable[[str], tuple[Read, int, str]]
"""Name of a file beside the first → its bytes, its size, and its path or address for messages."""

_MAX_PARTS = 1000
_MAX_TENSORS = 65_536
"""Rules of ours."""
_NAME = re.compile(r"(?P<prefix>.*)-(?P<number>[0-9]{5})-of-(?P<count>[0-9]{5})\.gguf", re.DOTALL)


def read_model(open_file: Open, *, name: str) -> GgufModel:
    """The model whose first file has that name: its header and those of all its parts.

    Raises:
        GgufError: a file is not what it should be, or is missing.
    """
    read, size, place = open_file(name)
    first = read_header(read, size=size, name=name, place=place)
    headers = [first]
    left = max(0, MAX_HEADER_BYTES - first.part.header_size)
    for number, part_name in enumerate(_other_parts(first, name=name, place=place), start=2):
        try:
            read, size, part_place = open_file(part_name)
        except GgufError as error:
            if error.reason is not GgufProblem.MODEL_FILE_NOT_FOUND:
                raise
            raise GgufError(
                GgufProblem.PART_MISSING,
                file=place,
                message=f"the model has {_count(first)} parts, but {shown(part_name)}, part {number}, is not beside "
                "the first: copy it there",
            ) from None
        header = read_header(read, size=size, name=part_name, place=part_place, most=left, ahead=LATER_AHEAD_BYTES)
        left = max(0, left - header.part.header_size)
        _check_part(header, first=first, number=number, place=part_place)
        headers.append(header)
    return _merged(headers, place=place)


def _other_parts(first: Header, *, name: str, place: str) -> list[str]:
    """Names of the parts after the first; none where the model has one."""
    count = _count(first)
    if not 0 <= count <= _MAX_PARTS:
        raise GgufError(
            GgufProblem.INVALID_HEADER,
            file=place,
            message=f"split.count is {count:,}, expected {_MAX_PARTS:,} parts at most: the file is damaged",
        )
    if count <= 1:
        return []
    number = _number(first)
    named = _NAME.fullmatch(name)
    if number != 0:
        wanted = f"{named['prefix']}-00001-of-{count:05}.gguf" if named else "the first"
        raise GgufError(
            GgufProblem.NOT_THE_FIRST_PART,
            file=place,
            message=f"this is part {number + 1} of {count}, expected the first: name {shown(wanted)}",
        )
    if not named or int(named["number"]) != 1 or int(named["count"]) != count:
        raise GgufError(
            GgufProblem.PART_MISMATCH,
            file=place,
            message=f"this is part 1 of {count}, but its name does not end with -00001-of-{count:05}.gguf, by which "
            "llama.cpp finds the other parts: give all parts the names that they were made with",
        )
    return [f"{named['prefix']}-{index:05}-of-{count:05}.gguf" for index in range(2, count + 1)]


def _check_part(header: Header, *, first: Header, number: int, place: str) -> None:
    def mismatch(found: str, expected: str) -> GgufError:
        return GgufError(
            GgufProblem.PART_MISMATCH,
            file=place,
            message=f"found {found}, expected {expected}: this file does not belong to {shown(first.part.name)}, or "
            "was given a wrong name; copy all parts of the model again",
        )

    if _count(header) != _count(first):
        raise mismatch(f"a part of {_count(header)}", f"one of {_count(first)}")
    if _number(header) != number - 1:
        raise mismatch(f"part {_number(header) + 1}", f"part {number}")
    for key in ("general.architecture", "general.name", "split.tensors.count"):
        found, expected = header.metadata.get(key), first.metadata.get(key)
        # all parts but the first have the keys of the split alone
        if found is not None and found != expected:
            raise mismatch(f"{key} {shown(str(found))}", shown(str(expected)))
    if (header.version, header.big_endian) != (first.version, first.big_endian):
        raise mismatch(f"version {header.version} of GGUF, or another byte order", f"version {first.version}")


def _merged(headers: list[Header], *, place: str) -> GgufModel:
    first = headers[0]
    tensors = tuple(tensor for header in headers for tensor in header.tensors)
    if len(headers) > 1:
        wanted = first.metadata.get("split.tensors.count")
        if isinstance(wanted, int) and wanted != len(tensors):
            raise GgufError(
                GgufProblem.PART_MISMATCH,
                file=place,
                message=f"the {len(headers)} parts have {len(tensors):,} tensors, expected {wanted:,} by "
                "split.tensors.count: they are not of one model; copy all parts again",
            )
        if len(tensors) > _MAX_TENSORS:
            raise GgufError(
                GgufProblem.TOO_LARGE,
                file=place,
                message=f"the parts have {len(tensors):,} tensors, expected {_MAX_TENSORS:,} at most",
            )
        seen: set[str] = set()
        for tensor in tensors:
            if tensor.name in seen:
                raise GgufError(
                    GgufProblem.PART_MISMATCH,
                    file=place,
                    message=f"the tensor {shown(tensor.name)} is in two parts: they are not of one model; copy all "
                    "parts again",
                )
            seen.add(tensor.name)
    return GgufModel(
        parts=tuple(header.part for header in headers),
        metadata=first.metadata,
        lengths=first.lengths,
        tensors=tensors,
        version=first.version,
        big_endian=first.big_endian,
    )


def _count(header: Header) -> int:
    value = header.metadata.get("split.count", 0)
    return value if isinstance(value, int) else -1


def _number(header: Header) -> int:
    value = header.metadata.get("split.no", 0)
    return value if isinstance(value, int) else -1
