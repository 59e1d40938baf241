"""What GPUs take, as bars to scale."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from llamamodel_operator.cli.terminal import paint
from llamamodel_operator.core.memory.estimate import DeviceMemory

__all__ = ["bar", "bars", "share_text", "size_text"]

_MIB, _GIB = 1 << 20, 1 << 30
_BAR = 48
"""Characters of a bar."""

_SEGMENTS = (
    ("weights", "█", "info", ("weights", "adapters", "projector")),
    ("cache", "▓", "good", ("kv_cache", "recurrent_state")),
    ("compute", "▒", "warning", ("compute", "output")),
    ("overhead", "░", "dim", ("overhead",)),
)
"""Of a bar: what it is, its character, its colour, and what it adds up. They differ without colours too."""


def bars(gpus: Sequence[DeviceMemory], memory: Sequence[int | None]) -> str:
    """A line for each GPU, and what the segments mean.

    Args:
        memory: bytes that each has; None where that is not known.
    """
    full = max(gpu.total for gpu in gpus)
    lines = []
    for index, (gpu, has) in enumerate(zip(gpus, memory, strict=True)):
        drawn = bar(gpu, max(gpu.total, has) if has else full, width=_BAR, has=has)
        lines.append(f"GPU {index}  {drawn}  {share_text(gpu.total, has)}")
    legend = "  ".join(paint(f"{char} {name}", colour) for name, char, colour, _ in _SEGMENTS)
    return "\n".join([*lines, f"       {legend}"])


def share_text(total: int, has: int | None) -> str:
    """What is taken of what there is, and how much of it that is."""
    if has is None:
        return size_text(total)
    text = f"{size_text(total)} of {size_text(has)}, {_percent(total, has)}"
    return paint(text, "error", bold=True) if total > has else text


def _percent(total: int, has: int) -> str:
    return f"{-(-total * 100 // max(has, 1)):,} %"


def bar(gpu: DeviceMemory, full: int, *, width: int, has: int | None = None) -> str:
    """Segments to scale, `full` bytes wide, with a mark where the memory that there is ends, if that is inside."""
    mark = None if has is None or has >= full else min(width - 1, round(has * width / full))
    cells: list[tuple[str, str]] = []
    done = 0
    for _, char, colour, fields in _SEGMENTS:
        done += sum(int(getattr(gpu, field)) for field in fields)
        cells += [(char, colour)] * (min(width, round(done * width / max(full, 1))) - len(cells))
    cells += [("·", "dim")] * (width - len(cells))
    if mark is not None:
        cells[mark] = ("│", "error")
    groups = groupby(cells)
    return "".join(paint(char * len(list(group)), colour) for (char, colour), group in groups)


def size_text(size: int) -> str:
    """Bytes for people: rounded up, so that what is needed never looks less."""
    if not size:
        return "-"
    unit, name = (_GIB, "GiB") if size >= _GIB else (_MIB, "MiB")
    hundredths = -(-size * 100 // unit)
    return (
        f"{hundredths // 100:,}.{hundredths % 100:02d} {name}"
        if unit == _GIB
        else f"{-(-size * 10 // unit) / 10:,.1f} {name}"
    )
