"""The chart, as helm renders it: what it installs, with which rights, and what it refuses."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from llamamodel_operator.api.crd import custom_resource_definition
from llamamodel_operator.api.spec import LlamaModelSpec
from llamamodel_operator.core.engine.settings import PORT
from llamamodel_operator.core.gateway.routes import served_model
from llamamodel_operator.core.objects.names import labels as labels_of
from llamamodel_operator.core.schema_check import defaults_problem
from llamamodel_operator.gateway.settings import GatewaySettings
from llamamodel_operator.shell.settings import Settings
from support.chart import CHART, NAME, NAMESPACE, Manifests, Rule, refusal, render, rules, run_helm, template
from support.documentation import commands, pages

ROOT = Path(__file__).parents[2]
PREFIX = "LLAMAMODEL_OPERATOR_"

WAY_TO_SET = {
    "watch_namespaces": "watchNamespaces",
    "workers": "workers",
    "inspection": "inspection.enabled",
    "inspection_timeout_sec": "inspection.timeoutSec",
    "operator_image": "image.repository",
    "node_affinity": "nodeAffinity",
    "gateway": "gateway.enabled",
    "gateway_bare_namespaces": "gateway.bareNamespaces",
    "pod_keys_dir": "podKeys.secretName",
    "gpu_overhead": "gpuOverhead",
    "resync_interval_sec": "resyncIntervalSec",
    "log_format": "logFormat",
    "log_level": "logLevel",
    "http_port": "httpPort",
    "image_cpu": "engineImages.cpu",
    "image_gpu": "engineImages.gpu",
    "image_by_resource": "engineImages.byResource",
    "model_defaults": "modelDefaults",
    "argument_policy": "argumentPolicy",
    "allowed_flags": "allowedFlags",
    "webhook": "webhook.mode",
    "webhook_port": "webhook.port",
    "webhook_name": "fullnameOverride",
    "webhook_certificate_life_sec": "webhook.certificateLifeSec",
    "lease_name": "fullnameOverride",
    "leader_election": "always on",
    "lease_namespace": "POD_NAMESPACE",
    "identity": "POD_NAME",
    "kubeconfig": "extraEnv",
    "context": "extraEnv",
    "http_host": "extraEnv",
}
"""How each setting of the operator is set: a value, extraEnv, or by the chart alone."""

WORK: set[Rule] = {
    ("llamamodel.dev", "llamamodels", "get list watch"),
    ("llamamodel.dev", "llamamodels/status", "patch"),
    ("apps", "deployments", "create delete get list patch watch"),
    ("apps", "deployments/scale", "patch"),
    ("", "services", "create delete get list patch watch"),
    ("", "configmaps", "create delete get list patch watch"),
    ("policy", "poddisruptionbudgets", "create delete get list patch watch"),
    ("", "pods", "list watch"),
    ("batch", "jobs", "create delete get list watch"),
    ("", "pods/log", "get"),
    ("", "persistentvolumeclaims", "list watch"),
    ("", "events", "list"),
    ("events.k8s.io", "events", "create"),
}
ON_NODES: set[Rule] = {
    ("", "nodes", "list watch"),
    ("resource.k8s.io", "resourceslices", "list watch"),
    ("resource.k8s.io", "deviceclasses", "list watch"),
}
"""Of the whole cluster alone: nodes belong to no namespace."""
LEADER_ELECTION: set[Rule] = {
    ("coordination.k8s.io", "leases", "create"),
    ("coordination.k8s.io", "leases=llamamodel-operator", "get update"),
}
WEBHOOK = f"{NAME}-webhook"
GATEWAY = f"{NAME}-gateway"
SECRET: set[Rule] = {
    ("", "secrets", "create"),
    ("", f"secrets={WEBHOOK}", "get update"),
}
PUBLISH: set[Rule] = {
    ("admissionregistration.k8s.io", f"validatingwebhookconfigurations={WEBHOOK}", "get patch"),
}
VIEW: set[Rule] = {
    ("llamamodel.dev", "llamamodels", "get list watch"),
    ("llamamodel.dev", "llamamodels/status", "get"),
    ("llamamodel.dev", "llamamodels/scale", "get"),
}
EDIT: set[Rule] = {
    ("llamamodel.dev", "llamamodels", "create delete deletecollection patch update"),
    ("llamamodel.dev", "llamamodels/scale", "patch update"),
}


# --- the chart as a whole


def test_helm_lint_finds_nothing() -> None:
    done = run_helm("lint", "--strict", str(CHART))
    assert done.returncode == 0, done.stdout + done.stderr


def test_generated_files_are_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "hack" / "chart"), "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_chart_has_the_projects_version() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    project = next(line for line in (ROOT / "pyproject.toml").read_text().splitlines() if line.startswith("version"))
    assert project == f'version = "{chart["appVersion"]}"'


def test_by_default_it_installs_one_operator_for_the_whole_cluster() -> None:
    chart = render()
    assert sorted((doc["kind"], doc["metadata"]["name"]) for doc in chart.all) == [
        ("ClusterRole", NAME),
        ("ClusterRole", f"{NAME}-edit"),
        ("ClusterRole", f"{NAME}-view"),
        ("ClusterRole", WEBHOOK),
        ("ClusterRoleBinding", NAME),
        ("ClusterRoleBinding", WEBHOOK),
        ("Deployment", NAME),
        ("Role", f"{NAME}-leader-election"),
        ("Role", WEBHOOK),
        ("RoleBinding", f"{NAME}-leader-election"),
        ("RoleBinding", WEBHOOK),
        ("Service", f"{NAME}-metrics"),
        ("Service", WEBHOOK),
        ("ServiceAccount", NAME),
        ("ValidatingWebhookConfiguration", WEBHOOK),
    ]
    assert chart.one("Deployment")["spec"]["replicas"] == 1


def test_every_object_says_what_it_belongs_to() -> None:
    for doc in render('{"replicas": 2, "watchNamespaces": ["a"], "crds": {"enabled": true}}').all:
        labels = doc["metadata"]["labels"]
        assert labels["app.kubernetes.io/name"] == NAME, doc["kind"]
        assert labels["app.kubernetes.io/instance"] == NAME, doc["kind"]
        assert labels["app.kubernetes.io/managed-by"] == "Helm", doc["kind"]
        assert labels["helm.sh/chart"] == "llamamodel-operator-0.1.0", doc["kind"]


def test_annotations_of_all_objects_are_on_all_objects() -> None:
    values = {
        "commonAnnotations": {"example.com/contact": "platform", "helm.sh/resource-policy": "delete"},
        "crds": {"enabled": True},
        "replicas": 2,
        "webhook": {"mode": "cert-manager"},
        "networkPolicy": {"enabled": True, "modelNamespaces": ["team-a"]},
        "monitoring": {"enabled": True},
        "serviceAccount": {"annotations": {"example.com/contact": "security"}},
        "gateway": {
            "enabled": True,
            "ingress": {"enabled": True, "hosts": ["a.example"]},
            "httpRoute": {"enabled": True, "parentRefs": [{"name": "public"}]},
        },
    }
    found = render(json.dumps(values))
    for doc in found.all:
        wanted = "security" if (doc["kind"], doc["metadata"]["name"]) == ("ServiceAccount", NAME) else "platform"
        assert doc["metadata"]["annotations"]["example.com/contact"] == wanted, doc["kind"]
    assert len({doc["kind"] for doc in found.all}) > 15
    kept = found.one("CustomResourceDefinition")["metadata"]["annotations"]
    assert kept["helm.sh/resource-policy"] == "keep", "what an object needs is not taken from it"


def test_a_long_release_name_still_gives_valid_names() -> None:
    chart = render(release="r" * 53)
    services = [doc["metadata"]["name"] for doc in chart.all if doc["kind"] == "Service"]
    assert len(services) == 2
    assert all(len(name) <= 63 for name in services)
    assert len(chart.one("Deployment")["metadata"]["labels"]["app.kubernetes.io/instance"]) <= 63
    assert chart.env["LLAMAMODEL_OPERATOR_LEASE_NAME"] == chart.one("Deployment")["metadata"]["name"]


# --- the CustomResourceDefinition


def test_its_custom_resource_definition_is_the_generated_one() -> None:
    crd = render('{"crds": {"enabled": true}}').one("CustomResourceDefinition")
    assert crd["metadata"].pop("annotations") == {"helm.sh/resource-policy": "keep"}
    del crd["metadata"]["labels"]
    assert crd == yaml.load((ROOT / "crds" / "llamamodels.yaml").read_text(), yaml.CSafeLoader)
    assert crd == json.loads(json.dumps(custom_resource_definition()))


def test_the_custom_resource_definition_goes_with_the_chart_only_where_asked() -> None:
    crd = render('{"crds": {"enabled": true, "keep": false}}').one("CustomResourceDefinition")
    assert "annotations" not in crd["metadata"]


def test_the_custom_resource_definition_can_be_left_to_others() -> None:
    assert render('{"crds": {"enabled": false}}').names("CustomResourceDefinition") == []


# --- rights


def test_the_operator_has_exactly_the_rights_that_it_uses() -> None:
    chart = render()
    assert rules(chart.one("ClusterRole", NAME)) == WORK | ON_NODES
    assert rules(chart.one("Role", f"{NAME}-leader-election")) == LEADER_ELECTION
    assert rules(chart.one("Role", WEBHOOK)) == SECRET
    assert rules(chart.one("ClusterRole", WEBHOOK)) == PUBLISH
    assert chart.names("Role") == [f"{NAMESPACE}/{NAME}-leader-election", f"{NAMESPACE}/{WEBHOOK}"]


def test_with_watched_namespaces_it_has_roles_in_these_alone() -> None:
    chart = render('{"watchNamespaces": ["team-a", "team-b"], "rbac": {"aggregateClusterRoles": false}}')
    assert chart.names("ClusterRole") == chart.names("ClusterRoleBinding") == []
    assert chart.names("Role") == chart.names("RoleBinding")
    assert chart.names("Role") == [f"{NAMESPACE}/{NAME}-leader-election", f"team-a/{NAME}", f"team-b/{NAME}"]
    assert rules(chart.one("Role", NAME, "team-a")) == rules(chart.one("Role", NAME, "team-b")) == WORK
    assert rules(chart.one("Role", namespace=NAMESPACE)) == LEADER_ELECTION
    assert json.loads(chart.env["LLAMAMODEL_OPERATOR_WATCH_NAMESPACES"]) == ["team-a", "team-b"]


@pytest.mark.parametrize(
    ("values", "number"),
    [
        ("{}", 4),
        ('{"watchNamespaces": ["team-a"]}', 2),
        ('{"fullnameOverride": "other"}', 4),
        ('{"webhook": {"mode": "off"}}', 2),
        ('{"webhook": {"mode": "cert-manager"}}', 3),
    ],
)
def test_each_binding_gives_its_role_to_the_account_of_the_pods(values: str, number: int) -> None:
    chart = render(values)
    bindings = [doc for doc in chart.all if doc["kind"].endswith("Binding")]
    assert len(bindings) == number
    for binding in bindings:
        metadata = binding["metadata"]
        chart.one(binding["roleRef"]["kind"], binding["roleRef"]["name"], metadata.get("namespace"))
        assert binding["roleRef"]["name"] == metadata["name"]
        [subject] = binding["subjects"]
        assert subject == {
            "kind": "ServiceAccount",
            "name": chart.pod["serviceAccountName"],
            "namespace": NAMESPACE,
        }
    assert chart.names("ServiceAccount") == [f"{NAMESPACE}/{chart.pod['serviceAccountName']}"]


def test_the_lease_that_it_may_write_is_the_one_that_it_takes() -> None:
    chart = render('{"fullnameOverride": "other"}')
    assert ("coordination.k8s.io", "leases=other", "get update") in rules(chart.one("Role", "other-leader-election"))
    assert chart.env["LLAMAMODEL_OPERATOR_LEASE_NAME"] == "other"


def test_the_clusters_view_edit_and_admin_roles_apply_to_llamamodels() -> None:
    chart = render()
    prefix = "rbac.authorization.k8s.io/aggregate-to-"
    view, edit = chart.one("ClusterRole", f"{NAME}-view"), chart.one("ClusterRole", f"{NAME}-edit")
    assert rules(view) == VIEW
    assert rules(edit) == EDIT
    for role, targets in ((view, {"view", "edit", "admin"}), (edit, {"edit", "admin"})):
        labels = role["metadata"]["labels"].items()
        found = {key.removeprefix(prefix) for key, value in labels if key.startswith(prefix) and value == "true"}
        assert found == targets


def test_rights_can_be_left_to_others() -> None:
    kinds = {doc["kind"] for doc in render('{"rbac": {"create": false}}').all}
    assert kinds == {"Deployment", "Service", "ServiceAccount", "ValidatingWebhookConfiguration"}


def test_an_account_of_somebody_else_must_be_named() -> None:
    named = render('{"serviceAccount": {"create": false, "name": "theirs"}}')
    assert named.pod["serviceAccountName"] == "theirs"
    assert named.one("ClusterRoleBinding", NAME)["subjects"][0]["name"] == "theirs"
    assert named.names("ServiceAccount") == []
    assert "serviceAccount.name is needed" in refusal('{"serviceAccount": {"create": false}}')


# --- settings


def test_every_variable_that_the_chart_sets_is_a_setting_of_the_operator() -> None:
    given = {
        "watchNamespaces": ["a"],
        "modelDefaults": {"startupTimeoutSec": 900},
        "allowedFlags": ["--path"],
        "gpuOverhead": {"amd": "1Gi"},
        "gateway": {"bareNamespaces": ["a"]},
        "podKeys": {"secretName": "pod-keys"},
    }
    chart = render(json.dumps(given))
    ours = {name.removeprefix(PREFIX).lower() for name in chart.env}
    assert ours <= set(Settings.model_fields)
    by_chart = {field for field, way in WAY_TO_SET.items() if way not in ("extraEnv", "POD_NAME", "POD_NAMESPACE")}
    assert ours == by_chart


def test_every_setting_of_the_operator_can_be_set() -> None:
    assert set(WAY_TO_SET) == set(Settings.model_fields)
    defaults = yaml.safe_load((CHART / "values.yaml").read_text())
    for way in WAY_TO_SET.values():
        if way not in ("always on", "POD_NAME", "POD_NAMESPACE"):
            value = defaults
            for key in way.split("."):
                assert key in value, way
                value = value[key]


def test_the_pods_own_name_and_namespace_are_known_to_it() -> None:
    references = {entry["name"]: entry["valueFrom"] for entry in render().container["env"] if "valueFrom" in entry}
    assert references == {
        "POD_NAME": {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.name"}},
        "POD_NAMESPACE": {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}},
    }


def settings_of(chart: Manifests, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """The settings as the operator reads them in the chart's pod."""
    for name in list(os.environ):
        if name.upper().startswith(PREFIX):
            monkeypatch.delenv(name)
    monkeypatch.setenv("POD_NAME", "pod")
    monkeypatch.setenv("POD_NAMESPACE", NAMESPACE)
    for name, value in chart.env.items():
        monkeypatch.setenv(name, value)
    return Settings()


def test_the_charts_defaults_are_the_operators_own(monkeypatch: pytest.MonkeyPatch) -> None:
    by_chart = {"lease_name", "lease_namespace", "identity", "operator_image", "webhook"}
    found = settings_of(render(), monkeypatch)
    for name, field in Settings.model_fields.items():
        if name not in by_chart:
            assert getattr(found, name) == field.get_default(), name
    assert (found.lease_name, found.lease_namespace, found.identity) == (NAME, NAMESPACE, "pod")


def test_values_reach_the_operator(monkeypatch: pytest.MonkeyPatch) -> None:
    values = """
      watchNamespaces: [team-a, team-b]
      workers: 256
      resyncIntervalSec: 86400
      logLevel: debug
      logFormat: text
      httpPort: 9090
      inspection: {enabled: false, timeoutSec: 60}
      nodeAffinity: false
      gpuOverhead: {nvidia: 512Mi, amd: 1073741824}
      image: {repository: registry.example/operator, tag: "1", digest: ""}
      engineImages:
        cpu: registry.example/llama:cpu
        gpu: registry.example/llama:gpu
        byResource: {nvidia.com/gpu: "registry.example/llama:cuda", example.com/npu: "registry.example/llama:npu"}
      extraEnv: [{name: LLAMAMODEL_OPERATOR_HTTP_HOST, value: "::"}]
    """
    found = settings_of(render(values), monkeypatch)
    assert found.watch_namespaces == ["team-a", "team-b"]
    assert (found.workers, found.resync_interval_sec, found.http_port, found.http_host) == (256, 86_400, 9090, "::")
    assert (found.log_level, found.log_format) == ("debug", "text")
    assert (found.image_cpu, found.image_gpu) == ("registry.example/llama:cpu", "registry.example/llama:gpu")
    assert (found.inspection, found.inspection_timeout_sec, found.node_affinity) == (False, 60, False)
    assert found.configuration.gpu_overhead == {"nvidia": 512 << 20, "amd": 1 << 30}
    assert found.operator_image == "registry.example/operator:1"
    assert found.image_by_resource["nvidia.com/gpu"] == "registry.example/llama:cuda"
    assert found.image_by_resource["example.com/npu"] == "registry.example/llama:npu"
    assert found.image_by_resource["amd.com/gpu"] == "ghcr.io/ggml-org/llama.cpp:server-rocm"


def test_the_operator_knows_of_the_gateway_and_of_the_names_in_it() -> None:
    deployment = render('{"gateway": {"enabled": true, "bareNamespaces": ["team-a"]}}').one("Deployment", NAME)
    [container] = deployment["spec"]["template"]["spec"]["containers"]
    env = {entry["name"]: entry.get("value") for entry in container["env"]}
    assert env[f"{PREFIX}GATEWAY"] == "true"
    assert json.loads(str(env[f"{PREFIX}GATEWAY_BARE_NAMESPACES"])) == ["team-a"]
    assert render().env[f"{PREFIX}GATEWAY"] == "false"


@pytest.mark.parametrize("nothing", ["null", '""'])
def test_an_engine_image_that_is_not_set_is_the_operators_own(nothing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    chart = render(f'{{"engineImages": {{"cpu": {nothing}, "gpu": {nothing}, "byResource": null}}}}')
    assert [name for name in chart.env if "IMAGE" in name] == [f"{PREFIX}OPERATOR_IMAGE"]
    assert settings_of(chart, monkeypatch).images == Settings().images


def test_the_image_for_a_resource_can_be_taken_away(monkeypatch: pytest.MonkeyPatch) -> None:
    chart = render('{"engineImages": {"byResource": {"amd.com/gpu": null}}}')
    found = settings_of(chart, monkeypatch).image_by_resource
    assert "amd.com/gpu" not in found
    assert "nvidia.com/gpu" in found


@pytest.mark.parametrize("name", ["LLAMAMODEL_OPERATOR_WORKERS", "llamamodel_operator_watch_namespaces", "POD_NAME"])
def test_what_the_chart_sets_cannot_be_set_behind_its_back(name: str) -> None:
    assert f"extraEnv: {name} is set by the chart" in refusal(f'{{"extraEnv": [{{"name": {name}, "value": "1"}}]}}')


# --- the pod


def test_the_pod_fits_a_namespace_that_enforces_restricted() -> None:
    chart = render()
    assert chart.pod["securityContext"] == {
        "runAsNonRoot": True,
        "runAsUser": 65532,
        "runAsGroup": 65532,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert chart.container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert not {"hostNetwork", "hostPID", "hostIPC", "volumes", "initContainers"} & set(chart.pod)
    assert "command" not in chart.container


def test_the_token_of_the_account_is_mounted_in_the_operators_pod_alone() -> None:
    chart = render()
    assert chart.one("ServiceAccount")["automountServiceAccountToken"] is False
    assert chart.pod["automountServiceAccountToken"] is True


def test_a_service_of_a_similar_name_cannot_change_a_setting() -> None:
    assert render().pod["enableServiceLinks"] is False  # llamamodel-operator-http would set ..._HTTP_PORT=tcp://…


def test_probes_and_metrics_use_the_port_that_the_operator_serves() -> None:
    chart = render('{"httpPort": 9090, "metrics": {"service": {"port": 80}}}')
    assert chart.container["ports"][0] == {"name": "http", "containerPort": 9090}
    assert chart.env["LLAMAMODEL_OPERATOR_HTTP_PORT"] == "9090"
    probes = {name: chart.container[f"{name}Probe"]["httpGet"] for name in ("startup", "liveness", "readiness")}
    assert probes == {
        "startup": {"path": "/healthz", "port": "http"},
        "liveness": {"path": "/healthz", "port": "http"},
        "readiness": {"path": "/readyz", "port": "http"},
    }
    metrics = chart.one("Service", f"{NAME}-metrics")
    assert metrics["spec"]["ports"] == [{"name": "http", "port": 80, "targetPort": "http"}]
    assert render('{"metrics": {"service": {"enabled": false}}}').names("Service") == [f"{NAMESPACE}/{WEBHOOK}"]


def test_selectors_match_the_pods_whatever_labels_are_added() -> None:
    chart = render('{"replicas": 2, "podLabels": {"app.kubernetes.io/name": "x", "team": "blue"}}')
    deployment = chart.one("Deployment")
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    selector = deployment["spec"]["selector"]["matchLabels"]
    assert selector == {
        "app.kubernetes.io/name": NAME,
        "app.kubernetes.io/instance": NAME,
        "app.kubernetes.io/component": "operator",
    }
    assert labels == {**selector, "team": "blue"}
    assert chart.one("Service", f"{NAME}-metrics")["spec"]["selector"] == selector
    assert chart.one("Service", WEBHOOK)["spec"]["selector"] == selector
    assert chart.one("PodDisruptionBudget")["spec"]["selector"]["matchLabels"] == selector


def test_several_replicas_are_protected_from_eviction_at_once() -> None:
    chart = render('{"replicas": 2}')
    assert chart.one("Deployment")["spec"]["replicas"] == 2
    assert chart.one("PodDisruptionBudget")["spec"]["maxUnavailable"] == 1
    assert chart.env["LLAMAMODEL_OPERATOR_LEADER_ELECTION"] == "true"
    off = render('{"replicas": 2, "podDisruptionBudget": {"enabled": false}}')
    assert render().names("PodDisruptionBudget") == off.names("PodDisruptionBudget") == []


def test_an_upgrade_starts_the_new_pod_before_the_old_one_goes() -> None:
    spec = render().one("Deployment")["spec"]
    assert spec["strategy"] == {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
    assert spec["template"]["spec"]["terminationGracePeriodSeconds"] == 30


def test_the_image_is_named_by_digest_tag_or_the_charts_version() -> None:
    digest = "sha256:" + "0123456789abcdef" * 4
    where = "localhost:5000/team/operator"
    assert render().container["image"] == "ghcr.io/llamamodel/llamamodel-operator:0.1.0"
    tagged = render(f'{{"image": {{"repository": "{where}", "tag": "dev-1"}}}}')
    assert tagged.container["image"] == f"{where}:dev-1"
    pinned = render(f'{{"image": {{"repository": "{where}", "tag": "dev-1", "digest": "{digest}"}}}}')
    assert pinned.container["image"] == f"{where}@{digest}"


def test_where_the_pods_run_is_the_admins_choice() -> None:
    constraint = {"maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "DoNotSchedule"}
    own = {**constraint, "labelSelector": {"matchLabels": {"team": "blue"}}}
    term = {"matchExpressions": [{"key": "kubernetes.io/arch", "operator": "In", "values": ["amd64"]}]}
    node_affinity = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}
    chosen: dict[str, Any] = {
        "priorityClassName": "system-cluster-critical",
        "nodeSelector": {"kubernetes.io/os": "linux"},
        "tolerations": [{"key": "dedicated", "operator": "Exists", "effect": "NoSchedule"}],
        "affinity": {"nodeAffinity": node_affinity},
        "imagePullSecrets": [{"name": "registry"}],
    }
    chart = render(json.dumps({**chosen, "topologySpreadConstraints": [constraint, own]}))
    assert {key: chart.pod[key] for key in chosen} == chosen
    selector = chart.one("Deployment")["spec"]["selector"]
    assert chart.pod["topologySpreadConstraints"] == [{**constraint, "labelSelector": selector}, own]


def test_openshift_may_choose_the_user() -> None:
    chart = render('{"podSecurityContext": {"runAsUser": null, "runAsGroup": null}}')
    assert chart.pod["securityContext"] == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}


# --- the webhook


def test_the_webhook_reviews_what_is_created_or_changed_and_nothing_else() -> None:
    configuration = render().one("ValidatingWebhookConfiguration")
    assert configuration["metadata"]["name"] == WEBHOOK
    assert "annotations" not in configuration["metadata"]
    assert configuration["webhooks"] == [
        {
            "name": "validate.llamamodels.llamamodel.dev",
            # no caBundle: it is the operator's field, and a GitOps tool must see no difference
            "clientConfig": {
                "service": {"name": WEBHOOK, "namespace": NAMESPACE, "path": "/validate", "port": 443},
            },
            "rules": [
                {
                    "apiGroups": ["llamamodel.dev"],
                    "apiVersions": ["v1alpha1"],
                    "resources": ["llamamodels"],
                    "operations": ["CREATE", "UPDATE"],
                    "scope": "Namespaced",
                }
            ],
            "admissionReviewVersions": ["v1"],
            "failurePolicy": "Ignore",
            "matchPolicy": "Equivalent",
            "namespaceSelector": {},
            "objectSelector": {},
            "sideEffects": "None",
            "timeoutSeconds": 5,
        }
    ]


def test_the_webhooks_values_reach_its_configuration() -> None:
    selector = {"matchExpressions": [{"key": "team", "operator": "In", "values": ["blue"]}]}
    values = {"failurePolicy": "Fail", "timeoutSeconds": 10, "namespaceSelector": selector}
    [webhook] = render(json.dumps({"webhook": values})).one("ValidatingWebhookConfiguration")["webhooks"]
    assert {key: webhook[key] for key in values} == values


def test_the_webhooks_service_leads_to_the_port_that_the_operator_listens_on(monkeypatch: pytest.MonkeyPatch) -> None:
    chart = render('{"webhook": {"port": 10250, "certificateLifeSec": 86400}, "fullnameOverride": "other"}')
    service = chart.one("Service", "other-webhook")
    assert service["spec"]["ports"] == [{"name": "webhook", "port": 443, "targetPort": "webhook"}]
    assert {"name": "webhook", "containerPort": 10250} in chart.container["ports"]
    found = settings_of(chart, monkeypatch)
    assert (found.webhook, found.webhook_port, found.webhook_name) == ("self-signed", 10250, "other-webhook")
    assert found.webhook_certificate_life_sec == 86_400
    assert ("", "secrets=other-webhook", "get update") in rules(chart.one("Role", "other-webhook"))


@pytest.mark.parametrize("values", ["webhook: {mode: off}", "webhook: {mode: 'off'}", "watchNamespaces: [team-a]"])
def test_without_a_webhook_nothing_of_it_is_there(values: str, monkeypatch: pytest.MonkeyPatch) -> None:
    chart = render(values)
    assert [doc["metadata"]["name"] for doc in chart.all if doc["metadata"]["name"].startswith(WEBHOOK)] == []
    assert [port["name"] for port in chart.container["ports"]] == ["http"]
    assert settings_of(chart, monkeypatch).webhook == "off"


def test_with_cert_manager_the_operator_only_reads_the_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    chart = render("webhook: {mode: cert-manager}")
    assert settings_of(chart, monkeypatch).webhook == "cert-manager"
    assert rules(chart.one("Role", WEBHOOK)) == {("", f"secrets={WEBHOOK}", "get")}
    assert WEBHOOK not in chart.names("ClusterRole")
    annotations = chart.one("ValidatingWebhookConfiguration")["metadata"]["annotations"]
    assert annotations == {"cert-manager.io/inject-ca-from": f"{NAMESPACE}/{WEBHOOK}"}
    serving, authority = chart.one("Certificate", WEBHOOK)["spec"], chart.one("Certificate", f"{WEBHOOK}-ca")["spec"]
    assert serving["secretName"] == WEBHOOK
    assert serving["dnsNames"] == [f"{WEBHOOK}.{NAMESPACE}.svc"]
    issuer = chart.one("Issuer", serving["issuerRef"]["name"])
    assert issuer["spec"]["ca"]["secretName"] == authority["secretName"]
    assert chart.one("Issuer", authority["issuerRef"]["name"])["spec"] == {"selfSigned": {}}


def test_cert_manager_can_be_told_another_issuer() -> None:
    issuer = {"name": "corporate", "kind": "ClusterIssuer", "group": "cert-manager.io"}
    chart = render(json.dumps({"webhook": {"mode": "cert-manager", "issuerRef": issuer}}))
    assert chart.one("Certificate")["spec"]["issuerRef"] == issuer
    assert chart.names("Issuer") == []


def test_with_watched_namespaces_cert_managers_webhook_reviews_these_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    expression = {"key": "team", "operator": "Exists"}
    webhook = {"mode": "cert-manager", "namespaceSelector": {"matchExpressions": [expression]}}
    chart = render(json.dumps({"watchNamespaces": ["team-a", "team-b"], "webhook": webhook}))
    watched = {"key": "kubernetes.io/metadata.name", "operator": "In", "values": ["team-a", "team-b"]}
    [found] = chart.one("ValidatingWebhookConfiguration")["webhooks"]
    assert found["namespaceSelector"] == {"matchExpressions": [expression, watched]}
    assert settings_of(chart, monkeypatch).webhook == "cert-manager"
    assert not [role for role in chart.names("ClusterRole") if not role.endswith(("-view", "-edit"))]


# --- network policies


def test_nothing_is_cut_off_unless_it_is_asked_for() -> None:
    assert render('{"gateway": {"enabled": true}, "watchNamespaces": ["a"]}').names("NetworkPolicy") == []


def test_policies_select_the_pods_and_the_ports_that_there_are() -> None:
    chart = render('{"networkPolicy": {"enabled": true}, "gateway": {"enabled": true}, "watchNamespaces": ["a"]}')
    for name in (NAME, GATEWAY):
        pod = chart.one("Deployment", name)["spec"]
        policy = chart.one("NetworkPolicy", name)["spec"]
        assert policy["podSelector"] == pod["selector"]
        [container] = pod["template"]["spec"]["containers"]
        ports = {port["containerPort"] for port in container["ports"]}
        assert {port["port"] for rule in policy["ingress"] for port in rule["ports"]} == ports
        [to_models] = [rule for rule in policy["egress"] if "to" in rule]
        assert to_models["ports"] == [{"port": PORT, "protocol": "TCP"}]
    [rule] = chart.one("NetworkPolicy", f"{NAME}-models", "a")["spec"]["ingress"]
    assert rule["ports"] == [{"port": PORT, "protocol": "TCP"}]


def test_models_are_reached_by_operator_gateway_and_monitoring_alone() -> None:
    chart = render('{"networkPolicy": {"enabled": true}, "gateway": {"enabled": true}, "watchNamespaces": ["a"]}')
    policy = chart.one("NetworkPolicy", f"{NAME}-models", "a")["spec"]
    assert policy["podSelector"]["matchLabels"].items() <= labels_of("any").items()
    assert policy["policyTypes"] == ["Ingress"]
    [rule] = policy["ingress"]
    operator, gateway, monitoring = rule["from"]
    home = {"matchLabels": {"kubernetes.io/metadata.name": NAMESPACE}}
    assert operator == {"namespaceSelector": home, "podSelector": chart.one("Deployment", NAME)["spec"]["selector"]}
    assert gateway == {"namespaceSelector": home, "podSelector": chart.one("Deployment", GATEWAY)["spec"]["selector"]}
    assert monitoring == {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}
    without = render('{"networkPolicy": {"enabled": true, "modelNamespaces": ["b"], "metricsFrom": []}}')
    [rule] = without.one("NetworkPolicy", f"{NAME}-models", "b")["spec"]["ingress"]
    assert rule["from"] == [operator]


# --- values


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ("replicsa: 2", "replicsa"),
        ("watchNamespace: [a]", "watchNamespace"),
        ("image: {repo: x}", "repo"),
        ("crds: {enable: true}", "enable"),
        ("rbac: {aggregate: true}", "aggregate"),
        ("metrics: {service: {enabeld: true}}", "enabeld"),
        ("engineImages: {cuda: x}", "cuda"),
        ("resources: {limit: {memory: 1Gi}}", "limit"),
        ("podSecurityContext: {runAsUsr: 1}", "runAsUsr"),
        ("tolerations: [{keys: x}]", "keys"),
        ("affinity: {nodeAfinity: {}}", "nodeAfinity"),
        ("extraEnv: [{name: A, valu: b}]", "valu"),
        ("imagePullSecrets: [registry]", "imagePullSecrets"),
        ("replicas: two", "replicas"),
        ("replicas: -1", "replicas"),
        ("workers: 0", "workers"),
        ("workers: 1.5", "workers"),
        ("resyncIntervalSec: 1", "resyncIntervalSec"),
        ("logLevel: verbose", "logLevel"),
        ("logFormat: yaml", "logFormat"),
        ("watchNamespaces: team-a", "watchNamespaces"),
        ("watchNamespaces: [Team_A]", "watchNamespaces"),
        ("watchNamespaces: [a, a]", "watchNamespaces"),
        ("image: {tag: 1.0}", "tag"),
        ("image: {digest: 'sha256:123'}", "digest"),
        ("image: {repository: 'has space'}", "repository"),
        ("image: {pullPolicy: always}", "pullPolicy"),
        ("httpPort: 80", "httpPort"),
        ("webhook: {mode: 'on'}", "mode"),
        ("webhook: {failurePolicy: ignore}", "failurePolicy"),
        ("webhook: {timeoutSeconds: 31}", "timeoutSeconds"),
        ("webhook: {port: 443}", "port"),
        ("webhook: {namespaceSelector: {team: blue}}", "namespaceSelector"),
        ("webhook: {certificateLifeSec: 60}", "certificateLifeSec"),
        ("webhook: {issuerRef: corporate}", "issuerRef"),
        ("webhook: {issuerRef: {kind: ClusterIssuer}}", "issuerRef"),
        ("webhook: {issuerRef: {name: '', kind: ClusterIssuer}}", "issuerRef"),
        ("gateway: {serviceAccount: {names: theirs}}", "names"),
        ("networkPolicy: {dnsPorts: []}", "dnsPorts"),
        ("crds: {keep: 'yes'}", "keep"),
        ("engineImages: {byResource: {gpu: x}}", "byResource"),
        ("modelDefaults: {engine: {contextSze: 4096}}", "contextSze"),
        ("modelDefaults: {endpoint: {metrics: false}}", "endpoint"),
        ("modelDefaults: {startupTimeoutSec: soon}", "startupTimeoutSec"),
        ("modelDefaults: {startupTimeoutSec: 0}", "startupTimeoutSec"),
        ("modelDefaults: {task: embedding}", "task"),
        ("modelDefaults: {tolerations: [{keys: x}]}", "keys"),
        ("modelDefaults: {loraAdapters: [{name: sql}]}", "pvc"),
        ("modelDefaults: {replicas: 2}", "replicas"),
        ("allowedFlags: [slot-save-path]", "allowedFlags"),
        ("allowedFlags: ['--slot-save-path /tmp', ---x]", "allowedFlags"),
        ("gpuOverhead: {nvidia: 512MB}", "gpuOverhead"),
        ("gpuOverhead: {nvidia.com/gpu: 512Mi}", "gpuOverhead"),
        ("resources: {limits: {memory: 4 GB}}", "memory"),
        ("podDisruptionBudget: {maxUnavailable: half}", "maxUnavailable"),
        ("fullnameOverride: Upper", "fullnameOverride"),
        ("gateway: {keys: {secretName: Upper}}", "secretName"),
        ("gateway: {keys: {wrongPerMinute: 0}}", "wrongPerMinute"),
        ("gateway: {tls: {secretName: [a]}}", "secretName"),
        ("podKeys: {secretName: Upper}", "secretName"),
        ("podKeys: {secret: pod-keys}", "secret"),
        ("gateway: {corsOrigins: ['chat.example.com']}", "corsOrigins"),
        ("gateway: {corsOrigins: ['https://chat.example.com/']}", "corsOrigins"),
        ("gateway: {bodyLimitBytes: 32Mi}", "bodyLimitBytes"),
        ("gateway: {maxInFlight: 0}", "maxInFlight"),
        ("gateway: {maxInFlightPerPod: -1}", "maxInFlightPerPod"),
        ("gateway: {autoscaling: {minReplicas: 0}}", "minReplicas"),
        ("gateway: {autoscaling: {targetCPU: 80%}}", "targetCPU"),
        ("gateway: {autoscaling: {metrics: [{kind: Pods}]}}", "metrics"),
        ("gateway: {autoscaling: {behavior: {scaleDwn: {}}}}", "behavior"),
        ("gateway: {service: {type: Headless}}", "type"),
        ("gateway: {ingress: {hosts: ['https://chat.example.com']}}", "hosts"),
        ("gateway: {ingress: {hosts: chat.example.com}}", "hosts"),
        ("gateway: {ingress: {host: chat.example.com}}", "host"),
        ("gateway: {ingress: {tlsSecretName: Upper}}", "tlsSecretName"),
        ("gateway: {httpRoute: {parentRefs: [{namespace: gateways}]}}", "parentRefs"),
        ("gateway: {httpRoute: {parentRefs: [public]}}", "parentRefs"),
        ("gateway: {httpRoute: {timeouts: {request: 1 hour}}}", "timeouts"),
        ("gateway: {extraVolumes: [{configMap: {name: a}}]}", "extraVolumes"),
        ("gateway: {podDisruptionBudget: {maxUnavailable: 1.5}}", "maxUnavailable"),
        ("extraVolumes: [{name: a, configmap: {name: a}}]", "extraVolumes"),
        ("extraVolumeMounts: [{name: a}]", "extraVolumeMounts"),
        ("topologySpreadConstraints: [{maxSkew: 1}]", "topologySpreadConstraints"),
        ("commonLabels: {team: 'two words'}", "commonLabels"),
        ("commonLabels: {team: 1}", "commonLabels"),
        ("commonAnnotations: {team: 1}", "commonAnnotations"),
        ("networkPolicy: {enabled: 'on'}", "enabled"),
        ("networkPolicy: {modelNamespaces: ['*']}", "modelNamespaces"),
        ("networkPolicy: {modelsFrom: [{podselector: {}}]}", "modelsFrom"),
        ("networkPolicy: {metricsFrom: [monitoring]}", "metricsFrom"),
        ("networkPolicy: {apiServer: {cidrs: [10.0.0.10]}}", "cidrs"),
        ("networkPolicy: {apiServer: {ports: []}}", "ports"),
        ("networkPolicy: {apiServer: {ports: [https]}}", "ports"),
    ],
)
def test_a_wrong_value_is_refused_by_its_name(values: str, named: str) -> None:
    message = refusal(values)
    assert "values don't meet the specifications of the schema" in message
    assert named in message


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ("gateway: {ingress: {enabled: true, hosts: [a.example]}}", "gateway.ingress.enabled: there is no gateway"),
        ("gateway: {httpRoute: {enabled: true, parentRefs: [{name: a}]}}", "gateway.httpRoute.enabled: there is no"),
        ("httpPort: 9443", "httpPort and webhook.port are both 9443"),
        (
            "gateway: {enabled: true, serviceAccount: {create: false}}",
            "gateway.serviceAccount.name is needed where gateway.serviceAccount.create is false",
        ),
        ("gateway: {enabled: true, ingress: {enabled: true}}", "gateway.ingress.hosts: name at least one host"),
        ("gateway: {enabled: true, httpRoute: {enabled: true}}", "gateway.httpRoute.parentRefs: name the Gateway"),
        (
            "gateway: {enabled: true, autoscaling: {enabled: true, minReplicas: 5}}",
            "minReplicas (5) is more than maxReplicas (4)",
        ),
        (
            "gateway: {enabled: true, extraEnv: [{name: LLAMAMODEL_GATEWAY_PORT, value: '1'}]}",
            "gateway.extraEnv: LLAMAMODEL_GATEWAY_PORT is set by the chart",
        ),
    ],
)
def test_values_that_do_not_go_together_are_refused_with_what_to_do(values: str, complaint: str) -> None:
    assert complaint in refusal(values)


def test_any_default_of_models_that_the_operator_takes_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    documents = yaml.safe_load_all((ROOT / "examples" / "everything.yaml").read_text(encoding="utf-8"))
    [spec] = [document["spec"] for document in documents if document["kind"] == "LlamaModel"]
    known = json.loads((CHART / "values.schema.json").read_text())["definitions"]["modelDefaults"]["properties"]
    values = {name: value for name, value in spec.items() if name in known}
    assert len(values) > 10
    assert settings_of(render(json.dumps({"modelDefaults": values})), monkeypatch).model_defaults == values
    others = {field.alias for field in LlamaModelSpec.model_fields.values()} - known.keys()
    assert [name for name in others if "can have no default" not in defaults_problem({name: 1}, path="spec")] == []


def test_a_default_of_models_can_be_taken_back() -> None:
    values = '{"modelDefaults": {"image": null, "task": null, "engine": {"contextSize": null, "numa": null}}}'
    assert render(values).names("Deployment")


def test_ports_that_no_webhook_listens_on_may_be_the_same() -> None:
    assert render("{httpPort: 9443, webhook: {mode: 'off'}}").container["ports"] == [
        {"name": "http", "containerPort": 9443}
    ]


@pytest.mark.parametrize("name", ["metricsFrom", "modelsFrom", "gatewayFrom"])
def test_peers_that_are_taken_away_with_null_are_none(name: str) -> None:
    policy = {"enabled": True, "modelNamespaces": ["team-a"], "metricsFrom": [], name: None}
    found = render(json.dumps({"networkPolicy": policy, "gateway": {"enabled": True}}))
    [rule] = found.one("NetworkPolicy", f"{NAME}-models", "team-a")["spec"]["ingress"]
    assert len(rule["from"]) == 2, "operator and gateway"


def test_the_gateways_rights_go_to_the_account_of_its_pods() -> None:
    chart = render('{"gateway": {"enabled": true, "serviceAccount": {"create": false, "name": "theirs"}}}')
    assert chart.one("Deployment", GATEWAY)["spec"]["template"]["spec"]["serviceAccountName"] == "theirs"
    [subject] = chart.one("ClusterRoleBinding", GATEWAY)["subjects"]
    assert (subject["name"], subject["namespace"]) == ("theirs", NAMESPACE)
    assert chart.names("ServiceAccount") == [f"{NAMESPACE}/{NAME}"]


def test_a_parent_chart_may_pass_its_globals() -> None:
    assert render('{"global": {"anything": {"at": "all"}}}').names("Deployment")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ("{}", "serves the LlamaModels of the whole cluster"),
        ("watchNamespaces: [team-a, team-b]", "serves the LlamaModels of team-a, team-b"),
        ("watchNamespaces: [team-a]", "With watchNamespaces there is no admission webhook"),
        ("crds: {enabled: false}", "must be there already"),
        ("crds: {keep: false}", "uninstalling the chart deletes every LlamaModel"),
        ("rbac: {create: false}", "needs its rights from somebody else"),
        ("gateway: {enabled: true}", "whoever reaches the gateway may use every model"),
        ("gateway: {enabled: true}", f"http://{GATEWAY}.{NAMESPACE}.svc:80/v1"),
        ("gateway: {enabled: true, tls: {secretName: a}, port: 443}", f"https://{GATEWAY}.{NAMESPACE}.svc:443/v1"),
        ("gateway: {enabled: true, ingress: {enabled: true, hosts: [a.example]}}", "http://a.example/v1"),
        ("{rbac: {create: false}, gateway: {enabled: true}}", f"the service account {GATEWAY}"),
        ("networkPolicy: {enabled: true}", "networkPolicy.modelNamespaces is empty"),
    ],
)
def test_the_notes_say_what_to_do_next(values: str, expected: str, tmp_path: Path) -> None:
    # only `helm install` prints the notes, and Helm 3 wants a cluster for it: here they are rendered as a manifest
    chart = tmp_path / NAME
    shutil.copytree(CHART, chart)
    (chart / "templates" / "NOTES.txt").rename(chart / "NOTES.txt")
    (chart / "templates" / "notes.yaml").write_text('notes: {{ tpl (.Files.Get "NOTES.txt") . | quote }}')
    done = template(values, "--show-only", "templates/notes.yaml", chart=chart)
    assert done.returncode == 0, done.stderr
    notes = yaml.safe_load(done.stdout)["notes"]
    assert expected in notes
    assert "kubectl apply" in notes


# --- the gateway

READS: set[Rule] = {
    ("llamamodel.dev", "llamamodels", "list watch"),
    ("discovery.k8s.io", "endpointslices", "list watch"),
}


def test_there_is_no_gateway_unless_it_is_asked_for() -> None:
    assert [doc["metadata"]["name"] for doc in render().all if "gateway" in doc["metadata"]["name"]] == []


def test_the_gateway_reads_names_and_addresses_and_nothing_else() -> None:
    chart = render('{"gateway": {"enabled": true}}')
    assert rules(chart.one("ClusterRole", GATEWAY)) == READS
    binding = chart.one("ClusterRoleBinding", GATEWAY)
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": GATEWAY, "namespace": NAMESPACE}]
    assert chart.one("ServiceAccount", GATEWAY)["automountServiceAccountToken"] is False


def test_with_watched_namespaces_the_gateway_has_roles_in_these_alone() -> None:
    chart = render(
        '{"gateway": {"enabled": true, "bareNamespaces": ["team-a"]}, "watchNamespaces": ["team-a", "team-b"]}'
    )
    assert [name for name in chart.names("ClusterRole") if GATEWAY in name] == []
    for namespace in ("team-a", "team-b"):
        assert rules(chart.one("Role", GATEWAY, namespace)) == READS
        assert chart.one("RoleBinding", GATEWAY, namespace)["roleRef"]["kind"] == "Role"
    [container] = chart.one("Deployment", GATEWAY)["spec"]["template"]["spec"]["containers"]
    env = {entry["name"]: entry["value"] for entry in container["env"]}
    assert json.loads(env["LLAMAMODEL_GATEWAY_WATCH_NAMESPACES"]) == ["team-a", "team-b"]
    assert json.loads(env["LLAMAMODEL_GATEWAY_BARE_NAMESPACES"]) == ["team-a"]


def test_the_gateways_pods_are_restricted_and_are_none_of_the_operators() -> None:
    chart = render('{"gateway": {"enabled": true}}')
    deployment = chart.one("Deployment", GATEWAY)
    pod, labels = deployment["spec"]["template"]["spec"], deployment["spec"]["template"]["metadata"]["labels"]
    [container] = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    operators = chart.one("Deployment", NAME)["spec"]["selector"]["matchLabels"]
    assert not operators.items() <= labels.items()
    selector = chart.one("Service", GATEWAY)["spec"]["selector"]
    assert selector == deployment["spec"]["selector"]["matchLabels"]
    assert selector.items() <= labels.items()
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    settings = GatewaySettings()
    assert ports == {"openai": settings.port, "http": settings.http_port}
    known = {f"LLAMAMODEL_GATEWAY_{name.upper()}" for name in GatewaySettings.model_fields}
    assert {entry["name"] for entry in container["env"]} <= known


def test_the_gateways_keys_and_its_certificate_are_mounted_and_read_by_no_right() -> None:
    values = {"gateway": {"enabled": True, "keys": {"secretName": "keys-1"}, "tls": {"secretName": "gateway-tls"}}}
    chart = render(json.dumps(values))
    pod = chart.one("Deployment", GATEWAY)["spec"]["template"]["spec"]
    [container] = pod["containers"]
    env = {entry["name"]: entry["value"] for entry in container["env"]}
    mounts = {mount["name"]: mount for mount in container["volumeMounts"]}
    assert pod["volumes"] == [
        {"name": "keys", "secret": {"secretName": "keys-1", "optional": False}},
        {"name": "tls", "secret": {"secretName": "gateway-tls", "optional": False}},
    ]
    for name, setting in (("keys", "KEYS_DIR"), ("tls", "TLS_DIR")):
        assert mounts[name] == {"name": name, "mountPath": env[f"LLAMAMODEL_GATEWAY_{setting}"], "readOnly": True}
    assert rules(chart.one("ClusterRole", GATEWAY)) == READS
    [port] = chart.one("Service", GATEWAY)["spec"]["ports"]
    assert port == {"name": "https", "port": 80, "targetPort": "openai"}


def test_without_keys_and_tls_the_gateway_mounts_nothing() -> None:
    pod = render('{"gateway": {"enabled": true}}').one("Deployment", GATEWAY)["spec"]["template"]["spec"]
    assert "volumes" not in pod
    assert "volumeMounts" not in pod["containers"][0]
    assert not [entry for entry in pod["containers"][0]["env"] if entry["name"].endswith(("KEYS_DIR", "TLS_DIR"))]


@pytest.mark.parametrize("name", [NAME, GATEWAY])
def test_keys_of_pods_are_mounted_into_operator_and_gateway_and_read_by_no_right(name: str) -> None:
    values = {"gateway": {"enabled": True}, "podKeys": {"secretName": "pod-keys-1"}}
    chart, without = render(json.dumps(values)), render('{"gateway": {"enabled": true}}')
    pod = chart.one("Deployment", name)["spec"]["template"]["spec"]
    [container] = pod["containers"]
    env = {entry["name"]: entry.get("value") for entry in container["env"]}
    (folder,) = (value for variable, value in env.items() if variable.endswith("_POD_KEYS_DIR"))
    assert container["volumeMounts"] == [{"name": "pod-keys", "mountPath": folder, "readOnly": True}]
    assert pod["volumes"] == [{"name": "pod-keys", "secret": {"secretName": "pod-keys-1", "optional": False}}]
    assert rules(chart.one("ClusterRole", name)) == rules(without.one("ClusterRole", name))
    bare = without.one("Deployment", name)["spec"]["template"]["spec"]
    assert "volumes" not in bare
    assert "volumeMounts" not in bare["containers"][0]


def gateway_settings_of(values: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> GatewaySettings:
    """What a gateway makes of its environment."""
    chart = render(json.dumps({"gateway": {"enabled": True, **values}}))
    [container] = chart.one("Deployment", GATEWAY)["spec"]["template"]["spec"]["containers"]
    for entry in container["env"]:
        monkeypatch.setenv(entry["name"], entry["value"])
    return GatewaySettings()


def test_the_charts_defaults_are_those_of_the_gateway(monkeypatch: pytest.MonkeyPatch) -> None:
    found = gateway_settings_of({"replicas": 1}, monkeypatch).model_dump()
    for name in GatewaySettings.model_fields:
        monkeypatch.delenv(f"LLAMAMODEL_GATEWAY_{name.upper()}", raising=False)
    assert found == GatewaySettings().model_dump()


def test_the_gateways_limits_are_its_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    values = {
        "bodyLimitBytes": 1 << 30,
        "bodiesLimitBytes": 1 << 40,
        "maxInFlight": 7,
        "maxInFlightPerPod": 6,
        "maxConnections": 1_000_000,
    }
    values |= {"idleTimeoutSec": 620, "writeTimeoutSec": 9, "replicas": 3}
    found = gateway_settings_of({"corsOrigins": ["https://a.example.com", "*"], **values}, monkeypatch)
    assert found.cors_origins == ["https://a.example.com", "*"]
    assert (found.body_limit_bytes, found.max_in_flight, found.max_in_flight_per_pod) == (1 << 30, 7, 6)
    assert found.bodies_limit_bytes == 1 << 40
    assert (found.max_connections, found.idle_timeout_sec, found.write_timeout_sec) == (1_000_000, 620, 9)
    assert found.gateways == 3, "each has its part of a pod"


_HEEDED: dict[str, Any] = {
    "task": "embed",
    "loraAdapters": [{"name": "sql", "pvc": {"claimName": "models", "path": "sql.gguf"}}],
    "engine": {"parallelSlots": 2, "queueLimit": 10},
    "startupTimeoutSec": 77,
    "endpoints": {"metrics": False},
    "grammar": {"builtin": "json"},
    "systemPrompt": {"inline": "Be brief."},
    "requestDefaults": {"stop": ["END"], "max_tokens": 7},
}


def test_the_gateway_knows_the_defaults_of_models_that_it_looks_at_and_no_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    others = {"env": [{"name": "TOKEN", "value": "s3cret"}], "nodeSelector": {"a": "b"}}
    chart = render(json.dumps({"gateway": {"enabled": True}, "modelDefaults": {**_HEEDED, **others}}))
    [container] = chart.one("Deployment", GATEWAY)["spec"]["template"]["spec"]["containers"]
    for entry in container["env"]:
        monkeypatch.setenv(entry["name"], entry["value"])
    found = GatewaySettings().model_defaults
    assert found == _HEEDED
    raw: dict[str, Any] = {
        "metadata": {"namespace": "demo", "name": "m"},
        "status": {"findings": [{"code": "SystemPromptUnused"}]},
    }
    assert served_model(raw, defaults=found) == served_model({**raw, "spec": {**_HEEDED, **others}})


def test_wrong_defaults_of_models_are_no_settings_of_a_gateway() -> None:
    with pytest.raises(ValueError, match="engine"):
        GatewaySettings(model_defaults={"engine": {"queueLimit": "many"}})


def test_the_gateways_pods_get_the_time_that_they_take_to_stop() -> None:
    chart = render('{"gateway": {"enabled": true, "stopDelaySec": 7, "drainSec": 60, "accessLog": false}}')
    pod = chart.one("Deployment", GATEWAY)["spec"]["template"]["spec"]
    assert pod["terminationGracePeriodSeconds"] == 7 + 60 + 15
    env = {entry["name"]: entry["value"] for entry in pod["containers"][0]["env"]}
    names = ("STOP_DELAY_SEC", "DRAIN_SEC", "ACCESS_LOG")
    assert [env[f"LLAMAMODEL_GATEWAY_{name}"] for name in names] == ["7", "60", "false"]


def test_one_pod_of_several_gateways_may_be_evicted_at_a_time() -> None:
    several = render('{"gateway": {"enabled": true}}').one("PodDisruptionBudget", GATEWAY)
    assert several["spec"]["maxUnavailable"] == 1
    assert render('{"gateway": {"enabled": true, "replicas": 1}}').names("PodDisruptionBudget") == []


def test_waits_at_the_gateway_are_bounded_as_the_values_say() -> None:
    def waits(values: str) -> dict[str, str]:
        [container] = render(values).one("Deployment", GATEWAY)["spec"]["template"]["spec"]["containers"]
        env = {entry["name"].removeprefix("LLAMAMODEL_GATEWAY_").lower(): entry["value"] for entry in container["env"]}
        return {name: value for name, value in env.items() if name.startswith("wait_")}

    by_default = {
        name: str(value) for name, value in GatewaySettings().model_dump().items() if name.startswith("wait_")
    }
    assert waits('{"gateway": {"enabled": true}}') == by_default
    given = '{"gateway": {"enabled": true, "wait": {"seconds": 0, "perModel": 1, "total": 2}}}'
    assert waits(given) == {"wait_sec": "0", "wait_per_model": "1", "wait_total": "2"}


@pytest.mark.parametrize("file", sorted((ROOT / "examples" / "values").glob("*.yaml")), ids=lambda file: file.stem)
def test_values_among_the_examples_are_taken_and_change_what_is_installed(file: Path) -> None:
    done = template(file.read_text(encoding="utf-8"))

    assert done.returncode == 0, done.stderr
    assert Manifests(done.stdout).all != Manifests(template("{}").stdout).all


def test_helm_has_the_options_that_the_documentation_names() -> None:
    """With --help, helm reads the options, and says which it does not have, and does nothing."""
    named = {command.words[1:] for page in pages() for command in commands(page) if command.words[0] == "helm"}
    assert len(named) > 5
    said = {words: run_helm(*words, "--help") for words in named}
    assert {words: done.stderr for words, done in said.items() if done.returncode} == {}
    assert run_helm("upgrade", "--nothing", "--help").returncode != 0
