"""On what it was measured. No names of hosts or people."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

__all__ = ["Machine", "describe"]


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What matters for speed."""

    date: str
    cpu: str
    cores: int
    memory_gib: float
    kernel: str
    kubernetes: str
    python: str
    libraries: str


def describe(*, kubernetes: str) -> Machine:
    """This machine, now. `kubernetes`: the version that the API server gives."""
    return Machine(
        date=datetime.now(UTC).strftime("%Y-%m-%d"),
        cpu=_cpu(),
        cores=len(os.sched_getaffinity(0)),
        memory_gib=round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1),
        kernel=f"{platform.system()} {platform.release()}",
        kubernetes=kubernetes,
        python=f"{platform.python_implementation()} {platform.python_version()}",
        libraries=", ".join(f"{name} {version(name)}" for name in ("kopf", "aiohttp", "orjson", "pydantic")),
    )


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
