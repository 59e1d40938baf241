"""The section of `docs/benchmarks.md` that this benchmark renews; the rest of the page is left as it is."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from .errors import BenchError
from .machine import Machine
from .results import Result
from .table import idle_sentence, load, machine_rows, rows

__all__ = ["report_problem", "write_report"]

_BEGIN = "<!-- reconcile: begin, written by hack/bench/reconcile.py --report -->"
_END = "<!-- reconcile: end -->"


def report_problem(path: Path) -> str | None:
    """Why the section cannot be renewed; asked before minutes are spent on measuring."""
    try:
        _split(path)
    except BenchError as error:
        return str(error)
    return None


def write_report(path: Path, *, result: Result, machine: Machine) -> None:
    """Raises BenchError where the page has no such section."""
    before, after = _split(path)
    section = "\n".join(_lines(result, machine))
    path.write_text(f"{before}{_BEGIN}\n{section}\n{_END}{after}")


def _split(path: Path) -> tuple[str, str]:
    try:
        before, _, rest = path.read_text().partition(_BEGIN)
    except OSError as error:
        raise BenchError(f"the report cannot be read: {error}") from None
    _, end, after = rest.partition(_END)
    if not end:
        raise BenchError(f"{path} has no section between '{_BEGIN}' and '{_END}'")
    return before, after


def _lines(result: Result, machine: Machine) -> Iterable[str]:
    yield ""
    for name, value in (*machine_rows(machine), ("Load", load(result))):
        yield f"- {name}: {value}"
    yield ""
    heading, *body = rows(result)
    yield f"| {' | '.join(heading)} |"
    yield f"|---|{'---:|' * (len(heading) - 1)}"
    for row in body:
        yield f"| {' | '.join(row)} |"
    yield ""
    yield idle_sentence(result)
    yield ""
    yield "| aim | found | met |"
    yield "|---|---|---|"
    for aim in result.aims():
        yield f"| {aim.text} | {aim.found} | {'✓' if aim.met else '✗'} |"
    yield ""
