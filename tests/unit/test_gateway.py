"""Requests through the gateway, to servers that say what a test has them say: routed, changed, answered."""

from __future__ import annotations

import gzip
import json
import socket
import time
from http.server import BaseHTTPRequestHandler

import httpx
import pytest

from llamamodel_operator.core.gateway.routes import ServedModel
from llamamodel_operator.core.gateway.targets import origin_form
from support.gateway import (
    CHAT,
    GivenDirectory,
    error_of,
    raw,
    running_gateway,
    served,
    stream,
    whole,
)

pytestmark = pytest.mark.real_time

CHAT_BYTES = b'{"model": "gemma-3"}'


# --- what is passed on


def test_a_request_is_passed_on_byte_for_byte_and_so_is_the_answer() -> None:
    body = b'{ "model":"demo/gemma",\n"messages" : [], "n": 1.50 }'
    with served(whole(200, '{"a":  1}')) as (client, (server,), _):
        headers = {"Authorization": "Bearer secret", "traceparent": "00-1-2-01", "Content-Type": "application/json"}
        hop = {"Connection": "keep-alive, X-Hop", "X-Hop": "1"}
        response = client.post("/v1/chat/completions?x=1", content=body, headers=headers | hop)
    assert (response.status_code, response.content) == (200, b'{"a":  1}')
    assert response.headers["content-type"] == "application/json"
    path, asked, sent = server.asked[0]
    assert (path, sent) == ("/v1/chat/completions?x=1", body)
    assert asked["traceparent"] == "00-1-2-01"
    assert "authorization" not in asked, "a client's key is none of the pod's business"
    assert "x-hop" not in asked, "it is for the connection between client and gateway"


def test_an_adapter_is_the_only_one_with_a_strength() -> None:
    with served(whole(200, "{}")) as (client, (server,), _):
        assert client.post("/v1/chat/completions", json={**CHAT, "model": "gemma-3:pirate"}).status_code == 200
    sent = json.loads(server.asked[0][2])
    assert sent["lora"] == [{"id": 0, "scale": 0.0}, {"id": 1, "scale": 1.0}]
    assert sent["messages"] == CHAT["messages"]


def test_what_has_too_many_levels_to_be_written_anew_is_refused() -> None:
    deep = b'{"model": "%s", "x": ' + b"[" * 400 + b"]" * 400 + b"}"
    with served(whole(200, "{}")) as (client, (server,), _):
        assert client.post("/v1/completions", content=deep % b"gemma-3").status_code == 200
        refused = client.post("/v1/completions", content=deep % b"gemma-3:sql")
    assert (refused.status_code, error_of(refused)["code"]) == (400, "invalid_json")
    assert len(server.asked) == 1


def test_events_come_as_they_are_said_and_not_all_at_the_end() -> None:
    with (
        served(stream('data: {"a":1}\n\n', "data: [DO", "NE]\n\n", pause=0.3)) as (client, _, _),
        client.stream("POST", "/v1/chat/completions", json={**CHAT, "stream": True}) as response,
    ):
        pieces = [(time.monotonic(), piece) for piece in response.iter_bytes()]
    assert b"".join(piece for _, piece in pieces) == b'data: {"a":1}\n\ndata: [DONE]\n\n'
    assert pieces[0][1] == b'data: {"a":1}\n\n'
    assert pieces[-1][0] - pieces[0][0] > 0.2


def test_a_client_that_goes_away_ends_what_was_generated_for_it() -> None:
    with served(stream(*["data: {}\n\n"] * 200, pause=0.05)) as (client, (server,), _):
        with client.stream("POST", "/v1/chat/completions", json={**CHAT, "stream": True}) as response:
            next(response.iter_bytes())
        assert server.gone.wait(10), "nobody listens any more, and the server is told"


def test_a_packed_request_is_unpacked_here() -> None:
    body = json.dumps(CHAT).encode()
    with served(whole(200, "{}"), body_limit_bytes=100_000) as (client, (server,), _):
        packed = {"Content-Encoding": "gzip", "Content-Type": "application/json"}
        assert client.post("/v1/chat/completions", content=gzip.compress(body), headers=packed).status_code == 200
        bomb = client.post("/v1/chat/completions", content=gzip.compress(bytes(10_000_000)), headers=packed)
        odd = client.post("/v1/chat/completions", content=body, headers=packed)
    assert (bomb.status_code, error_of(bomb)["code"]) == (413, "request_too_large")
    assert (odd.status_code, error_of(odd)["code"]) == (400, "malformed_http")
    ((_, headers, sent),) = server.asked
    assert (sent, "content-encoding" in headers) == (body, False)


@pytest.mark.parametrize(
    "request_line",
    [
        b"POST /v1/../slots HTTP/1.1\r\nHost: x\r\nContent-Length: 20\r\n\r\n" + CHAT_BYTES,
        b"POST http://other/slots HTTP/1.1\r\nHost: x\r\nContent-Length: 20\r\n\r\n" + CHAT_BYTES,
        b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 20\r\nContent-Length: 0\r\n\r\n" + CHAT_BYTES,
        b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /v1/completions HTTP/1.1\r\nHost: x\r\n Content-Length: 20\r\n\r\n" + CHAT_BYTES,
        b"POST /v1/completions HTTP/1.1\r\nX: " + b"x" * 100_000 + b"\r\n\r\n",
        b"\x16\x03\x01\x00\xff",
        b"GET / HTTP/9.9\r\n\r\n",
    ],
    ids=["dots", "absolute", "two lengths", "length and chunks", "folded", "huge header", "TLS", "version"],
)
def test_what_two_servers_might_read_differently_reaches_no_pod(request_line: bytes) -> None:
    with served(whole(200, "{}")) as (client, (server,), _):
        said = raw(str(client.base_url), request_line)
        assert server.asked == []
        assert client.post("/v1/chat/completions", json=CHAT).status_code == 200
    assert not said.startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(
    ("target", "passed_on"),
    [
        (b"http://gateway.example/v1/completions?a=http://b/c", "/v1/completions?a=http://b/c"),
        (b"HTTPS://gateway.example:8443/v1/completions", "/v1/completions"),
        (b"http://169.254.169.254/v1/completions", "/v1/completions"),
    ],
)
def test_a_target_with_a_host_in_it_is_served_here_whatever_the_host(target: bytes, passed_on: str) -> None:
    with served(whole(200, "{}")) as (client, (server,), _):
        head = b"POST %s HTTP/1.1\r\nHost: other\r\nContent-Length: %d\r\n\r\n" % (target, len(CHAT_BYTES))
        said = raw(str(client.base_url), head + CHAT_BYTES)
    assert said.startswith(b"HTTP/1.1 200")
    assert [path for path, _, _ in server.asked] == [passed_on]


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("/v1/models", "/v1/models"),
        ("//v1/models", "//v1/models"),
        ("/http://a/v1", "/http://a/v1"),
        ("http://a/v1/models?x#y", "/v1/models?x#y"),
        ("http://a", "/"),
        ("http://a?x=/y", "/?x=/y"),
        ("http://[::1]:80/v1", "/v1"),
        ("ftp://a/v1", "ftp://a/v1"),
        ("a:443", "a:443"),
        ("*", "*"),
        ("", ""),
    ],
)
def test_a_target_is_taken_without_its_host(target: str, expected: str) -> None:
    assert origin_form(target) == expected


# --- who takes it


def test_a_conversation_stays_with_a_pod_and_conversations_spread() -> None:
    with served(*[whole(200, "{}")] * 3) as (client, servers, _):
        for number in range(12):
            for _turn in range(2):
                message = {"role": "user", "content": f"conversation {number}"}
                assert client.post("/v1/chat/completions", json={**CHAT, "messages": [message]}).status_code == 200
    told = [{json.loads(body)["messages"][0]["content"] for _, _, body in server.asked} for server in servers]
    assert sum(map(len, told)) == 12, "no conversation at two pods"
    assert sum(bool(one) for one in told) >= 2


def test_a_pod_that_is_not_there_any_more_is_passed_over() -> None:
    with served(whole(200, "{}")) as (client, servers, directory):
        with socket.create_server(("127.0.0.1", 0)) as closed:
            gone = f"127.0.0.1:{closed.getsockname()[1]}"
        for addresses in ([gone, servers[0].address], [servers[0].address, gone]):
            directory.given["demo/gemma"] = addresses
            for _ in range(4):
                assert client.post("/v1/chat/completions", json=CHAT).status_code == 200
        directory.given["demo/gemma"] = [gone]
        response = client.post("/v1/chat/completions", json=CHAT)
    assert (response.status_code, error_of(response)["code"]) == (502, "upstream_died")


@pytest.mark.parametrize(
    ("status", "text", "becomes"),
    [(503, "Loading model", (503, "model_loading")), (401, "Invalid API Key", (502, "upstream_wants_key"))],
    ids=["loads again", "wants a key"],
)
def test_a_pod_that_does_not_take_a_request_is_passed_over_while_there_is_another(
    status: int, text: str, becomes: tuple[int, str]
) -> None:
    refuses = whole(status, json.dumps({"error": {"code": status, "message": text}}))
    with served(refuses, whole(200, "{}")) as (client, (first, second), directory):
        assert [client.post("/v1/completions", json={"model": "gemma-3"}).status_code for _ in range(6)] == [200] * 6
        assert first.asked
        assert len(second.asked) == 6
        directory.given["demo/gemma"] = [first.address]
        response = client.post("/v1/chat/completions", json=CHAT)
    assert (response.status_code, error_of(response)["code"]) == becomes


def test_a_connection_that_the_server_has_closed_in_the_meantime_loses_no_request() -> None:
    """As llama-server does after streams, and with idle ones."""

    def say_and_close(handler: BaseHTTPRequestHandler, body: bytes) -> None:
        whole(200, "{}")(handler, body)
        handler.close_connection = True  # without having said so

    with served(say_and_close) as (client, _, _):
        assert {client.post("/v1/chat/completions", json=CHAT).status_code for _ in range(50)} == {200}


# --- errors


@pytest.mark.parametrize(
    ("path", "content", "status", "code", "param"),
    [
        ("/v1/chat/completions", b"{", 400, "invalid_json", None),
        ("/v1/chat/completions", b"[]", 400, "invalid_json", None),
        ("/v1/chat/completions", b"\xff\xfe", 400, "invalid_json", None),
        ("/v1/chat/completions", b"[" * 100_000, 400, "invalid_json", None),
        ("/v1/chat/completions", b"{}", 400, None, "model"),
        ("/v1/chat/completions", b'{"model": 7}', 400, None, "model"),
        ("/v1/chat/completions", b'{"model": "gemma-4"}', 404, "model_not_found", "model"),
        ("/v1/chat/completions", b'{"model": "gemma-3:none"}', 404, "model_not_found", "model"),
        ("/v1/embeddings", b'{"model": "gemma-3", "input": "x"}', 400, "unsupported_endpoint", None),
        ("/v1/chat/completions", b" " * 2_000_000, 413, "request_too_large", None),
        ("/nowhere", b"{}", 404, "not_found", None),
        ("/slots/0?action=erase", CHAT_BYTES, 404, "not_found", None),
        ("/v1/..%2fslots", CHAT_BYTES, 404, "not_found", None),
        ("/v1/%2e%2e/lora-adapters", CHAT_BYTES, 404, "not_found", None),
        ("/v1/models", b"{}", 400, None, "model"),
        ("/v1/completions", b'{"model": "gemma-3", "grammar": "root ::= ("}', 400, "invalid_grammar", "grammar"),
    ],
)
def test_a_bad_request_is_told_what_is_wrong_and_reaches_no_pod(
    path: str, content: bytes, status: int, code: str | None, param: str | None
) -> None:
    with served(whole(200, "{}")) as (client, (server,), _):
        response = client.post(path, content=content)
        assert client.post("/v1/chat/completions", json=CHAT).status_code == 200, "nobody else is affected"
    error = error_of(response)
    assert (response.status_code, error["code"], error["param"]) == (status, code, param)
    assert len(server.asked) == 1


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/messages/count_tokens", "/v1/chat/completions"])
def test_an_error_has_the_form_that_clients_of_the_path_read(path: str) -> None:
    refuses = whole(400, '{"error":{"code":400,"message":"Compute error.","type":"invalid_request_error"}}')
    with served(refuses) as (client, _, directory):
        answers = [client.post(path, json=CHAT), client.post(path, content=b"{"), client.get(path)]
        directory.given = {}
        answers.append(client.post(path, json=CHAT))
    assert [answer.status_code for answer in answers] == [400, 400, 405, 503]
    for answer in answers:
        assert answer.json().get("type") == ("error" if path.startswith("/v1/messages") else None)
        assert error_of(answer)["message"]
        assert int(answer.headers["content-length"]) == len(answer.content)


def test_a_misspelt_name_is_helped_with() -> None:
    with served(whole(200, "{}")) as (client, _, _):
        error = error_of(client.post("/v1/chat/completions", json={**CHAT, "model": "gema-3"}))
    assert "Did you mean `gemma-3`" in error["message"]


@pytest.mark.parametrize(
    ("phase", "reason", "code", "retry"),
    [
        ("", "", "model_loading", True),
        ("Loading", "Loading", "model_loading", True),
        ("Suspended", "Suspended", "model_unavailable", False),
        ("Failed", "OutOfGPUMemory", "model_unavailable", False),
        ("Failed", "AReasonOfANewerOperator", "model_unavailable", False),
    ],
)
def test_a_model_without_a_pod_says_why(phase: str, reason: str, code: str, retry: bool) -> None:
    model = ServedModel(namespace="demo", name="m", served_name="m", phase=phase, reason=reason, message="the message")
    with running_gateway(GivenDirectory([model], {})) as url, httpx.Client(base_url=url, trust_env=False) as client:
        response = client.post("/v1/completions", json={"model": "m", "prompt": "x"})
    error = error_of(response)
    assert (response.status_code, error["code"], "retry-after" in response.headers) == (503, code, retry)
    assert retry or "the message" in error["message"]


def test_an_error_of_the_server_has_openais_form() -> None:
    said = '{"error":{"code":400,"message":"request (3024 tokens) exceeds the available context size (512 tokens), try '
    said += 'increasing it","type":"exceed_context_size_error","n_prompt_tokens":3024,"n_ctx":512}}'
    with served(whole(400, said)) as (client, _, _):
        response = client.post("/v1/chat/completions", json=CHAT)
    error = error_of(response)
    assert (response.status_code, error["code"]) == (400, "context_length_exceeded")
    assert (error["n_prompt_tokens"], error["n_ctx"]) == (3024, 512)


def test_an_error_within_a_stream_has_openais_form_wherever_the_pieces_are_cut() -> None:
    event = 'data: {"error":{"code":500,"message":"Context size has been exceeded.","type":"server_error"}}\n\n'
    for cut in range(1, len(event)):
        text = "data: {}\n\n" + event
        with served(stream(text[: 10 + cut], text[10 + cut :])) as (client, _, _):
            response = client.post("/v1/chat/completions", json={**CHAT, "stream": True})
        first, second = response.text.removesuffix("\n\n").split("\n\n")
        assert first == "data: {}"
        assert json.loads(second.removeprefix("data: "))["error"]["code"] == "context_length_exceeded"
        if cut > 12:
            break


def test_a_server_that_dies_within_a_stream_is_an_error_in_it() -> None:
    with served(stream('data: {"a":1}\n\n', end=False)) as (client, _, _):
        response = client.post("/v1/chat/completions", json={**CHAT, "stream": True})
    first, second = response.text.removesuffix("\n\n").split("\n\n")
    assert first == 'data: {"a":1}'
    assert json.loads(second.removeprefix("data: "))["error"]["code"] == "upstream_died"


@pytest.mark.parametrize("said", [(), ('data: {"a":',)], ids=["nothing", "half an event"])
def test_a_server_that_dies_before_the_first_event_is_an_error_instead_of_a_stream(said: tuple[str, ...]) -> None:
    with served(stream(*said, end=False)) as (client, _, _):
        response = client.post("/v1/chat/completions", json={**CHAT, "stream": True})
    assert (response.status_code, error_of(response)["code"]) == (502, "upstream_died")


def test_a_stream_that_has_no_events_is_passed_on() -> None:
    with served(stream()) as (client, _, _):
        response = client.post("/v1/chat/completions", json={**CHAT, "stream": True})
    assert (response.status_code, response.headers["content-type"], response.text) == (200, "text/event-stream", "")


@pytest.mark.parametrize("length", ["Transfer-Encoding: chunked", "Content-Length: 200000"])
def test_an_answer_that_breaks_off_has_no_end(length: str) -> None:
    def say(handler: BaseHTTPRequestHandler, _: bytes) -> None:
        piece = b"x" * 100_000
        head, tail = (b"186a0\r\n", b"\r\n") if "chunked" in length else (b"", b"")
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n")
        handler.wfile.write(length.encode() + b"\r\n\r\n" + head + piece + tail)
        handler.close_connection = True

    with served(say) as (client, _, _), pytest.raises(httpx.RemoteProtocolError):
        client.post("/v1/completions", json=CHAT)


def test_a_bug_of_the_gateway_within_a_stream_is_an_error_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError

    monkeypatch.setattr("llamamodel_operator.gateway.exchange.Exchange.passed", fail)
    with served(stream("data: {}\n\n")) as (client, _, _):
        said = client.post("/v1/completions", json={**CHAT, "stream": True})
    assert said.status_code == 200
    assert json.loads(said.text.rpartition("data: ")[2])["error"]["type"] == "server_error"


def test_a_server_that_says_nothing_in_time_is_a_timeout() -> None:
    def hang(handler: BaseHTTPRequestHandler, _: bytes) -> None:
        time.sleep(3)

    with served(hang, timeout_sec=1) as (client, _, _):
        response = client.post("/v1/chat/completions", json=CHAT)
    assert (response.status_code, error_of(response)["code"]) == (504, "timeout")


# --- what there is


def test_models_are_listed_as_openai_does() -> None:
    with served(whole(200, "{}")) as (client, _, directory):
        (found,) = client.get("/v1/models").json()["data"]
        assert client.get("/v1/models/gemma-3").json() == found
        assert client.get("/v1/models/demo/gemma").json()["id"] == "demo/gemma"
        assert error_of(client.get("/v1/models/none"))["code"] == "model_not_found"
        directory.given.clear()
        assert client.get("/v1/models/gemma-3").json()["llamamodel"]["ready"] is False
    assert (found["id"], found["object"], found["owned_by"]) == ("gemma-3", "model", "demo")
    assert found["llamamodel"] == {
        "name": "demo/gemma",
        "task": "generate",
        "phase": "Ready",
        "ready": True,
        "context_size": None,
        "adapters": ["gemma-3:sql", "gemma-3:pirate"],
    }
