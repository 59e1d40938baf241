"""One request, from its last byte to the last byte of its answer: whom it is for, what is changed on the way, and what
becomes of errors.

Requests are passed on byte for byte, unless a LoRA adapter was asked for. Answers are passed on as they come.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
import orjson
from aiohttp import web
from yarl import URL

from llamamodel_operator.api.conditions import Reason
from llamamodel_operator.api.spec import Task
from llamamodel_operator.api.status import Phase
from llamamodel_operator.core.gateway.errors import (
    INVALID_REQUEST,
    ApiError,
    model_loading,
    model_not_found,
    model_unavailable,
    timed_out,
    upstream_died,
    wrong_task,
)
from llamamodel_operator.core.gateway.picking import beginning_of, pick
from llamamodel_operator.core.gateway.routes import ServedModel, Target
from llamamodel_operator.core.gateway.tracing import REQUEST_ID
from llamamodel_operator.core.gateway.translate import LONGEST_ANSWER_BYTES, Asked, translate, translate_event
from llamamodel_operator.gateway.directory import Directory
from llamamodel_operator.gateway.exchange import ERROR, EXCHANGE, Exchange

__all__ = ["TASKS", "Forwarder", "error_response", "new_session"]

TASKS: Mapping[str, Task | None] = {
    "/v1/chat/completions": Task.GENERATE,
    "/v1/completions": Task.GENERATE,
    "/v1/responses": Task.GENERATE,
    "/v1/messages": Task.GENERATE,
    "/v1/messages/count_tokens": Task.GENERATE,
    "/infill": Task.GENERATE,
    "/v1/embeddings": Task.EMBED,
    "/v1/rerank": Task.RERANK,
    "/tokenize": None,
    "/detokenize": None,
    "/apply-template": None,
}
"""Paths that take a POST, each with the task that a model must have; None: any. Others under /v1/ are for any."""

_CONNECT_SEC = 5.0
_KEEP_SEC = 3.0
"""llama-server closes a connection that is idle for 5 s; a request on one that it is just closing would be lost."""
_LOADING_RETRY_SEC = 10
"""Where nobody knows how long a model takes to load."""
_BUSY_RETRY_SEC = 2
_STALE_CONNECTIONS = 3
"""That one request may meet: all that were kept are closed at about the same time."""
_NOT_PASSED_ON = frozenset(
    (
        *("connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade", "expect"),
        *("host", "content-length", "content-encoding", "accept-encoding"),
        *("authorization", "proxy-authorization", "x-api-key", "cookie", REQUEST_ID.lower()),
    )
)
"""Headers that end here: those of a connection (RFC 9110, 7.6.1), those that describe a body that is unpacked here, and
what a client shows to the gateway alone."""
_AT_ONCE_BYTES = 1 << 16
"""Shorter answers are read whole before they are passed on."""
_PASSED_BACK = ("content-type", "cache-control", "x-accel-buffering")
_REASONS = frozenset(Reason)
_WHOLE_EVENT = b"\n\n"
_LONGEST_EVENT_BYTES = 1 << 20


class _NotTakenError(Exception):
    pass


class _StaleError(Exception):
    pass


class _BrokenOffError(Exception):
    def __init__(self, error: ApiError) -> None:
        super().__init__(error.message)
        self.error = error


def new_session() -> aiohttp.ClientSession:
    """For the pods: nothing is unpacked, nothing remembered, and no header is made up."""
    tracing = aiohttp.TraceConfig()
    tracing.on_connection_reuseconn.append(_note_reuse)
    return aiohttp.ClientSession(
        trace_configs=[tracing],
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEP_SEC),
        auto_decompress=False,
        cookie_jar=aiohttp.DummyCookieJar(),
        skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
    )


@dataclass
class _Sending:
    """Attributes:
    reused: by a connection that an earlier request had left.
    """

    reused: bool = False


async def _note_reuse(_session: aiohttp.ClientSession, context: Any, _params: object) -> None:
    context.trace_request_ctx.reused = True


class Forwarder:
    """Sends requests on. Lives in one event loop."""

    def __init__(self, *, directory: Directory, session: aiohttp.ClientSession, timeout_sec: int) -> None:
        """`timeout_sec`: within which each piece of an answer must come."""
        self._directory = directory
        self._session = session
        self._timeout_sec = timeout_sec
        self._timeout = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SEC, sock_read=timeout_sec)
        self._in_flight: Counter[str] = Counter()
        self._turn = 0

    async def answer(self, request: web.BaseRequest, path: str, body: bytes) -> web.StreamResponse:
        """The answer to a POST; has been sent where it is a stream.

        Args:
            path: that it is for, as the client wrote it, without the query.
            body: all of it.
        """
        read = self._read(body)
        if isinstance(read, ApiError):
            return error_response(read)
        document, name = read
        target = self._directory.routes.find(name)
        if target is None:
            return error_response(model_not_found(name, names=tuple(self._directory.routes.names())))
        model = target.model
        exchange = request[EXCHANGE]
        exchange.model = model
        task = TASKS.get(path)
        if task is not None and task != model.task:
            return error_response(wrong_task(task=Task(model.task), path=path))
        if target.adapter is not None:
            body = _with_adapter(document, target)
            exchange.adapter = model.adapters[target.adapter]
        asked = Asked(path=path, task=Task(model.task), retry_after_sec=_BUSY_RETRY_SEC)
        beginning, tried = beginning_of(document), set[str]()
        while True:
            addresses = [one for one in self._directory.addresses(model) if one not in tried]
            if not addresses:
                return error_response(_nobody(model, name) if not tried else upstream_died())
            self._turn += 1
            address, exchange.why = pick(addresses, in_flight=self._in_flight, beginning=beginning, turn=self._turn)
            exchange.pod = address
            with self._taken(address):
                for _ in range(_STALE_CONNECTIONS):
                    exchange.tries += 1
                    try:
                        return await self._ask(request, body, address, asked)
                    except _StaleError:
                        continue
                    except _NotTakenError:
                        break
            tried.add(address)  # it has not taken the request: another one may

    def _read(self, body: bytes) -> tuple[Mapping[str, Any], str] | ApiError:
        try:
            document = orjson.loads(body)
        except orjson.JSONDecodeError as error:
            return _invalid(f"The body is not JSON: {error}", code="invalid_json")
        if not isinstance(document, dict):
            return _invalid("The body must be a JSON object.", code="invalid_json")
        name = document.get("model")
        if not isinstance(name, str) or not name:
            known = ", ".join(f"`{name}`" for name, _ in zip(self._directory.routes.names(), range(10), strict=False))
            return _invalid(f"`model` must name one of the models: {known or 'there is none'}.", param="model")
        return document, name

    @contextmanager
    def _taken(self, address: str) -> Iterator[None]:
        self._in_flight[address] += 1
        try:
            yield
        finally:
            self._in_flight[address] -= 1
            if not self._in_flight[address]:
                del self._in_flight[address]

    async def _ask(self, request: web.BaseRequest, body: bytes, address: str, asked: Asked) -> web.StreamResponse:
        """The answer of one pod.

        Raises:
            _NotTakenError: there is no connection to it.
            _StaleError: the one that was kept had been closed.
        """
        headers = [(name, value) for name, value in request.headers.items() if name.lower() not in _NOT_PASSED_ON]
        exchange = request[EXCHANGE]
        headers.append((REQUEST_ID, exchange.request_id))
        sending = _Sending()
        try:
            upstream = await self._session.post(
                URL(f"http://{address}{request.raw_path}", encoded=True),  # as the client wrote it
                data=body,
                headers=headers,
                allow_redirects=False,
                trace_request_ctx=sending,
                timeout=self._timeout,
            )
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise _NotTakenError from error
        except (aiohttp.ServerDisconnectedError, ConnectionError) as error:
            if sending.reused:
                raise _StaleError from error
            return error_response(upstream_died())
        except TimeoutError:
            return error_response(timed_out(timeout_sec=self._timeout_sec))
        except aiohttp.ClientError:
            return error_response(upstream_died())
        async with upstream:
            if upstream.status >= 400:
                said = translate(upstream.status, await _beginning(upstream), asked=asked)
                exchange.translated = said
                return error_response(said)
            return await self._pass_on(request, upstream, asked)

    async def _pass_on(
        self, request: web.BaseRequest, upstream: aiohttp.ClientResponse, asked: Asked
    ) -> web.StreamResponse:
        """The answer, piece by piece. What has begun can end with an error in its stream alone."""
        events = upstream.headers.get("Content-Type", "").startswith("text/event-stream")
        headers = {name: upstream.headers[name] for name in _PASSED_BACK if name in upstream.headers}
        pieces, exchange = self._pieces(upstream), request[EXCHANGE]
        if not events and (upstream.content_length or _AT_ONCE_BYTES) < _AT_ONCE_BYTES:
            # One write, not three; what broke off is an error that can still be told.
            try:
                whole = b"".join([piece async for piece in pieces])
            except _BrokenOffError as broken:
                return error_response(broken.error)
            exchange.passed(whole)
            return web.Response(status=upstream.status, body=whole, headers=headers)
        response = web.StreamResponse(status=upstream.status, headers=headers)
        if upstream.content_length is not None and not events:
            response.content_length = upstream.content_length
        exchange.begin(response, events=events)
        await response.prepare(request)
        try:
            async for piece in _checked(pieces, asked, exchange) if events else pieces:
                exchange.passed(piece)
                await response.write(piece)
        except _BrokenOffError as broken:
            exchange.error = broken.error
            if events:
                await response.write(broken.error.event(path=asked.path))
            else:
                response.force_close()  # shorter than was promised: the client sees that it broke off
        await response.write_eof()
        return response

    async def _pieces(self, upstream: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
        """Of an answer, as they come. Raises _BrokenOffError; what its reader raises is not the server's fault."""
        pieces = upstream.content.iter_any()
        while True:
            try:
                piece = await anext(pieces)
            except StopAsyncIteration:
                return
            except TimeoutError:
                raise _BrokenOffError(timed_out(timeout_sec=self._timeout_sec)) from None
            except aiohttp.ClientError:
                raise _BrokenOffError(upstream_died()) from None
            yield piece


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


def _nobody(model: ServedModel, name: str) -> ApiError:
    """Why no pod takes the request."""
    if model.phase in ("", Phase.PENDING, Phase.LOADING, Phase.UPDATING, Phase.READY):
        return model_loading(name, retry_after_sec=_LOADING_RETRY_SEC)
    reason = Reason(model.reason) if model.reason in _REASONS else Reason.STARTING
    return model_unavailable(name, reason=reason, message=model.message)


def _with_adapter(document: Mapping[str, Any], target: Target) -> bytes:
    """The same request with this adapter alone, at its full strength: those that are not named have none."""
    scales = [{"id": index, "scale": float(index == target.adapter)} for index in range(len(target.model.adapters))]
    return orjson.dumps({**document, "lora": scales})


async def _checked(pieces: AsyncIterator[bytes], asked: Asked, exchange: Exchange) -> AsyncIterator[bytes]:
    """The events of a stream as they come, errors among them in OpenAI's form."""
    rest = b""
    async for piece in pieces:
        text = rest + piece
        end = text.rfind(_WHOLE_EVENT)
        whole, rest = (text[: end + 2], text[end + 2 :]) if end >= 0 else (b"", text)
        if len(rest) > _LONGEST_EVENT_BYTES:
            whole, rest = whole + rest, b""
        if whole:
            yield _translated(whole, asked, exchange) if b"error" in whole else whole
    if rest:
        yield _translated(rest, asked, exchange)


def _translated(events: bytes, asked: Asked, exchange: Exchange) -> bytes:
    parts = []
    for event in events.split(_WHOLE_EVENT):
        error = translate_event(event, asked=asked) if event.strip() else None
        if error is not None:
            exchange.translated = exchange.error = error
        parts.append(event if error is None else error.event(path=asked.path).removesuffix(_WHOLE_EVENT))
    return _WHOLE_EVENT.join(parts)


async def _beginning(upstream: aiohttp.ClientResponse) -> bytes:
    """Of a body, as much as counts; what breaks off says what it has said."""
    found = bytearray()
    try:
        async for piece in upstream.content.iter_any():
            found += piece
            if len(found) >= LONGEST_ANSWER_BYTES:
                break
    except (aiohttp.ClientError, TimeoutError):
        pass
    return bytes(found)


def _invalid(message: str, *, code: str | None = None, param: str | None = None) -> ApiError:
    return ApiError(status=400, message=message, type=INVALID_REQUEST, code=code, param=param)
