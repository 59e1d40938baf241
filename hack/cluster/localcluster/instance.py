"""One named cluster: every path, socket, namespace and cgroup that belongs to it."""

import os
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from .errors import ClusterError

__all__ = ["DEFAULT_NAME", "NAME_VARIABLE", "Instance", "cache_home", "clusters_home"]

DEFAULT_NAME = "dev"
NAME_VARIABLE = "LLAMAMODEL_CLUSTER"

_PRODUCT = "llamamodel-operator"
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,18}[a-z0-9])?")


def _xdg(environ: Mapping[str, str], variable: str, fallback: str) -> Path:
    value = environ.get(variable, "")
    base = Path(value) if value.startswith("/") else Path(environ.get("HOME", "/")) / fallback
    return base / _PRODUCT


def cache_home(*, environ: Mapping[str, str] = os.environ) -> Path:
    """The directory for built binaries, shared by every checkout and cluster of the user."""
    return _xdg(environ, "XDG_CACHE_HOME", ".cache")


def clusters_home(*, environ: Mapping[str, str] = os.environ) -> Path:
    """The directory that holds one directory for each cluster of the user."""
    return _xdg(environ, "XDG_STATE_HOME", ".local/state") / "clusters"


@dataclass(frozen=True, kw_only=True)
class Instance:
    """Where one cluster keeps things.

    ``state_dir`` holds configuration, keys, logs and models. ``run_dir`` and ``data_dir`` are
    short, because a Unix socket's path may have 107 bytes and the kubelet makes sockets deep
    below its root directory.
    """

    name: str
    state_dir: Path
    run_dir: Path
    data_dir: Path

    @classmethod
    def named(
        cls,
        name: str,
        *,
        environ: Mapping[str, str] = os.environ,
        uid: int | None = None,
    ) -> "Instance":
        """Return the cluster of that name; raise ClusterError where the name is no good."""
        if not _NAME.fullmatch(name):
            raise ClusterError(
                f"cluster name {name!r}: expected 1 to 20 of a-z, 0-9 and '-', with a letter or digit at both ends"
            )
        uid = os.geteuid() if uid is None else uid
        state_dir = clusters_home(environ=environ) / name
        if uid == 0:
            run_dir = Path("/run") / f"llamamodel-{name}"
        elif environ.get("XDG_RUNTIME_DIR", "").startswith("/"):
            run_dir = Path(environ["XDG_RUNTIME_DIR"]) / f"llamamodel-{name}"
        else:
            run_dir = Path(tempfile.gettempdir()) / f"llamamodel-{uid}-{name}"
        return cls(
            name=name,
            state_dir=state_dir,
            run_dir=run_dir,
            data_dir=Path("/var/lib") / f"llamamodel-{name}",
        )

    @property
    def lock_file(self) -> Path:
        """Held while a command changes the cluster; beside the state, which ``down`` removes."""
        return self.state_dir.with_name(f".{self.name}.lock")

    @property
    def state_file(self) -> Path:
        return self.state_dir / "state.json"

    @property
    def owner_file(self) -> Path:
        """Names the state directory whose cluster this run directory belongs to."""
        return self.run_dir / "owner"

    @property
    def pki_dir(self) -> Path:
        return self.state_dir / "pki"

    @property
    def config_dir(self) -> Path:
        return self.state_dir / "config"

    @property
    def log_dir(self) -> Path:
        return self.state_dir / "logs"

    @property
    def models_dir(self) -> Path:
        return self.state_dir / "models"

    @property
    def audit_log(self) -> Path:
        return self.state_dir / "audit" / "audit.log"

    @property
    def kubeconfig(self) -> Path:
        """For use from anywhere on the machine."""
        return self.state_dir / "kubeconfig"

    @property
    def inner_kubeconfig(self) -> Path:
        """For use inside the cluster's network namespace."""
        return self.config_dir / "admin.kubeconfig"

    @property
    def containerd_socket(self) -> Path:
        return self.run_dir / "containerd.sock"

    @property
    def netns(self) -> str:
        """Name of the network namespace, as ``ip netns`` shows it."""
        return f"llamamodel-{self.name}"

    @property
    def netns_path(self) -> Path:
        return Path("/run/netns") / self.netns

    @property
    def cgroup(self) -> str:
        """Path of the cgroup below each hierarchy's root."""
        return f"llamamodel-{self.name}"

    @property
    def cni_network(self) -> str:
        """Name of the pod network; '_' is in no cluster name, so no name is another's prefix."""
        return f"llamamodel_{self.name}_pods"

    @property
    def kind_cluster(self) -> str:
        return f"llamamodel-{self.name}"
