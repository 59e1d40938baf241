"""Where an inspection stands, from its Job, the Job's pod and the claims; and what is to be done next. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from llamamodel_operator.api.conditions import Reason
from llamamodel_operator.core.inspection import Inspection, InspectionState, Verdict, not_inspected
from llamamodel_operator.core.objects.job import CHECKSUM_ANNOTATION, INSPECT_CONTAINER
from llamamodel_operator.core.times import format_time, parse_time

__all__ = ["CLAIM_GRACE_SEC", "TRIES_ANNOTATION", "Action", "ClaimUse", "Course", "Tries", "course_of", "with_claims"]

CLAIM_GRACE_SEC = 30
"""How long a claim may be without a volume before it counts as one that waits for the model's own pod."""
TRIES_ANNOTATION = "llamamodel.dev/inspection-tries"
"""On a Job that is not the first one for its files: since when, and with which verdict, the earlier ones failed."""

_OFTEN_SEC, _OFTEN_FOR_SEC = 5.0, 120.0
_MOST_BAD_SEC = 300.0
_LEAST_UNABLE_SEC, _MOST_UNABLE_SEC = 60.0, 3600.0


class Action(StrEnum):
    """What is to be done."""

    NOTHING = "nothing"
    START = "start"
    """A Job, in the place of one that has ended."""
    READ_LOG = "read-log"
    """Of the Job's pod: the facts are in it."""
    SAVE = "save"
    """The facts."""


@dataclass(frozen=True, kw_only=True)
class Tries:
    """What failed before.

    Attributes:
        since: when the first one failed.
    """

    since: datetime
    reason: Reason
    message: str

    def to_text(self) -> str:
        return json.dumps({"since": format_time(self.since), "reason": self.reason, "message": self.message})

    @classmethod
    def parse(cls, text: str | None) -> Tries | None:
        try:
            said = json.loads(text or "")
            since = parse_time(said["since"])
            if since.tzinfo is None:
                return None
            message = str(said["message"]).encode(errors="replace").decode()[:4096]
            return cls(since=since, reason=Reason(said["reason"]), message=message)
        except (ValueError, TypeError, KeyError, RecursionError):
            return None


@dataclass(frozen=True, kw_only=True)
class ClaimUse:
    """A claim that files are read from.

    Attributes:
        phase: Pending, Bound or Lost; empty where it does not exist.
        created: when it was made; empty where that is not known.
        modes: its access modes.
        pods: of LlamaModels that have it, with the name of the node of each; empty where it has none yet.
    """

    name: str
    phase: str
    created: str = ""
    modes: tuple[str, ...] = ()
    pods: Mapping[str, str] | None = None

    @property
    def only_node(self) -> str | None:
        """The node that alone may mount it now."""
        if any(mode in ("ReadWriteMany", "ReadOnlyMany") for mode in self.modes):
            return None
        return next((node for node in (self.pods or {}).values() if node), None)


@dataclass(frozen=True, kw_only=True)
class Course:
    """Where an inspection stands.

    Attributes:
        action: to be taken now.
        again_sec: when to look again although nothing happened; None where an event will tell.
        tries: what a Job that is to be started must remember.
        pod: whose log is to be read, and the digest that its document must have.
        ended: when that pod's container ended.
    """

    inspection: Inspection
    action: Action = Action.NOTHING
    again_sec: float | None = None
    tries: Tries | None = None
    pod: str = ""
    document: str = ""
    ended: str = ""


def with_claims(claims: Sequence[ClaimUse], *, key: str, now: datetime) -> Course | None:
    """What the claims alone decide; None where a Job can be made.

    A claim without a volume is never mounted by a Job: that would have one provisioned where nobody wants it.
    """
    for claim in claims:
        if claim.phase not in ("Bound", "Pending"):
            return _pending(f"waits for PersistentVolumeClaim {claim.name}", key=key)
    for claim in claims:
        if claim.phase == "Pending":
            left = CLAIM_GRACE_SEC - _seconds(claim.created, now)
            if left > 0:
                return _pending(f"waits for the volume of PersistentVolumeClaim {claim.name}", key=key, again_sec=left)
            message = (
                f"PersistentVolumeClaim {claim.name} has no volume yet: it may wait for its first pod, so the model is"
                " started without an inspection"
            )
            return Course(inspection=not_inspected(Reason.INSPECTION_UNAVAILABLE, message, key=key))
    for claim in claims:
        if "ReadWriteOncePod" in claim.modes and claim.pods:
            message = (
                f"PersistentVolumeClaim {claim.name} is ReadWriteOncePod and pod {min(claim.pods)} has it: the files"
                " are inspected when the next pod starts"
            )
            return Course(
                inspection=not_inspected(Reason.INSPECTION_UNAVAILABLE, message, key=key, checks_at_start=True)
            )
    return None


def course_of(
    job: Mapping[str, Any] | None,
    pod: Mapping[str, Any] | None,
    *,
    name: str,
    key: str,
    now: datetime,
    timeout_sec: float,
) -> Course:
    """Where the Job is, and what comes next.

    Args:
        job: of the inspection, as the API server has it; None where there is none.
        pod: that it made; None where it has made none, or that one is gone.
        name: that the Job has or gets.
        key: of the inspection.
        now: the time.
        timeout_sec: how long the model waits for an inspection that does not get further.
    """
    if job is None:
        return Course(
            inspection=_pending(f"Job {name} reads the headers of the files", key=key).inspection, action=Action.START
        )
    tries = Tries.parse((job["metadata"].get("annotations") or {}).get(TRIES_ANNOTATION))
    began = job["metadata"].get("creationTimestamp") or ""
    ended = _ended(pod)
    if ended is not None:
        return _after(ended, pod or {}, tries=tries, key=key, now=now, timeout_sec=timeout_sec, began=began)
    if failed := _condition(job, "Failed") or _condition(job, "Complete"):
        why = failed.get("message") or failed.get("reason") or "its pod is gone"
        message = f"Job {job['metadata']['name']} ended without a verdict: {why}"
        at = failed.get("lastTransitionTime") or ""
        return _unable(message, at=at, began=began, tries=tries, key=key, now=now, timeout_sec=timeout_sec)
    return _under_way(job, pod, tries=tries, key=key, now=now, timeout_sec=timeout_sec)


def _after(
    ended: Mapping[str, Any],
    pod: Mapping[str, Any],
    *,
    began: str,
    tries: Tries | None,
    key: str,
    now: datetime,
    timeout_sec: float,
) -> Course:
    """The container has ended: what it says."""
    verdict, at = Verdict.parse(ended.get("message") or ""), ended.get("finishedAt") or ""
    if verdict is not None and verdict.good:
        return Course(
            inspection=_pending("done, the facts are being read", key=key).inspection,
            action=Action.READ_LOG,
            pod=pod["metadata"]["name"],
            document=verdict.document,
            ended=at,
        )
    if verdict is not None and verdict.bad:
        failed_at = _time(at, now)
        since = tries.since if tries is not None and tries.reason is not Reason.INSPECTION_UNAVAILABLE else failed_at
        inspection = not_inspected(verdict.reason, verdict.message, key=key)
        lasted = (failed_at - since).total_seconds()
        pause = _OFTEN_SEC if lasted < _OFTEN_FOR_SEC else min(_MOST_BAD_SEC, lasted / 4)
        again = Tries(since=since, reason=verdict.reason, message=verdict.message)
        return _retry(inspection, at=failed_at, pause=pause, tries=again, now=now)
    code, reason = ended.get("exitCode"), ended.get("reason") or "Error"
    said = verdict.message if verdict is not None else f"it ended with exit code {code} ({reason}) and no verdict"
    return _unable(
        f"the inspection could not look at the files: {said}",
        at=at,
        began=began,
        tries=tries,
        key=key,
        now=now,
        timeout_sec=timeout_sec,
    )


def _unable(
    message: str, *, at: str, began: str, tries: Tries | None, key: str, now: datetime, timeout_sec: float
) -> Course:
    """Tried again often while the model waits for it, later now and then. What the Job took counts as waiting."""
    failed_at = _time(at, now)
    known = tries is not None and tries.reason is Reason.INSPECTION_UNAVAILABLE
    since = tries.since if tries is not None and known else _time(began, failed_at)
    again = Tries(since=since, reason=Reason.INSPECTION_UNAVAILABLE, message=message)
    if (now - since).total_seconds() < timeout_sec:
        inspection = _waiting(again, key=key)
        return _retry(inspection, at=failed_at, pause=_OFTEN_SEC, tries=again, now=now)
    inspection = not_inspected(Reason.INSPECTION_UNAVAILABLE, message, key=key)
    pause = min(_MOST_UNABLE_SEC, max(_LEAST_UNABLE_SEC, (failed_at - since).total_seconds() / 2))
    return _retry(inspection, at=failed_at, pause=pause, tries=again, now=now)


def _retry(inspection: Inspection, *, at: datetime, pause: float, tries: Tries, now: datetime) -> Course:
    left = pause - (now - at).total_seconds()
    if left > 0:
        return Course(inspection=inspection, again_sec=left)
    return Course(inspection=inspection, action=Action.START, tries=tries)


def _under_way(
    job: Mapping[str, Any],
    pod: Mapping[str, Any] | None,
    *,
    tries: Tries | None,
    key: str,
    now: datetime,
    timeout_sec: float,
) -> Course:
    """No verdict so far. What an earlier try found holds until this one has found something else."""
    if tries is not None and tries.reason is not Reason.INSPECTION_UNAVAILABLE:
        return Course(inspection=not_inspected(tries.reason, tries.message, key=key))
    name, created = job["metadata"]["name"], job["metadata"].get("creationTimestamp") or ""
    running = ((_container(pod).get("state") or {}).get("running") or {}).get("startedAt")
    if running and (job["metadata"].get("annotations") or {}).get(CHECKSUM_ANNOTATION):
        return _pending(f"Job {name} verifies the checksum of the whole file, see its log", key=key)
    begun = tries.since if tries is not None else _time(created, now)
    left = timeout_sec - (now - begun).total_seconds()
    if left > 0:
        if tries is not None:
            return Course(inspection=_waiting(tries, key=key), again_sec=left)
        return _pending(f"Job {name} reads the headers of the files", key=key, again_sec=left)
    message = f"Job {name} got no further within {timeout_sec:.0f} s: {_obstacle(pod, name)}"
    return Course(inspection=not_inspected(Reason.INSPECTION_UNAVAILABLE, message, key=key))


def _obstacle(pod: Mapping[str, Any] | None, job: str) -> str:
    """What is in the way, as the cluster says."""
    if pod is None:
        return f"it has no pod; a quota or a policy may refuse it, see `kubectl describe job {job}`"
    status = pod.get("status") or {}
    scheduled: Mapping[str, Any] = next(
        (c for c in status.get("conditions") or [] if c.get("type") == "PodScheduled"), {}
    )
    if scheduled.get("status") == "False":
        return f"its pod fits no node: {scheduled.get('message') or 'no reason given'}"
    waiting = (_container(pod).get("state") or {}).get("waiting") or {}
    if waiting:
        return f"its container waits: {waiting.get('message') or waiting.get('reason') or 'no reason given'}"
    return f"the volume does not answer, or is slow; see `kubectl describe pod {pod['metadata']['name']}`"


def _pending(message: str, *, key: str, again_sec: float | None = None) -> Course:
    return Course(inspection=not_inspected(Reason.INSPECTING, message, key=key), again_sec=again_sec)


def _waiting(tries: Tries, *, key: str) -> Inspection:
    return Inspection(
        state=InspectionState.PENDING, reason=Reason.INSPECTING, message=f"tried again: {tries.message}", key=key
    )


def _container(pod: Mapping[str, Any] | None) -> Mapping[str, Any]:
    statuses = ((pod or {}).get("status") or {}).get("containerStatuses") or []
    return next((status for status in statuses if status.get("name") == INSPECT_CONTAINER), {})


def _ended(pod: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """How the container ended; None while it runs. Others in the pod may go on: somebody's sidecar."""
    return (_container(pod).get("state") or {}).get("terminated")


def _condition(job: Mapping[str, Any], kind: str) -> Mapping[str, Any] | None:
    conditions = (job.get("status") or {}).get("conditions") or []
    return next((c for c in conditions if c.get("type") == kind and c.get("status") == "True"), None)


def _time(text: str, otherwise: datetime) -> datetime:
    try:
        moment = parse_time(text)
    except ValueError:
        return otherwise
    return moment if moment.tzinfo is not None else otherwise


def _seconds(since: str, now: datetime) -> float:
    return (now - _time(since, now)).total_seconds() if since else float("inf")
