"""Secrets that are mounted as directories, looked at every few seconds: what changes holds without a restart.

They are read from files, so that the gateway needs no right to read a Secret by the API.
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
        self._problem = ""

    async def run(self) -> None:
        """For ever."""
        while True:
            self.look()
            await asyncio.sleep(self._look_sec)

    def look(self) -> None:
        """Once, now."""
        try:
            content = self._read()
        except OSError as error:
            if str(error) != self._problem:
                self._problem = str(error)
                _log.error("%s: expected the files of a Secret, found: %s; what is known holds", self._path, error)
            return
        self._problem = ""
        if content != self._content:
            self._content = content
            self._on_change(content)

    def _read(self) -> Mapping[str, bytes]:
        current = self._path / _CURRENT
        # Resolved once: files of before and after a change must not be mixed.
        folder = current.resolve(strict=True) if current.is_symlink() else self._path
        return {
            file.name: file.read_bytes()
            for file in sorted(folder.iterdir())
            if not file.name.startswith("..") and file.is_file()
        }
