"""Connections from the gateway to pods, against sockets that do what servers do, and what they should not."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import uvloop

from llamamodel_operator.gateway.upstream import Answer, NoConnectionError, UpstreamDiedError, UpstreamSession

pytestmark = pytest.mark.real_time

OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
BODY = b'{"model": "m"}'


class Peer:
    """The server's end of one connection."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        connection.setblocking(False)

    async def request(self) -> bytes:
        """All of the next one."""
        said = bytearray()
        while b"\r\n\r\n" not in said:
            said += await self.some()
        head = said.partition(b"\r\n\r\n")[0]
        length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
        while len(said) < len(head) + 4 + length:
            said += await self.some()
        return bytes(said)

    async def some(self) -> bytes:
        piece: bytes = await asyncio.get_running_loop().sock_recv(self._connection, 65_536)
        assert piece, "the client has closed the connection"
        return piece

    async def say(self, answer: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self._connection, answer)

    async def gone(self) -> None:
        """Until the client has closed the connection."""
        try:
            while await asyncio.get_running_loop().sock_recv(self._connection, 65_536):
                pass
        except ConnectionError:
            pass
        self.close()

    def close(self) -> None:
        self._connection.close()

    def reset(self) -> None:
        self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._connection.close()


class Pod:
    """Does what a test has it do."""

    def __init__(self, *, keep_sec: float = 60.0) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.setblocking(False)
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.session = UpstreamSession(keep_sec=keep_sec)
        self._peers: list[Peer] = []

    async def accept(self) -> Peer:
        connection, _ = await asyncio.get_running_loop().sock_accept(self._listener)
        self._peers.append(Peer(connection))
        return self._peers[-1]

    def connections(self) -> int:
        """That were made and that nobody has accepted."""
        found = 0
        while True:
            try:
                self._listener.accept()[0].close()
            except BlockingIOError:
                return found
            found += 1

    def refuse(self) -> None:
        """Connections, from now on."""
        self._listener.close()

    def end(self) -> None:
        self._listener.close()
        for peer in self._peers:
            peer.close()

    def ask(self, body: bytes = BODY, timeout_sec: float = 20.0) -> asyncio.Task[Answer]:
        return asyncio.create_task(
            self.session.post(
                self.address, "/v1/completions?x=%20", headers=[(b"X-Trace", b"1")], body=body, timeout_sec=timeout_sec
            )
        )

    async def answered(self, peer: Peer, answer: bytes = OK) -> bytes:
        """A request on this connection, and its answer to the end."""
        asked = self.ask()
        await peer.request()
        await peer.say(answer)
        return await whole(await asked)

    async def kept(self) -> Peer:
        """A connection that an earlier request has left."""
        asked = self.ask()
        peer = await self.accept()
        await peer.request()
        await peer.say(OK)
        assert await whole(await asked) == b"{}"
        return peer


async def whole(answer: Answer) -> bytes:
    said = bytearray()
    async with answer:
        while piece := await answer.read():
            said += piece
    return bytes(said)


def with_a_pod(**settings: Any) -> Callable[[Callable[[Pod], Awaitable[None]]], Callable[[], None]]:
    """Runs a test as the gateway runs: by uvloop."""

    def decorate(test: Callable[[Pod], Awaitable[None]]) -> Callable[[], None]:
        def run() -> None:
            uvloop.run(given(test, **settings))

        return run

    return decorate


async def given(test: Callable[[Pod], Awaitable[None]], **settings: Any) -> None:
    pod = Pod(**settings)
    try:
        async with asyncio.timeout(60), pod.session:
            await test(pod)
    finally:
        pod.end()


# --- requests and answers


@with_a_pod()
async def test_a_request_is_written_as_it_is_with_its_length(pod: Pod) -> None:
    asked = pod.ask()
    peer = await pod.accept()
    head, _, body = (await peer.request()).partition(b"\r\n\r\n")
    assert head.split(b"\r\n") == [
        b"POST /v1/completions?x=%20 HTTP/1.1",
        f"Host: {pod.address}".encode(),
        b"Content-Length: 14",
        b"X-Trace: 1",
    ]
    assert body == BODY
    await peer.say(OK)
    answer = await asked
    assert (answer.status, answer.length, answer.headers["content-type"]) == (200, 2, "application/json")
    assert await whole(answer) == b"{}"


@pytest.mark.parametrize(
    ("answer", "body", "kept"),
    [
        (OK, b"{}", True),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b"", True),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b"", True),
        (CHUNKED + b"3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nX-Sum: 1\r\n\r\n", b"abcde", True),
        (b"HTTP/1.1 100 Continue\r\nX: 1\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\n" + OK, b"{}", True),
        (OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"), b"{}", False),
        (OK.replace(b"HTTP/1.1", b"HTTP/1.0"), b"{}", False),
        (OK + OK, b"{}", False),
        (OK + b"more than was promised", b"{}", False),
    ],
    ids=["length", "empty", "204", "chunks", "interim", "close", "HTTP/1.0", "two answers", "too long"],
)
@pytest.mark.parametrize("at_once", [True, False], ids=["at once", "byte by byte"])
def test_an_answer_is_read_to_its_end(answer: bytes, body: bytes, kept: bool, at_once: bool) -> None:
    async def check(pod: Pod) -> None:
        asked = pod.ask()
        peer = await pod.accept()
        await peer.request()
        for piece in [answer] if at_once else [bytes((byte,)) for byte in answer]:
            try:
                await peer.say(piece)
            except ConnectionError:
                assert not kept
                break
            await asyncio.sleep(0)
        assert await whole(await asked) == body
        if kept:
            assert await pod.answered(peer) == b"{}"
            assert pod.connections() == 0
        else:
            await peer.gone()
            await pod.kept()

    uvloop.run(given(check))


@with_a_pod()
async def test_an_answer_without_a_length_ends_with_its_connection(pod: Pod) -> None:
    asked = pod.ask()
    peer = await pod.accept()
    await peer.request()
    await peer.say(b"HTTP/1.1 200 OK\r\n\r\nabc")
    answer = await asked
    assert await answer.read() == b"abc"
    await peer.say(b"def")
    peer.close()
    assert await whole(answer) == b"def"


@with_a_pod()
async def test_an_answer_without_a_length_that_is_reset_has_broken_off(pod: Pod) -> None:
    asked = pod.ask()
    peer = await pod.accept()
    await peer.request()
    await peer.say(b"HTTP/1.1 200 OK\r\n\r\nabc")
    answer = await asked
    assert await answer.read() == b"abc"
    peer.reset()
    with pytest.raises(UpstreamDiedError):
        await whole(answer)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Le",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc",
        CHUNKED + b"3\r\nabc\r\n",
        CHUNKED + b"3\r\nabc\r\n0\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nabc",
    ],
    ids=["nothing", "head", "body", "chunks", "last chunk", "interim", "another encoding"],
)
@pytest.mark.parametrize("reset", [True, False], ids=["reset", "closed"])
def test_half_an_answer_is_an_error_and_is_not_asked_for_again(answer: bytes, reset: bool) -> None:
    async def check(pod: Pod) -> None:
        asked = pod.ask()
        peer = await pod.accept()
        await peer.request()
        await peer.say(answer)
        await asyncio.sleep(0.01)  # so that what was said is not lost by the reset
        (peer.reset if reset else peer.close)()
        with pytest.raises(UpstreamDiedError):
            await whole(await asked)
        assert pod.connections() == 0

    uvloop.run(given(check))


@pytest.mark.parametrize(
    "answer",
    [
        b"\x15\x03\x01\x00\x02\x02\x46",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\nabc",
        CHUNKED + b"x\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 1_000_000,
        b"HTTP/1.1 200 OK\r\n" + b"X: x\r\n" * 100_000,
        CHUNKED + b"3;" + b"x" * 1_000_000,
        CHUNKED + b"0\r\nX: " + b"x" * 1_000_000,
    ],
    ids=[
        *("TLS", "two lengths", "length and chunks", "negative length", "upgrade", "no chunk"),
        *("long header", "many headers", "long extension", "long trailer"),
    ],
)
def test_what_is_no_answer_ends_the_connection(answer: bytes) -> None:
    async def check(pod: Pod) -> None:
        asked = pod.ask()
        peer = await pod.accept()
        await peer.request()
        said = asyncio.create_task(peer.say(answer))
        with pytest.raises(UpstreamDiedError):
            await whole(await asked)
        await asyncio.wait([said])
        said.exception()
        await peer.gone()

    uvloop.run(given(check))


# --- connections that are kept


@with_a_pod()
async def test_a_connection_is_used_again_and_two_requests_at_once_take_two(pod: Pod) -> None:
    peer = await pod.kept()
    first = pod.ask()
    await peer.request()
    second = pod.ask()
    other = await pod.accept()
    await other.request()
    for one, asked in ((peer, first), (other, second)):
        await one.say(OK)
        assert await whole(await asked) == b"{}"


@with_a_pod(keep_sec=0.01)
async def test_a_connection_that_nobody_uses_is_closed(pod: Pod) -> None:
    await (await pod.kept()).gone()
    await pod.kept()


@with_a_pod(keep_sec=0.05)
async def test_a_connection_that_is_used_longer_than_it_is_kept_stays_open_and_is_closed_when_it_is_idle_again(
    pod: Pod,
) -> None:
    peer = await pod.kept()
    asked = pod.ask()
    await peer.request()
    await asyncio.sleep(0.2)  # what looks after idle connections has looked
    await peer.say(OK)
    assert await whole(await asked) == b"{}"
    await peer.gone()


@with_a_pod(keep_sec=0.05)
async def test_a_connection_that_ended_while_nobody_used_it_is_forgotten(pod: Pod) -> None:
    peer = await pod.kept()
    await peer.say(OK)  # nobody has asked
    await peer.gone()
    await asyncio.sleep(0.2)  # what looks after idle connections has looked
    assert not pod.session._kept


@with_a_pod()
async def test_the_end_of_a_session_closes_what_was_kept(pod: Pod) -> None:
    peer = await pod.kept()
    async with pod.session:
        pass
    await peer.gone()


@with_a_pod()
async def test_a_connection_on_which_the_server_talks_unasked_is_closed(pod: Pod) -> None:
    peer = await pod.kept()
    await peer.say(OK.replace(b"{}", b"[]"))
    await peer.gone()
    await pod.kept()


@pytest.mark.parametrize("how", ["closed", "reset"])
@pytest.mark.parametrize("noticed", [True, False], ids=["in the meantime", "this very moment"])
def test_a_connection_that_the_server_has_ended_loses_no_request(how: str, noticed: bool) -> None:
    async def check(pod: Pod) -> None:
        peers = [await pod.kept()]
        asked = [pod.ask() for _ in range(3)]
        await peers[0].request()
        peers += [await pod.accept(), await pod.accept()]
        for peer in peers[1:]:
            await peer.request()
        for peer in peers:
            await peer.say(OK)
        for answer in asked:
            await whole(await answer)
        for peer in peers:
            (peer.close if how == "closed" else peer.reset)()
        if noticed:
            await asyncio.sleep(0.05)
        await pod.kept()
        assert pod.connections() == 0

    uvloop.run(given(check))


@with_a_pod()
async def test_a_connection_that_is_reset_while_the_request_is_written_loses_no_request(pod: Pod) -> None:
    """As of a server that has closed it before it could see the request."""
    peer = await pod.kept()
    large = b"x" * (32 << 20)
    asked = pod.ask(large)
    await peer.some()
    peer.reset()
    again = await pod.accept()
    assert (await again.request()).endswith(b"\r\n\r\n" + large)
    await again.say(OK)
    assert await whole(await asked) == b"{}"


@pytest.mark.parametrize("how", ["closed", "reset"])
def test_a_request_is_sent_again_once_and_not_where_the_server_is_gone(how: str) -> None:
    """It may be what the server has died of."""

    async def check(pod: Pod) -> None:
        peer = await pod.kept()
        asked = pod.ask()
        await peer.request()
        (peer.close if how == "closed" else peer.reset)()
        again = await pod.accept()
        await again.request()
        (again.close if how == "closed" else again.reset)()
        with pytest.raises(UpstreamDiedError):
            await asked
        assert pod.connections() == 0
        peer = await pod.kept()
        asked = pod.ask()
        await peer.request()
        pod.refuse()
        (peer.close if how == "closed" else peer.reset)()
        with pytest.raises(UpstreamDiedError):
            await asked

    uvloop.run(given(check))


def test_a_connection_that_ends_later_has_been_worked_on_and_is_not_asked_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("llamamodel_operator.gateway.upstream._CLOSING_SEC", 0.0)

    async def check(pod: Pod) -> None:
        peer = await pod.kept()
        asked = pod.ask()
        await peer.request()
        peer.close()
        with pytest.raises(UpstreamDiedError):
            await asked
        assert pod.connections() == 0

    uvloop.run(given(check))


@with_a_pod()
async def test_an_answer_that_has_begun_on_a_kept_connection_is_not_asked_for_again(pod: Pod) -> None:
    peer = await pod.kept()
    asked = pod.ask()
    await peer.request()
    await peer.say(b"HTTP/1.1 200 OK\r\n")
    await asyncio.sleep(0.01)
    peer.close()
    with pytest.raises(UpstreamDiedError):
        await asked
    assert pod.connections() == 0


@with_a_pod()
async def test_without_a_server_there_is_no_connection(pod: Pod) -> None:
    pod.refuse()
    with pytest.raises(NoConnectionError):
        await pod.ask()


# --- not to the end


@with_a_pod()
async def test_who_gives_up_waiting_closes_the_connection(pod: Pod) -> None:
    asked = pod.ask()
    peer = await pod.accept()
    await peer.request()
    asked.cancel()
    await peer.gone()
    with pytest.raises(asyncio.CancelledError):
        await asked


@with_a_pod()
async def test_who_leaves_an_answer_before_its_end_closes_the_connection(pod: Pod) -> None:
    asked = pod.ask()
    peer = await pod.accept()
    await peer.request()
    await peer.say(CHUNKED + b"3\r\nabc\r\n")
    async with await asked as answer:
        assert await answer.read() == b"abc"
    await peer.gone()


@with_a_pod()
async def test_a_server_that_says_nothing_more_is_a_timeout(pod: Pod) -> None:
    for said in (b"", CHUNKED + b"3\r\nabc\r\n"):
        asked = pod.ask(timeout_sec=0.05)
        peer = await pod.accept()
        await peer.request()
        await peer.say(said)
        with pytest.raises(TimeoutError):
            await whole(await asked)
        await peer.gone()


@with_a_pod()
async def test_a_request_has_its_own_time_also_on_a_connection_whose_last_one_had_more(pod: Pod) -> None:
    first = pod.ask(timeout_sec=3600)
    peer = await pod.accept()
    await peer.request()
    await peer.say(OK)
    await whole(await first)
    second = pod.ask(timeout_sec=0.05)
    await peer.request()
    with pytest.raises(TimeoutError):
        await whole(await second)


@with_a_pod()
async def test_a_server_is_not_read_faster_than_its_answer_is_taken(pod: Pod) -> None:
    piece, number, sent = b"x" * 65_536, 2_000, 0
    asked = pod.ask()
    peer = await pod.accept()
    await peer.request()

    async def say_all() -> None:
        nonlocal sent
        await peer.say(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (len(piece) * number))
        for sent in range(1, number + 1):  # noqa: B007 (read below, while this runs)
            await peer.say(piece)

    saying = asyncio.create_task(say_all())
    answer = await asked
    before = -1
    while before != sent:
        before = sent
        await asyncio.sleep(0.2)
    assert sent < number / 2, "the server has to wait for somebody who takes it"
    taken = await answer.read()
    assert 0 < len(taken) < 1 << 20
    assert len(taken) + len(await whole(answer)) == len(piece) * number
    await saying
    assert await pod.answered(peer) == b"{}", "and the connection is good for more"
