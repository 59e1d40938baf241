"""Pods are asked how much they have to do, and the answer counts when one is picked."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest

from llamamodel_operator.core.gateway.routes import ServedModel, served_model
from support.gateway import GivenDirectory, running_gateway

pytestmark = pytest.mark.real_time

MODEL = ServedModel(namespace="demo", name="m", served_name="m", phase="Ready")
BUSY = "llamacpp:requests_processing 4\nllamacpp:requests_deferred 3\n"
IDLE = "llamacpp:requests_processing 0\nllamacpp:requests_deferred 0\n"


class Pod:
    """Answers requests with its own name, and says how much it has to do."""

    def __init__(self, name: str, metrics: str) -> None:
        self.metrics = metrics
        self.in_pieces = False
        """Its metrics come line by line."""
        self.asked = threading.Semaphore(0)
        pod = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                self._say(name)

            def do_GET(self) -> None:
                assert self.path == "/metrics"
                pod.asked.release()
                self._say(pod.metrics, pieces=pod.metrics.splitlines(keepends=True) if pod.in_pieces else ())

            def _say(self, text: str, pieces: Sequence[str] = ()) -> None:
                self.send_response(200 if text else 501)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                for piece in pieces or (text,):
                    self.wfile.write(piece.encode())
                    time.sleep(0.05 if pieces else 0)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.address = f"127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def end(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@contextmanager
def pods(*metrics: str) -> Iterator[tuple[Pod, ...]]:
    found = tuple(Pod(str(number), text) for number, text in enumerate(metrics))
    try:
        yield found
    finally:
        for pod in found:
            pod.end()


@contextmanager
def client_of(given: tuple[Pod, ...], *, model: ServedModel = MODEL) -> Iterator[httpx.Client]:
    directory = GivenDirectory([model], {"demo/m": [pod.address for pod in given]})
    with (
        running_gateway(directory, load_poll_sec=0.02) as url,
        httpx.Client(base_url=url, timeout=20, trust_env=False) as client,
    ):
        yield client


def who_answers(client: httpx.Client) -> str:
    """To a request that could go to any of them."""
    return client.post("/v1/completions", json={"model": "m"}).text


def until_alone(client: httpx.Client, name: str, *, times: int = 12, most: int = 1000) -> bool:
    """Whether one pod comes to answer so many requests one after the other: by turns it never would."""
    in_a_row = 0
    for _ in range(most):
        in_a_row = in_a_row + 1 if who_answers(client) == name else 0
        if in_a_row == times:
            return True
    return False


def test_a_pod_that_others_keep_busy_is_left_alone_until_it_is_idle() -> None:
    with pods(BUSY, IDLE) as (first, second), client_of((first, second)) as client:
        assert until_alone(client, "1")
        first.metrics, second.metrics = IDLE, BUSY
        assert until_alone(client, "0")


def test_what_a_pod_says_may_come_in_pieces() -> None:
    with pods(BUSY, IDLE) as given, client_of(given) as client:
        for pod in given:
            pod.in_pieces = True
        assert until_alone(client, "1")


def test_a_pod_that_does_not_say_is_judged_by_the_gateways_own_requests() -> None:
    with pods("", IDLE) as given, client_of(given) as client:
        while not given[0].asked.acquire(blocking=False):
            who_answers(client)
        assert {who_answers(client) for _ in range(50)} == {"0", "1"}


def test_nobody_is_asked_where_it_makes_no_difference_or_there_are_no_metrics() -> None:
    without = ServedModel(namespace="demo", name="m", served_name="m", phase="Ready", metrics=False)
    with pods(IDLE, IDLE) as given:
        with client_of(given[:1]) as client:
            assert {who_answers(client) for _ in range(20)} == {"0"}
        with client_of(given, model=without) as client:
            assert {who_answers(client) for _ in range(20)} == {"0", "1"}
        assert not any(pod.asked.acquire(timeout=0.1) for pod in given)


def test_whether_a_model_has_metrics_is_in_its_spec() -> None:
    metadata = {"namespace": "demo", "name": "m"}
    assert served_model({"metadata": metadata}).metrics
    assert not served_model({"metadata": metadata, "spec": {"endpoints": {"metrics": False}}}).metrics
