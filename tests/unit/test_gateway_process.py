"""The gateway as a process: ready once it has read what there is, and how it stops with requests on their way."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from support.gateway import FakeServer, Say, whole

from .builders import ModelBuilder, a_model
from .fake_api import a_kubeconfig

pytestmark = pytest.mark.real_time

SOURCES = str(Path(__file__).parents[2] / "operator")
CHAT = {"model": "demo/gemma", "messages": [{"role": "user", "content": "Hello"}]}


class Cluster:
    """An API server with one LlamaModel, and one pod of it; nothing changes there."""

    def __init__(self, pod: str, model: ModelBuilder) -> None:
        self.answers = threading.Event()
        host, _, port = pod.partition(":")
        pods = {
            "metadata": {
                "namespace": "demo",
                "name": "gemma-1",
                "labels": {"kubernetes.io/service-name": "gemma"},
            },
            "ports": [{"name": "http", "port": int(port)}],
            "endpoints": [{"addresses": [host], "conditions": {"ready": True}}],
        }
        items = {"llamamodels": model.raw(), "endpointslices": pods}
        cluster, self._ended = self, threading.Event()

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                path, _, query = self.path.partition("?")
                cluster.answers.wait()
                self.send_response(200)
                self.end_headers()
                if "watch=true" in query:
                    cluster._ended.wait()
                    return
                listed = {"metadata": {"resourceVersion": "1"}, "items": [items[path.rpartition("/")[2]]]}
                self.wfile.write(json.dumps(listed).encode())

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def end(self) -> None:
        self.answers.set()
        self._ended.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class Gateway:
    """The process."""

    def __init__(self, process: subprocess.Popen[bytes], cluster: Cluster, log: Path) -> None:
        self.process = process
        self.cluster = cluster
        self.log = log
        self.url = self._address("serving models on port")
        self.health = self._address("/readyz on port")

    def _address(self, said: str) -> str:
        eventually(lambda: said in self.log.read_text() or self.process.poll() is not None)
        found = re.search(rf"{said} (\d+)", self.log.read_text())
        assert found, self.log.read_text()
        return f"http://127.0.0.1:{found[1]}"

    def get(self, path: str) -> httpx.Response:
        return httpx.get(f"{self.health}{path}", trust_env=False)

    def is_ready(self) -> bool:
        return self.get("/readyz").status_code == 200


@contextmanager
def gateway(
    tmp_path: Path, say: Say, *, answers: bool = True, model: ModelBuilder | None = None, **settings: object
) -> Iterator[Gateway]:
    """`answers`: whether the API server does from the first."""
    server, log = FakeServer(say), tmp_path / "log"
    cluster = Cluster(server.address, model or a_model())
    if answers:
        cluster.answers.set()
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(json.dumps(a_kubeconfig(cluster.url, namespace="demo")))
    arguments = {"kubeconfig": kubeconfig, "host": "127.0.0.1", "port": 0, "http_port": 0, **settings}
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-c", "from llamamodel_operator.gateway.main import main; main()"],
            env={key: value for key, value in os.environ.items() if not key.lower().endswith("_proxy")}
            | {"PYTHONPATH": SOURCES}
            | {f"LLAMAMODEL_GATEWAY_{name.upper()}": str(value) for name, value in arguments.items()},
            stderr=stderr,
        )
    try:
        yield Gateway(process, cluster, log)
    finally:
        process.kill()
        process.wait()
        cluster.end()
        server.end()


def eventually(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.02)


def refused(url: str) -> bool:
    try:
        httpx.get(f"{url}/v1/models", trust_env=False)
    except httpx.ConnectError:
        return True
    return False


def events_until(release: threading.Event) -> Say:
    """One event, and another one when it may."""

    def say(handler: BaseHTTPRequestHandler, body: bytes) -> None:
        if b'"stream"' not in body:
            release.wait(60)
            whole(200, "{}")(handler, body)
            return
        handler.send_response(200)
        handler.send_header("Content-Type", "text/event-stream")
        handler.end_headers()
        handler.close_connection = True
        handler.wfile.write(b'data: {"a":1}\n\n')
        release.wait(60)
        handler.wfile.write(b"data: [DONE]\n\n")

    return say


def test_it_is_ready_once_it_has_read_what_there_is(tmp_path: Path) -> None:
    with gateway(tmp_path, whole(200, "{}"), answers=False) as process:
        assert process.get("/healthz").status_code == 200
        assert not process.is_ready()
        assert "llamamodel_gateway_synced 0.0" in process.get("/metrics").text
        process.cluster.answers.set()
        eventually(process.is_ready)
        assert process.get("/readyz").text == "directory: ok\nrunning: ok\n"
        assert "llamamodel_gateway_synced 1.0" in process.get("/metrics").text


def test_when_it_is_to_stop_it_is_not_ready_and_serves_whoever_has_not_heard_of_it(tmp_path: Path) -> None:
    with (
        gateway(tmp_path, whole(200, "{}"), stop_delay_sec=600) as process,
        httpx.Client(base_url=process.url, trust_env=False) as client,
    ):
        eventually(process.is_ready)
        assert "connection" not in client.post("/v1/chat/completions", json=CHAT).headers
        process.process.send_signal(signal.SIGTERM)
        eventually(lambda: not process.is_ready())
        assert process.get("/readyz").text == "directory: ok\nrunning: it is about to stop\n"
        assert process.get("/healthz").status_code == 200
        kept = client.post("/v1/chat/completions", json=CHAT)
        other = client.post("/v1/chat/completions", json=CHAT)
        eventually(lambda: process.log.read_text().count("gateway.access_log") == 3)
        lines = [json.loads(line) for line in process.log.read_text().splitlines()]
    answers = [(answer.status_code, answer.headers["connection"]) for answer in (kept, other)]
    assert answers == [(200, "close")] * 2
    assert [line["status"] for line in lines if line["logger"] == "gateway.access_log"] == [200] * 3


def test_a_stream_that_is_on_its_way_comes_to_its_end(tmp_path: Path) -> None:
    release = threading.Event()
    with (
        gateway(tmp_path, events_until(release), stop_delay_sec=0, drain_sec=600) as process,
        httpx.Client(base_url=process.url, timeout=60, trust_env=False) as client,
    ):
        eventually(process.is_ready)
        with client.stream("POST", "/v1/chat/completions", json={**CHAT, "stream": True}) as response:
            pieces = response.iter_bytes()
            got = next(pieces)
            process.process.send_signal(signal.SIGTERM)
            eventually(lambda: refused(process.url))
            release.set()
            got += b"".join(pieces)
        assert process.process.wait(60) == 0
    assert got == b'data: {"a":1}\n\ndata: [DONE]\n\n'


def test_what_takes_longer_than_it_may_wait_is_told_so(tmp_path: Path) -> None:
    whole_answer: list[httpx.Response] = []

    def ask() -> None:
        whole_answer.append(httpx.post(f"{url}/v1/chat/completions", json=CHAT, timeout=60, trust_env=False))

    release = threading.Event()
    with (
        gateway(tmp_path, events_until(release), stop_delay_sec=0, drain_sec=0) as process,
        httpx.Client(base_url=process.url, timeout=60, trust_env=False) as client,
    ):
        url = process.url
        eventually(process.is_ready)
        asking = threading.Thread(target=ask)
        asking.start()
        with client.stream("POST", "/v1/chat/completions", json={**CHAT, "stream": True}) as response:
            pieces = response.iter_bytes()
            got = next(pieces)
            running = 'requests_in_flight{model="gemma",namespace="demo"} 2.0'
            eventually(lambda: running in process.get("/metrics").text)
            process.process.send_signal(signal.SIGTERM)
            got += b"".join(pieces)
        asking.join()
        assert process.process.wait(60) == 0
        release.set()
    first, last = got.removesuffix(b"\n\n").split(b"\n\n")
    assert first == b'data: {"a":1}'
    assert json.loads(last.removeprefix(b"data: "))["error"]["code"] == "gateway_stopping"
    (answer,) = whole_answer
    error: dict[str, Any] = answer.json()["error"]
    assert (answer.status_code, error["code"], answer.headers["connection"]) == (503, "gateway_stopping", "close")


def test_what_only_the_operator_needs_is_not_loaded() -> None:
    script = "import sys, llamamodel_operator.gateway.main; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", script], env=os.environ | {"PYTHONPATH": SOURCES}, capture_output=True, check=True
    )
    found = {name.partition(".")[0] for name in loaded.stdout.decode().split()}
    assert "aiohttp" in found
    assert not found & {"cryptography", "jinja2", "kopf"}


def test_keys_of_pods_are_read_from_their_folder(tmp_path: Path) -> None:
    def say(handler: BaseHTTPRequestHandler, body: bytes) -> None:
        whole(200, json.dumps({"shown": handler.headers.get("Authorization")}))(handler, body)

    keys = tmp_path / "keys"
    keys.mkdir()
    (keys / "demo").write_text("secret\n")
    locked = a_model().with_spec(apiKeySecretRef={"name": "llama-keys"})
    with gateway(tmp_path, say, model=locked, pod_keys_dir=keys) as process:
        eventually(process.is_ready)
        answer = httpx.post(f"{process.url}/v1/chat/completions", json=CHAT, trust_env=False)
        assert answer.json() == {"shown": "Bearer secret"}
