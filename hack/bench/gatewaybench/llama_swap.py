"""llama-swap, a proxy for llama-server that others use: got as a Go module, or said why not."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

__all__ = ["NotToBeHadError", "installed", "running"]

MODULE = "github.com/mostlygeek/llama-swap"
_START_SEC, _INSTALL_SEC = 30, 600
_CONFIG = """\
logToStdout: none
captureBuffer: 0
models:
  m:
    cmd: sleep infinity
    proxy: http://{upstream}
    checkEndpoint: none
"""
"""The upstream runs already, so what llama-swap starts does nothing."""


class NotToBeHadError(Exception):
    """Why there is none here."""


def installed() -> Path:
    """The binary, built where it is not there yet. Raises NotToBeHadError."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "llamamodel-operator/bin"
    binary = folder / "llama-swap"
    if binary.exists():
        return binary
    if shutil.which("go") is None:
        raise NotToBeHadError("there is no Go to build it with")
    try:
        done = subprocess.run(
            ["go", "install", f"{MODULE}@latest"],
            env=os.environ | {"GOBIN": str(folder)},
            capture_output=True,
            text=True,
            check=False,
            timeout=_INSTALL_SEC,
        )
    except subprocess.TimeoutExpired:
        raise NotToBeHadError(f"go install was not done within {_INSTALL_SEC} s") from None
    if done.returncode != 0:
        said = " ".join(done.stderr.split())
        raise NotToBeHadError(f"go install {MODULE}@latest: {said[-300:]}")
    return binary


@contextmanager
def running(binary: Path, upstream: str) -> Iterator[tuple[int, int]]:
    """Its process id and port, once it listens, with the upstream (`host:port`) as its model `m`.

    Raises NotToBeHadError where it does not start.
    """
    if not os.access(binary, os.X_OK):
        raise NotToBeHadError(f"{binary} is no program")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with TemporaryDirectory() as folder:
        config = Path(folder) / "config.yaml"
        config.write_text(_CONFIG.format(upstream=upstream), encoding="utf-8")
        process = subprocess.Popen(
            [binary, "-config", config, "-listen", f"127.0.0.1:{port}"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            _wait(process, port)
            yield process.pid, port
        finally:
            process.terminate()  # it ends what it has started
            process.wait()


def _wait(process: subprocess.Popen[bytes], port: int) -> None:
    begun = time.monotonic()
    while process.poll() is None and time.monotonic() - begun < _START_SEC:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
    raise NotToBeHadError(f"it does not listen; exit status {process.poll()}")
