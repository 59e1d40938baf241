"""What the gateway tells of requests: metrics of models that there are, the access log, ids; and no word of them."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
from aiohttp.streams import EMPTY_PAYLOAD
from prometheus_client import CollectorRegistry

from llamamodel_operator.core.gateway.routes import ServedModel, build_routes
from llamamodel_operator.gateway.access_log import write_access
from llamamodel_operator.gateway.connections import ConnectionLimits, Connections
from llamamodel_operator.gateway.exchange import Exchange
from llamamodel_operator.gateway.messages import Request, StreamedResponse
from llamamodel_operator.gateway.sight import Sight
from support.gateway import CHAT, GEMMA, GivenDirectory, raw, served, stream, whole

pytestmark = pytest.mark.real_time

OF_GEMMA = {"namespace": "demo", "model": "gemma"}
ANSWER = json.dumps(
    {
        "choices": [{"message": {"content": "a secret answer"}}],
        "usage": {"completion_tokens": 7, "prompt_tokens": 30, "prompt_tokens_details": {"cached_tokens": 20}},
    },
    separators=(",", ":"),
)
EVENTS = (
    'data: {"choices":[{"delta":{"content":"a secret"}}]}\n\n',
    'data: {"choices":[{"delta":{"content":" answer"}}]}\n\n',
    'data: {"choices":[],"timings":{"cache_n":20,"prompt_n":10,"predicted_n":7}}\n\n',
    "data: [DONE]\n\n",
)
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SECRET = {**CHAT, "messages": [{"role": "user", "content": "a secret question"}]}


class Seen:
    """Metrics, by name without `llamamodel_gateway_`."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()

    def value(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(f"llamamodel_gateway_{name}", labels)

    def of_gemma(self, name: str, **labels: str) -> float | None:
        return self.value(name, **OF_GEMMA, **labels)

    def counted(self, number: int) -> None:
        """Waits until so many requests have been: they are counted just after their answer was sent."""

        def found() -> float:
            samples = [sample for family in self.registry.collect() for sample in family.samples]
            return sum(sample.value for sample in samples if sample.name == "llamamodel_gateway_requests_total")

        eventually(lambda: found() == number)

    def series(self) -> set[tuple[str, ...]]:
        """The names of models and pods in all series there are."""
        shown = ("namespace", "model", "pod")
        return {
            tuple(sample.labels.get(label, "") for label in shown)
            for family in self.registry.collect()
            for sample in family.samples
            if "model" in sample.labels
        }


def eventually(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.01)


def lines(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    return [record.fields for record in caplog.records if record.name.endswith(".access_log")]  # type: ignore[attr-defined]


# --- metrics


def test_a_whole_answer_is_counted_with_its_tokens() -> None:
    seen = Seen()
    with served(whole(200, ANSWER), registry=seen.registry) as (client, (server,), _):
        assert client.post("/v1/chat/completions", json=CHAT).status_code == 200
        seen.counted(1)
        outcome = {"endpoint": "/v1/chat/completions", "status": "200", "code": ""}
        assert seen.of_gemma("requests_total", **outcome) == 1
        for name, tokens in (("prompt", 30), ("cached_prompt", 20), ("completion", 7)):
            assert seen.of_gemma(f"{name}_tokens_total") == tokens
        for name, count in (("time_to_first_token", 1), ("request", 1), ("time_between_tokens", 0), ("wait", 0)):
            assert seen.of_gemma(f"{name}_seconds_count") == count, name
        assert seen.of_gemma("picks_total", pod=server.address, why="only") == 1
        assert seen.of_gemma("requests_in_flight") == 0
        assert (seen.value("models"), seen.of_gemma("retries_total")) == (1, 0)


def test_a_refusal_is_no_wait() -> None:
    seen = Seen()
    with served(whole(200, ANSWER), registry=seen.registry) as (client, _, directory):
        directory.given = {}
        assert client.post("/v1/chat/completions", json=CHAT).status_code == 503
        seen.counted(1)
        assert seen.of_gemma("wait_seconds_count") == 0


def test_a_stream_is_counted_with_its_tokens_and_the_time_between_them() -> None:
    seen = Seen()
    with served(stream(*EVENTS), registry=seen.registry) as (client, _, _):
        client.post("/v1/chat/completions", json={**CHAT, "stream": True})
        seen.counted(1)
        assert seen.of_gemma("time_between_tokens_seconds_count") == 1
        assert seen.of_gemma("prompt_tokens_total") == 30
        assert seen.of_gemma("cached_prompt_tokens_total") == 20
        assert seen.of_gemma("completion_tokens_total") == 7
        assert seen.of_gemma("time_to_first_token_seconds_count") == 1


def test_a_request_is_in_flight_until_it_has_its_answer() -> None:
    release = threading.Event()

    def say_late(handler: BaseHTTPRequestHandler, body: bytes) -> None:
        release.wait(30)
        whole(200, ANSWER)(handler, body)

    seen = Seen()
    with served(say_late, registry=seen.registry) as (client, _, _):
        asking = threading.Thread(target=lambda: client.post("/v1/chat/completions", json=CHAT))
        asking.start()
        eventually(lambda: seen.of_gemma("requests_in_flight") == 1)
        release.set()
        asking.join()
        assert seen.of_gemma("requests_in_flight") == 0


@pytest.mark.parametrize(
    ("status", "text", "code", "label"),
    [
        (503, '{"error":{"code":503,"message":"Loading model"}}', "model_loading", "model_loading"),
        (500, '{"error":{"code":"never_heard_of","message":"x"}}', "never_heard_of", "other"),
        (500, "x", None, ""),
    ],
)
def test_an_error_of_the_server_is_counted_by_its_code_where_that_is_known(
    status: int, text: str, code: str | None, label: str
) -> None:
    seen = Seen()
    with served(whole(status, text), registry=seen.registry) as (client, _, _):
        response = client.post("/v1/chat/completions", json=CHAT)
        assert response.json()["error"]["code"] == code
        seen.counted(1)
        outcome = {"endpoint": "/v1/chat/completions", "status": str(status), "code": label}
        assert seen.of_gemma("requests_total", **outcome) == 1
        assert seen.of_gemma("translated_errors_total", code=label) == 1
        assert seen.of_gemma("time_to_first_token_seconds_count") == 0, "an error is no token"


def test_an_error_within_a_stream_is_counted_by_its_code() -> None:
    error = 'data: {"error":{"code":500,"message":"Context size has been exceeded.","type":"server_error"}}\n\n'
    seen = Seen()
    outcome = {"endpoint": "/v1/chat/completions", "status": "200", "code": "context_length_exceeded"}
    with served(stream(EVENTS[0], error), registry=seen.registry) as (client, _, _):
        client.post("/v1/chat/completions", json={**CHAT, "stream": True})
        seen.counted(1)
        assert seen.of_gemma("requests_total", **outcome) == 1
        assert seen.of_gemma("translated_errors_total", code="context_length_exceeded") == 1


def test_a_server_that_dies_within_a_stream_is_counted_but_nothing_was_translated() -> None:
    seen = Seen()
    outcome = {"endpoint": "/v1/chat/completions", "status": "200", "code": "upstream_died"}
    with served(stream(EVENTS[0], end=False), registry=seen.registry) as (client, _, _):
        client.post("/v1/chat/completions", json={**CHAT, "stream": True})
        seen.counted(1)
        assert seen.of_gemma("requests_total", **outcome) == 1
        assert seen.of_gemma("translated_errors_total", code="upstream_died") is None


def test_a_client_that_goes_away_is_counted_as_such() -> None:
    seen = Seen()
    outcome = {"endpoint": "/v1/chat/completions", "status": "200", "code": "client_gone"}
    with served(stream(*EVENTS[:1] * 200, pause=0.05), registry=seen.registry) as (client, _, _):
        with client.stream("POST", "/v1/chat/completions", json={**CHAT, "stream": True}) as response:
            next(response.iter_bytes())
        seen.counted(1)
        assert seen.of_gemma("requests_total", **outcome) == 1


def test_a_request_that_is_sent_again_is_counted() -> None:
    seen = Seen()
    with served(whole(200, ANSWER), registry=seen.registry) as (client, (server,), directory):
        directory.given["demo/gemma"] = ["127.0.0.1:1", server.address]
        for number in range(8):
            message = {"role": "user", "content": f"conversation {number}"}
            assert client.post("/v1/chat/completions", json={**CHAT, "messages": [message]}).status_code == 200
        seen.counted(8)
        retries = seen.of_gemma("retries_total")
        assert retries is not None
        assert 0 < retries < 8
        assert seen.of_gemma("picks_total", pod=server.address, why="only") == retries
        assert seen.of_gemma("picks_total", pod=server.address, why="affinity") == 8 - retries


def test_what_clients_make_up_makes_no_series() -> None:
    seen = Seen()
    with served(whole(200, ANSWER), registry=seen.registry) as (client, _, _):
        for number in range(5):
            client.post("/v1/chat/completions", json={**CHAT, "model": f"made-up-{number}"})
            client.post(f"/v1/made-up-{number}", json=CHAT)
            client.get(f"/v1/models/made-up-{number}")
            client.post(f"/made-up-{number}")
        seen.counted(20)
        assert {series[:2] for series in seen.series()} == {("demo", "gemma"), ("", "")}
        chat = {"endpoint": "/v1/chat/completions", "status": "404", "code": "model_not_found"}
        assert seen.value("requests_total", namespace="", model="", **chat) == 5
        assert seen.of_gemma("requests_total", endpoint="other", status="200", code="") == 5
        outcome = {"endpoint": "other", "status": "404", "code": "not_found"}
        assert seen.value("requests_total", namespace="", model="", **outcome) == 5


def test_series_of_models_and_pods_that_are_gone_are_removed() -> None:
    seen = Seen()
    with served(whole(200, ANSWER), registry=seen.registry) as (client, (server,), directory):
        client.post("/v1/chat/completions", json=CHAT)
        seen.counted(1)
        assert ("demo", "gemma", server.address) in seen.series()
        directory.given["demo/gemma"] = []
        assert {series for series in seen.series() if series[2]} == set()
        assert ("demo", "gemma", "") in seen.series()
        directory.routes = build_routes([])
        assert seen.series() == set()
        assert seen.value("models") == 0
        directory.routes, directory.given["demo/gemma"] = build_routes([GEMMA]), [server.address]
        client.post("/v1/chat/completions", json=CHAT)
        seen.counted(1)
        assert seen.of_gemma("picks_total", pod=server.address, why="only") == 1, "what comes again begins anew"


def test_each_metric_is_in_the_docs() -> None:
    async def made() -> CollectorRegistry:
        registry = CollectorRegistry()
        Sight(registry=registry, directory=GivenDirectory([], {}), access_log=False)
        return registry

    text = (Path(__file__).parents[2] / "docs" / "gateway.md").read_text()
    registry = asyncio.run(made())
    names = {family.name + ("_total" if family.type == "counter" else "") for family in registry.collect()}
    assert len(names) > 10
    assert [name for name in sorted(names) if f"`{name}`" not in text] == []


def test_what_is_no_http_has_an_id_is_counted_and_has_its_line(caplog: pytest.LogCaptureFixture) -> None:
    seen = Seen()
    with served(whole(200, ANSWER), registry=seen.registry) as (client, _, _):
        url = str(client.base_url).rstrip("/")
        said = [raw(url, b"\x16\x03\x01 a-secret\r\n\r\n"), raw(url, b"GET /" + b"x" * 9_000 + b" HTTP/1.1\r\n\r\n")]
        seen.counted(2)
        for status, code in (("400", "malformed_http"), ("431", "headers_too_large")):
            outcome = {"namespace": "", "model": "", "endpoint": "other", "status": status, "code": code}
            assert seen.value("requests_total", **outcome) == 1
    found = lines(caplog)
    assert [(line["status"], line["code"]) for line in found] == [(400, "malformed_http"), (431, "headers_too_large")]
    for line, answer in zip(found, said, strict=True):
        assert f"X-Request-Id: {line['request_id']}\r\n".encode() in answer
        assert line["client"] == "127.0.0.1"
        assert not {"method", "path"} & line.keys(), "nothing is made up"
    assert "a-secret" not in caplog.text


def test_no_answer_tells_what_serves_it() -> None:
    with served(stream(*EVENTS), origins=["*"]) as (client, _, _):
        preflight = {"Origin": "https://a.example", "Access-Control-Request-Method": "POST"}
        answers = [
            client.get("/v1/models"),
            client.get("/v1/nothing"),
            client.options("/v1/models", headers=preflight),
            client.post("/v1/chat/completions", json={**CHAT, "stream": True}),
        ]
        said = raw(str(client.base_url).rstrip("/"), b"nonsense\r\n\r\n")
    assert [answer.status_code for answer in answers] == [200, 404, 204, 200]
    assert {answer.headers["server"] for answer in answers} == {"llamamodel-gateway"}
    assert b"\r\nServer: llamamodel-gateway\r\n" in said


# --- the access log


def test_a_line_says_all_of_a_request_but_what_was_asked_and_answered(caplog: pytest.LogCaptureFixture) -> None:
    headers = {"X-Request-Id": "mine-1", "traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}
    body = {**SECRET, "model": "gemma-3:sql"}
    with served(whole(200, ANSWER)) as (client, (server,), _):
        client.post("/v1/chat/completions?secret=x", json=body, headers=headers)
    (line,) = lines(caplog)
    assert (line.pop("first_sec") >= 0, line.pop("seconds") >= 0) == (True, True)
    assert line == {
        "request_id": "mine-1",
        "trace_id": TRACE,
        "client": "127.0.0.1",
        "method": "POST",
        "path": "/v1/chat/completions",
        "model": "demo/gemma",
        "adapter": "sql",
        "pod": server.address,
        "why": "only",
        "status": 200,
        "stream": False,
        "prompt_tokens": 30,
        "cached_tokens": 20,
        "completion_tokens": 7,
        "bytes": len(ANSWER),
    }
    assert "secret" not in caplog.text
    assert "method=POST path=/v1/chat/completions status=200 request_id=mine-1" in caplog.text


def test_a_line_of_a_stream_has_its_tokens_and_bytes_and_no_word_of_it(caplog: pytest.LogCaptureFixture) -> None:
    with served(stream(*EVENTS)) as (client, _, _):
        client.post("/v1/chat/completions", json={**SECRET, "stream": True})
    (line,) = lines(caplog)
    assert (line["stream"], line["bytes"]) == (True, len("".join(EVENTS)))
    assert (line["prompt_tokens"], line["completion_tokens"]) == (30, 7)
    assert "secret" not in str(line)


def test_a_line_of_a_refusal_has_its_code_and_not_the_name_that_was_made_up(caplog: pytest.LogCaptureFixture) -> None:
    with served(whole(200, ANSWER)) as (client, _, _):
        client.post("/v1/chat/completions", json={**SECRET, "model": "a-secret"})
    (line,) = lines(caplog)
    assert (line["status"], line["code"], "model" in line) == (404, "model_not_found", False)
    assert "secret" not in str(line)


def test_a_line_has_the_time_of_its_end_however_late_it_is_written(caplog: pytest.LogCaptureFixture) -> None:
    exchange = Exchange(request_id="x", method="POST", path="/v1/completions")
    exchange.ended = time.monotonic() - 300
    before = time.time()
    write_access(exchange)
    (record,) = (record for record in caplog.records if record.name.endswith(".access_log"))
    assert before - 301 < record.created < time.time() - 299


def test_a_path_cannot_break_a_line(caplog: pytest.LogCaptureFixture) -> None:
    for path in ("/v1/\udcff\x1b[31m\n", "/" + "x" * 5000):
        write_access(Exchange(request_id="x", method="POST", path=path))
    first, second = lines(caplog)
    assert first["path"] == r"/v1/\udcff\x1b[31m\n"
    assert len(second["path"]) < 300


def test_without_an_access_log_there_is_none(caplog: pytest.LogCaptureFixture) -> None:
    with served(whole(200, ANSWER), access_log=False) as (client, _, _):
        client.post("/v1/chat/completions", json=CHAT)
    assert lines(caplog) == []


def test_the_access_log_is_written_whatever_else_is(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR)
    caplog.handler.setLevel(logging.NOTSET)
    with served(whole(200, ANSWER)) as (client, _, _):
        client.post("/v1/chat/completions", json=CHAT)
    assert len(lines(caplog)) == 1


# --- ids


@pytest.mark.parametrize(
    ("path", "body", "say"),
    [
        ("/v1/chat/completions", CHAT, whole(200, ANSWER)),
        ("/v1/chat/completions", {**CHAT, "stream": True}, stream(*EVENTS)),
        ("/v1/chat/completions", CHAT, whole(500, "x")),
        ("/v1/chat/completions", {**CHAT, "model": "none"}, whole(200, ANSWER)),
        ("/nowhere", CHAT, whole(200, ANSWER)),
    ],
    ids=["whole", "stream", "error", "unknown model", "unknown path"],
)
def test_every_answer_has_the_id_of_its_request(path: str, body: dict[str, Any], say: Any) -> None:
    with served(say) as (client, (server,), _):
        assert client.post(path, json=body, headers={"X-Request-Id": "mine-1"}).headers["x-request-id"] == "mine-1"
        made = client.post(path, json=body).headers["x-request-id"]
        other = client.post(path, json=body, headers={"X-Request-Id": "not sane"}).headers["x-request-id"]
        listed = client.get("/v1/models", headers={"X-Request-Id": "mine-2"}).headers["x-request-id"]
    assert len({made, other, "mine-1", "not sane"}) == 4
    assert listed == "mine-2"
    assert [headers["x-request-id"] for _, headers, _ in server.asked] in ([], ["mine-1", made, other])


def test_a_trace_is_passed_on_as_it_is() -> None:
    headers = [
        ("traceparent", f"00-{TRACE}-00f067aa0ba902b7-01"),
        ("tracestate", "a=1"),
        ("tracestate", "b=2"),
    ]
    got: list[list[str]] = []

    def say(handler: BaseHTTPRequestHandler, body: bytes) -> None:
        got.extend(handler.headers.get_all(name) or [] for name in ("traceparent", "tracestate", "x-request-id"))
        whole(200, ANSWER)(handler, body)

    with served(say) as (client, _, _):
        client.post("/v1/chat/completions", json=CHAT, headers=httpx.Headers([*headers, ("X-Request-Id", "mine-1")]))
    assert got == [[headers[0][1]], ["a=1", "b=2"], ["mine-1"]]


def test_a_model_of_the_same_name_elsewhere_has_series_of_its_own() -> None:
    seen = Seen()
    with served(whole(200, ANSWER), registry=seen.registry) as (client, (server,), directory):
        other = ServedModel(namespace="other", name="gemma", served_name="gemma", phase="Ready")
        directory.routes = build_routes([GEMMA, other])
        directory.given["other/gemma"] = [server.address]
        client.post("/v1/chat/completions", json={**CHAT, "model": "other/gemma"})
        seen.counted(1)
        assert seen.value("completion_tokens_total", namespace="other", model="gemma") == 7
        assert seen.of_gemma("completion_tokens_total") is None


# --- how it stops


async def test_an_answer_that_has_begun_ends_its_connection_too() -> None:
    sight = Sight(registry=CollectorRegistry(), directory=GivenDirectory([GEMMA], {}), access_log=False)
    limits, unused = ConnectionLimits(), cast(Any, None)
    request = Request(Connections(unused, unreadable=unused, limits=limits)(), None, EMPTY_PAYLOAD)
    exchange, response = sight.begin(request), StreamedResponse(request)
    exchange.begin(response, events=True)
    sight.stop()
    assert response.closes
    sight.end(exchange, response)
