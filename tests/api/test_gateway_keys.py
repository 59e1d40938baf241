"""Keys of the gateway, from the command line by a real API server to the gateway's process: made, gathered in one
Secret, mounted as the kubelet would, exchanged while it runs."""

from __future__ import annotations

import base64
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import httpx

from .harness.bench import Bench
from .harness.cluster import Cluster
from .harness.kube import Kube
from .harness.waiting import eventually

SECRET = "llamamodel-gateway-keys"
_BIN = Path(sys.executable).parent


def a_key(bench: Bench, name: str) -> str:
    """Made and applied as docs/gateway.md says; the key."""
    made = subprocess.run(
        [_BIN / "llamamodel", "gateway-key", name], capture_output=True, text=True, check=True, timeout=60
    )
    applying = ("apply", "--server-side", "--field-manager", f"gateway-key-{name}", "--namespace", bench.namespace)
    bench.cluster.kubectl(*applying, "--filename", "-", stdin=made.stdout)
    return made.stderr.splitlines()[-1]


def mount(bench: Bench, folder: Path) -> None:
    """What the kubelet would make of the Secret as it is."""
    found = bench.kube.http.get(f"/api/v1/namespaces/{bench.namespace}/secrets/{SECRET}").json()["data"]
    folder.mkdir(exist_ok=True)
    for file in folder.iterdir():
        if file.name not in found:
            file.unlink()
    for name, content in found.items():
        (folder / name).write_bytes(base64.b64decode(content))


def _found(saying: re.Pattern[str], log: Path) -> list[str]:
    return saying.findall(log.read_text())


@contextmanager
def a_gateway(cluster: Cluster, log: Path, *flags: str) -> Iterator[httpx.Client]:
    """A client of it; it has read the cluster."""
    at = (f"--kubeconfig={cluster.kubeconfig}", "--host=127.0.0.1", "--port=0", "--http-port=0", "--log-format=json")
    environ = {name: value for name, value in os.environ.items() if not name.startswith("LLAMAMODEL_GATEWAY_")}
    with log.open("wb") as output:
        process = subprocess.Popen([_BIN / "llamamodel-gateway", *at, *flags], stderr=output, env=environ)
    try:
        ports = []
        for what in ("/readyz", "serving models"):
            saying = re.compile(rf"{what} on port (\d+)")
            ports.append(int(eventually(partial(_found, saying, log), what=what)[0]))
        ready = f"http://127.0.0.1:{ports[0]}/readyz"
        eventually(lambda: httpx.get(ready, trust_env=False).status_code == 200, what="the gateway is ready")
        with httpx.Client(base_url=f"http://127.0.0.1:{ports[1]}", trust_env=False, timeout=20) as client:
            yield client
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()


def status(gateway: httpx.Client, key: str | None) -> int:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    return gateway.get("/v1/models", headers=headers).status_code


def test_keys_gather_in_one_secret_and_are_exchanged_while_the_gateway_runs(
    cluster: Cluster, bench: Bench, tmp_path: Path
) -> None:
    folder, log = tmp_path / "keys", tmp_path / "log"
    ci, alice = a_key(bench, "ci"), a_key(bench, "alice")
    mount(bench, folder)
    assert sorted(file.name for file in folder.iterdir()) == ["alice", "ci"]

    with a_gateway(cluster, log, f"--keys-dir={folder}", "--wrong-keys-per-minute=100000") as gateway:
        assert [status(gateway, key) for key in (ci, alice, None, "other")] == [200, 200, 401, 401]
        renewed = a_key(bench, "ci")
        remove = '[{"op": "remove", "path": "/data/alice"}]'
        bench.cluster.kubectl(
            "patch", "secret", SECRET, "--namespace", bench.namespace, "--type=json", "--patch", remove
        )
        mount(bench, folder)
        eventually(lambda: status(gateway, renewed) == 200, what="the new key opens")
        assert [status(gateway, key) for key in (ci, alice)] == [401, 401]

    text = log.read_text()
    assert "API keys are off" not in text
    assert not [key for key in (ci, alice, renewed) if key in text]


def test_a_gateway_without_keys_warns_of_it(cluster: Cluster, kube: Kube, tmp_path: Path) -> None:
    with a_gateway(cluster, tmp_path / "log") as gateway:
        assert status(gateway, None) == 200
    assert "API keys are off: whoever reaches this gateway may use every model" in (tmp_path / "log").read_text()
