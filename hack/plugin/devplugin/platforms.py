"""Where the plugin runs: the platforms as krew and as uv call them, and the Pythons."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass

__all__ = ["PLATFORMS", "PYTHONS", "Platform", "this_platform"]

PYTHONS = ("3.11", "3.12", "3.13", "3.14")
"""Those for which all dependencies have wheels. The modules in C are for one version each."""


@dataclass(frozen=True, kw_only=True)
class Platform:
    """One archive."""

    os: str
    """As in Go: linux, darwin."""
    arch: str
    """As in Go: amd64, arm64."""
    wheels: str
    """uv's name (`--python-platform`) for the wheels that are taken."""

    def __str__(self) -> str:
        return f"{self.os}-{self.arch}"


PLATFORMS = {
    str(each): each
    for each in (
        Platform(os="linux", arch="amd64", wheels="x86_64-manylinux_2_28"),
        Platform(os="linux", arch="arm64", wheels="aarch64-manylinux_2_28"),
        Platform(os="darwin", arch="amd64", wheels="x86_64-apple-darwin"),
        Platform(os="darwin", arch="arm64", wheels="aarch64-apple-darwin"),
    )
}
"""No Windows: the command line needs the module `resource`."""


def this_platform() -> Platform | None:
    """The one that programs of this machine are for; None where there is no archive for it."""
    machine = platform.machine().lower()
    arch = {"x86_64": "amd64", "aarch64": "arm64"}.get(machine, machine)
    return PLATFORMS.get(f"{os.uname().sysname.lower()}-{arch}")
