"""Prints how far estimates are from llama.cpp's own accounting, beside those of gguf-parser-go; exits 1 over a limit.

`uv run python hack/memory` prints a line for each model and setting, and a summary; `--summary` only that.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "operator"), str(ROOT / "tests")]

import click  # noqa: E402

from llamamodel_operator.core.engine.catalogues import shipped_catalogues  # noqa: E402
from llamamodel_operator.core.memory.arguments import settings_of  # noqa: E402
from llamamodel_operator.core.memory.estimate import Draft, MemoryEstimate, estimate_memory  # noqa: E402
from llamamodel_operator.core.memory.grouping import MemoryModel  # noqa: E402
from support.descriptions import Case, architecture_cases, gold_cases, gold_model, settings_cases  # noqa: E402

BUILD = 10434
"""That the reference figures are of."""


@dataclass(frozen=True, kw_only=True)
class Limit:
    """How large errors may be, as parts of the real bytes."""

    median: float
    most: float
    worst: float
    under: float = 1.0


EXACT = Limit(median=0, most=0, worst=0)
LIMITS: Mapping[str, Limit] = {
    "weights, GPUs": EXACT,
    "cache and state, GPUs": EXACT,
    "compute, GPUs": Limit(median=0.05, most=0.15, worst=0.15, under=0.10),
    "total, GPUs": Limit(median=0.005, most=0.02, worst=0.05),
    "total, host": Limit(median=0.05, most=0.05, worst=0.05),
}


@dataclass(frozen=True, kw_only=True)
class Row:
    """Errors of one case: more than 0 where the estimate is too high.

    Attributes:
        case: the setting.
        errors: of each device, by what they are of.
        peer: of the totals of the GPUs, by gguf-parser-go; None where it does not support the model.
    """

    case: Case
    errors: Mapping[str, Sequence[float]]
    peer: Sequence[float] | None


def main() -> int:
    """Exit status: 0 within all limits, 1 over one."""
    parser = argparse.ArgumentParser(prog="hack/memory", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--summary", action="store_true", help="leave out the line for each setting")
    other = parser.add_mutually_exclusive_group()
    other.add_argument("--architectures", action="store_true", help="the further architectures instead of the gold")
    other.add_argument("--settings", action="store_true", help="further models at drawn settings instead of the gold")
    arguments = parser.parse_args()
    cases = gold_cases()
    if arguments.architectures or arguments.settings:
        cases = architecture_cases() if arguments.architectures else settings_cases()
    unmeasured = arguments.architectures or arguments.settings
    rows = [row(case, peer) for case, peer in zip(cases, peers(len(cases), unmeasured), strict=True)]
    if not arguments.summary:
        for line in details(rows):
            click.echo(line)
        click.echo()
    for line in by_model(rows):
        click.echo(line)
    click.echo()
    return 0 if verdict(rows) else 1


def peers(number: int, none: bool) -> list[Mapping[str, Any]]:
    """What gguf-parser-go says about the same cases, in the same order."""
    if none:
        return [{"unsupported": "not measured"}] * number
    return list(json.loads((ROOT / "tests/gold/peer.json").read_text(encoding="utf-8")))


def row(case: Case, peer: Mapping[str, Any]) -> Row:
    """The errors of a case."""
    found, real = estimated(case), case.devices
    used = [index for index in range(len(found.gpus)) if f"gpu{index}" in real]
    gpus = [(found.gpus[index], real[f"gpu{index}"]) for index in used]
    host = found.host
    totals = {name: sum(figures[key] for key in ("model", "context", "compute")) for name, figures in real.items()}
    errors: dict[str, list[float]] = {
        "weights, GPUs": [error(gpu.weights, figures["model"]) for gpu, figures in gpus],
        "cache and state, GPUs": [error(g.kv_cache + g.recurrent_state, figures["context"]) for g, figures in gpus],
        "compute, GPUs": [error(gpu.compute, figures["compute"]) for gpu, figures in gpus],
        "total, GPUs": [error(found.gpus[index].total, totals[f"gpu{index}"]) for index in used],
        "total, host": [error(host.total - host.output - host.prompt_cache, totals["host"])],
    }
    theirs = None
    if "devices" in peer:
        # a GPU that llama.cpp leaves empty has no error in per cent
        theirs = [
            error(d["total"], totals[d["name"]])
            for d in peer["devices"]
            if d["name"] != "host" and totals.get(d["name"])
        ]
    return Row(case=case, errors=errors, peer=theirs)


def error(ours: int, real: int) -> float:
    """Part of the real bytes that the estimate is off."""
    return (ours - real) / real if real else float(ours != real)


@cache
def grouped(name: str) -> MemoryModel:
    return MemoryModel.of(gold_model(name))


def estimated(case: Case) -> MemoryEstimate:
    """As for the reference's devices, which take over no operations on the host's weights."""
    words = settings_of(case.args, catalogue=shipped_catalogues().get(BUILD))
    draft = None
    if words.draft is not None and words.files.draft is not None:
        draft = Draft(model=grouped(words.files.draft.removesuffix(".gguf")), settings=words.draft)
    return estimate_memory(
        grouped(case.model), settings=words.settings, gpus=case.gpus, draft=draft, offloads_operations=False
    )


# --- printing

HEADS = ("total, GPUs", "compute, GPUs", "total, host")


def details(rows: Iterable[Row]) -> Iterator[str]:
    """A line for each setting, with the largest error of its GPUs."""
    yield f"{'':78}{'total':>9}{'compute':>9}{'host':>9}{'peer':>9}"
    for one in rows:
        figures = [coloured(largest(one.errors[head]), head) for head in HEADS]
        yield f"{str(one.case)[:77]:78}" + "".join(figures) + peer_text(one.peer)


def by_model(rows: Sequence[Row]) -> Iterator[str]:
    """Median and worst of each model."""
    yield f"{'':34}{'total: median':>15}{'worst':>9}{'compute: median':>17}{'worst':>9}{'peer: median':>14}{'worst':>9}"
    for name in dict.fromkeys(one.case.model for one in rows):
        own = [one for one in rows if one.case.model == name]
        total = [value for one in own for value in one.errors["total, GPUs"]]
        compute = [value for one in own for value in one.errors["compute, GPUs"]]
        theirs = [value for one in own if one.peer is not None for value in one.peer]
        line = f"{name[:33]:34}{middle(total):>15.2%}" + coloured(largest(total), "total, GPUs")
        line += f"{middle(compute):>17.2%}" + coloured(largest(compute), "compute, GPUs")
        yield line + (f"{middle(theirs):>14.2%}{largest(theirs):>+9.1%}" if theirs else f"{'-':>14}{'-':>9}")


def verdict(rows: Sequence[Row]) -> bool:
    """Prints each limit with what was found; whether all hold."""
    good = True
    for what, limit in LIMITS.items():
        errors = sorted(abs(value) for one in rows for value in one.errors[what])
        under = max((-value for one in rows for value in one.errors[what] if value < 0), default=0.0)
        got = (middle(errors), errors[max(0, -(-len(errors) * 95 // 100) - 1)], errors[-1], under)
        holds = all(
            value <= most for value, most in zip(got, (limit.median, limit.most, limit.worst, limit.under), strict=True)
        )
        good = good and holds
        text = f"median {got[0]:.3%}, 95th percentile {got[1]:.3%}, worst {got[2]:.3%}, under by {got[3]:.3%} at most"
        click.echo(click.style(f"{'✓' if holds else '✗'} {what:22}", fg="green" if holds else "red") + f" {text}")
    theirs = sorted(abs(value) for one in rows for value in one.peer or ())
    if theirs:
        unsupported = sum(one.peer is None for one in rows)
        click.echo(
            f"  {'total, gguf-parser-go':22} median {middle(theirs):.3%}, 95th percentile"
            f" {theirs[len(theirs) * 95 // 100]:.3%}, worst {theirs[-1]:.3%}, {unsupported} cases unsupported"
        )
    return good


def coloured(value: float, what: str) -> str:
    limit = LIMITS[what]
    colour = "red" if abs(value) > limit.worst else "yellow" if abs(value) > limit.median else "green"
    return click.style(f"{value:>+9.2%}", fg=colour)


def peer_text(values: Sequence[float] | None) -> str:
    return f"{'-':>9}" if values is None else f"{largest(values):>+9.1%}"


def largest(values: Sequence[float]) -> float:
    """The one that is furthest from 0."""
    pick: Callable[[float], float] = abs
    return max(values, key=pick, default=0.0)


def middle(values: Sequence[float]) -> float:
    return median(map(abs, values)) if values else 0.0


if __name__ == "__main__":
    sys.exit(main())
