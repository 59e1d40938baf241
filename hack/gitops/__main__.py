"""Writes gitops/argocd/argocd-cm.yaml, a patch of Argo CD's ConfigMap, from the scripts beside it."""

from __future__ import annotations

import sys
from pathlib import Path

if sys.version_info < (3, 11):  # noqa: UP036  (whoever has an older one shall read why)
    sys.exit("hack/gitops needs Python 3.11 or newer")

_ARGOCD = Path(__file__).parents[2] / "gitops" / "argocd"
_SCRIPTS = _ARGOCD / "resource_customizations" / "llamamodel.dev" / "LlamaModel"
_KEY = "llamamodel.dev_LlamaModel"
_HEAD = """\
# Generated from resource_customizations/ by `make generate`. Do not edit.
# kubectl patch configmap argocd-cm --namespace argocd --patch-file gitops/argocd/argocd-cm.yaml
apiVersion: v1
kind: ConfigMap
metadata:
  name: argocd-cm
data:
"""


def main() -> None:
    """Writes the file."""
    health = _block(_script("health.lua"), indent=4)
    discovery = _block(_script("actions/discovery.lua"), indent=6)
    actions = "".join(
        f"    - name: {file.parent.name}\n      action.lua: |\n{_block(file.read_text(encoding='utf-8'), indent=8)}"
        for file in sorted(_SCRIPTS.glob("actions/*/action.lua"))
    )
    (_ARGOCD / "argocd-cm.yaml").write_text(
        f"{_HEAD}  resource.customizations.health.{_KEY}: |\n{health}"
        f"  resource.customizations.actions.{_KEY}: |\n"
        f"    discovery.lua: |\n{discovery}    definitions:\n{actions}",
        encoding="utf-8",
    )


def _script(path: str) -> str:
    return (_SCRIPTS / path).read_text(encoding="utf-8")


def _block(text: str, *, indent: int) -> str:
    """As a YAML literal block."""
    return "".join(f"{' ' * indent}{line}\n" if line else "\n" for line in text.splitlines())


if __name__ == "__main__":
    main()
