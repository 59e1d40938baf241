"""What has settled is not written again, whatever the manifest spells in its own way; a restart changes nothing."""

from __future__ import annotations

from typing import Any

from llamamodel_operator.api.conditions import ConditionType

from .harness.audit import AuditLog, Mark, summary
from .harness.bench import Bench
from .harness.models import Manifest, a_model
from .harness.operators import Operators
from .harness.process import OperatorProcess
from .harness.waiting import eventually

RESYNCS = 3
OFTEN: dict[str, Any] = {"resync_interval_sec": 5}
OPERATOR = OFTEN

_SELECTED = {"labelSelector": {"matchLabels": {"app": "x"}}}
_TERM = {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a", "b"]}], "matchFields": []}
_SPREAD = {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway"}


def everything() -> Manifest:
    """Every field of the spec, and every way of writing that the API server does not keep."""
    return a_model("everything").with_(
        servedModelName="google/gemma-3:270m",
        replicas=2,
        suspend=False,
        startupTimeoutSec=601,
        image="example.com:5000/team/llama.cpp:server-b1234",
        imagePullPolicy="Always",
        imagePullSecrets=[{"name": "first"}, {"name": "second"}],
        gpu={"count": 2, "resourceName": "amd.com/gpu"},
        resources={
            "requests": {"cpu": "1000m", "memory": "4096Mi", "ephemeral-storage": "1e9"},
            "limits": {"cpu": "0.5e1", "memory": 8589934592, "hugepages-2Mi": "0"},
        },
        engine={
            "contextSize": 0,
            "parallelSlots": 2,
            "gpuLayers": "all",
            "batchSize": 1024,
            "microBatchSize": 512,
            "threads": 3,
            "flashAttention": "enabled",
            "cacheTypeK": "q8_0",
            "cacheTypeV": "q4_0",
        },
        endpoints={"metrics": False, "slots": False},
        grammar={"builtin": "json"},
        chatTemplate={"inline": "{% for m in messages %}{{ m.content }}{% endfor %}"},
        systemPrompt={"inline": "Be {{ brief }}."},
        loraAdapters=[{"name": "sql", "pvc": {"claimName": "models", "path": "sql.gguf"}, "scale": 0.1}],
        env=[
            {"name": "PLAIN", "value": "x $(HOME) $$(HOME)"},
            {"name": "EMPTY", "value": ""},
            {"name": "NOTHING"},
            {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
            {"name": "CPUS", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu", "divisor": "1000m"}}},
            {"name": "MEMORY", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory"}}},
            {"name": "SECRET", "valueFrom": {"secretKeyRef": {"name": "tokens", "key": "hf", "optional": True}}},
            {"name": "SETTING", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "a.b"}}},
            {"name": "LLAMA_ARG_TIMEOUT", "value": "4"},
            {"name": "HOME", "value": "/root"},
        ],
        podSecurityContext={
            "runAsUser": 0,
            "runAsNonRoot": False,
            "fsGroup": 2000,
            "fsGroupChangePolicy": "OnRootMismatch",
            "supplementalGroups": [44, 109],
            "seLinuxOptions": {"level": "s0:c1,c2"},
            "sysctls": [{"name": "net.core.somaxconn", "value": "1024"}],
        },
        nodeSelector={"disk": "ssd", "empty": ""},
        tolerations=[
            {"operator": "Exists"},
            {"key": "gpu", "value": "", "effect": "NoSchedule"},
            {"key": "down", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 0},
            {"key": "slow", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300},
        ],
        affinity={
            "nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [_TERM]},
                "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1, "preference": _TERM}],
            },
            "podAffinity": {},
            "podAntiAffinity": {
                "preferredDuringSchedulingIgnoredDuringExecution": [
                    {
                        "weight": 100,
                        "podAffinityTerm": {
                            **_SELECTED,
                            "topologyKey": "kubernetes.io/hostname",
                            "namespaces": [],
                            "namespaceSelector": {},
                        },
                    }
                ],
                "requiredDuringSchedulingIgnoredDuringExecution": [],
            },
        },
        topologySpreadConstraints=[
            {**_SPREAD, **_SELECTED},
            {**_SPREAD, "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {}, "minDomains": 1},
        ],
        priorityClassName="high",
        runtimeClassName="nvidia",
        serviceAccountName="reader",
        podLabels={"app.kubernetes.io/part-of": "chat", "empty": ""},
        podAnnotations={"example.com/note": "", "prometheus.io/scrape": "true"},
    )


def nothing_in_many_words() -> Manifest:
    """Every optional field given, and nothing said in any."""
    return a_model("nothing").with_(
        imagePullSecrets=[],
        resources={"requests": {}, "limits": {}},
        engine={},
        endpoints={},
        env=[],
        podSecurityContext={},
        nodeSelector={},
        tolerations=[],
        affinity={},
        topologySpreadConstraints=[],
        podLabels={},
        podAnnotations={},
        image=None,
        gpu=None,
    )


MODELS = (
    everything(),
    nothing_in_many_words(),
    a_model("plain"),
    a_model("qwen2.5-7b"),
    a_model("7b"),
    a_model("x" * 200),
    a_model("a." * 120 + "long-name"),
    a_model("stopped").with_(suspend=True),
    a_model("none").with_(replicas=0),
    a_model("homeless").reading("m.gguf", claim="missing"),
    a_model("gpu").with_(gpu={}, resources={"limits": {"memory": "0.5Gi"}}),
    a_model("empty-parts").with_(affinity={"nodeAffinity": {}, "podAffinity": {}}, resources={"limits": {"cpu": "2"}}),
    a_model("empty-selinux").with_(podSecurityContext={"seLinuxOptions": {}, "supplementalGroups": [], "sysctls": []}),
)


def _settle(bench: Bench) -> None:
    bench.play_bound_claim()
    for model in MODELS:
        bench.create(model)
    for model in MODELS:
        bench.wait_until_settled(model.name)


def _put_back(operator: OperatorProcess) -> list[str]:
    return operator.messages("back")


def test_nothing_is_written_over_several_resyncs_nor_by_an_operator_that_starts_anew(
    bench: Bench, operators: Operators, audit: AuditLog
) -> None:
    operator = operators.make("first", **OFTEN, lease_name="settled")
    operator.start_and_lead()
    _settle(bench)
    operator.wait_for_resyncs(1, models=len(MODELS))
    settled, mark = bench.versions(), audit.mark()

    operator.wait_for_resyncs(RESYNCS, models=len(MODELS))

    assert [str(write) for write in mark.writes()] == []
    assert bench.versions() == settled
    assert _put_back(operator) == []
    assert operator.stop() == 0

    successor = operators.make("second", **OFTEN, lease_name="settled")
    successor.start_and_lead()
    successor.wait_for_resyncs(2, models=len(MODELS))

    assert [str(write) for write in mark.writes()] == []
    assert bench.versions() == settled
    assert _put_back(successor) == []


def test_each_child_was_written_once_and_each_status_once(bench: Bench, operator: OperatorProcess, mark: Mark) -> None:
    _settle(bench)

    for name in ("plain", "everything", "qwen2.5-7b"):
        endpoint = bench.get("LlamaModel", name)["status"]["endpoint"]
        child = endpoint.removeprefix("http://").split(".")[0]
        written = [write for write in mark.writes() if write.name in (name, child)]
        budget = ["patch poddisruptionbudgets"] if name == "everything" else []  # it has two replicas
        assert summary(written) == ["patch deployments", "patch llamamodels/status", *budget, "patch services"], name


def test_every_field_reaches_the_pod(bench: Bench, operator: OperatorProcess) -> None:
    bench.play_bound_claim()
    bench.create(everything())
    bench.wait_for_reason("everything", "Starting")

    pod = bench.get("Deployment", "everything")["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    spec = everything().spec
    own = {"LLAMAMODEL_LORA_SCALE_0"}
    assert {variable["name"] for variable in container["env"]} == {variable["name"] for variable in spec["env"]} | own
    assert len(pod["tolerations"]) == len(spec["tolerations"])
    assert pod["affinity"]["podAntiAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"][0]["weight"] == 100
    assert [constraint["whenUnsatisfiable"] for constraint in pod["topologySpreadConstraints"]] == [
        "ScheduleAnyway",
        "DoNotSchedule",
    ]
    assert pod["securityContext"]["supplementalGroups"] == [44, 109]
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["resources"]["limits"] == {
        "amd.com/gpu": "2",
        "cpu": "5",
        "hugepages-2Mi": "0",
        "memory": "8589934592",
    }
    assert pod["priorityClassName"] == "high"
    assert pod["runtimeClassName"] == "nvidia"
    assert pod["serviceAccountName"] == "reader"
    assert pod["imagePullSecrets"] == [{"name": "first"}, {"name": "second"}]
    assert container["imagePullPolicy"] == "Always"


def test_a_name_that_is_no_name_of_a_service_gets_a_safe_one_and_still_serves_under_its_own(
    bench: Bench, operator: OperatorProcess
) -> None:
    bench.play_bound_claim()
    for name in ("qwen2.5-7b", "7b", "x" * 200):
        bench.create(a_model(name))
        status = bench.wait_for_reason(name, "Starting")["status"]

        child = status["endpoint"].removeprefix("http://").split(".")[0]
        assert status["servedModelName"] == name
        assert bench.get("Service", child)["spec"]["selector"] == {"llamamodel.dev/model": child}
        assert bench.get("Deployment", child)["spec"]["template"]["metadata"]["labels"]["llamamodel.dev/model"] == child


def test_no_object_carries_a_finalizer_or_a_note_of_the_framework(bench: Bench, operator: OperatorProcess) -> None:
    bench.play_bound_claim()
    bench.create(a_model("gemma"))
    bench.wait_for_reason("gemma", "Starting")
    bench.play_rollout("gemma")
    bench.wait_for_reason("gemma", "Ready")

    for kind in ("LlamaModel", "Deployment", "Service", "Pod", "PersistentVolumeClaim"):
        for found in bench.kube.list(kind, bench.namespace):
            metadata = found["metadata"]
            assert [name for name in metadata.get("annotations") or {} if "kopf" in name] == []
            ours = [name for name in metadata.get("finalizers") or [] if "kubernetes.io/" not in name]
            assert ours == [], kind
    assert bench.get("LlamaModel", "gemma")["metadata"].get("annotations") is None
    managers = {entry["manager"] for entry in bench.get("Deployment", "gemma")["metadata"]["managedFields"]}
    assert managers <= {"llamamodel-operator", "tests", "python-httpx"}


def test_every_condition_says_which_spec_it_speaks_of_and_keeps_its_time_while_it_holds(
    bench: Bench, operator: OperatorProcess
) -> None:
    bench.play_bound_claim()
    bench.create(a_model("gemma"))
    first = bench.wait_for_reason("gemma", "Starting")

    bench.edit_spec("gemma", replicas=2)
    second = bench.wait_until_settled("gemma")

    for status in (first["status"], second["status"]):
        assert [found["type"] for found in status["conditions"]] == list(ConditionType)
        assert {found["observedGeneration"] for found in status["conditions"]} == {status["observedGeneration"]}
    assert second["status"]["observedGeneration"] == first["status"]["observedGeneration"] + 1
    times = [[found["lastTransitionTime"] for found in model["status"]["conditions"]] for model in (first, second)]
    assert times[0] == times[1]


def test_a_long_name_gets_its_event(bench: Bench, operator: OperatorProcess) -> None:
    _assert_that_it_gets_its_event("a" * 253, bench)


def test_a_long_name_with_a_dot_in_an_awkward_place_gets_its_event(bench: Bench, operator: OperatorProcess) -> None:
    _assert_that_it_gets_its_event("a" * 219 + "." + "b" * 33, bench)


def _assert_that_it_gets_its_event(name: str, bench: Bench) -> None:
    bench.create(a_model(name))
    bench.wait_for_reason(name, "ClaimNotFound")
    events = eventually(lambda: bench.kube.list("Event", bench.namespace), what="an event", within=3)
    assert [event["regarding"]["name"] for event in events] == [name]
