"""The control plane's certificates, kubeconfigs and command lines."""

import json
from dataclasses import dataclass
from pathlib import Path

from .instance import Instance
from .kubeconfigs import write_kubeconfig
from .network import API_SERVICE_IP, CLUSTER_DOMAIN, NODE_IP, NODE_NAME, POD_CIDR, SERVICE_CIDR
from .pki import Authority, KeyPair, SigningKey
from .state import Mode
from .supervisor import Component

__all__ = ["AUDIT_POLICY", "ControlPlane", "Credentials", "issue_credentials"]

_ISSUER = f"https://kubernetes.default.svc.{CLUSTER_DOMAIN}"
AUDITED_NAMESPACE = "llamamodel-rights"
"""Of service accounts in this namespace every request is in the audit log, reads too: which rights are used."""
_WRITES = ["create", "update", "patch", "delete", "deletecollection"]
AUDIT_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [
        {"level": "Metadata", "verbs": _WRITES},
        {"level": "Metadata", "userGroups": [f"system:serviceaccounts:{AUDITED_NAMESPACE}"]},
        {"level": "None"},
    ],
}
_AUDIT_LOG_MB = 2000
"""Size at which the audit log is put aside; large, so that tests find all of it in one file."""


@dataclass(frozen=True, kw_only=True)
class Credentials:
    """Who is who in the cluster."""

    authority: Authority
    admin: KeyPair
    apiserver: KeyPair
    kubelet_client: KeyPair
    """By which the API server is known to the kubelet."""
    signing_key: SigningKey
    """Signs service account tokens."""


def issue_credentials(instance: Instance) -> Credentials:
    """Issue what every mode needs."""
    authority = Authority(instance.pki_dir)
    hosts = ["127.0.0.1", NODE_IP, API_SERVICE_IP, "localhost", "kubernetes", "kubernetes.default"]
    hosts += ["kubernetes.default.svc", f"kubernetes.default.svc.{CLUSTER_DOMAIN}"]
    return Credentials(
        authority=authority,
        admin=authority.client("admin", user="admin", group="system:masters"),
        apiserver=authority.server("kube-apiserver", hosts=hosts),
        kubelet_client=authority.client("kube-apiserver-kubelet-client", user="kube-apiserver", group="system:masters"),
        signing_key=authority.signing_key("service-accounts"),
    )


@dataclass(frozen=True, kw_only=True)
class ControlPlane:
    """Builds the components of one cluster; in full mode they run on the node's address."""

    instance: Instance
    bin_dir: Path
    credentials: Credentials
    mode: Mode
    port: int
    """Where the API server listens."""

    @property
    def address(self) -> str:
        return NODE_IP if self.mode == "full" else "127.0.0.1"

    def component_kubeconfig(self, name: str, *, user: str, group: str = "") -> Path:
        """Write the kubeconfig by which a component reaches the API server."""
        path = self.instance.config_dir / f"{name}.kubeconfig"
        write_kubeconfig(
            path,
            server=f"https://{self.address}:{self.port}",
            ca=self.credentials.authority.ca.cert,
            client=self.credentials.authority.client(name, user=user, group=group),
            cluster=f"llamamodel-{self.instance.name}",
            user=user,
        )
        return path

    @property
    def etcd_socket(self) -> Path:
        return self.instance.run_dir / "etcd.sock"

    def etcd(self) -> Component:
        """Listens on sockets only, so that no port can be taken and no other user gets in."""
        client = f"unix://{self.etcd_socket}"
        peer = f"unix://{self.instance.run_dir / 'etcd-peer.sock'}"
        return Component(
            name="etcd",
            argv=[
                f"{self.bin_dir}/etcd",
                f"--data-dir={self.instance.state_dir / 'etcd'}",
                f"--name={self.instance.name}",
                f"--initial-cluster={self.instance.name}={peer}",
                f"--initial-advertise-peer-urls={peer}",
                f"--listen-peer-urls={peer}",
                f"--advertise-client-urls={client}",
                f"--listen-client-urls={client}",
                "--unsafe-no-fsync",
                "--log-level=warn",
            ],
        )

    def apiserver(self) -> Component:
        """The API server, with an audit log of every write."""
        policy = self.instance.config_dir / "audit-policy.yaml"
        policy.parent.mkdir(parents=True, exist_ok=True)
        policy.write_text(json.dumps(AUDIT_POLICY, indent=2) + "\n")
        self.instance.audit_log.parent.mkdir(parents=True, exist_ok=True)
        credentials = self.credentials
        ca = credentials.authority.ca.cert
        argv = [
            f"{self.bin_dir}/kube-apiserver",
            f"--etcd-servers=unix://{self.etcd_socket}",
            f"--bind-address={self.address}",
            f"--advertise-address={self.address}",
            f"--secure-port={self.port}",
            f"--tls-cert-file={credentials.apiserver.cert}",
            f"--tls-private-key-file={credentials.apiserver.key}",
            f"--client-ca-file={ca}",
            f"--kubelet-client-certificate={credentials.kubelet_client.cert}",
            f"--kubelet-client-key={credentials.kubelet_client.key}",
            f"--kubelet-certificate-authority={ca}",
            "--kubelet-preferred-address-types=InternalIP",
            f"--service-account-key-file={credentials.signing_key.public}",
            f"--service-account-signing-key-file={credentials.signing_key.private}",
            f"--service-account-issuer={_ISSUER}",
            f"--service-cluster-ip-range={SERVICE_CIDR}",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            f"--audit-policy-file={policy}",
            f"--audit-log-path={self.instance.audit_log}",
            f"--audit-log-maxsize={_AUDIT_LOG_MB}",
            "--profiling=false",
            "--allow-privileged=true",
        ]
        if self.mode == "api-only":
            # No controller makes service accounts here, and a loopback address is no endpoint.
            argv += ["--disable-admission-plugins=ServiceAccount"]
            argv += ["--endpoint-reconciler-type=none"]
        return Component(name="kube-apiserver", argv=argv)

    def controller_manager(self) -> Component:
        """The controllers, among them garbage collection and service accounts."""
        ca = self.credentials.authority.ca
        kubeconfig = self.component_kubeconfig("kube-controller-manager", user="system:kube-controller-manager")
        return Component(
            name="kube-controller-manager",
            argv=[
                f"{self.bin_dir}/kube-controller-manager",
                f"--kubeconfig={kubeconfig}",
                f"--authentication-kubeconfig={kubeconfig}",
                f"--authorization-kubeconfig={kubeconfig}",
                "--bind-address=127.0.0.1",
                "--leader-elect=false",
                "--use-service-account-credentials=true",
                f"--service-account-private-key-file={self.credentials.signing_key.private}",
                f"--root-ca-file={ca.cert}",
                f"--cluster-signing-cert-file={ca.cert}",
                f"--cluster-signing-key-file={ca.key}",
                f"--cluster-cidr={POD_CIDR}",
                f"--flex-volume-plugin-dir={self.instance.data_dir / 'volume-plugins'}",
                "--profiling=false",
            ],
        )

    def scheduler(self) -> Component:
        """The scheduler, with its defaults."""
        kubeconfig = self.component_kubeconfig("kube-scheduler", user="system:kube-scheduler")
        return Component(
            name="kube-scheduler",
            argv=[
                f"{self.bin_dir}/kube-scheduler",
                f"--kubeconfig={kubeconfig}",
                f"--authentication-kubeconfig={kubeconfig}",
                f"--authorization-kubeconfig={kubeconfig}",
                "--bind-address=127.0.0.1",
                "--leader-elect=false",
                "--profiling=false",
            ],
        )

    def kubelet_kubeconfig(self) -> Path:
        """The kubelet's identity, which the Node authorizer knows."""
        return self.component_kubeconfig("kubelet", user=f"system:node:{NODE_NAME}", group="system:nodes")
