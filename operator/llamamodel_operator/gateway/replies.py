"""What clients are told besides what servers say: errors, and streams that begin before a server has the request."""

from __future__ import annotations

import orjson
from aiohttp import web

from llamamodel_operator.core.gateway.errors import ApiError
from llamamodel_operator.gateway.exchange import ERROR, Exchange

__all__ = ["EarlyStream", "break_off", "error_response", "in_form_of"]

_COMMENT = b": waiting\n\n"


def error_response(error: ApiError) -> web.Response:
    """An error before anything was sent."""
    response = web.Response(
        status=error.status,
        body=orjson.dumps(error.body()),
        headers=error.headers(),
        content_type="application/json",
    )
    response[ERROR] = error
    return response


def in_form_of(path: str, response: web.StreamResponse) -> None:
    """Writes an error that was not sent yet as the clients of this path read it."""
    if (error := response.get(ERROR)) is not None and isinstance(response, web.Response):
        response.body = orjson.dumps(error.body(path=path))


def break_off(request: web.BaseRequest) -> None:
    """Ends the connection after what was sent so far, without the end of the answer: its client shall not take that for
    all of it."""
    if request.transport is not None:
        request.transport.close()


class EarlyStream:
    """The stream of a request that waits: it may begin with comments, which clients pass over. From then on its status
    is 200, and whatever comes is an event."""

    def __init__(self, request: web.BaseRequest, exchange: Exchange) -> None:
        self._request = request
        self._exchange = exchange
        self.begun: web.StreamResponse | None = None
        """None while nothing was sent."""

    async def comment(self) -> None:
        """Tells the client, and all that is in between, that somebody is there. Raises ConnectionError where the
        client is gone."""
        if self.begun is None:
            headers = {"Content-Type": "text/event-stream", "Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
            self.begun = web.StreamResponse(headers={**self._exchange.answer_headers, **headers})
            self._exchange.begin(self.begun, events=True)
            await self.begun.prepare(self._request)
        await self.begun.write(_COMMENT)

    async def end(self, answer: web.StreamResponse) -> web.StreamResponse:
        """What is sent in the end: the answer itself, or its text within the stream that has begun."""
        if self.begun is None or answer is self.begun:
            return answer
        exchange, error = self._exchange, answer.get(ERROR)
        if error is not None:
            exchange.error = exchange.error or error
            await self.begun.write(error.event(path=exchange.path))
        elif isinstance(answer, web.Response) and isinstance(answer.body, bytes):
            await self.begun.write(b"data: " + answer.body + b"\n\n")
        await self.begun.write_eof()
        return self.begun
