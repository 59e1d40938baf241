"""Keeps sight of requests: which are running, what has become of them, and that they end when the gateway stops."""

from __future__ import annotations

import asyncio
import logging
import random
from typing import cast

from prometheus_client import CollectorRegistry

from llamamodel_operator.core.gateway.targets import origin_form
from llamamodel_operator.core.gateway.tracing import REQUEST_ID, given_request_id, trace_id
from llamamodel_operator.gateway.access_log import write_access
from llamamodel_operator.gateway.directory import Directory
from llamamodel_operator.gateway.exchange import Exchange
from llamamodel_operator.gateway.messages import Request, Response, StreamedResponse
from llamamodel_operator.gateway.metrics import GatewayMetrics

__all__ = ["Sight"]

_TELL_SEC = 0.005
"""After which metrics and the access log have a request. Those that end within it are told one after the other, which
takes two thirds of the time that it takes between other work."""

_LOOK_SEC = 0.05
"""How often it is looked whether the last request has ended: its connection may go on."""

_log = logging.getLogger(__name__)


class Sight:
    """All requests, from their headers to the end of their answers. Lives in one event loop."""

    def __init__(self, *, registry: CollectorRegistry, directory: Directory, access_log: bool) -> None:
        self._running: dict[Exchange, asyncio.Task[object]] = {}
        self._stopping = False
        self._untold: list[Exchange] = []
        self._telling: asyncio.TimerHandle | None = None
        self._access_log = access_log
        self._ids = random.Random()  # noqa: S311  ids are no secrets: they tell requests apart
        self._metrics = GatewayMetrics(registry=registry, directory=directory, running=self._running.keys())

    def begin(self, request: Request) -> Exchange:
        """The record of a request; `end` must be called for it."""
        target = origin_form(request.target)
        exchange = Exchange(
            request_id=given_request_id(request.headers.get(REQUEST_ID)) or f"{self._ids.getrandbits(128):032x}",
            trace_id=trace_id(request.headers.get("traceparent")),
            client=request.remote,
            method=request.method,
            target=target,
            path=target.partition("?")[0],
            closing=self._stopping,
        )
        self._running[exchange] = cast("asyncio.Task[object]", asyncio.current_task())
        return exchange

    def end(self, exchange: Exchange, response: Response | StreamedResponse | None) -> None:
        """`response`: None where the client has gone away. Metrics and access log are told a little later: while the
        only client looks at its answer, or when several requests have ended. Streams that end together are often
        followed by others, which shall not wait for that."""
        del self._running[exchange]
        exchange.end(response)
        self._untold.append(exchange)
        if not self._running and not exchange.events:
            self._tell_in(0)
        elif self._telling is None:
            self._tell_in(_TELL_SEC)

    def _tell_in(self, delay_sec: float) -> None:
        if self._telling is not None:
            self._telling.cancel()
        self._telling = asyncio.get_running_loop().call_later(delay_sec, self._tell)

    def _tell(self) -> None:
        self._telling = None
        told, self._untold = self._untold, []
        for exchange in told:
            exchange.read_tokens()
            self._metrics.count(exchange)
            if self._access_log:
                write_access(exchange)

    def problem(self) -> str | None:
        """Why no new requests should come."""
        return "it is about to stop" if self._stopping else None

    def stop(self) -> None:
        """From now on each answer ends its connection, so that clients go to another gateway."""
        if self._stopping:
            return
        self._stopping = True
        for exchange in self._running:
            exchange.closing = True
            if exchange.begun is not None:  # too late for its headers
                exchange.begun.closes = True
        _log.info("stopping; %d requests are running", len(self._running))

    async def drain(self, *, timeout_sec: float) -> None:
        """Ends when no request is running. Those that take longer than this are told so, and end."""
        self.stop()
        try:
            async with asyncio.timeout(timeout_sec):
                while self._running:
                    await asyncio.wait(set(self._running.values()), timeout=_LOOK_SEC)
        except TimeoutError:
            _log.warning("%d requests have not ended within %g s and are cut off", len(self._running), timeout_sec)
            for exchange, task in self._running.items():
                exchange.overdue = True
                task.cancel()

    def close(self) -> None:
        """When all answers have been sent: what was not told yet is told."""
        self._tell()
