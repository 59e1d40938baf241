"""The comparison of the cache with the API server: finds what no watch told of, and says which watch is deaf."""

from __future__ import annotations

import asyncio

import pytest

from llamamodel_operator.api.labels import MANAGED_BY_LABEL, MANAGER, WATCH_LABEL
from llamamodel_operator.shell.client import (
    CONFIG_MAPS,
    DEPLOYMENTS,
    JOBS,
    MODELS,
    PERSISTENT_VOLUME_CLAIMS,
    POD_DISRUPTION_BUDGETS,
    PODS,
    SERVICES,
    ApiError,
)
from llamamodel_operator.shell.metrics import Metrics
from llamamodel_operator.shell.resync import Resync, models_of
from llamamodel_operator.shell.store import CACHED, Key, Store

from .builders import a_claim, a_deployment, a_model, a_pod
from .fake_cluster import FakeCluster

GEMMA = Key("demo", "gemma")


class World:
    def __init__(self, cluster: FakeCluster, *namespaces: str) -> None:
        self.cluster = cluster
        self.store = Store()
        self.metrics = Metrics()
        self.queued: list[Key] = []
        self.resync = Resync(
            client=cluster,
            store=self.store,
            metrics=self.metrics,
            namespaces=namespaces,
            interval_sec=300,
            enqueue=self.queued.append,
        )

    def missed(self, plural: str) -> float:
        return (
            self.metrics.registry.get_sample_value(
                "llamamodel_operator_watch_missed_events_total", {"resource": plural}
            )
            or 0.0
        )


@pytest.fixture
def world(cluster: FakeCluster) -> World:
    return World(cluster)


async def test_at_the_start_everything_is_read_and_every_model_gets_a_pass(world: World) -> None:
    world.cluster.has(MODELS, a_model().raw())
    world.cluster.has(MODELS, a_model().named("b").raw())
    world.cluster.has(DEPLOYMENTS, a_deployment().raw())
    world.cluster.has(SERVICES, a_model().service())
    world.cluster.has(PODS, a_pod().raw())
    job = {"metadata": {"name": "gemma-inspect-1", "namespace": "demo", "labels": {MANAGED_BY_LABEL: MANAGER}}}
    world.cluster.has(JOBS, job)
    world.cluster.has(CONFIG_MAPS, {"metadata": {"name": "t", "namespace": "demo", "labels": {WATCH_LABEL: ""}}})
    world.cluster.has(PERSISTENT_VOLUME_CLAIMS, a_claim().raw())
    ours = {"name": "gemma", "namespace": "demo", "labels": {MANAGED_BY_LABEL: MANAGER}}
    world.cluster.has(POD_DISRUPTION_BUDGETS, {"metadata": ours})
    await world.resync.fill()
    assert all(world.store.keys(resource) for resource in CACHED)
    assert sorted(world.queued) == [Key("demo", "b"), GEMMA]
    assert world.resync.last_success == 0


async def test_only_our_own_children_are_read(world: World) -> None:
    foreign = a_deployment().raw()
    foreign["metadata"]["labels"] = {}
    world.cluster.has(DEPLOYMENTS, foreign)
    await world.resync.fill()
    assert world.store.keys(DEPLOYMENTS) == ()


async def test_only_the_namespaces_that_are_watched_are_read(cluster: FakeCluster) -> None:
    world = World(cluster, "demo", "other")
    for namespace in ("demo", "other", "third"):
        cluster.has(MODELS, a_model().in_namespace(namespace).raw())
    await world.resync.fill()
    assert sorted(world.queued) == [GEMMA, Key("other", "gemma")]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ApiError(status=404, reason="NotFound", message="?"), "install the chart's CRD"),
        (ApiError(status=403, reason="Forbidden", message="may not list"), "may not list"),
        (OSError("refused"), "refused"),
        (TimeoutError(), "TimeoutError"),
    ],
)
async def test_the_first_reading_waits_until_the_cluster_can_be_read_and_says_why(
    world: World, error: Exception, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_: str) -> None:
        raise error

    world.cluster.before_read = fail
    world.cluster.has(MODELS, a_model().raw())
    filling = asyncio.create_task(world.resync.fill())
    await asyncio.sleep(60)
    assert not filling.done()
    assert world.queued == []
    assert said in caplog.text
    world.cluster.before_read = lambda _: None
    await filling
    assert world.queued == [GEMMA]


async def test_what_was_deleted_between_two_tries_of_the_first_reading_is_not_kept(world: World) -> None:
    world.cluster.has(MODELS, a_model().raw())

    def pods_fail(kind: str) -> None:
        if kind == "Pod":
            raise OSError("refused")

    world.cluster.before_read = pods_fail
    filling = asyncio.create_task(world.resync.fill())
    await asyncio.sleep(1)
    world.cluster.loses(MODELS, GEMMA)
    world.cluster.before_read = lambda _: None
    await filling
    assert world.queued == []


async def test_a_comparison_that_finds_nothing_is_done_at_once(world: World) -> None:
    world.cluster.has(MODELS, a_model().raw())
    await world.resync.fill()
    world.queued.clear()
    await world.resync.compare()
    assert asyncio.get_running_loop().time() == 0
    assert world.resync.deaf == frozenset()
    assert world.queued == [GEMMA]


async def test_a_watch_that_never_tells_of_a_change_is_deaf(world: World) -> None:
    await world.resync.fill()
    world.cluster.has(MODELS, a_model().raw())
    world.cluster.has(PODS, a_pod().raw())
    world.cluster.has(PODS, a_pod().named("b").raw())
    await world.resync.compare()
    assert world.resync.deaf == {"llamamodels", "pods"}
    assert (world.missed("llamamodels"), world.missed("pods")) == (1, 2)
    assert world.store.get(MODELS, GEMMA) is not None
    assert world.queued == [GEMMA]


async def test_a_change_of_a_known_object_that_nobody_told_of_is_noticed(world: World) -> None:
    world.cluster.has(MODELS, a_model().raw())
    await world.resync.fill()
    world.cluster.has(MODELS, a_model().with_replicas(3).raw())
    await world.resync.compare()
    assert world.resync.deaf == {"llamamodels"}
    stored = world.store.get(MODELS, GEMMA)
    assert stored is not None
    assert stored["spec"]["replicas"] == 3


async def test_an_event_that_is_a_little_late_is_not_deafness(world: World) -> None:
    await world.resync.fill()
    raw = world.cluster.has(MODELS, a_model().raw())
    asyncio.get_running_loop().call_later(5, world.store.put, MODELS, raw)
    await world.resync.compare()
    assert world.resync.deaf == frozenset()
    assert world.missed("llamamodels") == 0


async def test_a_watch_that_hears_again_is_not_deaf_any_more(world: World) -> None:
    await world.resync.fill()
    world.cluster.has(MODELS, a_model().raw())
    await world.resync.compare()
    await world.resync.compare()
    assert world.resync.deaf == frozenset()


async def test_what_is_gone_is_forgotten(world: World) -> None:
    world.cluster.has(PODS, a_pod().raw())
    world.cluster.has(MODELS, a_model().raw())
    await world.resync.fill()
    world.cluster.loses(PODS, Key("demo", "gemma-0"))
    world.cluster.loses(MODELS, GEMMA)
    world.queued.clear()
    await world.resync.compare()
    assert world.store.keys(PODS) == world.store.keys(MODELS) == ()
    assert world.queued == []


async def test_a_deletion_that_nobody_told_of_is_healed_and_is_not_held_against_the_watch(world: World) -> None:
    # Kopf lists anew when the API server has forgotten where a watch stopped, and that tells of no deletions.
    world.cluster.has(PODS, a_pod().raw())
    await world.resync.fill()
    world.cluster.loses(PODS, Key("demo", "gemma-0"))
    await world.resync.compare()
    assert world.store.keys(PODS) == ()
    assert world.resync.deaf == frozenset()


async def test_what_is_made_during_the_comparison_is_not_forgotten(world: World) -> None:
    await world.resync.fill()

    def make(kind: str) -> None:
        if kind == "Pod":
            world.store.put(DEPLOYMENTS, world.cluster.has(DEPLOYMENTS, a_deployment().raw()))
            world.cluster.before_read = lambda _: None

    world.cluster.before_read = make
    await world.resync.compare()
    assert world.store.keys(DEPLOYMENTS) == (GEMMA,)


async def test_what_comes_back_during_the_pause_is_not_forgotten(world: World) -> None:
    world.cluster.has(PODS, a_pod().raw())
    await world.resync.fill()
    world.cluster.loses(PODS, Key("demo", "gemma-0"))
    back = a_pod().at_version(5000).raw()
    asyncio.get_running_loop().call_later(5, world.store.put, PODS, back)
    await world.resync.compare()
    assert world.store.keys(PODS) == (Key("demo", "gemma-0"),)


async def test_comparisons_go_on_for_ever_and_survive_an_api_server_that_is_away(world: World) -> None:
    world.cluster.has(MODELS, a_model().raw())
    await world.resync.fill()
    running = asyncio.create_task(world.resync.run())
    await asyncio.sleep(31)
    assert world.resync.last_success == 30, "the first comes soon"
    await asyncio.sleep(300)
    assert world.resync.last_success == 330

    def fail(_: str) -> None:
        raise ApiError(status=500, reason="", message="away")

    world.cluster.before_read = fail
    await asyncio.sleep(600)
    assert world.resync.last_success == 330
    world.cluster.before_read = lambda _: None
    await asyncio.sleep(300)
    assert world.resync.last_success == 1230
    assert world.queued == [GEMMA] * 4
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_a_comparison_writes_nothing(world: World) -> None:
    world.cluster.has(MODELS, a_model().raw())
    await world.resync.compare()
    assert world.cluster.writes == []


def test_an_object_concerns_the_models_that_it_is_part_of() -> None:
    store = Store()
    store.put(MODELS, a_model().raw())
    store.put(MODELS, a_model().named("b").reading("other", "b.gguf").raw())
    assert models_of(store, MODELS, Key("demo", "new"), None) == (Key("demo", "new"),)
    assert models_of(store, PODS, Key("demo", "gemma-0"), "gemma") == (GEMMA,)
    assert models_of(store, PODS, Key("demo", "gemma-0"), None) == ()
    assert models_of(store, PODS, Key("elsewhere", "gemma-0"), "gemma") == ()
    assert models_of(store, PERSISTENT_VOLUME_CLAIMS, Key("demo", "models"), None) == (GEMMA,)
    assert models_of(store, PERSISTENT_VOLUME_CLAIMS, Key("demo", "unused"), None) == ()
