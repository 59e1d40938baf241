"""A newcomer's path: the blocks of docs/quick-start.md, as they stand there, one after the other in one shell."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.conftest import ROOT, Environment
from support.documentation import Block, blocks

pytestmark = pytest.mark.e2e

PAGE = ROOT / "docs" / "quick-start.md"
MINUTES = 40
"""That it may take where images have to be built."""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The checkout, in a folder of its own in which files may be made."""
    for entry in ROOT.iterdir():
        (tmp_path / entry.name).symlink_to(entry)
    return tmp_path


@pytest.fixture
def restored(environment: Environment) -> Iterator[Environment]:
    """The operator is as the other tests want it afterwards."""
    yield environment
    environment.kube("delete", "llamamodel", "gemma", "--ignore-not-found")
    environment.kube("delete", "persistentvolumeclaim", "models", "--ignore-not-found", "--wait=false")
    environment.kube("delete", "persistentvolume", "models-default", "--ignore-not-found", "--wait=false")
    environment.deploy_operator()


@pytest.mark.timeout(MINUTES * 60)
def test_the_blocks_of_the_quick_start_work_in_their_order(restored: Environment, checkout: Path) -> None:
    script = "\n".join(_script(PAGE, images=_local_images()))
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=checkout,
        env={**os.environ, "NAME": restored.name, "LLAMAMODEL_CLUSTER": restored.name, "PATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=MINUTES * 60,
    )

    assert done.returncode == 0, done.stdout[-8000:]
    assert "== end" in done.stdout
    assert restored.kube.get("llamamodel", "gemma") is None


def _script(page: Path, *, images: dict[str, str]) -> Iterator[str]:
    """Each block that is run, after a line that names it; a block of YAML is the file `values.yaml`."""
    yield "trap 'kill $(jobs -p) 2>/dev/null || true' EXIT"
    for block in blocks(page):
        if block.run:
            yield f"echo '== {block.page}:{block.line}'"
            yield _as_shell(block, images)
    yield "echo '== end'"


def _as_shell(block: Block, images: dict[str, str]) -> str:
    if block.language == "yaml":
        text = block.text
        for published, local in images.items():
            assert published in text, f"{published} is not in the values of {block.page}"
            text = text.replace(published, local)
        return f"printf %s {shlex.quote(text)} >values.yaml"
    if block.language == "python":
        return f"{shlex.quote(sys.executable)} -c {shlex.quote(block.text)}"
    assert block.language == "bash", f"{block.page}:{block.line}: say how {block.language} is run"
    return block.text


def _local_images() -> dict[str, str]:
    """What the cluster of the tests has in the place of images from registries."""
    names = json.loads(
        subprocess.run(
            [sys.executable, "hack/images", "names", "-o", "json"], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout
    )
    repository, _, tag = names["operator"].rpartition(":")
    return {
        "registry.example.com/llamamodel-operator": repository,
        "0.1.0": tag,
        "ghcr.io/ggml-org/llama.cpp:server-b11669": names["engine"],
        "ghcr.io/ggml-org/llama.cpp:server-cuda-b11669": names["engine"],
    }
