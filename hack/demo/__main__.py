"""From nothing to an answer: a cluster, the operator, a real model, a streamed completion.

python3 hack/demo [--name dev] [--prompt TEXT]
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
MODEL = "gemma"
READY_WITHIN_SEC = 180
PROMPT = "The lighthouse keeper climbed the stairs every evening because"


class DemoError(Exception):
    """A step failed; the message says what to look at."""


def main() -> int:
    """Runs the demo; 1 where a step failed, with the reason."""
    parser = argparse.ArgumentParser(
        prog="hack/demo", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--name", default=os.environ.get("LLAMAMODEL_CLUSTER", "dev"), help="the cluster instance")
    parser.add_argument("--prompt", default=PROMPT, help="the sentence that the model is to continue")
    arguments = parser.parse_args()
    started = time.monotonic()
    try:
        _title("1/5  a cluster")
        _tool("hack/cluster", "up", "--name", arguments.name)
        kubectl = Kubectl(arguments.name)
        _title("2/5  the operator, by its chart")
        _tool("hack/deploy", "operator", "--name", arguments.name)
        _title("3/5  a volume with a real model")
        _tool("hack/deploy", "storage", "--name", arguments.name)
        _title("4/5  kubectl apply -f examples/gemma.yaml")
        kubectl("apply", "-f", "examples/gemma.yaml")
        follow_status(kubectl)
        print(kubectl("get", "llamamodels").rstrip())
        _title("5/5  a completion, as it streams")
        with port_forward(kubectl) as port:
            for piece in complete(port, arguments.prompt):
                print(piece, end="", flush=True)
        print()
    except DemoError as error:
        print(f"hack/demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    _title(f"done in {time.monotonic() - started:.0f} s; to go on")
    print(f"""  export KUBECONFIG={kubectl.kubeconfig}
  kubectl get lm -o wide
  kubectl describe lm {MODEL}
  kubectl scale lm {MODEL} --replicas 2
  kubectl port-forward svc/{MODEL} 8080 &
  curl -N localhost:8080/v1/completions -d '{{"model":"{MODEL}","prompt":"Once upon a time","max_tokens":40}}'
  make demo-down                 # removes the cluster and all in it""")
    return 0


class Kubectl:
    """kubectl, with the kubeconfig of the demo's cluster."""

    def __init__(self, name: str) -> None:
        status = json.loads(_output([sys.executable, "hack/cluster", "status", "--name", name, "-o", "json"]))
        self.kubeconfig: str = status["kubeconfig"]
        self.environment = {
            **os.environ,
            "KUBECONFIG": self.kubeconfig,
            "PATH": f"{status['binDir']}{os.pathsep}{os.environ['PATH']}",
        }

    def __call__(self, *arguments: str) -> str:
        return _output(["kubectl", *arguments], environment=self.environment)


def follow_status(kubectl: Kubectl) -> None:
    """Prints the status whenever it changes, until the model is ready."""
    deadline, shown = time.monotonic() + READY_WITHIN_SEC, ""
    while time.monotonic() < deadline:
        model: dict[str, Any] = json.loads(kubectl("get", "llamamodel", MODEL, "-o", "json"))
        status = model.get("status", {})
        ready: dict[str, Any] = next((c for c in status.get("conditions", []) if c["type"] == "Ready"), {})
        line = f"  {status.get('phase', 'Unknown'):<10} {ready.get('reason', ''):<12} {ready.get('message', '')}"
        if line != shown:
            print(shown := line, flush=True)
        current = status.get("observedGeneration") == model["metadata"]["generation"]
        if current and ready.get("status") == "True":
            return
        time.sleep(0.3)
    raise DemoError(f"{MODEL} is not ready after {READY_WITHIN_SEC} s: see `kubectl describe lm {MODEL}`")


@contextmanager
def port_forward(kubectl: Kubectl) -> Iterator[int]:
    """A local port that leads to the model's Service."""
    command = ["kubectl", "port-forward", f"service/{MODEL}", ":8080", "--address", "127.0.0.1"]
    process = subprocess.Popen(
        command, env=kubectl.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        assert process.stdout is not None  # noqa: S101
        line = process.stdout.readline()
        match = re.search(r"127\.0\.0\.1:(\d+)", line)
        if match is None:
            raise DemoError(f"kubectl port-forward failed: {line.strip()}")
        yield int(match[1])
    finally:
        process.terminate()
        process.wait()


def complete(port: int, prompt: str) -> Iterator[str]:
    """The prompt, then what the model makes of it, piece by piece (server-sent events)."""
    body = {"model": MODEL, "prompt": prompt, "max_tokens": 48, "temperature": 0.7, "stream": True}
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/v1/completions",
        data=json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
    )
    yield f"  {prompt}"
    try:
        with urllib.request.urlopen(request, timeout=120) as response:  # noqa: S310 (loopback)
            for raw in response:
                data = raw.decode().removeprefix("data:").strip()
                if data.startswith("{"):
                    answer = json.loads(data)
                    if "error" in answer:
                        raise DemoError(f"llama-server answered: {answer['error'].get('message', answer['error'])}")
                    yield answer["choices"][0]["text"]
    except OSError as error:
        raise DemoError(f"the model did not answer: {error}") from None


def _title(text: str) -> None:
    bold, plain = ("\033[1m", "\033[0m") if sys.stdout.isatty() and "NO_COLOR" not in os.environ else ("", "")
    print(f"\n{bold}{text}{plain}", flush=True)


def _tool(*arguments: str) -> None:
    if subprocess.run([sys.executable, *arguments], cwd=ROOT, check=False).returncode != 0:
        raise DemoError(f"`python3 {' '.join(arguments)}` failed, see above")


def _output(command: list[str], *, environment: dict[str, str] | None = None) -> str:
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise DemoError(f"`{' '.join(command[:4])}` failed: {done.stderr.strip()}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
