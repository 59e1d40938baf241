"""The cluster's network namespace and its addresses; none of them exists outside it."""

import ctypes
import os
import socket
import struct
import subprocess
import threading
from pathlib import Path

from .errors import ClusterError
from .instance import Instance

__all__ = [
    "API_SERVICE_IP",
    "CLUSTER_DOMAIN",
    "NODE_IP",
    "NODE_NAME",
    "POD_CIDR",
    "SERVICE_CIDR",
    "create_netns",
    "dns_answers",
    "enter_netns",
    "remove_netns",
]

NODE_NAME = "node0"
NODE_IP = "10.99.0.1"
SERVICE_CIDR = "10.96.0.0/16"
API_SERVICE_IP = "10.96.0.1"
POD_CIDR = "10.244.0.0/24"
CLUSTER_DOMAIN = "cluster.local"

# A bridge without ports carries the node's address, because some kernels lack the dummy device.
# Packets to ClusterIPs need some route before nftables can rewrite them. Everything else is
# refused at once, rather than waited for.
_LINKS = f"""\
link set lo up
link add node0 type bridge
addr add {NODE_IP}/24 dev node0
link set node0 up
route add {SERVICE_CIDR} dev node0
route add prohibit default
"""

# Forward between pods, and let no refusal be held back for its frequency.
_KERNEL_SETTINGS = "cd /proc/sys/net/ipv4 && echo 1 >ip_forward && echo 0 >icmp_ratelimit"

_CLONE_NEWNET = 0x40000000


def create_netns(instance: Instance) -> None:
    """Make the namespace with the node's address in it."""
    _run(["ip", "netns", "add", instance.netns])
    _run(["ip", "-n", instance.netns, "-batch", "-"], stdin=_LINKS)
    _run(["nsenter", f"--net={instance.netns_path}", "--", "sh", "-c", _KERNEL_SETTINGS])


def remove_netns(instance: Instance) -> None:
    """Remove the namespace; it disappears with the last process inside."""
    if instance.netns_path.exists():
        _run(["ip", "netns", "delete", instance.netns])


def enter_netns(path: Path) -> None:
    """Move the calling thread into a network namespace. Sockets it has stay where they were made.

    os.setns is there only from Python 3.12 on.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if libc.setns(descriptor, _CLONE_NEWNET):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(path))
    finally:
        os.close(descriptor)


def dns_answers(instance: Instance) -> bool:
    """Whether the cluster's name server knows the API server's Service."""
    made: list[socket.socket] = []

    def make() -> None:
        enter_netns(instance.netns_path)
        made.append(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))

    # A thread that entered a namespace never comes back; its socket is all that is wanted.
    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    name = f"kubernetes.default.svc.{CLUSTER_DOMAIN}"
    labels = b"".join(bytes([len(part)]) + part.encode() for part in name.split("."))
    query = struct.pack("!6H", 1, 0x0100, 1, 0, 0, 0) + labels + struct.pack("!B2H", 0, 1, 1)
    with made[0] as client:
        client.settimeout(0.5)
        try:
            client.sendto(query, (NODE_IP, 53))
            return socket.inet_aton(API_SERVICE_IP) in client.recv(512)
        except OSError:
            return False


def _run(argv: list[str], *, stdin: str = "") -> None:
    done = subprocess.run(argv, input=stdin, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ClusterError(f"{' '.join(argv)}: {done.stderr.strip()}")
