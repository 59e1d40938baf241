"""Runs a cluster in Docker with kind, and gives its node the same fake GPUs."""

import json
import os
import shutil
import string
import subprocess
from collections.abc import Sequence
from pathlib import Path

from .binaries import KIND_BINARIES, version_of
from .builder import binary_cache, ensure_binaries
from .console import Console
from .controlplane import AUDIT_POLICY
from .engine import docker_answers
from .errors import ClusterError, NotRunningError, RequirementsError
from .gpus import labels_patch, status_patch
from .instance import Instance
from .mounts import remove_directories
from .state import Engine, Mode, State, load_state, save_state
from .status import Status, nodes_from_list, stopped

__all__ = ["KindEngine", "binaries_for_kind"]

_TEMPLATE = Path(__file__).resolve().parents[2] / "kind" / "cluster.yaml"
_MODELS_NODE_PATH = Path("/var/lib/llamamodel/models")


def binaries_for_kind() -> tuple[str, ...]:
    """What is to be built: kind only where the one on PATH is of another release than the node's image."""
    found = shutil.which("kind")
    if found:
        done = subprocess.run([found, "version", "--quiet"], capture_output=True, text=True, check=False)
        if f"v{done.stdout.strip()}" == version_of("kind"):
            return tuple(name for name in KIND_BINARIES if name != "kind")
    return KIND_BINARIES


class KindEngine:
    """A cluster whose node is a container."""

    kind: Engine = "kind"

    def __init__(self, *, instance: Instance, console: Console) -> None:
        self._instance = instance
        self._console = console

    def prepare(self, mode: Mode) -> Path:
        if mode == "api-only":
            raise ClusterError("kind has no api-only mode; leave out --engine, or use processes")
        if not docker_answers():
            raise RequirementsError("'docker info' fails: start Docker, or use --engine processes")
        return ensure_binaries(binary_cache(), binaries_for_kind(), console=self._console)

    def start(self, *, mode: Mode, gpus: int, bin_dir: Path) -> None:
        instance = self._instance
        for directory in (instance.models_dir, instance.config_dir, instance.audit_log.parent):
            directory.mkdir(parents=True, exist_ok=True)
        state = State(engine="kind", mode=mode, gpus=gpus, bin_dir=str(bin_dir))
        save_state(instance.state_file, state)
        # The API server in the node is root and would make it for itself alone; one that is there it only appends to.
        instance.audit_log.touch()
        policy = instance.config_dir / "audit-policy.yaml"
        policy.write_text(json.dumps(AUDIT_POLICY, indent=2) + "\n")
        config = instance.config_dir / "kind.yaml"
        config.write_text(
            string.Template(_TEMPLATE.read_text()).substitute(
                MODELS_DIR=instance.models_dir,
                MODELS_NODE_PATH=_MODELS_NODE_PATH,
                AUDIT_DIR=instance.audit_log.parent,
                AUDIT_POLICY=policy,
            )
        )
        with self._console.step("kind cluster"):
            self._kind(
                "create", "cluster", "--name", instance.kind_cluster, "--config", str(config),
                "--kubeconfig", str(instance.kubeconfig), "--wait", "180s",
            )  # fmt: skip
        with self._console.step(f"{gpus} fake GPUs"):
            self.set_gpus(gpus)
        state = self._state()
        state.phase = "running"
        save_state(instance.state_file, state)

    def set_gpus(self, count: int) -> None:
        node = f"{self._instance.kind_cluster}-control-plane"
        labels, status = json.dumps(labels_patch(count)), json.dumps(status_patch(count))
        self._kubectl("patch", "node", node, "--type=merge", "-p", labels)
        self._kubectl("patch", "node", node, "--subresource=status", "--type=merge", "-p", status)
        state = self._state()
        state.gpus = count
        save_state(self._instance.state_file, state)

    def clean(self, *, keep_models: bool = False) -> None:
        instance = self._instance
        if load_state(instance.state_file):
            self._kind("delete", "cluster", "--name", instance.kind_cluster)
        kept = [instance.models_dir] if keep_models else []
        if instance.state_dir.exists():
            for entry in instance.state_dir.iterdir():
                if entry in kept:
                    continue
                if entry.is_dir():
                    remove_directories([entry])
                else:
                    entry.unlink()
            if not kept:
                instance.state_dir.rmdir()

    def status(self) -> Status:
        instance = self._instance
        state = load_state(instance.state_file)
        if not state:
            return stopped(instance, bin_dir="")
        problem = "" if state.phase == "running" else f"it was left while {state.phase}"
        nodes = []
        try:
            nodes = nodes_from_list(json.loads(self._kubectl("get", "nodes", "-o", "json")))
        except ClusterError:
            problem = problem or "the API server does not answer"
        if any(not node.ready for node in nodes):
            problem = "the node is not ready"
        return Status(
            name=instance.name,
            state="broken" if problem else "running",
            engine="kind",
            mode="full",
            problem=problem,
            server=state.server,
            kubeconfig=instance.kubeconfig,
            nodes=nodes,
            models_host_dir=instance.models_dir,
            models_node_path=_MODELS_NODE_PATH,
            audit_log=instance.audit_log,
            bin_dir=state.bin_dir,
        )

    def load_images(self, archives: Sequence[Path]) -> None:
        self._state()
        for archive in archives:
            with self._console.step(f"load {archive}"):
                cluster = self._instance.kind_cluster
                self._kind("load", "image-archive", str(archive), "--name", cluster)

    def exec_command(self, argv: Sequence[str]) -> tuple[list[str], dict[str, str]]:
        return list(argv), self._environ()

    def log(self, component: str) -> Path:
        raise ClusterError(
            f"kind keeps the log of {component!r} in its node; "
            f"get all with: kind export logs --name {self._instance.kind_cluster} DIRECTORY"
        )

    def _state(self) -> State:
        state = load_state(self._instance.state_file)
        if not state:
            raise NotRunningError(f"there is no cluster {self._instance.name!r}; start it with 'up'")
        return state

    def _environ(self) -> dict[str, str]:
        path = f"{self._state().bin_dir}:{os.environ.get('PATH', '')}"
        return {**os.environ, "KUBECONFIG": str(self._instance.kubeconfig), "PATH": path}

    def _kind(self, *arguments: str) -> str:
        return self._run("kind", *arguments)

    def _kubectl(self, *arguments: str) -> str:
        return self._run("kubectl", *arguments, "--request-timeout=10s")

    def _run(self, program: str, *arguments: str) -> str:
        environ = self._environ()
        # The search for the program happens with our PATH, not with that of the child.
        found = shutil.which(program, path=environ["PATH"]) or program
        done = subprocess.run([found, *arguments], env=environ, capture_output=True, text=True, check=False)
        if done.returncode:
            raise ClusterError(f"{program} {' '.join(arguments[:2])}: {done.stderr.strip()}")
        return done.stdout
