"""Logs of containers that ended are read once for each end; events, where a node does not get a pod ready."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from llamamodel_operator.shell.client import PODS, ApiError
from llamamodel_operator.shell.store import Key

from .builders import PodBuilder, a_model, a_pod, at
from .fake_cluster import FakeCluster
from .world import GEMMA, World

USAGE = "usage:\n" * 80
REFUSED = "error: invalid argument: --flash-atten\n"


@pytest.fixture
def world(cluster: FakeCluster) -> World:
    world = World(cluster)
    world.has_claim()
    world.has(a_model())
    return world


def reads(world: World) -> list[str]:
    """Kinds of what is read from now on, besides objects."""
    seen: list[str] = []

    def note(kind: str) -> None:
        if kind in ("Log", "Event"):
            seen.append(kind)

    world.cluster.before_read = note
    return seen


def crashed(**ended: Any) -> PodBuilder:
    return a_pod().that_ended(**{"exit_code": 1, "message": "usage:", **ended}).restarted(1)


async def show(world: World, pod: PodBuilder) -> tuple[str, str]:
    """What the status says after the watch told of this pod."""
    raw = pod.of_revision(a_model().plan().revision).raw()
    world.store.put(PODS, world.cluster.has(PODS, raw))
    await world.reconciler.reconcile(GEMMA)
    return world.ready()


async def test_a_log_is_read_once_for_each_end(world: World) -> None:
    seen = reads(world)
    world.cluster.logs["gemma-0"] = (REFUSED + USAGE).encode()
    for _ in range(3):
        assert (await show(world, crashed()))[0] == "InvalidArgument"
    assert seen == ["Log"]
    assert (await show(world, crashed(finished=at("11:10:00")).restarted(2)))[0] == "InvalidArgument"
    assert seen == ["Log", "Log"]


async def test_that_the_container_was_started_again_is_no_new_end(world: World) -> None:
    seen = reads(world)
    raw = crashed(message="?").of_revision(a_model().plan().revision).raw()
    (container,) = raw["status"]["containerStatuses"]
    container["state"], container["lastState"] = container["lastState"], {}
    world.store.put(PODS, world.cluster.has(PODS, raw))
    await world.reconciler.reconcile(GEMMA)
    await show(world, crashed(message="?"))
    assert seen == ["Log"]


async def test_a_line_in_the_middle_of_a_long_log_is_found_from_the_end(world: World) -> None:
    chatter = "0.00.000.001 D load: some line of a log with all messages, as they are\n" * 5000
    world.cluster.logs["gemma-0"] = (chatter + REFUSED + USAGE).encode()
    assert (await show(world, crashed()))[0] == "InvalidArgument"


async def test_no_log_is_read_where_the_kubelet_kept_what_tells(world: World) -> None:
    seen = reads(world)
    assert (await show(world, crashed(message=REFUSED)))[0] == "InvalidArgument"
    assert (await show(world, crashed(exit_code=137, reason="OOMKilled", finished=at("11:11:11"))))[0] == "OutOfMemory"
    assert (await show(world, crashed(exit_code=132, finished=at("11:22:22"))))[0] == "IllegalInstruction"
    assert seen == []


@pytest.mark.parametrize(
    "error", [ApiError(status=404, reason="NotFound", message="gone"), TimeoutError(), OSError("no route")]
)
async def test_a_log_that_cannot_be_read_is_let_be(world: World, error: Exception) -> None:
    tries = []

    def fail(kind: str) -> None:
        if kind == "Log":
            tries.append(kind)
            raise error

    world.cluster.before_read = fail
    for _ in range(2):
        assert await show(world, crashed(message="bad thing")) == (
            "CrashLoop",
            "llama-server ended with exit code 1: bad thing (pod gemma-0, 1 restart)",
        )
    assert tries == ["Log"]


async def test_another_operator_does_not_read_it_again(world: World) -> None:
    world.cluster.logs["gemma-0"] = (REFUSED + USAGE).encode()
    said = await show(world, crashed())
    successor = World(world.cluster)
    successor.has_claim()
    successor.has(a_model())
    seen = reads(successor)
    assert await show(successor, crashed()) == said
    assert seen == []
    assert not [write for write in world.cluster.writes if write.kind == "Event"][1:], "one event for one reason"


def unprepared(since: str = at("11:59:45")) -> PodBuilder:
    """A pod on a node, since that time."""
    scheduled = {"type": "PodScheduled", "status": "True", "lastTransitionTime": since}
    pod = a_pod().waiting("ContainerCreating")
    return type(pod)(**{**vars(pod), "conditions": (scheduled,), "node": "node-1"})


ATTACHED = {
    "reason": "FailedAttachVolume",
    "message": "Multi-Attach error for volume v",
    "lastTimestamp": at("11:59:50"),
}


async def test_events_are_read_of_a_pod_whose_node_does_not_get_it_ready(world: World) -> None:
    seen = reads(world)
    world.cluster.events["uid-of-gemma-0"] = [ATTACHED]
    for _ in range(3):
        reason, message = await show(world, unprepared())
        assert reason == "MultiAttach"
        assert message.startswith(
            "pod gemma-0 on node node-1 cannot start its containers: Multi-Attach error for volume v"
        )
    assert seen == ["Event"]
    assert world.later[GEMMA] == 30


async def test_events_are_not_read_in_the_first_ten_seconds(world: World) -> None:
    seen = reads(world)
    assert (await show(world, unprepared(since=at("11:59:54"))))[0] == "Starting"
    assert seen == []
    assert world.later[GEMMA] == 4


async def test_events_are_read_again_and_what_was_known_stays_while_they_are_away(world: World) -> None:
    seen = reads(world)
    world.cluster.events["uid-of-gemma-0"] = [ATTACHED]
    await show(world, unprepared())
    world.cluster.events.clear()
    world.now += timedelta(seconds=31)
    assert (await show(world, unprepared()))[0] == "MultiAttach"
    assert seen == ["Event", "Event"]
    assert (await show(world, a_pod().loading_since(at("12:00:31"))))[0] == "Loading"


async def test_nothing_is_kept_of_pods_and_models_that_are_gone(world: World) -> None:
    world.cluster.logs["gemma-0"] = REFUSED.encode()
    await show(world, crashed())
    assert world.post_mortem.remembered == 1
    world.store.discard(PODS, Key("demo", "gemma-0"))
    await world.reconciler.reconcile(GEMMA)
    assert world.post_mortem.remembered == 0
