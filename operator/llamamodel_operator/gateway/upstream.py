"""Connections to pods: POSTs by HTTP/1.1, on connections that are kept for the next request.

What a general client does besides (redirects, cookies, proxies, packed bodies, tracing) costs more here than all else;
so this is one connection for one request at a time, on asyncio's protocols, with llhttp as the parser (by httptools).
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import cast

import httptools

__all__ = ["Answer", "NoConnectionError", "UpstreamDiedError", "UpstreamSession"]

_CONNECT_SEC = 5.0
_KEEP_SEC = 3.0
"""llama-server closes a connection that is idle for 5 s; a request on one that it is just closing would be lost."""
_CLOSING_SEC = 1.0
"""A kept connection that ends within this time after a request was written was being closed when it was; one that ends
later has ended while the server worked on the request."""
_LONGEST_HEAD_BYTES = 1 << 16
"""Of an answer's status and headers; also of what is between two pieces of its body, and after it."""
_AHEAD_BYTES = 1 << 16
"""How much is read before somebody takes it."""


class NoConnectionError(Exception):
    """There is no connection to be had; nothing was sent."""


class UpstreamDiedError(Exception):
    """The connection ended before the answer did, or what came is no answer."""


class UpstreamSession:
    """All connections to pods. Lives in one event loop."""

    def __init__(self, *, keep_sec: float = _KEEP_SEC) -> None:
        """`keep_sec`: how long a connection without a request is kept."""
        self._keep_sec = keep_sec
        self._kept: defaultdict[str, list[_Connection]] = defaultdict(list)

    async def __aenter__(self) -> UpstreamSession:
        return self

    async def __aexit__(self, *_: object) -> None:
        for address in tuple(self._kept):
            self._close_kept(address)

    async def post(
        self, address: str, target: str, *, headers: Iterable[tuple[bytes, bytes]], body: bytes, timeout_sec: float
    ) -> Answer:
        """The answer as soon as its headers are there; to be left as a context manager.

        A connection that was kept and ends at once, before anything has come, was closed by the server while nobody
        used it: the request goes there once more, on a new one. Where no new one can be made, the server has died,
        perhaps by this very request; so nobody else shall be asked.

        Args:
            address: `host:port`, the host an IP address.
            target: path and query, passed on as they are.
            headers: besides those that describe connection and length.
            timeout_sec: within which each piece of the answer must come.

        Raises:
            NoConnectionError: nothing was sent.
            UpstreamDiedError: see there.
            TimeoutError: nothing has come in time.
        """
        head = _head(address, target, headers=headers, length=len(body))
        if (kept := self._taken(address)) is not None:
            closed_by = kept.loop.time() + _CLOSING_SEC
            try:
                return await self._ask(kept, address, head, body, timeout_sec)
            except UpstreamDiedError:
                if kept.answering or kept.loop.time() >= closed_by:
                    raise
            self._close_kept(address)  # they are as old
            try:
                connection = await _connect(address)
            except NoConnectionError as error:
                raise UpstreamDiedError from error
        else:
            connection = await _connect(address)
        return await self._ask(connection, address, head, body, timeout_sec)

    async def _ask(self, connection: _Connection, address: str, head: bytes, body: bytes, timeout_sec: float) -> Answer:
        connection.send(head, body)
        try:
            while not connection.has_head:
                await connection.more(timeout_sec)
        except BaseException:
            connection.abort()
            raise
        return Answer(self, connection, address=address, timeout_sec=timeout_sec)

    def give_back(self, connection: _Connection, address: str) -> None:
        """What was asked of it is done, or not wanted any more."""
        if not connection.reusable:
            connection.abort()
            return
        connection.kept_until = connection.loop.time() + self._keep_sec
        if connection.expiry is None:  # else it is looked at in time: a timer for each request costs more than this
            connection.expiry = connection.loop.call_at(connection.kept_until, self._expire, connection, address)
        self._kept[address].append(connection)

    def _taken(self, address: str) -> _Connection | None:
        """The one that was used last, of those that are still open."""
        kept = self._kept.get(address)
        while kept:
            connection = kept.pop()
            connection.kept_until = None
            if not connection.ended:
                return connection
            connection.abort()
        return None

    def _expire(self, connection: _Connection, address: str) -> None:
        connection.expiry = None
        if connection.kept_until is None:
            return
        if connection.loop.time() < connection.kept_until:  # it was used in the meantime
            connection.expiry = connection.loop.call_at(connection.kept_until, self._expire, connection, address)
            return
        connection.abort()
        kept = self._kept[address]
        kept.remove(connection)
        if not kept:
            del self._kept[address]

    def _close_kept(self, address: str) -> None:
        for connection in self._kept.pop(address, ()):
            connection.kept_until = None
            if connection.expiry is not None:
                connection.expiry.cancel()
            connection.abort()


class Answer:
    """An answer whose headers have come. Left before its end, it closes the connection: the server stops working on it.

    Attributes:
        status: 200 to 999.
        headers: by their names in lower case; of those that come twice the last.
        length: of the body, where it was said, bytes.
    """

    def __init__(self, session: UpstreamSession, connection: _Connection, *, address: str, timeout_sec: float) -> None:
        self._session = session
        self._connection = connection
        self._address = address
        self._timeout_sec = timeout_sec
        self.status = connection.status
        self.headers: Mapping[str, str] = connection.headers
        length = self.headers.get("content-length")
        self.length = None if length is None else int(length)

    async def __aenter__(self) -> Answer:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._session.give_back(self._connection, self._address)

    async def read(self) -> bytes:
        """All of the body that has come since the last time; empty at its end.

        Raises:
            UpstreamDiedError: it broke off.
            TimeoutError: nothing has come in time.
        """
        connection = self._connection
        while not (piece := connection.take()) and not connection.complete:
            await connection.more(self._timeout_sec)
        return piece


class _Connection(asyncio.Protocol):
    """One connection, which takes one request at a time.

    Attributes:
        answering: something has come since the request was sent.
        has_head: status and headers of the answer are there.
        complete: all of the answer has come; so it is before the first request, too.
        ended: nothing will come any more.
        kept_until: when it is closed, by the loop's clock, in seconds; None while somebody uses it.
        expiry: what looks at that.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.status = 0
        self.headers: dict[str, str] = {}
        self.answering = False
        self.has_head = False
        self.complete = True
        self.ended = False
        self.kept_until: float | None = None
        self.expiry: asyncio.TimerHandle | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport
        self._pieces: list[bytes] = []
        self._ahead_bytes = 0
        self._unparsed_bytes = 0
        self._paused = False
        self._keep = False
        self._waiting: asyncio.Future[None] | None = None
        self._late_at = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0

    @property
    def reusable(self) -> bool:
        return self.complete and self._keep and not self.ended

    def send(self, head: bytes, body: bytes) -> None:
        """A request; what came of an earlier one is forgotten."""
        self.status, self.headers = 0, {}
        self.answering = self.has_head = self.complete = self._keep = False
        self.take()
        if not self.ended:
            self._transport.writelines((head, body))

    def take(self) -> bytes:
        """What has come of the body."""
        if not self._pieces:
            return b""
        taken = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        self._pieces.clear()
        self._ahead_bytes = 0
        if self._paused and not self._transport.is_closing():
            self._transport.resume_reading()
        self._paused = False
        return taken

    async def more(self, timeout_sec: float) -> None:
        """Until something has come, or the connection has ended.

        Raises:
            UpstreamDiedError: nothing can come.
            TimeoutError: nothing has come in time.
        """
        if self.ended:
            raise UpstreamDiedError
        self._waiting = self.loop.create_future()
        self._late_at = self.loop.time() + timeout_sec
        if self._timer is None or self._timer_at > self._late_at:
            self._set_timer()  # one for all pieces and requests, as each of them costs as much as a piece itself
        try:
            await self._waiting
        finally:
            self._waiting = None

    def abort(self) -> None:
        """Close it, whatever was still to be written or read."""
        self.ended = True
        if self._timer is not None:
            self._timer.cancel()
        self._transport.abort()

    # --- called by asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self.answering = True
        self._unparsed_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self.abort()
        if self._unparsed_bytes > _LONGEST_HEAD_BYTES:
            self.abort()
        elif self._ahead_bytes > _AHEAD_BYTES and not self._paused and not self.ended:
            self._paused = True
            self._transport.pause_reading()
        self._wake()

    def eof_received(self) -> None:
        self._end(in_order=True)

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(in_order=exc is None)

    def _end(self, *, in_order: bool) -> None:
        delimited = "content-length" in self.headers or "transfer-encoding" in self.headers
        if in_order and self.has_head and not delimited and not self.ended:
            self.complete = True  # RFC 9112, 6.3: as long as the connection
        self.ended = True
        self._wake()

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = self._late_at
        self._timer = self.loop.call_at(self._late_at, self._look_at_clock)

    def _look_at_clock(self) -> None:
        self._timer = None
        if self._waiting is None or self._waiting.done():
            return
        if self.loop.time() >= self._late_at:
            self._waiting.set_exception(TimeoutError())
        else:
            self._set_timer()

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    # --- called by the parser

    def on_message_begin(self) -> None:
        if self.complete:
            self.abort()  # nobody has asked

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.has_head:
            self.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        self._unparsed_bytes = 0
        if self.complete:
            return
        self.status = self._parser.get_status_code()
        self.has_head = self.status >= 200
        if not self.has_head:
            self.headers.clear()

    def on_body(self, piece: bytes) -> None:
        self._unparsed_bytes = 0
        if not self.complete:
            self._pieces.append(piece)
            self._ahead_bytes += len(piece)

    def on_message_complete(self) -> None:
        self._unparsed_bytes = 0
        if self.has_head:
            self.complete = True
            self._keep = self._parser.should_keep_alive()


async def _connect(address: str) -> _Connection:
    host, _, port = address.rpartition(":")
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(_CONNECT_SEC):
            _, connection = await loop.create_connection(lambda: _Connection(loop), host.strip("[]"), int(port))
    except OSError as error:  # a TimeoutError, too
        raise NoConnectionError from error
    return connection


def _head(address: str, target: str, *, headers: Iterable[tuple[bytes, bytes]], length: int) -> bytes:
    first = f"POST {target} HTTP/1.1\r\nHost: {address}\r\nContent-Length: {length}"
    lines = [first.encode(errors="surrogateescape")]  # as aiohttp's server has decoded it
    lines += [b"%b: %b" % header for header in headers]
    return b"\r\n".join(lines) + b"\r\n\r\n"
