"""Ends and removes all that a cluster of processes left on the machine, and nothing else."""

import os
from pathlib import Path

from .cgroups import CgroupTree
from .errors import ClusterError
from .instance import Instance
from .mounts import remove_directories
from .network import remove_netns
from .processes import kill
from .state import State, load_state, save_state

__all__ = ["check_owner", "clean", "has_leftovers"]

_CNI_RESULTS = Path("/var/lib/cni/results")
_CONTAINER_LOGS = Path("/var/log/containers")


def check_owner(instance: Instance) -> None:
    """Raise ClusterError where the name's run directory is another's.

    Names are told apart by state directory, sockets and cgroups by machine.
    """
    try:
        foreign_user = instance.run_dir.lstat().st_uid != os.geteuid()
    except FileNotFoundError:
        return
    if foreign_user:
        raise ClusterError(f"{instance.run_dir} belongs to another user; choose another --name")
    owner = _owner(instance)
    if owner and owner != str(instance.state_dir):
        raise ClusterError(
            f"a cluster {instance.name!r} with its state in {owner} uses {instance.run_dir}; "
            "choose another --name, or take that one down with its XDG_STATE_HOME"
        )


def has_leftovers(instance: Instance) -> bool:
    """Whether anything of this cluster may be on the machine."""
    return instance.state_file.exists() or _owner(instance) == str(instance.state_dir)


def clean(instance: Instance, *, keep_models: bool = False) -> None:
    """End every process of the cluster, then remove what it used; may be run again."""
    check_owner(instance)
    state = load_state(instance.state_file)
    if state:
        state.phase = "stopping"
        save_state(instance.state_file, state)
        _end_processes(state)
    if os.geteuid() == 0:
        # Also finds what was started by components: pods, and the shims that hold them.
        CgroupTree(instance.cgroup).remove()
        remove_netns(instance)
        _remove_shared_files(instance)
    models = instance.models_dir
    kept = instance.state_dir.with_name(f".{instance.name}.models")
    if not keep_models:
        remove_directories([kept])
    elif models.is_dir() and not models.is_symlink() and not kept.exists():
        models.rename(kept)
    # The run directory names the owner: it goes last, so that an interrupted run can go on.
    remove_directories([instance.data_dir] if os.geteuid() == 0 else [])
    remove_directories([instance.state_dir])
    remove_directories([instance.run_dir])
    if kept.is_dir():
        instance.state_dir.mkdir(parents=True)
        kept.rename(models)


def _owner(instance: Instance) -> str:
    try:
        return instance.owner_file.read_text().strip()
    except (FileNotFoundError, PermissionError):
        return ""


def _end_processes(state: State) -> None:
    # The kubelet first, lest it starts pods again.
    for name in sorted(state.components, key=lambda name: name != "kubelet"):
        kill(state.components[name])


def _remove_shared_files(instance: Instance) -> None:
    """Remove our files from directories whose place cannot be configured."""
    shims = instance.run_dir / "containerd" / "io.containerd.runtime.v2.task" / "k8s.io"
    for address in shims.glob("*/address"):
        socket = Path(address.read_text().strip().removeprefix("unix://"))
        if socket.is_relative_to("/run/containerd"):
            socket.unlink(missing_ok=True)
    for sandbox in (instance.data_dir / "containerd/io.containerd.grpc.v1.cri/sandboxes").glob("*"):
        for result in _CNI_RESULTS.glob(f"*-{sandbox.name}-*"):
            result.unlink(missing_ok=True)
    for link in _CONTAINER_LOGS.glob("*.log"):
        if link.is_symlink() and link.readlink().is_relative_to(instance.log_dir):
            link.unlink(missing_ok=True)
