"""What this machine lacks for a cluster, all of it at once."""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from .errors import RequirementsError
from .state import Mode

__all__ = ["check_requirements", "cni_dir"]

_CNI_DIRS = ("/usr/lib/cni", "/opt/cni/bin", "/usr/libexec/cni")
_CNI_PLUGINS = ("ptp", "host-local", "portmap", "loopback")
_PATH = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"

_DEBIAN_PACKAGES = {
    "openssl": "openssl",
    "containerd": "containerd",
    "containerd-shim-runc-v2": "containerd",
    "ctr": "containerd",
    "runc": "runc",
    "iptables": "iptables",
    "nft": "nftables",
    "conntrack": "conntrack",
    "ip": "iproute2",
    "nsenter": "util-linux",
    "unshare": "util-linux",
    "findmnt": "util-linux",
    "mount": "mount",
}


def cni_dir() -> Path | None:
    """Where the pod network's plugins are installed."""
    for directory in map(Path, _CNI_DIRS):
        if all((directory / plugin).exists() for plugin in _CNI_PLUGINS):
            return directory
    return None


def check_requirements(mode: Mode, *, known: Sequence[str] = ()) -> None:
    """Raise RequirementsError with everything that is missing, and how to get it.

    ``known`` are problems that were found elsewhere.
    """
    if sys.platform != "linux":
        raise RequirementsError(
            f"this is {sys.platform}: the cluster's processes need Linux; with Docker running, use --engine kind"
        )
    programs = list(_DEBIAN_PACKAGES) if mode == "full" else ["openssl"]
    absent = [program for program in programs if not shutil.which(program, path=_PATH)]
    packages = {_DEBIAN_PACKAGES[program] for program in absent}
    problems = [f"missing programs: {', '.join(absent)}"] if absent else []
    if mode == "full":
        if os.geteuid():
            problems.append("not root: pods need it (try sudo -E, or --mode api-only)")
        if not cni_dir():
            problems.append(f"missing CNI plugins: none of {', '.join(_CNI_DIRS)} has them")
            packages.add("containernetworking-plugins")
        if not _has_overlayfs():
            problems.append("the kernel has no overlay file system (try: modprobe overlay)")
    problems += known
    if packages:
        problems.append(f"on Debian or Ubuntu: apt-get install {' '.join(sorted(packages))}")
    if problems:
        raise RequirementsError(
            f"this machine cannot run a cluster in {mode} mode yet:\n  - " + "\n  - ".join(problems)
        )


def _has_overlayfs() -> bool:
    def listed() -> bool:
        return "\toverlay\n" in Path("/proc/filesystems").read_text()

    if not listed() and shutil.which("modprobe", path=_PATH):
        subprocess.run(["modprobe", "overlay"], capture_output=True, check=False)
    return listed()
