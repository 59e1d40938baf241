"""Gathers what an archive holds: the launcher, the licence, and the modules for each Python.

kubectl-llamamodel     launcher.py
LICENSE
lib/common/            what is the same for every Python
lib/python3.13/        what is for that one alone, such as modules in C
"""

from __future__ import annotations

import filecmp
import shutil
import subprocess
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

from .platforms import Platform

__all__ = ["LAUNCHER", "UNUSED", "gather", "lock", "wheel"]

ROOT = Path(__file__).resolve().parents[3]
LAUNCHER = "kubectl-llamamodel"

UNUSED = ("cryptography", "httptools", "kopf", "uvloop")
"""Dependencies of the operator and the gateway that the command line never imports; with them go those of theirs."""

_UV = str(ROOT / "hack" / "uv")


def lock(folder: Path) -> Path:
    """Writes the locked dependencies with their hashes into that folder, and gives the file."""
    requirements = folder / "requirements.txt"
    pruned = [word for name in UNUSED for word in ("--prune", name)]
    export = ["export", "--frozen", "--quiet", "--no-default-groups", "--no-emit-project", *pruned]
    _uv(*export, "--output-file", str(requirements))
    return requirements


def wheel(folder: Path) -> Path:
    """Builds the project's wheel into that folder, and gives the file."""
    _uv("build", "--quiet", "--wheel", "--out-dir", str(folder))
    (built,) = folder.glob("*.whl")
    return built


def gather(target: Path, *, platform: Platform, pythons: Sequence[str], requirements: Path, project: Path) -> None:
    """Fills the folder `target`, which must not exist yet, with all that the archive holds.

    Raises CalledProcessError where a dependency has no wheel for that platform and Python.
    """
    target.mkdir(parents=True)
    shutil.copy(Path(__file__).parents[1] / "launcher.py", target / LAUNCHER)
    (target / LAUNCHER).chmod(0o755)
    shutil.copy(ROOT / "LICENSE", target / "LICENSE")
    common = target / "lib" / "common"
    with zipfile.ZipFile(project) as packed:
        packed.extractall(common)
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        trees = [Path(scratch) / f"python{version}" for version in pythons]
        for version, tree in zip(pythons, trees, strict=True):
            _install(tree, platform=platform, python=version, requirements=requirements)
        for name in sorted({entry.name for tree in trees for entry in tree.iterdir()}):
            copies = [tree / name for tree in trees]
            if all(_same(copies[0], other) for other in copies[1:]):
                copies[0].rename(common / name)
                for copy in copies[1:]:
                    _remove(copy)
        for tree in trees:
            tree.rename(target / "lib" / tree.name)


def _install(tree: Path, *, platform: Platform, python: str, requirements: Path) -> None:
    target = ["--target", str(tree), "--python-version", python, "--python-platform", platform.wheels]
    exact = ["--no-deps", "--require-hashes", "--only-binary", ":all:", "--requirement", str(requirements)]
    _uv("pip", "install", "--quiet", *target, *exact)
    shutil.rmtree(tree / "bin", ignore_errors=True)  # programs of the dependencies, bound to this machine's Python
    for unwanted in (*tree.glob("*.dist-info/RECORD"), *tree.glob("*.dist-info/REQUESTED"), tree / ".lock"):
        unwanted.unlink(missing_ok=True)


def _same(one: Path, other: Path) -> bool:
    if not (one.exists() and other.exists()) or one.is_dir() != other.is_dir():
        return False
    if one.is_file():
        return filecmp.cmp(one, other, shallow=False)
    names = {entry.name for entry in one.iterdir()}
    return names == {entry.name for entry in other.iterdir()} and all(_same(one / n, other / n) for n in names)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


def _uv(*arguments: str) -> None:
    subprocess.run([_UV, *arguments], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
