"""A real llama-server on the loopback interface, started by the tests and ended by them."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

BUILD = "b11669"
_START_TIMEOUT_SEC = 120
_ANSWER_TIMEOUT_SEC = 180

Start = Callable[..., AbstractContextManager["Server"]]


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What the server said."""

    status: int
    body: Any


@dataclass(frozen=True, kw_only=True)
class Server:
    """A llama-server that is ready.

    Attributes:
        log: file with what it has written so far.
        arguments: its command line, without the program.
    """

    url: str
    log: Path
    arguments: tuple[str, ...]

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def post(self, path: str, **body: Any) -> Answer:
        request = urllib.request.Request(  # noqa: S310 (loopback)
            self.url + path, json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=_ANSWER_TIMEOUT_SEC) as answer:  # noqa: S310
                return Answer(status=answer.status, body=json.load(answer))
        except urllib.error.HTTPError as error:
            with error:
                return Answer(status=error.code, body=json.load(error))

    def completion(self, prompt: str, **parameters: Any) -> Answer:
        return self.post("/completion", prompt=prompt, temperature=0, **parameters)

    def prompt_of(self, messages: list[dict[str, Any]], **more: Any) -> str:
        """What the chat template makes of the messages."""
        answer = self.post("/apply-template", messages=messages, **more)
        assert answer.status == 200, answer.body
        prompt: str = answer.body["prompt"]
        return prompt


class NoStartError(Exception):
    """llama-server ended, or was not ready in time; the message is the end of its log."""


def cache_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "llamamodel-operator"


def required(path: Path, *, command: str) -> Path:
    if not path.is_file():
        pytest.fail(f"{path} is not there: run `{command}`", pytrace=False)
    return path


@pytest.fixture(scope="module")
def start_server(tmp_path_factory: pytest.TempPathFactory) -> Start:
    """Starts one with more arguments, for a `with` block, and waits until it is ready, or until it listens.

    LLAMA_SERVER names another binary than the default.
    """
    default = cache_folder() / "servers" / BUILD / "llama-server"
    binary = required(Path(os.environ.get("LLAMA_SERVER") or default), command=f"python3 hack/servers fetch {BUILD}")
    model = required(cache_folder() / "models" / "gemma-3-270m-Q4_K_M.gguf", command="python3 hack/models")

    @contextlib.contextmanager
    def start(*arguments: str, ready: bool = True) -> Iterator[Server]:
        port = free_port()
        log = tmp_path_factory.mktemp("llama-server") / "log"
        argv = [str(binary), "--model", str(model), "--host", "127.0.0.1", "--port", str(port), "--threads", "2"]
        argv += ["--ctx-size", "4096", "--parallel", "1", "--no-warmup", *arguments]
        environment = {
            **os.environ,
            "OMP_WAIT_POLICY": "PASSIVE",
        }  # waiting threads sleep: the machine may have two cores
        with log.open("wb") as output:
            process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment, start_new_session=True
            )
        try:
            _wait(process, port=port, log=log, ready=ready)
            yield Server(url=f"http://127.0.0.1:{port}", log=log, arguments=tuple(argv[1:]))
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    return start


@pytest.fixture(scope="module")
def server(start_server: Start) -> Iterator[Server]:
    """One with its model's own settings."""
    with start_server() as server:
        yield server


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait(process: subprocess.Popen[bytes], *, port: int, log: Path, ready: bool) -> None:
    deadline = time.monotonic() + _START_TIMEOUT_SEC
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
                return
        except urllib.error.HTTPError as error:
            error.close()
            if not ready:
                return
            time.sleep(0.1)
        except (OSError, urllib.error.URLError):
            time.sleep(0.1)
    raise NoStartError(log.read_text(errors="replace")[-2000:])
