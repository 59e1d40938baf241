"""The webhook in the cluster: kubectl prints its warnings, errors are refused, and without it nothing is lost."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from e2e.conftest import Environment, applied
from support.kube import Kube, KubectlError, condition, eventually, llama_model

pytestmark = pytest.mark.e2e

WEBHOOK = "llamamodel-operator-webhook"
BROKEN_GRAMMAR = 'root ::= "yes" | no\nno ::= "no" )\n'
ANY_CONTAINER = {"name": "other", "image": "registry.example.com/other:1"}
WHERE = "spec.grammar.inline: line 2, column 13: "


def a_model(**spec: Any) -> dict[str, Any]:
    """Without pods: nothing of this needs any."""
    return llama_model("reviewed", replicas=0, **{"engine": {"build": 11669}, **spec})


@pytest.fixture(scope="module", autouse=True)
def reviewed(kube: Kube) -> None:
    """Until the API server asks the operator, and trusts it."""
    eventually(lambda: refused(kube, a_model(grammar={"inline": BROKEN_GRAMMAR})), within=60)


@pytest.fixture
def unreachable(environment: Environment) -> Iterator[None]:
    """The webhook is down, the operator works: its Service leads nowhere."""
    service = environment.system.must_get("service", WEBHOOK)
    environment.system.patch("service", WEBHOOK, {"spec": {"selector": {"app.kubernetes.io/name": "nobody"}}})
    eventually(lambda: addresses(environment) == 0, within=30)
    environment.scale_operator(0)  # the API server keeps its connections, through the Service or not
    environment.scale_operator(1)
    yield
    environment.system.patch("service", WEBHOOK, {"spec": {"selector": service["spec"]["selector"]}})
    eventually(lambda: addresses(environment) > 0, within=30)


def addresses(environment: Environment) -> int:
    slices = environment.system.select("endpointslices", f"kubernetes.io/service-name={WEBHOOK}")
    return sum(len(raw.get("endpoints") or []) for raw in slices)


def refused(kube: Kube, manifest: dict[str, Any]) -> str:
    """What kubectl says of a manifest that is refused; empty where it is taken."""
    try:
        kube("apply", "--dry-run=server", "-f", "-", stdin=json.dumps(manifest))
    except KubectlError as error:
        return str(error)
    return ""


def test_where_operator_and_gateway_run_no_pod_may_be_less_than_restricted(environment: Environment) -> None:
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "other"}, "spec": {"containers": [ANY_CONTAINER]}}
    assert 'violates PodSecurity "restricted' in refused(environment.system, pod)


def test_a_warning_is_printed_and_the_model_is_stored(kube: Kube) -> None:
    said = applied(kube, a_model(extraArgs=["--top-n-sigmaa", "1.5"]))
    assert "Warning: spec.extraArgs[0]: " in said
    assert "--top-n-sigma" in said
    assert "llamamodel.llamamodel.dev/reviewed created" in said
    kube.delete("lm", "reviewed")


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ({"grammar": {"inline": BROKEN_GRAMMAR}}, [WHERE]),
        ({"extraArgs": ["--ngl", "many"]}, ["spec.extraArgs[", "many"]),
        ({"extraArgs": ["--draft-max", "8"]}, ["spec.extraArgs[0]", "--spec-draft-n-max"]),
        ({"chatTemplate": {"inline": "{% for m in messages %}"}}, ["spec.chatTemplate.inline: line 1"]),
    ],
    ids=["grammar", "value", "removed flag", "template"],
)
def test_an_error_is_refused_and_says_where_and_what(kube: Kube, spec: dict[str, Any], told: list[str]) -> None:
    with pytest.raises(KubectlError) as error:
        applied(kube, a_model(**spec))
    for words in ('The LlamaModel "reviewed" is invalid: ', *told):
        assert words in str(error.value)
    assert kube.get("lm", "reviewed") is None


def test_without_the_webhook_it_is_stored_and_the_condition_shows_the_finding(kube: Kube, unreachable: None) -> None:
    assert "created" in applied(kube, a_model(grammar={"inline": BROKEN_GRAMMAR}))

    def told() -> dict[str, Any]:
        model = kube.must_get("lm", "reviewed")
        accepted = condition(model, "Accepted")
        assert (accepted.get("status"), accepted.get("reason")) == ("False", "InvalidSpec")
        assert WHERE in accepted["message"]
        return model

    (finding,) = [found for found in eventually(told, within=30)["status"]["findings"] if found["severity"] == "error"]
    assert (finding["code"], finding["field"]) == ("InvalidGrammar", "spec.grammar.inline")
    assert kube.get("deployment", "reviewed") is None
    kube.delete("lm", "reviewed")
