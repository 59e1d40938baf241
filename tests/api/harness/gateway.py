"""The gateway as a process, before the tests' API server."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import httpx

from .cluster import Cluster
from .waiting import eventually

__all__ = ["a_gateway"]

_BIN = Path(sys.executable).parent


def _found(saying: re.Pattern[str], log: Path) -> list[str]:
    return saying.findall(log.read_text())


@contextmanager
def a_gateway(cluster: Cluster, log: Path, *flags: str) -> Iterator[httpx.Client]:
    """A client of it; it has read the cluster."""
    at = (f"--kubeconfig={cluster.kubeconfig}", "--host=127.0.0.1", "--port=0", "--http-port=0", "--log-format=json")
    environ = {name: value for name, value in os.environ.items() if not name.startswith("LLAMAMODEL_GATEWAY_")}
    with log.open("wb") as output:
        process = subprocess.Popen([_BIN / "llamamodel-gateway", *at, *flags], stderr=output, env=environ)
    try:
        ports = []
        for what in ("/readyz", "serving models"):
            saying = re.compile(rf"{what} on port (\d+)")
            ports.append(int(eventually(partial(_found, saying, log), what=what)[0]))
        ready = f"http://127.0.0.1:{ports[0]}/readyz"
        eventually(lambda: httpx.get(ready, trust_env=False).status_code == 200, what="the gateway is ready")
        with httpx.Client(base_url=f"http://127.0.0.1:{ports[1]}", trust_env=False, timeout=20) as client:
            yield client
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()
