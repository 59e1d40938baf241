"""A llama-server on the loopback interface, with the command line that the operator gives it."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from llamamodel_operator.api.llamamodel import LlamaModel
from llamamodel_operator.core.engine.argv import build_arguments
from llamamodel_operator.core.engine.catalogues import shipped_catalogues
from llamamodel_operator.core.engine.settings import Inputs, TextPaths

__all__ = ["BUILD", "Server", "fetched_model", "fetched_server", "rendered", "started"]

ROOT = Path(__file__).resolve().parents[3]
BUILD = 11669
_START_TIMEOUT_SEC = 600


@dataclass(frozen=True, kw_only=True)
class Server:
    """One that is ready.

    Attributes:
        pid: of its process.
        port: on 127.0.0.1.
        start_sec: from the start of the process until /health answered 200.
    """

    pid: int
    port: int
    start_sec: float

    def ask(self, path: str, **body: Any) -> Any:
        """The JSON of an answer, of a GET where there is no body; exits where it is none with status 200."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=600)
        with contextlib.closing(connection):
            connection.request("POST" if body else "GET", path, json.dumps(body) if body else None)
            response = connection.getresponse()
            text = response.read()
        if response.status != 200:
            sys.exit(f"{path}: expected status 200, found {response.status}: {text[:500].decode(errors='replace')}")
        return json.loads(text)


def fetched_server() -> Path:
    """The binary; fetched where it is not there."""
    return Path(_tool("hack/servers", "fetch", f"b{BUILD}").splitlines()[-1])


def fetched_model() -> Path:
    """Gemma 3 270M; fetched where it is not there."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(_tool("hack/models", "fetch", "gemma3-270m", "--into", str(cache / "llamamodel-operator/models")))


def rendered(model: Path, **spec: Any) -> tuple[str, ...]:
    """The arguments that the operator gives the server, for a file that lies here."""
    source = {"pvc": {"claimName": "models", "path": model.name}}
    raw = {
        "metadata": {"name": "bench", "namespace": "default", "uid": "1", "generation": 1},
        "spec": {"model": source, **spec},
    }
    inputs = Inputs(model=LlamaModel.parse(raw), path=lambda _: str(model), texts=TextPaths())
    return build_arguments(inputs, catalogue=shipped_catalogues().get(BUILD)).words


@contextlib.contextmanager
def started(binary: Path, arguments: Sequence[str]) -> Iterator[Server]:
    """Starts one, waits until it is ready, and ends it."""
    port = _free_port()
    words = list(arguments)
    words[words.index("--host") + 1], words[words.index("--port") + 1] = "127.0.0.1", str(port)
    environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE"}  # as the operator has it for models without a GPU
    with TemporaryFile() as log:
        begun = time.monotonic()
        process = subprocess.Popen([binary, *words], stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment)
        try:
            while not _is_healthy(port):
                if process.poll() is not None or time.monotonic() - begun > _START_TIMEOUT_SEC:
                    log.seek(0)
                    sys.exit(f"llama-server did not start: {log.read()[-3000:].decode(errors='replace')}")
                time.sleep(0.005)
            yield Server(pid=process.pid, port=port, start_sec=time.monotonic() - begun)
        finally:
            process.kill()
            process.wait()


def _is_healthy(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException):
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _tool(*arguments: str) -> str:
    done = subprocess.run([sys.executable, *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{' '.join(arguments)} failed, see its output")
    return done.stdout.strip()
