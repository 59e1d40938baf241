"""Files of API keys: what llama-server reads of one, and what the operator takes for a key.

It imports nothing but the standard library: the drain sidecar has it in memory.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

__all__ = ["KEYS", "KEYS_FILE", "KEYS_VOLUME", "file_problem", "keys_in", "one_key"]

KEYS_VOLUME = "api-keys"
"""Name of the volume in the pod; events about it name it."""
KEYS = "/etc/llamamodel-keys"
"""Where it is mounted. Not below the folder of the texts, which is a volume itself and read-only."""
KEYS_FILE = f"{KEYS}/api-keys"

_KEY = re.compile("[!-~]([ -~]*[!-~])?")
"""What every part can show in a header as it is. llama-server itself takes blanks and `\\r` at an end for a part of the
key, which no client can show."""


def keys_in(content: bytes) -> tuple[str, ...]:
    """The keys of a file, those left out that nobody can show."""
    return tuple(line for _, line in _lines(content) if _KEY.fullmatch(line))


def file_problem(content: bytes) -> str:
    """Why no server shall be started with a file; empty where one may be. It repeats nothing of the file."""
    lines = list(_lines(content))
    for number, line in lines:
        if not _KEY.fullmatch(line):
            return (
                f"line {number} of the file is no key that can be shown: expected printable ASCII characters without"
                " blanks at the ends, and no carriage return"
            )
    # llama-server would be open to all
    return "" if lines else "expected a key on a line of its own, found none in the file"


def one_key(content: bytes) -> str:
    """The key that is all of a text; a line end after it is none of it. Raises ValueError, which repeats nothing."""
    text = content.decode("latin-1").removesuffix("\n").removesuffix("\r")
    if not _KEY.fullmatch(text) or text.startswith("#"):
        raise ValueError(
            "expected one key, of printable ASCII characters without blanks at the ends and without # at its beginning,"
            f" found {len(content)} bytes of something else"
        )
    return text


def _lines(content: bytes) -> Iterator[tuple[int, str]]:
    """What llama-server takes for keys, with the numbers of the lines: all but empty ones and those that begin with
    #."""
    for number, line in enumerate(content.decode("latin-1").split("\n"), 1):
        if line and not line.startswith("#"):
            yield number, line
