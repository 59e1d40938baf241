"""The operator's image: small, not root, and every program in it starts where there is no shell."""

from __future__ import annotations

import json
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from e2e.conftest import tool
from llamamodel_operator.core.objects.check import PROGRAM

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).resolve().parents[2]
LARGEST_BYTES = 150_000_000
"""Of what is downloaded: all layers as they are compressed, the stand-in for the published base included."""
SHELLS = ("sh", "bash", "dash", "rbash")
NODES = {"null": 3, "zero": 5, "urandom": 9}
"""Minor numbers of the devices that every container has."""


@pytest.fixture(scope="module")
def archive() -> Iterator[tarfile.TarFile]:
    built = json.loads(tool("hack/images", "build", "operator", "-o", "json"))
    with tarfile.open(built[0]["archive"]) as opened:
        yield opened


def blob(archive: tarfile.TarFile, digest: str) -> Any:
    """The file of the archive with that digest."""
    return archive.extractfile(f"blobs/{digest.replace(':', '/')}")


@pytest.fixture(scope="module")
def manifest(archive: tarfile.TarFile) -> dict[str, Any]:
    index = json.load(archive.extractfile("index.json") or pytest.fail("no OCI archive"))
    manifest: dict[str, Any] = json.load(blob(archive, index["manifests"][0]["digest"]))
    return manifest


@pytest.fixture(scope="module")
def config(archive: tarfile.TarFile, manifest: dict[str, Any]) -> dict[str, Any]:
    config: dict[str, Any] = json.load(blob(archive, manifest["config"]["digest"]))["config"]
    return config


@pytest.fixture(scope="module")
def root(archive: tarfile.TarFile, manifest: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The image's file system, less each shell that is in it."""
    root = tmp_path_factory.mktemp("image")
    root.chmod(0o755)  # a folder of pytest's is closed to the image's user
    for layer in manifest["layers"]:
        content = blob(archive, layer["digest"]).read()
        subprocess.run(["tar", "--extract", "--gzip", "--directory", str(root)], input=content, check=True)
    for shell in SHELLS:
        (root / "usr/bin" / shell).unlink()
    for name, minor in NODES.items():
        subprocess.run(["mknod", "--mode=666", str(root / "dev" / name), "c", "1", str(minor)], check=True)
    return root


def run(root: Path, config: dict[str, Any], *command: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """What a container of the image would run, as its user and with its environment."""
    environment = dict(line.split("=", 1) for line in config["Env"]) | {"HOME": "/"}
    return subprocess.run(
        ["unshare", "--net", "/usr/sbin/chroot", f"--userspec={config['User']}", str(root), *command],
        env=environment,
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_what_is_downloaded_is_small(manifest: dict[str, Any]) -> None:
    assert sum(layer["size"] for layer in manifest["layers"]) < LARGEST_BYTES


def test_it_runs_as_a_user_by_number_so_that_the_kubelet_can_tell_that_it_is_not_root(config: dict[str, Any]) -> None:
    user, _, group = config["User"].partition(":")
    assert int(user) > 0
    assert int(group) > 0


def test_the_entry_point_is_a_program_and_not_a_line_for_a_shell(config: dict[str, Any], root: Path) -> None:
    assert config["Entrypoint"] == ["/opt/llamamodel/bin/llamamodel-operator"]
    assert not config.get("Cmd")
    assert (root / "opt/llamamodel/bin/llamamodel-operator").read_text().startswith("#!/opt/llamamodel/bin/python\n")


def test_there_is_no_shell_left_in_what_the_next_tests_run(config: dict[str, Any], root: Path) -> None:
    done = run(root, config, "sh", "-c", "true")
    assert done.returncode == 127
    assert "failed to run command" in done.stderr
    assert "sh" in done.stderr


@pytest.mark.parametrize(
    "program",
    [
        ("/opt/llamamodel/bin/llamamodel-operator",),
        ("llamamodel-gateway",),
        ("llamamodel",),
        ("kubectl-llamamodel",),
    ],
    ids=lambda program: program[-1].rpartition("/")[2],
)
def test_each_program_starts_without_a_shell(root: Path, config: dict[str, Any], program: tuple[str, ...]) -> None:
    done = run(root, config, *program, "--help")
    assert done.returncode == 0, done.stderr
    assert "usage" in done.stdout.lower()


def test_the_inspection_starts_without_a_shell(root: Path, config: dict[str, Any]) -> None:
    done = run(root, config, *PROGRAM, "--help")
    assert done.returncode == 0, done.stderr


def test_the_operator_itself_gets_as_far_as_looking_for_its_cluster(root: Path, config: dict[str, Any]) -> None:
    done = run(root, config, *config["Entrypoint"])
    assert done.returncode != 0
    assert "Traceback" not in done.stderr + done.stdout
    assert "kubeconfig" in (done.stderr + done.stdout).lower()


def test_the_command_line_makes_a_plan_without_a_shell(root: Path, config: dict[str, Any]) -> None:
    example = (ROOT / "examples/gemma.yaml").read_text()
    done = run(root, config, "llamamodel", "render", "--command", "-f", "-", stdin=example)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("llama-server")


def test_bytecode_is_there_for_what_is_imported_and_is_never_written_at_run_time(
    root: Path, config: dict[str, Any]
) -> None:
    """Without it each start of each pod and each inspection would compile thousands of files."""
    script = (
        "import sys, llamamodel_operator.main, llamamodel_operator.gateway.main, llamamodel_operator.cli.commands\n"
        "files = {m.__file__: m.__cached__ for m in sys.modules.values() if getattr(m, '__cached__', None)}\n"
        "import os; print([f for f, c in files.items() if f.startswith('/opt/') and not os.path.exists(c)])"
    )
    done = run(root, config, "python3", "-c", script)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"
