"""Every failure by its name: made to happen in a real cluster, seen within seconds, alone, and gone when it is mended.

Each has a model of its own. The next ones are begun ahead, since most take their time to fail.
"""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from referencegen.failures import PROVOKED

from e2e.conftest import Environment
from llamamodel_operator.api.conditions import Reason
from support.bad_files import write_bad_files
from support.kube import Kube, condition, eventually, llama_model

pytestmark = pytest.mark.e2e

GEMMA = "gemma-3-270m-Q4_K_M.gguf"
SMALL = {"contextSize": 512, "promptCacheSize": "0"}
GOOD = {"model": {"pvc": {"claimName": "models", "path": GEMMA}}}
SOON_SEC = 15.0
"""From the end of a container, or from the repair, until the status tells: 10 s, and more for a busy machine."""
LATER_SEC = 90.0
"""Where Kubernetes itself tries again after a pause only."""
AHEAD = 3
INSPECTION_SEC = 20
"""Seconds that models wait for inspections that cannot be made, some of which are meant not to be."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One way to fail.

    Attributes:
        reason: that must be shown.
        spec: of the model; its file is a good one unless it says otherwise.
        words: that the message must have: the cause, and what to do.
        mend: a merge patch of the spec.
        mended: what mends it instead.
        gone_within: seconds after that.
    """

    reason: Reason
    spec: Mapping[str, Any] = field(default_factory=dict)
    words: tuple[str, ...] = ()
    mend: Mapping[str, Any] = field(default_factory=dict)
    mended: Callable[[Kube, Path], None] | None = None
    gone_within: float = SOON_SEC

    @property
    def spec_with_file(self) -> dict[str, Any]:
        return {**GOOD, **self.spec}


def on_volume(path: str) -> dict[str, Any]:
    return {"pvc": {"claimName": "models", "path": f"failures/{path}"}}


def a_bad_file(reason: Reason, file: str, *words: str, **more: Any) -> Row:
    return Row(reason=reason, spec={"model": on_volume(file)}, words=("spec.model.pvc", *words), mend=GOOD, **more)


def copied_again(kube: Kube, folder: Path) -> None:
    shutil.copy(folder.parent / GEMMA, folder / "cut-new.gguf")
    (folder / "cut-new.gguf").replace(folder / "cut.gguf")


ROWS: dict[str, Row] = {
    "no-claim": Row(
        reason=Reason.CLAIM_NOT_FOUND,
        spec={"model": {"pvc": {"claimName": "modells", "path": GEMMA}}},
        words=("PersistentVolumeClaim modells in namespace test-failures does not exist", "spec.model.pvc.claimName"),
        mend=GOOD,
    ),
    "claim-waits": Row(
        reason=Reason.CLAIM_PENDING,
        spec={"model": {"pvc": {"claimName": "waits", "path": GEMMA}}},
        words=("PersistentVolumeClaim waits", "has no volume yet"),
        mend=GOOD,
    ),
    "no-file": a_bad_file(Reason.MODEL_FILE_NOT_FOUND, "no-such.gguf", "there is no such file"),
    "zip": a_bad_file(Reason.NOT_GGUF, "zip.gguf", "expected a GGUF file"),
    "cut": Row(
        reason=Reason.MODEL_TRUNCATED,
        spec={"model": on_volume("cut.gguf")},
        words=("cut.gguf", "copy it again"),
        mended=copied_again,
    ),
    "no-part": a_bad_file(Reason.PART_MISSING, "half-00001-of-00002.gguf"),
    "version": a_bad_file(Reason.UNSUPPORTED_VERSION, "version.gguf"),
    "architecture": a_bad_file(Reason.UNSUPPORTED_ARCHITECTURE, "architecture.gguf", "gemmaX"),
    "nan": a_bad_file(Reason.MODEL_CORRUPT, "nan.gguf"),
    "locked": a_bad_file(Reason.PERMISSION_DENIED, "locked.gguf", "spec.podSecurityContext"),
    "adapter": Row(
        reason=Reason.ADAPTER_INCOMPATIBLE,
        spec={"loraAdapters": [{"name": "sql", **on_volume("adapter.gguf")}]},
        words=("adapter.gguf", "spec.loraAdapters[0]"),
        mend={"loraAdapters": None},
    ),
    "adapter-bits": Row(
        reason=Reason.INVALID_HEADER,
        spec={"loraAdapters": [{"name": "sql", **on_volume("adapter-bits.gguf")}]},
        words=("adapter-bits.gguf", "spec.loraAdapters[0]"),
        mend={"loraAdapters": None},
    ),
    "projector": Row(
        reason=Reason.PROJECTOR_INCOMPATIBLE,
        spec={"projector": on_volume("projector.gguf")},
        words=("projector.gguf", "1,024"),
        mend={"projector": None},
    ),
    "checksum": Row(
        reason=Reason.CHECKSUM_MISMATCH,
        spec={"model": {"pvc": {"claimName": "models", "path": GEMMA, "sha256": "0" * 64}}},
        words=("sha256",),
        mend={"model": {"pvc": {"sha256": None}}},
    ),
    "argument": Row(
        reason=Reason.INVALID_ARGUMENT,
        spec={"extraArgs": ["--no-such-flag"]},
        words=("--no-such-flag", "extraArgs"),
        mend={"extraArgs": None},
    ),
    "grammar": Row(
        reason=Reason.INVALID_GRAMMAR,
        spec={"grammar": on_volume("text.gbnf")},
        words=("grammar",),
        mend={"grammar": None},
    ),
    "template": Row(
        reason=Reason.INVALID_CHAT_TEMPLATE,
        spec={"chatTemplate": on_volume("text.jinja")},
        words=("template",),
        mend={"chatTemplate": None},
    ),
    "memory": Row(
        reason=Reason.OUT_OF_MEMORY,
        spec={"resources": {"limits": {"memory": "24Mi"}}},
        words=("24Mi", "raise spec.resources.limits.memory"),
        mend={"resources": None},
    ),
    "slow": Row(
        # A tenth of a core makes the start take far longer than the one second that it is given.
        reason=Reason.STARTUP_TIMEOUT,
        spec={"startupTimeoutSec": 1, "resources": {"limits": {"cpu": "100m"}}},
        words=("not ready within 1 s", "raise spec.startupTimeoutSec"),
        mend={"startupTimeoutSec": 300, "resources": None},
    ),
    "greedy": Row(
        reason=Reason.UNSCHEDULABLE,
        spec={"gpu": {"count": 3}},
        words=("Insufficient nvidia.com/gpu", "spec.gpu"),
        mend={"gpu": None},
    ),
    "nowhere": Row(
        reason=Reason.UNSCHEDULABLE,
        spec={"nodeSelector": {"disk": "nvme"}},
        words=("node affinity/selector", "spec.nodeSelector"),
        mend={"nodeSelector": None},
    ),
    "no-image": Row(
        reason=Reason.IMAGE_NOT_FOUND,
        spec={"image": "localhost/no-such-image:1", "imagePullPolicy": "Never"},
        words=("localhost/no-such-image:1", "spec.image"),
        mend={"image": None, "imagePullPolicy": None},
    ),
    "no-registry": Row(
        reason=Reason.IMAGE_PULL_FAILED,
        spec={"image": "localhost/no-such-image:1", "imagePullPolicy": "IfNotPresent"},
        words=("localhost/no-such-image:1", "spec.image"),
        mend={"image": None},
    ),
    "no-secret": Row(
        reason=Reason.CONTAINER_CONFIG_ERROR,
        spec={"env": [{"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "no-such-secret", "key": "token"}}}]},
        words=('secret "no-such-secret" not found',),
        mend={"env": None},
    ),
    "no-folder": Row(
        reason=Reason.VOLUME_MOUNT_FAILED,
        spec={"model": {"pvc": {"claimName": "no-folder", "path": GEMMA}}},
        words=("no-such-folder",),
        mend=GOOD,
    ),
    "root": Row(
        reason=Reason.POD_SECURITY_VIOLATION,
        spec={"podSecurityContext": {"runAsNonRoot": False, "runAsUser": 0}},
        words=("violates PodSecurity", "spec.podSecurityContext"),
        mend={"podSecurityContext": None},
    ),
    "denied": Row(
        reason=Reason.ADMISSION_DENIED,
        words=("this name is not wanted",),
        mended=lambda kube, _: kube.delete("validatingadmissionpolicybinding", "test-failures"),
        gone_within=LATER_SEC,
    ),
    "taken": Row(
        reason=Reason.NOT_OURS,
        words=("Service taken already exists and was not made by this operator; it is left as it is",),
        mended=lambda kube, _: kube.delete("service", "taken"),
        gone_within=LATER_SEC,
    ),
    "managed": Row(
        reason=Reason.INVALID_SPEC,
        spec={"extraArgs": ["--port", "9090"]},
        words=("spec.extraArgs[0]",),
        mend={"extraArgs": None},
    ),
    "unpooled": Row(
        reason=Reason.NOT_ANSWERING,
        spec={"task": "embed"},
        words=("/v1/embeddings", "kubectl logs"),
        mend={"engine": {"pooling": "mean"}},
    ),
    "on-cpu": Row(
        reason=Reason.RUNS_ON_CPU,
        spec={"gpu": {"count": 1}, "requireOffload": True},
        words=("no usable GPU found", "spec.requireOffload"),
        mend={"requireOffload": None},
    ),
}


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What a status said from then on, in seconds since 1970; `ended`: when the container did whose end it tells of."""

    at: float
    reason: str
    message: str
    ended: float | None


class Watch:
    """When each model was first seen with each reason, and with what message; looks once a second."""

    def __init__(self, kube: Kube) -> None:
        self._kube = kube
        self._stop = threading.Event()
        self.begun: set[str] = set()
        self.seen: dict[str, list[Seen]] = {}
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.wait(0.5):
            models = self._kube.select("lm")
            now = time.time()
            for model in models:
                ready = condition(model, "Ready")
                seen = self.seen.setdefault(model["metadata"]["name"], [])
                if ready and (not seen or (seen[-1].reason, seen[-1].message) != (ready["reason"], ready["message"])):
                    last = model["status"].get("lastFailure") or {}
                    ended = last["time"] if last.get("reason") == ready["reason"] else None
                    seen.append(
                        Seen(
                            at=now,
                            reason=ready["reason"],
                            message=ready["message"],
                            ended=datetime.fromisoformat(ended).timestamp() if ended else None,
                        )
                    )

    def reason(self, name: str) -> str:
        return self.seen[name][-1].reason if self.seen.get(name) else ""

    def first(self, name: str, reason: str, *, since: float = 0.0) -> Seen | None:
        return next((one for one in self.seen.get(name, ()) if one.reason == reason and one.at >= since), None)

    def end(self) -> None:
        self._stop.set()
        self._thread.join()


@pytest.fixture(scope="module")
def folder(environment: Environment) -> Iterator[Path]:
    path = environment.models_dir / "failures"
    path.mkdir(exist_ok=True)
    write_bad_files(path, environment.models_dir / GEMMA)
    for file in path.iterdir():
        file.chmod(0o600 if file.name == "locked.gguf" else 0o644)
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="module")
def watch(kube: Kube, environment: Environment, folder: Path) -> Iterator[Watch]:
    """A bystander that serves, then all the models that fail."""
    environment.deploy_operator(f"inspection.timeoutSec={INSPECTION_SEC}", "webhook.mode=off")
    kube.apply(llama_model("bystander", engine=SMALL))
    kube("wait", "--for=condition=Ready", "lm/bystander", "--timeout=180s", timeout=200)
    (before,) = kube.select("pods", "llamamodel.dev/model=bystander")
    kube.apply(*obstacles(kube.namespace))
    time.sleep(2)  # a policy takes a moment to be enforced
    watching = Watch(kube)
    yield watching
    watching.end()
    (after,) = kube.select("pods", "llamamodel.dev/model=bystander")
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    assert after["status"]["containerStatuses"][0]["restartCount"] == 0
    assert {one.reason for one in watching.seen["bystander"]} == {"Ready"}, "nobody else notices"
    kube("delete", "llamamodels", "--all", "--wait")
    kube.delete("validatingadmissionpolicybinding", "test-failures")
    kube.delete("validatingadmissionpolicy", "test-failures")
    kube.delete("persistentvolume", "test-failures-no-folder", "--wait=false")
    environment.deploy_operator()


@pytest.fixture
def row(request: pytest.FixtureRequest, kube: Kube, watch: Watch) -> Iterator[tuple[str, Row]]:
    """A model that fails, begun some time ago; it goes afterwards."""
    names = list(ROWS)
    name = request.param
    for other in names[: names.index(name) + 1 + AHEAD]:
        if other not in watch.begun:
            watch.begun.add(other)
            engine = {**SMALL, **ROWS[other].spec.get("engine", {})}
            kube.apply(llama_model(other, **{**ROWS[other].spec_with_file, "engine": engine}))
    yield name, ROWS[name]
    kube.delete("llamamodel", name, "--wait=false")


def obstacles(namespace: str) -> list[dict[str, Any]]:
    """What is in the way of some."""

    def claim(name: str, storage_class: str) -> dict[str, Any]:
        return {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": name},
            "spec": {
                "accessModes": ["ReadOnlyMany"],
                "storageClassName": storage_class,
                "resources": {"requests": {"storage": "1Gi"}},
            },
        }

    volume = {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": "test-failures-no-folder"},
        "spec": {
            "accessModes": ["ReadOnlyMany"],
            "storageClassName": "no-folder",
            "capacity": {"storage": "1Gi"},
            "hostPath": {"path": "/no-such-folder", "type": "Directory"},
            "claimRef": {"namespace": namespace, "name": "no-folder"},
        },
    }
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "taken", "labels": {"app": "theirs"}},
        "spec": {"ports": [{"port": 80}]},
    }
    policy = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": "test-failures"},
        "spec": {
            "failurePolicy": "Fail",
            "matchConstraints": {
                "resourceRules": [
                    {
                        "apiGroups": ["apps"],
                        "apiVersions": ["v1"],
                        "operations": ["CREATE"],
                        "resources": ["deployments"],
                    }
                ]
            },
            "validations": [{"expression": "object.metadata.name != 'denied'", "message": "this name is not wanted"}],
        },
    }
    binding = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": "test-failures"},
        "spec": {
            "policyName": "test-failures",
            "validationActions": ["Deny"],
            "matchResources": {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}}},
        },
    }
    return [claim("waits", "none-such"), volume, claim("no-folder", "no-folder"), service, policy, binding]


def test_every_reason_that_can_be_provoked_is() -> None:
    assert {row.reason for row in ROWS.values()} | {Reason.QUOTA_EXCEEDED} == set(PROVOKED)
    assert len(PROVOKED) >= 20


@pytest.mark.parametrize("row", ROWS, indirect=True)
def test_it_is_called_by_its_name_says_what_to_do_and_is_gone_when_it_is_mended(
    row: tuple[str, Row], kube: Kube, watch: Watch, folder: Path
) -> None:
    name, what = row
    eventually(lambda: watch.reason(name) == what.reason, within=240, pause=0.5)
    found = watch.first(name, what.reason)
    assert found is not None
    message = found.message
    assert [word for word in what.words if word not in message] == [], message
    assert f"docs/troubleshooting.md#{what.reason.lower()}" in message or what.reason is Reason.CLAIM_PENDING
    assert "\n" not in message
    if found.ended is not None:
        print(f"{name}: {what.reason} {found.at - found.ended:.1f} s after the end of the container")
        assert found.at - found.ended <= SOON_SEC

    mended = time.time()
    if what.mended is not None:
        what.mended(kube, folder)
    else:
        kube.patch("lm", name, {"spec": what.mend})
    eventually(lambda: watch.reason(name) != what.reason, within=what.gone_within + 10, pause=0.5)
    gone = next(one.at for one in watch.seen[name] if one.at >= mended and one.reason != what.reason)
    print(f"{name}: {what.reason} gone {gone - mended:.1f} s after it was mended")
    assert gone - mended <= what.gone_within
    # No restart of the operator, no hand laid on a pod: it gets there by itself.
    kube("wait", "--for=condition=Ready", f"lm/{name}", "--timeout=300s", timeout=310)


def test_a_quota_of_no_pods(kube: Kube, environment: Environment, watch: Watch) -> None:
    """Alone, and last: it is in the way of all."""
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "none"}, "spec": {"hard": {"pods": "0"}}}
    kube.apply(quota)
    kube.apply(llama_model("counted", engine=SMALL))
    eventually(lambda: watch.reason("counted") == Reason.QUOTA_EXCEEDED, within=120, pause=0.5)
    found = watch.first("counted", Reason.QUOTA_EXCEEDED)
    assert found is not None
    assert "exceeded quota: none" in found.message
    kube.delete("resourcequota", "none")
    eventually(lambda: watch.reason("counted") != Reason.QUOTA_EXCEEDED, within=LATER_SEC, pause=0.5)
    print(json.dumps({name: [(round(one.at, 1), one.reason) for one in seen] for name, seen in watch.seen.items()}))
