"""Packs a tree so that the same content gives the same bytes, whoever packs it and when."""

from __future__ import annotations

import gzip
import hashlib
import tarfile
from pathlib import Path

__all__ = ["pack", "sha256"]


def pack(tree: Path, *, archive: Path) -> None:
    """Writes a .tar.gz: names in order, owned by root, of the year 1970, modes 0755 and 0644."""
    with (
        archive.open("wb") as out,
        gzip.GzipFile(filename="", fileobj=out, mode="wb", mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar,
    ):
        for path in sorted(tree.rglob("*")):
            tar.add(path, arcname=path.relative_to(tree).as_posix(), recursive=False, filter=_anonymous)


def sha256(file: Path) -> str:
    """In hex."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    member.mtime = 0
    member.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
    return member
