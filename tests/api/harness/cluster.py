"""An API server of the tests' own: started by hack/cluster, known by its kubeconfig, its processes, its audit log."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

__all__ = ["REPOSITORY", "Cluster", "running_cluster"]

REPOSITORY = Path(__file__).resolve().parents[3]
_UP_TIMEOUT_SEC = 1800  # the very first one builds its binaries


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """An etcd and an API server; no controllers, no kubelet, no scheduler."""

    name: str
    kubeconfig: Path
    audit_log: Path
    apiserver_pid: int
    bin_dir: Path
    scratch: Path
    """A folder for files of the tests."""

    @property
    def server(self) -> str:
        """URL of the API server."""
        url: str = self._config["clusters"][0]["cluster"]["server"]
        return url

    @property
    def authority(self) -> str:
        """Certificate of the authority, PEM."""
        return _decoded(self._config["clusters"][0]["cluster"], "certificate-authority-data")

    @property
    def client_pair(self) -> Path:
        """A file with the administrator's certificate and key, PEM."""
        path = self.scratch / "admin.pem"
        if not path.exists():
            user = self._config["users"][0]["user"]
            path.touch(mode=0o600)
            path.write_text(_decoded(user, "client-certificate-data") + _decoded(user, "client-key-data"))
        return path

    def kubeconfig_for(self, name: str, *, token: str) -> Path:
        """A kubeconfig by which a process is somebody else than the administrator."""
        config = self._config
        user = {"name": name, "user": {"token": token}}
        return self._write(name, {**config, "users": [user], "contexts": [_context(config, user=name)]})

    def kubeconfig_by_way_of(self, server: str) -> Path:
        """A kubeconfig without credentials, for a proxy that adds the administrator's."""
        config = self._config
        cluster = {"name": config["clusters"][0]["name"], "cluster": {"server": server}}
        users = [{"name": "nobody", "user": {}}]
        changed = {"clusters": [cluster], "users": users, "contexts": [_context(config, user="nobody")]}
        return self._write(server.rsplit(":", 1)[-1], {**config, **changed})

    def kubectl(self, *arguments: str, stdin: str = "", check: bool = True) -> subprocess.CompletedProcess[str]:
        """Runs kubectl as the administrator."""
        finished = subprocess.run(
            [self.bin_dir / "kubectl", *arguments],
            env={**os.environ, "KUBECONFIG": str(self.kubeconfig), "HOME": str(self.scratch)},
            input=stdin,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        if check and finished.returncode:
            raise AssertionError(f"kubectl {' '.join(arguments)}: {finished.stderr.strip()}")
        return finished

    @property
    def _config(self) -> dict[str, Any]:
        config: dict[str, Any] = yaml.safe_load(self.kubeconfig.read_text())
        return config

    def _write(self, name: str, config: Mapping[str, Any]) -> Path:
        path = self.scratch / f"{name}.kubeconfig"
        path.touch(mode=0o600)
        path.write_text(yaml.safe_dump(dict(config)))
        return path


@contextmanager
def running_cluster(*, name: str, scratch: Path) -> Iterator[Cluster]:
    """Up at the start, down at the end, whatever happened in between."""
    try:
        document = json.loads(_hack("up", "--mode", "api-only", "-o", "json", name=name))
        yield Cluster(
            name=name,
            kubeconfig=Path(document["kubeconfig"]),
            audit_log=Path(document["auditLog"]),
            apiserver_pid=document["components"]["kube-apiserver"]["pid"],
            bin_dir=Path(document["binDir"]),
            scratch=scratch,
        )
    finally:
        _hack("down", name=name)


def _hack(verb: str, *arguments: str, name: str) -> str:
    command = [sys.executable, str(REPOSITORY / "hack" / "cluster"), verb, "--name", name, *arguments]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=_UP_TIMEOUT_SEC, check=False)
    if finished.returncode:
        raise RuntimeError(f"hack/cluster {verb} failed ({finished.returncode}): {finished.stderr.strip()}")
    return finished.stdout


def _decoded(section: Mapping[str, str], key: str) -> str:
    return base64.b64decode(section[key]).decode()


def _context(config: Mapping[str, Any], *, user: str) -> dict[str, Any]:
    known: dict[str, Any] = config["contexts"][0]
    return {**known, "context": {**known["context"], "user": user}}
