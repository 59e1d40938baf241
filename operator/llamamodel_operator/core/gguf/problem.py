"""What can be wrong with a GGUF file: one exception, with a reason that programs act on."""

from __future__ import annotations

from enum import StrEnum

__all__ = ["GgufError", "GgufProblem", "shown"]

_LONGEST_SHOWN = 300
"""Characters of a file's own text that a message repeats."""


class GgufProblem(StrEnum):
    """Reasons, in CamelCase as conditions have them."""

    MODEL_FILE_NOT_FOUND = "ModelFileNotFound"
    PERMISSION_DENIED = "PermissionDenied"
    NOT_A_FILE = "NotAFile"
    OUTSIDE_FOLDER = "OutsideFolder"
    UNREADABLE = "Unreadable"
    NOT_GGUF = "NotGGUF"
    UNSUPPORTED_VERSION = "UnsupportedVersion"
    INVALID_HEADER = "InvalidHeader"
    TOO_LARGE = "TooLarge"
    MODEL_TRUNCATED = "ModelTruncated"
    PART_MISSING = "PartMissing"
    PART_MISMATCH = "PartMismatch"
    NOT_THE_FIRST_PART = "NotTheFirstPart"
    ADAPTER_INCOMPATIBLE = "AdapterIncompatible"
    PROJECTOR_INCOMPATIBLE = "ProjectorIncompatible"
    DRAFT_INCOMPATIBLE = "DraftIncompatible"


class GgufError(Exception):
    """A file that cannot be used as what it is named for.

    Attributes:
        reason: of the problem.
        file: its name.
        offset: in bytes, where there is a place in the file to point at.
        message: what was found, what was expected, what to do; names file and offset.
    """

    def __init__(self, reason: GgufProblem, *, file: str, message: str, offset: int | None = None) -> None:
        place = shown(file) if offset is None else f"{shown(file)}, byte {offset:,}"
        super().__init__(f"{place}: {message}")
        self.reason = reason
        self.file = file
        self.offset = offset
        self.message = str(self)


def shown(text: str) -> str:
    """A file's own text as a message may repeat it: one line, not long, nothing that a terminal would obey."""
    printable = "".join(char if char.isprintable() else "?" for char in text[:_LONGEST_SHOWN])
    return printable if len(text) <= _LONGEST_SHOWN else printable + "…"
