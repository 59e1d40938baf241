"""`llamamodel bench`: so many requests at a time, timed by the client, counted by both sides."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from statistics import median

from llamamodel_operator.cli.bench_requests import Done, Workload, ask
from llamamodel_operator.cli.live import NotReadable, read_counters
from llamamodel_operator.cli.servers import ModelServer, NotReadableError

__all__ = ["Counts", "Level", "Target", "measure", "percentile", "warm_up"]

_POLL_SEC = 1.0
"""How often servers are asked whether they work for somebody else too."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """What is measured.

    Attributes:
        title: for people.
        servers: requests go to them in turn.
        tokens: of ordinary words in its vocabulary.
    """

    title: str
    servers: tuple[ModelServer, ...]
    tokens: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Counts:
    """Tokens."""

    prompt: int
    generated: int

    def __sub__(self, other: Counts) -> Counts:
        return Counts(prompt=self.prompt - other.prompt, generated=self.generated - other.generated)


@dataclass(frozen=True, kw_only=True)
class Level:
    """What came of so many requests at a time.

    Attributes:
        server_counts: what the servers' metrics counted meanwhile.
        strangers: whether the servers were seen to work for somebody else too.
    """

    parallel: int
    done: tuple[Done, ...]
    server_counts: Counts | NotReadable
    strangers: bool

    @property
    def counts(self) -> Counts:
        """Tokens of the answers."""
        return Counts(
            prompt=sum(done.prompt_tokens for done in self.done),
            generated=sum(done.generated_tokens for done in self.done),
        )

    @property
    def agrees(self) -> bool | None:
        """Whether both sides counted the same; None where nobody can tell."""
        if isinstance(self.server_counts, NotReadable):
            return None
        return self.server_counts == self.counts

    @property
    def seconds(self) -> float:
        """From the first request until the last answer."""
        return max(done.last for done in self.done) - min(done.sent for done in self.done)

    @property
    def prompt_rate(self) -> float:
        """Tokens of prompts per second, over the time in which at least one request waited for its first token."""
        return _ratio(self.counts.prompt, _covered((done.sent, done.first) for done in self.done))

    @property
    def generation_rate(self) -> float:
        """Tokens after each first one per second, over the time in which at least one request was given some."""
        tokens = sum(max(0, done.generated_tokens - 1) for done in self.done)
        return _ratio(tokens, _covered((done.first, done.last) for done in self.done))

    @property
    def each_rate(self) -> float:
        """Tokens per second of the median request, after its first."""
        return median(_ratio(done.generated_tokens - 1, done.last - done.first) for done in self.done)

    @property
    def total_rate(self) -> float:
        """Tokens of prompts and generations per second of the whole."""
        return _ratio(self.counts.prompt + self.counts.generated, self.seconds)

    @property
    def request_rate(self) -> float:
        """Requests per second of the whole."""
        return _ratio(len(self.done), self.seconds)

    def first_token_sec(self, share: float) -> float:
        """Seconds until the first token, or the whole answer where nothing is generated, of that share of requests."""
        return percentile([done.first - done.sent for done in self.done], share)


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least this share of all are not above (nearest rank)."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def _ratio(amount: float, seconds: float) -> float:
    return amount / seconds if seconds > 0 and amount > 0 else 0.0


def _covered(intervals: Iterable[tuple[float, float]]) -> float:
    """Seconds that lie in at least one of them."""
    total, end = 0.0, -math.inf
    for begin, until in sorted(intervals):
        total += max(0.0, until - max(begin, end))
        end = max(end, until)
    return total


@dataclass
class _Flight:
    """Requests of ours that servers may have."""

    now: int = 0
    most: int = 0

    @contextlib.contextmanager
    def one_more(self) -> Iterator[None]:
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            yield
        finally:
            self.now -= 1


@dataclass
class _Strangers:
    """Whether servers work for somebody else too: they have more requests than can be ours."""

    servers: Sequence[ModelServer]
    flight: _Flight = field(default_factory=_Flight)
    seen: bool = False

    async def look(self) -> None:
        self.flight.most = self.flight.now
        counters = [await read_counters(server) for server in self.servers]
        if sum(found.processing + found.deferred for found in counters) > self.flight.most:
            self.seen = True

    async def keep_looking(self) -> None:
        with contextlib.suppress(NotReadableError):
            while True:
                await asyncio.sleep(_POLL_SEC)
                await self.look()


async def warm_up(target: Target, workload: Workload) -> None:
    """One request for each server. Raises NotReadableError."""
    for server in target.servers:
        await ask(server, workload, name="warm-up", tokens=target.tokens, on_token=lambda: None)


async def measure(
    target: Target,
    workload: Workload,
    *,
    parallel: int,
    requests: int,
    progress: Callable[[int, int], None],
) -> Level:
    """Keeps so many requests going until so many are answered.

    Args:
        progress: told how many requests are answered, and how many tokens came.

    Raises:
        NotReadableError: one of them failed.
    """
    strangers = _Strangers(target.servers)
    before = await _counts(target.servers)
    if not isinstance(before, NotReadable):
        await strangers.look()
    watching = asyncio.create_task(strangers.keep_looking())
    numbers, done, tokens = iter(range(requests)), list[Done](), 0

    def on_token() -> None:
        nonlocal tokens
        tokens += 1
        progress(len(done), tokens)

    async def work() -> None:
        for number in numbers:
            server, name = target.servers[number % len(target.servers)], f"{parallel}-{number}"
            with strangers.flight.one_more():
                done.append(await ask(server, workload, name=name, tokens=target.tokens, on_token=on_token))
            progress(len(done), tokens)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(parallel):
                group.create_task(work())
    except* NotReadableError as failed:
        raise NotReadableError(str(failed.exceptions[0])) from None
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
    after = await _counts(target.servers)
    return Level(
        parallel=parallel,
        done=tuple(done),
        server_counts=_difference(before, after),
        strangers=strangers.seen,
    )


async def _counts(servers: Sequence[ModelServer]) -> Counts | NotReadable:
    """Of all servers together."""
    try:
        found = [await read_counters(server) for server in servers]
    except NotReadableError as error:
        return NotReadable(str(error))
    return Counts(
        prompt=sum(counters.prompt_tokens for counters in found),
        generated=sum(counters.generated_tokens for counters in found),
    )


def _difference(before: Counts | NotReadable, after: Counts | NotReadable) -> Counts | NotReadable:
    if isinstance(before, NotReadable):
        return before
    if isinstance(after, NotReadable):
        return after
    difference = after - before
    if difference.prompt < 0 or difference.generated < 0:
        return NotReadable("the counters went back: a server was restarted")
    return difference
