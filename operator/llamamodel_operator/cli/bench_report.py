"""What `llamamodel bench` prints: a table, ratios where two were compared, whether both sides counted the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from llamamodel_operator.api.spec import Task
from llamamodel_operator.cli.bench_requests import Workload
from llamamodel_operator.cli.benching import Level
from llamamodel_operator.cli.live import NotReadable
from llamamodel_operator.cli.rate_report import rate_text
from llamamodel_operator.cli.terminal import clean, json_text, paint, table

__all__ = ["Measured", "bench_json", "bench_text", "disagree"]

_Figure = Callable[[Level], float]

_GENERATED: tuple[tuple[str, str, _Figure], ...] = (
    ("PROMPT T/S", "promptTokensPerSecond", lambda level: level.prompt_rate),
    ("GENERATION T/S", "generatedTokensPerSecond", lambda level: level.generation_rate),
    ("EACH T/S", "generatedTokensPerSecondEach", lambda level: level.each_rate),
    ("TOTAL T/S", "totalTokensPerSecond", lambda level: level.total_rate),
)
_ANSWERED: tuple[tuple[str, str, _Figure], ...] = (
    ("PROMPT T/S", "promptTokensPerSecond", lambda level: level.prompt_rate),
    ("REQUESTS/S", "requestsPerSecond", lambda level: level.request_rate),
)


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One model that was measured.

    Attributes:
        title: what differs.
        servers: names of those that were asked.
    """

    title: str
    servers: tuple[str, ...]
    levels: tuple[Level, ...]


def disagree(measured: Sequence[Measured]) -> bool:
    """Whether somebody counted wrong: both sides counted, differently, and nobody else was seen to ask."""
    return any(level.agrees is False and not level.strangers for one in measured for level in one.levels)


def bench_text(measured: Sequence[Measured], workload: Workload) -> str:
    """A line for each number of parallel requests and each model."""
    figures = _figures(workload)
    first = ["FIRST TOKEN", "95 %"] if workload.task is Task.GENERATE else ["ANSWER", "95 %"]
    heads = ["PARALLEL", "REQUESTS", *(head for head, _, _ in figures), *first]
    if len(measured) > 1:
        heads = ["PARALLEL", "MODEL", *heads[1:]]
    rows = []
    for levels in zip(*(one.levels for one in measured), strict=True):
        for index, (one, level) in enumerate(zip(measured, levels, strict=True)):
            row = [str(level.parallel) if index == 0 else "", str(len(level.done)), *_cells(level, figures)]
            rows.append(row if len(measured) == 1 else [row[0], clean(one.title), *row[1:]])
        if len(levels) == 2:
            rows.append(["", paint("ratio", "info"), "", *_ratios(levels[0], levels[1], figures)])
    return "\n".join([_head(workload), "", table(heads, rows), "", *_counts(measured), *_cut(measured, workload)])


def _head(workload: Workload) -> str:
    about = "about " if workload.task is Task.RERANK else ""
    text = f"{workload.task.value}: prompts of {about}{workload.prompt_tokens:,} tokens"
    if workload.task is Task.GENERATE:
        text += f", {workload.generate_tokens:,} tokens generated"
    return f"{text}, seed {workload.seed}"


def _figures(workload: Workload) -> tuple[tuple[str, str, _Figure], ...]:
    return _GENERATED if workload.task is Task.GENERATE else _ANSWERED


def _cells(level: Level, figures: Sequence[tuple[str, str, _Figure]]) -> list[str]:
    return [
        *(rate_text(figure(level)) for _, _, figure in figures),
        *(_seconds(level.first_token_sec(share)) for share in (0.5, 0.95)),
    ]


def _seconds(seconds: float) -> str:
    return f"{seconds * 1000:,.0f} ms" if seconds < 10 else f"{seconds:,.1f} s"


def _ratios(before: Level, after: Level, figures: Sequence[tuple[str, str, _Figure]]) -> Iterator[str]:
    """Of the second to the first."""
    pairs = [(figure(before), figure(after)) for _, _, figure in figures]
    pairs += [(before.first_token_sec(share), after.first_token_sec(share)) for share in (0.5, 0.95)]
    for old, new in pairs:
        yield f"{new / old:.2f}" if old > 0 else "-"


def _counts(measured: Sequence[Measured]) -> Iterator[str]:
    for one in measured:
        of = f"{clean(one.title)}: " if len(measured) > 1 else ""
        wrong = [level for level in one.levels if level.agrees is not True]
        if not wrong:
            prompt = sum(level.counts.prompt for level in one.levels)
            generated = sum(level.counts.generated for level in one.levels)
            yield f"{of}counts agree: {paint('yes', 'good')} ({prompt:,} prompt tokens, {generated:,} generated)"
        for level in wrong:
            at = f"{of}{level.parallel} parallel: " if len(one.levels) > 1 else of
            yield f"{at}counts agree: {_why(level)}"


def _cut(measured: Sequence[Measured], workload: Workload) -> Iterator[str]:
    """What ended before it should."""
    if workload.task is not Task.GENERATE:
        return
    for one in measured:
        done = [done for level in one.levels for done in level.done]
        if cut := sum(request.generated_tokens < workload.generate_tokens for request in done):
            of = f"{clean(one.title)}: " if len(measured) > 1 else ""
            yield f"{of}{cut} of {len(done)} requests generated less than they were asked for"


def _why(level: Level) -> str:
    if isinstance(level.server_counts, NotReadable):
        return f"not known, {clean(level.server_counts.why)}"
    more = level.server_counts - level.counts
    text = (
        f"{paint('no', 'error')}, the server counted {more.prompt:+,} prompt tokens and {more.generated:+,} generated"
    )
    return f"{text}; it had requests of others too" if level.strangers else text


def bench_json(measured: Sequence[Measured], workload: Workload) -> str:
    """One object; of two models that were compared, the first is the one as it is."""
    return json_text(
        {
            "task": workload.task.value,
            "promptTokens": workload.prompt_tokens,
            "generateTokens": workload.generate_tokens if workload.task is Task.GENERATE else 0,
            "seed": workload.seed,
            "models": [
                {
                    "title": one.title,
                    "servers": list(one.servers),
                    "levels": [_level_json(level, _figures(workload)) for level in one.levels],
                }
                for one in measured
            ],
        }
    )


def _level_json(level: Level, figures: Sequence[tuple[str, str, _Figure]]) -> dict[str, Any]:
    theirs = None if isinstance(level.server_counts, NotReadable) else level.server_counts
    return {
        "parallel": level.parallel,
        "requests": len(level.done),
        "seconds": round(level.seconds, 4),
        **{name: round(figure(level), 3) for _, name, figure in figures},
        "firstTokenSeconds": {
            "p50": round(level.first_token_sec(0.5), 5),
            "p95": round(level.first_token_sec(0.95), 5),
        },
        "counted": {"prompt": level.counts.prompt, "generated": level.counts.generated},
        "serverCounted": theirs and {"prompt": theirs.prompt, "generated": theirs.generated},
        "countsAgree": level.agrees,
        "countsNotReadable": level.server_counts.why if isinstance(level.server_counts, NotReadable) else None,
        "otherTraffic": level.strangers,
    }
