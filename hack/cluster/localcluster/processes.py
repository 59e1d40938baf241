"""Starting processes that outlive the command, and ending exactly those again."""

import os
import select
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from .errors import ClusterError
from .state import Process

__all__ = ["alive", "kill", "spawn", "tail", "uninterrupted"]

_KEPT_VARIABLES = ("HOME", "LANG", "TMPDIR")
_SYSTEM_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
_JOIN_CGROUP = 'echo $$ >"$0" && exec "$@"'


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _start_ticks(pid: int) -> int | None:
    """Start time of a process that runs; None where there is none or only its remains."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The second field is the program's name in parentheses and may itself contain some.
    state, *rest = stat.rpartition(")")[2].split()
    return None if state in "ZX" else int(rest[18])


def alive(process: Process) -> bool:
    """Whether that very process still runs."""
    return process.boot_id == _boot_id() and _start_ticks(process.pid) == process.start_ticks


def kill(process: Process, *, timeout_sec: float = 10.0) -> None:
    """End a process and wait until it is gone; does nothing where it is gone already."""
    try:
        descriptor = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return
    try:
        # The descriptor pins the process: after this check the id cannot change hands.
        if not alive(process):
            return
        signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        if not select.select([descriptor], [], [], timeout_sec)[0]:
            raise ClusterError(f"process {process.pid} does not end; see /proc/{process.pid}/stack")
    except ProcessLookupError:
        return
    finally:
        os.close(descriptor)


def spawn(
    argv: Sequence[str],
    *,
    log: Path,
    netns: Path | None = None,
    cgroup_procs: Path | None = None,
    pass_fds: Sequence[int] = (),
    path: str = "",
) -> Process:
    """Start a process in a session of its own, its output appended to ``log``.

    ``netns`` and ``cgroup_procs`` name the network namespace and the cgroup it starts in,
    ``path`` is put before PATH.
    """
    command = list(argv)
    if netns:
        command = ["nsenter", f"--net={netns}", "--", *command]
    if cgroup_procs:
        command = ["sh", "-c", _JOIN_CGROUP, str(cgroup_procs), *command]
    # No proxy settings, KUBECONFIG or the like: what the user's shell has set changes nothing.
    environ = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
    environ["PATH"] = ":".join(filter(None, [path, os.environ.get("PATH", ""), _SYSTEM_PATH]))
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            pass_fds=pass_fds,
            env=environ,
            cwd="/",
        )
    child.returncode = 0  # lest Popen complains that it is left running, as it is meant to be
    # A child that ended at once leaves a zombie with a start time of no further use.
    return Process(
        pid=child.pid,
        start_ticks=_start_ticks(child.pid) or 0,
        boot_id=_boot_id(),
        log=str(log),
    )


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Put off interrupts, so that a process is never started without being recorded."""
    pending: list[tuple[int, FrameType | None]] = []
    kept = {
        number: signal.signal(number, lambda got, frame: pending.append((got, frame)))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)
        for got, _ in pending:
            signal.raise_signal(got)


def tail(log: Path, *, lines: int) -> str:
    """The last lines of a log; empty where there is none."""
    try:
        with log.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - 400 * lines))
            text = file.read().decode(errors="replace")
    except FileNotFoundError:
        return ""
    return "\n".join(text.splitlines()[-lines:])
