"""A line on a terminal that says how far something is, and is gone in the end. Elsewhere nothing."""

from __future__ import annotations

import shutil
import sys
import time

from llamamodel_operator.cli.terminal import clean

__all__ = ["Progress"]

_PERIOD_SEC = 0.1


class Progress:
    """On standard error."""

    def __init__(self) -> None:
        self._on_terminal = sys.stderr.isatty()
        self._shown_at = 0.0

    def show(self, text: str) -> None:
        """In the place of what was shown before; not more often than one can read."""
        now = time.monotonic()
        if self._on_terminal and now - self._shown_at >= _PERIOD_SEC:
            self._shown_at = now
            sys.stderr.write(f"\r\x1b[K{clean(text)[: shutil.get_terminal_size().columns - 1]}")
            sys.stderr.flush()

    def clear(self) -> None:
        """Makes room for what is to stay."""
        if self._on_terminal and self._shown_at:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
