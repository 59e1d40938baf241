"""hack/kind, by kind's and kubeadm's own code: all of a start but the containers, with a Docker that only answers.

`python3 hack/cluster up` runs as it would with Docker, up to the point at which kubeadm would start Kubernetes in the
node. Needs `python3 hack/cluster build --only kind,kubeadm,kubectl,helm`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from localcluster.binaries import version_of
from localcluster.builder import binary_cache
from localcluster.controlplane import AUDIT_POLICY
from localcluster.engine_kind import binaries_for_kind

ROOT = Path(__file__).resolve().parents[2]
STUB = Path(__file__).with_name("docker_stub.py")
CLUSTER = "lint"
NODE = f"llamamodel-{CLUSTER}-control-plane"
STOPPED_AT = "there is no kubelet here"


@dataclass(frozen=True, kw_only=True)
class Machine:
    """A machine on which Docker seems to run."""

    environ: Mapping[str, str]
    record: Path
    bin_dir: Path

    def run(self, *command: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, cwd=ROOT, env=self.environ, capture_output=True, text=True, check=False, timeout=120
        )

    def cluster(self, verb: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """`python3 hack/cluster VERB`."""
        return self.run(sys.executable, "hack/cluster", verb, "--name", CLUSTER, *arguments)

    def calls(self, verb: str) -> list[list[str]]:
        """What Docker was asked: the arguments of each `docker VERB`."""
        lines = (self.record / "calls").read_text().splitlines()
        return [call[1:] for call in map(json.loads, lines) if call[0] == verb]

    @property
    def kubeadm_config(self) -> Path:
        return self.record / "files" / "kind" / "kubeadm.conf"


def a_machine(folder: Path) -> Machine:
    record, programs = folder / "record", folder / "bin"
    for made in (record, programs):
        made.mkdir()
    docker = programs / "docker"
    docker.write_text(f'#!/bin/sh\nexec {sys.executable} {STUB} "$@"\n')
    docker.chmod(0o755)
    bin_dir = binary_cache().bin_dir
    if not (bin_dir / "kubeadm").exists():
        pytest.fail("run `python3 hack/cluster build --only kind,kubeadm,kubectl,helm` first", pytrace=False)
    # The cluster's own kind is on PATH: it is what a machine that has the right release finds.
    path = os.pathsep.join((str(programs), str(bin_dir), os.environ["PATH"]))
    environ = {**os.environ, "PATH": path, "KIND_RECORD": str(record), "XDG_STATE_HOME": str(folder)}
    return Machine(environ=environ, record=record, bin_dir=bin_dir)


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    """The machine after `up`, which came as far as it can without containers."""
    made = a_machine(tmp_path_factory.mktemp("kind"))
    done = made.cluster("up")
    assert done.returncode == 1
    assert STOPPED_AT in done.stderr
    assert f"cluster '{CLUSTER}' (kind, full)" in done.stderr, "kind is chosen because Docker answers"
    return made


def test_the_node_is_the_image_that_this_release_of_kind_was_made_with(machine: Machine, tmp_path: Path) -> None:
    plain = a_machine(tmp_path)
    plain.run("kind", "create", "cluster", "--name", "plain", "--kubeconfig", tmp_path / "kubeconfig")
    ((*_, default),), ((*_, ours),) = plain.calls("run"), machine.calls("run")
    assert ours == default
    assert "@sha256:" in ours


def test_the_node_has_the_folder_of_models_the_audit_policy_and_a_place_for_the_audit_log(machine: Machine) -> None:
    (options,) = machine.calls("run")
    mounts = dict(
        option.removeprefix("--volume=").split(":", 1) for option in options if option.startswith("--volume=")
    )
    status = json.loads(machine.cluster("status", "-o", "json").stdout)
    audit_log = Path(status["auditLog"])
    policy = next(path for path in mounts if path.endswith("audit-policy.yaml"))
    assert mounts == {
        status["modelsHostDir"]: status["modelsNodePath"],
        policy: "/etc/kubernetes/policies/audit-policy.yaml:ro",
        str(audit_log.parent): "/var/log/kubernetes",
    }
    assert yaml.safe_load(Path(policy).read_text()) == AUDIT_POLICY
    assert audit_log.stat().st_uid == os.getuid(), "whoever runs the tests can read it"


def test_kubeadm_takes_the_configuration_that_kind_makes(machine: Machine, tmp_path: Path) -> None:
    validate = (machine.bin_dir / "kubeadm", "config", "validate", "--config")
    done = machine.run(*validate, machine.kubeadm_config)
    assert (done.returncode, done.stdout.strip()) == (0, "ok"), done.stderr

    wrong = tmp_path / "kubeadm.conf"
    wrong.write_text(machine.kubeadm_config.read_text().replace("extraVolumes:", "moreVolumes:"))
    refused = machine.run(*validate, wrong)
    assert refused.returncode == 1
    assert 'unknown field "apiServer.moreVolumes"' in refused.stderr


def test_the_api_server_that_kubeadm_would_start_writes_the_audit_log(machine: Machine, tmp_path: Path) -> None:
    """Its manifest, as `kubeadm init` would write it."""
    kubeadm = Machine(
        environ={**machine.environ, "KUBEADM_INIT_DRYRUN_DIR": str(tmp_path)},
        record=machine.record,
        bin_dir=machine.bin_dir,
    )
    phase = ("init", "phase", "control-plane", "apiserver", "--dry-run", "--config", machine.kubeadm_config)
    done = kubeadm.run(machine.bin_dir / "kubeadm", *phase)
    assert done.returncode == 0, done.stderr
    pod: dict[str, Any] = yaml.safe_load((tmp_path / "kube-apiserver.yaml").read_text())
    (container,) = pod["spec"]["containers"]
    flags = dict(word.split("=", 1) for word in container["command"] if word.startswith("--audit-"))
    assert flags == {
        "--audit-log-maxsize": "2000",
        "--audit-log-path": "/var/log/kubernetes/audit.log",
        "--audit-policy-file": "/etc/kubernetes/policies/audit-policy.yaml",
    }
    host = {volume["name"]: volume["hostPath"]["path"] for volume in pod["spec"]["volumes"]}
    seen = {
        mount["mountPath"]: (host[mount["name"]], mount.get("readOnly", False)) for mount in container["volumeMounts"]
    }
    assert seen["/var/log/kubernetes"] == ("/var/log/kubernetes", False)
    assert seen["/etc/kubernetes/policies"] == ("/etc/kubernetes/policies", True)


def test_kind_refuses_a_field_that_it_does_not_know(machine: Machine, tmp_path: Path) -> None:
    (used,) = Path(machine.environ["XDG_STATE_HOME"]).rglob("kind.yaml")
    wrong = tmp_path / "kind.yaml"
    wrong.write_text(used.read_text().replace("extraMounts:", "moreMounts:"))
    refused = machine.run("kind", "create", "cluster", "--name", "wrong", "--config", wrong)
    assert refused.returncode == 1
    assert "field moreMounts not found" in refused.stderr


def test_an_image_reaches_the_node_whole_and_down_removes_all(tmp_path: Path) -> None:
    machine = a_machine(tmp_path)
    machine.cluster("up")
    (machine.record / "node").write_text(f"{NODE} image")  # as though it had come up
    archive = tmp_path / "image.tar"
    archive.write_bytes(os.urandom(100_000))

    done = machine.cluster("load-image", archive)
    assert done.returncode == 0, done.stderr
    assert (machine.record / "imported").read_bytes() == archive.read_bytes()

    done = machine.cluster("down")
    assert done.returncode == 0, done.stderr
    assert machine.calls("rm")[-1] == ["-f", "-v", NODE]
    assert not list(tmp_path.rglob("state.json"))


@pytest.mark.parametrize(("release", "built"), [(version_of("kind").removeprefix("v"), False), ("0.1.0", True)])
def test_a_kind_of_another_release_on_path_is_not_used(
    release: str, built: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "kind").write_text(f"#!/bin/sh\necho {release}\n")
    (tmp_path / "kind").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert ("kind" in binaries_for_kind()) == built
