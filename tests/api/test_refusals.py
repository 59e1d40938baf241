"""When the API server refuses a child, the model says so in the API server's words, and waits with growing pauses."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import pytest

from .harness.audit import AuditLog, Mark, Write
from .harness.bench import Bench, condition
from .harness.kube import Kube, RefusedByServerError
from .harness.models import a_deployment, a_model
from .harness.process import OperatorProcess
from .harness.waiting import eventually

pytestmark = pytest.mark.usefixtures("operator")

POLICY = "no-untagged-images"
ADVICE = "images need a tag, ask platform@example.com"
GROUP = "admissionregistration.k8s.io/v1"


@pytest.fixture
def policy(bench: Bench, kube: Kube) -> Iterator[str]:
    """A rule of the cluster's administrator for Deployments in the test's namespace, in force."""
    rule = {"expression": "false", "message": ADVICE}
    matched = {
        "apiGroups": ["apps"],
        "apiVersions": ["v1"],
        "resources": ["deployments"],
        "operations": ["CREATE", "UPDATE"],
    }
    kube.create(
        {
            "apiVersion": GROUP,
            "kind": "ValidatingAdmissionPolicy",
            "metadata": {"name": POLICY},
            "spec": {"matchConstraints": {"resourceRules": [matched]}, "validations": [rule]},
        }
    )
    only_here = {"matchLabels": {"kubernetes.io/metadata.name": bench.namespace}}
    kube.create(
        {
            "apiVersion": GROUP,
            "kind": "ValidatingAdmissionPolicyBinding",
            "metadata": {"name": POLICY},
            "spec": {
                "policyName": POLICY,
                "validationActions": ["Deny"],
                "matchResources": {"namespaceSelector": only_here},
            },
        }
    )
    eventually(lambda: _refuses(bench, kube), what="the policy is in force")
    yield POLICY
    _drop(kube)


def _refuses(bench: Bench, kube: Kube) -> bool:
    try:
        kube.create(a_deployment("any").in_(bench.namespace).body, dry_run=True)
    except RefusedByServerError as refused:
        return ADVICE in str(refused)
    return False


def _drop(kube: Kube) -> None:
    kube.delete("ValidatingAdmissionPolicyBinding", "", POLICY)
    kube.delete("ValidatingAdmissionPolicy", "", POLICY)


def _attempts(mark: Mark, bench: Bench) -> list[Write]:
    return [write for write in mark.writes(namespace=bench.namespace) if write.what == "deployments"]


def test_a_refused_deployment_is_told_in_the_words_of_the_api_server(bench: Bench, policy: str) -> None:
    bench.play_bound_claim()
    bench.create(a_model("gemma"))

    model = bench.wait_for_reason("gemma", "AdmissionDenied", kind="Accepted")

    accepted = condition(model, "Accepted")
    assert accepted["status"] == "False"
    assert accepted["message"].startswith("the API server refuses Deployment gemma: ")
    assert ADVICE in accepted["message"]
    assert condition(model, "Ready")["reason"] == "AdmissionDenied"
    assert bench.find("Service", "gemma") is not None, "what is not refused is there"


def test_a_refused_deployment_is_tried_again_ever_more_rarely_and_the_status_is_written_once(
    bench: Bench, policy: str, mark: Mark
) -> None:
    bench.create(a_model("gemma"))  # no claim, for its coming would be a reason to try again at once

    tries = eventually(lambda: _attempts(mark, bench), until=lambda found: len(found) >= 5, what="five attempts")

    pauses = [later.time - earlier.time for earlier, later in pairwise(tries)]
    # the first may be cut short by the news of the operator's own first write, where that overtakes its answer
    assert all(pause >= 0.25 * 2**number for number, pause in enumerate(pauses) if number), pauses
    statuses = [write for write in mark.writes(namespace=bench.namespace) if write.what == "llamamodels/status"]
    assert len(statuses) == 1


def test_other_namespaces_do_not_notice(bench: Bench, policy: str, kube: Kube) -> None:
    elsewhere = Bench(kube=kube, cluster=bench.cluster, namespace=f"{bench.namespace}-b")
    kube.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": elsewhere.namespace}})
    bench.create(a_model("gemma"))
    bench.wait_for_reason("gemma", "AdmissionDenied")

    elsewhere.create(a_model("gemma"))

    elsewhere.wait_for_reason("gemma", "ClaimNotFound")
    elsewhere.play_namespace_controller()


def test_when_the_refusal_goes_the_model_recovers(bench: Bench, policy: str, kube: Kube) -> None:
    bench.play_bound_claim()
    bench.create(a_model("gemma"))
    bench.wait_for_reason("gemma", "AdmissionDenied")

    _drop(kube)

    bench.wait_for_reason("gemma", "Starting", within=40)
    bench.wait_for_reason("gemma", "Accepted", kind="Accepted")


def test_an_edit_that_is_refused_leaves_what_runs_alone(bench: Bench, kube: Kube) -> None:
    bench.play_bound_claim()
    bench.create(a_model("gemma"))
    bench.wait_for_reason("gemma", "Starting")
    bench.play_rollout("gemma")
    bench.wait_for_reason("gemma", "Ready")
    before = bench.get("Deployment", "gemma")

    bench.edit_spec("gemma", env=[{"name": "not a name=", "value": "x"}])
    model = bench.wait_for_reason("gemma", "ObjectRefused")

    assert bench.get("Deployment", "gemma") == before
    assert condition(model, "Available")["status"] == "True"
    assert "env[2].name" in condition(model, "Accepted")["message"]


def test_a_full_quota_is_told_as_such_and_the_model_recovers(bench: Bench) -> None:
    bench.play_quota("few", count_services="0")
    bench.play_bound_claim()
    bench.create(a_model("gemma"))

    model = bench.wait_for_reason("gemma", "QuotaExceeded", kind="Accepted")

    assert "exceeded quota: few" in condition(model, "Accepted")["message"]
    assert bench.find("Deployment", "gemma") is not None
    bench.play_quota("few", count_services="1")
    bench.wait_for_reason("gemma", "Starting", within=40)


def test_a_child_that_is_refused_makes_one_event(bench: Bench, policy: str, mark: Mark) -> None:
    bench.create(a_model("gemma"))
    bench.wait_for_reason("gemma", "AdmissionDenied")
    eventually(lambda: _attempts(mark, bench), until=lambda found: len(found) >= 4, what="four attempts")

    (event,) = bench.kube.list("Event", bench.namespace)

    assert (event["type"], event["reason"]) == ("Warning", "AdmissionDenied")
    assert event["regarding"]["name"] == "gemma"
    assert ADVICE in event["note"]


def test_a_stored_spec_that_a_later_rule_forbids_is_named_and_what_runs_is_left_alone(
    bench: Bench, kube: Kube, operator: OperatorProcess, audit: AuditLog, request: pytest.FixtureRequest
) -> None:
    bench.play_bound_claim()
    bench.create(a_model("gemma"))
    bench.wait_for_reason("gemma", "Starting")
    deployment = bench.get("Deployment", "gemma")
    with_rules = kube.get("CustomResourceDefinition", "", "llamamodels.llamamodel.dev") or {}
    path = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/model/properties/pvc/properties/path"
    request.addfinalizer(request.getfixturevalue("install_crd"))
    kube.patch(
        "CustomResourceDefinition",
        "",
        with_rules["metadata"]["name"],
        [{"op": "remove", "path": f"{path}/x-kubernetes-validations"}],
    )

    def accepts_the_old_form() -> bool:
        try:
            bench.edit("LlamaModel", "gemma", {"spec": {"model": {"pvc": {"path": "../gemma.gguf"}}}})
        except RefusedByServerError:
            return False
        return True

    eventually(accepts_the_old_form, what="the rule is gone")

    model = bench.wait_for_reason("gemma", "InvalidSpec", kind="Accepted")
    accepted = condition(model, "Accepted")
    assert accepted["status"] == "False"
    assert "spec.model.pvc.path" in accepted["message"]
    assert "must not contain '..'" in accepted["message"]
    assert bench.get("Deployment", "gemma") == deployment
    mark = audit.mark()
    bench.edit("LlamaModel", "gemma", {"metadata": {"labels": {"look": "again"}}})
    bench.create(a_model("later"))
    bench.wait_for_reason("later", "Starting")
    assert {write.name for write in mark.writes()} == {"later"}, "the same status is not written again"
