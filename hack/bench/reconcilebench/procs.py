"""CPU and memory of processes and of the machine, from /proc."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from .errors import BenchError

__all__ = ["CpuMeter", "Memory", "memory", "prioritise"]

_TICKS_PER_SEC = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Resident memory of a process, in bytes."""

    peak: int
    now: int


def memory(pid: int) -> Memory:
    """VmHWM and VmRSS."""
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line)
    peak, now = (int(fields[name].split()[0]) * 1024 for name in ("VmHWM", "VmRSS"))
    return Memory(peak=peak, now=now)


def prioritise(pid: int, *, nice: int) -> None:
    """Gives a process and its threads this niceness, and its session too where the kernel schedules by sessions.

    A session is left alone unless the process leads it: others may be in it.

    Raises:
        BenchError: the user may not (below 0 only root may).
    """
    if nice == 0:
        return
    try:
        for thread in Path(f"/proc/{pid}/task").iterdir():
            os.setpriority(os.PRIO_PROCESS, int(thread.name), nice)
        group = Path(f"/proc/{pid}/autogroup")
        if os.getsid(pid) == pid and group.exists():
            group.write_text(str(nice))
    except PermissionError as error:
        raise BenchError(f"--nice {nice}: {error.strerror}; below 0 only root may go") from None


class CpuMeter:
    """CPU seconds that processes have used since this was made."""

    def __init__(self, pids: Mapping[str, int]) -> None:
        self._pids = dict(pids)
        self._started = {name: _cpu_sec(pid) for name, pid in self._pids.items()}
        self._machine = _busy_sec()

    def read(self) -> dict[str, float]:
        """By the names given, and as `others` what every other process of the machine used."""
        used = {name: _cpu_sec(pid) - self._started[name] for name, pid in self._pids.items()}
        return used | {"others": max(0.0, _busy_sec() - self._machine - sum(used.values()))}


def _cpu_sec(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_SEC


def _busy_sec() -> float:
    user, nice, system, _idle, _iowait, irq, softirq, steal, *_ = map(
        int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    )
    return (user + nice + system + irq + softirq + steal) / _TICKS_PER_SEC
