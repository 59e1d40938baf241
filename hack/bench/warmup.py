"""Measures what warm-up and the check of tensors cost at the start of llama-server, in pairs that differ in that alone.

`uv run python hack/bench/warmup.py`, or `make bench-warmup`.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from serverbench.large_file import write_large_file
from serverbench.server import fetched_model, fetched_server, rendered, started

_LAYERS = 36
"""Of the large file: 4.6 GB."""


@dataclass(frozen=True, kw_only=True)
class Start:
    """One start of the server.

    Attributes:
        ready: seconds until /health answered 200.
        first: seconds that the first request took after that.
        read_gb: what the server read from storage, page cache aside.
    """

    ready: float
    first: float
    read_gb: float


Pair = tuple[Start, Start]
"""Without and with what is measured."""


def main() -> int:
    """Exit status: 0; where a server does not start, its log is shown and the status is 1."""
    parser = argparse.ArgumentParser(prog="hack/bench/warmup.py", description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=5, metavar="N", help="of starts, for each table")
    parser.add_argument("--folder", metavar="DIR", help="where a file of 4.6 GB is made; default: $TMPDIR")
    arguments = parser.parse_args()
    binary, small = fetched_server(), fetched_model()
    with TemporaryDirectory(dir=arguments.folder) as folder:
        large = write_large_file(Path(folder) / "8B-random-Q4_K.gguf", layers=_LAYERS)
        _sync(large)
        bench = Bench(binary=binary, pairs=arguments.pairs)
        bench.warm_up(small)
        bench.warm_up(large)
        bench.check_of_tensors(large, "in the page cache", _read)
        bench.check_of_tensors(large, "not in the page cache", _drop)
    return 0


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Measures and prints."""

    binary: Path
    pairs: int

    def warm_up(self, model: Path) -> None:
        """The page cache has the file."""
        pairs = self._measure(model, _read, {"skipWarmup": True}, {"skipWarmup": False})
        _print(f"warm-up, {_described(model)}, in the page cache", pairs, off="skipped", on="run")
        gain, later = _difference(pairs, lambda s: s.ready), _difference(pairs, lambda s: -s.first)
        print(f"skipWarmup gains {gain:.3f} s until ready; first request {later:+.3f} s (medians of the pairs)\n")

    def check_of_tensors(self, model: Path, state: str, prepare: Callable[[Path], None]) -> None:
        """Without warm-up, which would hide when the file is read."""
        bare = {"skipWarmup": True}
        pairs = self._measure(model, prepare, {**bare, "checkTensors": False}, {**bare, "checkTensors": True})
        _print(f"check of tensors, {_described(model)}, {state}", pairs, off="off", on="on")
        ready, total = _difference(pairs, lambda s: s.ready), _difference(pairs, lambda s: s.ready + s.first)
        print(
            f"checkTensors: {ready:+.3f} s until ready, {total:+.3f} s until the first answer (medians of the pairs)\n"
        )

    def _measure(
        self, model: Path, prepare: Callable[[Path], None], without: dict[str, Any], with_it: dict[str, Any]
    ) -> list[Pair]:
        """Pairs, in turns the one and the other first."""
        pairs: list[Pair] = []
        for turn in range(self.pairs):
            print(f"  pair {turn + 1} of {self.pairs}", end="\r", file=sys.stderr, flush=True)
            order = (without, with_it) if turn % 2 == 0 else (with_it, without)
            first, second = (self._start(model, prepare, engine) for engine in order)
            pairs.append((first, second) if turn % 2 == 0 else (second, first))
        return pairs

    def _start(self, model: Path, prepare: Callable[[Path], None], engine: dict[str, Any]) -> Start:
        prepare(model)
        settings = {"contextSize": 1024, "parallelSlots": 1, "threads": 2, **engine}
        with started(self.binary, rendered(model, engine=settings)) as server:
            begun = time.monotonic()
            server.ask("/completion", prompt="Hello", n_predict=1)
            first = time.monotonic() - begun
            return Start(ready=server.start_sec, first=first, read_gb=_read_bytes(server.pid) / 1e9)


def _read(file: Path) -> None:
    """So that it is in the page cache."""
    with file.open("rb", buffering=0) as stream:
        buffer = bytearray(1 << 24)
        while stream.readinto(buffer):
            pass


def _sync(file: Path) -> None:
    """Pages that are not written yet could not be dropped."""
    with file.open("rb") as stream:
        os.fsync(stream.fileno())


def _drop(file: Path) -> None:
    """So that it is not in the page cache: of this file alone, whoever else uses the machine keeps theirs."""
    with file.open("rb") as stream:
        os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _read_bytes(pid: int) -> int:
    lines = Path(f"/proc/{pid}/io").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("read_bytes:"))


def _described(model: Path) -> str:
    return f"{model.name} ({model.stat().st_size / 1e9:.1f} GB)"


def _difference(pairs: Sequence[Pair], value: Callable[[Start], float]) -> float:
    return median(value(with_it) - value(without) for without, with_it in pairs)


def _print(title: str, pairs: Sequence[Pair], *, off: str, on: str) -> None:
    print(
        f"{title}\n{'':24}" + "".join(f"{f'pair {number + 1}':>9}" for number in range(len(pairs))) + f"{'median':>9}"
    )
    for name, side in ((off, 0), (on, 1)):
        starts = [pair[side] for pair in pairs]
        _row(f"{name}: until ready", [start.ready for start in starts], "s")
        _row(f"{name}: first request", [start.first for start in starts], "s")
        _row(f"{name}: read", [start.read_gb for start in starts], "GB")


def _row(name: str, values: Sequence[float], unit: str) -> None:
    print(f"{name:24}" + "".join(f"{value:>9.3f}" for value in (*values, median(values))) + f" {unit}")


if __name__ == "__main__":
    sys.exit(main())
