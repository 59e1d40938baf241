"""What tests of Argo CD's and Flux's health checks look at is what the operator writes: each object is brought about on
a real API server and compared with its file, but for times and the like.

`pytest tests/api/test_argocd_objects.py --renew-testdata` writes the files anew; review them with git diff.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from llamamodel_operator.api.llamamodel import LlamaModel
from llamamodel_operator.core.inspection import document_of, files_digest, files_of, inspection_key
from llamamodel_operator.core.objects.facts import build_facts
from llamamodel_operator.shell.gguf_files import open_gguf
from support.gguf import layer_tensors, llama_metadata, write_gguf

from .harness.bench import Bench
from .harness.cluster import REPOSITORY
from .harness.kube import Kube, Obj
from .harness.models import Manifest, a_claim, a_model
from .harness.waiting import eventually

CUSTOMIZATION = REPOSITORY / "gitops/argocd/resource_customizations/llamamodel.dev/LlamaModel"
TESTDATA = CUSTOMIZATION / "testdata"
OPERATOR: dict[str, Any] = {"resync_interval_sec": 600, "operator_image": "example.com/operator:1"}
IMAGE = "ghcr.io/ggml-org/llama.cpp:server-b11669"
NOON, UID = "2026-01-01T12:00:00Z", "00000000-0000-4000-8000-000000000000"

pytestmark = pytest.mark.usefixtures("operator")

Keep = Callable[[str, Obj], None]


@pytest.fixture
def keep(request: pytest.FixtureRequest, bench: Bench) -> Keep:
    """Compares an object with `testdata/NAME.yaml`, or writes that."""

    def keep(name: str, model: Obj) -> None:
        _compare(TESTDATA / f"{name}.yaml", _lasting(model, namespace=bench.namespace), request=request)

    return keep


def _compare(file: Path, model: Obj, *, request: pytest.FixtureRequest) -> None:
    if request.config.getoption("--renew-testdata"):
        file.write_text(yaml.safe_dump(model, allow_unicode=True, width=120))
    assert file.exists(), f"{file.name} is missing: pytest tests/api/test_argocd_objects.py --renew-testdata"
    assert yaml.safe_load(file.read_text()) == model


def _lasting(model: Obj, *, namespace: str) -> Obj:
    """As `kubectl get -o yaml` shows it, with what differs from run to run replaced."""
    metadata = {key: value for key, value in model["metadata"].items() if key != "managedFields"}
    metadata |= {"uid": UID, "resourceVersion": "1"}
    text = yaml.safe_dump({**model, "metadata": metadata}, allow_unicode=True)
    text = re.sub(rf"\b{re.escape(namespace)}\b", "models", text)
    text = re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", NOON, text)
    lasting: Obj = yaml.safe_load(text)
    return lasting


def settled(bench: Bench, reason: str) -> Obj:
    """The model once Ready has this reason and nothing more is written."""
    bench.wait_for_reason("gemma", reason)

    def twice() -> tuple[Obj, Obj]:
        first = bench.get("LlamaModel", "gemma")
        time.sleep(1)
        return first, bench.get("LlamaModel", "gemma")

    pair = eventually(twice, until=lambda pair: pair[0] == pair[1], what="nothing more is written")
    return pair[0]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write_gguf(tmp_path / "gemma.gguf", metadata=llama_metadata(), tensors=layer_tensors())


def gemma() -> Manifest:
    return a_model("gemma").with_(image=IMAGE)


def start(bench: Bench, file: Path, model: Manifest) -> None:
    """The claim is bound, the model is made, and its file was inspected."""
    bench.play_bound_claim()
    bench.create(model)
    play_inspection(bench, file)


def play_inspection(bench: Bench, file: Path) -> None:
    """The inspection's Job: the facts about the file are kept."""
    model = LlamaModel.parse(bench.get("LlamaModel", "gemma"))
    files, found = files_of(model.spec), open_gguf(str(file))
    facts = build_facts(
        model,
        key=inspection_key(files),
        digest=files_digest([found]),
        time=NOON,
        document=document_of(zip(files, [found], strict=True)),
    )
    bench.kube.create(facts)


def serve(bench: Bench, file: Path, model: Manifest, *, pods: int = 1) -> None:
    """It is ready."""
    start(bench, file, model)
    bench.wait_for_reason("gemma", "Starting")
    bench.play_rollout("gemma", pods=pods)
    bench.wait_for_reason("gemma", "Ready")


def play_pod(bench: Bench, **status: Any) -> None:
    """The controller-manager, the scheduler and the kubelet: a pod of the present template with this status."""
    name = "gemma-new"
    template = bench.get("Deployment", "gemma")["spec"]["template"]
    metadata = {"name": name, "namespace": bench.namespace, "labels": template["metadata"]["labels"]}
    bench.kube.create({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]})
    bench.kube.merge("Pod", bench.namespace, name, {"status": status}, subresource="status")


def container(state: dict[str, Any], **more: Any) -> dict[str, Any]:
    ready = {"ready": False, "started": False, "restartCount": 0}
    return {"name": "llama-server", "image": IMAGE, "imageID": "x", **ready, "state": state, **more}


def test_just_applied(bench: Bench, keep: Keep) -> None:
    keep("just-applied", bench.create(gemma()))


def test_a_change_that_nobody_has_looked_at(bench: Bench, keep: Keep, file: Path) -> None:
    serve(bench, file, gemma())
    settled(bench, "Ready")

    keep("change-not-seen", bench.edit_spec("gemma", engine={"contextSize": 1024}))


def test_a_claim_that_is_missing(bench: Bench, keep: Keep) -> None:
    bench.create(gemma())

    keep("claim-missing", settled(bench, "ClaimNotFound"))


def test_a_claim_that_waits(bench: Bench, keep: Keep, file: Path) -> None:
    bench.apply(a_claim())
    bench.play_claim_phase("models", "Pending")
    bench.create(gemma())
    play_inspection(bench, file)

    keep("claim-pending", settled(bench, "ClaimPending"))


def test_files_are_inspected(bench: Bench, keep: Keep) -> None:
    bench.play_bound_claim()
    bench.create(gemma())

    keep("inspecting", settled(bench, "Inspecting"))


def test_no_pod_yet(bench: Bench, keep: Keep, file: Path) -> None:
    start(bench, file, gemma())

    keep("starting", settled(bench, "Starting"))


def test_a_server_loads(bench: Bench, keep: Keep, file: Path) -> None:
    start(bench, file, gemma())
    bench.wait_for_reason("gemma", "Starting")
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    play_pod(bench, phase="Running", containerStatuses=[container({"running": {"startedAt": now}})])

    keep("loading", settled(bench, "Loading"))


def test_ready(bench: Bench, keep: Keep, file: Path) -> None:
    serve(bench, file, gemma())

    keep("ready", settled(bench, "Ready"))


def test_ready_with_warnings(bench: Bench, keep: Keep, file: Path) -> None:
    serve(bench, file, gemma().with_(engine={"contextSize": 1_000_000, "parallelSlots": 3}))

    model = settled(bench, "Ready")
    assert [finding["severity"] for finding in model["status"]["findings"]].count("warning") >= 1
    keep("ready-with-warnings", model)


def test_an_argument_that_the_build_does_not_have(bench: Bench, keep: Keep, file: Path) -> None:
    serve(bench, file, gemma())

    bench.edit_spec("gemma", extraArgs=["--no-such-flag"])

    keep("held-back", settled(bench, "HeldBack"))


def test_a_spec_that_cannot_work(bench: Bench, keep: Keep, file: Path) -> None:
    start(bench, file, gemma().with_(extraArgs=["--host", "0.0.0.0"]))  # noqa: S104

    keep("invalid", settled(bench, "InvalidSpec"))


def test_memory_that_does_not_fit(bench: Bench, keep: Keep, kube: Kube, file: Path) -> None:
    labels = {"nvidia.com/gpu.memory": "64"}
    kube.create({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "small", "labels": labels}})
    kube.merge("Node", "", "small", {"status": {"allocatable": {"nvidia.com/gpu": "1"}}}, subresource="status")
    try:
        # Layers and context are given: what would be settled depends on whether the node was seen in time.
        fixed = {"contextSize": 4096, "gpuLayers": "all"}
        start(bench, file, gemma().with_(gpu={"count": 1}, engine=fixed, memoryPolicy="Block", suspend=True))
        bench.wait_for_reason("gemma", "MemoryTooSmall", kind="MemoryFits")
        bench.edit_spec("gemma", suspend=None)

        keep("memory-too-small", settled(bench, "MemoryTooSmall"))
    finally:
        kube.delete("Node", "", "small")


def test_a_server_that_does_not_take_its_memory(bench: Bench, keep: Keep, file: Path) -> None:
    start(bench, file, gemma())
    bench.wait_for_reason("gemma", "Starting")
    said = "ggml_backend_cuda_buffer_type_alloc_buffer: allocating 4096.00 MiB on device 0: cudaMalloc failed:"
    said += " out of memory"
    ended = {"exitCode": 1, "reason": "Error", "message": said, "startedAt": NOON, "finishedAt": NOON}
    waiting = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s"}}
    statuses = [container(waiting, restartCount=3, lastState={"terminated": ended})]
    play_pod(bench, phase="Running", containerStatuses=statuses)

    keep("out-of-gpu-memory", settled(bench, "OutOfGPUMemory"))


def test_an_image_that_is_not_there(bench: Bench, keep: Keep, file: Path) -> None:
    start(bench, file, gemma())
    bench.wait_for_reason("gemma", "Starting")
    said = f'failed to pull and unpack image "{IMAGE}": failed to resolve reference "{IMAGE}": {IMAGE}: not found'
    play_pod(
        bench,
        phase="Pending",
        containerStatuses=[container({"waiting": {"reason": "ErrImagePull", "message": said}})],
    )

    keep("image-not-found", settled(bench, "ImageNotFound"))


def test_a_pod_that_fits_no_node(bench: Bench, keep: Keep, file: Path) -> None:
    start(bench, file, gemma())
    bench.wait_for_reason("gemma", "Starting")
    said = "0/3 nodes are available: 3 Insufficient memory."
    unscheduled = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": said}
    play_pod(bench, phase="Pending", conditions=[unscheduled])

    keep("unschedulable", settled(bench, "Unschedulable"))


def test_the_pod_of_the_spec_before_serves_while_the_next_one_starts(bench: Bench, keep: Keep, file: Path) -> None:
    serve(bench, file, gemma())

    bench.edit_spec("gemma", engine={"contextSize": 1024})

    keep("rolling-out", settled(bench, "RollingOut"))


def test_one_pod_of_two_is_not_ready_any_more(bench: Bench, keep: Keep, file: Path) -> None:
    serve(bench, file, gemma().with_(replicas=2), pods=2)

    said = "containers with unready status: [llama-server]"
    lost = {"type": "Ready", "status": "False", "message": said, "lastTransitionTime": "2099-01-01T00:00:00Z"}
    bench.kube.merge("Pod", bench.namespace, "gemma-1", {"status": {"conditions": [lost]}}, subresource="status")

    keep("one-of-two-ready", settled(bench, "PodNotReady"))


def test_suspended(bench: Bench, keep: Keep) -> None:
    bench.play_bound_claim()
    bench.create(gemma().with_(suspend=True))

    keep("suspended", settled(bench, "Suspended"))


@pytest.mark.parametrize(
    ("before", "after", "suspend"), [("ready", "ready-suspended", True), ("suspended", "suspended-resumed", False)]
)
def test_what_the_actions_make(before: str, after: str, suspend: bool, request: pytest.FixtureRequest) -> None:
    model = yaml.safe_load((TESTDATA / f"{before}.yaml").read_text())
    changed = {**model, "spec": {**model["spec"], "suspend": suspend}}

    _compare(CUSTOMIZATION / "actions" / "testdata" / f"{after}.yaml", changed, request=request)


def test_scaled_to_zero(bench: Bench, keep: Keep) -> None:
    bench.play_bound_claim()
    bench.create(gemma().with_(replicas=0))

    keep("scaled-to-zero", settled(bench, "ScaledToZero"))


def test_being_deleted(bench: Bench, keep: Keep, file: Path) -> None:
    serve(bench, file, gemma())
    settled(bench, "Ready")
    bench.edit("LlamaModel", "gemma", {"metadata": {"finalizers": ["example.com/somebody-elses"]}})

    bench.delete("LlamaModel", "gemma")

    keep("being-deleted", bench.get("LlamaModel", "gemma"))
