"""The gateway shows the key of a namespace to pods of its models that want it, and to nobody else."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler

import httpx
import pytest

from llamamodel_operator.core.gateway.routes import ServedModel, served_model
from llamamodel_operator.core.gateway.waits import WaitLimits
from support.gateway import CHAT, GEMMA, FakeServer, GivenDirectory, Say, error_of, running_gateway, whole

from .builders import a_model

pytestmark = pytest.mark.real_time

LOCKED = replace(GEMMA, locked=True)
REFUSED = whole(401, json.dumps({"error": {"code": 401, "message": "Invalid API Key"}}))


class Pod(FakeServer):
    """A server that wants a key; empty: it wants none. It remembers the keys that it was shown, by method and path."""

    def __init__(self, key: str = "", *, metrics_at: str = "") -> None:
        """`metrics_at`: where it sends who asks for its metrics."""
        self.shown: list[tuple[str, str | None]] = []
        self.metrics_asked = threading.Event()
        self._key, self._metrics_at = key, metrics_at
        super().__init__(self._locked(whole(200, "{}")), get=self._say_metrics)

    def _locked(self, say: Say) -> Say:
        def answer(handler: BaseHTTPRequestHandler, body: bytes) -> None:
            shown = handler.headers.get("Authorization")
            self.shown.append((f"{handler.command} {handler.path}", shown))
            (say if shown == f"Bearer {self._key}" or not self._key else REFUSED)(handler, body)

        return answer

    def _say_metrics(self, handler: BaseHTTPRequestHandler, body: bytes) -> None:
        if self._metrics_at:
            handler.send_response(302)
            handler.send_header("Location", self._metrics_at)
            handler.send_header("Content-Length", "0")
            handler.end_headers()
        else:
            self._locked(whole(200, "llamacpp:requests_processing 0\n", "text/plain"))(handler, body)
        self.metrics_asked.set()


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
