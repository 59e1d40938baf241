"""Finds out which of the two ways to build this machine has, and what is missing for them."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .errors import NotBuildableError

__all__ = ["Machine", "docker_answer", "require_builder", "this_machine"]

_TOOLS = {"buildah": "buildah", "debootstrap": "debootstrap", "unshare": "util-linux"}
"""Program: the Debian package that has it."""

_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")


@dataclass(frozen=True, kw_only=True)
class Machine:
    """The facts that decide how images are built."""

    platform: str
    uid: int
    docker: str | None
    """None when a daemon answers, else why not."""
    which: Callable[[str], str | None]
    has_debian_keyring: bool


def this_machine() -> Machine:
    return Machine(
        platform=sys.platform,
        uid=os.geteuid(),
        docker=docker_answer(),
        which=shutil.which,
        has_debian_keyring=_KEYRING.exists(),
    )


def docker_answer() -> str | None:
    """None when a Docker daemon answers, else the reason in a few words."""
    if shutil.which("docker") is None:
        return "there is no docker on PATH"
    try:
        result = subprocess.run(
            ["docker", "info", "--format", "{{.ServerVersion}}"],
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return "`docker info` gave no answer in 20 s"
    if result.returncode == 0 and result.stdout.strip():
        return None
    lines = result.stderr.strip().splitlines()
    return f"`docker info` says: {lines[-1] if lines else 'nothing'}"


def require_builder(machine: Machine) -> str:
    """`docker` or `buildah`; raises NotBuildableError with everything that is missing for the second."""
    if machine.docker is None:
        return "docker"
    missing: list[str] = []
    if not machine.platform.startswith("linux"):
        missing.append(f"Linux (this is {machine.platform})")
    if machine.uid != 0:
        missing.append("root (run it with sudo)")
    packages = [package for tool, package in _TOOLS.items() if machine.which(tool) is None]
    if not machine.has_debian_keyring:
        packages.append("debian-archive-keyring")
    if packages:
        missing.append(f"{', '.join(packages)} (apt-get install --yes {' '.join(packages)})")
    if missing:
        raise NotBuildableError(docker=machine.docker, missing=missing)
    return "buildah"
