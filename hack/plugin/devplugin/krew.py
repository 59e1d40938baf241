"""Asks krew itself: its program for manifests of its index checks them and installs each platform's archive.

krew fetches by HTTP alone, so the archives are served on the loopback address meanwhile.
"""

from __future__ import annotations

import functools
import http.server
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .tree import ROOT

__all__ = ["VERSION", "served", "validate"]

VERSION = "v0.4.3"
"""Of sigs.k8s.io/krew: the newest that Go's module proxy has."""


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the name is the base class's)
        """Says nothing."""


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The folder's URL, while the block runs."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def validate(manifest: str, *, name: str) -> int:
    """Exit status of krew's own check of that manifest, which prints what is wrong."""
    with tempfile.TemporaryDirectory() as scratch:
        programs = Path(scratch) / "bin"
        packages = [f"sigs.k8s.io/krew/cmd/{program}@{VERSION}" for program in ("krew", "validate-krew-manifest")]
        subprocess.run(["go", "install", *packages], env={**os.environ, "GOBIN": str(programs)}, check=True)
        (programs / "krew").rename(programs / "kubectl-krew")
        cluster = [sys.executable, str(ROOT / "hack/cluster"), "bin-dir"]
        kubectl = subprocess.run(cluster, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()
        file = Path(scratch) / f"{name}.yaml"
        file.write_text(manifest)
        path = os.pathsep.join((str(programs), kubectl, os.environ["PATH"]))
        command = [str(programs / "validate-krew-manifest"), "-manifest", str(file)]
        return subprocess.run(command, env={**os.environ, "PATH": path}, check=False).returncode
