"""The connections of clients: how many, how long one may take over its headers and over its answers, and what one is
told that does not speak HTTP.

aiohttp's parser reads (llhttp, unpacking, limits, flow control); what its server does besides took a quarter of the
gateway's CPU (`docs/adr/0026-connections-of-the-gateway.md`).
"""

from __future__ import annotations

import asyncio
import logging
import math
import re
import socket
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import cast

from aiohttp import StreamReader, web
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http import HttpRequestParser, RawRequestMessage
from aiohttp.http_exceptions import HttpProcessingError, LineTooLong
from aiohttp.streams import EMPTY_PAYLOAD

from llamamodel_operator.core.gateway.errors import ApiError, headers_too_large, malformed_http
from llamamodel_operator.core.gateway.limits import Part, SharedBytes
from llamamodel_operator.gateway.messages import Request, Response, StreamedResponse

__all__ = ["Connection", "ConnectionLimits", "Connections"]

_LINE_BYTES = 8190
"""The longest line of a request, and the longest header."""
_MOST_HEADERS = 128
_READ_BYTES = 1 << 16
"""Of a body that nobody takes; twice as much stops the reading."""
_READ_AHEAD = 1
"""Requests that are read on a connection while another one is answered."""
_AHEAD_BYTES = 32 << 20
"""What all connections may have of requests that nobody works on yet: heads that have not ended, and what is read
ahead. It is in no other count. A connection that goes beyond it is closed."""
_LONGEST_HEAD_BYTES = 1 << 16
"""Of a head that comes bit by bit."""
_LINGER_SEC = 10.0
"""For the rest of a request that was answered early: closed before, the connection could take the answer with it."""

_STREAM = re.compile(rb'"stream"\s*:\s*true')
"""In the body of a request for a stream; for its turn alone, so it does no harm where it means something else."""

_ENDING_SEC = 0.01
"""For tasks to end whose connection was cut off."""

_log = logging.getLogger(__name__)

Handler = Callable[[Request], Awaitable[Response | StreamedResponse]]


@dataclass(frozen=True, kw_only=True)
class ConnectionLimits:
    """Attributes:
    most: connections that are open; more are closed at once.
    idle_sec: that a connection may be without a whole request's headers: at its beginning, and between requests.
    write_sec: within which a client must take what was sent to it.
    """

    most: int = 4000
    idle_sec: int = 75
    write_sec: int = 60


class _Turns:
    """Lets one request for a stream begin in each turn of the event loop. In between, the first events of those that
    began before are passed on: of several that come together, half have theirs after half of the time."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._taken = False
        self._waiting = deque[asyncio.Future[None]]()

    def next(self) -> asyncio.Future[None] | None:
        """What a request has to wait for, if it has to."""
        if not self._taken:
            self._taken = True
            self._loop.call_soon(self._pass)
            return None
        waiting = self._loop.create_future()
        self._waiting.append(waiting)
        return waiting

    def _pass(self) -> None:
        while self._waiting:
            waiting = self._waiting.popleft()
            if not waiting.done():  # its client has gone away
                waiting.set_result(None)
                self._loop.call_soon(self._pass)
                return
        self._taken = False


class Connections:
    """Makes one for each client: a factory of protocols. Lives in one event loop.

    Attributes:
        open: how many there are.
        ahead: what they have read of requests that nobody works on yet.
        turns: in which requests for streams begin.
    """

    def __init__(
        self, handler: Handler, *, unreadable: Callable[[Request, ApiError], Response], limits: ConnectionLimits
    ) -> None:
        """Args:
        handler: answers a request; is cancelled where the client goes away.
        unreadable: answers what is no HTTP; its request is a stand-in, of which only the connection is true.
        """
        self.handler = handler
        self.unreadable = unreadable
        self.limits = limits
        self.ahead = SharedBytes(_AHEAD_BYTES)
        self.turns = _Turns()
        self._open: set[Connection] = set()
        self._emptied = asyncio.Event()

    def __call__(self) -> Connection:
        return Connection(self)

    @property
    def open(self) -> int:
        return len(self._open)

    def enter(self, connection: Connection) -> bool:
        """Whether there is room for it."""
        if len(self._open) >= self.limits.most:
            return False
        self._open.add(connection)
        return True

    def leave(self, connection: Connection) -> None:
        self._open.discard(connection)
        if not self._open:
            self._emptied.set()

    async def close(self, *, timeout_sec: float) -> None:
        """Closes all of them, each when its client has taken the answer that is being given on it."""
        for connection in tuple(self._open):
            connection.close_soon()
        if self._open:
            self._emptied.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._emptied.wait(), timeout_sec)
        for connection in tuple(self._open):
            connection.abort()
        await asyncio.sleep(_ENDING_SEC)


class Connection(BaseProtocol):
    """One client's, which is answered one request at a time.

    Attributes:
        remote: address of the peer.
    """

    __slots__ = (
        "_ahead",
        "_closing",
        "_held",
        "_idle_timer",
        "_idle_until",
        "_messages",
        "_payload",
        "_server",
        "_slow",
        "_task",
        "remote",
    )

    def __init__(self, server: Connections) -> None:
        loop = asyncio.get_running_loop()
        parser = HttpRequestParser(
            self,
            loop,
            _READ_BYTES,
            max_line_size=_LINE_BYTES,
            max_field_size=_LINE_BYTES,
            max_headers=_MOST_HEADERS,
            payload_exception=web.RequestPayloadError,
            max_msg_queue_size=_READ_AHEAD,
        )
        super().__init__(loop, parser)
        self.remote = ""
        self._server = server
        self._messages = deque[tuple[RawRequestMessage | ApiError, StreamReader]]()
        self._task: asyncio.Task[None] | None = None
        self._closing = False
        self._idle_until: float | None = None
        self._idle_timer: asyncio.TimerHandle | None = None
        self._slow: asyncio.TimerHandle | None = None
        self._payload: StreamReader | None = None
        self._held = False
        self._ahead = Part(server.ahead)

    def close_soon(self) -> None:
        """Reads nothing more, and closes it, if need be after the answer that is being given."""
        self._closing = True
        self._messages.clear()
        if self._task is None:
            self.break_off()

    def abort(self) -> None:
        """Closes it, whatever was still to be written."""
        if self.transport is not None:
            self.transport.abort()

    def break_off(self) -> None:
        """Closes it after what was sent so far."""
        if self.transport is not None:
            self.transport.close()

    async def send(self, data: bytes) -> None:
        """Sends it, and waits where the client does not take it. Raises ConnectionError where it is gone."""
        if self.transport is None or self.transport.is_closing():
            raise ConnectionResetError("the client is gone")
        self.transport.write(data)
        if self._paused:
            if self._drain_waiter is not None and self._drain_waiter.done():
                self._drain_waiter = None  # who waited for it was cancelled
            await self._drain_helper()

    # --- answers

    async def _answer_all(self, request: Request | ApiError, turn: asyncio.Future[None] | None) -> None:
        """This request, when it is its turn, and those that were sent ahead."""
        goes_on = False
        try:
            if turn is not None:
                await turn
            while await self._answer(request):
                if not self._messages:
                    self._parse(b"")  # what was held back behind it
                if not self._messages:
                    goes_on = not self._closing
                    break
                request = self._next()
        except ConnectionError:
            pass  # the client is gone
        except Exception as error:
            # Not what it says: that may repeat a part of the request.
            _log.error("an answer was not sent; this is a bug of the gateway, please report it: %r", type(error))
        finally:
            self._task = None
            if goes_on:
                self._wait_for_request()
            else:
                self._closing = True
                self.break_off()

    async def _answer(self, request: Request | ApiError) -> bool:
        """Whether the connection goes on after it."""
        response: Response | StreamedResponse
        if isinstance(request, ApiError):
            error, request = request, Request(self, None, EMPTY_PAYLOAD)
            response = self._server.unreadable(request, error)
        else:
            response = await self._server.handler(request)
        if isinstance(response, Response):
            await self.send(response.written(request))
        elif not response.ended:
            return False
        content = request.content
        if not content.is_eof():
            with suppress(TimeoutError, web.RequestPayloadError):
                async with asyncio.timeout(_LINGER_SEC):
                    while not content.is_eof():
                        await content.readany()
        return content.is_eof() and not (response.closes or request.closes)

    def _next(self) -> Request | ApiError:
        """The one that came first of those that wait."""
        message, content = self._messages.popleft()
        if self._parser is not None:
            self._parser.message_consumed()
        if self._buffer_paused and not self._messages:
            self.data_received(b"")  # what was held back
            if not self._messages:
                self._resume_reading_for_buffer()
        if not self._messages:
            self._ahead.give_back()
        return message if isinstance(message, ApiError) else Request(self, message, content)

    # --- called by asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        wire = cast("asyncio.Transport", transport)
        if not self._server.enter(self):
            wire.abort()
            return
        # So that writing pauses as soon as anything is left over, and `resume_writing` means that all was taken.
        wire.set_write_buffer_limits(high=0)
        super().connection_made(transport)
        if (peer := wire.get_extra_info("peername")) is not None:
            self.remote = str(peer[0])
        if (its_socket := wire.get_extra_info("socket")) is not None:
            its_socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self._wait_for_request()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._server.leave(self)
        self._closing = True
        self._messages.clear()
        self._ahead.give_back()
        self._stop_timer()
        if self._idle_timer is not None:
            self._idle_timer.cancel()
        super().connection_lost(exc)
        self._parser = self._payload = None  # they know each other: nobody could free them at once
        if self._task is not None:
            self._task.cancel()  # a client that goes away has its generation ended

    def data_received(self, data: bytes) -> None:
        if self._closing or self._parser is None:
            return
        body = self._payload
        in_a_body = body is not None and not body.is_eof()
        self._parse(data)
        if in_a_body and body is not None and body.is_eof() and not self._messages:
            # A request that left the queue before all of it was there: aiohttp (3.14.5) has it queued from its end on,
            # stops before what follows, and takes that up with the next data, for which the client may wait in vain.
            self._parser.message_consumed()
            self._parse(b"")
        if not self._messages:
            if data and not in_a_body:  # without data, what was sent ahead has been taken, and more is looked for
                self._count(data, most=_LONGEST_HEAD_BYTES)
        elif self._task is not None:
            self._count(data)
            if not self._buffer_paused:
                self._pause_reading_for_buffer()
        else:
            self._idle_until = None
            turn = self._server.turns.next() if _STREAM.search(data) else None
            self._task = self._loop.create_task(self._answer_all(self._next(), turn))

    def _parse(self, data: bytes) -> None:
        if self._closing or self._parser is None:
            return
        try:
            while True:
                messages, upgraded, rest = self._parser.feed_data(data)
                for message, content in messages:
                    self._messages.append((message, content))
                    self._payload = content
                if not upgraded:
                    return
                self._parser.set_upgraded(False)  # to what this gateway does not speak: it goes on in HTTP
                data = rest
        except HttpProcessingError as error:
            said = (
                headers_too_large(limit_bytes=_LINE_BYTES)
                if isinstance(error, LineTooLong)
                else malformed_http(error.message)
            )
            if self._payload is not None and not self._payload.is_eof():
                # A chunk that is none: who reads this body would wait.
                self._payload.set_exception(web.RequestPayloadError())
            self._messages.append((said, EMPTY_PAYLOAD))
            self._closing = True

    def pause_reading(self) -> None:
        self._held = True
        super().pause_reading()

    def resume_reading(self, resume_parser: bool = True) -> None:
        # It is called for every body that was read, and looks each time whether the parser has something left: only one
        # that was ever held back has, and it may have so for long (one that is paused between chunks stops at the next
        # piece of a body, whosoever that is).
        if self._held:
            super().resume_reading(resume_parser)

    def _count(self, data: bytes, *, most: float = math.inf) -> None:
        """Of requests that nobody works on yet."""
        if not self._ahead.take(len(data)) or self._ahead.taken > most:
            self.abort()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._slow = self._loop.call_later(self._server.limits.write_sec, self.abort)

    def resume_writing(self) -> None:
        self._stop_timer()
        super().resume_writing()

    def _stop_timer(self) -> None:
        if self._slow is not None:
            self._slow.cancel()
            self._slow = None

    def _wait_for_request(self) -> None:
        self._idle_until = self._loop.time() + self._server.limits.idle_sec
        if self._idle_timer is None:  # else it is looked at in time: a timer for each request costs more than this
            self._idle_timer = self._loop.call_at(self._idle_until, self._look_at_clock)

    def _look_at_clock(self) -> None:
        self._idle_timer = None
        if self._idle_until is None:
            return
        if self._loop.time() < self._idle_until:
            self._idle_timer = self._loop.call_at(self._idle_until, self._look_at_clock)
        else:
            self.break_off()
