"""Pods are asked how much they have to do, and the answer counts when one is picked."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler

import httpx
import pytest

from llamamodel_operator.core.gateway.routes import ServedModel, served_model
from support.gateway import FakeServer, GivenDirectory, running_gateway, whole

pytestmark = pytest.mark.real_time

MODEL = ServedModel(namespace="demo", name="m", served_name="m", phase="Ready")
BUSY = "llamacpp:requests_processing 4\nllamacpp:requests_deferred 3\n"
IDLE = "llamacpp:requests_processing 0\nllamacpp:requests_deferred 0\n"


class Pod(FakeServer):
    """Answers requests with its own name, and says how much it has to do."""

    def __init__(self, name: str, metrics: str) -> None:
        self.metrics = metrics
        self.in_pieces = False
        """Its metrics come line by line."""
        self.metrics_asked = threading.Semaphore(0)
        super().__init__(whole(200, name), get=self._say_metrics)

    def _say_metrics(self, handler: BaseHTTPRequestHandler, _: bytes) -> None:
        assert handler.path == "/metrics"
        self.metrics_asked.release()
        handler.send_response(200 if self.metrics else 501)
        handler.send_header("Content-Length", str(len(self.metrics)))
        handler.end_headers()
        for piece in self.metrics.splitlines(keepends=True) if self.in_pieces else [self.metrics]:
            handler.wfile.write(piece.encode())
            time.sleep(0.05 if self.in_pieces else 0)


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
        while not given[0].metrics_asked.acquire(blocking=False):
            who_answers(client)
        assert {who_answers(client) for _ in range(50)} == {"0", "1"}


def test_nobody_is_asked_where_it_makes_no_difference_or_there_are_no_metrics() -> None:
    without = ServedModel(namespace="demo", name="m", served_name="m", phase="Ready", metrics=False)
    with pods(IDLE, IDLE) as given:
        with client_of(given[:1]) as client:
            assert {who_answers(client) for _ in range(20)} == {"0"}
        with client_of(given, model=without) as client:
            assert {who_answers(client) for _ in range(20)} == {"0", "1"}
        assert not any(pod.metrics_asked.acquire(timeout=0.1) for pod in given)


def test_whether_a_model_has_metrics_is_in_its_spec() -> None:
    metadata = {"namespace": "demo", "name": "m"}
    assert served_model({"metadata": metadata}).metrics
    assert not served_model({"metadata": metadata, "spec": {"endpoints": {"metrics": False}}}).metrics
