"""The gateway's HTTP server: /v1/models from what is known, POSTs passed on, all else refused in OpenAI's form."""

from __future__ import annotations

import asyncio
import logging
import re
import traceback
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from time import monotonic
from typing import Any, cast
from urllib.parse import unquote

import orjson
from aiohttp import web

from llamamodel_operator.core.gateway.errors import (
    INVALID_REQUEST,
    SERVER_ERROR,
    ApiError,
    body_too_large,
    gateway_stopping,
    malformed_http,
    model_not_found,
    rate_limited,
)
from llamamodel_operator.core.gateway.limits import Part, SharedBytes
from llamamodel_operator.core.gateway.routes import Routes, ServedModel
from llamamodel_operator.gateway.access import Access
from llamamodel_operator.gateway.connections import ConnectionLimits, Connections
from llamamodel_operator.gateway.cors import Cors
from llamamodel_operator.gateway.directory import Directory
from llamamodel_operator.gateway.exchange import Exchange
from llamamodel_operator.gateway.forwarding import TASKS, Forwarder
from llamamodel_operator.gateway.messages import Request, Response, StreamedResponse
from llamamodel_operator.gateway.replies import error_response, in_form_of
from llamamodel_operator.gateway.sight import Sight
from llamamodel_operator.gateway.tls_listener import TlsListener
from llamamodel_operator.shell.tls import ServingTls

__all__ = ["serve_gateway"]

_READ_SEC = 60.0
"""For a body to arrive: clients that send a byte now and then hold nothing for ever."""
_FULL_RETRY_SEC = 2
_BACKLOG = 128
_LAST_WORDS_SEC = 5.0
"""For clients to take the end of an answer that is cut off."""
_MODELS = "/v1/models"
_PATH = re.compile(r"/v1/[A-Za-z0-9_/-]+")
"""What is passed on although this gateway does not know it: without dots and escapes, as in /v1/../slots."""

_log = logging.getLogger(__name__)


@asynccontextmanager
async def serve_gateway(
    *,
    host: str,
    port: int,
    directory: Directory,
    forwarder: Forwarder,
    sight: Sight,
    body_limit_bytes: int,
    bodies_limit_bytes: int,
    access: Access,
    limits: ConnectionLimits,
    cors: Cors,
    tls: ServingTls | None,
    drain_sec: float,
) -> AsyncIterator[int]:
    """Serves until left; yields the port. Raises OSError where the port is taken.

    Args:
        drain_sec: for requests that are running when it is left; no new connection is taken then.
    """
    server = _Server(
        directory=directory,
        forwarder=forwarder,
        sight=sight,
        body_limit_bytes=body_limit_bytes,
        bodies_limit_bytes=bodies_limit_bytes,
        access=access,
        cors=cors,
    )
    connections = Connections(server.answer, unreadable=server.unreadable, limits=limits)
    listening: asyncio.Server | TlsListener | None = None
    try:
        if tls is None:
            listening = await asyncio.get_running_loop().create_server(connections, host, port, backlog=_BACKLOG)
            bound: int = listening.sockets[0].getsockname()[1]
        else:
            listening = TlsListener(connections, host=host, port=port, context=tls.context)
            bound = listening.port
        _log.info("serving models on port %d", bound)
        yield bound
    finally:
        if isinstance(listening, TlsListener):
            await listening.stop()
        elif listening is not None:
            listening.close()
        await sight.drain(timeout_sec=drain_sec)
        await connections.close(timeout_sec=_LAST_WORDS_SEC)
        sight.close()
        await forwarder.end()


class _Server:
    def __init__(
        self,
        *,
        directory: Directory,
        forwarder: Forwarder,
        sight: Sight,
        body_limit_bytes: int,
        bodies_limit_bytes: int,
        access: Access,
        cors: Cors,
    ) -> None:
        self._directory = directory
        self._forwarder = forwarder
        self._sight = sight
        self._body_limit_bytes = body_limit_bytes
        self._bodies = SharedBytes(max(bodies_limit_bytes, body_limit_bytes))
        self._access = access
        self._cors = cors

    async def answer(self, request: Request) -> Response | StreamedResponse:
        exchange = self._sight.begin(request)
        response: Response | StreamedResponse | None = None
        exchange.answer_headers = self._cors.headers(request)
        try:
            try:
                response = self._cors.preflight(request) or await self._admitted(request, exchange)
            except asyncio.CancelledError:
                if not exchange.overdue:
                    raise  # the client is gone
                cast("asyncio.Task[object]", asyncio.current_task()).uncancel()
                response = await _ended(request, exchange, gateway_stopping())
            if not (isinstance(response, StreamedResponse) and response.begun):
                response.headers.update(exchange.answer_headers)
                exchange.stamp(response)
                in_form_of(exchange.path, response)
            return response
        finally:
            self._sight.end(exchange, response)

    def unreadable(self, request: Request, error: ApiError) -> Response:
        """The answer to what is no HTTP; the connection ends with it."""
        exchange = self._sight.begin(request)
        exchange.method = exchange.path = ""  # nobody knows what was meant
        response = error_response(error)
        exchange.stamp(response)
        response.closes = True
        self._sight.end(exchange, response)
        return response

    async def _admitted(self, request: Request, exchange: Exchange) -> Response | StreamedResponse:
        try:
            with self._access.entered(request, self._directory.routes) as visitor:
                if isinstance(visitor, ApiError):
                    return error_response(visitor)
                exchange.key = visitor.key or ""
                return await self._answer(request, exchange, visitor.routes)
        except ConnectionError:
            raise  # the client is gone
        except Exception as error:
            # Not what it says: that may repeat a part of the request.
            where = "".join(traceback.format_tb(error.__traceback__))
            _log.error(
                "a request failed; this is a bug of the gateway, please report it: %r in\n%s", type(error), where
            )
            said = ApiError(status=500, message="A bug of the gateway: its log says more.", type=SERVER_ERROR)
            return await _ended(request, exchange, said)

    async def _answer(self, request: Request, exchange: Exchange, routes: Routes) -> Response | StreamedResponse:
        path = exchange.path
        if request.method == "GET":
            if path == _MODELS:
                return _json({"object": "list", "data": [self._shown(*one) for one in routes.models()]})
            if path.startswith(f"{_MODELS}/"):
                return self._model(unquote(path.removeprefix(f"{_MODELS}/")), routes)
        elif request.method == "POST" and (path in TASKS or _PATH.fullmatch(path)):
            with self._bodies.part() as part:
                body = await self._body(request, part)
                exchange.received = monotonic()
                if isinstance(body, ApiError):
                    response = error_response(body)
                    response.closes = True  # the rest of the body may still be on its way
                    return response
                return await self._forwarder.answer(request, exchange, body, routes=routes)
        known = path in TASKS or path == _MODELS
        return error_response(
            ApiError(
                status=405 if known else 404,
                message=f"{request.method} {path[:200]} is not there. Models are listed at GET {_MODELS}; what takes a"
                f" POST: {', '.join(sorted(TASKS))}.",
                type=INVALID_REQUEST,
                code="method_not_allowed" if known else "not_found",
            )
        )

    async def _body(self, request: Request, part: Part) -> bytes | ApiError:
        limit = self._body_limit_bytes
        if request.content.is_eof():  # all of it came with the headers, as most do: no timer
            whole = request.content.read_nowait()
            return _too_much(len(whole), whole, part, limit) or whole
        if int(request.headers.get("Content-Length", 0)) > limit:
            return body_too_large(limit_bytes=limit)
        if request.headers.get("Expect", "").lower() == "100-continue" and request.http11:
            # curl sends large bodies only then, or after a second (RFC 9110, 10.1.1).
            await request.connection.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = bytearray()
        try:
            async with asyncio.timeout(_READ_SEC):
                async for piece in request.content.iter_any():
                    body += piece
                    if refusal := _too_much(len(body), piece, part, limit):
                        return refusal
        except TimeoutError:
            return ApiError(
                status=408, message=f"The request was not complete within {_READ_SEC:g} s.", type=INVALID_REQUEST
            )
        except web.RequestPayloadError:
            return malformed_http("its body is not encoded as its headers say")
        return bytes(body)

    def _model(self, name: str, routes: Routes) -> Response:
        target = routes.find(name)
        if target is None:
            return error_response(
                model_not_found(name, names=tuple(routes.names()), full_names=routes.full_names(name))
            )
        return _json(self._shown(name, target.model))

    def _shown(self, name: str, model: ServedModel) -> dict[str, Any]:
        """In OpenAI's shape, with what clients of several models want to know besides."""
        return {
            "id": name,
            "object": "model",
            "created": _seconds(model.created),
            "owned_by": model.namespace,
            "llamamodel": {
                "name": model.full_name,
                "task": model.task,
                "phase": model.phase or "Pending",
                "ready": bool(self._directory.addresses(model)),
                "context_size": model.context_tokens,
                "adapters": [f"{name}:{adapter}" for adapter in model.adapters],
            },
        }


async def _ended(request: Request, exchange: Exchange, error: ApiError) -> Response | StreamedResponse:
    """The end of an answer that comes no further, begun or not."""
    response = exchange.begun
    if response is not None and response.ended:
        return response  # but for the client, which has not taken all of it
    exchange.error = error
    if response is None or not response.begun:
        return error_response(error)
    if not exchange.events:
        request.connection.break_off()
        return response
    response.closes = True
    await response.end(error.event(path=exchange.path))
    return response


def _too_much(length: int, piece: bytes, part: Part, limit: int) -> ApiError | None:
    """Why a body of so many bytes, the last of which are this piece, is not taken."""
    if length > limit:
        return body_too_large(limit_bytes=limit)
    if not part.take(len(piece)):
        return rate_limited(
            "those that this gateway works on are as large as they may be together", retry_after_sec=_FULL_RETRY_SEC
        )
    return None


def _json(document: object) -> Response:
    return Response(body=orjson.dumps(document), content_type="application/json")


def _seconds(time: str) -> int:
    return int(datetime.fromisoformat(time).timestamp()) if time else 0
