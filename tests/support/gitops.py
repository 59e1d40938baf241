"""What Argo CD and Flux do, by their own code: the program `gitops-rules` of hack/cluster/gomods/gitops."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

__all__ = ["ARGOCD", "ROOT", "gitops_rules"]

ROOT = Path(__file__).parents[2]
ARGOCD = ROOT / "gitops" / "argocd"


@cache
def _program() -> Path:
    """Built where it is not yet."""
    hack = [sys.executable, str(ROOT / "hack" / "cluster")]
    subprocess.run([*hack, "build", "--only", "gitops-rules"], check=True, capture_output=True, timeout=1800)
    found = subprocess.run([*hack, "bin-dir"], check=True, capture_output=True, text=True, timeout=60)
    return Path(found.stdout.strip()) / "gitops-rules"


def gitops_rules(
    *arguments: str, stdin: object = None, kubeconfig: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Runs it, with `stdin` as JSON. Raises CalledProcessError where it fails."""
    return subprocess.run(
        [_program(), *arguments],
        input="" if stdin is None else json.dumps(stdin),
        env={**os.environ, **({"KUBECONFIG": str(kubeconfig)} if kubeconfig else {})},
        check=True,
        capture_output=True,
        text=True,
        timeout=120,
    )
