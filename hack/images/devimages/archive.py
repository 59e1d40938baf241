"""Reads an image archive, as buildah or Docker writes it."""

import json
import tarfile
from pathlib import Path

from .errors import ImagesError

__all__ = ["digest_of"]


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


def _member(tar: tarfile.TarFile, name: str) -> bytes | None:
    try:
        member = tar.extractfile(name)
    except KeyError:
        return None
    return member.read() if member else None
