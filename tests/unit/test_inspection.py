"""Files are looked at before a model starts: the reconciler, its Jobs, and the program that runs in them, for real."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from llamamodel_operator import inspector
from llamamodel_operator.api.labels import INSPECT_ANNOTATION, MANAGED_BY_LABEL, MANAGER, MODEL_LABEL, REVISION_LABEL
from llamamodel_operator.core.inspection import Verdict
from llamamodel_operator.core.objects.check import CHECK_CONTAINER
from llamamodel_operator.core.objects.drain import DRAIN_CONTAINER
from llamamodel_operator.core.objects.job import INSPECT_CONTAINER
from llamamodel_operator.core.times import format_time
from llamamodel_operator.shell.client import (
    CONFIG_MAPS,
    DEPLOYMENTS,
    JOBS,
    MODELS,
    PERSISTENT_VOLUME_CLAIMS,
    PODS,
    SERVICES,
    ApiError,
)
from llamamodel_operator.shell.reconciler import RefusedError
from llamamodel_operator.shell.resync import Resync
from support.gguf import layer_tensors, llama_metadata, write_adapter, write_gguf, write_parts, write_projector

from .builders import ModelBuilder, a_claim, a_model, a_pod
from .fake_cluster import FakeCluster
from .world import GEMMA, OPERATOR_IMAGE, World


class Node:
    """Runs what the operator has made, on a volume that is a folder."""

    def __init__(self, world: World, volume: Path) -> None:
        self.world = world
        self.volume = volume
        self.said = ""

    def jobs(self) -> list[dict[str, Any]]:
        return [self.world.cluster.shows(JOBS, key) for key in sorted(self.world.cluster.keys(JOBS))]

    def run_program(self, container: Mapping[str, Any]) -> tuple[int, bytes, str]:
        """Exit code, log and termination message of a container of the operator's image."""
        words = [word.replace("$$", "$") for word in container["args"]]
        place = words.index("--files") + 1
        words[place] = words[place].replace("/models/", f"{self.volume}/")
        message = self.volume / ".termination-log"
        message.unlink(missing_ok=True)
        out = io.TextIOWrapper(io.BytesIO())
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()) as err:
            code = inspector.main([*words, "--message-file", str(message)])
        self.said = err.getvalue()
        out.flush()
        assert isinstance(out.buffer, io.BytesIO)
        return code, out.buffer.getvalue(), message.read_text()

    def runs_the_job(self, *, takes_sec: int = 2) -> None:
        """The Job's pod runs to its end, and the watches tell of it."""
        (job,) = self.jobs()
        (container,) = job["spec"]["template"]["spec"]["containers"]
        code, log, message = self.run_program(container)
        self.world.now += timedelta(seconds=takes_sec)
        self.a_pod_of(job, terminated(code, message, self.world.now))
        self.world.cluster.logs[f"{job['metadata']['name']}-x"] = log

    def a_pod_of(self, job: Mapping[str, Any], state: Mapping[str, Any], **status: object) -> None:
        template = job["spec"]["template"]["metadata"]
        metadata = {
            "name": f"{job['metadata']['name']}-x",
            "namespace": "demo",
            "uid": f"pod-of-{job['metadata']['uid']}",
            "labels": template["labels"],
            "ownerReferences": [{"uid": job["metadata"]["uid"], "controller": True, "kind": "Job", "name": "j"}],
        }
        containers = [{"name": INSPECT_CONTAINER, "state": state}]
        self.shows({"metadata": metadata, "spec": {}, "status": {**status, "containerStatuses": containers}})

    def starts_a_pod(self) -> bool:
        """A pod of the Deployment comes to its init container; whether that lets it go on."""
        deployment = self.world.cluster.shows(DEPLOYMENTS, GEMMA)
        template = deployment["spec"]["template"]
        container = check_in(template)
        code, _, message = self.run_program(container)
        self.world.now += timedelta(seconds=2)
        metadata = {
            "name": "gemma-0",
            "namespace": "demo",
            "uid": "uid-of-gemma-0",
            "labels": {
                MANAGED_BY_LABEL: MANAGER,
                MODEL_LABEL: "gemma",
                REVISION_LABEL: template["metadata"]["labels"][REVISION_LABEL],
            },
        }
        checked = [{"name": CHECK_CONTAINER, "state": terminated(code, message, self.world.now)}]
        status: dict[str, Any] = {"phase": "Pending", "initContainerStatuses": checked}
        if code == 0:
            running = {"running": {"startedAt": format_time(self.world.now)}}
            status["phase"] = "Running"
            status["conditions"] = [{"type": "Ready", "status": "True"}]
            status["containerStatuses"] = [{"name": "llama-server", "state": running, "started": True, "ready": True}]
        self.shows({"metadata": metadata, "spec": {"nodeName": "node-1"}, "status": status})
        return code == 0

    def shows(self, pod: dict[str, Any]) -> None:
        self.world.store.put(PODS, self.world.cluster.has(PODS, pod))


def check_in(template: Mapping[str, Any]) -> Any:
    """The check that pods begin with; None where they begin without."""
    containers = template["spec"].get("initContainers") or []
    return next((container for container in containers if container["name"] == CHECK_CONTAINER), None)


def terminated(code: int, message: str, at: datetime) -> dict[str, Any]:
    reason = "Error" if code else "Completed"
    return {"terminated": {"exitCode": code, "reason": reason, "message": message, "finishedAt": format_time(at)}}


@pytest.fixture
def world(cluster: FakeCluster) -> World:
    world = World(cluster, inspecting=True)
    world.has_claim()
    return world


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """The root of the claim `models`."""
    folder = tmp_path / "models"
    (folder / "gemma").mkdir(parents=True)
    return folder


@pytest.fixture
def node(world: World, models: Path) -> Node:
    return Node(world, models.parent)


def a_file(models: Path, name: str = "gemma/gemma-3-270m.gguf", *, context: int = 4096) -> Path:
    return write_gguf(models / name, metadata=llama_metadata(context=context), tensors=layer_tensors())


async def passes(world: World, times: int = 1) -> None:
    for _ in range(times):
        await world.reconciler.reconcile(GEMMA)


async def is_served(world: World, node: Node, model: ModelBuilder | None = None) -> None:
    """From nothing to a Deployment."""
    world.has(model or a_model())
    await passes(world)
    node.runs_the_job()
    await passes(world)


async def restarted(world: World) -> World:
    """Another process of the operator, which knows what the cluster has."""
    after = World(world.cluster, inspecting=True)
    after.now = world.now
    resync = Resync(
        client=world.cluster,
        store=after.store,
        metrics=after.metrics,
        namespaces=(),
        interval_sec=300,
        enqueue=after.again.append,
    )
    await resync.fill()
    return after


async def test_the_files_are_inspected_before_anything_takes_a_gpu(world: World, node: Node, models: Path) -> None:
    a_file(models)
    world.has(a_model().with_gpu())
    await passes(world, 3)
    (job,) = node.jobs()
    assert world.cluster.keys(DEPLOYMENTS) == world.cluster.keys(SERVICES) == set()
    assert world.condition("Inspected")[:2] == ("Unknown", "Inspecting")
    assert world.condition("Accepted")[0] == "True"
    assert world.ready()[0] == "Inspecting"
    assert world.later[GEMMA] <= 120
    node.runs_the_job()
    await passes(world)
    assert world.condition("Inspected")[:2] == ("True", "Inspected")
    assert world.cluster.keys(DEPLOYMENTS) == {GEMMA}
    assert node.jobs() == []
    assert job["metadata"]["name"].startswith("gemma-inspect-")


async def test_the_job_is_small_restricted_and_has_no_gpu(world: World, node: Node) -> None:
    model = (
        a_model()
        .with_gpu(2)
        .with_spec(
            tolerations=[{"key": "nvidia.com/gpu", "operator": "Exists"}],
            nodeSelector={"nvidia.com/gpu.product": "H100"},
            affinity={"nodeAffinity": {}},
            imagePullSecrets=[{"name": "registry"}],
            podSecurityContext={"fsGroup": 1000},
            priorityClassName="high",
            serviceAccountName="llama",
            env=[{"name": "TOKEN", "value": "secret"}],
            chatTemplate={"pvc": {"claimName": "templates", "path": "a.jinja"}},
            loraAdapters=[{"name": "sql", "pvc": {"claimName": "lora", "path": "sql.gguf"}}],
        )
    )
    for name in ("lora", "templates"):
        world.store.put(PERSISTENT_VOLUME_CLAIMS, a_claim().named(name).raw())
    world.has(model)
    await passes(world)
    (job,) = node.jobs()
    template, spec = job["spec"]["template"], job["spec"]
    pod = template["spec"]
    (container,) = pod["containers"]
    assert (spec["backoffLimit"], spec["activeDeadlineSeconds"]) == (0, 300)
    assert job["metadata"]["ownerReferences"][0]["uid"] == "uid-of-gemma"
    assert container["image"] == OPERATOR_IMAGE
    assert container["resources"] == {
        "requests": {"cpu": "10m", "memory": "64Mi"},
        "limits": {"cpu": "1", "memory": "256Mi"},
    }
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert [(m["mountPath"], m["readOnly"]) for m in container["volumeMounts"]] == [
        ("/models/models", True),
        ("/models/lora", True),
    ]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["fsGroup"] == 1000
    assert pod["tolerations"] == model.spec["tolerations"]
    assert (pod["priorityClassName"], pod["serviceAccountName"]) == ("high", "llama")
    assert pod["imagePullSecrets"] == [{"name": "registry"}]
    assert pod["automountServiceAccountToken"] is False
    assert not {"nodeSelector", "affinity", "initContainers", "nodeName"} & pod.keys()
    assert MODEL_LABEL not in template["metadata"]["labels"]  # else the Service would find it
    assert template["metadata"]["annotations"]["sidecar.istio.io/inject"] == "false"
    assert template["metadata"]["annotations"]["linkerd.io/inject"] == "disabled"
    assert "secret" not in json.dumps(job)


async def test_a_restart_of_the_operator_makes_no_job(world: World, node: Node, models: Path) -> None:
    a_file(models)
    await is_served(world, node)
    after = await restarted(world)
    world.cluster.forget_writes()
    await after.reconciler.reconcile(GEMMA)
    assert world.cluster.writes == []


async def test_reviews_are_told_what_is_known_of_these_very_files(world: World, node: Node, models: Path) -> None:
    a_file(models)
    assert world.inspector.known(a_model().build(), asked="") is None
    await is_served(world, node)
    await world.reconciler.reconcile(GEMMA)
    known = world.inspector.known(a_model().build(), asked="")
    assert known is not None
    assert known.model is not None
    assert world.inspector.known(a_model().reading("models", "other.gguf").build(), asked="") is None


async def test_facts_are_parsed_once(world: World, node: Node, models: Path) -> None:
    a_file(models)
    await is_served(world, node)
    first = await world.inspector.look(a_model().build(), asked="")
    second = await world.inspector.look(a_model().build(), asked="")
    assert first.inspection.model is second.inspection.model
    assert first.inspection.model is not None
    assert first.inspection.model.text("general.architecture") == "llama"


async def test_facts_that_others_spoilt_are_made_anew(world: World, node: Node, models: Path) -> None:
    a_file(models)
    await is_served(world, node)
    (name,) = world.cluster.keys(CONFIG_MAPS)
    raw = world.cluster.shows(CONFIG_MAPS, name)
    spoilt: list[Any] = [{}, {"facts.json.gz": "AAAA"}, {"facts.json.gz": "!"}, {"facts.json.gz": 7}, None, []]
    for broken in spoilt:
        raw["binaryData"] = broken
        world.store.put(CONFIG_MAPS, world.cluster.has(CONFIG_MAPS, raw))
        world.cluster.forget_writes()
        await passes(world)
        assert [write.verb for write in world.cluster.writes if write.kind == "Job"] == ["create"]
        assert world.cluster.keys(DEPLOYMENTS) == {GEMMA}
        node.runs_the_job()
        await passes(world)
        assert world.condition("Inspected")[0] == "True"


BAD: Mapping[str, tuple[str, str]] = {
    "missing": ("ModelFileNotFound", "there is no such file"),
    "truncated": ("ModelTruncated", "gemma-3-270m.gguf"),
    "no GGUF": ("NotGGUF", "gemma-3-270m.gguf"),
    "a folder": ("NotGGUF", "a folder"),
    "leads out": ("ModelFileNotFound", "outside of"),
    "checksum": ("ChecksumMismatch", "SHA-256"),
    "a part": ("PartMissing", "m-00002-of-00003.gguf"),
    "an adapter": ("AdapterIncompatible", "sql.gguf"),
    "a projector": ("ProjectorIncompatible", "mmproj.gguf"),
}


def bad(what: str, models: Path) -> ModelBuilder:
    path, model = models / "gemma/gemma-3-270m.gguf", a_model()
    match what:
        case "truncated":
            with a_file(models).open("rb+") as file:
                file.truncate(20_000)
        case "no GGUF":
            path.write_bytes(b"PK\x03\x04" + bytes(100))
        case "a folder":
            path.mkdir()
        case "leads out":
            path.symlink_to("/etc/hostname")
        case "checksum":
            a_file(models)
            pvc = {"claimName": "models", "path": "gemma/gemma-3-270m.gguf", "sha256": "0" * 64}
            return model.with_spec(model={"pvc": pvc})
        case "a part":
            parts = write_parts(models, "m", metadata=llama_metadata(), tensors=layer_tensors(), parts=3)
            parts[1].unlink()
            return model.reading("models", "m-00001-of-00003.gguf")
        case "an adapter":
            a_file(models)
            write_adapter(models / "sql.gguf", targets={"blk.0.attn_q.weight": (128, 128)})
            return model.with_spec(loraAdapters=[{"name": "sql", "pvc": {"claimName": "models", "path": "sql.gguf"}}])
        case "a projector":
            a_file(models)
            write_projector(models / "mmproj.gguf", embedding=96)
            return model.with_spec(projector={"pvc": {"claimName": "models", "path": "mmproj.gguf"}})
    return model


@pytest.mark.parametrize("what", BAD)
async def test_a_bad_file_has_its_own_reason_and_nothing_is_started(
    what: str, world: World, node: Node, models: Path
) -> None:
    reason, message = BAD[what]
    await is_served(world, node, bad(what, models).with_gpu())
    assert world.ready()[0] == reason
    assert message in world.ready()[1]
    assert "spec." in world.ready()[1]
    assert world.condition("Inspected")[:2] == ("False", reason)
    assert world.cluster.keys(DEPLOYMENTS) == set()
    assert "Traceback" not in node.said
    assert world.cluster.shows(MODELS, GEMMA)["status"]["phase"] == "Failed"


async def test_a_bad_file_is_looked_at_again_until_it_is_good(world: World, node: Node, models: Path) -> None:
    await is_served(world, node)
    assert world.ready()[0] == "ModelFileNotFound"
    since = world.now
    (first,) = node.jobs()
    assert world.later[GEMMA] == 5
    await passes(world)
    assert node.jobs() == [first]
    world.now += timedelta(seconds=5)
    world.cluster.forget_writes()
    await passes(world)
    (second,) = node.jobs()
    assert second["metadata"]["uid"] != first["metadata"]["uid"]
    assert second["metadata"]["name"] == first["metadata"]["name"]
    assert not [write for write in world.cluster.writes if write.kind == "LlamaModel"]  # nothing flickers
    assert format_time(since) in json.dumps(second["metadata"]["annotations"])
    a_file(models)
    node.runs_the_job()
    await passes(world)
    assert world.cluster.keys(DEPLOYMENTS) == {GEMMA}
    assert node.jobs() == []


async def test_a_bad_file_does_not_touch_what_runs(world: World, node: Node, models: Path) -> None:
    a_file(models)
    await is_served(world, node)
    assert node.starts_a_pod()
    await passes(world)
    before = world.cluster.shows(DEPLOYMENTS, GEMMA)["spec"]
    world.has(a_model().reading("models", "other.gguf").at_generation(2).with_replicas(3))
    await passes(world)
    node.runs_the_job()
    await passes(world)
    assert world.ready()[0] == "ModelFileNotFound"
    assert world.condition("Available")[0] == "True"
    after = world.cluster.shows(DEPLOYMENTS, GEMMA)["spec"]
    assert after == {**before, "replicas": 3}  # scaling works all the same


async def test_another_value_of_the_annotation_asks_for_another_inspection(
    world: World, node: Node, models: Path
) -> None:
    a_file(models)
    await is_served(world, node)
    assert node.starts_a_pod()
    await passes(world)
    raw = world.cluster.shows(MODELS, GEMMA)
    raw["metadata"]["annotations"] = {INSPECT_ANNOTATION: "2026-01-01"}
    world.store.put(MODELS, world.cluster.has(MODELS, raw))
    before = world.cluster.shows(DEPLOYMENTS, GEMMA)
    await passes(world)
    assert len(node.jobs()) == 1
    assert world.condition("Inspected")[:2] == ("Unknown", "Inspecting")
    assert world.ready()[0] not in ("Inspecting", "ModelFileNotFound")  # what runs is not in question
    node.runs_the_job()
    await passes(world)
    assert world.condition("Inspected")[0] == "True"
    assert world.cluster.shows(DEPLOYMENTS, GEMMA) == before
    assert len([key for key in world.cluster.keys(CONFIG_MAPS) if "-facts-" in key.name]) == 1


async def test_a_change_that_names_the_same_files_asks_for_none(world: World, node: Node, models: Path) -> None:
    a_file(models)
    await is_served(world, node)
    world.has(a_model().with_engine(contextSize=2048).at_generation(2))
    await passes(world)
    assert node.jobs() == []
    words = world.cluster.shows(DEPLOYMENTS, GEMMA)["spec"]["template"]["spec"]["containers"][0]["args"]
    assert "2048" in words


async def test_pods_begin_with_a_check_of_what_was_inspected(world: World, node: Node, models: Path) -> None:
    a_file(models)
    await is_served(world, node)
    spec = world.cluster.shows(DEPLOYMENTS, GEMMA)["spec"]["template"]["spec"]
    check, sidecar = spec["initContainers"]
    assert sidecar["name"] == DRAIN_CONTAINER
    assert check["image"] == OPERATOR_IMAGE
    assert [mount["readOnly"] for mount in check["volumeMounts"]] == [True]
    assert check["securityContext"] == spec["containers"][0]["securityContext"]
    assert node.starts_a_pod()


async def test_a_replaced_file_is_caught_when_a_pod_starts_and_inspected_again(
    world: World, node: Node, models: Path
) -> None:
    a_file(models)
    await is_served(world, node)
    old = world.cluster.shows(DEPLOYMENTS, GEMMA)["spec"]["template"]["metadata"]["labels"][REVISION_LABEL]
    a_file(models, context=8192)
    assert not node.starts_a_pod()
    await passes(world)
    assert world.ready()[0] == "ModelFileChanged"
    assert "is not the file that was inspected" in world.ready()[1]
    node.runs_the_job()
    await passes(world)
    new = world.cluster.shows(DEPLOYMENTS, GEMMA)["spec"]["template"]["metadata"]["labels"][REVISION_LABEL]
    assert new != old
    assert node.starts_a_pod()
    await passes(world)
    assert node.jobs() == []


async def test_a_file_that_is_gone_when_a_pod_starts_is_a_bad_one(world: World, node: Node, models: Path) -> None:
    a_file(models)
    await is_served(world, node)
    (models / "gemma/gemma-3-270m.gguf").unlink()
    assert not node.starts_a_pod()
    await passes(world)
    assert world.ready()[0] == "ModelFileNotFound"
    node.runs_the_job()
    await passes(world)
    assert world.condition("Inspected")[:2] == ("False", "ModelFileNotFound")


async def test_a_check_that_failed_before_the_last_inspection_asks_for_none(
    world: World, node: Node, models: Path
) -> None:
    file = a_file(models)
    await is_served(world, node)
    good = file.read_bytes()
    a_file(models, context=8192)
    assert not node.starts_a_pod()
    file.write_bytes(good)  # put back before anybody looked
    await passes(world)
    node.runs_the_job()
    await passes(world, 3)
    assert world.condition("Inspected")[0] == "True"
    assert node.jobs() == []


async def test_who_cannot_inspect_lets_the_model_start_after_a_time(world: World, node: Node, models: Path) -> None:
    world.has(a_model())
    await passes(world)
    (job,) = node.jobs()
    job["metadata"]["creationTimestamp"] = format_time(world.now)
    world.store.put(JOBS, world.cluster.has(JOBS, job))
    reason = "0/1 nodes are available: 1 node(s) had untolerated taint"
    node.a_pod_of(job, {}, conditions=[{"type": "PodScheduled", "status": "False", "message": reason}])
    world.now += timedelta(seconds=119)
    await passes(world)
    assert world.cluster.keys(DEPLOYMENTS) == set()
    world.now += timedelta(seconds=1)
    await passes(world)
    assert world.condition("Inspected")[:2] == ("Unknown", "InspectionUnavailable")
    assert reason in world.condition("Inspected")[2]
    template = world.cluster.shows(DEPLOYMENTS, GEMMA)["spec"]["template"]
    assert check_in(template) is None
    # Facts that come late roll no pod that loads or serves,
    a_file(models)
    node.runs_the_job()
    pod = a_pod().of_revision(template["metadata"]["labels"][REVISION_LABEL])
    node.shows(pod.loading_since(format_time(world.now)).raw())
    await passes(world, 2)
    assert world.condition("Inspected")[0] == "True"
    assert world.cluster.shows(DEPLOYMENTS, GEMMA)["spec"]["template"] == template
    # but one that has ended is replaced: the file is another by now.
    node.shows(pod.that_ended().raw())
    await passes(world)
    replaced = world.cluster.shows(DEPLOYMENTS, GEMMA)["spec"]["template"]
    assert check_in(replaced) is not None
    await passes(world)
    assert world.cluster.shows(DEPLOYMENTS, GEMMA)["spec"]["template"] == replaced


async def test_a_quota_that_refuses_the_job_lets_the_model_start_after_a_time(world: World) -> None:
    refusal = ApiError(status=403, reason="Forbidden", message="exceeded quota: count/jobs.batch=1")
    world.cluster.refuses("Job", refusal)
    world.has(a_model())
    await passes(world, 3)
    assert world.cluster.keys(DEPLOYMENTS) == set()
    assert world.ready()[0] == "Inspecting"
    for _ in range(9):
        world.now += timedelta(seconds=15)
        await passes(world)
    assert world.condition("Inspected")[:2] == ("Unknown", "InspectionUnavailable")
    assert "exceeded quota" in world.condition("Inspected")[2]
    assert world.cluster.keys(DEPLOYMENTS) == {GEMMA}


async def test_a_refused_job_is_not_sent_again_at_once(world: World) -> None:
    tries = []

    def refuse(write: Any) -> None:
        if write.kind == "Job":
            tries.append(write)
            raise ApiError(status=403, reason="Forbidden", message="no")

    world.cluster.before_write = refuse
    world.has(a_model())
    await passes(world, 5)
    assert len(tries) == 1


async def test_without_its_claim_a_model_waits_and_no_job_is_made(cluster: FakeCluster) -> None:
    world = World(cluster, inspecting=True)
    world.has(a_model())
    await passes(world)
    assert world.ready()[0] == "ClaimNotFound"
    assert cluster.keys(JOBS) == cluster.keys(DEPLOYMENTS) == set()


async def test_a_claim_without_a_volume_is_not_provisioned_by_a_job(cluster: FakeCluster) -> None:
    world = World(cluster, inspecting=True)
    raw = a_claim().in_phase("Pending").raw()
    raw["metadata"]["creationTimestamp"] = format_time(world.now)
    world.store.put(PERSISTENT_VOLUME_CLAIMS, cluster.has(PERSISTENT_VOLUME_CLAIMS, raw))
    world.has(a_model())
    await passes(world)
    assert world.ready()[0] == "ClaimPending"
    assert cluster.keys(JOBS) == cluster.keys(DEPLOYMENTS) == set()
    world.now += timedelta(seconds=30)
    await passes(world)
    assert cluster.keys(JOBS) == set()
    assert cluster.keys(DEPLOYMENTS) == {GEMMA}  # it waits for its first pod: the model's own


async def test_a_volume_of_one_node_is_inspected_there(world: World, node: Node, models: Path) -> None:
    raw = a_claim().raw()
    raw["spec"] = {"accessModes": ["ReadWriteOnce"]}
    world.store.put(PERSISTENT_VOLUME_CLAIMS, world.cluster.has(PERSISTENT_VOLUME_CLAIMS, raw))
    a_file(models)
    await is_served(world, node)
    assert node.starts_a_pod()
    world.has(a_model().reading("models", "other.gguf").at_generation(2))
    await passes(world)
    (job,) = node.jobs()
    affinity = job["spec"]["template"]["spec"]["affinity"]["nodeAffinity"]
    (term,) = affinity["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    assert term["matchFields"] == [{"key": "metadata.name", "operator": "In", "values": ["node-1"]}]


async def test_a_claim_of_one_pod_is_inspected_by_the_next_pod(world: World, node: Node, models: Path) -> None:
    raw = a_claim().raw()
    raw["spec"] = {"accessModes": ["ReadWriteOncePod"]}
    world.store.put(PERSISTENT_VOLUME_CLAIMS, world.cluster.has(PERSISTENT_VOLUME_CLAIMS, raw))
    a_file(models)
    await is_served(world, node)
    assert node.starts_a_pod()
    world.has(a_model().reading("models", "other.gguf").at_generation(2))
    await passes(world)
    assert node.jobs() == []
    assert world.condition("Inspected")[:2] == ("Unknown", "InspectionUnavailable")
    assert not node.starts_a_pod()
    await passes(world)
    assert world.ready()[0] == "ModelFileNotFound"


async def test_a_log_that_is_not_what_the_verdict_tells_of_is_not_believed(
    world: World, node: Node, models: Path
) -> None:
    a_file(models)
    world.has(a_model())
    await passes(world)
    node.runs_the_job()
    (name,) = world.cluster.logs
    log = world.cluster.logs[name]
    for wrong in (b"", log[: len(log) // 2], log.replace(b"llama", b"lhama"), b"\xff" * 1000):
        world.cluster.logs[name] = wrong
        await passes(world)
        assert world.condition("Inspected")[:2] == ("Unknown", "InspectionUnavailable")
        assert "does not hold the facts" in world.condition("Inspected")[2]
    world.cluster.logs[name] = log
    await passes(world)
    assert world.condition("Inspected")[0] == "True"


async def test_a_log_that_nobody_can_fetch_is_waited_for_and_then_the_model_starts(
    world: World, node: Node, models: Path
) -> None:
    a_file(models)
    world.has(a_model())
    await passes(world)
    node.runs_the_job()
    (name,) = world.cluster.logs
    log = world.cluster.logs.pop(name)
    await passes(world)
    assert world.condition("Inspected")[:2] == ("Unknown", "Inspecting")
    assert "cannot be read" in world.condition("Inspected")[2]
    world.now += timedelta(seconds=121)
    await passes(world)
    assert world.condition("Inspected")[:2] == ("Unknown", "InspectionUnavailable")
    assert world.cluster.shows(DEPLOYMENTS, GEMMA)["spec"]["replicas"] == 1
    world.cluster.logs[name] = log
    await passes(world)
    assert world.condition("Inspected")[0] == "True"


async def test_a_job_of_somebody_else_is_left_alone(world: World, node: Node) -> None:
    world.has(a_model())
    await passes(world)
    (job,) = node.jobs()
    job["metadata"]["ownerReferences"] = []
    world.store.put(JOBS, world.cluster.has(JOBS, job))
    world.cluster.forget_writes()
    await passes(world)
    assert not [write for write in world.cluster.writes if write.kind == "Job"]
    assert "is not this model's" in world.condition("Inspected")[2]


async def test_facts_that_may_not_be_kept_do_not_keep_the_model_from_starting(
    world: World, node: Node, models: Path
) -> None:
    a_file(models)
    world.has(a_model())
    await passes(world)
    node.runs_the_job()
    world.cluster.refuses("ConfigMap", ApiError(status=403, reason="Forbidden", message="exceeded quota"))
    with contextlib.suppress(RefusedError):
        await passes(world)
    assert world.cluster.keys(DEPLOYMENTS) == {GEMMA}
    assert len(node.jobs()) == 1  # after a restart of the operator its log is all that is left
    world.cluster.logs.clear()
    world.cluster.forget_writes()
    with contextlib.suppress(RefusedError):
        await passes(world, 3)
    assert world.condition("Inspected")[:2] == ("True", "Inspected"), "without reading the log again"
    assert world.cluster.writes == []
    assert world.later[GEMMA] <= 60

    world.cluster.before_write = lambda _: None
    world.now += timedelta(seconds=61)
    await passes(world)
    assert len(world.cluster.keys(CONFIG_MAPS)) == 1
    assert node.jobs() == []


async def test_facts_that_may_not_be_kept_are_given_up_for_other_files(world: World, node: Node, models: Path) -> None:
    a_file(models)
    world.has(a_model())
    await passes(world)
    node.runs_the_job()
    world.cluster.refuses("ConfigMap", ApiError(status=403, reason="Forbidden", message="exceeded quota"))
    await passes(world)
    a_file(models, "gemma/other.gguf", context=8192)
    world.has(a_model().with_spec(model={"pvc": {"claimName": "models", "path": "gemma/other.gguf"}}))
    await passes(world, 2)
    assert any(job["metadata"]["name"] for job in node.jobs())
    assert world.condition("Inspected")[:2] == ("Unknown", "Inspecting")


@pytest.mark.parametrize("between", ["nothing", "a restart"])
async def test_a_job_that_looked_before_a_file_was_replaced_is_made_again_where_its_facts_were_not_kept(
    world: World, node: Node, models: Path, between: str
) -> None:
    a_file(models)
    world.has(a_model())
    await passes(world)
    node.runs_the_job()
    (before,) = node.jobs()
    world.cluster.refuses("ConfigMap", ApiError(status=403, reason="Forbidden", message="exceeded quota"))
    await passes(world)
    a_file(models, context=8192)
    assert not node.starts_a_pod()
    if between == "a restart":
        world = node.world = await restarted(world)
    await passes(world)
    (job,) = node.jobs()
    assert job["metadata"]["uid"] != before["metadata"]["uid"]
    node.runs_the_job()
    await passes(world)
    assert node.starts_a_pod()
    await passes(world)
    assert world.condition("Inspected")[0] == "True"
    assert world.cluster.shows(MODELS, GEMMA)["status"]["model"]["contextLength"] == 8192


async def test_with_inspections_off_all_is_as_before(cluster: FakeCluster) -> None:
    world = World(cluster)
    world.has_claim()
    world.has(a_model())
    await passes(world)
    assert world.condition("Inspected")[:2] == ("Unknown", "InspectionOff")
    assert cluster.keys(DEPLOYMENTS) == {GEMMA}
    assert cluster.keys(JOBS) == set()


async def test_switching_inspections_on_rolls_no_pod(cluster: FakeCluster, models: Path) -> None:
    off = World(cluster)
    off.has_claim()
    off.has(a_model())
    await passes(off, 2)
    before = cluster.shows(DEPLOYMENTS, GEMMA)
    world = World(cluster, inspecting=True)
    for resource in (MODELS, DEPLOYMENTS, PERSISTENT_VOLUME_CLAIMS):
        for key in cluster.keys(resource):
            world.store.put(resource, cluster.shows(resource, key))
    a_file(models)
    await passes(world)
    Node(world, models.parent).runs_the_job()
    await passes(world, 2)
    assert world.condition("Inspected")[0] == "True"
    assert cluster.shows(DEPLOYMENTS, GEMMA) == before


async def test_the_program_of_the_check_is_the_operators_whatever_its_version(
    world: World, node: Node, models: Path
) -> None:
    """A newer operator rolls no pod: the check keeps the image that it has until the spec changes."""
    a_file(models)
    await is_served(world, node)
    before = world.cluster.shows(DEPLOYMENTS, GEMMA)
    world.gatherer._operator_image = world.inspector.image = "example.com/llamamodel-operator:2"
    await passes(world)
    assert world.cluster.shows(DEPLOYMENTS, GEMMA) == before
    world.has(a_model().with_engine(contextSize=2048).at_generation(2))
    await passes(world)
    check = check_in(world.cluster.shows(DEPLOYMENTS, GEMMA)["spec"]["template"])
    assert check["image"] == "example.com/llamamodel-operator:2"


async def test_names_with_dollars_and_quotes_reach_the_program(world: World, node: Node, models: Path) -> None:
    a_file(models, '$(HOME) "x" ü.gguf')
    await is_served(world, node, a_model().reading("models", '$(HOME) "x" ü.gguf'))
    assert world.condition("Inspected")[0] == "True"
    assert node.starts_a_pod()


async def test_a_checksum_is_verified_over_all_parts_with_progress(world: World, node: Node, models: Path) -> None:
    import hashlib

    parts = write_parts(models, "m", metadata=llama_metadata(), tensors=layer_tensors(), parts=2)
    total = hashlib.sha256(b"".join(part.read_bytes() for part in parts)).hexdigest()
    pvc = {"claimName": "models", "path": "m-00001-of-00002.gguf", "sha256": total}
    await is_served(world, node, a_model().with_spec(model={"pvc": pvc}))
    assert world.condition("Inspected")[0] == "True"
    assert "bytes" in node.said
    assert node.starts_a_pod()  # without reading it all again
    assert "bytes" not in node.said


def test_the_program_says_what_is_wrong_with_its_own_arguments(tmp_path: Path) -> None:
    message = tmp_path / "message"
    for words in ("", "7", "[1]", '[{"role": "model"}]', '[{"role": "x"}]', "{}" * 1000):
        assert inspector.main(["--files", words, "--message-file", str(message)]) == 2
        verdict = Verdict.parse(message.read_text())
        assert verdict is not None
        assert verdict.reason == "InspectionUnavailable"
