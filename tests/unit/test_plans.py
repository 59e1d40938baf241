"""Plans as a whole: golden files show every change of what users get. Renew: pytest tests/unit --renew-golden."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from llamamodel_operator.api.labels import APPLIED_HASH_ANNOTATION

from .builders import IMAGES, ModelBuilder, a_model

PLANNED = (
    "name",
    "revision",
    "image",
    "build",
    "flags",
    "settled_for",
    "command",
    "endpoint",
    "objects",
    "will_not_start",
)
"""What the golden files show; what is known of files and memory has tests of its own."""

EVERYTHING = (
    a_model()
    .named("qwen3-8b")
    .reading("weights", "qwen3/Qwen3-8B-Q4_K_M.gguf")
    .with_gpu(2)
    .with_replicas(2)
    .with_startup_timeout(900)
    .with_engine(
        contextSize=16384,
        parallelSlots=8,
        gpuLayers="all",
        batchSize=2048,
        microBatchSize=512,
        threads=8,
        flashAttention="enabled",
        cacheTypeK="q8_0",
        cacheTypeV="q8_0",
    )
    .with_spec(
        servedModelName="qwen3",
        image="example.com/llama.cpp:server-cuda-b10434",
        imagePullPolicy="Always",
        imagePullSecrets=[{"name": "registry"}],
        resources={"requests": {"cpu": "4", "memory": "8Gi"}, "limits": {"memory": "16Gi"}},
        endpoints={"metrics": False, "slots": False},
        env=[{"name": "LLAMA_LOG_COLORS", "value": "off"}, {"name": "HOME", "value": "/elsewhere"}],
        podSecurityContext={"fsGroup": 1000, "runAsUser": 1000},
        nodeSelector={"gpu": "l4"},
        tolerations=[{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
        affinity={"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}},
        topologySpreadConstraints=[
            {"maxSkew": 1, "topologyKey": "topology.kubernetes.io/zone", "whenUnsatisfiable": "ScheduleAnyway"}
        ],
        priorityClassName="inference",
        runtimeClassName="nvidia",
        serviceAccountName="models",
        podLabels={"team": "search"},
        podAnnotations={"sidecar.istio.io/inject": "false"},
    )
)


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("minimal", a_model()),
        ("gpu-with-everything", EVERYTHING),
        ("suspended", a_model().with_replicas(3).suspended()),
        ("odd-name", a_model().named("7b.qwen2.5").reading("my.claim", "dir with spaces/$(HOME).gguf")),
        ("long-name", a_model().named("x" * 200)),
        ("api-keys", a_model().with_spec(apiKeySecretRef={"name": "llama-keys"})),
    ],
)
def test_the_plan_is_the_one_in_the_golden_file(
    name: str, model: ModelBuilder, golden: Callable[[str, object], None]
) -> None:
    plan = model.plan()
    facts = {field: getattr(plan, field) for field in PLANNED}
    golden(name, {**facts, "findings": [finding.to_wire() for finding in plan.findings]})


def test_the_same_model_always_gives_the_same_plan() -> None:
    assert EVERYTHING.plan() == EVERYTHING.plan()


@pytest.mark.parametrize(
    "model",
    [
        a_model().at_generation(7),
        a_model().at_version(99),
        a_model().with_status({"phase": "Failed", "conditions": []}),
    ],
)
def test_what_the_operator_itself_writes_changes_no_plan(model: ModelBuilder) -> None:
    assert model.plan() == a_model().plan()


def test_every_child_carries_the_digest_of_itself() -> None:
    digests = {child["metadata"]["annotations"][APPLIED_HASH_ANNOTATION] for child in a_model().plan().objects}
    assert len(digests) == 2


def test_a_digest_changes_with_its_child_and_only_with_it() -> None:
    def digests(model: ModelBuilder) -> list[str]:
        return [child["metadata"]["annotations"][APPLIED_HASH_ANNOTATION] for child in model.plan().objects]

    service, deployment = digests(a_model())
    same_service, changed_deployment = digests(a_model().with_engine(contextSize=1))
    assert deployment != changed_deployment
    assert service == same_service


def test_a_change_of_scale_alone_keeps_the_pod_template() -> None:
    one, three = a_model().deployment(), a_model().with_replicas(3).deployment()
    assert one["spec"]["template"] == three["spec"]["template"]
    assert three["spec"]["replicas"] == 3


def test_a_suspended_model_wants_no_pod_whatever_replicas_says() -> None:
    assert a_model().with_replicas(5).suspended().deployment()["spec"]["replicas"] == 0


def test_the_endpoint_is_the_address_of_the_service() -> None:
    plan = a_model().named("qwen2.5").in_namespace("team").plan()
    service = plan.objects[1]
    assert plan.endpoint == f"http://{service['metadata']['name']}.team.svc:8080"


def test_no_object_carries_a_value_that_is_none() -> None:
    def values(value: object) -> list[object]:
        if isinstance(value, dict):
            return [leaf for item in value.values() for leaf in values(item)]
        if isinstance(value, list):
            return [leaf for item in value for leaf in values(item)]
        return [value]

    for model in (a_model(), EVERYTHING):
        assert all(leaf is not None for child in model.plan().objects for leaf in values(dict(child)))


@pytest.mark.parametrize(
    ("model", "image"),
    [
        (a_model(), "example.com/llama:cpu"),
        (a_model().with_gpu(), "example.com/llama:cuda"),
        (a_model().with_gpu(resource="example.com/npu"), "example.com/llama:gpu"),
        (a_model().with_spec(image="my/own:1"), "my/own:1"),
        (a_model().with_gpu().with_spec(image="my/own:1"), "my/own:1"),
    ],
)
def test_the_image_is_the_models_own_else_that_of_its_gpu_resource(model: ModelBuilder, image: str) -> None:
    assert IMAGES.choose(model.build()) == image
    assert model.plan().image == image
    assert model.container()["image"] == image
