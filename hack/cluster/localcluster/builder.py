"""Builds the missing binaries with Go, one module at a time, showing how far it is."""

import os
import re
import selectors
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from .binaries import GOMODS_DIR, Binary, BinaryCache, Module
from .console import Console
from .errors import ClusterError, RequirementsError
from .locks import locked

__all__ = ["binary_cache", "ensure_binaries"]

_FLAGS = ("-buildvcs=false", "-trimpath")
_PACKAGE = re.compile(r"[\w.~/+-]+")


def _go_environment() -> dict[str, str]:
    environ = {k: v for k, v in os.environ.items() if k not in ("GOOS", "GOARCH", "GOEXPERIMENT")}
    fixed = {"GOTOOLCHAIN": "local", "GOFLAGS": "-mod=readonly", "GOWORK": "off"}
    return {**environ, **fixed, "CGO_ENABLED": "0"}


def _needed_go() -> tuple[int, ...]:
    found = (re.search(r"^go (\d+)\.(\d+)", file.read_text(), re.MULTILINE) for file in GOMODS_DIR.glob("*/go.mod"))
    return max(tuple(map(int, match.groups())) for match in found if match)


def binary_cache() -> BinaryCache:
    """The cache for the installed Go; raises RequirementsError where there is none, or an old one.

    Go is asked even if everything is built, because its version is part of the cache's key.
    """
    needed = ".".join(map(str, _needed_go()))
    if not shutil.which("go"):
        raise RequirementsError(
            f"no 'go' on PATH: Go {needed} or newer builds the cluster's binaries; install it from https://go.dev/dl/"
        )
    done = subprocess.run(["go", "version"], env=_go_environment(), capture_output=True, text=True, check=False)
    found = re.search(r"go((\d+)\.(\d+)\S*)", done.stdout)
    if not found:
        raise RequirementsError(f"'go version' failed: {done.stderr.strip() or done.stdout}")
    if (int(found[2]), int(found[3])) < _needed_go():
        raise RequirementsError(
            f"Go {found[1]} is too old: {needed} or newer is needed; install it from https://go.dev/dl/"
        )
    return BinaryCache(go_version=found[1])


def ensure_binaries(cache: BinaryCache, names: tuple[str, ...], *, console: Console) -> Path:
    """Build what is missing and return the directory that holds all of them."""
    if not cache.missing(names):
        return cache.bin_dir
    with locked(cache.lock_file, console=console, doing="building binaries"):
        for module, group in groupby(cache.missing(names), key=lambda binary: binary.module):
            binaries = list(group)
            title = f"build {', '.join(binary.name for binary in binaries)} {module.version}"
            with console.step(title.rstrip()):
                _build(module, binaries, cache=cache, console=console)
        if absent := cache.missing(names):
            raise ClusterError(f"built, yet not there: {', '.join(b.name for b in absent)}")
    return cache.bin_dir


def _build(module: Module, binaries: list[Binary], *, cache: BinaryCache, console: Console) -> None:
    store = cache.store_dir(module)
    store.mkdir(parents=True, exist_ok=True)
    packages = [binary.package for binary in binaries]
    console.progress(f"{module.name}: reading the module")
    total = _count_stale(module, packages)
    with tempfile.TemporaryDirectory(dir=store, prefix=".build-") as target:
        # One package gets its file's name from us, since "." would take the module's.
        output = f"{target}/" if len(binaries) > 1 else f"{target}/{binaries[0].name}"
        command = ["go", "build", "-v", *_FLAGS, "-ldflags", module.ldflags, "-o", output]
        process = subprocess.Popen(
            [*command, *packages],
            cwd=module.directory,
            env=_go_environment(),
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
        )
        try:
            complaints = _follow(process, module=module, total=total, console=console)
        except BaseException:
            process.send_signal(signal.SIGINT)
            process.wait()
            raise
        if process.wait():
            reason = "\n".join(complaints[-15:])
            raise ClusterError(f"go build of {module.name} in {module.directory} failed:\n{reason}")
        for file in Path(target).iterdir():
            file.replace(store / file.name)


def _count_stale(module: Module, packages: list[str]) -> int:
    """How many packages are to be compiled; 0 where that cannot be told."""
    template = "{{if .Stale}}{{.ImportPath}}{{end}}"
    done = subprocess.run(
        ["go", "list", "-deps", *_FLAGS, "-f", template, *packages],
        cwd=module.directory,
        env=_go_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    return len(done.stdout.split())


def _follow(process: "subprocess.Popen[bytes]", *, module: Module, total: int, console: Console) -> list[str]:
    """Show progress until the compiler ends; returns the lines that are no package names."""
    begun = time.monotonic()
    compiled = 0
    last = ""
    complaints = []
    for line in _lines_or_ticks(process):
        if line and _PACKAGE.fullmatch(line):
            compiled += 1
            last = line
        elif line.startswith("go: downloading"):
            last = line
        elif line:
            complaints.append(line)
        elapsed = int(time.monotonic() - begun)
        share = f"{min(99, 100 * compiled // total)}% " if total else ""
        count = f"{compiled}/{total}" if total else f"{compiled}"
        clock = f"{elapsed // 60}:{elapsed % 60:02}"
        console.progress(f"{module.name}: {share}{clock}, {count} packages  {last[-50:]}")
    return complaints


def _lines_or_ticks(process: "subprocess.Popen[bytes]") -> Iterator[str]:
    """Lines of standard error, and an empty one each second in which there is none."""
    if process.stderr is None:
        return
    descriptor = process.stderr.fileno()
    pending = b""
    with selectors.DefaultSelector() as selector:
        selector.register(descriptor, selectors.EVENT_READ)
        while True:
            if not selector.select(timeout=1.0):
                yield ""
                continue
            chunk = os.read(descriptor, 65536)
            if not chunk:
                return
            *lines, pending = (pending + chunk).split(b"\n")
            for line in lines:
                yield line.decode(errors="replace")
