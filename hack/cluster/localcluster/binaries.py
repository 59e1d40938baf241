"""Which binaries the cluster needs, which Go module each comes from, and where they are kept.

Every directory below ``gomods/`` is a Go module of its own with a committed go.sum: they pin
different versions of the same libraries. Built binaries lie in the user's cache, in one
directory for each module and version; ``bin_dir`` is a directory of links to the current ones.
"""

import hashlib
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from .errors import ClusterError
from .instance import cache_home

__all__ = ["API_BINARIES", "FULL_BINARIES", "KIND_BINARIES", "Binary", "BinaryCache", "Module", "resolve", "version_of"]

GOMODS_DIR = Path(__file__).resolve().parent.parent / "gomods"


@dataclass(frozen=True)
class Module:
    """A Go module with a go.mod of ours; ``source`` is the upstream module that it pins."""

    name: str
    source: str = ""
    version_variables: tuple[str, ...] = ()
    """Go string variables that get the upstream version, such as v1.2.3."""

    @property
    def directory(self) -> Path:
        return GOMODS_DIR / self.name

    @property
    def version(self) -> str:
        """The upstream version that go.mod requires, such as v1.2.3; empty for code of ours."""
        text = (self.directory / "go.mod").read_text()
        found = re.search(rf"^\s*(?:require )?{re.escape(self.source)} (v\S+)", text, re.MULTILINE)
        return found[1] if self.source and found else ""

    @property
    def ldflags(self) -> str:
        flags = ["-s", "-w"]
        for variable in self.version_variables:
            flags += ["-X", f"{variable}={self.version}"]
        if self.source == "k8s.io/kubernetes":
            major, minor = self.version.removeprefix("v").split(".")[:2]
            for package in ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version"):
                flags += ["-X", f"{package}.gitMajor={major}", "-X", f"{package}.gitMinor={minor}"]
        return " ".join(flags)

    def key(self, *, go_version: str) -> str:
        """Changes whenever the built binaries would."""
        digest = hashlib.sha256(f"{go_version} {self.ldflags}".encode())
        for file in sorted(self.directory.iterdir()):
            if file.name in ("go.mod", "go.sum") or file.suffix == ".go":
                digest.update(file.name.encode() + b"\0" + file.read_bytes())
        return digest.hexdigest()[:12]


@dataclass(frozen=True)
class Binary:
    """A program and the Go package it is built from."""

    name: str
    module: Module
    package: str


_KUBERNETES_VERSION = ("k8s.io/component-base/version.gitVersion", "k8s.io/client-go/pkg/version.gitVersion")
_KUBERNETES = Module("kubernetes", "k8s.io/kubernetes", _KUBERNETES_VERSION)
_BINARIES = {
    binary.name: binary
    for binary in (
        Binary("etcd", Module("etcd", "go.etcd.io/etcd/server/v3"), "go.etcd.io/etcd/server/v3"),
        *(
            Binary(name, _KUBERNETES, f"k8s.io/kubernetes/cmd/{name}")
            for name in (
                "kube-apiserver",
                "kube-controller-manager",
                "kube-scheduler",
                "kube-proxy",
                "kubelet",
                "kubectl",
            )
        ),
        Binary("coredns", Module("coredns", "github.com/coredns/coredns"), "."),
        Binary("pause", Module("pause"), "."),
        Binary(
            "helm",
            Module("helm", "helm.sh/helm/v4", ("helm.sh/helm/v4/internal/version.version",)),
            "helm.sh/helm/v4/cmd/helm",
        ),
        Binary("kwok", Module("kwok", "sigs.k8s.io/kwok"), "sigs.k8s.io/kwok/cmd/kwok"),
        Binary("kind", Module("kind", "sigs.k8s.io/kind"), "sigs.k8s.io/kind"),
        Binary(
            "kubeadm",
            Module("kubeadm", "k8s.io/kubernetes", _KUBERNETES_VERSION),
            "k8s.io/kubernetes/cmd/kubeadm",
        ),
        Binary("gitops-rules", Module("gitops", "github.com/argoproj/argo-cd/gitops-engine"), "."),
        Binary(
            "kube-score",
            Module("kube-score", "github.com/zegl/kube-score"),
            "github.com/zegl/kube-score/cmd/kube-score",
        ),
    )
}

API_BINARIES = ("etcd", "kube-apiserver", "kubectl")
"""What ``--mode api-only`` starts, and the client for it."""

FULL_BINARIES = tuple(
    name for name in _BINARIES if name not in ("kwok", "kind", "kubeadm", "gitops-rules", "kube-score")
)
"""What ``--mode full`` needs, and the clients for it."""

KIND_BINARIES = ("kind", "kubectl", "helm")
"""What a cluster in Docker needs, and the clients for it."""


def version_of(name: str) -> str:
    """The upstream version that a binary is built from, such as v1.2.3."""
    return _BINARIES[name].module.version


def resolve(names: str) -> tuple[str, ...]:
    """Binaries of a comma-separated list; ``kube-`` may be left out of a name."""
    chosen = []
    for name in filter(None, re.split(r"[,\s]+", names)):
        known = next((full for full in (name, f"kube-{name}") if full in _BINARIES), None)
        if not known:
            raise ClusterError(f"no binary {name!r}; there are: {', '.join(_BINARIES)}")
        chosen.append(known)
    return tuple(chosen)


class BinaryCache:
    """Where built binaries lie, for one version of Go."""

    def __init__(self, *, go_version: str, root: Path | None = None) -> None:
        self._go_version = go_version
        self._root = root or cache_home()

    @property
    def lock_file(self) -> Path:
        return self._root / ".build.lock"

    @cached_property
    def bin_dir(self) -> Path:
        """Links to the binaries of the current versions of all modules."""
        modules = {binary.module for binary in _BINARIES.values()}
        keys = sorted(f"{m.name}-{m.key(go_version=self._go_version)}" for m in modules)
        return self._root / "bin" / hashlib.sha256(" ".join(keys).encode()).hexdigest()[:12]

    def store_dir(self, module: Module) -> Path:
        """The binaries of one version of one module."""
        return self._root / "store" / f"{module.name}-{module.key(go_version=self._go_version)}"

    def missing(self, names: tuple[str, ...]) -> list[Binary]:
        """Those that are not built; links every one that is into ``bin_dir``."""
        absent = []
        for binary in (_BINARIES[name] for name in names):
            if not (self.bin_dir / binary.name).exists() and not self._link(binary):
                absent.append(binary)
        return absent

    def _link(self, binary: Binary) -> bool:
        target = self.store_dir(binary.module) / binary.name
        if not target.exists():
            return False
        self.bin_dir.mkdir(parents=True, exist_ok=True)
        link = self.bin_dir / binary.name
        link.unlink(missing_ok=True)
        link.symlink_to(target)
        return True
