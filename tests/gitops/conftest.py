"""The program that has Argo CD's and Flux's own code in it."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
ARGOCD = ROOT / "gitops" / "argocd"


@cache
def _program() -> Path:
    """Built where it is not yet: see hack/cluster/gomods/gitops."""
    hack = [sys.executable, str(ROOT / "hack" / "cluster")]
    subprocess.run([*hack, "build", "--only", "gitops-rules"], check=True, capture_output=True, timeout=1800)
    found = subprocess.run([*hack, "bin-dir"], check=True, capture_output=True, text=True, timeout=60)
    return Path(found.stdout.strip()) / "gitops-rules"


def gitops_rules(*arguments: str, stdin: object = None) -> subprocess.CompletedProcess[str]:
    """Runs `gitops-rules`, with `stdin` as JSON. Raises CalledProcessError where it fails."""
    given = "" if stdin is None else json.dumps(stdin)
    return subprocess.run(
        [_program(), *arguments], input=given, check=True, capture_output=True, text=True, timeout=120
    )
