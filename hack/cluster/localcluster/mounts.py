"""Mounting, unmounting and removing directories; never removing what is still mounted."""

import ctypes
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from .errors import ClusterError

__all__ = ["make_shared", "mounts_below", "remove_directories"]

_MNT_DETACH = 2
_UMOUNT_NOFOLLOW = 8


def mounts_below(directories: Sequence[Path], *, mountinfo: Path = Path("/proc/self/mountinfo")) -> list[str]:
    """Mount points at or below the directories, the latest mounted first."""
    found: list[str] = []
    if not mountinfo.exists():  # not Linux, where only kind runs and mounts nothing here
        return found
    for line in mountinfo.read_text().splitlines():
        # Spaces and the like are written as three octal digits.
        point = re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), line.split(" ")[4])
        if any(Path(point).is_relative_to(directory) for directory in directories):
            found.append(point)
    return found[::-1]


def make_shared(directory: Path) -> None:
    """Let what is mounted below a directory appear in every mount namespace that has it."""
    directory.mkdir(mode=0o711, parents=True, exist_ok=True)
    for command in (["--bind", str(directory), str(directory)], ["--make-shared", str(directory)]):
        done = subprocess.run(["mount", *command], capture_output=True, text=True, check=False)
        if done.returncode:
            raise ClusterError(f"mount {' '.join(command)}: {done.stderr.strip()}")


def remove_directories(directories: Sequence[Path]) -> None:
    """Unmount everything below the directories, then remove them.

    A volume may be a directory of the user's, mounted: as long as anything is mounted, nothing
    is removed.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    for point in mounts_below(directories):
        libc.umount2(os.fsencode(point), _MNT_DETACH | _UMOUNT_NOFOLLOW)
    if left := mounts_below(directories):
        raise ClusterError(f"cannot unmount {', '.join(left)}; unmount it by hand, then run 'down' again")
    for directory in directories:
        try:
            shutil.rmtree(directory)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise ClusterError(f"cannot remove {directory}: {error}") from error
