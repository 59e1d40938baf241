"""What runs: rollouts that cannot deadlock, a start-up as long as the user says, restricted pods, one Service."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamamodel_operator.api.labels import MODEL_LABEL
from llamamodel_operator.core.objects.deployment import SCHEDULING_ALLOWANCE_SEC

from .builders import ModelBuilder, a_model

BOTH = pytest.mark.parametrize("model", [a_model(), a_model().named("7b").with_gpu(2)])


def test_with_a_gpu_a_rollout_needs_no_spare_one() -> None:
    strategy = a_model().with_gpu().deployment()["spec"]["strategy"]
    assert strategy == {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}}


def test_without_a_gpu_the_old_pod_stays_until_the_new_one_answers() -> None:
    strategy = a_model().deployment()["spec"]["strategy"]
    assert strategy == {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}


@given(st.integers(min_value=1, max_value=86_400))
def test_the_startup_probe_waits_exactly_as_long_as_the_user_says(seconds: int) -> None:
    model = a_model().with_startup_timeout(seconds)
    probe = model.container()["startupProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] == seconds
    assert 1 <= probe["timeoutSeconds"] <= probe["periodSeconds"]
    assert probe["successThreshold"] == 1
    assert "initialDelaySeconds" not in probe
    assert model.deployment()["spec"]["progressDeadlineSeconds"] == seconds + SCHEDULING_ALLOWANCE_SEC


def test_without_a_startup_timeout_the_model_has_300_seconds() -> None:
    probe = a_model().container()["startupProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] == 300
    assert probe["httpGet"] == {"path": "/health", "port": "http", "scheme": "HTTP"}


@pytest.mark.parametrize("probe", ["readinessProbe", "livenessProbe"])
def test_readiness_and_liveness_do_not_depend_on_load(probe: str) -> None:
    found = a_model().container()[probe]
    assert found["tcpSocket"] == {"port": "http"}
    assert "httpGet" not in found


def test_a_busy_server_is_taken_out_of_the_service_before_it_is_killed() -> None:
    ready, alive = (a_model().container()[probe] for probe in ("readinessProbe", "livenessProbe"))
    assert ready["periodSeconds"] * ready["failureThreshold"] < alive["periodSeconds"] * alive["failureThreshold"]


@BOTH
def test_pods_pass_the_restricted_pod_security_standard(model: ModelBuilder) -> None:
    pod, container = model.pod_spec(), model.container()
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] > 0
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert pod["automountServiceAccountToken"] is False
    assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
    assert {next(iter(volume.keys() - {"name"})) for volume in pod["volumes"]} <= {"persistentVolumeClaim", "emptyDir"}


def test_the_security_context_of_the_user_is_merged_over_ours() -> None:
    security = a_model().with_spec(podSecurityContext={"fsGroup": 7, "runAsUser": 1000}).pod_spec()["securityContext"]
    assert (security["fsGroup"], security["runAsUser"], security["runAsGroup"]) == (7, 1000, 65532)
    assert security["runAsNonRoot"] is True


@BOTH
def test_the_entry_point_of_the_image_is_never_replaced(model: ModelBuilder) -> None:
    assert "command" not in model.container()
    assert "initContainers" not in model.pod_spec()


def test_the_last_lines_of_a_crash_are_kept_in_the_pods_status() -> None:
    assert a_model().container()["terminationMessagePolicy"] == "FallbackToLogsOnError"


def test_the_claim_is_mounted_read_only_where_the_argument_points() -> None:
    model = a_model().reading("weights", "dir/model.gguf")
    container = model.container()
    (mount,) = (mount for mount in container["volumeMounts"] if mount["name"] == "model")
    assert mount == {"name": "model", "mountPath": "/models/weights", "readOnly": True}
    assert "/models/weights/dir/model.gguf" in container["args"]
    assert model.pod_spec()["volumes"][0] == {"name": "model", "persistentVolumeClaim": {"claimName": "weights"}}


def test_the_only_writable_places_are_home_and_tmp() -> None:
    writable = {mount["mountPath"] for mount in a_model().container()["volumeMounts"] if not mount.get("readOnly")}
    assert writable == {"/home/llama", "/tmp"}


def test_home_is_ours_and_the_rest_of_the_environment_the_users() -> None:
    model = a_model().with_gpu().with_spec(env=[{"name": "HOME", "value": "/x"}, {"name": "A", "value": "1"}])
    assert model.container()["env"] == [{"name": "HOME", "value": "/home/llama"}, {"name": "A", "value": "1"}]


def test_threads_on_the_cpu_wait_passively_unless_the_user_says_otherwise() -> None:
    assert {"name": "OMP_WAIT_POLICY", "value": "PASSIVE"} in a_model().container()["env"]
    env = a_model().with_spec(env=[{"name": "OMP_WAIT_POLICY", "value": "ACTIVE"}]).container()["env"]
    assert [entry["value"] for entry in env if entry["name"] == "OMP_WAIT_POLICY"] == ["ACTIVE"]
    assert "OMP_WAIT_POLICY" not in str(a_model().with_gpu().container()["env"])


def test_gpus_are_requested_and_limited_alike_beside_what_the_user_asks_for() -> None:
    resources = a_model().with_gpu(2).with_limits(memory="8Gi").container()["resources"]
    assert resources == {"limits": {"memory": "8Gi", "nvidia.com/gpu": "2"}, "requests": {"nvidia.com/gpu": "2"}}


@pytest.mark.parametrize(
    ("model", "cache_mib", "resources"),
    [
        (a_model(), "1024", {"requests": {"memory": "1024Mi"}}),
        (a_model().with_engine(promptCacheSize="2Gi"), "2048", {"requests": {"memory": "2048Mi"}}),
        (a_model().with_engine(promptCacheSize=0), "0", None),
        (a_model().with_limits(memory="4Gi"), "512", {"limits": {"memory": "4Gi"}}),
        (a_model().with_limits(memory="256Gi"), "8192", {"limits": {"memory": "256Gi"}}),
        (
            a_model().with_spec(resources={"requests": {"memory": "3Gi"}}),
            "1024",
            {"requests": {"memory": "3Gi"}},
        ),
        (a_model().with_engine(build=5990), None, None),
    ],
)
def test_the_prompt_cache_fits_the_memory_limit_and_is_asked_for_without_one(
    model: ModelBuilder, cache_mib: str | None, resources: object
) -> None:
    arguments = model.arguments()
    found = arguments[arguments.index("--cache-ram") + 1] if "--cache-ram" in arguments else None
    assert found == cache_mib
    assert model.container().get("resources") == resources


def test_every_claim_is_mounted_once_and_read_only() -> None:
    model = a_model().with_spec(
        loraAdapters=[
            {"name": "a", "pvc": {"claimName": "adapters", "path": "a.gguf"}},
            {"name": "b", "pvc": {"claimName": "adapters", "path": "b.gguf"}},
        ],
        projector={"pvc": {"claimName": "models", "path": "mmproj.gguf"}},
    )
    mounts = {m["name"]: m for m in model.container()["volumeMounts"] if m["mountPath"].startswith("/models/")}
    claims = {
        volume["name"]: volume["persistentVolumeClaim"]["claimName"]
        for volume in model.pod_spec()["volumes"]
        if "persistentVolumeClaim" in volume
    }
    assert sorted(claims.values()) == ["adapters", "models"]
    assert mounts.keys() == claims.keys()
    assert all(mount["readOnly"] for mount in mounts.values())


def test_labels_of_the_user_stand_beside_ours_on_pods_alone() -> None:
    deployment = a_model().with_spec(podLabels={"team": "search"}, podAnnotations={"note": "x"}).deployment()
    template = deployment["spec"]["template"]["metadata"]
    assert template["labels"]["team"] == "search"
    assert template["labels"][MODEL_LABEL] == "gemma"
    assert template["annotations"]["note"] == "x"
    assert "team" not in deployment["metadata"]["labels"]


@BOTH
def test_deployment_and_service_find_the_pods_and_only_theirs(model: ModelBuilder) -> None:
    deployment, service = model.deployment(), model.service()
    pod_labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"] == deployment["spec"]["selector"]["matchLabels"]
    assert service["spec"]["selector"].items() <= pod_labels.items()
    assert deployment["metadata"]["name"] == service["metadata"]["name"]


def test_the_service_answers_on_8080_and_leads_to_the_port_by_name() -> None:
    assert a_model().service()["spec"]["ports"] == [
        {"name": "http", "port": 8080, "protocol": "TCP", "targetPort": "http", "appProtocol": "http"}
    ]
    assert a_model().container()["ports"] == [{"name": "http", "containerPort": 8080, "protocol": "TCP"}]


@BOTH
def test_children_go_with_their_model_without_a_finalizer(model: ModelBuilder) -> None:
    for child in model.plan().objects:
        (owner,) = child["metadata"]["ownerReferences"]
        assert (owner["kind"], owner["name"], owner["uid"]) == ("LlamaModel", model.name, f"uid-of-{model.name}")
        assert owner["controller"] is True
        assert owner["blockOwnerDeletion"] is False
        assert "finalizers" not in child["metadata"]
