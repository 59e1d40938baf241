"""What `llamamodel top` prints: a table, or JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from llamamodel_operator.cli.observing import Observation
from llamamodel_operator.cli.rate_report import busy_slots, deferred, rate_text, rates_json, slots_of
from llamamodel_operator.cli.terminal import clean, json_text, paint, table

__all__ = ["top_json", "top_text"]

_COLOURS = {"Ready": "good", "Failed": "error", "Suspended": "dim"}


def top_text(seen: Sequence[Observation], *, namespaces: bool) -> str:
    """A line for each model; the busiest first."""
    if not seen:
        return "no LlamaModels"
    heads = ["NAME", "PHASE", "READY", "PROMPT T/S", "GENERATION T/S", "BUSY SLOTS", "WAITING", "MEMORY"]
    rows = [_row(one) for one in sorted(seen, key=_order)]
    if namespaces:
        heads = ["NAMESPACE", *heads]
        rows = [[clean(one.model["metadata"]["namespace"]), *_row(one)] for one in sorted(seen, key=_order)]
    return table(heads, rows)


def _order(seen: Observation) -> tuple[float, str, str]:
    metadata = seen.model["metadata"]
    return (-seen.rates.generation if seen.rates else 0.0, metadata["namespace"], metadata["name"])


def _row(seen: Observation) -> list[str]:
    status = _status(seen)
    phase = clean(str(status.get("phase") or "-"))
    return [
        clean(seen.model["metadata"]["name"]),
        paint(phase, _COLOURS.get(phase, "warning")),
        f"{status.get('readyReplicas', 0)}/{_wanted(seen)}",
        rate_text(seen.rates.prompt) if seen.rates else "-",
        rate_text(seen.rates.generation) if seen.rates else "-",
        busy_slots(seen.looks),
        deferred(seen.looks),
        clean(str((status.get("memory") or {}).get("summary") or "-")),
    ]


def _status(seen: Observation) -> Mapping[str, Any]:
    return seen.model.get("status") or {}


def _wanted(seen: Observation) -> int:
    spec = seen.model.get("spec") or {}
    return 0 if spec.get("suspend") else int(spec.get("replicas", 1))


def top_json(seen: Sequence[Observation]) -> str:
    """One object with a list of models; what is not known is null."""
    return json_text({"models": [_json(one) for one in sorted(seen, key=_order)]})


def _json(seen: Observation) -> dict[str, Any]:
    metadata, status, slots = seen.model["metadata"], _status(seen), slots_of(seen.looks)
    waiting = deferred(seen.looks)
    return {
        "name": metadata["name"],
        "namespace": metadata["namespace"],
        "phase": status.get("phase"),
        "ready": seen.ready,
        "readyReplicas": status.get("readyReplicas", 0),
        "replicas": _wanted(seen),
        **rates_json(seen.rates),
        "busySlots": sum(slot.busy for slot in slots) if slots else None,
        "slots": len(slots) or None,
        "requestsDeferred": None if waiting == "-" else int(waiting),
        "memory": (status.get("memory") or {}).get("summary"),
    }
