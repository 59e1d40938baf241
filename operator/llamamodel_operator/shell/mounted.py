"""Secrets that are mounted as directories, looked at every few seconds: what changes holds without a restart.

They are read from files, so that neither the gateway nor the operator needs a right to read a Secret by the API.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from pathlib import Path

__all__ = ["LOOK_SEC", "Mounted"]

LOOK_SEC = 5.0
"""The kubelet itself takes up to a minute or so to renew the files."""
_CURRENT = "..data"
"""The link that the kubelet turns to a new directory when all of a Secret's new content is there."""

_log = logging.getLogger(__name__)


class Mounted:
    """Tells of the content, first and whenever it changes; what cannot be read changes nothing."""

    def __init__(
        self, path: str, *, on_change: Callable[[Mapping[str, bytes]], None], look_sec: float = LOOK_SEC
    ) -> None:
        """`on_change`: is given the content of each entry by its name."""
        self._path = Path(path)
        self._on_change = on_change
        self._look_sec = look_sec
        self._content: Mapping[str, bytes] | None = None
        self._folder: Path | None = None
        self._problem = ""

    async def run(self) -> None:
        """For ever."""
        while True:
            self.look()
            await asyncio.sleep(self._look_sec)

    def look(self) -> None:
        """Once, now."""
        try:
            folder = self._current()
            if folder == self._folder != self._path:
                return  # the kubelet changes nothing in it
            content = _files(folder)
        except OSError as error:
            if str(error) != self._problem:
                self._problem = str(error)
                _log.error("%s: expected the files of a Secret, found: %s; what is known holds", self._path, error)
            return
        self._problem, self._folder = "", folder
        if content != self._content:
            self._content = content
            self._on_change(content)

    def _current(self) -> Path:
        """The folder that the files are in; resolved, so that those of before and after a change are not mixed."""
        current = self._path / _CURRENT
        return current.resolve(strict=True) if current.is_symlink() else self._path


def _files(folder: Path) -> Mapping[str, bytes]:
    return {
        file.name: file.read_bytes()
        for file in sorted(folder.iterdir())
        if not file.name.startswith("..") and file.is_file()
    }
