"""Runs the long steps: a line when one starts, a sign of life while it runs, its log when it fails."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .errors import StepFailedError

__all__ = ["SIGN_OF_LIFE_SEC", "Steps"]

SIGN_OF_LIFE_SEC = 10.0
"""Seconds between two lines of a step that takes long."""

_TAIL_LINES = 40
_LINE_LENGTH = 90
_POLL_SEC = 0.2
_GRACE_SEC = 2.0


def _print(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


@dataclass(kw_only=True)
class Steps:
    """Runs tools one after the other, with their output in log files."""

    logs: Path
    lock: int
    """Descriptor that every tool inherits."""
    say_line: Callable[[str], None] = _print
    now: Callable[[], float] = time.monotonic
    _started: float = field(init=False)

    def __post_init__(self) -> None:
        self._started = self.now()

    def say(self, text: str) -> None:
        """Prints one progress line with the seconds since the first step."""
        self.say_line(f"[{self.now() - self._started:6.1f} s] {text}")

    def run(self, title: str, argv: Sequence[str], *, env: Mapping[str, str] | None = None) -> None:
        """Runs `argv` with `env` on top of the environment; raises StepFailedError on a status other than 0."""
        self.say(title)
        log = self.logs / f"{re.sub(r'[^a-z0-9]+', '-', title.lower()).strip('-')}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(env or {})},
                pass_fds=(self.lock,),
            )
            try:
                status = self._wait(process, log=log)
            except BaseException:
                _stop(process)
                raise
        if status:
            raise StepFailedError(title=title, status=status, log=log, tail=_lines(log)[-_TAIL_LINES:])

    def _wait(self, process: subprocess.Popen[bytes], *, log: Path) -> int:
        last_sign = self.now()
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                return process.wait(timeout=_POLL_SEC)
            if self.now() - last_sign >= SIGN_OF_LIFE_SEC:
                last_sign = self.now()
                self.say(f"  … {(_lines(log) or ['still running'])[-1][:_LINE_LENGTH]}")


def _lines(log: Path) -> list[str]:
    text = log.read_text(encoding="utf-8", errors="replace")
    return [line.rstrip() for line in re.split(r"[\r\n]+", text) if line.strip()]


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Ends the tool. Contained ones (see buildah.py) ignore SIGTERM; killed, they take all their processes along."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=_GRACE_SEC)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
