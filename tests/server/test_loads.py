"""What a real llama-server says it has to do is what it was given."""

from __future__ import annotations

import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor

from llamamodel_operator.core.gateway.picking import others_load

from .conftest import Server, Start

_PATIENCE_SEC = 60


def load_of(server: Server, *, own: int = 0) -> int | None:
    with urllib.request.urlopen(f"{server.url}/metrics", timeout=30) as answer:  # noqa: S310 (loopback)
        return others_load(answer.read(), own=own)


def test_requests_that_are_worked_on_and_those_that_wait_count(start_server: Start) -> None:
    with start_server("--metrics", "--parallel", "1") as server, ThreadPoolExecutor(3) as pool:
        assert load_of(server) == 0
        answers = [pool.submit(server.completion, "Hi", n_predict=60, ignore_eos=True) for _ in range(3)]
        end = time.monotonic() + _PATIENCE_SEC
        while (load := load_of(server)) != 3 and time.monotonic() < end:
            time.sleep(0.02)
        assert load == 3, "one in the slot, two that wait"
        assert {answer.result().status for answer in answers} == {200}
        assert load_of(server) == 0
