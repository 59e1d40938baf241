"""Measures what the gateway adds to a request, beside the same request sent directly.

`uv run python hack/bench/gateway.py`; exits 1 where an aim is missed. One upstream that answers at once, in a process
of its own, is asked directly and through the gateway (one process), in turns, in three rounds; the median of the rounds
counts. No llama-server is part of it: that would be slower than what is measured.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median, quantiles

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests"))

P50_MS, P99_MS, FIRST_MS = 0.5, 1.5, 1.5
RSS_MB, RSS_STREAMS_MB = 80.0, 200.0
_WARM_UP, _ALONE, _TOGETHER, _STREAMS = 300, 2_000, 4_000, 160
_CLIENTS = 8
_MANY, _IDLE_STREAMS = 100_000, 1_000
_EVENTS, _EVENT_SEC = 10, 0.005
_BODY = b'{"model":"m","messages":[{"role":"user","content":"What is a llama?"}]}'
_STREAM_BODY = b'{"model":"m","stream":true,"messages":[{"role":"user","content":"What is a llama?"}]}'
_IDLE_BODY = b'{"model":"m","stream":true,"idle":true,"messages":[{"role":"user","content":"What is a llama?"}]}'
_ANSWER = b'{"choices":[{"message":{"role":"assistant","content":"' + b"An animal. " * 20 + b'"}}]}'
_EVENT = b'data: {"choices":[{"delta":{"content":"An"}}]}\n\n'


def main() -> int:
    """Exit status: 0 all aims are met, 1 one is missed."""
    parser = argparse.ArgumentParser(prog="hack/bench/gateway.py", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3, metavar="N")
    parser.add_argument("--many", type=int, default=_MANY, metavar="N", help="requests before memory is looked at")
    parser.add_argument("--serve", choices=("upstream", "gateway"), help=argparse.SUPPRESS)
    parser.add_argument("--upstream", default="", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve == "upstream":
        asyncio.run(serve_upstream())
        return 0
    if arguments.serve == "gateway":
        serve_gateway(arguments.upstream)
        return 0
    with ExitStack() as stack:
        upstream = stack.enter_context(process("upstream"))
        gateway = stack.enter_context(process("gateway", "--upstream", f"127.0.0.1:{upstream.port}"))
        return report(upstream, gateway, rounds=arguments.rounds, many=arguments.many)


@dataclass(frozen=True, kw_only=True)
class Process:
    """A server of the benchmark."""

    pid: int
    port: int

    @property
    def rss_mb(self) -> float:
        lines = Path(f"/proc/{self.pid}/status").read_text(encoding="utf-8").splitlines()
        return next(int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith("VmRSS:"))


@contextmanager
def process(name: str, *arguments: str) -> Iterator[Process]:
    """It prints its port when it listens."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT / "operator"), str(ROOT / "tests")])}
    with subprocess.Popen(
        [sys.executable, __file__, "--serve", name, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
        start_new_session=True,
    ) as started:
        try:
            yield Process(pid=started.pid, port=int(started.stdout.readline() if started.stdout else b""))
        finally:
            started.kill()


# --- what is measured


@dataclass
class Figures:
    """Of one way in one round: milliseconds for each request, requests per second, milliseconds to the first event."""

    alone_ms: list[float] = field(default_factory=list)
    per_second: float = 0.0
    first_ms: list[float] = field(default_factory=list)


def report(upstream: Process, gateway: Process, *, rounds: int, many: int) -> int:
    ways = {"direct": upstream.port, "gateway": gateway.port}
    found: dict[str, list[Figures]] = {name: [] for name in ways}
    for number in range(rounds):
        for name in sorted(ways, reverse=bool(number % 2)):
            found[name].append(asyncio.run(measured(ways[name])))
    print(f"{'':36}" + "".join(f"{f'round {n + 1}':>10}" for n in range(rounds)) + f"{'median':>10}")
    p50 = _rows("one connection, p50, ms", found, lambda one: median(one.alone_ms))
    p99 = _rows("one connection, p99, ms", found, lambda one: quantiles(one.alone_ms, n=100)[98])
    _rows(f"{_CLIENTS} connections, requests/s", found, lambda one: one.per_second)
    first = _rows(f"first event, {_CLIENTS} streams, p50, ms", found, lambda one: median(one.first_ms))
    asyncio.run(together(gateway.port, many))
    rss = gateway.rss_mb
    rss_streams = asyncio.run(idle_streams(gateway))
    print()
    good = [
        _check("added at one connection, p50", p50, P50_MS, "ms"),
        _check("added at one connection, p99", p99, P99_MS, "ms"),
        _check(f"added to the first event at {_CLIENTS} streams, p50", first, FIRST_MS, "ms"),
        _check(f"memory after {many:,} requests", rss, RSS_MB, "MB"),
        _check(f"memory with {_IDLE_STREAMS:,} streams that wait", rss_streams, RSS_STREAMS_MB, "MB"),
    ]
    return 0 if all(good) else 1


def _rows(what: str, found: dict[str, list[Figures]], of: Callable[[Figures], float]) -> float:
    """Prints a row for each way; the median of what the gateway adds."""
    for name, figures in found.items():
        values = [of(one) for one in figures]
        print(f"{f'{what}, {name}':36}" + "".join(f"{value:>10.2f}" for value in (*values, median(values))))
    ratios = [of(ours) / of(floor) for ours, floor in zip(found["gateway"], found["direct"], strict=True)]
    print(f"{'  ratio':36}" + "".join(f"{ratio:>10.2f}" for ratio in (*ratios, median(ratios))))
    return median(of(ours) - of(floor) for ours, floor in zip(found["gateway"], found["direct"], strict=True))


def _check(what: str, value: float, most: float, unit: str) -> bool:
    good = value <= most
    print(f"{'✓' if good else '✗'} {what}: {value:,.4g} {unit}, at most {most:,.4g} {unit}")
    return good


async def measured(port: int) -> Figures:
    """All figures of one way in."""
    figures = Figures()
    connection = await Connection.to(port)
    for number in range(_WARM_UP + _ALONE):
        begun = time.perf_counter()
        await connection.ask(_BODY)
        if number >= _WARM_UP:
            figures.alone_ms.append((time.perf_counter() - begun) * 1e3)
    connection.close()
    begun = time.perf_counter()
    await together(port, _TOGETHER)
    figures.per_second = _TOGETHER / (time.perf_counter() - begun)

    async def streams() -> None:
        one = await Connection.to(port)
        for _ in range(_STREAMS // _CLIENTS):
            begun = time.perf_counter()
            figures.first_ms.append((await one.first_event(_STREAM_BODY) - begun) * 1e3)
        one.close()

    await asyncio.gather(*(streams() for _ in range(_CLIENTS)))
    return figures


async def together(port: int, number: int) -> None:
    """So many requests over several connections."""

    async def some() -> None:
        connection = await Connection.to(port)
        for _ in range(number // _CLIENTS):
            await connection.ask(_BODY)
        connection.close()

    await asyncio.gather(*(some() for _ in range(_CLIENTS)))


async def idle_streams(gateway: Process) -> float:
    """Memory of the gateway while many streams have begun and wait for more, MB."""
    connections: list[Connection] = []
    for _ in range(_IDLE_STREAMS):
        connections.append(await Connection.to(gateway.port))
        await connections[-1].first_piece(_IDLE_BODY)
    held = gateway.rss_mb
    for connection in connections:
        connection.close()
    return held


# --- the client: as little as can be


class Connection:
    """One connection that is kept; knows as much of HTTP as the two servers here say."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def to(cls, port: int) -> Connection:
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    async def ask(self, body: bytes) -> None:
        """A request, and all of its answer."""
        length = int((await self._head(body)).partition(b"ontent-length: ")[2].split(b"\r", 1)[0])
        await self._reader.readexactly(length)

    async def first_event(self, body: bytes) -> float:
        """When the first event came; reads the rest as well."""
        await self.first_piece(body)
        first = time.perf_counter()
        await self._reader.readuntil(b"\r\n0\r\n\r\n")
        return first

    async def first_piece(self, body: bytes) -> None:
        await self._head(body)
        await self._reader.readuntil(b"\n\n")

    async def _head(self, body: bytes) -> bytes:
        self._writer.write(
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
        )
        head = await self._reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200"):
            sys.exit(f"refused: {head!r}")
        return head.lower()

    def close(self) -> None:
        self._writer.close()


# --- the servers


async def serve_upstream() -> None:
    """Answers at once, or by a stream of events; knows no more of HTTP than the gateway and the client here say."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length: ")[2].split(b"\r", 1)[0])
                body = await reader.readexactly(length)
                if b'"stream":true' not in body:
                    writer.write(
                        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
                        % (len(_ANSWER), _ANSWER)
                    )
                    continue
                writer.write(
                    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
                )
                chunk = b"%x\r\n%b\r\n" % (len(_EVENT), _EVENT)
                for _ in range(_EVENTS):
                    writer.write(chunk)
                    await asyncio.sleep(3600 if b'"idle":true' in body else _EVENT_SEC)
                writer.write(b"0\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, backlog=2048)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def serve_gateway(upstream: str) -> None:
    """The gateway as its own process runs it, with one model whose address is given."""
    from llamamodel_operator.core.gateway.routes import ServedModel
    from llamamodel_operator.shell.logs import configure_logging
    from support.gateway import GivenDirectory, running_gateway

    model = ServedModel(namespace="bench", name="m", served_name="m", phase="Ready")
    directory = GivenDirectory([model], {"bench/m": [upstream]})
    with Path(os.devnull).open("w", encoding="utf-8") as null, running_gateway(directory) as url:
        configure_logging(log_format="json", level="info", stream=null)  # as in a pod: with an access log
        print(url.rpartition(":")[2], flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    sys.exit(main())
