"""A served name that two LlamaModels have: who has it at the gateway, and what the other one is told."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import pytest

from llamamodel_operator.core.gateway.routes import Routes, build_routes, served_model
from llamamodel_operator.shell.client import MODELS
from llamamodel_operator.shell.settings import Settings
from llamamodel_operator.shell.store import Key

from .builders import a_model
from .fake_cluster import FakeCluster
from .world import World

GEMMA, QWEN = Key("demo", "gemma"), Key("demo", "qwen")
THEIRS = Key("team-b", "mistral")
TAKE_NAME = "llamamodel.dev/take-name"


@pytest.fixture
def world(cluster: FakeCluster) -> World:
    return World(cluster, gateway=True)


def created(
    world: World,
    name: str,
    *,
    on: str,
    served: str | None = "chat",
    namespace: str = "demo",
    annotations: Mapping[str, str] | None = None,
) -> None:
    """A user made a LlamaModel, or changed its served name or its annotations, and the watch told of it."""
    key = Key(namespace, name)
    before = world.cluster.shows(MODELS, key) if key in world.cluster.keys(MODELS) else {}
    model = a_model().named(name).in_namespace(namespace).annotated(**annotations or {})
    raw = (model.with_spec(servedModelName=served) if served else model).raw()
    raw["metadata"]["creationTimestamp"] = on
    if "status" in before:
        raw["status"] = before["status"]
    world.store.put(MODELS, world.cluster.has(MODELS, raw))


def deleted(world: World, key: Key) -> None:
    """A user deleted a LlamaModel, and the watch told of it."""
    raw = world.cluster.shows(MODELS, key)
    world.cluster.loses(MODELS, key)
    world.store.remove(MODELS, raw)


async def two_namespaces(world: World) -> None:
    """demo/gemma has the name chat, team-b/mistral wants it."""
    created(world, "gemma", on="2026-01-01T00:00:00Z")
    created(world, "mistral", on="2026-01-02T00:00:00Z", namespace="team-b")
    await passes(world)


async def passes(world: World) -> None:
    """The operator looks at all models."""
    for key in sorted(world.cluster.keys(MODELS)):
        await world.reconciler.reconcile(key)


def findings(world: World, key: Key) -> list[str]:
    """What is said of names."""
    found = world.cluster.shows(MODELS, key)["status"].get("findings") or ()
    return [finding["message"] for finding in found if finding["code"] == "NameTaken"]


def routes(world: World) -> Routes:
    return build_routes(served_model(world.cluster.shows(MODELS, key)) for key in world.cluster.keys(MODELS))


def at_the_gateway(world: World, name: str) -> str | None:
    target = routes(world).find(name)
    return target.model.full_name if target else None


async def test_the_newer_of_two_is_told_who_has_its_name(world: World) -> None:
    created(world, "gemma", on="2026-01-01T00:00:00Z")
    created(world, "qwen", on="2026-01-02T00:00:00Z")
    for key in (QWEN, GEMMA):
        await world.reconciler.reconcile(key)
    assert findings(world, GEMMA) == []
    assert findings(world, QWEN) == [
        "LlamaModel demo/gemma has the name chat at the gateway, where this one answers to demo/qwen alone"
    ]
    assert at_the_gateway(world, "chat") == "demo/gemma"


async def test_who_has_been_serving_keeps_the_name_against_an_elder_that_takes_it_later(world: World) -> None:
    created(world, "gemma", on="2026-01-01T00:00:00Z", served=None)
    created(world, "qwen", on="2026-01-02T00:00:00Z")
    for key in (GEMMA, QWEN):
        await world.reconciler.reconcile(key)
    created(world, "gemma", on="2026-01-01T00:00:00Z")
    for key in (GEMMA, QWEN, GEMMA, QWEN):
        await world.reconciler.reconcile(key)
    assert (len(findings(world, GEMMA)), findings(world, QWEN)) == (1, [])
    assert at_the_gateway(world, "chat") == "demo/qwen"


async def test_a_name_that_is_given_back_is_the_others_and_then_nothing_is_written_any_more(world: World) -> None:
    created(world, "gemma", on="2026-01-01T00:00:00Z")
    created(world, "qwen", on="2026-01-02T00:00:00Z")
    for key in (GEMMA, QWEN):
        await world.reconciler.reconcile(key)
    created(world, "gemma", on="2026-01-01T00:00:00Z", served=None)
    for key in (GEMMA, QWEN):
        await world.reconciler.reconcile(key)
    assert findings(world, QWEN) == []
    assert at_the_gateway(world, "chat") == "demo/qwen"
    world.cluster.forget_writes()
    for key in (GEMMA, QWEN):
        await world.reconciler.reconcile(key)
    assert world.cluster.writes == []


async def test_the_full_name_of_another_is_taken_from_the_start(world: World) -> None:
    created(world, "gemma", on="2026-01-01T00:00:00Z", served="demo/qwen")
    created(world, "qwen", on="2026-01-02T00:00:00Z", served=None)
    await world.reconciler.reconcile(GEMMA)
    (message,) = findings(world, GEMMA)
    assert message.startswith("LlamaModel demo/qwen has the name demo/qwen")


async def test_a_name_of_another_namespace_does_not_pass_on_when_its_model_is_deleted(world: World) -> None:
    await two_namespaces(world)
    assert findings(world, THEIRS) == [
        "a LlamaModel of another namespace has the name chat at the gateway,"
        " where this one answers to team-b/mistral alone"
    ]
    deleted(world, GEMMA)
    assert at_the_gateway(world, "chat") is None, "before the operator has seen it"
    await passes(world)
    assert findings(world, THEIRS) == [
        "a LlamaModel of another namespace had the name chat at the gateway, and it passes to no other namespace"
        " by itself: this one answers to team-b/mistral alone, although nobody has the name now"
    ]
    assert at_the_gateway(world, "chat") is None
    assert routes(world).full_names("chat") == ("team-b/mistral",)
    world.cluster.forget_writes()
    await passes(world)
    assert world.cluster.writes == []


async def test_nothing_that_a_model_is_told_names_one_of_another_namespace(world: World) -> None:
    await two_namespaces(world)
    status = world.cluster.shows(MODELS, THEIRS)["status"]
    assert "demo" not in str(status)
    assert "gemma" not in str(status["findings"])


async def test_who_is_made_anew_has_its_name_again(world: World) -> None:
    await two_namespaces(world)
    deleted(world, GEMMA)
    await passes(world)
    created(world, "gemma", on="2026-01-03T00:00:00Z")
    assert at_the_gateway(world, "chat") == "demo/gemma"
    await passes(world)
    assert (at_the_gateway(world, "chat"), len(findings(world, THEIRS))) == ("demo/gemma", 1)


async def test_a_name_that_is_given_back_does_not_pass_to_another_namespace(world: World) -> None:
    await two_namespaces(world)
    created(world, "gemma", on="2026-01-01T00:00:00Z", served="talk")
    for _ in range(2):
        assert (at_the_gateway(world, "chat"), at_the_gateway(world, "talk")) == (None, "demo/gemma")
        await passes(world)
    created(world, "gemma", on="2026-01-01T00:00:00Z")
    await passes(world)
    assert at_the_gateway(world, "chat") == "demo/gemma"


async def test_an_annotation_takes_a_name_when_nobody_has_it_and_is_not_needed_any_more(world: World) -> None:
    await two_namespaces(world)
    mistral = partial(created, world, "mistral", on="2026-01-02T00:00:00Z", namespace="team-b")
    mistral(annotations={TAKE_NAME: "chat"})
    await passes(world)
    assert (at_the_gateway(world, "chat"), len(findings(world, THEIRS))) == ("demo/gemma", 1)
    mistral()
    deleted(world, GEMMA)
    mistral(annotations={TAKE_NAME: "another"})
    await passes(world)
    assert at_the_gateway(world, "chat") is None
    mistral(annotations={TAKE_NAME: "chat"})
    assert at_the_gateway(world, "chat") == "team-b/mistral", "before the operator has seen it"
    await passes(world)
    assert findings(world, THEIRS) == []
    mistral()
    await passes(world)
    assert at_the_gateway(world, "chat") == "team-b/mistral"


async def test_who_has_taken_a_name_keeps_it_against_the_one_that_had_it(world: World) -> None:
    await two_namespaces(world)
    deleted(world, GEMMA)
    created(world, "mistral", on="2026-01-02T00:00:00Z", namespace="team-b", annotations={TAKE_NAME: "chat"})
    await passes(world)
    created(world, "gemma", on="2026-01-03T00:00:00Z", annotations={TAKE_NAME: "chat"})
    await passes(world)
    assert (at_the_gateway(world, "chat"), len(findings(world, GEMMA))) == ("team-b/mistral", 1)


async def test_another_served_name_is_had_at_once(world: World) -> None:
    await two_namespaces(world)
    created(world, "mistral", on="2026-01-02T00:00:00Z", namespace="team-b", served="talk")
    assert at_the_gateway(world, "talk") == "team-b/mistral"
    await passes(world)
    assert findings(world, THEIRS) == []


async def test_a_model_that_is_made_when_nobody_has_the_name_has_it(world: World) -> None:
    await two_namespaces(world)
    deleted(world, GEMMA)
    await passes(world)
    created(world, "qwen", on="2026-01-03T00:00:00Z", namespace="team-c")
    await passes(world)
    assert (at_the_gateway(world, "chat"), len(findings(world, THEIRS))) == ("team-c/qwen", 1)


async def test_a_name_that_came_into_the_namespace_passes_on_within_it(world: World) -> None:
    await two_namespaces(world)
    deleted(world, GEMMA)
    created(world, "qwen", on="2026-01-03T00:00:00Z", namespace="team-b")
    await passes(world)
    assert findings(world, THEIRS) == [
        "LlamaModel team-b/qwen has the name chat at the gateway, where this one answers to team-b/mistral alone"
    ]
    deleted(world, Key("team-b", "qwen"))
    assert at_the_gateway(world, "chat") == "team-b/mistral"


async def test_a_model_that_is_suspended_keeps_its_name(world: World) -> None:
    await two_namespaces(world)
    raw = world.cluster.shows(MODELS, GEMMA)
    world.store.put(MODELS, world.cluster.has(MODELS, raw | {"spec": raw["spec"] | {"suspend": True}}))
    await passes(world)
    assert at_the_gateway(world, "chat") == "demo/gemma"


async def test_what_is_refused_stays_so_while_the_gateway_is_off(world: World, cluster: FakeCluster) -> None:
    await two_namespaces(world)
    deleted(world, GEMMA)
    without = World(cluster)
    without.store.put(MODELS, cluster.shows(MODELS, THEIRS))
    await passes(without)
    assert findings(without, THEIRS) == []
    world.store.put(MODELS, cluster.shows(MODELS, THEIRS))
    await passes(world)
    assert (at_the_gateway(world, "chat"), len(findings(world, THEIRS))) == (None, 1)


async def test_a_spec_that_is_not_understood_changes_nobodys_name(world: World) -> None:
    await two_namespaces(world)
    created(world, "qwen", on="2025-01-01T00:00:00Z", namespace="team-c")
    for key in (GEMMA, THEIRS):
        raw = world.cluster.shows(MODELS, key)
        world.store.put(MODELS, world.cluster.has(MODELS, raw | {"spec": raw["spec"] | {"replicas": "three"}}))
    await passes(world)
    assert at_the_gateway(world, "chat") == "demo/gemma"
    deleted(world, GEMMA)
    assert at_the_gateway(world, "chat") is None


async def test_without_a_gateway_names_are_nobodys_business(cluster: FakeCluster) -> None:
    world = World(cluster)
    created(world, "gemma", on="2026-01-01T00:00:00Z")
    created(world, "qwen", on="2026-01-02T00:00:00Z")
    await world.reconciler.reconcile(QWEN)
    assert findings(world, QWEN) == []


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, frozenset()),
        ({"gateway": True}, None),
        ({"gateway": True, "gateway_bare_namespaces": ["a"]}, frozenset({"a"})),
        ({"gateway_bare_namespaces": ["a"]}, frozenset()),
    ],
)
def test_the_operator_knows_whose_models_have_bare_names(
    given: dict[str, Any], expected: frozenset[str] | None
) -> None:
    assert Settings(**given).bare_namespaces == expected
