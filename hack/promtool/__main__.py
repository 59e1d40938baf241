"""Prints the path of promtool: $PROMTOOL, the one on PATH, or one that is unpacked from Debian's package `prometheus`.

The package is not installed: nothing is started, and no root is needed. It is fetched once, in seconds (19 MB).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

_CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "llamamodel-operator" / "promtool"


def main() -> int:
    """Exit status: 0 found, 1 it cannot be had."""
    found = os.environ.get("PROMTOOL") or shutil.which("promtool") or str(_CACHE)
    if found == str(_CACHE) and not _CACHE.is_file():
        try:
            _fetch()
        except (OSError, subprocess.CalledProcessError) as error:
            print(f"hack/promtool: install promtool, or set PROMTOOL to its path: {error}", file=sys.stderr)
            return 1
    print(found)
    return 0


def _fetch() -> None:
    _CACHE.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=_CACHE.parent) as folder:
        download = ["apt-get", "download", "--quiet", "--quiet", "prometheus"]
        if subprocess.run(download, cwd=folder, check=False, stdout=sys.stderr).returncode != 0:
            subprocess.run(["apt-get", "update", "--quiet"], check=True, stdout=sys.stderr)
            subprocess.run(download, cwd=folder, check=True, stdout=sys.stderr)
        (package,) = Path(folder).glob("*.deb")
        subprocess.run(["dpkg-deb", "--extract", package, folder], check=True)
        (Path(folder) / "usr/bin/promtool").rename(_CACHE)


if __name__ == "__main__":
    sys.exit(main())
