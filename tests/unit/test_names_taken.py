"""A served name that two LlamaModels have: who has it at the gateway, and what the other one is told."""

from __future__ import annotations

from typing import Any

import pytest

from llamamodel_operator.core.gateway.routes import build_routes, served_model
from llamamodel_operator.shell.client import MODELS
from llamamodel_operator.shell.settings import Settings
from llamamodel_operator.shell.store import Key

from .builders import a_model
from .fake_cluster import FakeCluster
from .world import World

GEMMA, QWEN = Key("demo", "gemma"), Key("demo", "qwen")


@pytest.fixture
def world(cluster: FakeCluster) -> World:
    return World(cluster, gateway=True)


def created(world: World, name: str, *, on: str, served: str | None = "chat") -> None:
    """A user made a LlamaModel, or changed its served name, and the watch told of it."""
    key = Key("demo", name)
    before = world.cluster.shows(MODELS, key) if key in world.cluster.keys(MODELS) else {}
    model = a_model().named(name)
    raw = (model.with_spec(servedModelName=served) if served else model).raw()
    raw["metadata"]["creationTimestamp"] = on
    if "status" in before:
        raw["status"] = before["status"]
    world.store.put(MODELS, world.cluster.has(MODELS, raw))


def findings(world: World, key: Key) -> list[str]:
    """What is said of names."""
    found = world.cluster.shows(MODELS, key)["status"].get("findings") or ()
    return [finding["message"] for finding in found if finding["code"] == "NameTaken"]


def at_the_gateway(world: World, name: str) -> str:
    models = [served_model(world.cluster.shows(MODELS, key)) for key in world.cluster.keys(MODELS)]
    return build_routes(models).by_name[name].full_name


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
