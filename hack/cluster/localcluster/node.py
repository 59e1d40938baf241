"""The node's configuration files and command lines: containerd, kubelet, kube-proxy, CoreDNS."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .controlplane import ControlPlane
from .images import PAUSE_IMAGE
from .instance import Instance
from .network import CLUSTER_DOMAIN, NODE_IP, NODE_NAME, POD_CIDR
from .supervisor import Component

__all__ = ["COREDNS_RBAC", "Node"]

_CONTAINERD = """\
version = 2
root = "{data}/containerd"
state = "{run}/containerd"
# NRI and opt use directories that all instances on a machine would share.
disabled_plugins = [
  "io.containerd.internal.v1.opt",
  "io.containerd.nri.v1.nri",
  "io.containerd.snapshotter.v1.aufs",
  "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs",
]

[grpc]
  address = "{socket}"

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  netns_mounts_under_state_dir = true
  # Inside a container or sandbox even root may not protect a process from the OOM killer.
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{cni}"
    conf_dir = "{config}/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      Root = "{run}/runc"
"""

# The kubelet keeps its socket for device plugins in a directory that cannot be configured, and
# empties it when it starts. It gets an empty one of its own there, in a mount namespace in which
# only the mount that holds this directory is cut off: volumes must still reach containerd.
_DEVICE_PLUGINS = "/var/lib/kubelet/device-plugins"
_HIDE_DEVICE_PLUGINS = f"""\
set -e
mkdir -p {_DEVICE_PLUGINS} "$0"
mount --make-private "$(findmnt -n -o TARGET -T {_DEVICE_PLUGINS})"
mount --bind "$0" {_DEVICE_PLUGINS}
exec "$@"
"""

# There is no way out of this cluster: names outside it are refused at once.
_COREFILE = f"""\
{CLUSTER_DOMAIN}:53 in-addr.arpa:53 ip6.arpa:53 {{
    bind {NODE_IP}
    errors
    kubernetes {CLUSTER_DOMAIN} in-addr.arpa ip6.arpa {{
        kubeconfig %s
    }}
}}
.:53 {{
    bind {NODE_IP}
    errors
    template ANY ANY {{
        rcode NXDOMAIN
    }}
}}
"""

_COREDNS_USER = "system:coredns"
_COREDNS_NAME = "system:coredns"
_RBAC = "rbac.authorization.k8s.io"
COREDNS_RBAC: list[tuple[str, dict[str, Any]]] = [
    (
        f"/apis/{_RBAC}/v1/clusterroles",
        {
            "metadata": {"name": _COREDNS_NAME},
            "rules": [
                {
                    "apiGroups": [""],
                    "resources": ["services", "pods", "namespaces"],
                    "verbs": ["list", "watch"],
                },
                {
                    "apiGroups": ["discovery.k8s.io"],
                    "resources": ["endpointslices"],
                    "verbs": ["list", "watch"],
                },
            ],
        },
    ),
    (
        f"/apis/{_RBAC}/v1/clusterrolebindings",
        {
            "metadata": {"name": _COREDNS_NAME},
            "roleRef": {"apiGroup": _RBAC, "kind": "ClusterRole", "name": _COREDNS_NAME},
            "subjects": [{"apiGroup": _RBAC, "kind": "User", "name": _COREDNS_USER}],
        },
    ),
]
"""What CoreDNS may read: pairs of the API path to create at, and the object."""


@dataclass(frozen=True, kw_only=True)
class Node:
    """Builds the components of the one node of a cluster."""

    instance: Instance
    control_plane: ControlPlane
    cni: Path
    """Where the CNI plugins are installed."""

    def containerd(self) -> Component:
        """The container runtime, sharing no directory with any other one on the machine."""
        config = self.instance.config_dir / "containerd.toml"
        self._write("cni/10-pods.conflist", self._pod_network())
        config.write_text(
            _CONTAINERD.format(
                data=self.instance.data_dir,
                run=self.instance.run_dir,
                config=self.instance.config_dir,
                socket=self.instance.containerd_socket,
                pause=PAUSE_IMAGE,
                cni=self.cni,
            )
        )
        return Component(name="containerd", argv=["containerd", "--config", str(config)])

    def kubelet(self) -> Component:
        """The kubelet; it neither evicts pods nor removes images for want of disk space."""
        credentials = self.control_plane.credentials
        serving = credentials.authority.server("kubelet-serving", hosts=[NODE_IP, NODE_NAME])
        config = {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": True},
                "x509": {"clientCAFile": str(credentials.authority.ca.cert)},
            },
            "authorization": {"mode": "Webhook"},
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": f"/{self.instance.cgroup}",
            "clusterDNS": [NODE_IP],
            "clusterDomain": CLUSTER_DOMAIN,
            "containerRuntimeEndpoint": f"unix://{self.instance.containerd_socket}",
            "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%"},
            "failCgroupV1": False,
            "failSwapOn": False,
            "imageGCHighThresholdPercent": 100,
            "podLogsDir": str(self.instance.log_dir / "pods"),
            "resolvConf": str(self._write_text("resolv.conf", f"nameserver {NODE_IP}\n")),
            "tlsCertFile": str(serving.cert),
            "tlsPrivateKeyFile": str(serving.key),
            "volumePluginDir": str(self.instance.data_dir / "volume-plugins"),
        }
        (self.instance.log_dir / "pods").mkdir(parents=True, exist_ok=True)
        return Component(
            name="kubelet",
            argv=[
                *("unshare", "--mount", "--propagation=unchanged", "--"),
                *("sh", "-c", _HIDE_DEVICE_PLUGINS, str(self.instance.data_dir / "device-plugins")),
                f"{self.control_plane.bin_dir}/kubelet",
                f"--config={self._write('kubelet.yaml', config)}",
                f"--kubeconfig={self.control_plane.kubelet_kubeconfig()}",
                f"--root-dir={self.instance.data_dir / 'kubelet'}",
                f"--hostname-override={NODE_NAME}",
                f"--node-ip={NODE_IP}",
            ],
        )

    def kube_proxy(self) -> Component:
        """Makes ClusterIPs work; leaves the kernel's connection limits, which are global."""
        kubeconfig = self.control_plane.component_kubeconfig("kube-proxy", user="system:kube-proxy")
        config = {
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "clientConnection": {"kubeconfig": str(kubeconfig)},
            "clusterCIDR": POD_CIDR,
            "conntrack": {
                "maxPerCore": 0,
                "min": 0,
                "tcpEstablishedTimeout": "0s",
                "tcpCloseWaitTimeout": "0s",
            },
            "hostnameOverride": NODE_NAME,
            "mode": "nftables",
        }
        return Component(
            name="kube-proxy",
            argv=[
                f"{self.control_plane.bin_dir}/kube-proxy",
                f"--config={self._write('kube-proxy.yaml', config)}",
            ],
        )

    def coredns(self) -> Component:
        """The name server, on the node's address."""
        kubeconfig = self.control_plane.component_kubeconfig("coredns", user=_COREDNS_USER)
        corefile = self._write_text("Corefile", _COREFILE % kubeconfig)
        return Component(name="coredns", argv=[f"{self.control_plane.bin_dir}/coredns", "-conf", str(corefile)])

    def _pod_network(self) -> dict[str, Any]:
        """A routed link for each pod.

        With a bridge, an answer from a pod to its neighbour passes by the address translation
        of Services unless the kernel module br_netfilter is loaded; routed, it cannot.
        """
        return {
            "cniVersion": "0.4.0",
            "name": self.instance.cni_network,
            "plugins": [
                {
                    "type": "ptp",
                    "ipam": {
                        "type": "host-local",
                        "ranges": [[{"subnet": POD_CIDR}]],
                        "routes": [{"dst": "0.0.0.0/0"}],
                        "dataDir": str(self.instance.data_dir / "cni"),
                    },
                },
                {"type": "portmap", "capabilities": {"portMappings": True}},
            ],
        }

    def _write(self, name: str, document: dict[str, Any]) -> Path:
        return self._write_text(name, json.dumps(document, indent=2) + "\n")

    def _write_text(self, name: str, text: str) -> Path:
        path = self.instance.config_dir / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path
