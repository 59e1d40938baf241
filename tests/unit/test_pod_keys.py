"""Keys between gateway and pods (docs/adr/0029-keys-of-pods.md): the file in the pod, and what is said of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from llamamodel_operator import drainer, inspector
from llamamodel_operator.api.conditions import Reason
from llamamodel_operator.core.facts import Facts
from llamamodel_operator.core.inspection import Inspection, InspectionState
from llamamodel_operator.core.objects.check import CHECK_CONTAINER
from llamamodel_operator.core.objects.deployment import has_keys
from llamamodel_operator.core.objects.drain import DRAIN_CONTAINER
from llamamodel_operator.core.pod_keys import KEYS_FILE, KEYS_VOLUME, file_problem, keys_in, one_key
from llamamodel_operator.core.pod_messages import trouble_of_events
from support.gguf import layer_tensors, llama_metadata, write_gguf
from support.serving import serving

from .builders import ModelBuilder, a_model
from .fake_cluster import FakeCluster
from .test_inspection import Node, a_file, is_served, passes
from .world import World

LOCKED = a_model().with_spec(apiKeySecretRef={"name": "llama-keys"})
KNOWN = Facts(
    operator_image="example.com/llamamodel-operator:1",
    inspection=Inspection(
        state=InspectionState.UNKNOWN, reason=Reason.INSPECTION_UNAVAILABLE, message="", checks_at_start=True
    ),
)
MOUNT = {"name": KEYS_VOLUME, "mountPath": "/etc/llamamodel-keys", "readOnly": True}


def pod_of(model: ModelBuilder) -> dict[str, Any]:
    deployment = next(child for child in model.plan(KNOWN).objects if child["kind"] == "Deployment")
    spec: dict[str, Any] = deployment["spec"]["template"]["spec"]
    return spec


# --- the pod


def test_one_entry_of_the_secret_is_mounted_into_all_that_need_it() -> None:
    pod = pod_of(a_model().with_spec(apiKeySecretRef={"name": "llama-keys", "key": "mine"}))
    (volume,) = [one for one in pod["volumes"] if one["name"] == KEYS_VOLUME]
    assert volume["secret"] == {
        "secretName": "llama-keys",
        "items": [{"key": "mine", "path": "api-keys"}],
        "optional": False,
    }
    (server,), (check, drain) = pod["containers"], pod["initContainers"]
    assert (check["name"], drain["name"]) == (CHECK_CONTAINER, DRAIN_CONTAINER)
    for container in (server, check, drain):
        assert MOUNT in container["volumeMounts"]
    for container, flag in ((server, "--api-key-file"), (check, "--keys-file"), (drain, "--keys-file")):
        words = container["args"]
        assert words[words.index(flag) + 1] == KEYS_FILE


def test_without_the_field_nothing_of_it_is_in_the_pod() -> None:
    assert not any(word in json.dumps(pod_of(a_model())) for word in (KEYS_VOLUME, KEYS_FILE, "keys-file", "api-key"))


def test_whether_pods_have_keys_is_read_from_their_deployment() -> None:
    assert has_keys(LOCKED.deployment())
    assert not has_keys(a_model().deployment())


@pytest.mark.parametrize(
    "more",
    [
        {"extraArgs": ["--api-key", "mine"]},
        {"extraArgs": ["--api-key-file", "/models/models/keys"]},
        {"env": [{"name": "LLAMA_API_KEY", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]},
        {"env": [{"name": "LLAMA_ARG_API_KEY_FILE", "value": "/models/models/keys"}]},
    ],
)
def test_there_is_no_second_door_beside_it(more: dict[str, Any]) -> None:
    def managed(model: ModelBuilder) -> list[str | None]:
        return [finding.suggestion for finding in model.plan().errors if finding.code == "ManagedFlag"]

    assert not managed(a_model().with_spec(**more))
    (suggestion,) = managed(LOCKED.with_spec(**more))
    assert "spec.apiKeySecretRef" in (suggestion or "")


# --- the file


def test_keys_are_read_as_llama_server_reads_them() -> None:
    assert keys_in(b"first\n\n# a note\n#none\nwith blank\nlast") == ("first", "with blank", "last")
    assert keys_in(b"windows\r\n lead\nend \n\xc3\xbc\n") == (), "those that nobody can show"


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"key", ""),
        (b"# ours\nkey\n\nother\n", ""),
        (b"", "found none"),
        (b"\n# none yet\n", "found none"),
        (b"key\nother\r\n", "line 2"),
        (b"# x\nkey ", "line 2"),
        (b"\tkey", "line 1"),
        (b"schl\xc3\xbcssel", "line 1"),
    ],
)
def test_a_file_that_must_not_be_served_with_is_told_from_others(content: bytes, problem: str) -> None:
    said = file_problem(content)
    assert (problem in said) if problem else not said
    assert "key\r" not in said
    assert "schl" not in said


@pytest.mark.parametrize("content", [b"key", b"key\n", b"key\r\n"])
def test_a_line_end_is_no_part_of_a_key(content: bytes) -> None:
    assert one_key(content) == "key"


@pytest.mark.parametrize("content", [b"", b"\n", b"one\ntwo", b" secret", b"secret\n\n", b"# secret", b"secr\xc3\xa9t"])
def test_what_is_not_one_key_is_refused_and_not_repeated(content: bytes) -> None:
    with pytest.raises(ValueError, match="expected one key") as refused:
        one_key(content)
    assert "secr" not in str(refused.value)


# --- the check before the server starts


def check(tmp_path: Path, content: bytes, *words: str, model: str = "model.gguf") -> tuple[int, dict[str, str]]:
    """Exit code and verdict."""
    write_gguf(tmp_path / "model.gguf", metadata=llama_metadata(), tensors=layer_tensors())
    (tmp_path / "keys").write_bytes(content)
    files = [{"role": "model", "field": "spec.model.pvc", "inside": str(tmp_path), "path": model}]
    message = tmp_path / "message"
    keys = ["--keys-file", str(tmp_path / "keys"), "--message-file", str(message)]
    code = inspector.main(["--files", json.dumps(files), *words, *keys])
    said: dict[str, str] = json.loads(message.read_text())
    return code, said


@pytest.mark.parametrize("words", [("--quiet",), ("--expect", "0" * 64)])
def test_a_pod_does_not_start_with_a_file_that_would_open_it(tmp_path: Path, words: tuple[str, ...]) -> None:
    code, verdict = check(tmp_path, b"# none yet\n", *words)
    assert (code, verdict["reason"]) == (1, "ApiKeysUnusable")
    assert verdict["message"].startswith("spec.apiKeySecretRef: expected a key")
    assert not verdict["expected"], "another inspection of the files would mend nothing"


def test_trouble_with_other_files_does_not_hide_it(tmp_path: Path) -> None:
    code, verdict = check(tmp_path, b"", "--quiet", model="other.gguf")
    assert (code, verdict["reason"]) == (1, "ApiKeysUnusable")


def test_with_a_key_the_check_goes_on(tmp_path: Path) -> None:
    code, verdict = check(tmp_path, b"key\n", "--quiet")
    assert (code, verdict["reason"]) == (0, "Inspected")


class KeyedNode(Node):
    """Mounts a file of keys as well."""

    def run_program(self, container: Mapping[str, Any]) -> tuple[int, bytes, str]:
        words = [str(self.volume / "keys") if word == KEYS_FILE else word for word in container["args"]]
        return super().run_program({**container, "args": words})


async def test_the_status_says_what_is_wrong_with_the_file_and_the_models_files_are_not_looked_at_again(
    cluster: FakeCluster, tmp_path: Path
) -> None:
    world = World(cluster, inspecting=True)
    world.has_claim()
    node = KeyedNode(world, tmp_path)
    (tmp_path / "models" / "gemma").mkdir(parents=True)
    a_file(tmp_path / "models")
    (tmp_path / "keys").write_bytes(b"# none yet\n")
    await is_served(world, node, LOCKED)
    jobs = node.jobs()
    assert not node.starts_a_pod()
    await passes(world)
    status, reason, message = world.condition("Ready")
    assert (status, reason) == ("False", "ApiKeysUnusable")
    assert message.startswith("spec.apiKeySecretRef: expected a key on a line of its own, found none in the file")
    assert world.condition("Inspected")[0] == "True"
    assert node.jobs() == jobs
    (tmp_path / "keys").write_bytes(b"key\n")
    assert node.starts_a_pod()
    await passes(world)
    assert world.condition("Ready")[1] != "ApiKeysUnusable"


# --- the drain sidecar


class Locked(BaseHTTPRequestHandler):
    """A llama-server that works on one request, and tells so by its own key alone."""

    def do_GET(self) -> None:
        known = self.headers.get("Authorization") == "Bearer own"
        self.send_response(200 if known else 401)
        self.end_headers()
        self.wfile.write(b'[{"is_processing": true}]' if known else b"{}")

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.parametrize(
    ("content", "busy"),
    [
        (b"own", True),
        (b"other\n# old\nown\n", True),
        (b"other\r\nother\n", False),
        (b"", False),
        (None, False),
    ],
)
def test_the_drain_shows_the_keys_of_its_file_until_one_is_taken(
    tmp_path: Path, content: bytes | None, busy: bool
) -> None:
    file = tmp_path / "keys"
    if content is not None:
        file.write_bytes(content)
    nobody = tmp_path / "tcp"
    nobody.write_text("header\n")
    with serving(Locked) as port:
        assert drainer.is_busy(port, keys_file=file, tables=[str(nobody)]) is busy


# --- what the kubelet says


@pytest.mark.parametrize(
    "said",
    [
        'MountVolume.SetUp failed for volume "api-keys" : secret "llama-keys" not found',
        'MountVolume.SetUp failed for volume "api-keys" : references non-existent secret key: api-keys',
    ],
)
def test_a_secret_that_is_not_there_has_a_reason_of_its_own(said: str) -> None:
    trouble = trouble_of_events([{"reason": "FailedMount", "message": said}])
    assert trouble is not None
    assert (trouble.reason, trouble.message) == (Reason.API_KEYS_NOT_FOUND, said)
    assert "spec.apiKeySecretRef" in trouble.remedy


@pytest.mark.parametrize(
    "said",
    [
        'MountVolume.SetUp failed for volume "api-keys" : failed to sync secret cache: timed out waiting',
        'MountVolume.SetUp failed for volume "theirs" : secret "x" not found',
    ],
)
def test_other_trouble_with_volumes_keeps_the_general_reason(said: str) -> None:
    trouble = trouble_of_events([{"reason": "FailedMount", "message": said}])
    assert trouble is not None
    assert trouble.reason is Reason.VOLUME_MOUNT_FAILED
