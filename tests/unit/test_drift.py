"""Whether a live child still is what was applied: what others add is no difference, what they change of ours is."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamamodel_operator.core.objects.drift import differences

from .builders import a_model

_MODEL = (
    a_model()
    .with_gpu()
    .with_limits(cpu="1500m", memory="1Gi")
    .with_spec(
        env=[{"name": "A", "value": "1"}, {"name": "EMPTY", "value": ""}],
        imagePullSecrets=[{"name": "one"}, {"name": "two"}],
        nodeSelector={"gpu": "l4"},
        tolerations=[{"key": "a", "operator": "Exists"}, {"key": "b", "operator": "Exists"}],
        topologySpreadConstraints=[{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway"}],
    )
)
DEPLOYMENT, SERVICE = _MODEL.deployment(), _MODEL.service()

Edit = Callable[[dict[str, Any]], object]


def found_after(edit: Edit, desired: dict[str, Any]) -> list[str]:
    live = copy.deepcopy(desired)
    edit(live)
    return list(differences(desired, live))


def pod(live: dict[str, Any]) -> dict[str, Any]:
    spec: dict[str, Any] = live["spec"]["template"]["spec"]
    return spec


def container(live: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = pod(live)["containers"][0]
    return found


def test_what_was_applied_is_what_is_there() -> None:
    assert not list(differences(DEPLOYMENT, copy.deepcopy(DEPLOYMENT)))
    assert not list(differences(SERVICE, copy.deepcopy(SERVICE)))


@pytest.mark.parametrize(
    "edit",
    [
        lambda live: live.update(status={"readyReplicas": 1}),
        lambda live: live["metadata"].update(uid="u", resourceVersion="5", generation=3, creationTimestamp="2026"),
        lambda live: live["metadata"]["annotations"].update({"deployment.kubernetes.io/revision": "4"}),
        lambda live: live["metadata"]["labels"].update({"argocd.argoproj.io/instance": "x"}),
        lambda live: pod(live).update(dnsPolicy="ClusterFirst", restartPolicy="Always", schedulerName="x"),
        lambda live: container(live).update(terminationMessagePath="/dev/x", imagePullPolicy="IfNotPresent"),
        lambda live: container(live)["startupProbe"].update(initialDelaySeconds=0),
        lambda live: pod(live)["securityContext"].update(fsGroupChangePolicy="Always"),
        lambda live: live["spec"]["template"]["metadata"].update(creationTimestamp=None),
        lambda live: live["spec"]["template"]["metadata"]["annotations"].update({"restartedAt": "now"}),
        lambda live: pod(live)["containers"].append({"name": "istio-proxy", "image": "istio"}),
        lambda live: pod(live)["containers"].insert(0, {"name": "istio-proxy", "image": "istio"}),
        lambda live: pod(live).update(initContainers=[{"name": "istio-init"}]),
        lambda live: container(live)["env"].insert(0, {"name": "INJECTED", "value": "1"}),
        lambda live: container(live)["volumeMounts"].append({"name": "certs", "mountPath": "/certs"}),
        lambda live: pod(live)["volumes"].append({"name": "certs", "emptyDir": {}}),
        lambda live: container(live)["ports"].append({"containerPort": 15090, "protocol": "TCP"}),
        lambda live: container(live)["resources"]["limits"].update({"ephemeral-storage": "1Gi"}),
        lambda live: live["metadata"]["ownerReferences"].append({"uid": "another", "kind": "Other"}),
        lambda live: pod(live)["imagePullSecrets"].append({"name": "three"}),
        lambda live: pod(live)["topologySpreadConstraints"].append(
            {"maxSkew": 1, "topologyKey": "host", "whenUnsatisfiable": "DoNotSchedule"}
        ),
    ],
)
def test_what_the_api_server_and_others_add_is_no_difference(edit: Edit) -> None:
    assert not found_after(edit, DEPLOYMENT)


@pytest.mark.parametrize(
    "edit",
    [
        lambda live: live["spec"].update(clusterIP="10.0.0.1", clusterIPs=["10.0.0.1"], sessionAffinity="None"),
        lambda live: live["spec"]["ports"].append({"name": "x", "port": 9, "protocol": "TCP", "targetPort": 9}),
        lambda live: live["spec"]["ports"][0].update(nodePort=30000),
    ],
)
def test_what_the_api_server_and_others_add_to_the_service_is_no_difference(edit: Edit) -> None:
    assert not found_after(edit, SERVICE)


@pytest.mark.parametrize(
    ("edit", "sentence"),
    [
        (lambda live: live["spec"].update(replicas=5), "spec.replicas is 5, not 1"),
        (lambda live: live["spec"].pop("replicas"), "spec.replicas is None, not 1"),
        (
            lambda live: container(live).update(image="evil:1"),
            "spec.template.spec.containers[0].image is 'evil:1', not 'example.com/llama:cuda'",
        ),
        (
            lambda live: container(live)["args"].append("--verbose"),
            "spec.template.spec.containers[0].args has 22 items, not 21",
        ),
        (
            lambda live: container(live)["args"].__setitem__(3, "other"),
            "spec.template.spec.containers[0].args[3] is another one",
        ),
        (lambda live: container(live)["env"].pop(1), "spec.template.spec.containers[0].env[1] is missing"),
        (
            lambda live: container(live)["env"][1].update(value="2"),
            "spec.template.spec.containers[0].env[1].value is another one",
        ),
        (
            lambda live: container(live)["volumeMounts"].pop(0),
            "spec.template.spec.containers[0].volumeMounts[0] is missing",
        ),
        (
            lambda live: container(live)["volumeMounts"][0].pop("readOnly"),
            "spec.template.spec.containers[0].volumeMounts[0].readOnly is None, not True",
        ),
        (
            lambda live: container(live)["resources"]["limits"].update(memory="2Gi"),
            "spec.template.spec.containers[0].resources.limits.memory is '2Gi', not '1Gi'",
        ),
        (
            lambda live: container(live)["resources"]["limits"].update({"nvidia.com/gpu": "2"}),
            "spec.template.spec.containers[0].resources.limits.nvidia.com/gpu is '2', not '1'",
        ),
        (
            lambda live: container(live).pop("resources"),
            "spec.template.spec.containers[0].resources is None, not a map",
        ),
        (
            lambda live: container(live)["securityContext"].update(readOnlyRootFilesystem=False),
            "spec.template.spec.containers[0].securityContext.readOnlyRootFilesystem is False, not True",
        ),
        (
            lambda live: container(live)["securityContext"]["capabilities"].update(drop=[]),
            "spec.template.spec.containers[0].securityContext.capabilities.drop has 0 items, not 1",
        ),
        (
            lambda live: pod(live).update(automountServiceAccountToken=True),
            "spec.template.spec.automountServiceAccountToken is True, not False",
        ),
        (
            lambda live: pod(live)["tolerations"][1].update(key="c"),
            "spec.template.spec.tolerations[1].key is 'c', not 'b'",
        ),
        (
            lambda live: pod(live)["tolerations"].append({"key": "c"}),
            "spec.template.spec.tolerations has 3 items, not 2",
        ),
        (lambda live: pod(live).pop("nodeSelector"), "spec.template.spec.nodeSelector is None, not a map"),
        (
            lambda live: pod(live)["volumes"][0].update(persistentVolumeClaim=None),
            "spec.template.spec.volumes[0].persistentVolumeClaim is None, not a map",
        ),
        (
            lambda live: live["spec"]["strategy"]["rollingUpdate"].update(maxSurge="25%"),
            "spec.strategy.rollingUpdate.maxSurge is '25%', not 0",
        ),
        (
            lambda live: live["metadata"]["labels"].pop("app.kubernetes.io/managed-by"),
            "metadata.labels.app.kubernetes.io/managed-by is None, not 'llamamodel-operator'",
        ),
        (lambda live: live["metadata"].update(ownerReferences=None), "metadata.ownerReferences is None, not a list"),
        (
            lambda live: live["metadata"]["ownerReferences"][0].update(controller=False),
            "metadata.ownerReferences[0].controller is False, not True",
        ),
    ],
)
def test_each_change_by_hand_is_told_with_its_field_and_both_values(edit: Edit, sentence: str) -> None:
    assert found_after(edit, DEPLOYMENT) == [sentence]


@pytest.mark.parametrize(
    ("edit", "sentence"),
    [
        (lambda live: live["spec"].update(type="NodePort"), "spec.type is 'NodePort', not 'ClusterIP'"),
        (
            lambda live: live["spec"]["selector"].update({"llamamodel.dev/model": "other"}),
            "spec.selector.llamamodel.dev/model is 'other', not 'gemma'",
        ),
        (lambda live: live["spec"]["ports"][0].update(port=80), "spec.ports[0] is missing"),
        (lambda live: live["spec"]["ports"][0].update(targetPort=8080), "spec.ports[0].targetPort is 8080, not 'http'"),
    ],
)
def test_each_change_of_the_service_by_hand_is_told(edit: Edit, sentence: str) -> None:
    assert found_after(edit, SERVICE) == [sentence]


@pytest.mark.parametrize(
    ("desired", "edit"),
    [
        (SERVICE, lambda live: live["spec"]["selector"].update(version="2")),
        (DEPLOYMENT, lambda live: pod(live)["nodeSelector"].update(disk="ssd")),
    ],
)
def test_a_label_added_to_a_selector_is_a_difference(desired: dict[str, Any], edit: Edit) -> None:
    assert found_after(edit, desired)


def test_an_empty_directory_that_became_a_directory_of_the_node_is_a_difference() -> None:
    def edit(live: dict[str, Any]) -> None:
        pod(live)["volumes"][1] = {"name": "home", "hostPath": {"path": "/"}}

    assert found_after(edit, DEPLOYMENT)


def test_a_list_of_which_order_matters_may_not_come_in_another_order() -> None:
    assert found_after(lambda live: pod(live)["tolerations"].reverse(), DEPLOYMENT)
    assert found_after(lambda live: container(live)["args"].reverse(), DEPLOYMENT)


def test_several_changes_are_all_told() -> None:
    def edit(live: dict[str, Any]) -> None:
        live["spec"]["replicas"] = 0
        container(live)["image"] = "x"

    assert len(found_after(edit, DEPLOYMENT)) == 2


@pytest.mark.parametrize("list_name", ["containers", "volumes", "imagePullSecrets"])
def test_lists_with_keys_may_come_in_another_order(list_name: str) -> None:
    def edit(live: dict[str, Any]) -> None:
        pod(live)["containers"].append({"name": "sidecar"})
        pod(live)[list_name].reverse()

    assert not found_after(edit, DEPLOYMENT)


def test_environment_and_mounts_may_come_in_another_order() -> None:
    def edit(live: dict[str, Any]) -> None:
        container(live)["env"].reverse()
        container(live)["volumeMounts"].reverse()

    assert not found_after(edit, DEPLOYMENT)


@pytest.mark.parametrize(
    ("applied", "stored"), [("1500m", "1.5"), ("1Gi", "1024Mi"), ("2", 2), ("1000m", "1"), ("2k", 2000)]
)
def test_a_quantity_that_the_api_server_spells_in_its_own_way_is_no_difference(applied: str, stored: object) -> None:
    desired = {"resources": {"limits": {"cpu": applied}, "requests": {"nvidia.com/gpu": applied}}}
    live = {"resources": {"limits": {"cpu": stored}, "requests": {"nvidia.com/gpu": stored}}}
    assert not list(differences(desired, live))


def test_only_quantities_are_compared_by_amount() -> None:
    assert list(differences({"env": [{"name": "A", "value": "1000m"}]}, {"env": [{"name": "A", "value": "1"}]}))
    assert list(differences({"args": ["1.0"]}, {"args": ["1"]}))


def test_a_divisor_is_a_quantity() -> None:
    def env(divisor: object) -> object:
        return {"env": [{"name": "A", "valueFrom": {"resourceFieldRef": {"resource": "x", "divisor": divisor}}}]}

    assert not list(differences(env("1000m"), env("1")))
    assert list(differences(env("1"), env("2")))


@pytest.mark.parametrize("empty", [None, "", 0, False, [], {}])
def test_an_empty_value_that_the_api_server_leaves_out_is_no_difference(empty: object) -> None:
    assert not list(differences({"field": empty}, {}))


@pytest.mark.parametrize(("desired", "live"), [(True, 1), (1, True), (0, False), (False, 0), ("1", 1), ("", 0)])
def test_values_of_another_type_are_a_difference(desired: object, live: object) -> None:
    assert list(differences({"field": desired}, {"field": live}))


@pytest.mark.parametrize("live", ["text", 7, ["a"], {"a": 1}])
def test_a_field_of_another_shape_is_a_difference_and_no_crash(live: object) -> None:
    for desired in ({"b": 1}, ["b"], "b", 8):
        assert list(differences({"field": desired}, {"field": live}))


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(alphabet="ab", max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(alphabet="xyz", max_size=2), inner, max_size=3),
    max_leaves=8,
)


@given(_JSON)
def test_every_value_equals_itself(value: object) -> None:
    assert not list(differences({"field": value}, {"field": copy.deepcopy(value)}))


@given(st.dictionaries(st.text(alphabet="xyz", max_size=2), _JSON, max_size=4), st.text(alphabet="uvw", min_size=1))
def test_a_foreign_field_is_never_a_difference(value: dict[str, Any], foreign: str) -> None:
    assert not list(differences(value, {**value, foreign: "theirs"}))
