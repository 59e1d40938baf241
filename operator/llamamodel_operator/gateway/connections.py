"""The connections of clients: how many, how long one may take over its headers and over its answers, and what one is
told that does not speak HTTP."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import cast

from aiohttp import StreamReader, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import HttpRequestParser, RawRequestMessage
from aiohttp.http_exceptions import HttpProcessingError, LineTooLong

from llamamodel_operator.core.gateway.errors import ApiError, headers_too_large, malformed_http
from llamamodel_operator.core.gateway.limits import Part, SharedBytes

__all__ = ["ConnectionLimits", "Connections"]

_LINE_BYTES = 8190
"""The longest line of a request, and the longest header."""
_MOST_HEADERS = 128

_READ_AHEAD = 1
"""Requests that are read on a connection while another one is answered; aiohttp has 32."""
_AHEAD_BYTES = 32 << 20
"""What all connections may have of requests that nobody works on yet: heads that have not ended, and what is read
ahead. It is in no other count. A connection that goes beyond it is closed."""
_LONGEST_HEAD_BYTES = 1 << 16
"""Of a head that comes bit by bit."""

_quiet = logging.getLogger(f"{__name__}.http")
"""aiohttp's own words about clients that send garbage, or vanish: with stack traces, for nobody here."""
_quiet.setLevel(logging.CRITICAL)


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


class Connections(web.Server):
    """Makes one for each client."""

    def __init__(
        self,
        handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]],
        *,
        unreadable: Callable[[web.BaseRequest, ApiError], web.StreamResponse],
        limits: ConnectionLimits,
    ) -> None:
        """`unreadable`: answers what is no HTTP; its request is a stand-in, of which only the connection is true."""
        super().__init__(
            handler,
            request_factory=self._taken,
            handler_cancellation=True,  # a client that goes away has its generation ended
        )
        self.unreadable = unreadable
        self.limits = limits
        self.open = 0
        self.ahead = SharedBytes(_AHEAD_BYTES)

    def _taken(
        self,
        message: RawRequestMessage,
        payload: StreamReader,
        protocol: web.RequestHandler,
        writer: AbstractStreamWriter,
        task: asyncio.Task[None],
    ) -> web.BaseRequest:
        cast(_Connection, protocol).taken()
        return self._make_request(message, payload, protocol, writer, task)

    def __call__(self) -> web.RequestHandler:
        return _Connection(self)


class _Connection(web.RequestHandler):
    __slots__ = ("_ahead", "_counted", "_held", "_payload", "_server", "_slow", "_wire")

    def __init__(self, server: Connections) -> None:
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            keepalive_timeout=server.limits.idle_sec,  # counts from the connection's beginning as well
            access_log=None,  # type: ignore[arg-type]  # off
            logger=_quiet,
            max_line_size=_LINE_BYTES,
            max_field_size=_LINE_BYTES,
            max_headers=_MOST_HEADERS,
        )
        self._server = server
        self._wire: asyncio.Transport | None = None
        self._slow: asyncio.TimerHandle | None = None
        self._counted = False
        self._payload: StreamReader | None = None
        self._held = False
        self._ahead = Part(server.ahead)
        # aiohttp (3.14.5) has a constant for it, and no argument.
        self._max_msg_queue_size, self._msg_queue_resume_size = _READ_AHEAD, 0
        self._parser = HttpRequestParser(
            self,
            self._loop,
            self._read_bufsize,
            max_line_size=_LINE_BYTES,
            max_field_size=_LINE_BYTES,
            max_headers=_MOST_HEADERS,
            payload_exception=web.RequestPayloadError,
            max_msg_queue_size=_READ_AHEAD,
        )

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._wire = cast(asyncio.Transport, transport)
        if self._server.open >= self._server.limits.most:
            self._wire.abort()
            return
        self._server.open += 1
        self._counted = True
        # So that writing pauses as soon as anything is left over, and `resume_writing` means that all was taken.
        self._wire.set_write_buffer_limits(high=0)
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        if self._counted:
            self._server.open -= 1
        self._ahead.give_back()
        self._clear()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        body = self._payload
        in_a_body = body is not None and not body.is_eof()
        super().data_received(data)
        if in_a_body and body is not None and body.is_eof() and not self._messages and self._parser is not None:
            # A request that left the queue before all of it was there: aiohttp (3.14.5) has it queued from its end on,
            # stops before what follows, and takes that up with the next data, for which the client may wait in vain.
            self._parser.message_consumed()
            super().data_received(b"")
        if not self._messages:
            if data and not in_a_body:  # without data, aiohttp has taken what was sent ahead and looks for more
                self._count(data, most=_LONGEST_HEAD_BYTES)
            return
        if self._request_in_progress:
            self._count(data)
        message, payload = self._messages[-1]
        if isinstance(message, RawRequestMessage):
            self._payload = payload
        elif self._payload is not None and not self._payload.is_eof():
            # A chunk that is none. aiohttp (3.14.5) keeps that for the next request: who reads this body would wait.
            self._payload.set_exception(web.RequestPayloadError())

    def pause_reading(self) -> None:
        self._held = True
        super().pause_reading()

    def resume_reading(self, resume_parser: bool = True) -> None:
        # It is called for every body that was read, and looks each time whether the parser has something left: only one
        # that was held back has.
        if self._held:
            self._held = False
            super().resume_reading(resume_parser)

    def _count(self, data: bytes, *, most: float = math.inf) -> None:
        """Of requests that nobody works on yet."""
        if (not self._ahead.take(len(data)) or self._ahead.taken > most) and self._wire is not None:
            self._wire.abort()

    def taken(self) -> None:
        """A request is about to be worked on."""
        if not self._messages:
            self._ahead.give_back()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._slow = self._loop.call_later(self._server.limits.write_sec, self._drop)

    def resume_writing(self) -> None:
        self._clear()
        super().resume_writing()

    def _drop(self) -> None:
        if self._wire is not None:
            self._wire.abort()  # what the client has not taken by now is given up

    def _clear(self) -> None:
        if self._slow is not None:
            self._slow.cancel()
            self._slow = None

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        if not isinstance(exc, HttpProcessingError):
            return super().handle_error(request, status, exc, message)
        if isinstance(exc, LineTooLong):
            error = headers_too_large(limit_bytes=_LINE_BYTES)
        else:
            error = malformed_http(exc.message)
        return self._server.unreadable(request, error)
