"""The gateway shows the key of a namespace to pods of its models that want it, and to nobody else."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest

from llamamodel_operator.core.gateway.routes import ServedModel, served_model
from llamamodel_operator.core.gateway.waits import WaitLimits
from support.gateway import CHAT, GEMMA, GivenDirectory, error_of, running_gateway

from .builders import a_model

pytestmark = pytest.mark.real_time

LOCKED = replace(GEMMA, locked=True)


class Pod:
    """A server that wants a key; empty: it wants none. It remembers the keys that it was shown, by method and path."""

    def __init__(self, key: str = "", *, metrics_at: str = "") -> None:
        self.shown: list[tuple[str, str | None]] = []
        self.metrics_asked = threading.Event()
        pod = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                self._say(b"{}")

            def do_GET(self) -> None:
                if metrics_at:
                    self.send_response(302)
                    self.send_header("Location", metrics_at)
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                else:
                    self._say(b"llamacpp:requests_processing 0\n")
                pod.metrics_asked.set()

            def _say(self, text: bytes) -> None:
                shown = self.headers.get("Authorization")
                pod.shown.append((f"{self.command} {self.path}", shown))
                refused = bool(key) and shown != f"Bearer {key}"
                body = json.dumps({"error": {"code": 401, "message": "Invalid API Key"}}).encode() if refused else text
                self.send_response(401 if refused else 200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.address = f"127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def end(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def a_pod() -> Iterator[Callable[..., Pod]]:
    made: list[Pod] = []

    def make(key: str = "", *, metrics_at: str = "") -> Pod:
        made.append(Pod(key, metrics_at=metrics_at))
        return made[-1]

    yield make
    for pod in made:
        pod.end()


@contextmanager
def client_of(
    *pods: Pod, model: ServedModel = LOCKED, keys: Mapping[str, str], load_poll_sec: float = 0
) -> Iterator[httpx.Client]:
    directory = GivenDirectory([model], {"demo/gemma": [pod.address for pod in pods]})
    with (
        running_gateway(directory, pod_key=keys.get, load_poll_sec=load_poll_sec) as url,
        httpx.Client(base_url=url, timeout=20, trust_env=False) as client,
    ):
        yield client


def test_a_request_comes_with_the_key_of_the_models_namespace(a_pod: Callable[..., Pod]) -> None:
    pod = a_pod("secret")
    with client_of(pod, keys={"demo": "secret", "other": "theirs"}) as client:
        for headers in ({}, {"Authorization": "Bearer client", "X-Api-Key": "client"}):
            assert client.post("/v1/chat/completions", json=CHAT, headers=headers).status_code == 200
    assert pod.shown == [("POST /v1/chat/completions", "Bearer secret")] * 2


def test_a_pod_of_a_model_that_wants_none_is_not_shown_it(a_pod: Callable[..., Pod]) -> None:
    pod = a_pod()
    with client_of(pod, model=GEMMA, keys={"demo": "secret"}) as client:
        assert client.post("/v1/chat/completions", json=CHAT).status_code == 200
    assert pod.shown == [("POST /v1/chat/completions", None)]


@pytest.mark.parametrize(("keys", "shown"), [({"demo": "wrong"}, "Bearer wrong"), ({"other": "secret"}, None)])
def test_without_the_key_a_request_is_refused_once_no_pod_takes_it(
    a_pod: Callable[..., Pod], keys: dict[str, str], shown: str | None
) -> None:
    first, second = a_pod("secret"), a_pod("secret")
    with client_of(first, second, keys=keys) as client:
        response = client.post("/v1/chat/completions", json=CHAT)
    assert (response.status_code, error_of(response)["code"]) == (502, "upstream_wants_key")
    assert [pod.shown for pod in (first, second)] == [[("POST /v1/chat/completions", shown)]] * 2


def test_a_key_holds_from_the_next_request_on(a_pod: Callable[..., Pod]) -> None:
    pod, keys = a_pod("secret"), {"demo": "old"}
    with client_of(pod, keys=keys) as client:
        assert client.post("/v1/chat/completions", json=CHAT).status_code == 502
        keys["demo"] = "secret"
        assert client.post("/v1/chat/completions", json=CHAT).status_code == 200


@pytest.mark.parametrize(("before", "after", "shown"), [(GEMMA, LOCKED, "Bearer secret"), (LOCKED, GEMMA, None)])
def test_after_a_wait_what_the_model_says_now_counts(
    a_pod: Callable[..., Pod], before: ServedModel, after: ServedModel, shown: str | None
) -> None:
    pod = a_pod("secret" if shown else "")
    directory = GivenDirectory([replace(before, phase="Loading")], {})
    with (
        running_gateway(directory, pod_key={"demo": "secret"}.get, waits=WaitLimits(longest_sec=60)) as url,
        httpx.Client(base_url=url, timeout=20, trust_env=False) as client,
        ThreadPoolExecutor(1) as pool,
    ):
        asked = pool.submit(client.post, "/v1/chat/completions", json=CHAT)
        while directory.loop is None:
            time.sleep(0.01)
        directory.give({"demo/gemma": [pod.address]}, models=[after])
        assert asked.result().status_code == 200
    assert pod.shown == [("POST /v1/chat/completions", shown)]


def test_what_pods_have_to_do_is_asked_with_the_key(a_pod: Callable[..., Pod]) -> None:
    pods = a_pod("secret"), a_pod("secret")
    with client_of(*pods, keys={"demo": "secret"}, load_poll_sec=0.02) as client:
        while not all(pod.metrics_asked.is_set() for pod in pods):
            assert client.post("/v1/chat/completions", json=CHAT).status_code == 200
    assert {shown for pod in pods for _, shown in pod.shown} == {"Bearer secret"}


def test_a_pod_cannot_have_it_carried_elsewhere(a_pod: Callable[..., Pod]) -> None:
    elsewhere = a_pod()
    pods = [a_pod("secret", metrics_at=f"http://{elsewhere.address}/metrics") for _ in range(2)]
    with client_of(*pods, keys={"demo": "secret"}, load_poll_sec=0.02) as client:
        while not all(pod.metrics_asked.is_set() for pod in pods):
            assert client.post("/v1/chat/completions", json=CHAT).status_code == 200
        for pod in pods:
            pod.metrics_asked.clear()
        while not all(pod.metrics_asked.is_set() for pod in pods):  # the round before is over
            assert client.post("/v1/chat/completions", json=CHAT).status_code == 200
    assert elsewhere.shown == []


def test_whether_servers_want_it_is_in_the_spec() -> None:
    assert served_model(a_model().with_spec(apiKeySecretRef={"name": "llama-keys"}).raw()).locked
    assert not served_model(a_model().raw()).locked
