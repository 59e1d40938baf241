"""Kopf as an event source: on.event and login, no handler that would write to the objects, settings as decided."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, cast

import kopf
import pytest

from llamamodel_operator.api.labels import MODEL_LABEL
from llamamodel_operator.handlers import make_registry, make_settings
from llamamodel_operator.shell.client import DEPLOYMENTS, MODELS, PERSISTENT_VOLUME_CLAIMS, PODS, SERVICES, Resource
from llamamodel_operator.shell.metrics import Metrics
from llamamodel_operator.shell.store import CACHED, Key, Store

from .builders import a_claim, a_deployment, a_model, a_pod
from .fake_cluster import FakeCluster

GEMMA = Key("demo", "gemma")


class World:
    def __init__(self, cluster: FakeCluster) -> None:
        self.store = Store()
        self.metrics = Metrics()
        self.queued: list[Key] = []
        self.registry = make_registry(
            client=cluster, store=self.store, metrics=self.metrics, enqueue=self.queued.append
        )

    async def hears(self, resource: Resource, kind: str | None, raw: dict[str, Any]) -> list[Key]:
        """The watch told of an object; which models are queued for it?"""
        self.queued.clear()
        handlers = list(self.registry._watching.get_all_handlers())
        assert len(handlers) == len(CACHED)
        handler = handlers[CACHED.index(resource)]
        seen = cast(Callable[..., Awaitable[object]], handler.fn)
        assert await seen(event={"type": kind, "object": raw}) is None
        return self.queued


@pytest.fixture
def world(cluster: FakeCluster) -> World:
    return World(cluster)


def test_there_are_event_handlers_and_a_login_and_nothing_that_writes(world: World) -> None:
    registry = world.registry
    assert len(registry._watching.get_all_handlers()) == len(CACHED)
    assert len(registry._activities.get_all_handlers()) == 1
    for handlers in (registry._changing, registry._spawning, registry._indexing, registry._webhooks):
        assert handlers.get_all_handlers() == []


def test_each_cached_kind_is_watched_by_its_group_version_and_plural(world: World) -> None:
    watched = [handler.selector for handler in world.registry._watching.get_all_handlers()]
    for resource, selector in zip(CACHED, watched, strict=True):
        assert selector is not None
        assert (selector.group, selector.version, selector.any_name) == (
            resource.group,
            resource.version,
            resource.plural,
        )


@pytest.mark.parametrize("kind", [None, "ADDED", "MODIFIED"])
async def test_a_model_is_noted_and_queued(world: World, kind: str | None) -> None:
    assert await world.hears(MODELS, kind, a_model().raw()) == [GEMMA]
    assert world.store.get(MODELS, GEMMA) == a_model().raw()


async def test_a_name_that_is_taken_or_given_back_concerns_those_who_share_it(world: World) -> None:
    other = Key("other", "qwen")
    called = {**a_model().with_spec(servedModelName="chat").raw()}
    await world.hears(MODELS, "ADDED", called)
    qwen = a_model().named("qwen").with_spec(servedModelName="chat").raw()
    qwen["metadata"] = {**qwen["metadata"], "namespace": "other", "uid": "7"}
    assert await world.hears(MODELS, "ADDED", qwen) == [other, GEMMA]
    qwen["metadata"]["resourceVersion"] = "2"
    qwen["spec"]["servedModelName"] = "talk"
    assert await world.hears(MODELS, "MODIFIED", qwen) == [other, GEMMA]
    qwen["metadata"]["resourceVersion"] = "3"
    assert await world.hears(MODELS, "MODIFIED", qwen) == [other]
    called["metadata"]["resourceVersion"] = "4"
    called["spec"]["servedModelName"] = "talk"
    assert await world.hears(MODELS, "MODIFIED", called) == [GEMMA, other]
    called["metadata"]["resourceVersion"] = "5"
    assert await world.hears(MODELS, "DELETED", called) == [GEMMA, other]


async def test_a_deleted_model_is_forgotten(world: World) -> None:
    await world.hears(MODELS, "ADDED", a_model().raw())
    assert await world.hears(MODELS, "DELETED", a_model().at_version(2).raw()) == [GEMMA]
    assert world.store.get(MODELS, GEMMA) is None


async def test_the_echo_of_our_own_write_queues_nothing(world: World) -> None:
    world.store.put(MODELS, a_model().at_version(5).raw())
    assert await world.hears(MODELS, "MODIFIED", a_model().at_version(5).raw()) == []
    assert await world.hears(MODELS, "MODIFIED", a_model().at_version(4).raw()) == []
    assert await world.hears(MODELS, "MODIFIED", a_model().at_version(6).raw()) == [GEMMA]


@pytest.mark.parametrize(
    ("resource", "raw"),
    [
        (PODS, a_pod().raw()),
        (DEPLOYMENTS, a_deployment().raw()),
        (SERVICES, a_model().service()),
        (PERSISTENT_VOLUME_CLAIMS, a_claim().raw()),
    ],
)
async def test_a_child_a_pod_or_a_claim_queues_its_models(
    world: World, resource: Resource, raw: dict[str, Any]
) -> None:
    await world.hears(MODELS, "ADDED", a_model().raw())
    await world.hears(MODELS, "ADDED", a_model().named("b").reading("other", "x.gguf").raw())
    assert await world.hears(resource, "ADDED", raw) == [GEMMA]
    assert await world.hears(resource, "DELETED", raw) == [GEMMA]


async def test_a_claim_queues_every_model_that_reads_from_it(world: World) -> None:
    await world.hears(MODELS, "ADDED", a_model().raw())
    await world.hears(MODELS, "ADDED", a_model().named("b").raw())
    assert await world.hears(PERSISTENT_VOLUME_CLAIMS, "ADDED", a_claim().raw()) == [Key("demo", "b"), GEMMA]


async def test_an_object_of_nobody_queues_nothing(world: World) -> None:
    assert await world.hears(PODS, "ADDED", a_pod().of("unknown").raw()) == []
    assert await world.hears(PERSISTENT_VOLUME_CLAIMS, "ADDED", a_claim().named("unused").raw()) == []


@pytest.mark.parametrize("label", [None, "another"])
async def test_a_child_whose_label_was_changed_by_hand_queues_the_model_that_it_was_of(
    world: World, label: str | None
) -> None:
    await world.hears(MODELS, "ADDED", a_model().raw())
    await world.hears(DEPLOYMENTS, "ADDED", a_deployment().raw())
    edited = a_deployment().raw()
    edited["metadata"] = {**edited["metadata"], "resourceVersion": "9", "labels": {**edited["metadata"]["labels"]}}
    del edited["metadata"]["labels"][MODEL_LABEL]
    if label:
        edited["metadata"]["labels"][MODEL_LABEL] = label
    assert await world.hears(DEPLOYMENTS, "MODIFIED", edited) == [GEMMA]


async def test_every_event_is_counted_even_one_that_tells_nothing_new(world: World) -> None:
    for _ in range(3):
        await world.hears(MODELS, "MODIFIED", a_model().raw())
    value = world.metrics.registry.get_sample_value(
        "llamamodel_operator_watch_events_total", {"resource": "llamamodels"}
    )
    assert value == 3


def test_kopf_writes_no_events_and_asks_for_no_namespaces_and_no_peering() -> None:
    settings = make_settings()
    assert settings.posting.enabled is False
    assert settings.scanning.disabled is True
    assert settings.peering.standalone is True


def test_kopf_gives_up_before_the_kubelet_does() -> None:
    settings = make_settings()
    assert settings.process.ultimate_exiting_timeout is not None
    assert settings.process.ultimate_exiting_timeout < 30


def test_watches_end_and_requests_time_out() -> None:
    settings = make_settings()
    assert settings.watching.server_timeout == 280
    assert settings.networking.request_timeout == 30


def test_of_children_and_pods_only_ours_are_watched_of_models_and_claims_all() -> None:
    found = make_settings().watching.label_selectors
    expected = kopf.OperatorSettings().watching.label_selectors
    ours = ("deployments.apps", "jobs.batch", "services", "pods", "poddisruptionbudgets.policy")
    for resource in ours:
        expected[resource] = "app.kubernetes.io/managed-by=llamamodel-operator"
    expected["configmaps"] = "llamamodel.dev/watch"
    assert found == expected


def test_settings_of_one_process_are_not_those_of_another() -> None:
    assert make_settings().watching.label_selectors is not make_settings().watching.label_selectors
    assert isinstance(make_settings(), kopf.OperatorSettings)
