"""The command line: parse, run, print; progress goes to stderr, the result to stdout."""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import signal
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import mkdtemp
from types import FrameType

from .api import Api
from .benchmark import Benchmark, Options
from .cluster import Cluster, own_cluster
from .errors import BenchError
from .machine import Machine, describe
from .progress import Progress
from .report import report_problem, write_report
from .results import Result
from .table import print_table

__all__ = ["main"]

_INTERRUPTED = 130
_DESCRIPTION = """\
How long the operator takes for many LlamaModels, next to a floor: the same writes of the same objects with the same
concurrency by a plain client, without an operator. Runs on a cluster of its own, etcd and kube-apiserver only.
"""
_EPILOG = """\
exit status:
  0 all aims met   1 an aim missed, or no result   2 wrong usage   130 interrupted
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit status."""
    options = _parser().parse_args(arguments)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # shells start background jobs deaf to it
    signal.signal(signal.SIGTERM, _as_interrupt)
    progress = Progress()
    if options.report and (problem := report_problem(options.report)):
        print(f"error: {problem}", file=sys.stderr)
        return 1
    workdir = Path(mkdtemp(prefix="llamamodel-bench-"))
    try:
        with own_cluster(options.cluster, progress=progress) as cluster:
            result, machine = asyncio.run(_measure(options, cluster=cluster, workdir=workdir, progress=progress))
    except BenchError as error:
        print(f"error: {error}\noperator logs: {workdir}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        shutil.rmtree(workdir)
        print("interrupted", file=sys.stderr)
        return _INTERRUPTED
    shutil.rmtree(workdir)
    if options.report:
        write_report(options.report, result=result, machine=machine)
    if options.output == "json":
        print(json.dumps(result.document() | {"machine": asdict(machine)}, indent=2))
    else:
        print_table(result, machine)
    return 0 if all(aim.met for aim in result.aims()) else 1


async def _measure(
    options: argparse.Namespace, *, cluster: Cluster, workdir: Path, progress: Progress
) -> tuple[Result, Machine]:
    async with Api.connect(cluster.kubeconfig, user_agent="llamamodel-bench") as api:
        machine = describe(kubernetes=(await api.get("/version"))["gitVersion"])
        benchmark = Benchmark(
            options=Options(
                models=options.models,
                rounds=options.rounds,
                idle_sec=options.idle,
                concurrency=options.concurrency,
                nice=options.nice,
            ),
            cluster=cluster,
            api=api,
            workdir=workdir,
            progress=progress,
        )
        return await benchmark.run(), machine


def _as_interrupt(_number: int, _frame: FrameType | None) -> None:
    signal.raise_signal(signal.SIGINT)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="hack/bench/reconcile.py",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--models", type=_count, default=1000, metavar="N", help="LlamaModels (1000)")
    parser.add_argument("--rounds", type=_count, default=3, metavar="N", help="pairs of floor and operator (3)")
    parser.add_argument(
        "--idle", type=_seconds, default=120.0, metavar="SEC", help="idle time at the end, 0: none (120)"
    )
    parser.add_argument("--concurrency", type=_count, default=16, metavar="N", help="requests at once (16)")
    parser.add_argument(
        "--nice", type=_niceness, default=0, metavar="N", help="niceness of all that is measured, -20 to 19 (0)"
    )
    parser.add_argument("--cluster", default="bench", metavar="NAME", help="name of the cluster that is made (bench)")
    parser.add_argument("-o", "--output", choices=("text", "json"), default="text")
    parser.add_argument("--report", type=Path, metavar="FILE", help="renew the marked section of docs/benchmarks.md")
    return parser


def _count(text: str) -> int:
    if not text.isdecimal() or not 1 <= (number := int(text)) <= 20_000:
        raise argparse.ArgumentTypeError(f"must be a number from 1 to 20000, not {text!r}")
    return number


def _niceness(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = 99
    if not -20 <= number <= 19:
        raise argparse.ArgumentTypeError(f"must be a number from -20 to 19, not {text!r}")
    return number


def _seconds(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number <= 3600:
        raise argparse.ArgumentTypeError(f"must be seconds, 0 to 3600, not {text!r}")
    return number
