"""What becomes of one request: filled in by those who work on it, read at its end by metrics and the access log."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from time import monotonic

from llamamodel_operator.core.gateway.errors import ApiError
from llamamodel_operator.core.gateway.routes import ServedModel
from llamamodel_operator.core.gateway.tracing import REQUEST_ID
from llamamodel_operator.core.gateway.usage import HEAD_BYTES, TAIL_BYTES, Tokens, tokens_of
from llamamodel_operator.gateway.messages import Response, StreamedResponse

__all__ = ["Exchange"]

_GONE = 499
"""As status, where the client went away before it had one; nginx's number for it."""
_SERVER = "llamamodel-gateway"
"""Without a version: who looks for known holes need not be told."""
_LAST_PIECES = 4
"""Of a stream, that are kept to read its usage from: the event with the counts, and those that end the stream."""

_NOT_SAID = Tokens()
_NONE: Mapping[str, str] = {}


class Exchange:
    """One request and its answer. Times are of the monotonic clock, in seconds. What most requests never have is set
    where they have it: that costs less than to set it for all.

    Attributes:
        request_id: the client's, or one that was made.
        trace_id: of the client's trace; empty where it has none.
        client: address of the peer, which may be a proxy.
        key: name of the key that the client has shown.
        method: empty where the request could not be read.
        target: path and query, as the client wrote them.
        path: without the query; empty where the request could not be read.
        model: that it is for; None where it was not found.
        adapter: name of the LoRA adapter that was asked for.
        pod: `host:port` of the last one that was asked.
        why: it was picked, see `picking.Pick`.
        tries: how often it was sent to a pod.
        waited_sec: for a model that was not ready.
        translated: the last error that a pod has answered.
        error: that the client was told, before the answer or in it.
        events: the answer is a stream of events.
        answer_headers: that answers of all kinds have, because of how the client asked.
        begun: the answer whose headers have been sent, where it was not whole before.
        started: when the headers of the request were there.
        received: when its last byte was.
        closing: the connection is to end with this answer.
        overdue: the gateway stops, and waits no longer for the end of this one.
        gone: the client went away before the end.
    """

    key: str = ""
    model: ServedModel | None = None
    adapter: str = ""
    pod: str = ""
    why: str = ""
    tries: int = 0
    waited_sec: float = 0.0
    translated: ApiError | None = None
    error: ApiError | None = None
    status: int = 0
    events: bool = False
    answer_headers: Mapping[str, str] = _NONE
    begun: StreamedResponse | None = None
    received: float = 0.0
    first_piece: float = 0.0
    last_piece: float = 0.0
    ended: float = 0.0
    pieces: int = 0
    bytes_out: int = 0
    tokens: Tokens = _NOT_SAID
    overdue: bool = False
    gone: bool = False
    _head: bytes = b""
    _tail: deque[bytes]

    def __init__(
        self,
        *,
        request_id: str,
        method: str,
        path: str,
        target: str = "",
        client: str = "",
        trace_id: str = "",
        closing: bool = False,
    ) -> None:
        self.started = monotonic()
        self.request_id = request_id
        self.method = method
        self.path = path
        self.target = target
        self.client = client
        self.trace_id = trace_id
        self.closing = closing

    def begin(self, response: StreamedResponse, *, events: bool) -> None:
        """An answer that is passed on piece by piece; its headers are about to be sent."""
        self.begun, self.events = response, events
        self.stamp(response)

    def stamp(self, response: Response | StreamedResponse) -> None:
        """Puts into the headers of an answer what all answers have."""
        response.headers[REQUEST_ID] = self.request_id
        response.headers["Server"] = _SERVER
        if self.closing:
            response.closes = True

    def passed(self, piece: bytes) -> None:
        """A piece of the answer, or all of it, goes to the client."""
        self.last_piece = monotonic()
        if not self.pieces:
            self.first_piece = self.last_piece
            self._head = piece[:HEAD_BYTES]
            self._tail = deque(maxlen=_LAST_PIECES)
        self.pieces += 1
        self.bytes_out += len(piece)
        self._tail.append(piece[-TAIL_BYTES:])

    def end(self, response: Response | StreamedResponse | None) -> None:
        """Nothing more happens. `response`: that was given; None where the client has gone away."""
        self.ended = monotonic()
        begun, self.begun = self.begun, None  # it knows its request, which knows this: nobody could free them at once
        if response is not None:
            self.status = response.status
            self.error = self.error or response.error
            if isinstance(response, Response):
                self.bytes_out = len(response.body)
        else:
            self.gone = True
            self.status = _GONE if begun is None else begun.status

    def read_tokens(self) -> None:
        """From what the answer has said, once it is over."""
        if self.pieces:
            end = b"".join(self._tail)[-TAIL_BYTES:]
            self.tokens = tokens_of(end if self.bytes_out == len(end) else self._head + b"\n" + end)

    @property
    def retries(self) -> int:
        """How often it was sent again."""
        return max(0, self.tries - 1)
