"""Waiting for what will be true soon: fast polling, generous bounds, and the last answer when it never came."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

__all__ = ["NeverHappenedError", "eventually"]

T = TypeVar("T")

PATIENCE_SEC = 30.0
"""Long enough for a busy machine; what takes seconds in practice is bounded by its own test."""


class NeverHappenedError(AssertionError):
    """What was waited for did not happen; the message says what was found last."""


def eventually(
    look: Callable[[], T], *, until: Callable[[T], object] = bool, what: str = "", within: float = PATIENCE_SEC
) -> T:
    """Looks again and again until `until(look())` holds, and returns what was found.

    Raises:
        NeverHappenedError: not `within` seconds.
    """
    deadline = time.monotonic() + within
    while True:
        found = look()
        if until(found):
            return found
        if time.monotonic() > deadline:
            raise NeverHappenedError(
                f"not within {within:.0f} s: {what or 'what was waited for'}; found last: {found!r}"
            )
        time.sleep(0.05)
