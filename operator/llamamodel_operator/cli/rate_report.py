"""Slots, queues and tokens per second of servers, as `status` and `top` show them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llamamodel_operator.cli.live import Look, NotReadable, Rates, Slot

__all__ = ["busy_slots", "deferred", "rate_text", "rates_json", "slots_of", "tokens_in_context"]


def rate_text(per_second: float) -> str:
    """With one decimal where it is small."""
    return f"{per_second:.1f}" if 0 < per_second < 99.95 else f"{per_second:,.0f}"


def rates_json(rates: Rates | None) -> dict[str, Any]:
    """Both null where nobody knows."""
    return {
        "promptTokensPerSecond": round(rates.prompt, 2) if rates else None,
        "generatedTokensPerSecond": round(rates.generation, 2) if rates else None,
    }


def slots_of(looks: Sequence[Look]) -> list[Slot]:
    """Those that can be seen."""
    return [slot for look in looks if not isinstance(look.slots, NotReadable) for slot in look.slots]


def busy_slots(looks: Sequence[Look]) -> str:
    slots = slots_of(looks)
    return f"{sum(slot.busy for slot in slots)}/{len(slots)}" if slots else "-"


def deferred(looks: Sequence[Look]) -> str:
    """Requests that wait for a slot."""
    known = [look.counters.deferred for look in looks if not isinstance(look.counters, NotReadable)]
    return str(sum(known)) if known else "-"


def tokens_in_context(looks: Sequence[Look]) -> str:
    """Those of busy slots, of as many as they may have."""
    slots = slots_of(looks)
    busy = [slot for slot in slots if slot.busy]
    if not slots:
        return "-"
    if not busy:
        return "0"
    if any(slot.tokens is None for slot in busy):
        return "-"
    return f"{sum(slot.tokens or 0 for slot in busy):,} of {sum(slot.context_size for slot in busy):,}"
