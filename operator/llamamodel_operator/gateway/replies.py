"""What clients are told besides what servers say: errors, and streams that begin before a server has the request."""

from __future__ import annotations

import orjson

from llamamodel_operator.core.gateway.errors import ApiError
from llamamodel_operator.gateway.exchange import Exchange
from llamamodel_operator.gateway.messages import Request, Response, StreamedResponse

__all__ = ["EarlyStream", "error_response", "in_form_of"]

_COMMENT = b": waiting\n\n"


def error_response(error: ApiError) -> Response:
    """An error before anything was sent."""
    return Response(
        status=error.status,
        body=orjson.dumps(error.body()),
        headers=error.headers(),
        content_type="application/json",
        error=error,
    )


def in_form_of(path: str, response: Response | StreamedResponse) -> None:
    """Writes an error that was not sent yet as the clients of this path read it."""
    if isinstance(response, Response) and response.error is not None:
        response.body = orjson.dumps(response.error.body(path=path))


class EarlyStream:
    """The stream of a request that waits: it may begin with comments, which clients pass over. From then on its status
    is 200, and whatever comes is an event."""

    def __init__(self, request: Request, exchange: Exchange) -> None:
        self._request = request
        self._exchange = exchange
        self.begun: StreamedResponse | None = None
        """None while nothing was sent."""

    async def comment(self) -> None:
        """Tells the client, and all that is in between, that somebody is there. Raises ConnectionError where the
        client is gone."""
        if self.begun is None:
            headers = {"Content-Type": "text/event-stream", "Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
            self.begun = StreamedResponse(self._request, headers={**self._exchange.answer_headers, **headers})
            self._exchange.begin(self.begun, events=True)
        await self.begun.write(_COMMENT)

    async def end(self, answer: Response | StreamedResponse) -> Response | StreamedResponse:
        """What is sent in the end: the answer itself, or its text within the stream that has begun."""
        if self.begun is None or answer is self.begun:
            return answer
        exchange, error = self._exchange, answer.error
        if error is not None:
            exchange.error = exchange.error or error
            last = error.event(path=exchange.path)
        elif isinstance(answer, Response):
            last = b"data: " + answer.body + b"\n\n"
        else:
            last = b""
        await self.begun.end(last)
        return self.begun
