"""What the user sees while something runs: steps, elapsed times, one line of progress.

Everything here goes to standard error; standard output is for results only.
"""

import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TextIO

__all__ = ["Console"]

_PROGRESS_PERIOD_SEC = 20.0
"""How often progress is repeated where the output is no terminal and lines cannot be redrawn."""


class Console:
    """Writes steps and progress to standard error or another stream.

    Colours are used only on a terminal, and not where NO_COLOR is set.
    """

    def __init__(
        self,
        *,
        stream: TextIO | None = None,
        environ: Mapping[str, str] = os.environ,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stream = stream or sys.stderr
        self._clock = clock
        self._terminal = self._stream.isatty()
        self._colour = self._terminal and not environ.get("NO_COLOR")
        self._shown_progress = False
        self._last_progress = -_PROGRESS_PERIOD_SEC

    def info(self, text: str) -> None:
        """Write one line."""
        self._clear()
        print(text, file=self._stream, flush=True)

    def warn(self, text: str) -> None:
        """Write one line that asks for attention."""
        self.info(f"{self._paint('33', 'warning:')} {text}")

    def error(self, text: str) -> None:
        """Write why the command failed."""
        self.info(f"{self._paint('31', 'error:')} {text}")

    def progress(self, text: str) -> None:
        """Redraw the progress line; where that is impossible, write one now and then."""
        if self._terminal:
            self._stream.write(f"\r\x1b[K  {self._paint('2', text)}")
            self._stream.flush()
            self._shown_progress = True
        elif self._clock() - self._last_progress >= _PROGRESS_PERIOD_SEC:
            self._last_progress = self._clock()
            print(f"  … {text}", file=self._stream, flush=True)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Show a step while it runs, then its outcome and how long it took."""
        begun = self._clock()
        if self._terminal:
            self.progress(name)
        try:
            yield
        except BaseException:
            self.info(f"  {self._paint('31', '✗')} {name}  {self._clock() - begun:.1f}s")
            raise
        self.info(f"  {self._paint('32', '✓')} {name}  {self._clock() - begun:.1f}s")

    def _clear(self) -> None:
        if self._shown_progress:
            self._stream.write("\r\x1b[K")
            self._shown_progress = False

    def _paint(self, code: str, text: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self._colour else text
