"""A spec that cannot work, or is known not to start, changes nothing that runs; ConfigMaps outlive their readers."""

from __future__ import annotations

from typing import Any

import pytest

from llamamodel_operator.api.labels import WATCH_LABEL
from llamamodel_operator.core.observed import ServerReport
from llamamodel_operator.shell.client import CONFIG_MAPS, DEPLOYMENTS, MODELS, PODS, SERVICES, ApiError
from llamamodel_operator.shell.reconciler import RefusedError
from llamamodel_operator.shell.store import Key

from .builders import ModelBuilder, a_model, a_pod
from .fake_cluster import FakeCluster
from .world import GEMMA, World

B10434 = "example.com/llama.cpp:server-b10434"
WRONG = {"extraArgs": ["--top-k", "many"], "image": B10434}
REFUSED = {"extraArgs": ["--flash-atten", "on"], "image": B10434}


@pytest.fixture
def world(cluster: FakeCluster) -> World:
    return World(cluster)


def condition(world: World, kind: str) -> tuple[str, str, str]:
    conditions = world.cluster.shows(MODELS, GEMMA)["status"]["conditions"]
    (found,) = (c for c in conditions if c["type"] == kind)
    return found["status"], found["reason"], found["message"]


async def serving(world: World, model: ModelBuilder) -> None:
    """The model is there, and a pod of it answers."""
    world.has_claim()
    world.has(model)
    world.store.put(PODS, a_pod().of_revision(model.plan().revision).ready().raw())
    await world.settles()


async def test_what_cannot_work_makes_nothing(world: World) -> None:
    world.has(a_model().with_spec(**WRONG))
    await world.reconciler.reconcile(GEMMA)
    assert world.cluster.keys(DEPLOYMENTS) == set()
    status, reason, message = condition(world, "Accepted")
    assert (status, reason) == ("False", "InvalidSpec")
    assert "spec.extraArgs[1]" in message
    assert condition(world, "Ready")[:2] == ("False", "InvalidSpec")


async def test_what_cannot_work_changes_nothing_that_runs(world: World) -> None:
    await serving(world, a_model())
    before = world.cluster.shows(DEPLOYMENTS, GEMMA)
    world.has(a_model().with_spec(**WRONG).at_generation(2).at_version(5000))
    await world.reconciler.reconcile(GEMMA)
    assert world.cluster.shows(DEPLOYMENTS, GEMMA) == before
    assert condition(world, "Available")[0] == "True"
    assert world.cluster.shows(MODELS, GEMMA)["status"]["command"] == list(a_model().plan().command)


@pytest.mark.parametrize(("change", "replicas"), [({"suspend": True}, 0), ({"replicas": 3}, 3)])
async def test_while_it_is_held_back_what_runs_can_be_scaled(
    world: World, change: dict[str, Any], replicas: int
) -> None:
    await serving(world, a_model())
    template = world.cluster.shows(DEPLOYMENTS, GEMMA)["spec"]["template"]
    world.has(a_model().with_spec(**WRONG, **change).at_generation(2).at_version(5000))
    await world.reconciler.reconcile(GEMMA)
    spec = world.cluster.shows(DEPLOYMENTS, GEMMA)["spec"]
    assert (spec["replicas"], spec["template"]) == (replicas, template)
    world.cluster.forget_writes()
    await world.reconciler.reconcile(GEMMA)
    assert world.cluster.writes == []


async def test_what_is_known_not_to_start_does_not_replace_pods_that_serve(world: World) -> None:
    await serving(world, a_model())
    before = world.cluster.shows(DEPLOYMENTS, GEMMA)
    world.has(a_model().with_spec(**REFUSED).at_generation(2).at_version(5000))
    await world.reconciler.reconcile(GEMMA)
    assert world.cluster.shows(DEPLOYMENTS, GEMMA) == before
    status, reason, message = condition(world, "Accepted")
    assert (status, reason) == ("False", "HeldBack")
    assert "--flash-atten" in message


async def test_where_nothing_serves_it_is_tried(world: World) -> None:
    world.has_claim()
    world.has(a_model().with_spec(**REFUSED))
    await world.reconciler.reconcile(GEMMA)
    assert world.cluster.keys(DEPLOYMENTS) == {GEMMA}
    status, reason, message = condition(world, "Accepted")
    assert (status, reason) == ("True", "Accepted")
    assert "--flash-attn" in message


async def test_the_flags_of_a_generation_are_settled(world: World) -> None:
    """A server that says another build, later, rolls nothing; the next change of the spec is written for it."""
    model = a_model().with_engine(memoryLock=True)
    await serving(world, model)
    world.prober.says["gemma-0"] = ServerReport(build=10068)
    world.store.put(PODS, a_pod().named("gemma-0").of_revision(model.plan().revision).ready().at_version(9000).raw())
    await world.reconciler.reconcile(GEMMA)
    assert [write.verb for write in world.cluster.writes] == ["apply-status"]
    engine = world.cluster.shows(MODELS, GEMMA)["status"]["engine"]
    assert (engine["build"], engine["flags"]) == ("b10068", "b11669")
    world.cluster.forget_writes()
    await world.reconciler.reconcile(GEMMA)
    await world.reconciler.reconcile(GEMMA)
    assert [write.kind for write in world.cluster.writes if write.kind == "Deployment"] == []

    world.has(model.with_replicas(2).at_generation(2).at_version(9100))
    await world.reconciler.reconcile(GEMMA)
    spec = world.cluster.shows(DEPLOYMENTS, GEMMA)["spec"]
    assert spec["replicas"] == 2
    assert "--load-mode" in spec["template"]["spec"]["containers"][0]["args"], "scaling settles nothing anew"

    world.has(model.with_engine(memoryLock=True, threads=2).at_generation(3).at_version(9200))
    await world.reconciler.reconcile(GEMMA)
    container = world.cluster.shows(DEPLOYMENTS, GEMMA)["spec"]["template"]["spec"]["containers"][0]
    assert "--mlock" in container["args"]


async def test_what_is_held_back_stays_so_while_the_pod_that_serves_is_unready_for_a_moment(world: World) -> None:
    await serving(world, a_model())
    before = world.cluster.shows(DEPLOYMENTS, GEMMA)
    world.has(a_model().with_spec(**REFUSED).at_generation(2).at_version(5000))
    await world.reconciler.reconcile(GEMMA)
    blip = a_pod().of_revision(a_model().plan().revision).started_but_unready().at_version(6000)
    world.store.put(PODS, blip.raw())
    await world.reconciler.reconcile(GEMMA)
    await world.reconciler.reconcile(GEMMA)
    assert world.cluster.shows(DEPLOYMENTS, GEMMA) == before
    assert condition(world, "Accepted")[1] == "HeldBack"


async def test_a_spec_that_is_refused_once_is_refused_again(world: World) -> None:
    """What was settled for the spec that runs is not taken for the one that is held back."""
    await serving(world, a_model().with_spec(image="example.com/llama.cpp:server", chatTemplate={"preset": "gpt-oss"}))
    world.has(
        a_model()
        .with_spec(image="example.com/llama.cpp:server", chatTemplate={"preset": "gpt-oss"})
        .with_engine(build=4291)
        .at_generation(2)
        .at_version(5000)
    )
    for _ in range(3):
        await world.reconciler.reconcile(GEMMA)
        assert condition(world, "Accepted")[:2] == ("False", "InvalidSpec")


async def test_while_it_is_held_back_the_service_is_kept_and_the_status_tells_of_what_runs(world: World) -> None:
    await serving(world, a_model())
    before = world.cluster.shows(MODELS, GEMMA)["status"]
    world.cluster.loses(SERVICES, GEMMA)
    world.store.discard(SERVICES, GEMMA)
    world.has(a_model().with_spec(**WRONG, servedModelName="other").at_generation(2).at_version(5000))
    await world.reconciler.reconcile(GEMMA)
    assert world.cluster.keys(SERVICES) == {GEMMA}
    now = world.cluster.shows(MODELS, GEMMA)["status"]
    for field in ("servedModelName", "endpoint", "endpoints", "engine", "command"):
        assert now[field] == before[field]


async def test_of_a_model_that_never_ran_no_address_is_told(world: World) -> None:
    world.has(a_model().with_spec(**WRONG))
    await world.reconciler.reconcile(GEMMA)
    assert (
        not {"endpoint", "endpoints", "servedModelName", "command"}
        & world.cluster.shows(MODELS, GEMMA)["status"].keys()
    )


async def test_a_pod_is_not_made_to_mount_a_config_map_that_was_refused(world: World) -> None:
    await serving(world, a_model())
    before = world.cluster.shows(DEPLOYMENTS, GEMMA)
    full = ApiError(status=403, reason="Forbidden", message="exceeded quota: count/configmaps")
    world.cluster.refuses("ConfigMap", full)
    world.has(a_model().with_spec(grammar={"builtin": "json"}).at_generation(2).at_version(5000))
    with pytest.raises(RefusedError):
        await world.reconciler.reconcile(GEMMA)
    assert world.cluster.shows(DEPLOYMENTS, GEMMA) == before


async def test_a_config_map_that_may_not_be_read_holds_the_change_back(world: World) -> None:
    model = a_model().with_spec(grammar={"configMapKeyRef": {"name": "mine", "key": "g"}})
    raw = {"metadata": {"name": "mine", "namespace": "demo"}, "data": {"g": 'root ::= "x"'}}
    world.cluster.has(CONFIG_MAPS, raw)
    await serving(world, model)
    before = world.cluster.shows(DEPLOYMENTS, GEMMA)

    def forbid(kind: str) -> None:
        if kind == "ConfigMap":
            raise ApiError(status=403, reason="Forbidden", message="configmaps is forbidden")

    world.cluster.before_read = forbid
    await world.reconciler.reconcile(GEMMA)
    assert world.cluster.shows(DEPLOYMENTS, GEMMA) == before
    assert "may not read ConfigMap mine" in condition(world, "Accepted")[2]


async def test_a_deleted_model_is_not_looked_at_again(world: World) -> None:
    model = a_model().with_spec(grammar={"configMapKeyRef": {"name": "mine", "key": "g"}})
    world.has(model)
    await world.reconciler.reconcile(GEMMA)
    world.store.discard(MODELS, GEMMA)
    await world.reconciler.reconcile(GEMMA)
    assert world.gatherer.unwatched == set()


def text_maps(world: World) -> list[str]:
    return sorted(key.name for key in world.cluster.keys(CONFIG_MAPS) if "-texts-" in key.name)


async def test_a_replaced_text_stays_until_no_pod_of_the_earlier_spec_is_left(world: World) -> None:
    first = a_model().with_spec(grammar={"inline": 'root ::= "a"'})
    second = a_model().with_spec(grammar={"inline": 'root ::= "b"'}).at_generation(2).at_version(5000)
    await serving(world, first)
    (old,) = text_maps(world)
    world.has(second)
    await world.reconciler.reconcile(GEMMA)
    assert len(text_maps(world)) == 2
    world.store.put(PODS, a_pod().of_revision(second.plan().revision).ready().at_version(9000).raw())
    await world.reconciler.reconcile(GEMMA)
    assert len(text_maps(world)) == 1
    assert old not in text_maps(world)


async def test_a_changed_scale_changes_a_config_map_and_no_pod(world: World) -> None:
    def adapted(scale: float) -> ModelBuilder:
        pvc = {"claimName": "models", "path": "sql.gguf"}
        return a_model().with_spec(loraAdapters=[{"name": "sql", "pvc": pvc, "scale": scale}])

    await serving(world, adapted(1))
    before = world.cluster.shows(DEPLOYMENTS, GEMMA)
    world.has(adapted(0.25).at_generation(2).at_version(5000))
    await world.reconciler.reconcile(GEMMA)
    assert world.cluster.shows(DEPLOYMENTS, GEMMA) == before
    (key,) = world.cluster.keys(CONFIG_MAPS)
    assert world.cluster.shows(CONFIG_MAPS, key)["data"] == {"sql": "0.25"}
    (adapter,) = world.cluster.shows(MODELS, GEMMA)["status"]["loraAdapters"]
    assert adapter == {"name": "sql", "id": 0, "scale": 0.25, "loaded": 0}


@pytest.mark.parametrize("watched", [True, False])
async def test_a_referenced_config_map_is_read_and_looked_at_again_where_it_is_not_watched(
    world: World, watched: bool
) -> None:
    world.has_claim()
    model = a_model().with_spec(grammar={"configMapKeyRef": {"name": "mine", "key": "g"}})
    world.has(model)
    await world.reconciler.reconcile(GEMMA)
    assert condition(world, "Accepted")[1:][0] == "InvalidSpec"
    assert "ConfigMap mine does not exist" in condition(world, "Accepted")[2]
    assert world.gatherer.unwatched == {GEMMA}

    metadata = {"name": "mine", "namespace": "demo", "labels": {WATCH_LABEL: ""} if watched else {}}
    raw = world.cluster.has(CONFIG_MAPS, {"metadata": metadata, "data": {"g": 'root ::= "x"'}})
    if watched:
        world.store.put(CONFIG_MAPS, raw)
    await world.reconciler.reconcile(GEMMA)
    assert world.gatherer.unwatched == (set() if watched else {GEMMA})
    (name,) = text_maps(world)
    assert world.cluster.shows(CONFIG_MAPS, Key("demo", name))["data"] == {"grammar.gbnf": 'root ::= "x"'}
    world.cluster.forget_writes()
    await world.reconciler.reconcile(GEMMA)
    assert world.cluster.writes == []
