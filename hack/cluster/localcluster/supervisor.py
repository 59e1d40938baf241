"""Starts a cluster's components one by one, records each, and waits for what they should do."""

import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from .errors import BrokenError
from .instance import Instance
from .processes import alive, spawn, tail, uninterrupted
from .state import State, save_state

__all__ = ["Component", "Supervisor"]

_POLL_SEC = 0.05


@dataclass(frozen=True, kw_only=True)
class Component:
    """One process of the cluster."""

    name: str
    argv: Sequence[str]
    outside: bool = False
    """Runs in the machine's own network namespace even where the cluster has one."""
    pass_fds: Sequence[int] = ()


class Supervisor:
    """Keeps the record of what runs, and notices what stopped."""

    def __init__(
        self,
        *,
        instance: Instance,
        state: State,
        bin_dir: Path,
        cgroup_procs: Path | None = None,
    ) -> None:
        self._instance = instance
        self._state = state
        self._bin_dir = bin_dir
        self._cgroup_procs = cgroup_procs

    @property
    def state(self) -> State:
        return self._state

    def save(self) -> None:
        """Write the record."""
        save_state(self._instance.state_file, self._state)

    def start(self, component: Component) -> None:
        """Start a component and record it."""
        isolated = self._state.mode == "full" and not component.outside
        with uninterrupted():
            self._state.components[component.name] = spawn(
                component.argv,
                log=self._instance.log_dir / f"{component.name}.log",
                netns=self._instance.netns_path if isolated else None,
                cgroup_procs=self._cgroup_procs,
                pass_fds=component.pass_fds,
                path=str(self._bin_dir),
            )
            self.save()

    def wait(self, what: str, ready: Callable[[], bool], *, timeout_sec: float) -> None:
        """Wait until ``ready``; raise BrokenError when a component ends or time is up."""
        deadline = time.monotonic() + timeout_sec
        while not ready():
            for name, process in self._state.components.items():
                if not alive(process):
                    raise BrokenError(self._describe(f"{name} ended", Path(process.log)))
            if time.monotonic() > deadline:
                newest = list(self._state.components.values())[-1]
                raise BrokenError(self._describe(f"{what}: not there after {timeout_sec:.0f}s", Path(newest.log)))
            time.sleep(_POLL_SEC)

    def run(self, argv: Sequence[str], *, doing: str) -> str:
        """Run a short command to its end and return its output."""
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        if done.returncode:
            raise BrokenError(f"{doing}: {' '.join(argv[:3])} …: {done.stderr.strip()}")
        return done.stdout

    def _describe(self, problem: str, log: Path) -> str:
        return (
            f"{problem}; the end of {log}:\n{tail(log, lines=12)}\n"
            f"Other logs are beside it. Run 'up' again, or 'down' to clean."
        )
