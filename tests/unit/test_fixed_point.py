"""From whatever is found, a few passes lead to where nothing is left to write, and always to the same status."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llamamodel_operator.api.labels import REVISION_LABEL
from llamamodel_operator.core.engine.offload_log import Offload
from llamamodel_operator.core.observed import Proof, ServerReport
from llamamodel_operator.shell.client import DEPLOYMENTS, MODELS, PERSISTENT_VOLUME_CLAIMS, PODS
from llamamodel_operator.shell.reconciler import RefusedError
from support.generated_specs import generate_specs

from .builders import ModelBuilder, a_claim, a_model, a_pod, at
from .fake_cluster import FakeCluster
from .world import GEMMA, World

MOST_PASSES = 2
SPECS = generate_specs(150, seed=20_261_126).specs

TIMES = st.sampled_from([at("11:00:00"), at("11:59:59"), at("12:00:00"), at("12:30:00")])
TERMINATED = st.fixed_dictionaries(
    {
        "exitCode": st.sampled_from([0, 1, 132, 134, 137, 139, 143, -1]),
        "reason": st.sampled_from(["Error", "OOMKilled", "Completed", "ContainerStatusUnknown", ""]),
        "message": st.sampled_from(
            ["", "error: invalid argument: --x", "\x1b[31mCUDA error: out of memory\x1b[0m", "…"]
        ),
    },
    optional={"startedAt": TIMES, "finishedAt": TIMES},
)
WAITING = st.fixed_dictionaries(
    {},
    optional={
        "reason": st.sampled_from(
            ["ContainerCreating", "ErrImagePull", "ImagePullBackOff", "CrashLoopBackOff", "CreateContainerConfigError"]
        ),
        "message": st.sampled_from(["", "not found", "401 Unauthorized"]),
    },
)
STATE: st.SearchStrategy[dict[str, Any]] = st.one_of(
    st.just({}),
    st.fixed_dictionaries({"running": st.fixed_dictionaries({"startedAt": TIMES})}),
    st.fixed_dictionaries({"terminated": TERMINATED}),
    st.fixed_dictionaries({"waiting": WAITING}),
)
CONTAINER = st.fixed_dictionaries(
    {"name": st.sampled_from(["llama-server", "istio-proxy"])},
    optional={
        "state": STATE,
        "lastState": STATE,
        "started": st.booleans(),
        "ready": st.booleans(),
        "restartCount": st.integers(0, 9),
        "containerID": st.just("containerd://1"),
    },
)
CONDITION = st.fixed_dictionaries(
    {
        "type": st.sampled_from(["PodScheduled", "Ready", "Initialized", "Progressing", "ReplicaFailure", "Available"]),
        "status": st.sampled_from(["True", "False", "Unknown"]),
    },
    optional={
        "reason": st.sampled_from(["Unschedulable", "ProgressDeadlineExceeded", "FailedCreate"]),
        "message": st.sampled_from(["", "0/1 nodes are available", "exceeded quota: pods"]),
        "lastTransitionTime": TIMES,
    },
)
POD_STATUS = st.fixed_dictionaries(
    {},
    optional={
        "phase": st.sampled_from(["Pending", "Running", "Succeeded", "Failed", "Unknown"]),
        "podIP": st.just("10.0.0.1"),
        "conditions": st.lists(CONDITION, max_size=4),
        "containerStatuses": st.lists(CONTAINER, max_size=2),
        "initContainerStatuses": st.lists(CONTAINER, max_size=1),
    },
)
REPORT = st.builds(
    ServerReport,
    proof=st.sampled_from([None, *Proof]),
    problem=st.sampled_from(["", "it wants an API key"]),
    offload=st.sampled_from([None, Offload(on_gpu=True, line="a"), Offload(on_gpu=False, line="b")]),
    build=st.sampled_from([None, 11669, 4291]),
    scales=st.sampled_from([(), (0.5,)]),
)
STATUS = st.one_of(
    st.none(),
    st.fixed_dictionaries(
        {},
        optional={
            "observedGeneration": st.integers(0, 9),
            "conditions": st.lists(
                st.fixed_dictionaries(
                    {
                        "type": st.sampled_from(["Ready", "Accepted", "Offloaded", "Other"]),
                        "status": st.sampled_from(["True", "False", "Unknown"]),
                        "reason": st.sampled_from(["Ready", "HeldBack", "RunsOnCPU", "SomethingOld"]),
                        "message": st.just("m"),
                        "lastTransitionTime": TIMES,
                        "observedGeneration": st.integers(0, 9),
                    }
                ),
                max_size=3,
            ),
            "engine": st.sampled_from([{}, {"settledFor": "x", "flags": "b1"}, {"build": "b11669"}]),
            "memory": st.sampled_from([{}, {"fits": "True"}]),
            "lastFailure": st.sampled_from([{}, {"reason": "CrashLoop"}]),
        },
    ),
)


class Found:
    """What a pass finds: a LlamaModel, its Deployment as the world has left it, pods and what their servers say."""

    def __init__(self, draw: st.DrawFn) -> None:
        self.model: ModelBuilder = a_model().with_spec(**draw(st.sampled_from(SPECS)))
        if (status := draw(STATUS)) is not None:
            self.model = self.model.with_status(status)
        self.claims = draw(st.sampled_from(["Bound", "Pending", "Lost", None]))
        self.modes = draw(st.sampled_from([None, ["ReadWriteOnce"], ["ReadWriteOncePod"], ["ReadOnlyMany"]]))
        self.pods = draw(st.lists(st.tuples(POD_STATUS, st.booleans(), st.booleans()), max_size=3))
        self.deployment_status = draw(
            st.fixed_dictionaries({}, optional={"conditions": st.lists(CONDITION, max_size=3)})
        )
        self.reports = draw(st.lists(REPORT, min_size=3, max_size=3))

    def world(self) -> World:
        world = World(FakeCluster())
        for claim in self.model.build().spec.claims if self.claims else ():
            raw = a_claim().named(claim).raw()
            raw["status"]["phase"] = self.claims
            raw["spec"] = {"accessModes": self.modes}
            world.store.put(PERSISTENT_VOLUME_CLAIMS, world.cluster.has(PERSISTENT_VOLUME_CLAIMS, raw))
        world.has(self.model)
        if self.model.status:
            raw = {**world.cluster.shows(MODELS, GEMMA), "status": dict(self.model.status)}
            world.store.put(MODELS, world.cluster.has(MODELS, raw))
        return world

    def goes_on(self, world: World) -> None:
        """What the cluster's controllers have made of it so far."""
        if GEMMA not in world.cluster.keys(DEPLOYMENTS):
            return
        raw = {**world.cluster.shows(DEPLOYMENTS, GEMMA), "status": dict(self.deployment_status)}
        world.store.put(DEPLOYMENTS, world.cluster.has(DEPLOYMENTS, raw))
        revision = raw["spec"]["template"]["metadata"]["labels"][REVISION_LABEL]
        for number, (status, current, deleted) in enumerate(self.pods):
            pod = a_pod().named(f"gemma-{number}").of_revision(revision if current else "an-earlier-one").raw()
            pod["status"] = status
            if deleted:
                pod["metadata"]["deletionTimestamp"] = at("11:59:00")
            world.store.put(PODS, world.cluster.has(PODS, pod))
            world.prober.says[f"gemma-{number}"] = self.reports[number]


@st.composite
def found(draw: st.DrawFn) -> Found:
    return Found(draw)


async def _passes(world: World, number: int) -> None:
    for _ in range(number):
        with contextlib.suppress(RefusedError):
            await world.reconciler.reconcile(GEMMA)


async def _settled(what: Found) -> World:
    world = what.world()
    await _passes(world, 1)
    what.goes_on(world)
    await _passes(world, MOST_PASSES)
    return world


def _said(world: World) -> dict[str, Any]:
    status: dict[str, Any] = world.cluster.shows(MODELS, GEMMA)["status"]
    return status


@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(found())
def test_a_few_passes_lead_to_where_nothing_is_left_to_write(what: Found) -> None:
    async def passes() -> None:
        world = await _settled(what)
        world.cluster.forget_writes()
        await _passes(world, 2)
        assert world.cluster.writes == []

    asyncio.run(passes())


@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(found())
def test_the_same_state_gives_the_same_status_in_another_process(what: Found) -> None:
    one, other = (_said(asyncio.run(_settled(what))) for _ in range(2))
    assert one == other
    assert len([c for c in one["conditions"] if c["type"] == "Ready"]) == 1
