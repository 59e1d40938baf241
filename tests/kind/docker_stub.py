#!/usr/bin/env python3
"""Answers kind in Docker's place, and writes down what it is asked: a node in which `kubeadm init` always fails.

$KIND_RECORD is the folder of the record: `calls` has one call in a line, as JSON; `node` is there while there is a
node, and holds its name and image; files that are written into the node lie below `files`.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

INFO = {"CgroupDriver": "systemd", "CgroupVersion": "2", "MemoryLimit": True, "PidsLimit": True, "CPUShares": True}


def main(arguments: list[str]) -> int:
    """Answers one call of `docker`; returns its exit status."""
    record = Path(os.environ["KIND_RECORD"])
    with (record / "calls").open("a") as calls:
        calls.write(json.dumps(arguments) + "\n")
    node = record / "node"
    match arguments:
        case ["info", "--format", "{{json .}}"]:
            print(json.dumps(INFO))
        case ["ps", *_] if node.exists():
            print(node.read_text().split()[0])
        case ["run", *options]:
            node.write_text(f"{options[options.index('--name') + 1]} {options[-1]}")
        case ["rm", *_]:
            node.unlink()
        case ["logs", *_]:
            print("Reached target Multi-User System.")
        case ["inspect", "--format", _, _]:
            print("control-plane")
        case ["inspect", "-f", _, _]:
            print("172.18.0.2,")
        case ["exec", "--privileged", *inside]:
            return run_in_node([word for word in inside if word != "-i"][1:], record=record)
    return 0


def run_in_node(command: list[str], *, record: Path) -> int:
    """Answers `docker exec`."""
    match command:
        case ["cat", "/kind/version"]:
            image = (record / "node").read_text().split()[1]
            print(image.partition(":")[2].partition("@")[0])
        case ["cp", "/dev/stdin", target]:
            file = record / "files" / target.lstrip("/")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(sys.stdin.buffer.read())
        case ["containerd", "config", "dump"]:
            print('version = 3\n[plugins."io.containerd.cri.v1.images"]\nsnapshotter = "overlayfs"')
        case ["ctr", *_]:
            (record / "imported").write_bytes(sys.stdin.buffer.read())
        case ["kubeadm", "init", *_]:
            print("there is no kubelet here", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
