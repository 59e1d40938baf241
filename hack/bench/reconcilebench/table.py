"""The result as rows of text, for the terminal and for the report."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Sequence
from statistics import median
from typing import TypeAlias

from .machine import Machine
from .results import NEEDED, Result, Round

__all__ = ["idle_sentence", "load", "machine_rows", "print_table", "rows"]

Row: TypeAlias = tuple[str, ...]
_Reader: TypeAlias = Callable[[Round], float]

_CPU = (
    ("kube-apiserver", "kube-apiserver"),
    ("etcd", "etcd"),
    ("operator", "operator"),
    ("benchmark", "the benchmark itself"),
    ("others", "other processes"),
)


def rows(result: Result) -> Sequence[Row]:
    """A heading, then a row per quantity: its name, each round, the median."""
    heading = ("", *(f"round {number}" for number in range(1, len(result.rounds) + 1)), "median")
    return (heading, *(_row(result, name, read, shown) for name, read, shown in _quantities(result)))


def _row(result: Result, name: str, read: _Reader, shown: str) -> Row:
    values = [read(each) for each in result.rounds]
    return (name, *(shown.format(value) for value in (*values, median(values))))


def _quantities(result: Result) -> Iterable[tuple[str, _Reader, str]]:
    models = result.models
    yield "floor, total time", lambda r: r.floor.seconds, "{:.2f} s"
    yield "operator, total time", lambda r: r.operator.seconds, "{:.2f} s"
    yield "ratio", lambda r: r.ratio, "{:.2f}"
    yield "create to Deployment, p50, floor", lambda r: r.floor.deployment_p50_sec, "{:.3f} s"
    yield "create to Deployment, p50, operator", lambda r: r.operator.deployment_p50_sec, "{:.3f} s"
    yield "create to Deployment, p99, floor", lambda r: r.floor.deployment_p99_sec, "{:.3f} s"
    yield "create to Deployment, p99, operator", lambda r: r.operator.deployment_p99_sec, "{:.3f} s"
    for key, kind in NEEDED.items():
        yield f"{kind} writes per model ({key[1]})", _writes_per_model(key, models), "{:g}"
    yield (
        "other writes, all models",
        lambda r: sum(number for key, number in r.operator.writes.items() if key not in NEEDED),
        "{:g}",
    )
    yield "failed writes, all models", lambda r: r.operator.failed_writes, "{:g}"
    yield "passes per model", lambda r: r.operator.passes / models, "{:g}"
    yield "operator, peak RSS", lambda r: r.operator.peak_rss_bytes / 1e6, "{:.1f} MB"
    yield "operator, RSS when done", lambda r: r.operator.end_rss_bytes / 1e6, "{:.1f} MB"
    for name, shown in _CPU:
        if name != "operator":
            yield f"CPU of {shown}, floor", _floor_cpu(name), "{:.2f} s"
        yield f"CPU of {shown}, operator", _operator_cpu(name), "{:.2f} s"
    yield "CPU without other processes, floor", lambda r: r.floor.own_cpu_sec, "{:.2f} s"
    yield "CPU without other processes, operator", lambda r: r.operator.own_cpu_sec, "{:.2f} s"
    yield "CPU ratio", lambda r: r.cpu_ratio, "{:.2f}"


def _writes_per_model(key: tuple[str, str], models: int) -> _Reader:
    return lambda r: r.operator.writes.get(key, 0) / models


def _floor_cpu(name: str) -> _Reader:
    return lambda r: r.floor.cpu_sec[name]


def _operator_cpu(name: str) -> _Reader:
    return lambda r: r.operator.cpu_sec[name]


def idle_sentence(result: Result) -> str:
    """What the idle time showed."""
    idle = result.idle
    if idle is None:
        return "The idle time was left out."
    writes = ", ".join(f"{number} {verb} {what}" for (what, verb), number in idle.writes.items()) or "0"
    return (
        f"Idle for {idle.seconds:.0f} s with {result.models} models: writes {writes} ({idle.lease_writes} of the Lease"
        f" aside), {idle.passes} passes from resyncs, {idle.operator_cpu_sec:.2f} s CPU of the operator,"
        f" RSS {idle.end_rss_bytes / 1e6:.1f} MB."
    )


def load(result: Result) -> str:
    """What was done, and how."""
    niceness = f", niceness {result.nice}" if result.nice else ""
    return f"{result.models} LlamaModels, {result.concurrency} at once, {len(result.rounds)} rounds{niceness}"


def machine_rows(machine: Machine) -> Sequence[tuple[str, str]]:
    """The machine, a line each."""
    return (
        ("Date", machine.date),
        ("CPU", f"{machine.cpu}, {machine.cores} cores, shared by etcd, kube-apiserver, operator and benchmark"),
        ("Memory", f"{machine.memory_gib:g} GiB"),
        ("Kernel", machine.kernel),
        ("Kubernetes", machine.kubernetes),
        ("Python", machine.python),
        ("Libraries", machine.libraries),
    )


def print_table(result: Result, machine: Machine) -> None:
    """To standard output; coloured on a terminal only."""
    for name, value in machine_rows(machine):
        print(f"{name:12}{value}")
    print(f"{'Load':12}{load(result)}\n")
    table = rows(result)
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    for number, row in enumerate(table):
        name, *cells = row
        padded = (cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True))
        print(_paint("1" if number == 0 else "", f"{name:{widths[0]}}  {'  '.join(padded)}"))
    print(f"\n{idle_sentence(result)}\n")
    for aim in result.aims():
        mark = _paint("32", "✓") if aim.met else _paint("31", "✗")
        print(f"{mark} {aim.text}: {aim.found}")


def _paint(colour: str, text: str) -> str:
    colours = bool(colour) and sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    return f"\x1b[{colour}m{text}\x1b[0m" if colours else text
