"""Requests for models that have no pod yet: they wait within bounds, and are woken by what the watches tell."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from time import monotonic

from aiohttp import web

from llamamodel_operator.core.gateway.errors import INVALID_REQUEST, ApiError, model_not_found, rate_limited
from llamamodel_operator.core.gateway.routes import Target
from llamamodel_operator.core.gateway.waits import (
    WAIT_HEADER,
    WaitLimits,
    asked_wait_sec,
    on_its_way,
    retry_after_sec,
    without_pod,
)
from llamamodel_operator.gateway.directory import Directory
from llamamodel_operator.gateway.exchange import EXCHANGE, Exchange
from llamamodel_operator.gateway.replies import EarlyStream

__all__ = ["WaitingRoom"]


class WaitingRoom:
    """Where they wait. Lives in one event loop."""

    def __init__(
        self, *, directory: Directory, limits: WaitLimits, now: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._directory = directory
        self._limits = limits
        self._now = now
        self._waiting: Counter[str] = Counter()

    async def wait(
        self, request: web.BaseRequest, target: Target, *, name: str, stream: EarlyStream | None
    ) -> Target | ApiError:
        """The same model and adapter as they are once a pod is ready, or why none will take the request.

        Args:
            name: under which the client asked for the model.
            stream: is kept alive with comments; None where the answer will be no stream.
        """
        longest_sec = asked_wait_sec(request.headers.get(WAIT_HEADER), longest_sec=self._limits.longest_sec)
        if longest_sec is None:
            return ApiError(status=400, message=f"{WAIT_HEADER} must be a number of seconds.", type=INVALID_REQUEST)
        model = target.model
        if longest_sec <= 0 or not on_its_way(model):
            return without_pod(model, name=name, now=self._now())
        if full := self._full(model.full_name):
            return rate_limited(full, retry_after_sec=retry_after_sec(model, now=self._now()))
        with self._place(model.full_name, request[EXCHANGE]):
            return await self._until_ready(target, name=name, longest_sec=longest_sec, stream=stream)

    def _full(self, full_name: str) -> str | None:
        if self._waiting[full_name] >= self._limits.per_model:
            return f"{self._limits.per_model} requests wait for this model already"
        if self._waiting.total() >= self._limits.total:
            return f"{self._limits.total} requests wait for models already"
        return None

    @contextmanager
    def _place(self, full_name: str, exchange: Exchange) -> Iterator[None]:
        self._waiting[full_name] += 1
        since = monotonic()
        try:
            yield
        finally:
            exchange.waited_sec = monotonic() - since
            self._waiting[full_name] -= 1
            if not self._waiting[full_name]:
                del self._waiting[full_name]

    async def _until_ready(
        self, target: Target, *, name: str, longest_sec: float, stream: EarlyStream | None
    ) -> Target | ApiError:
        clock = asyncio.get_running_loop().time
        end = clock() + longest_sec
        comment = math.inf if stream is None else clock() + self._limits.quiet_sec
        while True:
            found = self._directory.routes.again(target)
            if found is None:
                return model_not_found(name, names=())
            if self._directory.addresses(found.model):
                return found
            if clock() >= end or not on_its_way(found.model):
                return without_pod(found.model, name=name, now=self._now())
            if stream is not None and clock() >= comment:
                await stream.comment()
                comment = clock() + self._limits.comment_sec
                continue  # something may have changed in the meantime
            with suppress(TimeoutError):
                async with asyncio.timeout_at(min(end, comment)):
                    await self._directory.change()
