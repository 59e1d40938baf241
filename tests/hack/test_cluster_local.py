"""The development cluster's own decisions, without starting one."""

import asyncio
import contextlib
import dataclasses
import io
import json
import os
import re
import shutil
import socket
import string
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

_CLUSTER = Path(__file__).resolve().parents[2] / "hack" / "cluster"
sys.path.insert(0, str(_CLUSTER))

from localcluster import preflight, relay  # noqa: E402
from localcluster.binaries import GOMODS_DIR, Module, resolve  # noqa: E402
from localcluster.cgroups import CgroupTree, Hierarchy, hierarchies  # noqa: E402
from localcluster.cli import main  # noqa: E402
from localcluster.console import Console  # noqa: E402
from localcluster.errors import BrokenError, ClusterError, RequirementsError  # noqa: E402
from localcluster.gpus import labels_patch, status_patch  # noqa: E402
from localcluster.images import write_pause_archive  # noqa: E402
from localcluster.instance import Instance  # noqa: E402
from localcluster.locks import locked  # noqa: E402
from localcluster.mounts import mounts_below  # noqa: E402
from localcluster.processes import alive, kill, spawn  # noqa: E402
from localcluster.state import State, load_state, save_state  # noqa: E402
from localcluster.status import nodes_from_list, stopped  # noqa: E402

_ENVIRON = {"HOME": "/home/someone"}
_UNIX_SOCKET_LIMIT = 107


@pytest.mark.parametrize("name", ["", "Dev", "a_b", "-a", "a-", "a" * 21, "../x", "a/b"])
def test_a_name_that_cannot_be_in_every_path_is_refused(name: str) -> None:
    with pytest.raises(ClusterError, match="cluster name"):
        Instance.named(name, environ=_ENVIRON)


def test_the_longest_name_leaves_room_for_the_kubelets_sockets() -> None:
    instance = Instance.named("a" * 20, environ=_ENVIRON, uid=0)
    sockets = [
        instance.data_dir / "kubelet/device-plugins/kubelet.sock",
        instance.data_dir / "kubelet/pod-resources/1234567890.sock",
        instance.run_dir / "containerd.sock.ttrpc",
        instance.run_dir / "etcd-peer.sock",
    ]
    assert max(len(str(path)) for path in sockets) <= _UNIX_SOCKET_LIMIT


def test_two_clusters_share_no_path() -> None:
    one, other = (Instance.named(name, environ=_ENVIRON, uid=0) for name in ("ci", "ci-1"))
    properties = [name for name, value in vars(Instance).items() if isinstance(value, property)]
    assert "cgroup" in properties
    assert all(getattr(one, name) != getattr(other, name) for name in properties)
    assert not other.state_dir.is_relative_to(one.state_dir)


def test_only_the_very_process_is_killed_not_a_later_one_with_its_id(tmp_path: Path) -> None:
    process = spawn(["sleep", "60"], log=tmp_path / "log")
    earlier = dataclasses.replace(process, start_ticks=process.start_ticks - 1)
    other_boot = dataclasses.replace(process, boot_id="another boot")
    kill(earlier)
    kill(other_boot)
    assert alive(process)
    assert not alive(earlier)
    kill(process)
    assert not alive(process)
    kill(process)


def test_a_component_does_not_see_the_users_proxy_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example")
    monkeypatch.setenv("KUBECONFIG", "/elsewhere")
    log = tmp_path / "log"
    process = spawn(["env"], log=log)
    while alive(process):
        pass
    assert "PATH=" in log.read_text()
    assert "PROXY" not in log.read_text()
    assert "KUBECONFIG" not in log.read_text()


def test_the_record_is_read_back_as_written(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    state = State(engine="processes", mode="full", gpus=2, bin_dir="/bin")
    process = spawn(["true"], log=tmp_path / "log")
    state.components["etcd"] = process
    save_state(path, state)
    assert load_state(path) == state
    assert [entry.name for entry in tmp_path.iterdir() if "state" in entry.name] == ["state.json"]


def test_no_record_means_no_cluster_and_a_damaged_one_is_broken(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    assert load_state(path) is None
    path.write_text('{"engine": "processes"')
    with pytest.raises(BrokenError, match="damaged"):
        load_state(path)


def test_hierarchies_of_a_hybrid_machine_are_found_the_old_ones_first(tmp_path: Path) -> None:
    mountinfo = tmp_path / "mountinfo"
    mountinfo.write_text(
        "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
        "39 31 0:36 / /sys/fs/cgroup/pids rw shared:9 - cgroup cgroup rw,pids\n"
        "22 27 0:21 / /proc rw,relatime - proc proc rw\n"
    )
    found = hierarchies(mountinfo=mountinfo)
    assert [(h.root.name, h.version) for h in found] == [("pids", 1), ("unified", 2)]
    assert "pids" in found[0].controllers


def test_with_cgroup_v2_controllers_are_enabled_down_to_the_clusters_cgroup(tmp_path: Path) -> None:
    for directory in (tmp_path, tmp_path / "llamamodel-x"):
        directory.mkdir(exist_ok=True)
        (directory / "cgroup.controllers").write_text("memory")
    tree = CgroupTree("llamamodel-x", mounted=[Hierarchy(root=tmp_path, version=2)])
    assert tree.create() == tmp_path / "llamamodel-x/system/cgroup.procs"
    for directory in (tmp_path, tmp_path / "llamamodel-x"):
        assert (directory / "cgroup.subtree_control").read_text() == "+memory"


def test_with_cgroup_v1_only_one_hierarchy_is_joined(tmp_path: Path) -> None:
    mounted = []
    for name in ("cpu", "pids"):
        (tmp_path / name).mkdir()
        mounted.append(Hierarchy(root=tmp_path / name, version=1, controllers=frozenset({name})))
    tree = CgroupTree("llamamodel-x", mounted=mounted)
    assert tree.create() == tmp_path / "pids/llamamodel-x/system/cgroup.procs"
    assert (tmp_path / "cpu/llamamodel-x").is_dir()
    tree.remove()
    assert not list(tmp_path.glob("*/llamamodel-x"))


def test_mounts_of_a_cluster_are_told_from_those_of_one_with_a_longer_name(tmp_path: Path) -> None:
    mountinfo = tmp_path / "mountinfo"
    mountinfo.write_text(
        "1 0 0:1 / /run/llamamodel-a/first rw - tmpfs tmpfs rw\n"
        "2 0 0:2 / /run/llamamodel-ab/other rw - tmpfs tmpfs rw\n"
        "3 1 0:3 / /run/llamamodel-a/first/with\\040space rw - tmpfs tmpfs rw\n"
    )
    found = mounts_below([Path("/run/llamamodel-a")], mountinfo=mountinfo)
    assert found == ["/run/llamamodel-a/first/with space", "/run/llamamodel-a/first"]


def test_without_gpus_the_labels_and_the_count_are_taken_away() -> None:
    assert set(labels_patch(0)["metadata"]["labels"].values()) == {None}
    assert status_patch(0)["status"]["capacity"] == {"nvidia.com/gpu": None}
    assert labels_patch(2)["metadata"]["labels"]["nvidia.com/gpu.memory"] == "24576"
    assert status_patch(2)["status"]["allocatable"] == {"nvidia.com/gpu": "2"}


def test_binaries_are_known_with_and_without_their_prefix() -> None:
    assert resolve("apiserver,etcd, kubelet") == ("kube-apiserver", "etcd", "kubelet")
    with pytest.raises(ClusterError, match="no binary 'foo'"):
        resolve("etcd,foo")


def test_every_module_is_pinned_and_rebuilt_for_another_go() -> None:
    kubernetes = Module("kubernetes", "k8s.io/kubernetes")
    assert re.fullmatch(r"v1\.\d+\.\d+", kubernetes.version)
    assert kubernetes.key(go_version="1.26.1") != kubernetes.key(go_version="1.26.2")
    for directory in GOMODS_DIR.iterdir():
        assert (directory / "go.mod").exists()
        assert directory.name == "pause" or (directory / "go.sum").exists()


def test_the_pause_image_is_one_program_under_its_name(tmp_path: Path) -> None:
    binary = tmp_path / "pause"
    binary.write_bytes(b"program")
    archive = tmp_path / "pause.tar"
    write_pause_archive(archive, binary=binary, architecture="amd64")
    with tarfile.open(archive) as image:

        def read(name: str) -> bytes:
            file = image.extractfile(name)
            assert file
            return file.read()

        (entry,) = json.loads(read("index.json"))["manifests"]
        assert entry["annotations"]["io.containerd.image.name"] == "localhost/pause:1"
        manifest = json.loads(read("blobs/sha256/" + entry["digest"].removeprefix("sha256:")))
        layer = read("blobs/sha256/" + manifest["layers"][0]["digest"].removeprefix("sha256:"))
    with tarfile.open(fileobj=io.BytesIO(layer)) as files:
        assert [(file.name, file.mode) for file in files] == [("pause", 0o555)]


def test_nodes_are_read_from_what_the_api_server_lists() -> None:
    node = {
        "metadata": {"name": "node0"},
        "status": {
            "conditions": [{"type": "Ready", "status": "True"}],
            "allocatable": {"nvidia.com/gpu": "2"},
        },
    }
    (found,) = nodes_from_list({"items": [node]})
    assert (found.name, found.ready, found.gpus) == ("node0", True, 2)
    assert nodes_from_list(None) == []


def test_the_status_document_has_the_keys_that_scripts_rely_on() -> None:
    document = stopped(Instance.named("x", environ=_ENVIRON), bin_dir="/b").document()
    assert set(document) == {
        "name", "state", "engine", "mode", "problem", "server", "kubeconfig", "nodes", "components",
        "modelsHostDir", "modelsNodePath", "auditLog", "binDir",
    }  # fmt: skip
    assert json.loads(json.dumps(document))["state"] == "stopped"


def test_all_that_is_missing_is_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    monkeypatch.setattr(preflight, "cni_dir", lambda: None)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(RequirementsError) as caught:
        preflight.check_requirements("full", known=["no 'go' on PATH"])
    message = str(caught.value)
    for part in ("runc", "not root", "CNI", "no 'go'", "apt-get install", "nftables"):
        assert part in message


def test_status_of_a_cluster_that_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert main(["status", "--name", "nothing-here", "-o", "json"]) == 3
    assert json.loads(capsys.readouterr().out)["state"] == "stopped"
    assert main(["kubeconfig", "--name", "nothing-here"]) == 3
    assert "start it with 'up'" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_the_kind_configuration_needs_what_is_filled_in_and_nothing_else() -> None:
    template = string.Template((_CLUSTER.parent / "kind" / "cluster.yaml").read_text())
    assert template.is_valid()
    assert set(template.get_identifiers()) == {"MODELS_DIR", "MODELS_NODE_PATH", "AUDIT_DIR", "AUDIT_POLICY"}


def test_a_lock_whose_file_its_holder_removed_is_taken_again(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    console = Console(stream=io.StringIO())
    with locked(path, console=console, doing="this"):
        path.unlink()
        with locked(path, console=console, doing="that"):
            assert path.exists()


def test_the_relay_carries_both_directions_to_their_end() -> None:
    async def shout(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Answers only once the other side has finished: a half-closed connection must stay open.
        writer.write((await reader.read()).upper())
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    async def converse() -> bytes:
        server = await asyncio.start_server(shout, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        listener = socket.create_server(("127.0.0.1", 0))
        relaying = asyncio.ensure_future(relay.serve(listener, host="127.0.0.1", port=port))
        await asyncio.sleep(0)
        reader, writer = await asyncio.open_connection(*listener.getsockname())
        writer.write(b"hello" * 100_000)
        writer.write_eof()
        answer = await reader.read()
        writer.close()
        await writer.wait_closed()
        relaying.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await relaying
        server.close()
        await server.wait_closed()
        return answer

    assert asyncio.run(converse()) == b"HELLO" * 100_000


def test_help_is_there_without_any_package_installed() -> None:
    command = [sys.executable, "-S", "-E", str(_CLUSTER), "up", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "--mode" in done.stdout
