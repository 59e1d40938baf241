"""Requests for models without a pod: which may wait, for how long, and what they are told."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler
from itertools import count
from typing import Any

import httpx
import pytest

from llamamodel_operator.core.gateway.routes import ServedModel, Target, build_routes, served_model
from llamamodel_operator.core.gateway.waits import WaitLimits, asked_wait_sec, on_its_way, retry_after_sec
from support.gateway import FakeServer, GivenDirectory, Say, error_of, running_gateway, stream, whole

NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)
LOADING = ServedModel(namespace="demo", name="m", served_name="m", phase="Loading", adapters=("sql",))
SUSPENDED = ServedModel(namespace="demo", name="m", served_name="m", phase="Suspended", reason="Suspended")
CHAT = {"model": "m", "messages": []}
PATIENT = WaitLimits(longest_sec=60, quiet_sec=60)
TALKATIVE = WaitLimits(longest_sec=60, quiet_sec=0.05, comment_sec=0.05)


def a_model(phase: str, **more: Any) -> ServedModel:
    return ServedModel(namespace="demo", name="m", served_name="m", phase=phase, **more)


# --- what is decided


@pytest.mark.parametrize(
    ("phase", "progressing", "expected"),
    [
        ("", False, True),
        ("Pending", True, True),
        ("Pending", False, False),
        ("Loading", True, True),
        ("Updating", False, True),
        ("Ready", False, True),
        ("Failed", False, False),
        ("Failed", True, True),
        ("Suspended", True, False),
    ],
)
def test_a_model_is_on_its_way_where_nobody_needs_to_do_anything(phase: str, progressing: bool, expected: bool) -> None:
    assert on_its_way(a_model(phase, progressing=progressing)) is expected


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (a_model("Loading", startup_deadline="2026-06-01T12:02:05Z", startup_timeout_sec=300), 125),
        (a_model("Loading", startup_deadline="2026-06-01T11:59:00Z"), 1),
        (a_model("Loading", startup_deadline="2026-06-02T12:00:00Z"), 600),
        (a_model("Pending", startup_timeout_sec=300), 300),
        (a_model("Pending", startup_timeout_sec=7200), 600),
        (a_model("Pending"), 10),
        (a_model("", startup_timeout_sec=300), 10),
        (a_model("Ready", startup_timeout_sec=300), 10),
    ],
)
def test_another_try_is_worth_it_when_the_startup_budget_is_over(model: ServedModel, expected: int) -> None:
    assert retry_after_sec(model, now=NOON) == expected


@pytest.mark.parametrize(
    ("header", "expected"),
    [(None, 30), ("0", 0), ("5", 5), ("2.5", 2.5), ("100", 30), ("-1", 0), ("", None), ("long", None), ("nan", None)],
)
def test_a_request_may_ask_for_less_than_the_longest_wait(header: str | None, expected: float | None) -> None:
    assert asked_wait_sec(header, longest_sec=30) == expected


def test_what_waits_stays_with_its_model_and_adapter_whatever_becomes_of_the_name() -> None:
    first, second = (ServedModel(namespace=n, name="m", served_name="m", adapters=("a", "b")) for n in ("one", "two"))
    target = Target(model=first, adapter=1)
    moved = ServedModel(namespace="one", name="m", served_name="other", adapters=("b",))
    assert build_routes([moved, second]).again(target) == Target(model=moved, adapter=0)
    assert build_routes([moved, second]).again(Target(model=first)) == Target(model=moved)
    assert build_routes([second]).again(target) is None
    assert build_routes([a_model(""), second]).again(target) is None


def test_the_operators_status_says_until_when_and_whether() -> None:
    status = {
        "startupDeadline": "2026-06-01T12:02:05Z",
        "conditions": [{"type": "Progressing", "status": "True"}, {"type": "Ready", "reason": "Loading"}],
    }
    model = served_model({"metadata": {"namespace": "demo", "name": "m"}, "status": status})
    assert (model.progressing, model.startup_deadline, model.reason) == (True, "2026-06-01T12:02:05Z", "Loading")
    assert served_model({"metadata": {"namespace": "demo", "name": "m"}}).progressing is False


# --- what is done


class Loading:
    """A gateway with one model that loads, and a client of it."""

    def __init__(
        self, client: httpx.Client, directory: GivenDirectory, server: FakeServer, asked: Iterator[int]
    ) -> None:
        self.client = client
        self.directory = directory
        self.server = server
        self._asked = asked
        self.commented = threading.Semaphore(0)

    def post(self, path: str = "/v1/chat/completions", **more: Any) -> httpx.Response:
        return self.client.post(path, json={**CHAT, **more})

    def until_asked(self, times: int) -> None:
        """The gateway has looked for pods so often: a request that looks twice waits."""
        while next(self._asked) < times:
            pass

    def stream(self, path: str) -> tuple[int, str]:
        """Status and text of a stream; `commented` tells of each comment in it."""
        said = ""
        with self.client.stream("POST", path, json={**CHAT, "stream": True}) as response:
            for text in response.iter_text():
                said += text
                for _ in range(text.count(": waiting")):
                    self.commented.release()
        return response.status_code, said

    def until_commented(self, times: int = 1) -> None:
        """A stream has had so many comments."""
        for _ in range(times):
            assert self.commented.acquire(timeout=10), "nobody is told anything"

    def is_ready(self, *models: ServedModel) -> None:
        self.directory.give({"demo/m": [self.server.address]}, models=models or None)


class WatchedDirectory(GivenDirectory):
    """Tells how often somebody looked for pods."""

    def __init__(self, models: list[ServedModel]) -> None:
        super().__init__(models, {})
        self.looks = threading.Semaphore(0)

    def addresses(self, model: ServedModel) -> tuple[str, ...]:
        found = super().addresses(model)
        self.looks.release()
        return found

    def each(self) -> Iterator[int]:
        for number in count(1):
            assert self.looks.acquire(timeout=10), "nobody looks for pods"
            yield number


@contextmanager
def loading(
    waits: WaitLimits, *, say: Say | None = None, model: ServedModel = LOADING, **more: Any
) -> Iterator[Loading]:
    server, directory = FakeServer(say or whole(200, "{}")), WatchedDirectory([model])
    try:
        with (
            running_gateway(directory, waits=waits, **more) as url,
            httpx.Client(base_url=url, timeout=20, trust_env=False) as client,
        ):
            yield Loading(client, directory, server, directory.each())
    finally:
        server.end()


pytestmark = pytest.mark.real_time


def test_a_request_waits_until_the_model_is_ready() -> None:
    with loading(PATIENT) as it, ThreadPoolExecutor() as pool:
        answer = pool.submit(it.post)
        it.until_asked(2)
        it.is_ready()
        assert answer.result(20).status_code == 200
    ((path, _, body),) = it.server.asked
    assert (path, json.loads(body)) == ("/v1/chat/completions", CHAT)


def test_what_has_waited_is_sent_as_the_model_is_by_then() -> None:
    with loading(PATIENT) as it, ThreadPoolExecutor() as pool:
        answer = pool.submit(it.post, model="m:sql")
        it.until_asked(2)
        it.is_ready(a_model("Ready", adapters=("pirate", "sql")))
        assert answer.result(20).status_code == 200
    assert json.loads(it.server.asked[0][2])["lora"] == [{"id": 0, "scale": 0.0}, {"id": 1, "scale": 1.0}]


@pytest.mark.parametrize(
    ("models", "status", "code"),
    [([SUSPENDED], 503, "model_unavailable"), ([], 404, "model_not_found")],
    ids=["suspended", "deleted"],
)
def test_a_wait_ends_when_the_model_will_not_come(models: list[ServedModel], status: int, code: str) -> None:
    with loading(PATIENT) as it, ThreadPoolExecutor() as pool:
        answer = pool.submit(it.post)
        it.until_asked(2)
        it.directory.give({}, models=models)
        assert (answer.result(20).status_code, error_of(answer.result())["code"]) == (status, code)


def says(*answers: Say) -> Say:
    """One after the other; the last one again and again."""
    left = list(answers)
    return lambda handler, body: (left.pop(0) if len(left) > 1 else left[0])(handler, body)


LOADS = whole(503, '{"error":{"code":503,"message":"Loading model","type":"unavailable_error"}}')
WANTS_KEY = whole(401, '{"error":{"code":401,"message":"Invalid API Key","type":"authentication_error"}}')


def nobodys_address() -> str:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        return f"127.0.0.1:{closed.getsockname()[1]}"


def test_where_all_known_pods_are_gone_a_request_waits_for_another_one() -> None:
    with loading(PATIENT) as it, ThreadPoolExecutor() as pool:
        it.directory.given = {"demo/m": [nobodys_address()]}
        answer = pool.submit(it.post)
        it.until_asked(4)
        it.is_ready()
        assert answer.result(20).status_code == 200
    assert len(it.server.asked) == 1


def test_a_pod_that_loads_anew_is_asked_again_although_nobody_tells_of_it() -> None:
    limits = WaitLimits(longest_sec=60, again_sec=0.05)
    with loading(limits, say=says(LOADS, LOADS, LOADS, whole(200, "{}"))) as it:
        it.directory.given = {"demo/m": [it.server.address]}
        assert it.post().status_code == 200
    assert [json.loads(body) for _, _, body in it.server.asked] == [CHAT] * 4


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("there", "status", "code"), [(False, 502, "upstream_died"), (True, 503, "model_loading")])
def test_where_no_pod_takes_it_in_time_a_request_gets_the_error_that_it_would_have_had(
    there: bool, status: int, code: str, stream: bool
) -> None:
    with loading(WaitLimits(longest_sec=0.2, again_sec=0.05), say=LOADS) as it:
        it.directory.given = {"demo/m": [it.server.address if there else nobodys_address()]}
        answer = it.post(stream=stream)
        assert (answer.status_code, error_of(answer)["code"]) == (status, code)
        it.until_asked(5)  # more often than it takes to ask once


def test_a_pod_that_will_not_take_it_later_either_is_not_waited_for() -> None:
    with loading(PATIENT, say=WANTS_KEY) as it:
        it.directory.given = {"demo/m": [it.server.address]}
        assert error_of(it.post())["code"] == "upstream_wants_key"
        it.directory.given = {"demo/m": [it.server.address, nobodys_address()]}
        refused = it.client.post("/v1/completions", json=CHAT, headers={"x-llamamodel-wait": "0"})
        assert error_of(refused)["code"] == "upstream_wants_key"


class Turns:
    """What a pod says that answers one request whenever the test lets it; `most` were with it at a time."""

    def __init__(self) -> None:
        self.begun = threading.Semaphore(0)
        self.go = threading.Semaphore(0)
        self.most = 0
        self._now = 0
        self._lock = threading.Lock()

    def say(self, handler: BaseHTTPRequestHandler, body: bytes) -> None:
        with self._lock:
            self._now += 1
            self.most = max(self.most, self._now)
        self.begun.release()
        assert self.go.acquire(timeout=20)
        with self._lock:
            self._now -= 1
        whole(200, "{}")(handler, body)


def test_those_who_waited_for_a_model_are_let_in_as_its_pods_have_places_and_others_are_refused() -> None:
    turns = Turns()
    with loading(PATIENT, say=turns.say, max_in_flight_per_pod=2) as it, ThreadPoolExecutor() as pool:
        answers = [pool.submit(it.post) for _ in range(5)]
        it.until_asked(10)
        it.is_ready()
        for _ in range(2):
            assert turns.begun.acquire(timeout=20)
        late = it.post()
        assert (late.status_code, error_of(late)["code"]) == (429, "rate_limit_exceeded")
        for _ in range(5):
            turns.go.release()
        assert [answer.result(20).status_code for answer in answers] == [200] * 5
    assert turns.most == 2


def test_who_waits_for_a_place_waits_no_longer_than_for_a_pod() -> None:
    turns = Turns()
    limits = WaitLimits(longest_sec=60)
    with loading(limits, say=turns.say, max_in_flight_per_pod=1) as it, ThreadPoolExecutor() as pool:
        first = pool.submit(it.post)
        it.until_asked(2)
        second = pool.submit(it.client.post, "/v1/completions", json=CHAT, headers={"x-llamamodel-wait": "0.5"})
        it.until_asked(4)
        it.is_ready()
        assert (second.result(20).status_code, error_of(second.result())["code"]) == (429, "rate_limit_exceeded")
        turns.go.release()
        assert first.result(20).status_code == 200
    assert len(it.server.asked) == 1


def test_a_pod_that_is_full_and_one_that_loads_are_both_asked_when_they_may_take_it() -> None:
    turns = Turns()
    limits = WaitLimits(longest_sec=60, again_sec=0.05)
    loads = FakeServer(says(LOADS, LOADS, LOADS, LOADS, whole(200, "{}")))
    try:
        with loading(limits, say=turns.say, max_in_flight_per_pod=1) as it, ThreadPoolExecutor() as pool:
            first = pool.submit(it.post)
            it.until_asked(2)
            it.is_ready()
            assert turns.begun.acquire(timeout=20)
            it.directory.give({})
            second = pool.submit(it.post)
            it.until_asked(7)  # 3 are of the first, which was let in
            it.directory.give({"demo/m": [it.server.address, loads.address]})
            assert second.result(20).status_code == 200
            turns.go.release()
            assert first.result(20).status_code == 200
    finally:
        loads.end()
    assert len(loads.asked) == 5


def test_what_a_server_may_have_worked_on_does_not_wait() -> None:
    def dies(handler: BaseHTTPRequestHandler, _: bytes) -> None:
        handler.close_connection = True

    with loading(PATIENT, say=dies) as it:
        it.directory.given = {"demo/m": [it.server.address]}
        assert error_of(it.post())["code"] == "upstream_died"
    assert len(it.server.asked) == 1


def test_a_stream_is_kept_alive_through_all_of_its_waits() -> None:
    events = stream('data: {"a":1}\n\n', "data: [DONE]\n\n")
    limits = WaitLimits(longest_sec=60, again_sec=0.01, quiet_sec=0.05, comment_sec=0.05)
    with loading(limits, say=says(*[LOADS] * 30, events)) as it:
        it.directory.given = {"demo/m": [it.server.address]}
        status, said = it.stream("/v1/chat/completions")
    assert status == 200
    assert said.startswith(": waiting\n\n")
    assert said.replace(": waiting\n\n", "") == 'data: {"a":1}\n\ndata: [DONE]\n\n'


def test_nothing_waits_for_what_is_suspended_nor_where_it_does_not_want_to() -> None:
    with loading(PATIENT, model=SUSPENDED) as it:
        assert error_of(it.post())["code"] == "model_unavailable"
    with loading(PATIENT) as it:
        refused = it.client.post("/v1/completions", json=CHAT, headers={"x-llamamodel-wait": "0"})
        assert (refused.status_code, error_of(refused)["code"]) == (503, "model_loading")
        assert refused.headers["retry-after"] == "10"
        odd = it.client.post("/v1/completions", json=CHAT, headers={"x-llamamodel-wait": "soon"})
        assert (odd.status_code, error_of(odd)["message"]) == (400, "x-llamamodel-wait must be a number of seconds.")


def test_a_wait_that_is_over_ends_with_the_loading_error() -> None:
    with loading(WaitLimits(longest_sec=0.1)) as it:
        assert error_of(it.post(stream=True))["code"] == "model_loading"


@pytest.mark.parametrize("bound", ["per_model", "total"])
def test_as_many_wait_as_may(bound: str) -> None:
    with loading(WaitLimits(longest_sec=60, **{bound: 1})) as it, ThreadPoolExecutor() as pool:
        first = pool.submit(it.post)
        it.until_asked(2)
        second = it.post()
        assert (second.status_code, error_of(second)["code"]) == (429, "rate_limit_exceeded")
        assert second.headers["retry-after"] == "10"
        it.is_ready()
        assert first.result(20).status_code == 200


def test_a_client_that_goes_away_leaves_its_place() -> None:
    with loading(WaitLimits(longest_sec=60, per_model=1, quiet_sec=0.05)) as it, ThreadPoolExecutor() as pool:
        with it.client.stream("POST", "/v1/completions", json={**CHAT, "stream": True}) as response:
            next(response.iter_raw())
        codes = set()
        while "model_loading" not in codes:  # until the gateway has heard of it
            refused = it.client.post("/v1/completions", json=CHAT, headers={"x-llamamodel-wait": "0.1"})
            codes.add(error_of(refused)["code"])
            assert codes <= {"rate_limit_exceeded", "model_loading"}
        third = pool.submit(it.post)
        it.is_ready()
        assert third.result(20).status_code == 200


def test_a_stream_is_kept_alive_with_comments() -> None:
    with loading(TALKATIVE, say=stream('data: {"a":1}\n\n', "data: [DONE]\n\n")) as it, ThreadPoolExecutor() as pool:
        answer = pool.submit(it.stream, "/v1/chat/completions")
        it.until_commented(2)
        it.is_ready()
        status, said = answer.result(20)
    assert status == 200
    comments, _, events = said.rpartition(": waiting\n\n")
    assert comments
    assert comments.replace(": waiting\n\n", "") == ""
    assert events == 'data: {"a":1}\n\ndata: [DONE]\n\n'


def test_an_answer_that_is_no_stream_is_not_begun_early() -> None:
    with loading(TALKATIVE) as it, ThreadPoolExecutor() as pool:
        plain, embedding = pool.submit(it.post), pool.submit(it.post, "/v1/other", stream=True)
        it.until_asked(4)
        it.is_ready()
        assert {plain.result(20).text, embedding.result(20).text} == {"{}"}


@pytest.mark.parametrize(
    ("path", "event"), [("/v1/chat/completions", "data: "), ("/v1/messages", "event: error\ndata: ")]
)
@pytest.mark.parametrize("who", ["gateway", "server"])
def test_after_a_comment_an_error_is_an_event(path: str, event: str, who: str) -> None:
    refusal = '{"error":{"code":500,"message":"Context size has been exceeded.","type":"server_error"}}'
    with loading(TALKATIVE, say=whole(500, refusal)) as it, ThreadPoolExecutor() as pool:
        answer = pool.submit(it.stream, path)
        it.until_commented()
        if who == "server":
            it.is_ready()
        else:
            it.directory.give({}, models=[SUSPENDED])
        status, said = answer.result(20)
    assert status == 200
    last = said.removesuffix("\n\n").split("\n\n")[-1]
    code = json.loads(last.removeprefix(event))["error"]["code"]
    assert code == ("context_length_exceeded" if who == "server" else "model_unavailable")
