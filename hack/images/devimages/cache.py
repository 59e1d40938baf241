"""The folder outside the checkout where archives, logs and buildah's storage live.

images/*.tar      finished archives, one per content hash
images/logs/      what the tools printed
images/storage-*/ buildah's own storage: nothing of the machine's other containers is touched
images/work/      half-made things; emptied at the start of every build
images/lock       held by the one build that runs
"""

import contextlib
import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from .errors import ImagesError

__all__ = ["KEPT_ARCHIVES", "Cache", "cache_from_environment"]

KEPT_ARCHIVES = 4
"""Archives kept per repository, the most recently used ones: going back to another branch builds nothing."""


@dataclass(frozen=True, kw_only=True)
class Cache:
    """Paths and housekeeping of the cache folder."""

    root: Path

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def work(self) -> Path:
        return self.root / "work"

    def storage(self, *, driver: str) -> Path:
        return self.root / f"storage-{driver}"

    def archive(self, *, image: str) -> Path:
        """`localhost/llama-server:dev-0123` is kept in `llama-server-dev-0123.tar`."""
        return self.root / f"{image.rpartition('/')[2].replace(':', '-')}.tar"

    def prune_archives(self, *, keep: Path) -> list[Path]:
        """Deletes the archives of `keep`'s repository beyond the newest few; returns what went."""
        repository = keep.name.rpartition("-dev-")[0]
        others = [path for path in self.root.glob(f"{repository}-dev-*.tar") if path != keep]
        others.sort(key=lambda path: path.stat().st_mtime, reverse=True)
        old = others[KEPT_ARCHIVES - 1 :]
        for path in old:
            path.unlink(missing_ok=True)
        return old

    def empty_work(self) -> Path:
        """Removes what an interrupted build left, and returns the empty folder."""
        self._remove(self.work)
        self.work.mkdir(parents=True)
        return self.work

    def remove(self) -> None:
        """Deletes everything but the lock file."""
        for path in self.root.iterdir():
            if path.is_dir():
                self._remove(path)
            elif path.name != "lock":
                path.unlink()

    @contextlib.contextmanager
    def locked(self, *, waiting: Callable[[], None]) -> Iterator[int]:
        """Holds the lock and yields its descriptor; calls `waiting` once if somebody else has it.

        The descriptor is handed on to the tools, so that the lock outlives a killed build for as long as
        its tools do.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        self.logs.mkdir(exist_ok=True)
        descriptor = os.open(self.root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                waiting()
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield descriptor
        finally:
            os.close(descriptor)

    def _remove(self, path: Path) -> None:
        mounted = _mounts_below(path)
        if mounted:
            raise ImagesError(
                f"{path} cannot be deleted: these are still mounted below it: {', '.join(mounted)}. "
                f"Unmount them (umount {' '.join(mounted)}) and run this again."
            )
        if path.exists():
            shutil.rmtree(path)


def cache_from_environment() -> Cache:
    """`$XDG_CACHE_HOME/llamamodel-operator/images`, by default below `~/.cache`."""
    home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Cache(root=Path(home) / "llamamodel-operator" / "images")


def _mounts_below(path: Path) -> list[str]:
    table = Path("/proc/self/mounts")
    if not table.exists():
        return []
    prefix = f"{path}/"
    points = (line.split()[1].replace("\\040", " ") for line in table.read_text().splitlines())
    return sorted((point for point in points if point.startswith(prefix)), reverse=True)
