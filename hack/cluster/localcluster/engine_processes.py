"""Runs a cluster as plain processes: the control plane, and in full mode a node beside it."""

import os
from collections.abc import Sequence
from pathlib import Path

from .binaries import API_BINARIES, FULL_BINARIES
from .bringup import NODE_PATH, BringUp
from .builder import binary_cache, ensure_binaries
from .cgroups import CgroupTree
from .cleanup import check_owner, clean
from .console import Console
from .controlplane import issue_credentials
from .errors import ClusterError, NotRunningError, RequirementsError
from .gpus import labels_patch, status_patch
from .images import import_archive
from .instance import Instance
from .kubeapi import KubeApi
from .preflight import check_requirements
from .processes import alive
from .state import Engine, Mode, State, load_state, save_state
from .status import ComponentStatus, Status, nodes_from_list, stopped
from .supervisor import Supervisor

__all__ = ["ProcessEngine"]


class ProcessEngine:
    """A cluster of processes, each recorded as it starts."""

    kind: Engine = "processes"

    def __init__(self, *, instance: Instance, console: Console) -> None:
        self._instance = instance
        self._console = console

    def prepare(self, mode: Mode) -> Path:
        try:
            cache = binary_cache()
        except RequirementsError as error:
            check_requirements(mode, known=[str(error)])
            raise
        check_requirements(mode)
        check_owner(self._instance)
        names = FULL_BINARIES if mode == "full" else API_BINARIES
        return ensure_binaries(cache, names, console=self._console)

    def start(self, *, mode: Mode, gpus: int, bin_dir: Path) -> None:
        instance = self._instance
        self._make_directories()
        state = State(engine="processes", mode=mode, gpus=gpus, bin_dir=str(bin_dir))
        save_state(instance.state_file, state)
        with self._console.step("certificates"):
            credentials = issue_credentials(instance)
        procs = CgroupTree(instance.cgroup).create() if mode == "full" else None
        supervisor = Supervisor(instance=instance, state=state, bin_dir=bin_dir, cgroup_procs=procs)
        bring_up = BringUp(
            instance=instance,
            console=self._console,
            supervisor=supervisor,
            credentials=credentials,
            bin_dir=bin_dir,
        )
        if mode == "full":
            bring_up.full()
        else:
            bring_up.api_only()
        state.phase = "running"
        supervisor.save()

    def set_gpus(self, count: int) -> None:
        state = self._state()
        if state.mode == "api-only":
            return
        api = self._api(state.server)
        nodes = nodes_from_list(api.get("/api/v1/nodes"))
        if state.gpus != count or any(node.gpus != count for node in nodes):
            api.merge(NODE_PATH, labels_patch(count))
            api.merge(f"{NODE_PATH}/status", status_patch(count))
            state.gpus = count
            save_state(self._instance.state_file, state)

    def clean(self, *, keep_models: bool = False) -> None:
        clean(self._instance, keep_models=keep_models)

    def status(self) -> Status:
        instance = self._instance
        state = load_state(instance.state_file)
        if not state:
            return stopped(instance, bin_dir=_bin_dir_or_nothing())
        components = {
            name: ComponentStatus(pid=process.pid, alive=alive(process), log=process.log)
            for name, process in state.components.items()
        }
        dead = [name for name, component in components.items() if not component.alive]
        api = self._api(state.server) if state.server else None
        problem = ""
        if state.phase != "running":
            problem = f"it was left while {state.phase}"
        elif dead:
            problem = f"ended: {', '.join(dead)}"
        elif not api or not api.ready():
            problem = "the API server does not answer"
        nodes = nodes_from_list(api.get("/api/v1/nodes")) if api and not problem else []
        if any(not node.ready for node in nodes):
            problem = "the node is not ready"
        return Status(
            name=instance.name,
            state="broken" if problem else "running",
            engine="processes",
            mode=state.mode,
            problem=problem,
            server=state.server,
            kubeconfig=instance.kubeconfig,
            nodes=nodes,
            components=components,
            models_host_dir=instance.models_dir,
            models_node_path=instance.models_dir,
            audit_log=instance.audit_log,
            bin_dir=state.bin_dir,
        )

    def load_images(self, archives: Sequence[Path]) -> None:
        state = self._state()
        if state.mode == "api-only":
            raise ClusterError(f"cluster {self._instance.name!r} is api-only and runs no containers")
        for archive in archives:
            with self._console.step(f"load {archive}"):
                import_archive(archive, socket=self._instance.containerd_socket)

    def exec_command(self, argv: Sequence[str]) -> tuple[list[str], dict[str, str]]:
        state = self._state()
        inside = state.mode == "full"
        kubeconfig = self._instance.inner_kubeconfig if inside else self._instance.kubeconfig
        # A proxy would be looked for inside the namespace, where none is.
        environ = {k: v for k, v in os.environ.items() if not (inside and k.lower().endswith("_proxy"))}
        environ["KUBECONFIG"] = str(kubeconfig)
        environ["PATH"] = f"{state.bin_dir}:{environ.get('PATH', '')}"
        enter = ["nsenter", f"--net={self._instance.netns_path}", "--"] if inside else []
        return [*enter, *argv], environ

    def log(self, component: str) -> Path:
        components = self._state().components
        if component not in components:
            raise ClusterError(f"no component {component!r}; there are: {', '.join(components)}")
        return Path(components[component].log)

    def _state(self) -> State:
        state = load_state(self._instance.state_file)
        if not state:
            raise NotRunningError(f"there is no cluster {self._instance.name!r}; start it with 'up'")
        return state

    def _api(self, server: str) -> KubeApi:
        return KubeApi.as_admin(server, pki=self._instance.pki_dir)

    def _make_directories(self) -> None:
        instance = self._instance
        check_owner(instance)
        instance.run_dir.mkdir(mode=0o711, parents=True, exist_ok=True)
        instance.owner_file.write_text(f"{instance.state_dir}\n")
        instance.state_dir.mkdir(parents=True, exist_ok=True)
        instance.models_dir.mkdir(exist_ok=True)
        instance.config_dir.mkdir(exist_ok=True)


def _bin_dir_or_nothing() -> str:
    try:
        return str(binary_cache().bin_dir)
    except RequirementsError:
        return ""
