"""Measures what the gateway adds to a request, beside the same request sent directly and through another proxy.

`uv run python hack/bench/gateway.py`; exits 1 where an aim is missed. One upstream that answers at once, in a process
of its own, is asked directly, through the gateway (one process) and through llama-swap, in turns, in three rounds; the
median of the rounds counts. No llama-server is part of that: it would be slower than what is measured. Two real ones
then answer conversations, by way of the gateway and each in turn.
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
PER_SECOND_RATIO, COMPUTED_RATIO = 1.0, 1.0
RSS_MB, RSS_STREAMS_MB = 80.0, 200.0
_BLOCKS = 10
"""Of a round, in each of which all ways take turns: what else the machine does is then the same for all of them."""
_WARM_UP, _ALONE, _TOGETHER, _STREAMS = 50, 200, 400, 40
"""Requests in each block."""
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
    parser.add_argument("--llama-swap", type=Path, metavar="PATH", help="a binary of it; default: built by Go")
    parser.add_argument("--skip-conversations", action="store_true", help="do without real servers")
    parser.add_argument("--serve", choices=("upstream", "gateway"), help=argparse.SUPPRESS)
    parser.add_argument("--upstream", default="", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve == "upstream":
        asyncio.run(serve_upstream())
        return 0
    if arguments.serve == "gateway":
        serve_gateway(arguments.upstream)
        return 0
    good = proxies(rounds=arguments.rounds, many=arguments.many, llama_swap=arguments.llama_swap)
    if not arguments.skip_conversations:
        good &= caches(rounds=arguments.rounds)
    return 0 if good else 1


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
    """Of one way in one round.

    Attributes:
        alone_ms: for each request at one connection.
        together, together_sec: requests over several connections, and how long they took.
        first_ms: to the first event of each stream.
    """

    alone_ms: list[float] = field(default_factory=list)
    together: int = 0
    together_sec: float = 0.0
    first_ms: list[float] = field(default_factory=list)

    @property
    def per_second(self) -> float:
        return self.together / self.together_sec


def proxies(*, rounds: int, many: int, llama_swap: Path | None) -> bool:
    """Measures them, prints it, and says whether all aims are met."""
    from gatewaybench.llama_swap import NotToBeHadError, installed, running

    with ExitStack() as stack:
        upstream = stack.enter_context(process("upstream"))
        address = f"127.0.0.1:{upstream.port}"
        gateway = stack.enter_context(process("gateway", "--upstream", address))
        ways, without = {"direct": upstream.port, "gateway": gateway.port}, ""
        try:
            _, ways["llama-swap"] = stack.enter_context(running(llama_swap or installed(), address))
        except NotToBeHadError as error:
            without = str(error)
        found: dict[str, list[Figures]] = {name: [] for name in ways}
        for number in range(rounds):
            for name, figures in found.items():
                figures.append(Figures())
                asyncio.run(together(ways[name], _TOGETHER))
            for block in range(_BLOCKS):
                for name in sorted(ways, reverse=bool((number + block) % 2)):
                    asyncio.run(measure(ways[name], found[name][-1]))
        asyncio.run(together(gateway.port, many))
        rss = gateway.rss_mb
        rss_streams = asyncio.run(idle_streams(gateway))
    _heads(rounds)
    p50 = _rows("one connection, p50, ms", found, lambda one: median(one.alone_ms))
    p99 = _rows("one connection, p99, ms", found, lambda one: quantiles(one.alone_ms, n=100)[98])
    _rows(f"{_CLIENTS} connections, requests/s", found, lambda one: one.per_second)
    first = _rows(f"first event, {_CLIENTS} streams, p50, ms", found, lambda one: median(one.first_ms))
    print()
    good = [
        _check("added at one connection, p50", p50["gateway"], P50_MS, "ms"),
        _check("added at one connection, p99", p99["gateway"], P99_MS, "ms"),
        _check(f"added to the first event at {_CLIENTS} streams, p50", first["gateway"], FIRST_MS, "ms"),
        _check(f"memory after {many:,} requests", rss, RSS_MB, "MB"),
        _check(f"memory with {_IDLE_STREAMS:,} streams that wait", rss_streams, RSS_STREAMS_MB, "MB"),
    ]
    if without:
        print(f"- requests/s beside llama-swap were not measured: {without}")
    else:
        ratio = median(
            ours.per_second / theirs.per_second
            for ours, theirs in zip(found["gateway"], found["llama-swap"], strict=True)
        )
        good.append(ratio >= PER_SECOND_RATIO)
        print(
            f"{_mark(good[-1])} requests/s at {_CLIENTS} connections, beside llama-swap: {ratio:.3g} times, at least 1"
        )
        for what, added, unit in (("one connection, p50", p50, "ms"), ("first event, p50", first, "ms")):
            print(f"- llama-swap adds to {what}: {added['llama-swap']:.3g} {unit}")
    return all(good)


def caches(*, rounds: int) -> bool:
    """The same for prompts that real servers have to compute."""
    from gatewaybench.conversations import conversations, two_servers

    found: dict[str, list[float]] = {"gateway": [], "round robin": []}
    for number in range(rounds):
        with two_servers() as ways:
            both = [("gateway", ways.gateway), ("round robin", ways.round_robin)]
            for name, way in both[:: -1 if number % 2 else 1]:
                # Other texts each time: the servers have those of the first half in their caches.
                found[name].append(conversations(way, seed=2 * number + (name == "gateway")).share)
    print()
    _heads(rounds)
    for name, shares in found.items():
        _row(f"tokens of prompts computed, %, {name}", [100 * share for share in shares])
    ratios = [ours / theirs for ours, theirs in zip(found["gateway"], found["round robin"], strict=True)]
    _row("  ratio", ratios)
    print()
    return _check("tokens of prompts computed, beside round robin", median(ratios), COMPUTED_RATIO, "times")


def _heads(rounds: int) -> None:
    print(f"{'':40}" + "".join(f"{f'round {n + 1}':>10}" for n in range(rounds)) + f"{'median':>10}")


def _row(what: str, values: list[float]) -> None:
    print(f"{what:40}" + "".join(f"{value:>10.2f}" for value in (*values, median(values))))


def _rows(what: str, found: dict[str, list[Figures]], of: Callable[[Figures], float]) -> dict[str, float]:
    """Prints a row for each way; the medians of what each adds to the direct one of the same round."""
    added = {}
    for name, figures in found.items():
        _row(f"{what}, {name}", [of(one) for one in figures])
    for name, figures in found.items():
        if name != "direct":
            pairs = [(of(ours), of(floor)) for ours, floor in zip(figures, found["direct"], strict=True)]
            _row(f"  ratio, {name}", [ours / floor for ours, floor in pairs])
            added[name] = median(ours - floor for ours, floor in pairs)
    return added


def _check(what: str, value: float, bound: float, unit: str) -> bool:
    good = value <= bound
    print(f"{_mark(good)} {what}: {value:,.4g} {unit}, at most {bound:,.4g} {unit}")
    return good


def _mark(good: bool) -> str:
    return "✓" if good else "✗"


async def measure(port: int, figures: Figures) -> None:
    """One block of one way in."""
    connection = await Connection.to(port)
    for number in range(_WARM_UP + _ALONE):
        begun = time.perf_counter()
        await connection.ask(_BODY)
        if number >= _WARM_UP:
            figures.alone_ms.append((time.perf_counter() - begun) * 1e3)
    connection.close()
    begun = time.perf_counter()
    await together(port, _TOGETHER)
    figures.together_sec += time.perf_counter() - begun
    figures.together += _TOGETHER

    async def streams() -> None:
        one = await Connection.to(port)
        for _ in range(_STREAMS // _CLIENTS):
            begun = time.perf_counter()
            figures.first_ms.append((await one.first_event(_STREAM_BODY) - begun) * 1e3)
        one.close()

    await asyncio.gather(*(streams() for _ in range(_CLIENTS)))


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
    import llamamodel_operator.gateway.main  # noqa: F401  memory counts all that the process has loaded
    from llamamodel_operator.core.gateway.routes import ServedModel
    from llamamodel_operator.shell.logs import configure_logging
    from support.gateway import GivenDirectory, running_gateway

    # A pod with threads enough: else the gateway sends no more than they take, and refuses the rest.
    model = ServedModel(namespace="bench", name="m", served_name="m", phase="Ready", http_threads=2 * _IDLE_STREAMS)
    directory = GivenDirectory([model], {"bench/m": [upstream]})
    with Path(os.devnull).open("w", encoding="utf-8") as null, running_gateway(directory) as url:
        configure_logging(log_format="json", level="info", stream=null)  # as in a pod: with an access log
        print(url.rpartition(":")[2], flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    sys.exit(main())
