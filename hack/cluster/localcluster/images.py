"""Container images: the pause image, made from its one binary, and imports into containerd."""

import hashlib
import io
import json
import subprocess
import tarfile
from pathlib import Path
from typing import Any

from .errors import ClusterError

__all__ = ["PAUSE_IMAGE", "import_archive", "write_pause_archive"]

PAUSE_IMAGE = "localhost/pause:1"

_TYPE = "application/vnd.oci.image"


def import_archive(archive: Path, *, socket: Path) -> None:
    """Import an OCI or Docker archive where the kubelet looks for images."""
    if not archive.is_file():
        raise ClusterError(f"no image archive {archive}")
    command = ["ctr", "--address", str(socket), "-n", "k8s.io", "images", "import", str(archive)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ClusterError(f"{archive} cannot be imported; expected an OCI or Docker archive: {done.stderr.strip()}")


def write_pause_archive(path: Path, *, binary: Path, architecture: str) -> None:
    """Write an OCI archive of an image that holds one static program."""
    layer = _tar({"pause": binary.read_bytes()})
    blobs: dict[str, bytes] = {}

    def blob(media_type: str, content: bytes) -> dict[str, Any]:
        digest = hashlib.sha256(content).hexdigest()
        blobs[f"blobs/sha256/{digest}"] = content
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(content)}

    layer_blob = blob(f"{_TYPE}.layer.v1.tar", layer)
    config = {
        "architecture": architecture,
        "os": "linux",
        "config": {"Entrypoint": ["/pause"], "User": "65535:65535"},
        "rootfs": {"type": "layers", "diff_ids": [layer_blob["digest"]]},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{_TYPE}.manifest.v1+json",
        "config": blob(f"{_TYPE}.config.v1+json", json.dumps(config).encode()),
        "layers": [layer_blob],
    }
    entry = blob(f"{_TYPE}.manifest.v1+json", json.dumps(manifest).encode())
    entry["annotations"] = {
        "io.containerd.image.name": PAUSE_IMAGE,
        "org.opencontainers.image.ref.name": PAUSE_IMAGE,
    }
    index = {"schemaVersion": 2, "manifests": [entry]}
    layout = {"imageLayoutVersion": "1.0.0"}
    files = {"oci-layout": json.dumps(layout).encode(), "index.json": json.dumps(index).encode()}
    path.write_bytes(_tar({**files, **blobs}))


def _tar(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            entry.mode = 0o555
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()
