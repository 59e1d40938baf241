"""The cgroup that holds all of a cluster's processes, with cgroup v1, v2 and both at once."""

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from .errors import ClusterError

__all__ = ["CgroupTree", "Hierarchy", "hierarchies"]

_END_TIMEOUT_SEC = 15.0


@dataclass(frozen=True, kw_only=True)
class Hierarchy:
    """A mounted cgroup file system."""

    root: Path
    version: int
    controllers: frozenset[str] = frozenset()
    """For version 1, what the mount was made for."""


def hierarchies(*, mountinfo: Path = Path("/proc/self/mountinfo")) -> list[Hierarchy]:
    """All mounted ones; those of version 1 first."""
    found = {}
    for line in mountinfo.read_text().splitlines():
        mount, _, source = line.partition(" - ")
        kind, _, options = source.split(" ")[:3]
        if kind in ("cgroup", "cgroup2"):
            root = Path(mount.split(" ")[4])
            found[root] = Hierarchy(
                root=root,
                version=2 if kind == "cgroup2" else 1,
                controllers=frozenset(options.split(",")),
            )
    return sorted(found.values(), key=lambda hierarchy: hierarchy.version)


class CgroupTree:
    """One cgroup, in every hierarchy that there is.

    Pods live in ``NAME/kubepods``, which the kubelet makes, the components in ``NAME/system``:
    with version 2 a cgroup that has cgroups below it may hold no processes itself.
    """

    def __init__(self, name: str, *, mounted: list[Hierarchy] | None = None) -> None:
        self._name = name
        self._mounted = hierarchies() if mounted is None else mounted
        self._legacy = [hierarchy for hierarchy in self._mounted if hierarchy.version == 1]

    def create(self) -> Path:
        """Make the cgroup; returns the cgroup.procs file that the components are to join."""
        if not self._mounted:
            raise ClusterError("no cgroup file system is mounted; expected one on /sys/fs/cgroup")
        for hierarchy in self._legacy or self._mounted:
            (hierarchy.root / self._name).mkdir(exist_ok=True)
        if not self._legacy:
            self._delegate(self._mounted[0].root)
            home = self._mounted[0]
        else:
            # Joining one hierarchy is enough to be found again, and leaves the limits that the
            # machine sets in the others as they are.
            home = next((h for h in self._legacy if "pids" in h.controllers), self._legacy[0])
        system = home.root / self._name / "system"
        system.mkdir(exist_ok=True)
        return system / "cgroup.procs"

    def remove(self) -> None:
        """Kill whatever is in the cgroup, in any hierarchy, and remove it."""
        deadline = time.monotonic() + _END_TIMEOUT_SEC
        while members := self._members():
            for pid in members:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            if time.monotonic() > deadline:
                raise ClusterError(f"processes in cgroup {self._name} do not end: {members}")
            time.sleep(0.02)
        for directory in self._directories():
            self._remove_directory(directory, deadline=deadline)

    def _delegate(self, root: Path) -> None:
        """Let the kubelet set limits below the cgroup (version 2)."""
        for directory in (root, root / self._name):
            for controller in (directory / "cgroup.controllers").read_text().split():
                try:
                    (directory / "cgroup.subtree_control").write_text(f"+{controller}")
                except OSError as error:
                    if controller in ("cpu", "memory", "pids"):
                        raise ClusterError(
                            f"cannot enable the {controller} controller in {directory}: "
                            f"{error.strerror}; inside a container, its processes must be in a "
                            "cgroup below the root (see cgroups(7), 'no internal processes')"
                        ) from error

    def _directories(self) -> list[Path]:
        """Every directory of the tree, children before their parents."""
        return [
            Path(directory)
            for hierarchy in self._mounted
            for directory, _, _ in os.walk(hierarchy.root / self._name, topdown=False)
        ]

    def _members(self) -> set[int]:
        pids: set[int] = set()
        for directory in self._directories():
            try:
                pids.update(map(int, (directory / "cgroup.procs").read_text().split()))
            except OSError:  # the cgroup went away, or is a threaded one
                continue
        return pids - {0, os.getpid()}

    @staticmethod
    def _remove_directory(directory: Path, *, deadline: float) -> None:
        while True:
            try:
                directory.rmdir()
            except FileNotFoundError:
                return
            except OSError as error:  # busy for a moment after its last process ended
                if time.monotonic() > deadline:
                    raise ClusterError(f"cannot remove {directory}: {error.strerror}") from error
                time.sleep(0.02)
            else:
                return
