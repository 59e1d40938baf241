"""Images of tests that are made of other images."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest

from support.image_archives import derive


def blob(content: bytes) -> tuple[str, bytes]:
    return f"blobs/sha256/{hashlib.sha256(content).hexdigest()}", content


def descriptor(content: bytes, kind: str) -> dict[str, Any]:
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": digest, "size": len(content)}


@pytest.fixture(params=["plain", "in an index"])
def archive(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """An image of one layer; Docker writes an index about the one of its platform."""
    layer = b"a layer"
    configuration = json.dumps(
        {"config": {"Env": ["A=1"]}, "rootfs": {"type": "layers", "diff_ids": ["sha256:1"]}, "history": [{}]}
    ).encode()
    manifest = json.dumps(
        {"config": descriptor(configuration, "config.v1+json"), "layers": [descriptor(layer, "layer.v1.tar")]}
    ).encode()
    blobs = [layer, configuration, manifest]
    named = descriptor(manifest, "manifest.v1+json")
    if request.param == "in an index":
        blobs.append(json.dumps({"manifests": [named]}).encode())
        named = descriptor(blobs[-1], "index.v1+json")
    members = dict(map(blob, blobs)) | {"index.json": json.dumps({"manifests": [named]}).encode()}
    with tarfile.open(tmp_path / "image.tar", "w") as tar:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return tmp_path / "image.tar"


def image(archive: Path) -> tuple[str, dict[str, Any], list[bytes]]:
    """Name, configuration and layers, each by the digest that names it."""
    with tarfile.open(archive) as tar:
        members = {entry.name: tar.extractfile(entry).read() for entry in tar}  # type: ignore[union-attr]
    for name, content in members.items():
        if name.startswith("blobs/"):
            assert name == blob(content)[0]
    blobs = {f"sha256:{Path(name).name}": content for name, content in members.items()}
    [described] = json.loads(members["index.json"])["manifests"]
    manifest = json.loads(blobs[described["digest"]])
    configuration = json.loads(blobs[manifest["config"]["digest"]])
    layers = [blobs[layer["digest"]] for layer in manifest["layers"]]
    assert members["oci-layout"]
    return described["annotations"]["org.opencontainers.image.ref.name"], configuration, layers


def test_an_image_gets_another_name(archive: Path, tmp_path: Path) -> None:
    derive(archive, tmp_path / "made.tar", image="localhost/other:1")
    name, configuration, layers = image(tmp_path / "made.tar")
    assert (name, layers) == ("localhost/other:1", [b"a layer"])
    assert configuration["config"] == {"Env": ["A=1"]}


def test_a_wheel_comes_before_what_is_installed(archive: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.whl", "w") as wheel:
        wheel.writestr("package/module.py", "x = 1\n")
    derive(archive, tmp_path / "made.tar", image="localhost/other:1", wheel=tmp_path / "a.whl")
    _, configuration, [first, second] = image(tmp_path / "made.tar")
    assert first == b"a layer"
    with tarfile.open(fileobj=io.BytesIO(second)) as layer:
        [entry] = layer
        assert entry.name == "opt/before/package/module.py"
        assert layer.extractfile(entry).read() == b"x = 1\n"  # type: ignore[union-attr]
    assert configuration["config"]["Env"] == ["A=1", "PYTHONPATH=/opt/before"]
    assert configuration["rootfs"]["diff_ids"] == ["sha256:1", f"sha256:{hashlib.sha256(second).hexdigest()}"]
    assert "history" not in configuration
