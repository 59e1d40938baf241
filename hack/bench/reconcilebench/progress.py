"""What the user sees while it runs: on a terminal one line that is redrawn, elsewhere a line now and then."""

from __future__ import annotations

import sys
import time

__all__ = ["Progress"]

_PERIOD_SEC = 10.0
"""Pause between two lines of the same step where lines cannot be redrawn."""


class Progress:
    """Writes to standard error; standard output is for the result."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._terminal = sys.stderr.isatty()
        self._shown = self._started - _PERIOD_SEC

    def say(self, text: str) -> None:
        """A line that stays."""
        clear = "\r\x1b[K" if self._terminal else ""
        print(f"{clear}{self._elapsed()} {text}", file=sys.stderr, flush=True)
        self._shown = time.monotonic()

    def tick(self, text: str) -> None:
        """Where a step stands; may be called often."""
        now = time.monotonic()
        if self._terminal:
            print(f"\r\x1b[K{self._elapsed()} {text}", end="", file=sys.stderr, flush=True)
        elif now - self._shown >= _PERIOD_SEC:
            self.say(text)

    def _elapsed(self) -> str:
        return f"[{time.monotonic() - self._started:6.1f} s]"
