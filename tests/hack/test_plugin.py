"""The archive that krew unpacks works with python3 alone, and the same source gives the same archive and manifest."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import grimp
import pytest
from devplugin.archive import pack, sha256
from devplugin.manifest import archive_name, manifest
from devplugin.platforms import PLATFORMS, PYTHONS, this_platform
from devplugin.tree import LAUNCHER, ROOT, UNUSED, gather, lock, wheel

from llamamodel_operator.cli.commands import cli

THIS_PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"

Plugin = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The archive for this machine, made and unpacked; of this Python alone, which takes a quarter of the time."""
    platform = this_platform()
    if platform is None or THIS_PYTHON not in PYTHONS:
        pytest.skip(f"there is no archive for this platform and Python {THIS_PYTHON}")
    work = tmp_path_factory.mktemp("plugin")
    tree = work / "tree"
    gather(tree, platform=platform, pythons=[THIS_PYTHON], requirements=lock(work), project=wheel(work))
    pack(tree, archive=work / "plugin.tar.gz")
    shutil.rmtree(tree)
    subprocess.run(
        ["tar", "--extract", "--gzip", "--file=plugin.tar.gz", "--one-top-level=store"], cwd=work, check=True
    )
    return work / "store"


@pytest.fixture(scope="module")
def plugin(unpacked: Path, tmp_path_factory: pytest.TempPathFactory) -> Plugin:
    """Runs it as kubectl does, by a link on PATH, from an empty folder, with a python3 that has no other modules."""
    work = tmp_path_factory.mktemp("home")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(work / "python")], check=True)
    programs = work / "bin"
    programs.mkdir()
    (programs / LAUNCHER).symlink_to(unpacked / LAUNCHER)
    (programs / "python3").symlink_to(work / "python/bin/python3")
    (work / "empty").mkdir()

    def call(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(programs / LAUNCHER), *arguments],
            cwd=work / "empty",
            env={"PATH": str(work / "python/bin"), "HOME": str(work / "empty")},
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
        )

    return call


@pytest.mark.parametrize("command", ["", *sorted(cli.list_commands(None))])  # type: ignore[arg-type]
def test_each_command_starts_from_an_empty_folder(plugin: Plugin, command: str) -> None:
    done = plugin(*command.split(), "--help")
    assert done.returncode == 0, done.stderr
    assert f"Usage: kubectl llamamodel {command}".rstrip() in done.stdout


def test_it_renders_what_the_operator_would_run(plugin: Plugin) -> None:
    done = plugin("render", "--command", "-f", "-", stdin=(ROOT / "examples/gemma.yaml").read_text())
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("llama-server ")


def test_it_loads_what_speaks_with_a_cluster(plugin: Plugin) -> None:
    done = plugin("status", "gemma")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "cluster" in done.stderr


def test_what_is_left_out_is_imported_nowhere_in_the_command_line() -> None:
    graph = grimp.build_graph("llamamodel_operator", include_external_packages=True, cache_dir=None)
    reached = graph.find_upstream_modules("llamamodel_operator.cli", as_package=True)
    assert {"click", "pydantic", "kubernetes"} <= reached
    assert not reached & set(UNUSED)


def test_a_python_for_which_there_are_no_modules_is_named_with_those_for_which_there_are(tmp_path: Path) -> None:
    shutil.copy(ROOT / "hack/plugin/launcher.py", tmp_path / LAUNCHER)
    for name in ("common", "python3.9", "python3.10"):
        (tmp_path / "lib" / name).mkdir(parents=True)
    done = subprocess.run([sys.executable, tmp_path / LAUNCHER], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert f"this archive is for python3.9, python3.10, and python3 on PATH is python{THIS_PYTHON}" in done.stderr


def test_the_same_files_give_the_same_archive_whenever_and_by_whomever_they_are_packed(tmp_path: Path) -> None:
    archives = []
    for number, order in enumerate((["a", "b"], ["b", "a"])):
        tree = tmp_path / str(number)
        (tree / "lib").mkdir(parents=True, mode=0o700 if number else 0o755)
        for name in order:
            (tree / "lib" / name).write_text(name)
            (tree / "lib" / name).chmod(0o600 if number else 0o664)
            os.utime(tree / "lib" / name, (number, 1000 * number))
        archives.append(tmp_path / f"{number}.tar.gz")
        pack(tree, archive=archives[-1])
    assert archives[0].read_bytes() == archives[1].read_bytes()
    with tarfile.open(archives[0]) as tar:
        assert [(member.name, oct(member.mode)) for member in tar] == [
            ("lib", "0o755"),
            ("lib/a", "0o644"),
            ("lib/b", "0o644"),
        ]


def test_the_manifest_names_each_archive_by_its_platform_and_content(tmp_path: Path) -> None:
    sums = {}
    for platform in PLATFORMS:
        file = tmp_path / archive_name(platform, version="1.2.3")
        file.write_text(platform)
        sums[platform] = sha256(file)
    spec = manifest(version="1.2.3", homepage="https://example.com", url="https://example.com/v1/", sums=sums)["spec"]
    assert spec["version"] == "v1.2.3"
    for platform, entry in zip(PLATFORMS, spec["platforms"], strict=True):
        assert entry["uri"] == f"https://example.com/v1/kubectl-llamamodel_1.2.3_{platform}.tar.gz"
        assert re.fullmatch("[0-9a-f]{64}", entry["sha256"])
        assert "-".join(entry["selector"]["matchLabels"].values()) == platform
    assert len({entry["sha256"] for entry in spec["platforms"]}) == len(PLATFORMS)
