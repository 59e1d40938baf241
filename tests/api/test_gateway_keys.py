"""Keys of the gateway, from the command line by a real API server to the gateway's process: made, gathered in one
Secret, mounted as the kubelet would, exchanged while it runs."""

from __future__ import annotations

import base64
import subprocess
import sys
from pathlib import Path

import httpx

from .harness.bench import Bench
from .harness.cluster import Cluster
from .harness.gateway import a_gateway
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
