"""Keeps sight of requests: which are running, and what has become of those that have ended."""

from __future__ import annotations

import uuid

from aiohttp import web
from prometheus_client import CollectorRegistry

from llamamodel_operator.core.gateway.tracing import REQUEST_ID, given_request_id, trace_id
from llamamodel_operator.gateway.access_log import write_access
from llamamodel_operator.gateway.directory import Directory
from llamamodel_operator.gateway.exchange import EXCHANGE, Exchange
from llamamodel_operator.gateway.metrics import GatewayMetrics

__all__ = ["Sight"]


class Sight:
    """All requests, from their headers to the end of their answers. Lives in one event loop."""

    def __init__(self, *, registry: CollectorRegistry, directory: Directory, access_log: bool) -> None:
        self._running: set[Exchange] = set()
        self._access_log = access_log
        self._metrics = GatewayMetrics(registry=registry, directory=directory, running=self._running)

    def begin(self, request: web.BaseRequest) -> Exchange:
        """The record of a request, which is found at `request[EXCHANGE]` as well; `end` must be called for it."""
        exchange = Exchange(
            request_id=given_request_id(request.headers.get(REQUEST_ID)) or uuid.uuid4().hex,
            trace_id=trace_id(request.headers.get("traceparent")),
            client=request.remote or "",
            method=request.method,
            path=request.raw_path.partition("?")[0],
        )
        self._running.add(exchange)
        request[EXCHANGE] = exchange
        return exchange

    def end(self, exchange: Exchange, response: web.StreamResponse | None) -> None:
        """`response`: None where the client has gone away."""
        self._running.discard(exchange)
        exchange.end(response)
        self._metrics.count(exchange)
        if self._access_log:
            write_access(exchange)
