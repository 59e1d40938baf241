"""Measures the header reader beside a bare one, the estimate, and the command from its start to its answer.

`uv run python hack/bench/headers.py`; exits 1 where an aim is missed. Reader and command run in processes of their own,
in turns, in three rounds; the median of the rounds counts. Readers and estimates are measured in processor time, the
command by the clock. The aims for times are for a machine on which the bare reader takes 26 ms; on a slower one, or one
that others use, they are as many times longer as the bare reader takes in this very run.
"""

from __future__ import annotations

import argparse
import json
import os
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from llamamodel_operator.core.memory.fitting import Load
from llamamodel_operator.core.memory.settings import MemorySettings
from llamamodel_operator.shell.gguf_files import open_gguf

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests"))

BARE_MS = 26.0
READ_MS, READ_MB = 40.0, 40.0
ESTIMATE_MS = 1.0
COMMAND_SEC = 0.4
HTTP_MORE_BYTES, HTTP_REQUESTS = 1 << 20, 8
_READS = 5
"""In one process; the median counts."""
_STARTS = 3
_ESTIMATES = 300
_LAYERS, _WIDTH, _HEADS, _KV_HEADS, _FEED_FORWARD, _VOCABULARY = 80, 8192, 64, 8, 28_672, 128_256
"""Of a 70B model."""


def main() -> int:
    """Exit status: 0 all aims are met, 1 one is missed."""
    parser = argparse.ArgumentParser(prog="hack/bench/headers.py", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3, metavar="N")
    parser.add_argument("--file", metavar="GGUF", help="with a large vocabulary; default: the Gemma that tests use")
    parser.add_argument("--read", choices=sorted(READERS), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.read:
        print(json.dumps(measured(READERS[arguments.read], arguments.file)))
        return 0
    gemma = Path(arguments.file) if arguments.file else _fetched()
    aims = Aims()
    with TemporaryDirectory() as folder:
        large = write_large(Path(folder))
        with served(Path(folder)) as (address, traffic), served(gemma.parent) as (gemma_address, gemma_traffic):
            sources = {
                gemma.name: str(gemma),
                "70B in 3 parts": str(large),
                f"{gemma.name}, HTTP": f"{gemma_address}/{gemma.name}",
                "70B in 3 parts, HTTP": f"{address}/{large.name}",
            }
            rounds = [one_round(number, gemma, sources) for number in range(arguments.rounds)]
            readers(rounds, aims)
            commands(rounds, sources, aims)
            http(gemma_traffic, f"{gemma_address}/{gemma.name}", aims)
            http(traffic, f"{address}/{large.name}", aims)
    estimates(aims)
    return 0 if aims.met else 1


@dataclass
class Aims:
    """What is asked for, and whether all of it was met."""

    met: bool = True
    slower: float = 1.0
    """How many times as slow as the machine that the aims are for this one is; 1 for a faster one."""

    def check_time(self, what: str, found: float, most: float, unit: str) -> None:
        self.check(what, found, most * self.slower, unit)

    def check(self, what: str, found: float, most: float, unit: str) -> None:
        good = found <= most
        self.met = self.met and good
        print(f"{'✓' if good else '✗'} {what}: {found:,.4g} {unit}, at most {most:,.4g} {unit}")


@dataclass(frozen=True, kw_only=True)
class Round:
    """Figures of one round: of each reader {"ms", "MB"}, and seconds of the command for each source."""

    readers: dict[str, dict[str, float]]
    commands: dict[str, float]


def one_round(number: int, gemma: Path, sources: dict[str, str]) -> Round:
    """Both readers, in turns the one and the other first, then the command."""
    order = sorted(READERS, reverse=bool(number % 2))
    found = {
        name: json.loads(_python(str(Path(__file__)), "--read", name, "--file", str(gemma)).stdout) for name in order
    }
    return Round(readers=found, commands={name: command(source) for name, source in sources.items()})


def command(source: str) -> float:
    """Seconds from the start of the command to its end."""
    times = []
    for _ in range(_STARTS):
        begun = time.monotonic()
        _python(
            *("-m", "llamamodel_operator.cli.main", "estimate", "--gguf", source),
            *("--gpu-memory", "80Gi", "--", "-c", "8192", "-np", "1"),
        )
        times.append(time.monotonic() - begun)
    return median(times)


def _python(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT / "operator"), environment.get("PYTHONPATH", "")])
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(arguments)} failed:\n{done.stderr}")
    return done


# --- what is measured


def measured(read: Callable[[str], object], file: str) -> dict[str, float]:
    """Median processor time of some reads, and how much memory the process takes for the first at most."""
    before = _memory("VmRSS")
    times = []
    grown = 0
    for number in range(_READS):
        begun = time.process_time()
        found = read(file)
        times.append(time.process_time() - begun)
        if number == 0:
            grown = _memory("VmHWM") - before
        del found
    return {"ms": median(times) * 1e3, "MB": grown / 1e6}


def _memory(name: str) -> int:
    """Bytes of this process: now (VmRSS), or at most (VmHWM)."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


def read_ours(file: str) -> object:
    """The reader of the operator, all checks included."""
    return open_gguf(file)


def read_bare(file: str) -> object:
    """The least that finds the tensors: no checks, no values, nothing kept."""
    data = Path(file).open("rb").read(16 << 20)  # noqa: SIM115 (for a moment)
    unpack = struct.unpack_from
    tensors, keys = unpack("<QQ", data, 8)
    sizes = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
    at = 24
    for _ in range(keys):
        at += 8 + unpack("<Q", data, at)[0]
        (kind,) = unpack("<I", data, at)
        at += 4
        if kind == 8:
            at += 8 + unpack("<Q", data, at)[0]
        elif kind == 9:
            kind, number = unpack("<IQ", data, at)
            at += 12
            if kind == 8:
                for _ in range(number):
                    at += 8 + unpack("<Q", data, at)[0]
            else:
                at += sizes[kind] * number
        else:
            at += sizes[kind]
    names = []
    for _ in range(tensors):
        (length,) = unpack("<Q", data, at)
        names.append(data[at + 8 : at + 8 + length])
        (dimensions,) = unpack("<I", data, at + 8 + length)
        at += 8 + length + 4 + 8 * dimensions + 12
    return names


READERS: dict[str, Callable[[str], object]] = {"bare": read_bare, "ours": read_ours}


def readers(rounds: Sequence[Round], aims: Aims) -> None:
    print(
        f"{'reading the header':24}"
        + "".join(f"{f'round {n + 1}':>10}" for n in range(len(rounds)))
        + f"{'median':>10}"
    )
    for name in READERS:
        for unit in ("ms", "MB"):
            _row(f"{name}, {unit}", [one.readers[name][unit] for one in rounds])
    _row("ratio of times", [one.readers["ours"]["ms"] / one.readers["bare"]["ms"] for one in rounds])
    bare = median(one.readers["bare"]["ms"] for one in rounds)
    aims.slower = max(1.0, bare / BARE_MS)
    print(f"the bare reader takes {bare:.0f} ms for {BARE_MS:.0f}: times may be {aims.slower:.2f} times as long")
    aims.check_time("time of the header", median(one.readers["ours"]["ms"] for one in rounds), READ_MS, "ms")
    aims.check("memory of the header", median(one.readers["ours"]["MB"] for one in rounds), READ_MB, "MB")


def commands(rounds: Sequence[Round], sources: dict[str, str], aims: Aims) -> None:
    print(f"\n{'start to answer, s':40}")
    for name in sources:
        times = [one.commands[name] for one in rounds]
        _row(name[:23], times)
        aims.check_time(name, median(times), COMMAND_SEC, "s")


def _row(name: str, values: Sequence[float]) -> None:
    print(f"{name:24}" + "".join(f"{value:>10.2f}" for value in (*values, median(values))))


def estimates(aims: Aims) -> None:
    """Estimates of a mixture of experts with 48 layers, once it is parsed and grouped, as a search for a context asks.

    Those of other searches are only printed, and what it takes where no graph is there that is the same.
    """
    from support.descriptions import gold_model

    load = Load(model=gold_model("qwen3-30b-a3b"), settings=MemorySettings(context_size=32_768))
    load.estimate(gpus=2)

    def milliseconds(settings_of: Callable[[int], MemorySettings]) -> float:
        times = []
        for number in range(_ESTIMATES):
            settings = settings_of(number)
            begun = time.process_time()
            load.estimate(gpus=1 + number % 2, settings=settings)
            times.append(time.process_time() - begun)
        return median(times) * 1e3

    print()
    contexts = milliseconds(lambda number: replace(load.settings, context_size=4096 + 256 * number))
    aims.check_time("an estimate", contexts, ESTIMATE_MS, "ms")
    others: dict[str, Callable[[int], MemorySettings]] = {
        "layers on the GPUs": lambda number: replace(load.settings, gpu_layers=number % 50),
        "experts on the host": lambda number: replace(load.settings, cpu_moe_layers=number % 50),
        "batches, each with a graph of its own": lambda number: replace(
            load.settings, micro_batch_size=512 + 4 * number
        ),
    }
    for what, settings_of in others.items():
        print(f"  with other {what}: {milliseconds(settings_of):,.4g} ms")


# --- over HTTP


@dataclass
class Traffic:
    """What a server gave."""

    requests: int = 0
    sent_bytes: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


def http(traffic: Traffic, address: str, aims: Aims) -> None:
    """Requests and bytes for one opening."""
    traffic.requests = traffic.sent_bytes = 0
    model = open_gguf(address)
    header = sum(part.header_size for part in model.parts)
    name = address.rpartition("/")[2]
    print(f"\n{name}: {traffic.sent_bytes:,} bytes in {traffic.requests} requests for headers of {header:,} bytes")
    aims.check("bytes besides the headers", traffic.sent_bytes - header, HTTP_MORE_BYTES, "bytes")
    aims.check("requests", traffic.requests, HTTP_REQUESTS, "requests")


@contextmanager
def served(folder: Path) -> Iterator[tuple[str, Traffic]]:
    """A server of a folder that gives ranges, as an object store does."""
    traffic = Traffic()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            file = folder / Path(self.path).name
            if not file.is_file():
                self.send_error(404)
                return
            size = file.stat().st_size
            first, _, last = self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")
            start, end = int(first), min(int(last or size - 1), size - 1)
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{end}/{size}")
            self.send_header("Content-Length", str(end - start + 1))
            self.end_headers()
            with file.open("rb") as stream:
                stream.seek(start)
                data = stream.read(end - start + 1)
            with traffic.lock:
                traffic.requests += 1
                traffic.sent_bytes += len(data)
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", traffic
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


# --- files


def write_large(folder: Path) -> Path:
    """The header of a 70B model with its vocabulary, in three parts; the tensors are holes."""
    from support.gguf import layer_tensors, llama_metadata, write_parts

    shape: dict[str, Any] = {
        "layers": _LAYERS,
        "embedding": _WIDTH,
        "heads": _HEADS,
        "kv_heads": _KV_HEADS,
        "feed_forward": _FEED_FORWARD,
        "vocabulary": _VOCABULARY,
    }
    metadata = llama_metadata(**shape, context=131_072) | {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.tokens": [f"token-{number}" for number in range(_VOCABULARY)],
    }
    tensors = layer_tensors(**shape, type_name="Q4_K")
    return write_parts(folder, "70b", metadata=metadata, tensors=tensors, parts=3)[0]


def _fetched() -> Path:
    from serverbench.server import fetched_model

    return fetched_model()


if __name__ == "__main__":
    sys.exit(main())
