"""Requests as a connection has read them, and answers as it writes them (RFC 9112)."""

from __future__ import annotations

from collections.abc import Mapping
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from time import time
from typing import TYPE_CHECKING

from aiohttp import HttpVersion11, StreamReader
from aiohttp.http import RawRequestMessage

from llamamodel_operator.core.gateway.errors import ApiError

if TYPE_CHECKING:
    from llamamodel_operator.gateway.connections import Connection

__all__ = ["BODILESS", "Request", "Response", "StreamedResponse"]

_PHRASES = {status.value: status.phrase for status in HTTPStatus}
BODILESS = (204, 304)
"""Statuses of answers that have no body, and say nothing of its length (RFC 9112, 6.3)."""
_NO_HEADERS: Mapping[str, str] = {}


class Request:
    """What a client asks.

    Attributes:
        connection: it came by.
        method: empty where it could not be read.
        target: path and query, or what else there is, as the client wrote it; empty where it could not be read.
        headers: whatever the case of their names.
        raw_headers: as they were written.
        http11: it is written in HTTP/1.1, or a later version, rather than 1.0.
        content: its body, unpacked, as far as it has come.
        closes: the connection ends with its answer.
    """

    __slots__ = ("closes", "connection", "content", "headers", "http11", "method", "raw_headers", "target")

    def __init__(self, connection: Connection, message: RawRequestMessage | None, content: StreamReader) -> None:
        """`message`: None where it could not be read."""
        self.connection = connection
        self.content = content
        if message is None:
            self.method = self.target = ""
            self.headers: Mapping[str, str] = _NO_HEADERS
            self.raw_headers: tuple[tuple[bytes, bytes], ...] = ()
            self.http11 = self.closes = True
        else:
            self.method = message.method
            self.target = message.path
            self.headers = message.headers
            self.raw_headers = message.raw_headers
            self.http11 = message.version >= HttpVersion11
            self.closes = message.should_close

    @property
    def remote(self) -> str:
        """The address of the peer, which may be a proxy."""
        return self.connection.remote


class Response:
    """An answer that is whole.

    Attributes:
        headers: but for those that say how long it is, and what becomes of the connection.
        error: that it tells.
        closes: the connection ends with it.
    """

    __slots__ = ("body", "closes", "error", "headers", "status")

    def __init__(
        self,
        *,
        status: int = 200,
        body: bytes = b"",
        headers: Mapping[str, str] = _NO_HEADERS,
        content_type: str | None = None,
        error: ApiError | None = None,
    ) -> None:
        self.status = status
        self.body = body
        self.headers = dict(headers)
        if content_type is not None:
            self.headers["Content-Type"] = content_type
        self.error = error
        self.closes = False

    def written(self, request: Request) -> bytes:
        """All of it."""
        bodiless = self.status in BODILESS
        framing = "" if bodiless else f"Content-Length: {len(self.body)}\r\n"
        head = _head(self.status, self.headers, framing, request, closes=self.closes)
        return head if bodiless or request.method == "HEAD" else head + self.body


class StreamedResponse:
    """An answer that is sent piece by piece, in chunks where its length is not known.

    Attributes:
        closes: the connection ends with it.
        error: None: who reads it is told of errors within.
        begun: its headers have been sent.
        ended: so has its end.
    """

    __slots__ = ("_chunked", "_request", "begun", "closes", "ended", "headers", "length", "status")

    error: ApiError | None = None

    def __init__(
        self,
        request: Request,
        *,
        status: int = 200,
        headers: Mapping[str, str] = _NO_HEADERS,
        length: int | None = None,
    ) -> None:
        """`length`: of the body, bytes, where it is known."""
        self._request = request
        self._chunked = length is None and request.http11
        self.status = status
        self.headers = dict(headers)
        self.length = length
        self.closes = self.begun = self.ended = False

    async def write(self, piece: bytes) -> None:
        """Sends a piece that is not empty, the first one with the headers; waits where the client does not take it.
        Raises ConnectionError where the client is gone; so does `end`."""
        await self._request.connection.send(self._head() + self._framed(piece))

    async def end(self, rest: bytes = b"") -> None:
        """Sends the last piece, if there is one, and the end."""
        if self.ended:
            return
        self.ended = True
        last = self._framed(rest) if rest else b""
        if end := self._head() + last + (b"0\r\n\r\n" if self._chunked else b""):
            await self._request.connection.send(end)

    def _framed(self, piece: bytes) -> bytes:
        return b"%x\r\n%b\r\n" % (len(piece), piece) if self._chunked else piece

    def _head(self) -> bytes:
        """Empty once it was sent."""
        if self.begun:
            return b""
        if self._chunked:
            framing = "Transfer-Encoding: chunked\r\n"
        elif self.length is not None:
            framing = f"Content-Length: {self.length}\r\n"
        else:
            framing, self.closes = "", True  # HTTP/1.0: it ends with the connection
        head = _head(self.status, self.headers, framing, self._request, closes=self.closes)
        self.begun = True
        return head


def _head(status: int, headers: Mapping[str, str], framing: str, request: Request, *, closes: bool) -> bytes:
    """Raises ValueError where a header would end its line."""
    if closes or request.closes:
        framing += "Connection: close\r\n"
    elif not request.http11:
        framing += "Connection: keep-alive\r\n"
    lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
    if lines.count("\n") != len(headers) or lines.count("\r") != len(headers):
        raise ValueError(f"one of these headers has more than one line: {', '.join(headers)}")
    head = f"HTTP/1.1 {status} {_PHRASES.get(status, '')}\r\n{lines}Date: {_date()}\r\n{framing}\r\n"
    return head.encode(errors="surrogateescape")


def _date() -> str:
    return _date_of(int(time()))


@lru_cache(maxsize=1)
def _date_of(second: int) -> str:
    return formatdate(second, usegmt=True)
