"""Measures the admission webhook: a large LlamaModel, over HTTPS, against the same server that reviews nothing.

`uv run python hack/bench/webhook.py`; exits 1 where the aim is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import http.client
import json
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from llamamodel_operator.main import review_of
from llamamodel_operator.shell.certificates import CA, CERTIFICATE, KEY, renewed
from llamamodel_operator.shell.metrics import Metrics
from llamamodel_operator.shell.sandbox import TemplateSandbox
from llamamodel_operator.shell.settings import Settings
from llamamodel_operator.shell.tls import ServingTls
from llamamodel_operator.webhook.admission import Review
from llamamodel_operator.webhook.server import serve_reviews

AIM_P99_MS = 20.0
_WARM_UP = 50


@dataclass(frozen=True, kw_only=True)
class Half:
    """One server's answers in one round, in milliseconds."""

    p50: float
    p99: float
    longest: float


def main() -> int:
    """Exit status: 0 the aim is met, 1 it is missed."""
    parser = argparse.ArgumentParser(prog="hack/bench/webhook.py", description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3, metavar="N")
    parser.add_argument("--requests", type=int, default=1000, metavar="N", help="in each half of a round")
    parser.add_argument("--clients", type=int, default=1, metavar="N", help="connections that ask at once")
    parser.add_argument("--serve", choices=sorted(REVIEWS), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        return asyncio.run(_serve(REVIEWS[arguments.serve]))

    body = json.dumps(_admission_review(large_model())).encode()
    print(f"{len(body) / 1024:.0f} KiB each, {arguments.requests} requests in each half, {arguments.clients} at once\n")
    with TemporaryDirectory() as folder, _server("floor", folder) as floor, _server("review", folder) as review:
        rounds = [
            _round(
                number, floor=floor, review=review, body=body, requests=arguments.requests, clients=arguments.clients
            )
            for number in range(arguments.rounds)
        ]
    _print(rounds)
    p99 = median(reviewed.p99 for _, reviewed in rounds)
    met = p99 < AIM_P99_MS
    print(f"\n{'✓' if met else '✗'} p99 under {AIM_P99_MS:g} ms (median of the rounds): {p99:.2f} ms")
    return 0 if met else 1


def large_model() -> dict[str, Any]:
    """Most typed fields, long lists, and texts that have to be parsed: nobody writes one as large by hand."""
    lines = "\n".join(f"{{# line {number} of a long template #}}" for number in range(1000))
    loop = "{% for message in messages %}<|{{ message.role }}|>{{ message.content }}{% endfor %}"
    rules = "\n".join(f'rule-{number} ::= "{number}" | rule-{number + 1}' for number in range(300))
    spec = {
        "model": {"pvc": {"claimName": "models", "path": "qwen3/Qwen3-8B-Q4_K_M.gguf"}},
        "servedModelName": "qwen3-8b",
        "image": "ghcr.io/ggml-org/llama.cpp:server-cuda-b10434",
        "replicas": 2,
        "gpu": {"count": 1},
        "engine": {"contextSize": 8192, "parallelSlots": 4, "gpuLayers": "all", "batchSize": 2048, "threads": 8},
        "chatTemplate": {"inline": lines + loop},
        "grammar": {"inline": f'root ::= rule-0\n{rules}\nrule-300 ::= "end"\n'},
        "systemPrompt": {"inline": "Be brief. " * 2000},
        "extraArgs": ["--top-n-sigma", "1.5", "--flash-atten", "--ctx-chekpoints", "--slot-prompt-similarity", "0.5"],
        "env": [{"name": f"VARIABLE_{number}", "value": "x" * 100} for number in range(100)],
        "tolerations": [{"key": f"key-{number}", "operator": "Exists"} for number in range(20)],
        "podAnnotations": {f"example.com/note-{number}": "x" * 100 for number in range(50)},
    }
    metadata = {"name": "qwen3-8b", "namespace": "default", "uid": "e3b0c442", "generation": 1}
    return {"apiVersion": "llamamodel.dev/v1alpha1", "kind": "LlamaModel", "metadata": metadata, "spec": spec}


def _admission_review(model: dict[str, Any]) -> dict[str, Any]:
    old = {**model, "spec": {**model["spec"], "servedModelName": "other"}}
    kind = {"group": "llamamodel.dev", "version": "v1alpha1", "kind": "LlamaModel"}
    request = {"uid": "uid", "kind": kind, "operation": "UPDATE", "object": model, "oldObject": old}
    return {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}


# --- the servers, each a process of its own


def _operators_review() -> Review:
    return review_of(Settings(), TemplateSandbox())


def _no_review() -> Review:
    return lambda _: ()


REVIEWS = {"review": _operators_review, "floor": _no_review}


async def _serve(make: Any) -> int:
    """Until its input ends; the first line says the port, the second file holds the authority."""
    made = renewed({}, names=("localhost",), now=datetime.now(UTC), life=timedelta(days=1), published=None)
    assert made is not None  # noqa: S101
    gc.collect()  # these three as the operator does it
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
    tls = ServingTls()
    tls.load(certificate=made.data[CERTIFICATE], key=made.data[KEY])
    async with serve_reviews(host="127.0.0.1", port=0, tls=tls, review=make(), metrics=Metrics(), linger_sec=0) as port:
        print(json.dumps({"port": port, "authority": made.data[CA].decode()}), flush=True)
        await asyncio.to_thread(sys.stdin.read)
    return 0


@dataclass(frozen=True, kw_only=True)
class Server:
    """Where one listens, and whom to trust."""

    port: int
    trust: ssl.SSLContext

    def connect(self) -> http.client.HTTPSConnection:
        return http.client.HTTPSConnection("localhost", self.port, context=self.trust, timeout=60)


@contextlib.contextmanager
def _server(which: str, folder: str) -> Iterator[Server]:
    command = [sys.executable, str(Path(__file__)), "--serve", which]
    with (
        (Path(folder) / which).open("wb") as log,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log) as process,
    ):
        assert process.stdin is not None and process.stdout is not None  # noqa: S101, PT018
        line = process.stdout.readline()
        if not line:
            sys.exit(f"the server did not start: {(Path(folder) / which).read_text()[-2000:]}")
        said = json.loads(line)
        try:
            yield Server(port=said["port"], trust=ssl.create_default_context(cadata=said["authority"]))
        finally:
            process.stdin.close()


# --- measuring


def _round(
    number: int, *, floor: Server, review: Server, body: bytes, requests: int, clients: int
) -> tuple[Half, Half]:
    """Floor and review, in turns first."""
    order = (floor, review) if number % 2 == 0 else (review, floor)
    halves = [_half(server, body, requests=requests, clients=clients) for server in order]
    return (halves[0], halves[1]) if number % 2 == 0 else (halves[1], halves[0])


def _half(server: Server, body: bytes, *, requests: int, clients: int) -> Half:
    with ThreadPoolExecutor(clients) as threads:
        shares = [threads.submit(_ask, server, body, requests // clients) for _ in range(clients)]
        taken = sorted(one for share in shares for one in share.result())
    return Half(p50=_quantile(taken, 0.5), p99=_quantile(taken, 0.99), longest=taken[-1])


def _ask(server: Server, body: bytes, number: int) -> Sequence[float]:
    """Milliseconds of each request, on one connection, as the API server keeps them."""
    connection = server.connect()
    taken = []
    for count in range(_WARM_UP + number):
        started = time.perf_counter()
        connection.request("POST", "/validate?timeout=5s", body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        text = response.read()
        if count >= _WARM_UP:
            taken.append((time.perf_counter() - started) * 1000)
        if response.status != 200 or not json.loads(text)["response"]["allowed"]:
            sys.exit(f"expected that it is allowed, found {response.status}: {text[:2000].decode(errors='replace')}")
    connection.close()
    return taken


def _quantile(ordered: Sequence[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, round(share * len(ordered)))]


def _print(rounds: Sequence[tuple[Half, Half]]) -> None:
    columns = [f"round {number + 1}" for number in range(len(rounds))]
    print(f"{'':16}" + "".join(f"{column:>10}" for column in (*columns, "median")))
    rows = {
        "floor, p50": [floor.p50 for floor, _ in rounds],
        "floor, p99": [floor.p99 for floor, _ in rounds],
        "review, p50": [review.p50 for _, review in rounds],
        "review, p99": [review.p99 for _, review in rounds],
        "review, longest": [review.longest for _, review in rounds],
        "ratio of p50": [review.p50 / floor.p50 for floor, review in rounds],
        "ratio of p99": [review.p99 / floor.p99 for floor, review in rounds],
    }
    for name, values in rows.items():
        unit = "" if name.startswith("ratio") else " ms"
        print(f"{name:16}" + "".join(f"{value:>7.2f}{unit:3}" for value in (*values, median(values))))


if __name__ == "__main__":
    sys.exit(main())
