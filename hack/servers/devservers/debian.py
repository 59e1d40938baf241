"""Debian packages: from a mirror, from the snapshot archive, or in the version that the mirror has today."""

import hashlib
import lzma
import os
import re
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path

from devservers.errors import ServersError
from devservers.pins import DEBIAN_SNAPSHOT, Deb

__all__ = ["current_versions", "download_debs", "mirrors_from_environment", "unpack"]

Say = Callable[[str], None]

_TIMEOUT_SEC = 60.0
_BLOCK_BYTES = 1024 * 1024
_INDEX = "dists/sid/main/binary-amd64/Packages.xz"


def mirrors_from_environment() -> tuple[str, ...]:
    """`$DEBIAN_MIRROR`, by default Debian's own; then the archive of what it once had."""
    return (os.environ.get("DEBIAN_MIRROR") or "https://deb.debian.org/debian", DEBIAN_SNAPSHOT)


def download_debs(debs: Sequence[Deb], *, mirrors: Sequence[str], into: Path, say: Say) -> list[Path]:
    """The packages, each with the checksum that is asked for.

    Raises FileNotFoundError where no mirror has one of them in that version, ServersError where a checksum differs.
    """
    paths = []
    for deb in debs:
        path = into / Path(deb.path).name
        _fetch(deb.path, mirrors=mirrors, target=path)
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != deb.sha256:
            raise ServersError(f"{deb.path}: expected sha256 {deb.sha256}, found {found}")
        say(f"  {path.name}, {path.stat().st_size / 1e6:.1f} MB")
        paths.append(path)
    return paths


def current_versions(names: Sequence[str], *, mirror: str, into: Path) -> list[Deb]:
    """What the mirror's index of sid has today for these packages."""
    target = into / "Packages.xz"
    _fetch(_INDEX, mirrors=(mirror,), target=target)
    stanzas = lzma.decompress(target.read_bytes()).decode().split("\n\n")
    found = {}
    for stanza in stanzas:
        fields = dict(re.findall(r"^(Package|Filename|SHA256): (\S+)$", stanza, re.MULTILINE))
        if fields.get("Package") in names:
            found[fields["Package"]] = Deb(name=fields["Package"], path=fields["Filename"], sha256=fields["SHA256"])
    if missing := [name for name in names if name not in found]:
        raise ServersError(
            f"{mirror}/{_INDEX} has no {', '.join(missing)}; Debian has renamed it: bring hack/servers up to date"
        )
    return [found[name] for name in names]


def unpack(debs: Sequence[Path], *, into: Path) -> None:
    """The packages' files, without running any of their scripts."""
    for deb in debs:
        try:
            done = subprocess.run(["dpkg-deb", "--extract", deb, into], capture_output=True, text=True, check=False)
        except FileNotFoundError:
            raise ServersError("dpkg-deb is missing; install your distribution's package `dpkg`") from None
        if done.returncode:
            raise ServersError(f"dpkg-deb could not unpack {deb.name}: {done.stderr.strip()}")


def _fetch(path: str, *, mirrors: Sequence[str], target: Path) -> None:
    reasons = []
    for mirror in mirrors:
        url = f"{mirror}/{urllib.parse.quote(path)}"
        if not url.startswith(("https://", "http://")):
            raise ServersError(f"DEBIAN_MIRROR: expected an http or https address, found {mirror!r}")
        try:
            with urllib.request.urlopen(url, timeout=_TIMEOUT_SEC) as answer, target.open("wb") as file:  # noqa: S310
                while block := answer.read(_BLOCK_BYTES):
                    file.write(block)
        except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
            reasons.append(f"{url}: {error}")
            continue
        return
    raise FileNotFoundError("; ".join(reasons))
