"""Two builds of the same source are told apart to the file, and what makes them the same is asked for."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from devimages.archive import differences
from devimages.buildah import BuildahBuilder
from devimages.cache import Cache
from devimages.recipes import OPERATOR
from devimages.steps import Steps


@dataclass(frozen=True, kw_only=True)
class File:
    content: bytes = b""
    mtime: int = 0
    mode: int = 0o644


def packed(files: Mapping[str, File]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, file in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mtime, info.mode = len(file.content), file.mtime, file.mode
            tar.addfile(info, io.BytesIO(file.content))
    return out.getvalue()


def image(path: Path, *layers: Mapping[str, File], created: str = "1970-01-01T00:00:00Z") -> Path:
    """Writes an OCI archive of these layers."""
    blobs: dict[str, File] = {}

    def blob(content: bytes) -> dict[str, str]:
        digest = hashlib.sha256(content).hexdigest()
        blobs[f"blobs/sha256/{digest}"] = File(content=content)
        return {"digest": f"sha256:{digest}"}

    config = blob(json.dumps({"created": created, "os": "linux"}).encode())
    manifest = {"config": config, "layers": [blob(packed(layer)) for layer in layers]}
    index = {"manifests": [blob(json.dumps(manifest).encode())]}
    path.write_bytes(packed({"index.json": File(content=json.dumps(index).encode()), **blobs}))
    return path


BASE = {"bin/python": File(content=b"python", mode=0o755)}
SOURCE = {"a.py": File(content=b"a"), "b.py": File(content=b"b")}


def compared(tmp_path: Path, *layers: Mapping[str, File], created: str = "1970-01-01T00:00:00Z") -> list[str]:
    """What tells the image of these layers from that of BASE and SOURCE."""
    one = image(tmp_path / "one.tar", BASE, SOURCE)
    return differences(one, image(tmp_path / "other.tar", *layers, created=created))


def test_the_same_layers_are_no_difference(tmp_path: Path) -> None:
    assert compared(tmp_path, BASE, SOURCE) == []


@pytest.mark.parametrize(
    "other",
    [File(content=b"B"), File(content=b"b", mtime=1), File(content=b"b", mode=0o755)],
    ids=["content", "time", "mode"],
)
def test_a_file_that_differs_is_named_with_its_layer(tmp_path: Path, other: File) -> None:
    assert compared(tmp_path, BASE, SOURCE | {"b.py": other}) == ["layer 2: b.py"]


def test_a_file_that_only_one_has_is_named(tmp_path: Path) -> None:
    assert compared(tmp_path, BASE, SOURCE | {"uv_cache.json": File()}) == ["layer 2: uv_cache.json"]


def test_the_same_files_in_another_order_are_a_difference(tmp_path: Path) -> None:
    assert compared(tmp_path, BASE, dict(reversed(SOURCE.items()))) == [
        "layer 2: the order of files, or the compression"
    ]


def test_one_layer_more_is_a_difference(tmp_path: Path) -> None:
    assert compared(tmp_path, BASE, SOURCE, {}) == ["2 layers, and 3"]


def test_another_time_in_the_configuration_is_a_difference(tmp_path: Path) -> None:
    assert compared(tmp_path, BASE, SOURCE, created="2026-01-01T00:00:00Z") == ["configuration: created"]


@dataclass(kw_only=True)
class RecordedSteps(Steps):
    """Runs nothing; where a base or an image would be made, its folder or its identifier is written."""

    commands: list[Sequence[str]] = field(default_factory=list)

    def run(self, title: str, argv: Sequence[str], *, env: Mapping[str, str] | None = None) -> None:
        self.commands.append(argv)
        if "debootstrap" in argv:
            Path(argv[-2]).mkdir()
        if "--iidfile" in argv:
            Path(argv[argv.index("--iidfile") + 1]).write_text("sha256:0123")


@pytest.mark.parametrize("reuse", [True, False])
def test_times_are_fixed_in_each_build_and_no_step_is_reused_in_one_that_is_compared(
    tmp_path: Path, reuse: bool
) -> None:
    cache = Cache(root=tmp_path / "cache")
    steps = RecordedSteps(logs=tmp_path, lock=0, say_line=lambda _: None)
    builder = BuildahBuilder(root=tmp_path, cache=cache, steps=steps, reuse_layers=reuse, _driver="overlay")
    builder.build(OPERATOR, image="localhost/operator:dev", archive=tmp_path / "operator.tar")
    (command,) = (argv for argv in steps.commands if "--iidfile" in argv)
    assert command[command.index("--timestamp") + 1] == "0"
    assert ("--no-cache" in command) is not reuse
