"""What every way of running a cluster can do, and the choice between them."""

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from .state import Engine, Mode
from .status import Status

__all__ = ["ClusterEngine", "docker_answers"]

_DOCKER_TIMEOUT_SEC = 15


class ClusterEngine(Protocol):
    """One cluster, run in one way. All methods raise ClusterError."""

    @property
    def kind(self) -> Engine: ...

    def prepare(self, mode: Mode) -> Path:
        """Check the machine and build what is missing; returns the directory of binaries."""

    def start(self, *, mode: Mode, gpus: int, bin_dir: Path) -> None:
        """Start from nothing, and return when everything answers."""

    def set_gpus(self, count: int) -> None:
        """Make the node of a running cluster advertise that many GPUs."""

    def clean(self, *, keep_models: bool = False) -> None:
        """End and remove everything that was started, however far it came."""

    def status(self) -> Status:
        """Look at what is there."""

    def load_images(self, archives: Sequence[Path]) -> None:
        """Give images to the node."""

    def exec_command(self, argv: Sequence[str]) -> tuple[list[str], dict[str, str]]:
        """The command that runs ``argv`` where the cluster's addresses are, and its environment."""

    def log(self, component: str) -> Path:
        """The log file of a component."""


def docker_answers() -> bool:
    """Whether a Docker daemon is there to run kind's nodes."""
    if not shutil.which("docker"):
        return False
    try:
        done = subprocess.run(["docker", "info"], capture_output=True, timeout=_DOCKER_TIMEOUT_SEC, check=False)
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0
