"""Kubeconfig files, written as JSON, which every YAML reader reads."""

import base64
import json
from pathlib import Path

from .pki import KeyPair

__all__ = ["write_kubeconfig"]


def write_kubeconfig(path: Path, *, server: str, ca: Path, client: KeyPair, cluster: str, user: str) -> None:
    """Write a file that needs no other: keys and certificates are embedded."""

    def embed(file: Path) -> str:
        return base64.b64encode(file.read_bytes()).decode()

    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": cluster,
        "clusters": [
            {
                "name": cluster,
                "cluster": {"server": server, "certificate-authority-data": embed(ca)},
            }
        ],
        "users": [
            {
                "name": user,
                "user": {
                    "client-certificate-data": embed(client.cert),
                    "client-key-data": embed(client.key),
                },
            }
        ],
        "contexts": [{"name": cluster, "context": {"cluster": cluster, "user": user}}],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600)
    path.write_text(json.dumps(document, indent=2) + "\n")
