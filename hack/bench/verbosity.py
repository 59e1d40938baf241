"""Measures what llama-server's more talkative logs cost per request, beside the default and a control of the same kind.

`uv run python hack/bench/verbosity.py`. Requests go to one server at a time, in turns, so that a busy machine slows all
alike; the CPU time that a request takes tells more than its tokens per second there.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from serverbench.server import Server, fetched_model, fetched_server, rendered, started

_SIDES: Mapping[str, Sequence[str]] = {
    "default": (),
    "default again": (),
    "-lv 4": ("-lv", "4"),
    "-v": ("-v",),
}
_PROMPT = "Write down what you know about bridges: who built them, out of what, and which of them still stand."
_TICKS_PER_SEC = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Of the requests of one round, on the average.

    Attributes:
        tokens_per_sec: as the server says.
        cpu_ms: of all its threads, for one request.
        log_bytes: written for one request.
    """

    tokens_per_sec: float
    cpu_ms: float
    log_bytes: float


def main() -> int:
    """Exit status: 0; where a server does not start, its log is shown and the status is 1."""
    parser = argparse.ArgumentParser(prog="hack/bench/verbosity.py", description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7, metavar="N")
    parser.add_argument("--requests", type=int, default=8, metavar="N", help="to each server in a round")
    parser.add_argument("--tokens", type=int, default=64, metavar="N", help="to be made in each request")
    arguments = parser.parse_args()
    binary, model = fetched_server(), fetched_model()
    with contextlib.ExitStack() as stack:
        servers = {
            name: stack.enter_context(
                started(
                    binary,
                    rendered(
                        model,
                        engine={"contextSize": 1024, "parallelSlots": 1, "threads": 1},
                        extraArgs=["--cache-ram", "0", *words],
                    ),
                )
            )
            for name, words in _SIDES.items()
        }
        for name, server in servers.items():
            print(f"{name:14} {_log_size(server):>9,} bytes of log until ready")
            _ask(server, tokens=arguments.tokens)
        rounds = []
        for number in range(arguments.rounds):
            print(f"  round {number + 1} of {arguments.rounds}", end="\r", file=sys.stderr, flush=True)
            rounds.append(_round(servers, number, requests=arguments.requests, tokens=arguments.tokens))
    _print(rounds)
    return 0


def _round(servers: Mapping[str, Server], number: int, *, requests: int, tokens: int) -> dict[str, Cost]:
    """One request to each server at a time; who begins changes."""
    names = list(servers)
    speeds: dict[str, list[float]] = {name: [] for name in names}
    before = {name: (_cpu_ms(server), _log_size(server)) for name, server in servers.items()}
    for request in range(requests):
        first = (number + request) % len(names)
        for name in names[first:] + names[:first]:
            speeds[name].append(_ask(servers[name], tokens=tokens))
    return {
        name: Cost(
            tokens_per_sec=median(speeds[name]),
            cpu_ms=(_cpu_ms(server) - before[name][0]) / requests,
            log_bytes=(_log_size(server) - before[name][1]) / requests,
        )
        for name, server in servers.items()
    }


def _ask(server: Server, *, tokens: int) -> float:
    """Tokens per second."""
    answer = server.ask("/completion", prompt=_PROMPT, n_predict=tokens, ignore_eos=True, cache_prompt=False, seed=1)
    return float(answer["timings"]["predicted_per_second"])


def _cpu_ms(server: Server) -> float:
    fields = Path(f"/proc/{server.pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * 1000 / _TICKS_PER_SEC


def _log_size(server: Server) -> int:
    return Path(f"/proc/{server.pid}/fd/1").stat().st_size


def _print(rounds: Sequence[Mapping[str, Cost]]) -> None:
    """Medians of the rounds; ratios are those of the same round."""
    titles = ("tokens/s", "ratio", "CPU ms", "ratio", "lowest", "highest", "log bytes")
    print(f"{'':14}" + "".join(f"{title:>10}" for title in titles))
    for name in _SIDES:
        costs, base = [costs[name] for costs in rounds], [costs["default"] for costs in rounds]
        speed = [mine.tokens_per_sec / theirs.tokens_per_sec for mine, theirs in zip(costs, base, strict=True)]
        cpu = [mine.cpu_ms / theirs.cpu_ms for mine, theirs in zip(costs, base, strict=True)]
        print(
            f"{name:14}{median(cost.tokens_per_sec for cost in costs):>10.1f}{median(speed):>10.3f}"
            f"{median(cost.cpu_ms for cost in costs):>10.1f}{median(cpu):>10.3f}{min(cpu):>10.3f}{max(cpu):>10.3f}"
            f"{median(cost.log_bytes for cost in costs):>10,.0f}"
        )


if __name__ == "__main__":
    sys.exit(main())
