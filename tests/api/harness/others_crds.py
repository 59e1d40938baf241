"""CustomResourceDefinitions of other projects whose objects the chart has: theirs, out of their Go modules.

They are fetched once, into Go's cache of modules, and belong to nobody but them: nothing of it is in this repository.
"""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

__all__ = ["OTHERS", "OthersModule"]


@dataclass(frozen=True, kw_only=True)
class OthersModule:
    """A Go module of one version, and the files in it."""

    module: str
    version: str
    digest: str
    """As go.sum has it (h1, golang.org/x/mod/sumdb/dirhash)."""
    files: tuple[str, ...]

    def fetch(self, folder: Path) -> list[Path]:
        """The files; `folder` is one that is in no Go module. Fails where they are other files than before."""
        go = {"GOFLAGS": "", "GOWORK": "off", "GOTOOLCHAIN": "local"}
        command = ["go", "mod", "download", "-json", f"{self.module}@{self.version}"]
        done = subprocess.run(
            command, cwd=folder, env={**os.environ, **go}, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        fetched = json.loads(done.stdout)
        assert fetched["Sum"] == self.digest, f"{self.module} {self.version}: {fetched['Sum']}, not {self.digest}"
        return [Path(fetched["Dir"]) / file for file in self.files]


OTHERS = (
    OthersModule(
        module="github.com/prometheus-operator/prometheus-operator",
        version="v0.85.0",
        digest="h1:M5xLCLEoaW2IJfnuCwFzzpL+jSVQu3KGT84Pye+fW8s=",
        files=tuple(
            f"example/prometheus-operator-crd/monitoring.coreos.com_{plural}.yaml"
            for plural in ("podmonitors", "prometheusrules")
        ),
    ),
    OthersModule(
        module="sigs.k8s.io/gateway-api",
        version="v1.6.3",
        digest="h1:lKpJa5bGlraC/QeACvCpsHLdmO6y0iKfzVl6gzaFEYc=",
        files=("config/crd/standard/gateway.networking.k8s.io_httproutes.yaml",),
    ),
    OthersModule(
        module="github.com/cert-manager/cert-manager",
        version="v1.21.2",
        digest="h1:UWgoYM+KLNtRlqmoWOKjKBOBUPVHeepQ6/ac3ERJW68=",
        files=tuple(f"deploy/crds/cert-manager.io_{plural}.yaml" for plural in ("certificates", "issuers")),
    ),
)
