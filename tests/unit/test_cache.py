"""The cache: the newest version wins whatever order they come in, and what decisions read is kept."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamamodel_operator.api.labels import CONTAINER
from llamamodel_operator.core.objects.names import child_name
from llamamodel_operator.core.observed import Pod
from llamamodel_operator.shell.client import DEPLOYMENTS, MODELS, PERSISTENT_VOLUME_CLAIMS, PODS, SERVICES
from llamamodel_operator.shell.store import CACHED, Key, Store, claim_group

from .builders import PodBuilder, a_claim, a_deployment, a_model, a_pod, at

GEMMA = Key("demo", "gemma")
POD = Key("demo", "gemma-0")


def test_what_was_put_is_got_back() -> None:
    store = Store()
    assert store.put(MODELS, a_model().raw())
    assert store.get(MODELS, GEMMA) == a_model().raw()
    assert store.keys(MODELS) == (GEMMA,)
    assert store.version(MODELS, GEMMA) == 1


def test_what_nobody_told_of_is_unknown() -> None:
    store = Store()
    assert store.get(MODELS, GEMMA) is None
    assert store.version(MODELS, GEMMA) == 0
    assert store.select(PODS, GEMMA) == []
    store.discard(MODELS, GEMMA)


@given(st.permutations([1, 2, 3, 10, 11]))
def test_the_newest_version_wins_whatever_order_they_come_in(versions: list[int]) -> None:
    store = Store()
    for version in versions:
        store.put(MODELS, a_model().at_version(version).with_replicas(version).raw())
    stored = store.get(MODELS, GEMMA)
    assert stored is not None
    assert stored["spec"]["replicas"] == 11


def test_an_older_or_equal_version_is_refused() -> None:
    store = Store()
    store.put(MODELS, a_model().at_version(10).raw())
    assert not store.put(MODELS, a_model().at_version(9).raw())
    assert not store.put(MODELS, a_model().at_version(10).raw())
    assert store.put(MODELS, a_model().at_version(11).raw())


def test_a_deleted_object_does_not_come_back_with_a_late_event() -> None:
    store = Store()
    store.put(MODELS, a_model().at_version(5).raw())
    store.remove(MODELS, a_model().at_version(9).raw())
    assert not store.put(MODELS, a_model().at_version(7).raw())
    assert store.get(MODELS, GEMMA) is None


def test_a_new_object_of_the_same_name_is_another_one() -> None:
    store = Store()
    store.put(MODELS, a_model().with_uid("old").at_version(5).raw())
    store.remove(MODELS, a_model().with_uid("old").at_version(9).raw())
    assert store.put(MODELS, a_model().with_uid("new").at_version(10).raw())
    assert store.get(MODELS, GEMMA) is not None


def test_the_late_deletion_of_an_older_object_leaves_the_new_one_alone() -> None:
    store = Store()
    store.put(MODELS, a_model().with_uid("new").at_version(10).raw())
    store.remove(MODELS, a_model().with_uid("old").at_version(9).raw())
    stored = store.get(MODELS, GEMMA)
    assert stored is not None
    assert stored["metadata"]["uid"] == "new"


def test_an_object_that_only_left_the_selection_of_the_watch_can_come_back() -> None:
    store = Store()
    store.put(DEPLOYMENTS, a_deployment().raw())
    left = a_deployment().raw()
    left["metadata"]["resourceVersion"] = "7"
    store.remove(DEPLOYMENTS, left)
    back = a_deployment().raw()
    back["metadata"]["resourceVersion"] = "8"
    assert store.put(DEPLOYMENTS, back)


_EVENTS = [("put", "u1", 3), ("put", "u1", 5), ("remove", "u1", 6), ("put", "u2", 8), ("put", "u2", 9)]


@pytest.mark.parametrize("order", list(itertools.permutations(range(len(_EVENTS))))[::7])
def test_one_life_after_another_ends_in_the_last_whatever_order_is_told(order: tuple[int, ...]) -> None:
    store = Store()
    for index in order:
        verb, uid, version = _EVENTS[index]
        raw = a_model().with_uid(uid).at_version(version).raw()
        if verb == "put":
            store.put(MODELS, raw)
        else:
            store.remove(MODELS, raw)
    assert store.version(MODELS, GEMMA) == 9


def test_tombstones_are_bounded() -> None:
    store = Store()
    for number in range(5000):
        store.remove(PODS, a_pod().named(f"p{number}").at_version(number).raw())
    assert len(store._tombstones) <= 4096
    assert not store.put(PODS, a_pod().named("p4999").at_version(1).raw())


def test_objects_in_another_namespace_are_others() -> None:
    store = Store()
    store.put(MODELS, a_model().raw())
    store.put(MODELS, a_model().in_namespace("other").raw())
    assert set(store.keys(MODELS)) == {GEMMA, Key("other", "gemma")}
    store.remove(MODELS, a_model().in_namespace("other").at_version(2).with_uid("uid-of-gemma").raw())
    assert store.keys(MODELS) == (GEMMA,)


# Groups


def test_pods_are_found_by_the_child_name_of_their_model() -> None:
    store = Store()
    for builder in (a_pod().named("b").of("qwen2.5"), a_pod().named("a").of("qwen2.5"), a_pod().named("c")):
        store.put(PODS, builder.raw())
    group = Key("demo", child_name("qwen2.5"))
    assert [raw["metadata"]["name"] for raw in store.select(PODS, group)] == ["a", "b"]
    assert store.select(PODS, Key("other", group.name)) == []


def test_models_are_found_by_their_claim_and_by_their_child_name() -> None:
    store = Store()
    store.put(MODELS, a_model().named("qwen2.5").reading("disk", "a.gguf").raw())
    store.put(MODELS, a_model().named("other").reading("disk", "b.gguf").raw())
    store.put(MODELS, a_model().named("third").raw())
    assert store.keys_in(MODELS, claim_group(Key("demo", "disk"))) == (Key("demo", "other"), Key("demo", "qwen2.5"))
    assert store.keys_in(MODELS, Key("demo", child_name("qwen2.5"))) == (Key("demo", "qwen2.5"),)
    assert store.keys_in(MODELS, claim_group(Key("other", "disk"))) == ()


def test_a_model_that_reads_from_another_claim_leaves_the_group_of_the_first() -> None:
    store = Store()
    store.put(MODELS, a_model().reading("old", "a.gguf").raw())
    store.put(MODELS, a_model().reading("new", "a.gguf").at_version(2).raw())
    assert store.keys_in(MODELS, claim_group(Key("demo", "old"))) == ()
    assert store.keys_in(MODELS, claim_group(Key("demo", "new"))) == (GEMMA,)


def test_a_removed_object_leaves_its_groups_and_nothing_is_left_behind() -> None:
    store = Store()
    store.put(PODS, a_pod().raw())
    store.put(MODELS, a_model().raw())
    store.remove(PODS, a_pod().raw())
    store.discard(MODELS, GEMMA)
    assert store.select(PODS, GEMMA) == []
    assert not store._groups


def test_an_object_without_our_label_is_in_no_group() -> None:
    store = Store()
    raw = a_pod().raw()
    del raw["metadata"]["labels"]
    assert store.put(PODS, raw)
    assert store.select(PODS, GEMMA) == []


def test_a_model_without_a_spec_is_kept_so_that_its_status_can_say_so() -> None:
    store = Store()
    assert store.put(MODELS, {"metadata": a_model().raw()["metadata"], "spec": None})
    assert store.keys(MODELS) == (GEMMA,)


# Trimming


@pytest.mark.parametrize(
    "pod",
    [
        a_pod().unschedulable(),
        a_pod().waiting("ErrImagePull", "no"),
        a_pod().loading_since(at("12:00:00")).that_ended().restarted(2),
        a_pod().ready().terminating(),
    ],
)
def test_a_pod_from_the_cache_is_the_same_to_every_decision(pod: PodBuilder) -> None:
    store = Store()
    store.put(PODS, pod.raw())
    stored = store.get(PODS, POD)
    assert stored is not None
    assert Pod.parse(stored, container=CONTAINER) == pod.build()
    assert stored["status"]["phase"] == "Pending" or stored["status"]["phase"] == "Running"


def test_what_no_decision_reads_is_not_kept() -> None:
    store = Store()
    raw: dict[str, Any] = a_pod().ready().raw()
    raw["spec"]["containers"] = [{"name": "big", "args": ["x" * 1000]}]
    raw["metadata"]["managedFields"] = [{"manager": "kubelet"}]
    raw["status"]["podIPs"] = [{"ip": "10.0.0.1"}]
    store.put(PODS, raw)
    stored = store.get(PODS, POD)
    assert stored is not None
    assert stored["spec"] == {"nodeName": "node-1"}
    assert "managedFields" not in stored["metadata"]
    assert "podIPs" not in stored["status"]


def test_a_deployment_keeps_its_spec_its_status_and_what_marks_it_as_ours() -> None:
    store = Store()
    raw = a_deployment().rolled_out().raw()
    store.put(DEPLOYMENTS, {**raw, "metadata": {**raw["metadata"], "managedFields": [1]}})
    assert store.get(DEPLOYMENTS, GEMMA) == raw


def test_an_item_of_a_list_gets_the_kind_that_the_list_leaves_out() -> None:
    store = Store()
    raw = a_deployment().raw()
    store.put(DEPLOYMENTS, {key: value for key, value in raw.items() if key not in ("apiVersion", "kind")})
    assert store.get(DEPLOYMENTS, GEMMA) == raw


def test_a_service_keeps_its_spec() -> None:
    store = Store()
    service = a_model().service()
    store.put(SERVICES, service)
    assert store.get(SERVICES, GEMMA) == service


def test_a_claim_keeps_its_phase_and_that_it_is_being_deleted() -> None:
    store = Store()
    store.put(
        PERSISTENT_VOLUME_CLAIMS, {**a_claim().terminating().raw(), "spec": {"accessModes": ["ReadWriteMany"], "x": 1}}
    )
    stored = store.get(PERSISTENT_VOLUME_CLAIMS, Key("demo", "models"))
    assert stored is not None
    assert stored["status"] == {"phase": "Bound"}
    assert "deletionTimestamp" in stored["metadata"]
    assert stored["spec"] == {"accessModes": ["ReadWriteMany"]}


def test_a_claim_without_a_status_has_no_phase_yet() -> None:
    store = Store()
    raw = a_claim().raw()
    del raw["status"]
    store.put(PERSISTENT_VOLUME_CLAIMS, raw)
    stored = store.get(PERSISTENT_VOLUME_CLAIMS, Key("demo", "models"))
    assert stored is not None
    assert stored["status"] == {"phase": None}


def test_what_is_got_can_be_changed_without_changing_the_cache() -> None:
    store = Store()
    store.put(MODELS, a_model().raw())
    first = store.get(MODELS, GEMMA)
    assert first is not None
    first["spec"]["replicas"] = 99
    assert store.get(MODELS, GEMMA) == a_model().raw()


def test_every_kind_of_a_plan_is_cached() -> None:
    kinds = {resource.kind for resource in CACHED}
    assert {child["kind"] for child in a_model().plan().objects} <= kinds
