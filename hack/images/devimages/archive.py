"""Reads an image archive, as buildah or Docker writes it."""

import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any, cast

from .errors import ImagesError

__all__ = ["differences", "digest_of"]


def digest_of(archive: Path) -> str:
    """`sha256:…` of the manifest (OCI layout), or of the configuration (archives of old Docker versions).

    Raises ImagesError when the file is no image archive.
    """
    try:
        with tarfile.open(archive, "r:") as tar:
            index = _member(tar, "index.json")
            if index is not None:
                return str(json.loads(index)["manifests"][0]["digest"])
            manifest = _member(tar, "manifest.json")
            if manifest is not None:
                return f"sha256:{Path(json.loads(manifest)[0]['Config']).stem}"
    except (tarfile.TarError, ValueError, KeyError, IndexError, OSError) as error:
        raise ImagesError(f"{archive} is no readable image archive ({error}). Delete it and build again.") from error
    raise ImagesError(f"{archive} has neither index.json nor manifest.json in it. Delete it and build again.")


def differences(one: Path, other: Path) -> list[str]:
    """What is not the same in two OCI archives of an image, a line each: files by layer, and the configuration.

    Empty means that the images are the same to the byte, their compression and names aside.
    """
    with tarfile.open(one, "r:") as first, tarfile.open(other, "r:") as second:
        manifests = [_blob(tar, digest_of(path)) for tar, path in ((first, one), (second, other))]
        counts = [len(manifest["layers"]) for manifest in manifests]
        found = [f"{counts[0]} layers, and {counts[1]}"] if counts[0] != counts[1] else []
        for number, layers in enumerate(zip(*(manifest["layers"] for manifest in manifests), strict=False), start=1):
            if layers[0]["digest"] != layers[1]["digest"]:
                entries = [_entries(tar, layer["digest"]) for tar, layer in zip((first, second), layers, strict=True)]
                names = sorted(entries[0].keys() | entries[1].keys())
                changed = [name for name in names if entries[0].get(name) != entries[1].get(name)]
                found += [f"layer {number}: {name}" for name in changed or ["the order of files, or the compression"]]
        if manifests[0]["config"]["digest"] != manifests[1]["config"]["digest"]:
            configs = [
                _blob(tar, manifest["config"]["digest"])
                for tar, manifest in zip((first, second), manifests, strict=True)
            ]
            keys = sorted(configs[0].keys() | configs[1].keys())
            found += [f"configuration: {key}" for key in keys if configs[0].get(key) != configs[1].get(key)]
    return found


def _blob(tar: tarfile.TarFile, digest: str) -> Any:
    content = _member(tar, _path(digest))
    if content is None:
        raise ImagesError(f"there is no {_path(digest)} in {tar.name!r}: it is no whole OCI archive")
    return json.loads(content)


def _path(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/')}"


def _entries(tar: tarfile.TarFile, digest: str) -> dict[str, tuple[object, ...]]:
    """By name, all that is said of each file of a layer, and the SHA-256 of its content."""
    entries: dict[str, tuple[object, ...]] = {}
    with tarfile.open(fileobj=tar.extractfile(_path(digest))) as layer:
        for file in layer:
            content = layer.extractfile(file) if file.isreg() else None
            said = (file.type, file.mode, file.uid, file.gid, file.mtime, file.linkname)
            entries[file.name] = (
                *said,
                content and hashlib.file_digest(cast(io.BufferedReader, content), "sha256").hexdigest(),
            )
    return entries


def _member(tar: tarfile.TarFile, name: str) -> bytes | None:
    try:
        member = tar.extractfile(name)
    except KeyError:
        return None
    return member.read() if member else None
