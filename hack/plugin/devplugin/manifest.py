"""The manifest by which krew finds and installs the plugin (krew.googlecontainertools.github.com/v1alpha2)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .platforms import PLATFORMS, PYTHONS
from .tree import LAUNCHER

__all__ = ["NAME", "archive_name", "manifest"]

NAME = "llamamodel"

_DESCRIPTION = """\
Looks at LlamaModels (llamamodel.dev) before they run: validates manifests, renders the objects and the llama-server
command line that the operator would make, reads GGUF files, estimates the memory that a model takes. And at those that
run: status, load, logs, benchmarks.
"""

_CAVEATS = f"""\
It needs python3 on PATH: CPython {PYTHONS[0]} to {PYTHONS[-1]}, on Linux with glibc 2.28 or newer (no musl).
Nothing else has to be installed, and nothing is downloaded when it runs.
"""


def archive_name(platform: str, *, version: str) -> str:
    """`kubectl-llamamodel_0.1.0_linux-amd64.tar.gz`."""
    return f"{LAUNCHER}_{version}_{platform}.tar.gz"


def manifest(*, version: str, homepage: str, url: str, sums: Mapping[str, str]) -> dict[str, Any]:
    """The manifest, as an object; `url` is the folder of the archives, `sums` the SHA-256 of each platform's."""
    return {
        "apiVersion": "krew.googlecontainertools.github.com/v1alpha2",
        "kind": "Plugin",
        "metadata": {"name": NAME},
        "spec": {
            "version": f"v{version}",
            "homepage": homepage,
            "shortDescription": "Check, estimate and watch LlamaModels",
            "description": _DESCRIPTION,
            "caveats": _CAVEATS,
            "platforms": [
                {
                    "selector": {"matchLabels": {"os": PLATFORMS[platform].os, "arch": PLATFORMS[platform].arch}},
                    "uri": f"{url.rstrip('/')}/{archive_name(platform, version=version)}",
                    "sha256": digest,
                    "bin": LAUNCHER,
                }
                for platform, digest in sums.items()
            ],
        },
    }
