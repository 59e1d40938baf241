"""File locks, so that two commands do not change the same thing at once."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from .console import Console
from .errors import ClusterError

__all__ = ["locked"]


@contextmanager
def locked(path: Path, *, console: Console, doing: str) -> Iterator[None]:
    """Hold the lock of a file, which its holder may remove.

    Says what it waits for where another process holds it.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            console.info(f"  another process is {doing}; waiting for it (lock {path})")
            fcntl.flock(file, fcntl.LOCK_EX)
        while not _is_at(file, path):  # removed by the one that held it: others lock a new file
            file.close()
            file = path.open("a")
            fcntl.flock(file, fcntl.LOCK_EX)
    except OSError as error:
        raise ClusterError(
            f"cannot write {path.parent}: {error.strerror}; set XDG_STATE_HOME and XDG_CACHE_HOME "
            "to directories of yours"
        ) from error
    with file:
        yield


def _is_at(file: TextIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
