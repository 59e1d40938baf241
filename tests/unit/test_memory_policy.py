"""Whole passes over a model whose files are known, while nodes come, go and change: what is started, what is held."""

from __future__ import annotations

from typing import Any

import pytest

from llamamodel_operator.api.llamamodel import LlamaModel
from llamamodel_operator.core.inspection_course import Course
from llamamodel_operator.core.inventory import NodeGpus
from llamamodel_operator.shell.client import DEPLOYMENTS, MODELS, PODS
from llamamodel_operator.shell.gather import Gatherer
from llamamodel_operator.shell.inspecting import Inspector, Step
from llamamodel_operator.shell.reconciler import Reconciler

from .builders import CONFIGURATION, ModelBuilder, a_model, a_pod
from .fake_cluster import FakeCluster
from .gguf_models import a_node, an_8b, inspected
from .world import GEMMA, World, _examine

SMALL = a_model().with_gpu().with_engine(contextSize=8192)
"""Takes 9.2 GiB."""
BLOCKED = SMALL.with_spec(memoryPolicy="Block")


class _Inspected(Inspector):
    """The file was looked at before."""

    async def look(self, model: LlamaModel, *, asked: str) -> Step:
        return Step(key="0123456789", asked=asked, course=Course(inspection=inspected(an_8b())))

    async def act(self, model: LlamaModel, step: Step) -> None:
        pass


class Cluster(World):
    """A world with nodes."""

    def __init__(self, *nodes: NodeGpus) -> None:
        super().__init__(FakeCluster())
        self.nodes: tuple[NodeGpus, ...] | None = nodes
        self.reconciler = Reconciler(
            client=self.cluster,
            store=self.store,
            metrics=self.metrics,
            configuration=CONFIGURATION,
            gatherer=Gatherer(client=self.cluster, store=self.store, examine=_examine, nodes=lambda: self.nodes),
            prober=self.prober,
            now=lambda: self.now,
            again=self.again.append,
            inspector=_Inspected(
                client=self.cluster, store=self.store, image="", timeout_sec=1, now=lambda: self.now, later=print
            ),
        )

    @property
    def deployment(self) -> dict[str, Any]:
        return self.cluster.shows(DEPLOYMENTS, GEMMA)

    @property
    def replicas(self) -> int:
        return int(self.deployment["spec"]["replicas"])

    @property
    def template(self) -> object:
        return self.deployment["spec"]["template"]

    async def passes(self, *nodes: NodeGpus) -> None:
        """The nodes are these from now on, and the watch told of it."""
        self.nodes = nodes
        await self.reconciler.reconcile(GEMMA)
        await self.reconciler.reconcile(GEMMA)


async def started(model: ModelBuilder, *nodes: NodeGpus) -> Cluster:
    world = Cluster(*nodes)
    world.has_claim()
    world.has(model)
    await world.settles()
    await world.settles()
    return world


async def test_block_holds_and_a_label_that_says_more_releases_it_without_a_touch() -> None:
    world = await started(BLOCKED, a_node(memory_mib=8192))
    assert world.replicas == 0
    assert world.ready()[0] == "MemoryTooSmall"
    assert world.condition("MemoryFits")[:2] == ("False", "MemoryTooSmall")
    await world.passes(a_node(memory_mib=24576))
    assert world.replicas == 1
    assert world.condition("MemoryFits")[:2] == ("True", "MemoryFits")


async def test_a_model_that_is_held_is_not_started_by_an_edit_that_is_refused() -> None:
    world = await started(BLOCKED, a_node(memory_mib=8192))
    world.has(BLOCKED.with_spec(extraArgs=["--port", "1"]).at_generation(2))
    await world.passes(a_node(memory_mib=8192))
    assert world.condition("Accepted")[:2] == ("False", "InvalidSpec")
    assert world.replicas == 0


async def test_what_runs_is_left_alone_when_labels_shrink() -> None:
    world = await started(BLOCKED, a_node())
    before = world.template
    await world.passes(a_node(memory_mib=8192))
    assert (world.replicas, world.template) == (1, before)
    assert world.condition("MemoryFits")[:2] == ("False", "MemoryTooSmall")


@pytest.mark.parametrize("model", [SMALL, SMALL.with_engine(contextSize="auto"), a_model().with_gpu()])
async def test_nodes_that_come_go_or_change_restart_nothing(model: ModelBuilder) -> None:
    world = await started(model, a_node())
    before = world.template
    for nodes in [(), (a_node(memory_mib=81920),), (a_node(memory_mib=8192), a_node("b")), (a_node(memory_mib=None),)]:
        await world.passes(*nodes)
        assert world.template == before


async def test_warn_starts_what_does_not_fit_and_says_so() -> None:
    world = await started(SMALL.with_engine(gpuLayers="all"), a_node(memory_mib=8192))
    assert world.replicas == 1
    assert world.condition("MemoryFits")[:2] == ("False", "MemoryTooSmall")
    assert "warning: spec.gpu: needs 9.2Gi per GPU" in world.condition("Accepted")[2]


async def test_an_earlier_spec_that_serves_is_kept_while_the_new_one_does_not_fit() -> None:
    world = await started(BLOCKED, a_node(memory_mib=16384))
    revision = world.deployment["spec"]["template"]["metadata"]["labels"]["llamamodel.dev/revision"]
    world.store.put(PODS, world.cluster.has(PODS, a_pod().of_revision(revision).ready().raw()))
    await world.settles()
    world.has(BLOCKED.with_engine(contextSize=131072).at_generation(2))
    await world.settles()
    assert world.replicas == 1
    assert world.deployment["spec"]["template"]["metadata"]["labels"]["llamamodel.dev/revision"] == revision
    assert world.ready()[0] == "MemoryTooSmall"
    assert world.condition("Accepted")[:2] == ("False", "HeldBack")
    await world.passes(a_node(memory_mib=40960))
    assert world.deployment["spec"]["template"]["metadata"]["labels"]["llamamodel.dev/revision"] != revision


async def test_nothing_is_written_when_nothing_changed() -> None:
    world = await started(BLOCKED, a_node(memory_mib=8192))
    await world.passes(a_node(memory_mib=8192))
    assert not world.cluster.writes
    assert world.cluster.shows(MODELS, GEMMA)["status"]["memory"]["fits"] == "False"
