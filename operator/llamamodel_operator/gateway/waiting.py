"""Requests that no pod has taken yet: they wait within bounds, and are woken by what the watches tell and by places
that become free."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from time import monotonic

from llamamodel_operator.core.gateway.errors import INVALID_REQUEST, ApiError, model_not_found, rate_limited
from llamamodel_operator.core.gateway.routes import ServedModel, Target
from llamamodel_operator.core.gateway.waits import (
    WAIT_HEADER,
    WaitLimits,
    asked_wait_sec,
    on_its_way,
    retry_after_sec,
    without_pod,
)
from llamamodel_operator.gateway.directory import Directory
from llamamodel_operator.gateway.exchange import Exchange
from llamamodel_operator.gateway.messages import Request
from llamamodel_operator.gateway.replies import EarlyStream

__all__ = ["Unsent", "Wait", "WaitingRoom"]


@dataclass(frozen=True, kw_only=True)
class Unsent:
    """Why a request is with no pod. None has worked on it.

    Attributes:
        error: that its client is told where it does not wait; None: that the model has no pod.
        tried: pods (`host:port`) that could not take it; they are asked again a little later.
        full: others have as many requests as they may.
    """

    error: ApiError | None = None
    tried: frozenset[str] = frozenset()
    full: bool = False


@dataclass(eq=False, slots=True, kw_only=True)
class Wait:
    """What one request has of its wait.

    Attributes:
        name: under which the client asked for the model.
        stream: is kept alive with comments; None where the answer will be no stream.
        end: of the time that it may wait, by the loop's clock; None before it has waited.
        comment: when the next one is due, likewise.
    """

    name: str
    stream: EarlyStream | None
    end: float | None = None
    comment: float = math.inf


class WaitingRoom:
    """Where they wait. Lives in one event loop."""

    def __init__(
        self,
        *,
        directory: Directory,
        has_place: Callable[[ServedModel, str], bool],
        limits: WaitLimits,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """`has_place`: whether a pod of a model, at this address, may get one more request."""
        self._directory = directory
        self._has_place = has_place
        self._limits = limits
        self._now = now
        self._waiting: Counter[str] = Counter()
        self._freed: dict[str, asyncio.Event] = {}

    async def wait(
        self, request: Request, exchange: Exchange, target: Target, wait: Wait, unsent: Unsent
    ) -> Target | ApiError:
        """The same model and adapter as they are once a pod may take the request, or why none will. Who comes back has
        what is left of its time, and has not to be let in again. Places at pods are waited for by those who have waited
        for a pod before, no others: they all come at once.

        Args:
            unsent: why it waits.
        """
        model = target.model
        clock = asyncio.get_running_loop().time
        refusal = unsent.error or without_pod(model, name=wait.name, now=self._now())
        if wait.end is None:
            if unsent.full:
                return refusal
            longest_sec = asked_wait_sec(request.headers.get(WAIT_HEADER), longest_sec=self._limits.longest_sec)
            if longest_sec is None:
                return ApiError(status=400, message=f"{WAIT_HEADER} must be a number of seconds.", type=INVALID_REQUEST)
            if longest_sec <= 0 or not on_its_way(model):
                return refusal
            if full := self._full(model.full_name):
                return rate_limited(full, retry_after_sec=retry_after_sec(model, now=self._now()))
            wait.end = clock() + longest_sec
            wait.comment = math.inf if wait.stream is None else clock() + self._limits.quiet_sec
        elif clock() >= wait.end:
            return refusal
        with self._place(model.full_name, exchange):
            return await self._until_ready(target, wait, end=wait.end, tried=unsent.tried)

    def freed(self, full_name: str) -> None:
        """A pod of the model has a place again. Those who have waited longest look first."""
        if (event := self._freed.pop(full_name, None)) is not None:
            event.set()

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
            exchange.waited_sec += monotonic() - since
            self._waiting[full_name] -= 1
            if not self._waiting[full_name]:
                del self._waiting[full_name]
                self._freed.pop(full_name, None)

    async def _until_ready(self, target: Target, wait: Wait, *, end: float, tried: frozenset[str]) -> Target | ApiError:
        clock = asyncio.get_running_loop().time
        again = clock() + self._limits.again_sec if tried else math.inf
        while True:
            found = self._directory.routes.again(target)
            if found is None:
                return model_not_found(wait.name, names=())
            addresses = self._directory.addresses(found.model)
            if clock() >= again:
                tried, again = frozenset(), math.inf
            if any(one not in tried and self._has_place(found.model, one) for one in addresses):
                return found
            if clock() >= end:  # one more try will tell why
                return found if addresses else without_pod(found.model, name=wait.name, now=self._now())
            if not on_its_way(found.model):
                return without_pod(found.model, name=wait.name, now=self._now())
            if wait.stream is not None and clock() >= wait.comment:
                await wait.stream.comment()
                wait.comment = clock() + self._limits.comment_sec
                continue  # something may have changed in the meantime
            with suppress(TimeoutError):
                async with asyncio.timeout_at(min(end, wait.comment, again)):
                    await self._news(found.model.full_name)

    async def _news(self, full_name: str) -> None:
        """Until a name, an address or a place at the model's pods may be another."""
        freed = self._freed.setdefault(full_name, asyncio.Event())
        both = [asyncio.create_task(self._directory.change()), asyncio.create_task(freed.wait())]
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in both:
                one.cancel()
