"""kubectl for tests: what a user would type, with the answers as values."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

__all__ = ["Kube", "KubectlError", "condition", "eventually", "llama_model", "steadily"]

T = TypeVar("T")
JSON = dict[str, Any]


class KubectlError(AssertionError):
    """kubectl failed; the message is what it wrote."""


@dataclass(frozen=True, kw_only=True)
class Kube:
    """A cluster, and the namespace that unqualified names are in."""

    kubeconfig: Path
    bin_dir: Path
    namespace: str = "default"

    def within(self, namespace: str) -> Kube:
        """The same cluster, another namespace."""
        return Kube(kubeconfig=self.kubeconfig, bin_dir=self.bin_dir, namespace=namespace)

    def __call__(self, *arguments: str, stdin: str | None = None, timeout: float = 120) -> str:
        """Runs kubectl; raises KubectlError."""
        path = f"{self.bin_dir}{os.pathsep}{os.environ['PATH']}"
        done = subprocess.run(
            ["kubectl", "--namespace", self.namespace, *arguments],
            env={**os.environ, "KUBECONFIG": str(self.kubeconfig), "PATH": path},
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout,
        )
        if done.returncode != 0:
            raise KubectlError(f"kubectl {' '.join(arguments[:4])}: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout

    def get(self, kind: str, name: str) -> JSON | None:
        """The object, or None."""
        text = self("get", kind, name, "--ignore-not-found", "-o", "json")
        return json.loads(text) if text.strip() else None

    def must_get(self, kind: str, name: str) -> JSON:
        """The object; fails where there is none."""
        found = self.get(kind, name)
        assert found is not None, f"{kind} {name} does not exist in {self.namespace}"
        return found

    def select(self, kind: str, selector: str = "") -> list[JSON]:
        """The objects of a kind in the namespace."""
        items: list[JSON] = json.loads(self("get", kind, "--selector", selector, "-o", "json"))["items"]
        return items

    def apply(self, *objects: Mapping[str, Any]) -> None:
        """As a user would."""
        self("apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)}))

    def patch(self, kind: str, name: str, change: Mapping[str, Any] | list[JSON], *arguments: str) -> None:
        """A merge patch, or a JSON patch where the change is a list."""
        form = "json" if isinstance(change, list) else "merge"
        self("patch", kind, name, "--type", form, "--patch", json.dumps(change), *arguments)

    def delete(self, kind: str, name: str, *arguments: str) -> None:
        """Deletes and waits; one that is gone is no error."""
        self("delete", kind, name, "--ignore-not-found", *arguments)

    def uninstall(self, release: str) -> None:
        """Has helm remove a release of the namespace; one that is not there is no error."""
        path = f"{self.bin_dir}{os.pathsep}{os.environ['PATH']}"
        subprocess.run(
            ["helm", "uninstall", release, "--namespace", self.namespace, "--ignore-not-found", "--wait"],
            env={**os.environ, "KUBECONFIG": str(self.kubeconfig), "PATH": path},
            check=True,
            timeout=300,
        )

    @contextmanager
    def port_forward(self, service: str, port: int) -> Iterator[int]:
        """A local port that leads to a port of a Service: to one of its pods, chosen once."""
        path = f"{self.bin_dir}{os.pathsep}{os.environ['PATH']}"
        with subprocess.Popen(
            ["kubectl", "--namespace", self.namespace, "port-forward", f"service/{service}", f":{port}"],
            env={**os.environ, "KUBECONFIG": str(self.kubeconfig), "PATH": path},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process:
            try:
                assert process.stdout is not None
                line = process.stdout.readline()
                match = re.search(r"127\.0\.0\.1:(\d+)", line)
                assert match, f"kubectl port-forward failed: {line.strip()}"
                yield int(match[1])
            finally:
                process.terminate()


def llama_model(name: str, *, claim: str = "models", path: str = "gemma-3-270m-Q4_K_M.gguf", **spec: Any) -> JSON:
    """A LlamaModel manifest; keyword arguments are fields of the spec."""
    return {
        "apiVersion": "llamamodel.dev/v1alpha1",
        "kind": "LlamaModel",
        "metadata": {"name": name},
        "spec": {"model": {"pvc": {"claimName": claim, "path": path}}, **spec},
    }


def condition(raw: Mapping[str, Any] | None, kind: str) -> JSON:
    """A condition of an object, but only one that speaks of the present generation; else an empty one."""
    if raw is None:
        return {}
    conditions = raw.get("status", {}).get("conditions", [])
    found: JSON = next((c for c in conditions if c["type"] == kind), {})
    return found if found.get("observedGeneration", 0) >= raw["metadata"].get("generation", 0) else {}


def eventually(probe: Callable[[], T | None], *, within: float, pause: float = 0.2) -> T:
    """The first truthy answer of the probe; one that fails an assertion is asked again, until time is up."""
    deadline, last = time.monotonic() + within, "nothing yet"
    while True:
        try:
            if answer := probe():
                return answer
            last = f"the answer was {answer!r}"
        except AssertionError as error:
            last = str(error)
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within:.0f} s: {last}")
        time.sleep(pause)


def steadily(probe: Callable[[], T], *, during: float, pause: float = 0.5) -> T:
    """Asserts that the probe's answer does not change for a while."""
    first, deadline = probe(), time.monotonic() + during
    while time.monotonic() < deadline:
        time.sleep(pause)
        assert (now := probe()) == first, f"it changed from {first!r} to {now!r}"
    return first
