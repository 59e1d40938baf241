"""Images made of other images, as archives in OCI's layout: another name, and a wheel before what is installed."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import zipfile
from pathlib import Path
from typing import Any

__all__ = ["derive"]

_BEFORE = "opt/before"
"""Where the wheel lies in the image: Python looks there first."""
_NAMES = ("org.opencontainers.image.ref.name", "io.containerd.image.name")


def derive(archive: Path, into: Path, *, image: str, wheel: Path | None = None) -> None:
    """Writes the image of an archive under another name; with a wheel, Python takes modules from there first.

    Raises KeyError where the archive is not in OCI's layout, which buildah and Docker (25 or newer) write.
    """
    with tarfile.open(archive, "r:") as source, tarfile.open(into, "w") as target:
        described = _read(source, "index.json")["manifests"][0]
        while "layers" not in (manifest := _read(source, _blob(described["digest"]))):
            described = manifest["manifests"][0]
        for member in source:
            if member.isfile() and member.name.startswith("blobs/"):
                target.addfile(member, source.extractfile(member))
        if wheel is not None:
            layer = _layer_of(wheel)
            configuration = _read(source, _blob(manifest["config"]["digest"]))
            configuration["rootfs"]["diff_ids"].append(f"sha256:{hashlib.sha256(layer).hexdigest()}")
            configuration.pop("history", None)  # which would have to have an entry for each layer
            configuration["config"]["Env"].append(f"PYTHONPATH=/{_BEFORE}")
            manifest["layers"].append(_add_blob(target, layer, "application/vnd.oci.image.layer.v1.tar"))
            manifest["config"] = _add_blob(target, _json(configuration), manifest["config"]["mediaType"])
            described = _add_blob(target, _json(manifest), described["mediaType"])
        named = {**described, "annotations": dict.fromkeys(_NAMES, image)}
        _add(target, "index.json", _json({"schemaVersion": 2, "manifests": [named]}))
        _add(target, "oci-layout", _json({"imageLayoutVersion": "1.0.0"}))


def _layer_of(wheel: Path) -> bytes:
    """The files of a wheel, as a layer."""
    written = io.BytesIO()
    with zipfile.ZipFile(wheel) as files, tarfile.open(fileobj=written, mode="w") as layer:
        for name in files.namelist():
            _add(layer, f"{_BEFORE}/{name}", files.read(name))
    return written.getvalue()


def _add_blob(target: tarfile.TarFile, content: bytes, media_type: str) -> dict[str, Any]:
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    _add(target, _blob(digest), content)
    return {"mediaType": media_type, "digest": digest, "size": len(content)}


def _add(target: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    target.addfile(entry, io.BytesIO(content))


def _read(source: tarfile.TarFile, name: str) -> dict[str, Any]:
    member = source.extractfile(name)
    assert member is not None, f"{name} is no file"
    content: dict[str, Any] = json.load(member)
    return content


def _blob(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/')}"


def _json(content: dict[str, Any]) -> bytes:
    return json.dumps(content).encode()
