"""Steady requests against one llama-server for half an hour: every one answered, and memory that does not grow.

`uv run python hack/bench/soak.py` (or `make soak`); exits 1 where a request fails or memory grows.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import linear_regression, median
from typing import Any

from serverbench.server import Server, fetched_model, fetched_server, rendered, started

_SPEC: dict[str, Any] = {
    "engine": {"contextSize": 2048, "parallelSlots": 2, "threads": 2, "promptCacheSize": "16Mi"},
}
"""A small prompt cache: it is full, and has stopped to grow, long before the measurement begins."""
_CLIENTS = 3
"""One more than there are slots, so that one always waits."""
_SAMPLE_SEC = 1.0
_WARM_UP_SHARE = 1 / 3
"""Of the time; what is measured comes after it."""
_BOUND_SHARE = 0.05
_BOUND_MIB = 16.0
"""Memory may grow by the larger of the two over the measured time: a share of what it was, or so much."""
_SUBJECTS = ("a cat", "the sea", "a machine", "two friends", "the year 1900", "a proof", "music", "bread")


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Seconds since the beginning; memory in MiB (`anonymous` without the mapped file); tokens in slots."""

    time: float
    resident: float
    anonymous: float
    slots_used: float


@dataclass(kw_only=True)
class Tally:
    """What came of the requests."""

    answered: Counter[str] = field(default_factory=Counter)
    tokens: int = 0
    problems: list[str] = field(default_factory=list)


def main() -> int:
    """Exit status: 0 all was answered and memory is stable, 1 not."""
    parser = argparse.ArgumentParser(prog="hack/bench/soak.py", description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=30.0, metavar="N")
    seconds = parser.parse_args().minutes * 60
    model = fetched_model()
    tally, stop = Tally(), threading.Event()
    with started(fetched_server(), rendered(model, **_SPEC)) as server:
        clients = [threading.Thread(target=_ask, args=(server, number, tally, stop)) for number in range(_CLIENTS)]
        for client in clients:
            client.start()
        try:
            samples = _watch(server, seconds, tally)
        finally:
            stop.set()
            for client in clients:
                client.join()
    return _report(samples, tally, seconds=seconds)


def _ask(server: Server, client: int, tally: Tally, stop: threading.Event) -> None:
    """One request after the other: short and long, text and chat, new and repeated prompts."""
    for number in itertools.count():
        if stop.is_set() or tally.problems:
            return
        subject = _SUBJECTS[(number * 5 + client) % len(_SUBJECTS)]
        tokens = (8, 32, 96)[number % 3]
        try:
            if number % 2:
                messages = [{"role": "user", "content": f"Tell me about {subject}, part {number % 40}."}]
                kind, body = "chat", {"messages": messages}
                answer = server.ask("/v1/chat/completions", **body, max_tokens=tokens, seed=number)
            else:
                prompt = f"Notes on {subject}, page {number % 40}. " * (1 + number % 20)
                kind = "text"
                answer = server.ask("/v1/completions", prompt=prompt, max_tokens=tokens, seed=number)
        except (OSError, ValueError, SystemExit) as error:
            tally.problems.append(f"request {number} of client {client}: {error or type(error).__name__}")
            return
        tally.answered[kind] += 1
        tally.tokens += answer["usage"]["completion_tokens"]


def _watch(server: Server, seconds: float, tally: Tally) -> list[Sample]:
    begun, samples = time.monotonic(), list[Sample]()
    while (now := time.monotonic() - begun) < seconds and not tally.problems:
        memory = _memory(server.pid)
        slots = server.ask("/slots") if len(samples) % 10 == 0 else []
        used = max((_share_used(slot) for slot in slots), default=0.0)
        samples.append(Sample(time=now, resident=memory["VmRSS"], anonymous=memory["RssAnon"], slots_used=used))
        if len(samples) % 15 == 0:
            count = sum(tally.answered.values())
            print(f"  {now:.0f} s: {count} answers, {memory['RssAnon']:.0f} MiB", end="\r", file=sys.stderr, flush=True)
        time.sleep(_SAMPLE_SEC)
    return samples


def _share_used(slot: dict[str, Any]) -> float:
    """`n_prompt_tokens` counts what was generated as well."""
    return int(slot.get("n_prompt_tokens", 0)) / int(slot["n_ctx"])


def _memory(pid: int) -> dict[str, float]:
    """Of /proc/PID/status, in MiB."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    fields = {name: value.split() for name, _, value in (line.partition(":") for line in lines)}
    return {name: int(fields[name][0]) / 1024 for name in ("VmRSS", "RssAnon")}


def _report(samples: Sequence[Sample], tally: Tally, *, seconds: float) -> int:
    measured = [sample for sample in samples if sample.time >= seconds * _WARM_UP_SHARE]
    answers = sum(tally.answered.values())
    print(f"{answers} answers ({tally.answered['text']} text, {tally.answered['chat']} chat), {tally.tokens} tokens")
    for problem in tally.problems:
        print(f"✗ {problem}")
    if len(measured) < 10 or not answers:
        print("✗ too short to say anything about memory: give more --minutes")
        return 1
    line = linear_regression([sample.time for sample in measured], [sample.anonymous for sample in measured])
    span = measured[-1].time - measured[0].time
    first, growth = line.intercept + line.slope * measured[0].time, line.slope * span
    bound = max(_BOUND_MIB, _BOUND_SHARE * first)
    quarter = max(len(measured) // 4, 1)
    begin, end = (median(s.anonymous for s in part) for part in (measured[:quarter], measured[-quarter:]))
    print(f"memory without the mapped file: {begin:.1f} MiB in the first quarter, {end:.1f} MiB in the last (medians)")
    print(f"resident in all: at most {max(sample.resident for sample in samples):.1f} MiB")
    print(f"context of a slot used: at most {max(sample.slots_used for sample in samples):.0%}")
    met = growth <= bound and not tally.problems
    print(
        f"{'✓' if met else '✗'} grows by at most {bound:.1f} MiB in {span:.0f} s (line of best fit): {growth:+.1f} MiB"
    )
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
