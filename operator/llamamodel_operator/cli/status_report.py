"""What `llamamodel status` prints for people: one screen."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from llamamodel_operator.api.amounts import parse_quantity
from llamamodel_operator.cli.live import Look, NotReadable
from llamamodel_operator.cli.memory_bars import bars, size_text
from llamamodel_operator.cli.observing import Observation
from llamamodel_operator.cli.pods import container_of, image_of, is_ready, state_of
from llamamodel_operator.cli.rate_report import busy_slots, deferred, rate_text, tokens_in_context
from llamamodel_operator.cli.terminal import clean, paint, shown_age, table
from llamamodel_operator.core.memory.estimate import DeviceMemory
from llamamodel_operator.core.times import parse_time

__all__ = ["status_text"]

_MOST_PODS = 20
_COMMAND_LENGTH = 300
"""Characters of it that are shown."""
_COLOURS = {"Ready": "good", "Failed": "error", "Suspended": "dim"}
_DEVICE = (
    ("weights", "weights"),
    ("kv_cache", "kvCache"),
    ("recurrent_state", "recurrentState"),
    ("compute", "compute"),
    ("adapters", "adapters"),
    ("projector", "projector"),
    ("overhead", "overhead"),
)


def status_text(seen: Observation, *, now: datetime, width: int) -> str:
    """All that is known of one LlamaModel; `width` is that of the terminal, in characters."""
    status = seen.model.get("status") or {}
    blocks = [
        _head(seen, status),
        _conditions(seen.model, status, now, width),
        _pods(seen, now),
        _memory(status.get("memory") or {}),
        _findings(status.get("findings") or ()),
        _failure(status.get("lastFailure") or {}, now),
        _live(seen),
        _facts(status),
    ]
    return "\n\n".join(block for block in blocks if block)


def _head(seen: Observation, status: Mapping[str, Any]) -> str:
    metadata, phase = seen.model["metadata"], str(status.get("phase") or "not seen by the operator yet")
    replicas = (seen.model.get("spec") or {}).get("replicas", 1)
    name = paint(clean(f"{metadata['namespace']}/{metadata['name']}"), "good", bold=True)
    word = paint(clean(phase), _COLOURS.get(phase, "warning"), bold=True)
    lines = [f"{name}  {word}, {status.get('readyReplicas', 0)} of {replicas} ready"]
    if model := status.get("model"):
        parts = [model.get("summary"), size_text(_whole(model.get("sizeBytes"))), _count(model.get("files"), "file")]
        if model.get("layers"):
            parts.append(f"{model['layers']} layers")
        if model.get("contextLength"):
            parts.append(f"trained with {_whole(model['contextLength']):,} tokens of context")
        lines.append(clean(", ".join(str(part) for part in parts if part)))
    return "\n".join(lines)


def _conditions(model: Mapping[str, Any], status: Mapping[str, Any], now: datetime, width: int) -> str:
    conditions = status.get("conditions") or []
    if not conditions:
        return ""
    generation = model["metadata"].get("generation", 0)
    rows = []
    for condition in conditions:
        kind, word = str(condition.get("type")), str(condition.get("status"))
        stale = condition.get("observedGeneration", 0) < generation
        message = clean(str(condition.get("message") or ""))
        if stale:
            message = f"(of generation {condition.get('observedGeneration', 0)}, now {generation}) {message}"
        colour = "dim" if stale or word == "Unknown" else _condition_colour(kind, word)
        rows.append(
            [
                clean(kind),
                paint(clean(word), colour),
                clean(str(condition.get("reason"))),
                _since(condition, now),
                message,
            ]
        )
    heads = ["CONDITION", "STATUS", "REASON", "SINCE", "MESSAGE"]
    return _wrapped(heads, rows, width)


def _condition_colour(kind: str, word: str) -> str:
    if kind == "Progressing":
        return "info"
    return "good" if word == "True" else "error"


def _wrapped(heads: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> str:
    """A table whose last column is wrapped inside of itself."""
    before = table(heads[:-1], [row[:-1] for row in rows]).split("\n")
    indent = max(len(re.sub("\x1b\\[[0-9;]*m", "", line)) for line in before) + 2
    lines = []
    for line, text in zip(before, (heads[-1], *(row[-1] for row in rows)), strict=True):
        visible = len(re.sub("\x1b\\[[0-9;]*m", "", line))
        first, *more = textwrap.wrap(text, max(width - indent, 40)) or [""]
        lines.append((line + " " * (indent - visible) + first).rstrip())
        lines += [" " * indent + rest for rest in more]
    return "\n".join(lines)


def _since(condition: Mapping[str, Any], now: datetime) -> str:
    return _age(condition.get("lastTransitionTime"), now)


def _age(time: object, now: datetime) -> str:
    try:
        return shown_age((now - parse_time(str(time))).total_seconds())
    except (TypeError, ValueError):
        return "-"


def _pods(seen: Observation, now: datetime) -> str:
    if isinstance(seen.pods, NotReadable):
        return f"pods not readable: {clean(seen.pods.why)}"
    if not seen.pods:
        return "no pods"
    rows = [
        [
            clean(pod["metadata"]["name"]),
            clean((pod.get("spec") or {}).get("nodeName") or "-"),
            paint("yes", "good") if is_ready(pod) else paint("no", "warning"),
            clean(state_of(pod)),
            str(container_of(pod).get("restartCount") or 0),
            _age(pod["metadata"].get("creationTimestamp"), now),
            clean(image_of(pod)),
        ]
        for pod in seen.pods[:_MOST_PODS]
    ]
    text = table(["POD", "NODE", "READY", "STATE", "RESTARTS", "AGE", "IMAGE"], rows)
    more = len(seen.pods) - _MOST_PODS
    return f"{text}\nand {more} more" if more > 0 else text


def _memory(memory: Mapping[str, Any]) -> str:
    if not memory:
        return ""
    gpus = [_device(gpu) for gpu in memory.get("gpus") or ()]
    lines = []
    if gpus:
        has = [_bytes(gpu.get("available")) or None for gpu in memory["gpus"]]
        lines.append(bars(gpus, has))
    host = memory.get("host") or {}
    told = [f"host {size_text(_bytes(host.get('total')))}"]
    told.append(f"context of {_whole(memory.get('contextSize')):,} tokens")
    if memory.get("maxContextSize"):
        told.append(f"{_whole(memory['maxContextSize']):,} would fit")
    lines.append(f"estimate: {', '.join(told)}")
    if measured := memory.get("measured"):
        sizes = [f"GPU {index} {size_text(_bytes(size))}" for index, size in enumerate(measured.get("gpus") or ())]
        sizes += [f"host {size_text(_bytes(measured['host']))}"] if measured.get("host") else []
        lines.append(f"measured: {', '.join(sizes)}")
    lines += [f"uncertain: {clean(str(why))}" for why in memory.get("uncertain") or ()]
    return "\n".join(lines)


def _device(raw: Mapping[str, Any]) -> DeviceMemory:
    return DeviceMemory(**{field: _bytes(raw.get(name)) for field, name in _DEVICE})


def _bytes(quantity: object) -> int:
    """0 where it is none."""
    try:
        return int(parse_quantity(str(quantity)))
    except ValueError:
        return 0


def _whole(value: object) -> int:
    return value if isinstance(value, int) else 0


def _count(number: object, word: str) -> str:
    return "" if not number else f"{number} {word}{'' if number == 1 else 's'}"


def _findings(findings: Sequence[Mapping[str, Any]]) -> str:
    words = {"error": "error", "warning": "warning", "info": "note"}
    lines = []
    for finding in findings:
        severity = str(finding.get("severity"))
        word = paint(f"{words.get(severity, 'note'):7}", severity if severity in words else "info")
        code = paint(f"[{clean(str(finding.get('code')))}]", "dim")
        lines.append(f"{word}  {clean(str(finding.get('field')))}: {clean(str(finding.get('message')))} {code}")
        if finding.get("suggestion"):
            lines.append(f"         {clean(str(finding['suggestion']))}")
    return "\n".join(lines)


def _failure(failure: Mapping[str, Any], now: datetime) -> str:
    """Every field that there is: a newer operator may say more than is known here."""
    if not failure:
        return ""
    title = f"last failure: {clean(str(failure.get('reason')))}"
    if "exitCode" in failure:
        title += f", exit code {failure['exitCode']}"
    lines = [f"{paint(title, 'error')}, {_age(failure.get('time'), now)} ago"]
    said = str(failure.get("message") or "").splitlines()
    lines += [f"  {clean(line)}" for line in said if line.strip()]
    shown = ("reason", "exitCode", "time", "message")
    for field, value in failure.items():
        if field not in shown and str(value).strip() and str(value) not in said:
            lines.append(f"  {_words(field)}: {clean(str(value))}")
    return "\n".join(lines)


def _words(field: str) -> str:
    """`logLine` as "log line"."""
    return clean(re.sub("([A-Z])", r" \1", field).lower())


def _facts(status: Mapping[str, Any]) -> str:
    lines = []
    if status.get("endpoint"):
        model = f", model {status['servedModelName']}" if status.get("servedModelName") else ""
        lines.append(f"endpoint  {clean(str(status['endpoint']) + model)}")
    if status.get("command"):
        text = clean(" ".join(map(str, status["command"])))
        lines.append(f"command   {textwrap.shorten(text, _COMMAND_LENGTH, placeholder=' …')}")
    return "\n".join(lines)


def _live(seen: Observation) -> str:
    if not seen.looks:
        return ""
    rows = [
        [
            clean(look.server),
            _text_of(look.build),
            busy_slots([look]),
            tokens_in_context([look]),
            "-" if isinstance(look.counters, NotReadable) else str(look.counters.processing),
            deferred([look]),
        ]
        for look in seen.looks[:_MOST_PODS]
    ]
    heads = ["SERVER", "BUILD", "BUSY SLOTS", "TOKENS IN CONTEXT", "PROCESSING", "WAITING"]
    text = [table(heads, rows)]
    if seen.rates:
        text.append(
            f"prompts {rate_text(seen.rates.prompt)} tokens/s, generation {rate_text(seen.rates.generation)} tokens/s"
        )
    text += _unread(seen.looks)
    return "\n".join(text)


def _text_of(value: str | NotReadable) -> str:
    return "-" if isinstance(value, NotReadable) else clean(value)[:40]


def _unread(looks: Sequence[Look]) -> Iterator[str]:
    """A line for each thing that could not be read and why, with the servers that it holds for."""
    why: dict[tuple[str, str], list[str]] = {}
    for look in looks:
        for what, value in (("build", look.build), ("slots", look.slots), ("metrics", look.counters)):
            if isinstance(value, NotReadable):
                why.setdefault((what, value.why), []).append(look.server)
    for (what, reason), servers in why.items():
        of = "" if len(servers) == len(looks) else f" of {', '.join(map(clean, servers[:3]))}"
        yield paint(f"{what}{of} not readable: {clean(reason)}", "dim")
