"""Where an inspection stands: the Job, its pod and the claims, in every state that they can have."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamamodel_operator.api.conditions import Reason
from llamamodel_operator.core.inspection import InspectionState, Verdict
from llamamodel_operator.core.inspection_course import (
    CLAIM_GRACE_SEC,
    TRIES_ANNOTATION,
    Action,
    ClaimUse,
    Course,
    Tries,
    course_of,
    with_claims,
)
from llamamodel_operator.core.objects.job import CHECKSUM_ANNOTATION, INSPECT_CONTAINER

from .builders import NOON, at

KEY = "0123456789"
TIMEOUT_SEC = 120
TRUNCATED = Verdict(reason=Reason.MODEL_TRUNCATED, message="spec.model.pvc: /models/m/a.gguf is cut off")


def a_job(
    *, created: str = at("12:00:00"), tries: Tries | None = None, checksum: bool = False, **status: object
) -> dict[str, Any]:
    annotations = {TRIES_ANNOTATION: tries.to_text()} if tries else {}
    annotations |= {CHECKSUM_ANNOTATION: "true"} if checksum else {}
    metadata = {"name": "gemma-inspect-1", "uid": "u", "creationTimestamp": created, "annotations": annotations}
    return {"metadata": metadata, "status": status}


def ended_job(reason: str, message: str, *, time: str = at("12:00:00")) -> dict[str, Any]:
    condition = {"type": "Failed", "status": "True", "reason": reason, "message": message, "lastTransitionTime": time}
    return a_job(conditions=[condition])


def a_pod(state: Mapping[str, Any] | None = None, *, conditions: object = ()) -> dict[str, Any]:
    container = [{"name": INSPECT_CONTAINER, "state": state}] if state is not None else []
    sidecar = {"name": "istio-proxy", "state": {"running": {"startedAt": at("12:00:00")}}}
    status = {"containerStatuses": [sidecar, *container], "conditions": list(conditions)}  # type: ignore[call-overload]
    return {"metadata": {"name": "gemma-inspect-1-x"}, "status": status}


def that_ended(verdict: Verdict | str, *, finished: str = at("12:00:00"), exit_code: int = 1) -> dict[str, Any]:
    message = verdict if isinstance(verdict, str) else verdict.to_text()
    ended = {"exitCode": exit_code, "reason": "Error", "message": message, "finishedAt": finished}
    return a_pod({"terminated": ended})


def course(
    job: Mapping[str, Any] | None, pod: Mapping[str, Any] | None = None, *, after: float = 0, now: datetime = NOON
) -> Course:
    return course_of(
        job, pod, name="gemma-inspect-1", key=KEY, now=now + timedelta(seconds=after), timeout_sec=TIMEOUT_SEC
    )


def test_without_a_job_one_is_started() -> None:
    found = course(None)
    assert (found.action, found.inspection.state, found.tries) == (Action.START, InspectionState.PENDING, None)


def test_a_good_verdict_has_the_log_read() -> None:
    good = Verdict(reason=Reason.INSPECTED, document="ab" * 32)
    found = course(a_job(), that_ended(good, exit_code=0), after=3)
    assert (found.action, found.pod, found.document) == (Action.READ_LOG, "gemma-inspect-1-x", "ab" * 32)
    assert found.ended == at("12:00:00")
    assert found.inspection.state is InspectionState.PENDING


@pytest.mark.parametrize("after", [0, 3, 4.5])
def test_a_bad_verdict_is_said_at_once_and_looked_at_again_after_5_seconds(after: float) -> None:
    found = course(a_job(), that_ended(TRUNCATED), after=after)
    assert (found.inspection.state, found.inspection.reason) == (InspectionState.BAD, Reason.MODEL_TRUNCATED)
    assert found.inspection.message == TRUNCATED.message
    assert (found.action, found.again_sec) == (Action.NOTHING, 5 - after)


def test_then_another_job_remembers_since_when_it_is_bad() -> None:
    found = course(a_job(), that_ended(TRUNCATED), after=5)
    assert found.action is Action.START
    assert found.inspection.state is InspectionState.BAD
    assert found.tries == Tries(since=NOON, reason=Reason.MODEL_TRUNCATED, message=TRUNCATED.message)


@pytest.mark.parametrize(
    ("bad_for_sec", "pause_sec"), [(0, 5), (60, 5), (119, 5), (120, 30), (400, 100), (1200, 300), (86_400, 300)]
)
def test_the_pauses_grow_after_two_minutes_up_to_five(bad_for_sec: int, pause_sec: float) -> None:
    since = Tries(since=NOON - timedelta(seconds=bad_for_sec), reason=Reason.NOT_GGUF, message="another one")
    found = course(a_job(tries=since), that_ended(TRUNCATED))
    assert found.again_sec == pause_sec
    assert course(a_job(tries=since), that_ended(TRUNCATED), after=pause_sec).tries == Tries(
        since=since.since, reason=Reason.MODEL_TRUNCATED, message=TRUNCATED.message
    )


@pytest.mark.parametrize("pod", [None, a_pod(), a_pod({"waiting": {"reason": "ImagePullBackOff"}})])
def test_while_a_bad_file_is_looked_at_again_it_stays_bad(pod: Mapping[str, Any] | None) -> None:
    tries = Tries(since=NOON, reason=Reason.PART_MISSING, message="part 2 is missing")
    for after in (0, 60, 10_000):
        found = course(a_job(tries=tries), pod, after=after)
        assert (found.inspection.state, found.inspection.reason) == (InspectionState.BAD, Reason.PART_MISSING)
        assert found.inspection.message == "part 2 is missing"


@pytest.mark.parametrize(
    ("pod", "obstacle"),
    [
        (None, "it has no pod; a quota or a policy may refuse it, see `kubectl describe job gemma-inspect-1`"),
        (
            a_pod(conditions=[{"type": "PodScheduled", "status": "False", "message": "0/3 nodes are available"}]),
            "its pod fits no node: 0/3 nodes are available",
        ),
        (a_pod({"waiting": {"reason": "ErrImagePull", "message": "not found"}}), "its container waits: not found"),
        (a_pod({"waiting": {"reason": "ContainerCreating"}}), "its container waits: ContainerCreating"),
        (a_pod({"running": {"startedAt": at("12:00:01")}}), "the volume does not answer, or is slow"),
    ],
)
def test_a_job_that_gets_no_further_lets_the_model_start_after_a_time(pod: Any, obstacle: str) -> None:
    early = course(a_job(), pod, after=20)
    assert (early.inspection.state, early.again_sec) == (InspectionState.PENDING, 100)
    late = course(a_job(), pod, after=TIMEOUT_SEC)
    assert (late.inspection.state, late.inspection.reason) == (
        InspectionState.UNKNOWN,
        Reason.INSPECTION_UNAVAILABLE,
    )
    assert obstacle in late.inspection.message
    assert (late.action, late.again_sec) == (Action.NOTHING, None)


def test_a_checksum_takes_its_time() -> None:
    pod = a_pod({"running": {"startedAt": at("12:00:01")}})
    found = course(a_job(checksum=True), pod, after=3600)
    assert found.inspection.state is InspectionState.PENDING
    assert "checksum" in found.inspection.message


@pytest.mark.parametrize(
    ("job", "pod", "message"),
    [
        (ended_job("DeadlineExceeded", "Job was active too long"), None, "Job was active too long"),
        (ended_job("", ""), None, "its pod is gone"),
        (a_job(), that_ended("Killed", exit_code=137), "it ended with exit code 137 (Error) and no verdict"),
        (a_job(), that_ended(""), "no verdict"),
        (a_job(), that_ended('{"reason": "Ready"}'), "no verdict"),
        (
            a_job(),
            that_ended(Verdict(reason=Reason.INSPECTION_UNAVAILABLE, message="Stale file handle"), exit_code=2),
            "Stale file handle",
        ),
    ],
)
def test_who_could_not_look_tries_again_and_gives_up_after_a_time(job: Any, pod: Any, message: str) -> None:
    first = course(job, pod, after=2)
    assert (first.inspection.state, first.again_sec) == (InspectionState.PENDING, 3)
    again = course(job, pod, after=5)
    assert again.action is Action.START
    assert again.tries is not None
    assert again.tries.reason is Reason.INSPECTION_UNAVAILABLE
    assert message in again.tries.message
    late = Tries(since=NOON - timedelta(seconds=TIMEOUT_SEC), reason=Reason.INSPECTION_UNAVAILABLE, message="before")
    job = {**job, "metadata": {**job["metadata"], "annotations": {TRIES_ANNOTATION: late.to_text()}}}
    given_up = course(job, pod)
    assert given_up.inspection.state is InspectionState.UNKNOWN
    assert message in given_up.inspection.message
    assert given_up.again_sec == 60


@given(st.text(max_size=200) | st.builds(lambda value: str(value), st.recursive(st.none(), st.lists)))
def test_annotations_and_messages_of_others_are_no_verdict(text: str) -> None:
    assert Tries.parse(text) is None
    assert Verdict.parse(text) is None


def test_verdicts_fit_into_a_termination_message() -> None:
    long = Verdict(reason=Reason.NOT_GGUF, message="€" * 10_000, expected="0" * 16)
    assert len(long.to_text().encode()) <= 4096
    read = Verdict.parse(long.to_text())
    assert read is not None
    assert (read.reason, read.expected) == (Reason.NOT_GGUF, "0" * 16)
    assert read.message.startswith("€€")


BOUND = ClaimUse(name="models", phase="Bound", modes=("ReadWriteMany",))


def claims(*uses: ClaimUse, after: float = 0) -> Course | None:
    return with_claims(uses, key=KEY, now=NOON + timedelta(seconds=after))


def test_bound_claims_are_no_obstacle() -> None:
    assert claims(BOUND, ClaimUse(name="b", phase="Bound", modes=("ReadWriteOnce",), pods={"p": "n"})) is None


@pytest.mark.parametrize("phase", ["", "Lost"])
def test_nothing_happens_without_the_claim(phase: str) -> None:
    found = claims(BOUND, ClaimUse(name="other", phase=phase))
    assert found is not None
    assert (found.inspection.state, found.action, found.again_sec) == (
        InspectionState.PENDING,
        Action.NOTHING,
        None,
    )


def test_a_claim_without_a_volume_gets_none_from_us() -> None:
    waits = ClaimUse(name="models", phase="Pending", created=at("12:00:00"))
    early = claims(waits, after=10)
    assert early is not None
    assert (early.inspection.state, early.again_sec) == (InspectionState.PENDING, CLAIM_GRACE_SEC - 10)
    late = claims(waits, after=CLAIM_GRACE_SEC)
    assert late is not None
    assert (late.inspection.state, late.action) == (InspectionState.UNKNOWN, Action.NOTHING)
    assert "may wait for its first pod" in late.inspection.message


def test_a_claim_of_one_pod_that_is_in_use_is_inspected_when_the_next_pod_starts() -> None:
    used = ClaimUse(name="models", phase="Bound", modes=("ReadWriteOncePod",), pods={"gemma-0": "node-1"})
    found = claims(used)
    assert found is not None
    assert (found.inspection.state, found.inspection.checks_at_start) == (InspectionState.UNKNOWN, True)
    assert claims(ClaimUse(name="models", phase="Bound", modes=("ReadWriteOncePod",), pods={})) is None


@pytest.mark.parametrize(
    ("modes", "pods", "node"),
    [
        (("ReadWriteOnce",), {"a": "", "b": "node-2"}, "node-2"),
        (("ReadWriteOnce",), {"a": ""}, None),
        (("ReadWriteOnce",), {}, None),
        (("ReadWriteOnce", "ReadWriteMany"), {"a": "node-1"}, None),
        (("ReadOnlyMany",), {"a": "node-1"}, None),
    ],
)
def test_a_volume_of_one_node_is_inspected_where_it_is(
    modes: tuple[str, ...], pods: Mapping[str, str], node: str | None
) -> None:
    assert ClaimUse(name="models", phase="Bound", modes=modes, pods=pods).only_node == node
