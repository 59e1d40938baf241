"""The life of an installation, by helm and by what the documentation tells people to type.

All namespaces that are concerned enforce the Pod Security Standard `restricted`. The version before is in
`tests/e2e/previous`: its chart, and its code in an image of its own.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from e2e.conftest import GATEWAY, OPERATOR_NAMESPACE, OPERATOR_USER, RELEASE, ROOT, Client, Environment, tool
from e2e.foreign import CRD
from e2e.test_serving import POST
from support.documentation import section
from support.image_archives import derive
from support.kube import Kube, condition, eventually, llama_model

pytestmark = pytest.mark.e2e

CHART = ROOT / "charts" / "llamamodel-operator"
PREVIOUS = ROOT / "tests" / "e2e" / "previous"
REPOSITORY = "localhost/llamamodel-operator"
MODEL = ROOT / "examples" / "gemma.yaml"
RESTRICTED = "pod-security.kubernetes.io/enforce=restricted"
ADMIN = "admin-of-some-namespaces"


@dataclass(frozen=True, kw_only=True)
class Shell:
    """Where commands of the documentation are typed: in the checkout, with the cluster's kubectl and helm."""

    kube: Kube

    def __call__(self, script: str, *, stdin: str = "", timeout: float = 200) -> str:
        """What it prints; fails where a command does."""
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=ROOT,
            env={
                **os.environ,
                "KUBECONFIG": str(self.kube.kubeconfig),
                "PATH": f"{self.kube.bin_dir}{os.pathsep}{os.environ['PATH']}",
            },
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout,
        )
        assert done.returncode == 0, f"{script}\n{done.stdout[-2000:]}{done.stderr[-4000:]}"
        return done.stdout

    def install(self, chart: Path, images: dict[str, Any], *arguments: str) -> None:
        """With the chart's defaults but for the images, which no registry has here."""
        command = ["helm", "install", RELEASE, str(chart), "--namespace", OPERATOR_NAMESPACE, "--wait", *arguments]
        self(" ".join((*command, "--values", "-")), stdin=json.dumps(images))


def documented(page: str, heading: str) -> list[str]:
    """The blocks of a section of the documentation."""
    return section(ROOT / "docs" / page, heading)


@pytest.fixture(scope="module")
def shell(environment: Environment, kube: Kube) -> Iterator[Shell]:
    """The operator's namespace is empty, and gets the operator that the other tests want afterwards."""
    environment.inside("a node that is given images")
    shell = Shell(kube=environment.kube)
    uninstall(environment, shell)
    environment.kube("delete", "namespace", OPERATOR_NAMESPACE)
    environment.kube("create", "namespace", OPERATOR_NAMESPACE)
    environment.kube("label", "namespace", OPERATOR_NAMESPACE, RESTRICTED)
    yield shell
    uninstall(environment, shell)
    environment.deploy_operator()


@pytest.fixture
def nothing_installed(environment: Environment, shell: Shell) -> None:
    """Whatever a test before has left."""
    uninstall(environment, shell)


def uninstall(environment: Environment, shell: Shell) -> None:
    """Release, CustomResourceDefinition and, with it, all models."""
    shell(f"helm uninstall {RELEASE} --namespace {OPERATOR_NAMESPACE} --ignore-not-found --wait")
    if environment.kube.get("crd", CRD):
        shell("kubectl delete llamamodels --all --all-namespaces --cascade=foreground")
    environment.kube.delete("crd", CRD)
    eventually(lambda: not environment.operator_pods(), within=60)
    models = ("get", "pods", "--all-namespaces", "--selector", "llamamodel.dev/model", "-o", "name")
    eventually(lambda: not environment.kube(*models), within=60)


@pytest.fixture(scope="module")
def images(environment: Environment, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The node has the operator's images by the tags that the charts, this one and the one before, name themselves."""
    built = json.loads(tool("hack/images", "build", "-o", "json"))
    [present] = [Path(each["archive"]) for each in built if each["image"] == environment.operator_image]
    [engine] = [each["image"] for each in built if each["image"] != environment.operator_image]
    [package], [wheel] = PREVIOUS.glob("*.tgz"), PREVIOUS.glob("*.whl")
    folder = tmp_path_factory.mktemp("images")
    for chart, before in ((CHART, None), (package, wheel)):
        tag = app_version(environment.kube, chart)
        archive = folder / f"{tag}.tar"
        derive(present, archive, image=f"{REPOSITORY}:{tag}", wheel=before)
        tool("hack/cluster", "load-image", "--name", environment.name, str(archive))
        archive.unlink()
    return {
        "image": {"repository": REPOSITORY},
        "engineImages": {"cpu": engine, "gpu": engine, "byResource": {"nvidia.com/gpu": engine}},
    }


def app_version(kube: Kube, chart: Path) -> str:
    """The version of the operator that a chart installs, which is its image's tag."""
    told = Shell(kube=kube)(f"helm show chart {chart}")
    return str(yaml.safe_load(told)["appVersion"])


def apply_example(kube: Kube) -> None:
    """Serves the example, as the documentation has it."""
    kube("apply", "--filename", str(MODEL))
    kube("wait", "--for=condition=Ready", "llamamodel/gemma", "--timeout=240s", timeout=250)


def what_serves(kube: Kube) -> dict[str, Any]:
    """Of the model: its pods with the restarts of their containers, and the Deployment that they are of."""
    deployment = kube.must_get("deployment", "gemma")
    return {
        "pods": {
            pod["metadata"]["uid"]: [
                each["restartCount"]
                for kind in ("initContainerStatuses", "containerStatuses")
                for each in pod["status"].get(kind, ())
            ]
            for pod in kube.select("pods", "llamamodel.dev/model=gemma")
        },
        "uid": deployment["metadata"]["uid"],
        "generation": deployment["metadata"]["generation"],
        "template": deployment["spec"]["template"],
    }


def assert_it_answers(client: Client, model: str = "gemma") -> None:
    answer = client.post(model, "/v1/completions", model=model, prompt="Once upon a time", max_tokens=4).body
    assert answer["usage"]["completion_tokens"] == 4


def wait_until_looked_at(environment: Environment) -> None:
    """Until the operator, of which one pod is left, leads and has ended a pass over the one LlamaModel."""
    eventually(lambda: len(environment.operator_pods()) == 1, within=60)

    def passes() -> bool:
        path = f"services/{RELEASE}-metrics:http/proxy/metrics"
        told = environment.system("get", "--raw", f"/api/v1/namespaces/{OPERATOR_NAMESPACE}/{path}").splitlines()
        values = dict(line.rsplit(" ", 1) for line in told if not line.startswith("#"))
        return float(values.get('llamamodel_operator_reconciles_total{result="ok"}', 0)) > 0

    eventually(passes, within=60, pause=1)


def listed(kube: Kube, *arguments: str) -> list[dict[str, Any]]:
    """All objects of all kinds that the cluster lists."""
    kinds = kube("api-resources", "--verbs=list", "--output=name", *arguments).split()
    items: list[dict[str, Any]] = json.loads(kube("get", ",".join(kinds), "--all-namespaces", "-o", "json"))["items"]
    return items


def assert_nothing_is_left(kube: Kube) -> None:
    """That has our name, or a label that does; namespace and node were there before, and events end by themselves."""
    left = [
        f"{raw['kind']} {raw['metadata'].get('namespace', '')}/{raw['metadata']['name']}"
        for raw in listed(kube)
        if raw["kind"] not in ("Namespace", "Node", "Event")
        if "llamamodel" in " ".join((raw["metadata"]["name"], *sum(raw["metadata"].get("labels", {}).items(), ())))
    ]
    assert left == []


def wait_until_nothing_is_left(kube: Kube) -> None:
    """Pods may take a while to stop."""

    def nothing() -> bool:
        assert_nothing_is_left(kube)
        return True

    eventually(nothing, within=90, pause=2)


def of_the_cluster(kube: Kube) -> set[str]:
    """The objects that belong to no namespace, but for the addresses that Services get."""
    found = listed(kube, "--namespaced=false")
    return {f"{raw['kind']} {raw['metadata']['name']}" for raw in found if raw["kind"] != "IPAddress"}


def wait_until_the_garbage_collector_looks(kube: Kube) -> None:
    """Until Kubernetes' own has noticed that there are LlamaModels: it removes what is in the way of this deletion."""
    kube.apply(llama_model("passing", suspend=True))
    kube.delete("llamamodel", "passing", "--cascade=foreground")


def schema(kube: Kube) -> Any:
    """Of LlamaModels, as the API server has it."""
    [version] = kube.must_get("crd", CRD)["spec"]["versions"]
    return version["schema"]


@pytest.mark.usefixtures("nothing_installed")
def test_models_serve_on_without_the_operator_and_go_with_all_the_rest_when_asked(
    environment: Environment, shell: Shell, images: dict[str, Any], kube: Kube, client: Client
) -> None:
    keeping, _, removing, own = documented("operations.md", "## Uninstall")
    shell.install(CHART, images)
    apply_example(kube)
    assert_it_answers(client)
    before = what_serves(kube)

    shell(keeping)
    eventually(lambda: not environment.operator_pods(), within=60)
    assert kube.get("llamamodel", "gemma") is not None
    assert_it_answers(client)
    assert what_serves(kube) == before

    shell.install(CHART, images)
    wait_until_looked_at(environment)
    assert what_serves(kube) == before, "it takes in what there is"
    assert condition(kube.must_get("llamamodel", "gemma"), "Ready")["status"] == "True"

    wait_until_the_garbage_collector_looks(kube)
    shell(removing)
    shell(own)
    wait_until_nothing_is_left(kube)


@pytest.mark.usefixtures("nothing_installed")
def test_an_upgrade_restarts_no_model(
    environment: Environment, shell: Shell, images: dict[str, Any], kube: Kube, client: Client
) -> None:
    [package] = PREVIOUS.glob("*.tgz")
    upgrade, look = [block for block in documented("upgrade.md", "## The operator") if "llamamodel-system" in block]
    shell.install(package, images)
    apply_example(kube)
    before, audit = what_serves(kube), environment.audit()

    shell(upgrade)
    shell(look)
    [pod] = eventually(lambda: [pods] if len(pods := environment.operator_pods()) == 1 else None, within=60)[0]
    assert pod["spec"]["containers"][0]["image"] == f"{REPOSITORY}:{app_version(kube, CHART)}"
    wait_until_looked_at(environment)

    assert what_serves(kube) == before
    assert [str(write) for write in audit.writes(user=OPERATOR_USER) if write.resource == "deployments"] == []
    assert_it_answers(client)
    of_this = yaml.safe_load((ROOT / "crds" / "llamamodels.yaml").read_text())
    assert schema(kube) == of_this["spec"]["versions"][0]["schema"]

    _, by_hand, _, own = documented("operations.md", "## Uninstall")
    shell(by_hand)
    shell(own)
    wait_until_nothing_is_left(kube)


@pytest.fixture
def teams(environment: Environment, shell: Shell) -> Iterator[list[Kube]]:
    """Namespaces that are watched by examples/values/some-namespaces.yaml, and one that is not."""
    names = ["team-a", "team-b", "elsewhere"]
    for name in names:
        environment.kube("create", "namespace", name)
        environment.kube("label", "namespace", name, RESTRICTED)
    for name in ("team-a", "elsewhere"):
        environment.storage(name)
    yield [environment.kube.within(name) for name in names]
    uninstall(environment, shell)
    environment.kube("delete", "namespace", *names, "--timeout=200s", timeout=210)
    environment.kube("delete", "persistentvolume", "models-team-a", "models-elsewhere", "--wait=false")


@pytest.mark.usefixtures("nothing_installed")
def test_somebody_without_rights_to_the_cluster_installs_it_for_some_namespaces(
    environment: Environment, shell: Shell, images: dict[str, Any], teams: list[Kube], in_cluster: Callable[..., str]
) -> None:
    watched, _, elsewhere = teams
    [crd] = [
        block for block in documented("operations.md", "## Without rights to the whole cluster") if "crds/" in block
    ]
    shell(crd)
    before = of_the_cluster(environment.kube)
    for namespace in (OPERATOR_NAMESPACE, *(team.namespace for team in teams[:2])):
        environment.kube.within(namespace).apply(*rights_of_an_admin())
    values = "--values examples/values/some-namespaces.yaml --set gateway.enabled=true"
    shell.install(CHART, images, f"--kube-as-user {ADMIN} {values}")
    assert of_the_cluster(environment.kube) == before

    elsewhere("apply", "--filename", str(MODEL))
    apply_example(watched)
    model = watched.must_get("llamamodel", "gemma")
    fits = condition(model, "MemoryFits")
    assert (fits["status"], fits["reason"]) == ("Unknown", "NodesNotVisible")
    assert "status" not in elsewhere.must_get("llamamodel", "gemma")
    assert elsewhere("get", "deployments,services,jobs,pods,configmaps", "--selector", "llamamodel.dev/model") == ""

    gateway = f"http://{GATEWAY}.{OPERATOR_NAMESPACE}.svc/v1"
    body = json.dumps({"model": "team-a/gemma", "prompt": "Hello", "max_tokens": 2})
    answer = json.loads(in_cluster(POST, f"{gateway}/completions", body))
    assert answer["usage"]["completion_tokens"] == 2


def rights_of_an_admin() -> list[dict[str, Any]]:
    """Everything in a namespace, and so nothing that belongs to none."""
    api = {"apiVersion": "rbac.authorization.k8s.io/v1", "metadata": {"name": ADMIN}}
    everything = {"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": ADMIN}
    subject = {"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": ADMIN}
    return [
        {**api, "kind": "Role", "rules": [everything]},
        {**api, "kind": "RoleBinding", "roleRef": role, "subjects": [subject]},
    ]
