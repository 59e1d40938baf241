"""Clients that are slow, many, of other origins, or speak no HTTP; and the certificate that clients see."""

from __future__ import annotations

import json
import socket
import ssl
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, BinaryIO

import httpx
import pytest
from prometheus_client import CollectorRegistry

from llamamodel_operator.core.gateway.routes import ServedModel
from llamamodel_operator.gateway.certificate import MountedCertificate
from llamamodel_operator.gateway.connections import ConnectionLimits
from llamamodel_operator.shell.certificates import CA, CERTIFICATE, KEY, expiry, renewed
from support.gateway import FakeServer, GivenDirectory, Say, error_of, raw, running_gateway, stream, whole

pytestmark = pytest.mark.real_time

CHAT = "/v1/chat/completions"
ASKING = {"model": "chat", "messages": [{"role": "user", "content": "Hello"}]}
MODEL = ServedModel(namespace="a", name="chat", served_name="chat", phase="Ready")
PATIENCE_SEC = 30
HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n"


@contextmanager
def gateway(say: Say | None = None, **more: Any) -> Iterator[tuple[httpx.URL, FakeServer]]:
    pod = FakeServer(say or whole(200, "{}"))
    try:
        with running_gateway(GivenDirectory([MODEL], {"a/chat": [pod.address]}), **more) as url:
            yield httpx.URL(url), pod
    finally:
        pod.end()


def connect(url: httpx.URL) -> socket.socket:
    return socket.create_connection((url.host, url.port or 0), timeout=PATIENCE_SEC)


def get(url: httpx.URL, path: str, **more: Any) -> httpx.Response:
    return httpx.get(url.join(path), timeout=PATIENCE_SEC, trust_env=False, **more)


def is_closed(connection: socket.socket) -> bool:
    """Whether the other side ends it, having said nothing; waits for it."""
    with suppress(ConnectionError):
        return connection.recv(1) == b""
    return True


def answer_of(said: BinaryIO) -> int:
    """Its status; the answer is read to its end."""
    status, length = int(said.readline().split()[1]), 0
    while line := said.readline().strip().lower():
        if line.startswith(b"content-length:"):
            length = int(line.partition(b":")[2])
    assert len(said.read(length)) == length
    return status


def drip(connection: socket.socket, what: bytes = b"y") -> None:
    """Raises ConnectionError as soon as it is closed."""
    for _ in range(50 * PATIENCE_SEC):
        connection.sendall(what)
        time.sleep(0.02)


# --- slow ones


def test_headers_that_come_byte_by_byte_end_with_the_connection() -> None:
    with gateway(limits=ConnectionLimits(idle_sec=1)) as (url, pod), connect(url) as connection:
        connection.sendall(HEAD + b"X: ")
        with pytest.raises(ConnectionError):
            drip(connection)
    assert pod.asked == []


def test_a_connection_that_is_idle_is_closed_before_and_after_a_request() -> None:
    with gateway(limits=ConnectionLimits(idle_sec=1)) as (url, _):
        with connect(url) as connection:
            assert is_closed(connection)
        with connect(url) as connection:
            connection.sendall(b"GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n")
            assert connection.recv(65_536).startswith(b"HTTP/1.1 200")
            connection.sendall(b"GET /v1/models HTTP/1.1\r\n")
            assert is_closed(connection)


def test_a_request_that_takes_longer_than_a_connection_may_be_idle_is_answered() -> None:
    def later(handler: BaseHTTPRequestHandler, body: bytes) -> None:
        time.sleep(2)
        whole(200, "{}")(handler, body)

    with gateway(later, limits=ConnectionLimits(idle_sec=1)) as (url, _):
        asked = httpx.post(url.join(CHAT), json=ASKING, timeout=PATIENCE_SEC, trust_env=False)
    assert asked.status_code == 200


def test_a_client_that_does_not_read_its_stream_is_dropped_and_the_pod_is_told() -> None:
    event = "data: " + "x" * 60_000 + "\n\n"
    with gateway(stream(*[event] * 2_000), limits=ConnectionLimits(write_sec=1)) as (url, pod):
        with connect(url) as connection:  # and reads nothing
            body = b'{"model": "chat", "stream": true}'
            connection.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body)
            assert pod.gone.wait(PATIENCE_SEC), "120 MB were not taken, and not kept either"
        assert get(url, "/v1/models").status_code == 200


def test_a_client_that_reads_slowly_gets_all_of_its_stream() -> None:
    events = ["data: " + "x" * 60_000 + "\n\n"] * 60
    with (
        gateway(stream(*events), limits=ConnectionLimits(write_sec=PATIENCE_SEC)) as (url, _),
        httpx.stream("POST", url.join(CHAT), json=ASKING, timeout=PATIENCE_SEC, trust_env=False) as response,
    ):
        total = 0
        for piece in response.iter_raw():
            total += len(piece)
            time.sleep(0.005)
    assert total == sum(map(len, events))


def test_a_client_that_takes_its_time_is_told_the_end_when_the_gateway_stops() -> None:
    body = b'{"model":"chat","stream":true}'
    said = bytearray()

    def read_late(connection: socket.socket) -> None:
        time.sleep(1.5)
        while piece := connection.recv(1 << 20):
            said.extend(piece)

    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        with gateway(stream(*["data: " + "x" * 60_000 + "\n\n"] * 500), drain_sec=0.5) as (url, _):
            connection.connect((url.host, url.port))
            connection.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body)
            reader = threading.Thread(target=read_late, args=[connection])
            reader.start()
            time.sleep(0.5)
        reader.join(PATIENCE_SEC)
    assert said.count(b"gateway_stopping") == 1
    assert said.count(b"\r\n0\r\n\r\n") == 1
    assert said.endswith(b"\r\n0\r\n\r\n")


# --- many


def test_more_connections_than_allowed_are_closed_and_places_are_given_back() -> None:
    with gateway(limits=ConnectionLimits(most=2)) as (url, _):
        with connect(url) as one, connect(url) as two:
            for held in (one, two):
                held.sendall(b"GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n")
                assert held.recv(65_536).startswith(b"HTTP/1.1 200")
            with connect(url) as third:
                assert is_closed(third)
        until, answered = time.monotonic() + PATIENCE_SEC, False
        while not answered and time.monotonic() < until:
            with suppress(httpx.TransportError):
                answered = get(url, "/v1/models").status_code == 200
        assert answered


def test_a_request_that_comes_with_the_end_of_one_that_was_refused_early_is_answered() -> None:
    body = b'{"model": "chat"}'
    refused = b"POST /slots/0 HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
    with gateway() as (url, _), connect(url) as connection, connection.makefile("rb") as said:
        for _ in range(3):
            connection.sendall(refused)
            assert answer_of(said) == 404
            connection.sendall(body + b"GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n")
            assert answer_of(said) == 200


def test_requests_that_come_in_one_piece_are_answered_one_after_the_other() -> None:
    body = b'{"model":"chat"}'
    post = HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body
    with gateway() as (url, pod), connect(url) as connection, connection.makefile("rb") as said:
        for _ in range(2):
            connection.sendall((post + b"GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n") * 3)
            assert [answer_of(said) for _ in range(6)] == [200] * 6
    assert len(pod.asked) == 6


@pytest.mark.parametrize("size_bytes", [30_000, 70_000, 100_000, 300_000])
def test_a_request_that_was_sent_ahead_is_answered_whatever_its_size(size_bytes: int) -> None:
    asked, go = threading.Event(), threading.Event()

    def when_told(handler: BaseHTTPRequestHandler, body: bytes) -> None:
        asked.set()
        assert go.wait(PATIENCE_SEC)
        whole(200, "{}")(handler, body)

    small = b'{"model": "chat"}'
    large = b'{"model": "chat", "more": "' + b"x" * size_bytes + b'"}'
    with gateway(when_told) as (url, _), connect(url) as connection, connection.makefile("rb") as said:
        connection.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(small) + small)
        assert asked.wait(PATIENCE_SEC)
        connection.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(large) + large)
        time.sleep(0.2)  # so that it is there before the first is answered
        go.set()
        assert [answer_of(said), answer_of(said)] == [200, 200]


def test_what_a_client_sends_ahead_is_not_read_while_it_waits_for_an_answer() -> None:
    asked, go = threading.Event(), threading.Event()

    def when_told(handler: BaseHTTPRequestHandler, body: bytes) -> None:
        asked.set()
        assert go.wait(PATIENCE_SEC)
        whole(200, "{}")(handler, body)

    body = b'{"model": "chat", "more": "' + b"x" * 400_000 + b'"}'
    request = HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body
    with gateway(when_told) as (url, pod), connect(url) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 16)
        connection.sendall(request)
        assert asked.wait(PATIENCE_SEC)
        connection.settimeout(1)
        sent, whole_of_it = 0, request * 50
        with suppress(TimeoutError):
            while sent < len(whole_of_it):
                sent += connection.send(whole_of_it[sent : sent + 100_000])
        go.set()
        connection.settimeout(PATIENCE_SEC)
        connection.sendall((request * 2)[sent:])
        with connection.makefile("rb") as said:
            for _ in range(3):
                assert said.readline().startswith(b"HTTP/1.1 200")
                while said.readline().strip():
                    pass
                assert said.read(2) == b"{}"
    assert sent < len(whole_of_it) / 2, "more than what networks keep was read while one was at work"
    assert len(pod.asked) >= 3


def test_heads_that_do_not_end_are_bounded_for_each_and_together(monkeypatch: pytest.MonkeyPatch) -> None:
    line = b"X: " + b"x" * 8_000 + b"\r\n"
    with gateway() as (url, _), connect(url) as connection:
        connection.sendall(HEAD)
        with pytest.raises(ConnectionError):
            drip(connection, line)
    monkeypatch.setattr("llamamodel_operator.gateway.connections._AHEAD_BYTES", 30_000)
    with gateway() as (url, _), connect(url) as first, connect(url) as second:
        first.sendall(HEAD + line * 2)
        time.sleep(0.2)
        second.sendall(HEAD + line * 2)
        assert is_closed(second)
        first.sendall(b"Content-Length: 2\r\n\r\n{}")
        assert first.recv(100).startswith(b"HTTP/1.1 400"), "the other one is not affected"
        assert get(url, "/v1/models").status_code == 200
        with connect(url) as third:
            third.sendall(HEAD + line * 2)
            time.sleep(0.2)
            third.sendall(b"Content-Length: 2\r\n\r\n{}")
            assert third.recv(100).startswith(b"HTTP/1.1 400"), "places are given back"


def test_streams_that_are_asked_for_at_once_are_all_answered_also_where_some_clients_go_away() -> None:
    body = b'{"model":"chat","stream":true}'
    request = HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body
    with gateway(stream("data: {}\n\n")) as (url, _):
        for _ in range(3):
            clients = [connect(url) for _ in range(30)]
            for client in clients:
                client.sendall(request)
            for client in clients[::3]:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # at once
                client.close()
            for client in clients:
                if client.fileno() >= 0:
                    with client, client.makefile("rb") as said:
                        assert said.readline() == b"HTTP/1.1 200 OK\r\n"


# --- versions of HTTP, and what is not spoken


def test_http_1_0_ends_its_connection_unless_it_asks_for_more() -> None:
    lists = b"GET /v1/models HTTP/1.0\r\n"
    with gateway() as (url, _):
        with connect(url) as connection, connection.makefile("rb") as said:
            connection.sendall(lists + b"\r\n")
            assert answer_of(said) == 200
            assert said.read() == b""
        with connect(url) as connection, connection.makefile("rb") as said:
            for _ in range(2):
                connection.sendall(lists + b"Connection: keep-alive\r\n\r\n")
                assert answer_of(said) == 200


@pytest.mark.parametrize("kept", [b"", b"Connection: keep-alive\r\n"])
def test_a_stream_by_http_1_0_has_no_chunks_and_ends_with_its_connection(kept: bytes) -> None:
    body = b'{"model":"chat","stream":true}'
    head = HEAD.replace(b"1.1", b"1.0") + kept + b"Content-Length: %d\r\n\r\n" % len(body)
    with gateway(stream("data: {}\n\n", "data: [DONE]\n\n")) as (url, _), connect(url) as connection:
        connection.sendall(head + body)
        with connection.makefile("rb") as said:
            answered, _, events = said.read().partition(b"\r\n\r\n")
    assert b"chunked" not in answered.lower()
    assert b"connection: close" in answered.lower()
    assert events == b"data: {}\n\ndata: [DONE]\n\n"


def test_an_answer_to_head_has_no_body() -> None:
    with gateway() as (url, _), connect(url) as connection, connection.makefile("rb") as said:
        for _ in range(2):
            connection.sendall(b"HEAD /v1/models HTTP/1.1\r\nHost: x\r\n\r\n")
            assert said.readline().startswith(b"HTTP/1.1 405")
            while line := said.readline().strip().lower():
                assert line != b"content-length: 0"


def test_a_client_that_offers_http_2_is_answered_in_http_1() -> None:
    """As Java's own client does with its first request."""
    body = b'{"model":"chat"}'
    offer = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n"
    with gateway() as (url, pod), connect(url) as connection, connection.makefile("rb") as said:
        for _ in range(2):
            connection.sendall(HEAD + offer + b"Content-Length: %d\r\n\r\n" % len(body) + body)
            assert answer_of(said) == 200
    assert [asked[2] for asked in pod.asked] == [body] * 2
    assert not any("upgrade" in asked[1] for asked in pod.asked)


def test_who_wants_another_protocol_is_answered_in_http() -> None:
    offer = b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\nSec-WebSocket-Version: 13\r\n"
    models = b"GET /v1/models HTTP/1.1\r\nHost: x\r\n"
    for sent, statuses in (
        (models + offer + b"\r\n" + models + b"\r\n", [200, 200]),
        (models + offer + b"\r\n\x81\x05Hello", [200, 400]),
        (b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n\x16\x03\x01", [404, 400]),
    ):
        with gateway() as (url, pod), connect(url) as connection, connection.makefile("rb") as said:
            connection.sendall(sent)
            assert [answer_of(said) for _ in statuses] == statuses
        assert pod.asked == []


@pytest.mark.parametrize("number", [4_000, 4_096, 4_097, 4_098, 20_000])
def test_a_body_of_very_many_chunks_is_read_and_so_is_the_request_after_it(number: int) -> None:
    """aiohttp (3.14.5) stops reading at 4,097 of them for a time."""
    body = b'{"model":"chat"' + b" " * number + b"}"
    chunks = [b"1\r\n%c\r\n" % byte for byte in body]
    begun, rest = b"".join(chunks[:number]), b"".join(chunks[number:]) + b"0\r\n\r\n"
    plain = HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body
    with gateway() as (url, pod), connect(url) as connection, connection.makefile("rb") as said:
        connection.sendall(CHUNKED + b"\r\n" + begun)
        time.sleep(0.2)  # so that it stops there
        connection.sendall(rest)
        assert answer_of(said) == 200
        connection.sendall(plain)
        assert answer_of(said) == 200
    assert [asked[2] for asked in pod.asked] == [body] * 2


@pytest.mark.parametrize("status", [204, 304])
def test_an_answer_without_a_body_is_followed_by_the_next_one(status: int) -> None:
    def none(handler: BaseHTTPRequestHandler, _: bytes) -> None:
        handler.send_response(status)
        handler.end_headers()

    body = b'{"model":"chat"}'
    with gateway(none) as (url, _), connect(url) as connection, connection.makefile("rb") as said:
        for _ in range(2):
            connection.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body)
            assert said.readline().startswith(b"HTTP/1.1 %d " % status)
            while line := said.readline().strip().lower():
                assert not line.startswith((b"content-length", b"transfer-encoding"))


# --- what is no HTTP


@pytest.mark.parametrize(
    ("sent", "status", "code"),
    [
        (HEAD + b"X: " + b"x" * 9_000 + b"\r\n\r\n", 431, "headers_too_large"),
        (b"GET /" + b"x" * 9_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 431, "headers_too_large"),
        (HEAD + b"".join(b"X%d: y\r\n" % number for number in range(200)) + b"\r\n", 400, "malformed_http"),
        (HEAD + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}", 400, "malformed_http"),
        (HEAD + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, "malformed_http"),
        (b"\x16\x03\x01\x00\xff\r\n\r\n", 400, "malformed_http"),
        (b"GET / HTTP/9.9\r\n\r\n", 400, "malformed_http"),
        (b"\x00" * 100, 400, "malformed_http"),
    ],
    ids=["header", "path", "number of headers", "two lengths", "length and chunks", "TLS", "version", "zeros"],
)
def test_what_is_no_http_is_told_so_in_openais_form(sent: bytes, status: int, code: str) -> None:
    with gateway() as (url, pod):
        head, _, body = raw(str(url).rstrip("/"), sent).partition(b"\r\n\r\n")
        assert get(url, "/v1/models").status_code == 200, "nobody else is affected"
    assert head.startswith(b"HTTP/1.0 %d " % status) or head.startswith(b"HTTP/1.1 %d " % status)
    assert b"application/json" in head
    error = error_of(httpx.Response(status, content=body))
    assert error["code"] == code
    assert len(error["message"]) < 300
    assert pod.asked == []


def next_error(said: BinaryIO) -> tuple[int, str]:
    """Its status and code; waits for it."""
    status, length = int(said.readline().split()[1]), 0
    while line := said.readline().strip():
        name, _, value = line.partition(b":")
        length = int(value) if name.lower() == b"content-length" else length
    return status, json.loads(said.read(length))["error"]["code"]


@pytest.mark.parametrize("bad", [b"zz\r\n{}\r\n", b"2\r\n{}}\r\n"], ids=["size", "end"])
@pytest.mark.parametrize("before", [b"", b'5\r\n{"a":\r\n'], ids=["first chunk", "second chunk"])
def test_a_chunk_that_is_none_ends_its_request_at_once(before: bytes, bad: bytes) -> None:
    with gateway() as (url, pod), connect(url) as connection:
        connection.sendall(CHUNKED + b"Expect: 100-continue\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 100 ")  # it waits for the body
        connection.sendall(before)
        connection.sendall(bad)
        with connection.makefile("rb") as said:
            assert next_error(said) == (400, "malformed_http")
            assert said.read() == b"", "the connection ends"
    assert pod.asked == []


def test_a_bad_chunk_behind_another_request_ends_its_own_alone() -> None:
    asked, go = threading.Event(), threading.Event()

    def when_told(handler: BaseHTTPRequestHandler, body: bytes) -> None:
        asked.set()
        assert go.wait(PATIENCE_SEC)
        whole(404, '{"error":{"message":"no","code":"no"}}')(handler, body)

    body = b'{"model": "chat"}'
    with gateway(when_told) as (url, _), connect(url) as connection:
        connection.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        assert asked.wait(PATIENCE_SEC)
        connection.sendall(CHUNKED + b"\r\n2\r\n{")
        time.sleep(0.1)  # so that it does not come in one piece
        connection.sendall(b"}zz\r\n")
        time.sleep(0.1)
        go.set()
        with connection.makefile("rb") as said:
            assert [next_error(said), next_error(said)] == [(404, "no"), (400, "malformed_http")]
            assert said.read() == b"", "the connection ends"


# --- other origins

PAGE = {"Origin": "https://chat.example.com"}
QUESTION = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,x-stainless-os"}


def test_a_page_of_an_allowed_origin_may_ask_and_read() -> None:
    with gateway(stream("data: {}\n\n"), origins=[PAGE["Origin"]]) as (url, _):
        asked = httpx.options(url.join(CHAT), headers=PAGE | QUESTION, trust_env=False)
        answers = [
            httpx.post(url.join(CHAT), json=ASKING, headers=PAGE, trust_env=False),
            httpx.post(url.join(CHAT), json={}, headers=PAGE, trust_env=False),
            get(url, "/v1/models", headers=PAGE),
        ]
    assert asked.status_code == 204
    assert asked.headers["access-control-allow-methods"] == "GET, POST"
    assert asked.headers["access-control-allow-headers"] == "authorization,x-stainless-os"
    assert [answer.status_code for answer in answers] == [200, 400, 200]
    for answer in (asked, *answers):
        assert answer.headers["access-control-allow-origin"] == PAGE["Origin"]
        assert answer.headers["vary"] == "Origin"
        assert "access-control-allow-credentials" not in answer.headers


@pytest.mark.parametrize("origins", [(), ("https://other.example.com",)])
def test_a_page_of_another_origin_may_not(origins: tuple[str, ...]) -> None:
    with gateway(origins=origins) as (url, pod):
        asked = httpx.options(url.join(CHAT), headers=PAGE | QUESTION, trust_env=False)
        listed = get(url, "/v1/models", headers=PAGE)
    assert asked.status_code == 405
    assert listed.status_code == 200
    assert not [name for answer in (asked, listed) for name in answer.headers if name.startswith("access-control")]
    assert pod.asked == []


def test_all_origins_may_be_allowed() -> None:
    with gateway(origins=["*"]) as (url, _):
        answer = get(url, "/v1/models", headers=PAGE)
        assert answer.headers["access-control-allow-origin"] == PAGE["Origin"]
        assert "access-control-allow-origin" not in get(url, "/v1/models").headers


# --- TLS


def files(*, days: int = 1) -> dict[str, bytes]:
    made = renewed({}, names=["localhost"], now=datetime.now(UTC), life=timedelta(days=days), published=None)
    assert made is not None
    return dict(made.data)


def write(folder: Path, content: dict[str, bytes]) -> None:
    folder.mkdir(exist_ok=True)
    for name in (CERTIFICATE, KEY):
        (folder / name).write_bytes(content[name])


def status(url: httpx.URL, authority: bytes) -> int:
    trusted = ssl.create_default_context(cadata=authority.decode())
    return httpx.get(url.copy_with(host="localhost").join("/v1/models"), verify=trusted, trust_env=False).status_code


EXPIRY = "llamamodel_gateway_certificate_expiry_timestamp_seconds"


def ends_of(content: dict[str, bytes]) -> float:
    ends = expiry(content[CERTIFICATE])
    assert ends is not None
    return ends.timestamp()


def test_a_certificate_is_renewed_while_it_serves_and_a_wrong_one_is_not_taken(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = files(), files(days=2)
    folder = tmp_path / "tls"
    registry = CollectorRegistry()
    certificate = MountedCertificate(str(folder), registry=registry)
    certificate.mounted.look()
    assert certificate.problem() is not None
    assert registry.get_sample_value(EXPIRY) == 0
    write(folder, first)
    certificate.mounted.look()
    assert certificate.problem() is None
    assert registry.get_sample_value(EXPIRY) == ends_of(first)
    with gateway(tls=certificate.tls) as (url, _):
        assert status(url, first[CA]) == 200
        write(folder, {**second, KEY: first[KEY]})
        certificate.mounted.look()
        assert "expected one in PEM with its key" in caplog.text
        assert registry.get_sample_value(EXPIRY) == ends_of(first), "of what is served"
        assert status(url, first[CA]) == 200
        (folder / KEY).unlink()
        certificate.mounted.look()
        assert "found no tls.key" in caplog.text
        assert status(url, first[CA]) == 200
        write(folder, second)
        certificate.mounted.look()
        assert registry.get_sample_value(EXPIRY) == ends_of(second)
        assert status(url, second[CA]) == 200
        with pytest.raises(httpx.ConnectError):
            status(url, first[CA])


def test_connections_count_from_before_their_handshake_and_one_that_fails_gives_its_place_back(tmp_path: Path) -> None:
    made = files()
    write(tmp_path / "tls", made)
    certificate = MountedCertificate(str(tmp_path / "tls"), registry=CollectorRegistry())
    certificate.mounted.look()
    with gateway(tls=certificate.tls, limits=ConnectionLimits(most=2)) as (url, _):
        with connect(url), connect(url) as second:
            with connect(url) as third:
                assert is_closed(third)
            second.sendall(b"GET / HTTP/1.1\r\n\r\n")
            with suppress(ConnectionError):
                while second.recv(65_536):  # it may be told first that it speaks no TLS
                    pass
        until, answered = time.monotonic() + PATIENCE_SEC, 0
        while answered != 200 and time.monotonic() < until:
            with suppress(httpx.TransportError):
                answered = status(url, made[CA])
        assert answered == 200
