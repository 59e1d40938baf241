"""What is read from a pod: where its own container is on its way, and how it last ended."""

from __future__ import annotations

from typing import Any

import pytest

from llamamodel_operator.core.observed import Pod, Termination

from .builders import a_pod, at


def test_a_new_pod_is_nothing_yet() -> None:
    pod = a_pod().build()
    assert pod == Pod(name="gemma-0", uid="uid-of-gemma-0")


def test_a_pod_that_answers_is_ready() -> None:
    pod = a_pod().ready().build()
    assert (pod.ready, pod.started, pod.node) == (True, True, "node-1")


def test_a_pod_that_is_being_deleted_is_not_ready_although_it_still_answers() -> None:
    pod = a_pod().ready().terminating().build()
    assert (pod.ready, pod.terminating) == (False, True)


def test_a_pod_that_no_node_fits_carries_the_schedulers_words() -> None:
    assert a_pod().unschedulable("0/1 nodes are available").build().unschedulable == "0/1 nodes are available"
    assert a_pod().unschedulable("").build().unschedulable == "no node fits"


def test_a_pod_that_waits_for_a_gate_is_not_unschedulable() -> None:
    raw = a_pod().raw()
    raw["status"]["conditions"] = [{"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}]
    assert Pod.parse(raw, container="llama-server").unschedulable == ""


def test_a_waiting_container_says_why() -> None:
    pod = a_pod().waiting("ImagePullBackOff", "Back-off pulling image").build()
    assert (pod.waiting_reason, pod.waiting_message) == ("ImagePullBackOff", "Back-off pulling image")


def test_a_loading_container_runs_but_has_not_started() -> None:
    pod = a_pod().loading_since(at("12:00:00")).build()
    assert (pod.running_since, pod.started) == (at("12:00:00"), False)


def test_the_end_of_the_run_before_is_kept_while_the_next_one_waits() -> None:
    pod = a_pod().that_ended(exit_code=1, message="bad file\n").restarted(3).waiting("CrashLoopBackOff").build()
    assert pod.last_termination == Termination(
        exit_code=1,
        reason="Error",
        message="bad file",
        started_at=at("11:00:00"),
        finished_at=at("11:00:05"),
        previous=True,
    )
    assert pod.restarts == 3


def test_the_end_of_this_run_wins_over_that_of_the_run_before() -> None:
    raw = a_pod().that_ended(exit_code=1).raw()
    raw["status"]["containerStatuses"][0]["state"] = {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}
    ended = Pod.parse(raw, container="llama-server").last_termination
    assert ended is not None
    assert (ended.exit_code, ended.reason) == (137, "OOMKilled")
    assert not ended.previous, "its log is that of the run that ended last"


def test_an_end_by_a_signal_has_the_exit_code_that_a_shell_would_give_it() -> None:
    raw = a_pod().that_ended().raw()
    raw["status"]["containerStatuses"][0]["lastState"] = {"terminated": {"signal": 4}}
    ended = Pod.parse(raw, container="llama-server").last_termination
    assert ended is not None
    assert ended.exit_code == 132


def test_a_pod_that_its_node_makes_ready_tells_since_when() -> None:
    raw = a_pod().waiting("ContainerCreating").raw()
    scheduled = {"type": "PodScheduled", "status": "True", "lastTransitionTime": at("11:59:00")}
    raw["status"]["conditions"] = [scheduled]
    assert Pod.parse(raw, container="llama-server").prepared_since == at("11:59:00")
    raw["status"]["conditions"] = [scheduled, {"type": "PodReadyToStartContainers", "status": "True"}]
    assert Pod.parse(raw, container="llama-server").prepared_since == "", "an image is pulled now"
    raw["status"]["conditions"] = [scheduled]
    raw["status"]["initContainerStatuses"] = [{"name": "check-files", "state": {"running": {}}}]
    assert Pod.parse(raw, container="llama-server").prepared_since == "", "its volumes are there"
    assert a_pod().unschedulable().build().prepared_since == ""


def test_a_sidecar_is_none_of_our_business() -> None:
    crashed: dict[str, Any] = {"terminated": {"exitCode": 1, "reason": "Error"}}
    pod = a_pod().with_sidecar(state=crashed, lastState=crashed, restartCount=9, started=True).ready().build()
    assert (pod.last_termination, pod.restarts, pod.ready) == (None, 0, True)


@pytest.mark.parametrize("status", [None, {}, {"conditions": None, "containerStatuses": None}])
def test_a_pod_without_a_status_is_read(status: object) -> None:
    assert Pod.parse({"metadata": {"name": "p"}, "status": status}, container="llama-server") == Pod(name="p")


def test_the_check_of_the_files_that_does_not_run_is_told_apart() -> None:
    raw = a_pod().waiting("PodInitializing").raw()
    stuck = {"waiting": {"reason": "ImagePullBackOff", "message": "not found"}}
    raw["status"]["initContainerStatuses"] = [{"name": "check", "state": stuck}]
    pod = Pod.parse(raw, container="llama-server", check="check")
    assert (pod.waiting_reason, pod.waiting_message, pod.check_waits) == ("ImagePullBackOff", "not found", True)
    assert not Pod.parse(raw, container="llama-server").check_waits
