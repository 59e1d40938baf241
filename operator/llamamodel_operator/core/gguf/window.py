"""The bytes of a header from front to back: fetched in few requests, hashed and let go when they are behind."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256

from llamamodel_operator.core.gguf.problem import GgufError, GgufProblem

__all__ = ["AHEAD_BYTES", "LATER_AHEAD_BYTES", "MAX_HEADER_BYTES", "Read", "Window"]

Read = Callable[[int, int], bytes]
"""(offset, length) → bytes of the file from there on, so many or fewer; none only where it ends."""

MAX_HEADER_BYTES = 64 * 1024 * 1024
"""A rule of ours, so that any file is done with in seconds. The largest tokenizers make headers of 20 MiB."""

_MAX_LENGTH = 2**30
"""A length that leads further beyond the end is no sign of a file that was cut short, but of a damaged one."""

AHEAD_BYTES = 896 * 1024
"""Fetched at first, and later beyond what is known to be needed."""

LATER_AHEAD_BYTES = 32 * 1024
"""Likewise of a model's second and further parts, which have no vocabulary."""

_MOST_AT_ONCE = 16 * 1024 * 1024
"""Bytes, of a header that has more of them still to come."""


class Window:
    """What of the file is at hand, and how to get more of it.

    Attributes:
        data: bytes at hand.
        start: offset of the first of them in the file.
        size: bytes of the file.
        file: its path or address, for messages.
    """

    def __init__(
        self, read: Read, *, size: int, file: str, most: int = MAX_HEADER_BYTES, ahead: int = AHEAD_BYTES
    ) -> None:
        self.data = b""
        self.start = 0
        self.size = size
        self.file = file
        self._most = most
        self._ahead = ahead
        self._read = read
        self._digest = sha256()

    def advance(self, at: int, *, need: int, expected: int = 0) -> None:
        """Lets go of the bytes before `data[at]`, and fetches so many that `need` are there from then on.

        What was `data[at]` is `data[0]` afterwards. `at` may lie beyond what is at hand. `expected` is how many bytes
        of the header are known to come after those that are needed.

        Raises:
            GgufError: the file ends before, or the header is longer than any.
        """
        while True:
            behind = min(at, len(self.data))
            self._digest.update(memoryview(self.data)[:behind])
            self.data = self.data[behind:]
            self.start += behind
            at -= behind
            if len(self.data) >= at + need:
                if at == 0:
                    return
                continue
            missing = at + need - len(self.data)
            self._check(end=self.start + at + need)
            offset = self.start + len(self.data)
            # what is only passed over need not be at hand all at once
            length = min(max(missing + expected, 0) + self._ahead, _MOST_AT_ONCE, self.size - offset)
            more = self._read(offset, length)
            if not more:
                raise GgufError(
                    GgufProblem.MODEL_TRUNCATED,
                    file=self.file,
                    offset=offset,
                    message=f"the file ended here although it has {self.size:,} bytes: was it replaced just now?",
                )
            self.data += more

    def digest(self, end: int) -> str:
        """SHA-256 of the file's bytes before the offset `end`, which is not behind."""
        self.advance(end - self.start, need=0)
        return self._digest.hexdigest()

    def _check(self, *, end: int) -> None:
        if end > self.size + _MAX_LENGTH:
            raise GgufError(
                GgufProblem.INVALID_HEADER,
                file=self.file,
                offset=self.start,
                message=f"the header has a length that leads to byte {end:,}, but the file has {self.size:,}: the file "
                "is damaged",
            )
        if end > self.size:
            raise GgufError(
                GgufProblem.MODEL_TRUNCATED,
                file=self.file,
                offset=self.size,
                message=f"the file ends here, inside its header, which needs {end:,} bytes at least: "
                "it was not copied in full, copy it again",
            )
        if end > self._most:
            raise GgufError(
                GgufProblem.TOO_LARGE,
                file=self.file,
                offset=self.start,
                message=f"the header goes on beyond {self._most:,} bytes, which none of a model does",
            )
