"""A keyed work queue: one pass per key at a time, bounded workers, retries with backoff and jitter."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

__all__ = ["KeyedQueue"]

K = TypeVar("K", bound=Hashable)


@dataclass
class _Entry:
    """State of a key: `since` while it waits for a worker, `running` while one has it, `again` if it came back."""

    since: float | None = None
    running: float | None = None
    again: bool = False
    failures: int = 0
    retry: asyncio.TimerHandle | None = None


class KeyedQueue(Generic[K]):
    """Runs `work(key)` for every key added, however often it was added meanwhile.

    A key that is added while its pass runs gets one more pass after it: nothing that was said is lost. A pass
    that raises is repeated after 2^n times `backoff_base` seconds, at most `backoff_cap`, each time a random part of
    that between a half and the whole. A pass that takes longer than `pass_timeout` is cancelled and counts as
    failed.
    """

    def __init__(
        self,
        *,
        work: Callable[[K], Awaitable[None]],
        on_error: Callable[[K, Exception, float], None],
        workers: int,
        backoff_base: float = 0.5,
        backoff_cap: float = 120.0,
        pass_timeout: float = 120.0,
    ) -> None:
        self._work = work
        self._on_error = on_error
        self._workers = workers
        self._backoff_base = backoff_base
        self._backoff_cap = backoff_cap
        self._pass_timeout = pass_timeout
        self._entries: dict[K, _Entry] = {}
        self._ready: asyncio.Queue[K] = asyncio.Queue()
        self._draining = False
        self._drained = asyncio.Event()
        self._last_end = float("-inf")

    def add(self, key: K) -> None:
        """Asks for a pass, now."""
        entry = self._entries.setdefault(key, _Entry())
        if entry.retry is not None:
            entry.retry.cancel()
            entry.retry = None
        if entry.running is not None:
            entry.again = True
        elif entry.since is None:
            entry.since = _now()
            self._ready.put_nowait(key)

    @property
    def depth(self) -> int:
        """Keys that wait for a worker."""
        return self._ready.qsize()

    @property
    def oldest_wait(self) -> float:
        """Seconds that the longest waiting key has waited for a worker."""
        waiting = [entry.since for entry in self._entries.values() if entry.since is not None]
        return _now() - min(waiting) if waiting else 0.0

    @property
    def idle_despite_work(self) -> float:
        """Seconds for which keys have waited and no pass has ended."""
        return min(self.oldest_wait, _now() - self._last_end)

    @property
    def _working(self) -> bool:
        return any(entry.running is not None for entry in self._entries.values())

    @property
    def longest_pass(self) -> float:
        """Seconds that the longest running pass has taken so far."""
        running = [entry.running for entry in self._entries.values() if entry.running is not None]
        return _now() - min(running) if running else 0.0

    async def drain(self, *, within: float) -> None:
        """Starts no pass any more, and waits for those that run; they may take `within` seconds."""
        self._draining = True
        if self._working:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(within):
                    await self._drained.wait()

    async def run(self) -> None:
        """Works until cancelled."""
        async with asyncio.TaskGroup() as group:
            for number in range(self._workers):
                group.create_task(self._worker(), name=f"worker-{number}")

    async def _worker(self) -> None:
        while True:
            key = await self._ready.get()
            if self._draining:
                return
            entry = self._entries[key]
            entry.since, entry.running, entry.again = None, _now(), False
            try:
                async with asyncio.timeout(self._pass_timeout):
                    await self._work(key)
            except asyncio.CancelledError as error:
                if asyncio.current_task().cancelling():  # type: ignore[union-attr]
                    raise
                self._failed(key, entry, RuntimeError(f"the pass was cancelled from inside: {error}"))
            except Exception as error:
                self._failed(key, entry, error)
            else:
                entry.failures = 0
            finally:
                entry.running = None
                self._last_end = _now()
                if self._draining and not self._working:
                    self._drained.set()
            if entry.again:
                self.add(key)
            elif entry.retry is None:
                del self._entries[key]

    def _failed(self, key: K, entry: _Entry, error: Exception) -> None:
        longest = min(self._backoff_base * 2.0**entry.failures, self._backoff_cap)
        delay = longest * random.uniform(0.5, 1.0)  # noqa: S311 (jitter)
        entry.failures = min(entry.failures + 1, 32)
        self._on_error(key, error, delay)
        entry.retry = asyncio.get_running_loop().call_later(delay, self.add, key)


def _now() -> float:
    return asyncio.get_running_loop().time()
