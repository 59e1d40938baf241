"""The queue: every key that is asked for gets a pass, one at a time, and a failed one comes again, later and later."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from llamamodel_operator.shell.queue import KeyedQueue


class Worker:
    """What the queue calls; takes `seconds` per pass, and fails as often as told."""

    def __init__(self, *, seconds: float = 1.0) -> None:
        self.seconds = seconds
        self.started: list[tuple[float, str]] = []
        self.running: Counter[str] = Counter()
        self.most_at_once = 0
        self.failures: dict[str, int] = {}
        self.during: Callable[[str], Awaitable[None] | None] = lambda _: None
        self.errors: list[tuple[str, Exception, float]] = []

    async def __call__(self, key: str) -> None:
        assert not self.running[key], f"two passes of {key} at a time"
        self.running[key] += 1
        self.most_at_once = max(self.most_at_once, self.running.total())
        self.started.append((asyncio.get_running_loop().time(), key))
        try:
            if (waiting := self.during(key)) is not None:
                await waiting
            await asyncio.sleep(self.seconds)
            if self.failures.get(key, 0) > 0:
                self.failures[key] -= 1
                raise ConnectionError(f"{key} failed")
        finally:
            self.running[key] -= 1

    def passes(self, key: str) -> int:
        return sum(name == key for _, name in self.started)

    def times(self) -> list[float]:
        return [time for time, _ in self.started]


@asynccontextmanager
async def a_queue(
    worker: Worker,
    *,
    workers: int = 2,
    backoff_base: float = 1.0,
    backoff_cap: float = 60.0,
    pass_timeout: float = 100.0,
) -> AsyncIterator[KeyedQueue[str]]:
    queue: KeyedQueue[str] = KeyedQueue(
        work=worker,
        on_error=lambda key, error, delay: worker.errors.append((key, error, delay)),
        workers=workers,
        backoff_base=backoff_base,
        backoff_cap=backoff_cap,
        pass_timeout=pass_timeout,
    )
    running = asyncio.create_task(queue.run())
    try:
        yield queue
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_a_key_that_is_added_often_gets_one_pass() -> None:
    worker = Worker()
    async with a_queue(worker) as queue:
        for _ in range(10):
            queue.add("a")
        await asyncio.sleep(50)
    assert worker.passes("a") == 1


async def test_a_key_that_is_added_during_its_pass_gets_exactly_one_more() -> None:
    worker = Worker(seconds=10)
    async with a_queue(worker) as queue:
        queue.add("a")
        for _ in range(5):
            await asyncio.sleep(1)
            queue.add("a")
        await asyncio.sleep(100)
    assert worker.passes("a") == 2
    assert worker.times() == [0, 10]


async def test_a_key_that_is_added_in_the_pass_that_follows_is_not_lost_either() -> None:
    worker = Worker(seconds=10)
    async with a_queue(worker) as queue:
        queue.add("a")
        for _ in range(3):
            await asyncio.sleep(10.5)
            queue.add("a")
        await asyncio.sleep(100)
    assert worker.passes("a") == 4


async def test_passes_of_one_key_never_overlap_although_workers_are_free() -> None:
    worker = Worker(seconds=3)
    async with a_queue(worker, workers=8) as queue:
        for _ in range(20):
            queue.add("a")
            await asyncio.sleep(1)
        await asyncio.sleep(10)
    assert worker.most_at_once == 1


async def test_no_more_passes_run_at_once_than_there_are_workers() -> None:
    worker = Worker()
    async with a_queue(worker, workers=3) as queue:
        for number in range(10):
            queue.add(str(number))
        await asyncio.sleep(10)
    assert worker.most_at_once == 3
    assert worker.times() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3]


async def test_keys_get_their_turn_in_the_order_in_which_they_came() -> None:
    worker = Worker()
    async with a_queue(worker, workers=1) as queue:
        for key in "abc":
            queue.add(key)
        await asyncio.sleep(0.5)
        queue.add("a")
        await asyncio.sleep(10)
    assert [key for _, key in worker.started] == ["a", "b", "c", "a"]


async def test_a_failed_pass_is_repeated_after_pauses_that_double_up_to_the_cap() -> None:
    worker = Worker(seconds=0)
    worker.failures["a"] = 10
    async with a_queue(worker, backoff_base=1.0, backoff_cap=60.0) as queue:
        queue.add("a")
        await asyncio.sleep(1000)
    assert worker.passes("a") == 11
    longest = [1, 2, 4, 8, 16, 32, 60, 60, 60, 60]
    for delay, most in zip((delay for _, _, delay in worker.errors), longest, strict=True):
        assert most / 2 <= delay <= most
    pauses = [after - before for before, after in zip(worker.times(), worker.times()[1:], strict=False)]
    assert pauses == pytest.approx([delay for _, _, delay in worker.errors])


async def test_pauses_are_jittered_so_that_many_failures_do_not_come_back_at_once() -> None:
    worker = Worker(seconds=0)
    worker.failures = {str(number): 1 for number in range(50)}
    async with a_queue(worker) as queue:
        for key in worker.failures:
            queue.add(key)
        await asyncio.sleep(10)
    assert len({delay for _, _, delay in worker.errors}) > 40


async def test_after_a_success_the_pauses_begin_anew() -> None:
    worker = Worker(seconds=0)
    worker.failures["a"] = 4
    async with a_queue(worker) as queue:
        queue.add("a")
        await asyncio.sleep(100)
        worker.failures["a"] = 1
        queue.add("a")
        await asyncio.sleep(100)
    *_, before, after = (delay for _, _, delay in worker.errors)
    assert before >= 4
    assert after <= 1


async def test_after_a_success_during_which_news_came_the_pauses_begin_anew_too() -> None:
    worker = Worker(seconds=1)
    fails = iter([True, True, True, True, False, True, False])

    def outcome(key: str) -> None:
        worker.failures[key] = int(next(fails))
        if worker.passes(key) == 5:  # the first that succeeds
            queue.add(key)

    worker.during = outcome
    async with a_queue(worker) as queue:
        queue.add("a")
        await asyncio.sleep(100)
    assert worker.passes("a") == 7
    *_, before, after = (delay for _, _, delay in worker.errors)
    assert before >= 4
    assert after <= 1


async def test_news_do_not_wait_for_the_retry_and_take_its_place() -> None:
    worker = Worker(seconds=0)
    worker.failures["a"] = 5
    async with a_queue(worker, backoff_base=60.0) as queue:
        queue.add("a")
        await asyncio.sleep(1)
        worker.failures["a"] = 0
        queue.add("a")
        await asyncio.sleep(1000)
    assert worker.times() == [0, 1]


async def test_news_during_a_pass_that_fails_take_the_place_of_the_retry() -> None:
    worker = Worker(seconds=2)
    worker.failures["a"] = 1
    async with a_queue(worker, backoff_base=60.0) as queue:
        queue.add("a")
        await asyncio.sleep(1)
        queue.add("a")
        await asyncio.sleep(1000)
    assert worker.times() == [0, 2]


async def test_failures_go_on_counting_when_news_cut_the_pause_short() -> None:
    worker = Worker(seconds=0)
    worker.failures["a"] = 3
    async with a_queue(worker, backoff_base=8.0) as queue:
        for _ in range(3):
            queue.add("a")
            await asyncio.sleep(1)
    assert [delay >= least for (_, _, delay), least in zip(worker.errors, (4, 8, 16), strict=True)] == [True] * 3


async def test_a_failure_keeps_no_other_key_waiting() -> None:
    worker = Worker(seconds=0)
    worker.failures["bad"] = 1000
    async with a_queue(worker, workers=1) as queue:
        queue.add("bad")
        queue.add("good")
        await asyncio.sleep(1)
    assert worker.passes("good") == 1


async def test_a_pass_that_takes_too_long_is_stopped_and_counts_as_failed() -> None:
    worker = Worker(seconds=1000)
    async with a_queue(worker, workers=1, pass_timeout=30) as queue:
        queue.add("slow")
        await asyncio.sleep(29)
        assert not worker.errors
        await asyncio.sleep(1.1)
        ((key, error, _),) = worker.errors
        assert (key, type(error)) == ("slow", TimeoutError)
        worker.seconds = 0
        queue.add("other")
        await asyncio.sleep(1)
    assert worker.passes("other") == 1


async def test_a_pass_that_is_cancelled_from_inside_does_not_take_its_worker_with_it() -> None:
    worker = Worker(seconds=0)

    async def cancelled(key: str) -> None:
        if key == "odd":
            raise asyncio.CancelledError

    worker.during = cancelled
    async with a_queue(worker, workers=1) as queue:
        queue.add("odd")
        await asyncio.sleep(1)
        queue.add("good")
        await asyncio.sleep(1)
    assert worker.passes("good") == 1


async def test_the_depth_counts_keys_that_wait_for_a_worker() -> None:
    worker = Worker(seconds=10)
    async with a_queue(worker, workers=1) as queue:
        assert queue.depth == 0
        for key in "abcaab":
            queue.add(key)
        assert queue.depth == 3
        await asyncio.sleep(1)
        assert queue.depth == 2
        await asyncio.sleep(30)
        assert queue.depth == 0


async def test_a_key_that_waits_for_its_retry_waits_for_no_worker() -> None:
    worker = Worker(seconds=0)
    worker.failures["a"] = 1
    async with a_queue(worker, backoff_base=60.0) as queue:
        queue.add("a")
        await asyncio.sleep(10)
        assert (queue.depth, queue.oldest_wait, queue.longest_pass) == (0, 0, 0)


async def test_the_oldest_wait_and_the_longest_pass_are_told_in_seconds() -> None:
    worker = Worker(seconds=10)
    async with a_queue(worker, workers=1) as queue:
        assert (queue.oldest_wait, queue.longest_pass) == (0, 0)
        queue.add("a")
        await asyncio.sleep(2)
        queue.add("b")
        await asyncio.sleep(3)
        queue.add("c")
        assert (queue.oldest_wait, queue.longest_pass) == (3, 5)
        await asyncio.sleep(6)
        assert (queue.oldest_wait, queue.longest_pass) == (6, 1)
        await asyncio.sleep(30)
        assert (queue.oldest_wait, queue.longest_pass) == (0, 0)


async def test_what_is_done_is_forgotten() -> None:
    worker = Worker(seconds=0)
    worker.failures["7"] = 1
    async with a_queue(worker) as queue:
        for number in range(100):
            queue.add(str(number))
        await asyncio.sleep(10)
        assert not queue._entries


async def test_keys_that_are_added_before_the_workers_start_are_worked_on() -> None:
    worker = Worker(seconds=0)
    queue: KeyedQueue[str] = KeyedQueue(work=worker, on_error=lambda *_: None, workers=1)
    queue.add("a")
    running = asyncio.create_task(queue.run())
    await asyncio.sleep(1)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert worker.passes("a") == 1


async def test_whatever_comes_when_every_key_has_its_last_pass_after_it_was_last_added() -> None:
    worker = Worker(seconds=0.7)
    worker.failures = {"b": 3, "d": 1}
    added: dict[str, float] = {}
    async with a_queue(worker, workers=2) as queue:
        for step in range(60):
            key = "abcde"[(step * step + step // 7) % 5]
            added[key] = asyncio.get_running_loop().time()
            queue.add(key)
            await asyncio.sleep(0.3)
        await asyncio.sleep(200)
    for key, time in added.items():
        assert max(start for start, name in worker.started if name == key) >= time
