"""What `llamamodel estimate` prints: tables with a bar for each GPU, sweeps, JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal

from llamamodel_operator.cli.estimating import Estimated, Point
from llamamodel_operator.cli.memory_bars import bar, bars, share_text, size_text
from llamamodel_operator.cli.terminal import clean, json_text, paint, table
from llamamodel_operator.core.memory.advice import Change
from llamamodel_operator.core.memory.estimate import DeviceMemory, MemoryEstimate

__all__ = ["estimate_json", "estimate_text", "sweep_text"]

Setting = Literal["context", "parallel"]

_SWEPT_BAR = 32

_ROWS = (
    ("weights", "weights"),
    ("KV cache", "kv_cache"),
    ("recurrent state", "recurrent_state"),
    ("compute buffers", "compute"),
    ("output buffer", "output"),
    ("LoRA adapters", "adapters"),
    ("projector", "projector"),
    ("driver overhead", "overhead"),
    ("prompt cache", "prompt_cache"),
)
_NAMES = (
    ("weightsBytes", "weights"),
    ("kvCacheBytes", "kv_cache"),
    ("recurrentStateBytes", "recurrent_state"),
    ("computeBytes", "compute"),
    ("outputBytes", "output"),
    ("adapterBytes", "adapters"),
    ("projectorBytes", "projector"),
    ("overheadBytes", "overhead"),
)


def estimate_json(found: Estimated, points: Sequence[Point] = (), *, setting: Setting | None = None) -> str:
    """One object; figures are bytes."""
    document: dict[str, Any] = _devices(found.estimate, found.memory) | {
        "draft": _devices(found.draft, None) if found.draft else None,
        "fits": found.fits,
        "maxContextSize": found.max_context_size,
        "uncertain": found.uncertain,
        "contextSize": found.estimate.context_size,
        "slotContextSize": found.estimate.slot_context_size,
        "slots": found.estimate.slots,
        "gpuLayers": found.estimate.gpu_layers,
        "layers": found.estimate.layers,
        "changes": [_change(change) for change in found.changes],
        "findings": [finding.to_wire() for finding in found.findings],
    }
    if setting is not None:
        document["sweep"] = {
            "setting": setting,
            "points": [{"value": point.value, "fits": point.fits} | _devices(point.estimate, None) for point in points],
        }
    return json_text(document)


def _devices(estimate: MemoryEstimate, memory: Sequence[int] | None) -> dict[str, Any]:
    gpus = [_device(gpu) for gpu in estimate.gpus]
    for gpu, size in zip(gpus, memory or (), strict=False):
        gpu["availableBytes"] = size
    return {"gpus": gpus, "host": _device(estimate.host, host=True)}


def _device(device: DeviceMemory, *, host: bool = False) -> dict[str, int]:
    figures = {name: int(getattr(device, field)) for name, field in _NAMES}
    if host:
        figures["promptCacheBytes"] = device.prompt_cache
    return figures | {"totalBytes": device.total}


def _change(change: Change) -> dict[str, Any]:
    return {
        "change": change.kind.value,
        "arguments": list(change.flags),
        "fields": dict(change.fields),
        "gpuTotalBytes": [gpu.total for gpu in change.estimate.gpus],
    }


def estimate_text(found: Estimated) -> str:
    """What is loaded, a table of devices, a bar for each GPU, the verdict, what would fit, findings."""
    gpus = found.estimate.gpus
    drawn = [bars(gpus, found.memory or [None] * len(gpus))] if gpus else []
    blocks = [_head(found), _table(found), *drawn, _verdict(found)]
    if found.changes:
        blocks.append("\n".join(_advice(found)))
    if found.findings:
        blocks.append("\n".join(_findings(found)))
    return "\n\n".join(blocks)


def _head(found: Estimated) -> str:
    estimate, metadata = found.estimate, found.load.model.metadata
    name = clean(str(metadata.get("general.name", "")))[:80] or clean(found.load.model.parts[0].name)[:80]
    architecture = clean(str(metadata.get("general.architecture", "")))[:40]
    size = sum(part.size for part in found.load.model.parts)
    number = len(found.load.model.parts)
    files = f"{number} file{'' if number == 1 else 's'}"
    slots = f"{estimate.slots} slots" if estimate.slots != 1 else "1 slot"
    shared = "" if estimate.slots == 1 else f" of {estimate.slot_context_size:,}"
    if estimate.slots > 1 and estimate.slot_context_size >= estimate.context_size:
        shared = " that share it"
    gpus = len(estimate.gpus)
    where = f"{estimate.gpu_layers} of {estimate.layers + 1} layers on {gpus} GPU{'' if gpus == 1 else 's'}"
    return "\n".join(
        [
            f"{paint(name, 'good', bold=True)}  {architecture}, {size_text(size)} in {files}",
            f"context of {estimate.context_size:,} tokens, {slots}{shared}; {where if gpus else 'no GPU'}",
        ]
    )


def _table(found: Estimated) -> str:
    devices = [*found.estimate.gpus, found.estimate.host]
    heads = ["", *(f"GPU {index}" for index in range(len(devices) - 1)), "host"]
    rows = [
        [label, *(size_text(getattr(device, field)) for device in devices)]
        for label, field in _ROWS
        if any(getattr(device, field) for device in devices)
    ]
    rows.append(["total", *(size_text(device.total) for device in devices)])
    if found.memory and found.estimate.gpus:
        rows.append(["available", *(size_text(size) for size in found.memory), ""])
    widths = [max(len(line[column]) for line in (heads, *rows)) for column in range(1, len(heads))]
    aligned = [
        [line[0], *(cell.rjust(width) for cell, width in zip(line[1:], widths, strict=True))] for line in (heads, *rows)
    ]
    return table(aligned[0], aligned[1:])


def _verdict(found: Estimated) -> str:
    if found.fits is None:
        if not found.estimate.gpus:
            return f"Without a GPU it takes {size_text(found.estimate.host.total)} of the host's memory."
        return "Whether it fits is not known: give --gpu-memory, such as --gpu-memory 24Gi."
    largest = found.max_context_size or 0
    most = f"the largest context that fits is {largest:,}" if largest else "no context is small enough"
    word = paint("It fits", "good", bold=True) if found.fits else paint("It does not fit", "error", bold=True)
    return f"{word}; {most}."


def _advice(found: Estimated) -> Iterator[str]:
    yield "It would fit with"
    rows = []
    for change in found.changes:
        fields = ", ".join(f"{path}: {_value(value)}" for path, value in change.fields.items())
        most = max((gpu.total for gpu in change.estimate.gpus), default=0)
        rows.append((f"  {fields}", " ".join(change.flags), f"{size_text(most)} on the fullest GPU"))
    yield table(("  spec", "llama-server", ""), rows)


def _value(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _findings(found: Estimated) -> Iterator[str]:
    from llamamodel_operator.api.findings import Severity, sentence

    words = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.INFO: "note"}
    for finding in found.findings:
        yield f"{paint(f'{words[finding.severity]:7}', finding.severity.value)}  {clean(sentence(finding))}"


def sweep_text(found: Estimated, points: Sequence[Point], *, setting: Setting) -> str:
    """A line for each value, with a bar of the fullest GPU (of the host without one), and a rule where it ends."""
    most = max((_fullest(found, point)[0].total for point in points), default=1)
    lines: list[str] = []
    width = max(len(f"{point.value:,}") for point in points)
    ended = False
    for point in points:
        if point.fits is False and not ended:
            ended = True
            lines.append(paint(_rule(found, width, setting), "error"))
        fullest, size = _fullest(found, point)
        drawn = bar(fullest, max(most, size or 0), width=_SWEPT_BAR, has=size)
        lines.append(f"{point.value:>{width},}  {drawn}  {share_text(fullest.total, size)}")
    head = {"context": "context (all slots together)", "parallel": "slots"}[setting]
    where = "the fullest GPU" if found.estimate.gpus else "the host"
    return "\n".join([f"{head}, {where}", *lines])


def _rule(found: Estimated, width: int, setting: Setting) -> str:
    text = "does not fit from here on"
    if setting == "context" and found.max_context_size:
        text = f"{found.max_context_size:,} is the largest that fits"
    return "─" * (width + 2) + f" {text} " + "─" * max(0, _SWEPT_BAR - len(text))


def _fullest(found: Estimated, point: Point) -> tuple[DeviceMemory, int | None]:
    gpus = point.estimate.gpus
    if not gpus:
        return point.estimate.host, None
    if not found.memory:
        return max(gpus, key=lambda gpu: gpu.total), None
    return max(zip(gpus, found.memory, strict=True), key=lambda pair: pair[0].total / pair[1])
