"""An api-only cluster of the benchmark's own (etcd and kube-apiserver), started by `hack/cluster` and removed again."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from .errors import BenchError
from .progress import Progress

__all__ = ["Cluster", "own_cluster"]

_HACK_CLUSTER = Path(__file__).resolve().parents[2] / "cluster"
_UP_TIMEOUT_SEC = 3600.0  # the very first one builds its binaries
_DOWN_TIMEOUT_SEC = 60.0
_NO_SUCH_CLUSTER = 3


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """A running API server.

    Attributes:
        kubeconfig: of an administrator.
        audit_log: where every write is recorded, one JSON document a line.
        pids: process ids by component: etcd, kube-apiserver.
    """

    kubeconfig: Path
    audit_log: Path
    pids: dict[str, int]


@contextmanager
def own_cluster(name: str, *, progress: Progress) -> Iterator[Cluster]:
    """A fresh cluster; it is gone when this is left, however it is left.

    Raises:
        BenchError: there is one of that name already, or it does not start.
    """
    if _call("status", "--name", name, timeout_sec=_DOWN_TIMEOUT_SEC).returncode != _NO_SUCH_CLUSTER:
        raise BenchError(
            f"there is a cluster {name!r} already, of another run or of one that was killed; remove it with "
            f"'python3 hack/cluster down --name {name}', or choose another with --cluster"
        )
    try:
        progress.say(f"starting etcd and kube-apiserver (cluster {name!r})")
        up = _call("up", "--name", name, "--mode", "api-only", "-o", "json", timeout_sec=_UP_TIMEOUT_SEC)
        if up.returncode != 0:
            raise BenchError(f"the cluster does not start: {up.stderr.strip()}")
        found = json.loads(up.stdout)
        yield Cluster(
            kubeconfig=Path(found["kubeconfig"]),
            audit_log=Path(found["auditLog"]),
            pids={component: state["pid"] for component, state in found["components"].items()},
        )
    finally:
        down = _call("down", "--name", name, timeout_sec=_DOWN_TIMEOUT_SEC)
        progress.say("the cluster is gone" if down.returncode == 0 else f"the cluster stays: {down.stderr.strip()}")


def _call(*arguments: str, timeout_sec: float) -> subprocess.CompletedProcess[str]:
    """Runs hack/cluster in a session of its own, so that Ctrl-C in a terminal does not cut a clean-up short."""
    command: Sequence[str] = (sys.executable, str(_HACK_CLUSTER), *arguments)
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        try:
            output, errors = process.communicate(timeout=timeout_sec)
        except BaseException as error:
            process.terminate()  # and not killed: it records what it starts
            process.communicate(timeout=_DOWN_TIMEOUT_SEC)
            if isinstance(error, subprocess.TimeoutExpired):
                raise BenchError(f"'hack/cluster {arguments[0]}' does not end within {timeout_sec:.0f} s") from None
            raise
    return subprocess.CompletedProcess(command, process.returncode, output, errors)
