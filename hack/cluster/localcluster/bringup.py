"""Starts the processes of a cluster in their order, each step waiting for what the next needs."""

import platform
import socket
import sys
from pathlib import Path

from . import relay
from .console import Console
from .controlplane import ControlPlane, Credentials
from .errors import BrokenError, RequirementsError
from .gpus import labels_patch, status_patch
from .images import import_archive, write_pause_archive
from .instance import Instance
from .kubeapi import KubeApi
from .kubeconfigs import write_kubeconfig
from .mounts import make_shared
from .network import NODE_IP, NODE_NAME, create_netns, dns_answers
from .node import COREDNS_RBAC, Node
from .preflight import cni_dir
from .processes import tail
from .state import Mode
from .status import nodes_from_list
from .supervisor import Component, Supervisor

__all__ = ["NODE_PATH", "BringUp"]

NODE_PATH = f"/api/v1/nodes/{NODE_NAME}"

_API_PORT = 6443
_PORT_ATTEMPTS = 5
_START_TIMEOUT_SEC = 120.0
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


class BringUp:
    """One start of one cluster."""

    def __init__(
        self,
        *,
        instance: Instance,
        console: Console,
        supervisor: Supervisor,
        credentials: Credentials,
        bin_dir: Path,
    ) -> None:
        self._instance = instance
        self._console = console
        self._supervisor = supervisor
        self._credentials = credentials
        self._bin_dir = bin_dir

    def api_only(self) -> None:
        """Start etcd and the API server, on the machine's loopback."""
        with self._console.step("etcd"):
            self._supervisor.start(self._control_plane(mode="api-only", port=0).etcd())
            self._wait_for_etcd()
        with self._console.step("API server"):
            for attempt in range(1, _PORT_ATTEMPTS + 1):
                port = _free_port()
                self._supervisor.start(self._control_plane(mode="api-only", port=port).apiserver())
                self._supervisor.state.server = f"https://127.0.0.1:{port}"
                self._supervisor.save()
                try:
                    self._wait_for_api()
                    break
                except BrokenError:
                    # Between finding a free port and using it, another process may take it.
                    log = Path(self._supervisor.state.components["kube-apiserver"].log)
                    taken = "address already in use" in tail(log, lines=20)
                    if not taken or attempt == _PORT_ATTEMPTS:
                        raise
        self._write_kubeconfig(self._instance.kubeconfig, server=self._supervisor.state.server)

    def full(self) -> None:
        """Start everything, in a network namespace, with a relay to the API server."""
        instance = self._instance
        plugins = cni_dir()
        if not plugins:
            raise RequirementsError("the CNI plugins are gone; install them again, then run 'up'")
        control_plane = self._control_plane(mode="full", port=_API_PORT)
        node = Node(instance=instance, control_plane=control_plane, cni=plugins)
        with self._console.step("network namespace"):
            make_shared(instance.data_dir)
            create_netns(instance)
        with self._console.step("etcd and containerd"):
            self._supervisor.start(control_plane.etcd())
            self._supervisor.start(node.containerd())
            self._wait_for_etcd()
        with self._console.step("API server"):
            self._supervisor.start(control_plane.apiserver())
            self._start_relay()
            self._write_kubeconfig(instance.kubeconfig, server=self._supervisor.state.server)
            self._write_kubeconfig(instance.inner_kubeconfig, server=f"https://{NODE_IP}:{_API_PORT}")
            self._import_pause()
            self._wait_for_api()
        api = KubeApi.as_admin(self._supervisor.state.server, pki=self._instance.pki_dir)
        with self._console.step("controllers, name server and node"):
            for path, document in COREDNS_RBAC:
                api.create(path, document)
            for component in (
                node.kubelet(),
                control_plane.controller_manager(),
                control_plane.scheduler(),
                node.kube_proxy(),
                node.coredns(),
            ):
                self._supervisor.start(component)
            self._wait_for_node(api)
        with self._console.step(f"{self._supervisor.state.gpus} fake GPUs"):
            self._wait_for_gpus(api)

    def _control_plane(self, *, mode: Mode, port: int) -> ControlPlane:
        return ControlPlane(
            instance=self._instance,
            bin_dir=self._bin_dir,
            credentials=self._credentials,
            mode=mode,
            port=port,
        )

    def _write_kubeconfig(self, path: Path, *, server: str) -> None:
        write_kubeconfig(
            path,
            server=server,
            ca=self._credentials.authority.ca.cert,
            client=self._credentials.admin,
            cluster=f"llamamodel-{self._instance.name}",
            user=f"llamamodel-{self._instance.name}-admin",
        )

    def _wait_for_etcd(self) -> None:
        path = self._instance.run_dir / "etcd.sock"
        self._supervisor.wait("etcd", path.exists, timeout_sec=_START_TIMEOUT_SEC)

    def _wait_for_api(self) -> None:
        api = KubeApi.as_admin(self._supervisor.state.server, pki=self._instance.pki_dir)
        self._supervisor.wait("the API server", api.ready, timeout_sec=_START_TIMEOUT_SEC)
        for namespace in ("default", "kube-system"):
            self._supervisor.wait(
                f"namespace {namespace}",
                lambda path=f"/api/v1/namespaces/{namespace}": bool(api.get(path)),  # type: ignore[misc]
                timeout_sec=_START_TIMEOUT_SEC,
            )

    def _wait_for_node(self, api: KubeApi) -> None:
        def node_ready() -> bool:
            node = api.get(NODE_PATH)
            return bool(node and not node["spec"].get("taints") and nodes_from_list({"items": [node]})[0].ready)

        account = "/api/v1/namespaces/default/serviceaccounts/default"
        for what, ready in (
            ("the node", node_ready),
            ("the default service account", lambda: bool(api.get(account))),
            ("the name server", lambda: dns_answers(self._instance)),
        ):
            self._supervisor.wait(what, ready, timeout_sec=_START_TIMEOUT_SEC)

    def _wait_for_gpus(self, api: KubeApi) -> None:
        count = self._supervisor.state.gpus
        api.merge(NODE_PATH, labels_patch(count))
        api.merge(f"{NODE_PATH}/status", status_patch(count))
        self._supervisor.wait(
            "the GPUs",
            lambda: [node.gpus for node in nodes_from_list(api.get("/api/v1/nodes"))] == [count],
            timeout_sec=_START_TIMEOUT_SEC,
        )

    def _start_relay(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            descriptor = listener.fileno()
            arguments = [str(descriptor), str(self._instance.netns_path), NODE_IP, str(_API_PORT)]
            self._supervisor.state.server = f"https://127.0.0.1:{listener.getsockname()[1]}"
            self._supervisor.start(
                Component(
                    name="relay",
                    argv=[sys.executable, str(relay.__file__), *arguments],
                    outside=True,
                    pass_fds=[descriptor],
                )
            )

    def _import_pause(self) -> None:
        socket_path = self._instance.containerd_socket
        self._supervisor.wait("containerd", socket_path.exists, timeout_sec=_START_TIMEOUT_SEC)
        archive = self._instance.config_dir / "pause.tar"
        machine = platform.machine()
        architecture = _ARCHITECTURES.get(machine, machine)
        write_pause_archive(archive, binary=self._bin_dir / "pause", architecture=architecture)
        import_archive(archive, socket=socket_path)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port
