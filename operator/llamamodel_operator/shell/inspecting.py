"""Inspections of models' files: looks where one stands, makes its Job, reads the Job's log once, keeps the facts."""

from __future__ import annotations

import hashlib
import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from aiohttp import ClientError

from llamamodel_operator.api.conditions import Reason
from llamamodel_operator.api.llamamodel import LlamaModel
from llamamodel_operator.core.inspection import (
    LONGEST_DOCUMENT_BYTES,
    FileToInspect,
    Inspection,
    InvalidDocumentError,
    files_of,
    inspected,
    inspection_key,
    models_of_document,
    not_inspected,
)
from llamamodel_operator.core.inspection_course import (
    TRIES_ANNOTATION,
    Action,
    ClaimUse,
    Course,
    course_of,
    with_claims,
)
from llamamodel_operator.core.objects.check import CHECK_CONTAINER
from llamamodel_operator.core.objects.facts import (
    FACTS_LABEL,
    TooManyFactsError,
    build_facts,
    facts_name,
    inspection_of_facts,
)
from llamamodel_operator.core.objects.job import INSPECT_CONTAINER, build_job, job_name
from llamamodel_operator.core.objects.names import child_name
from llamamodel_operator.core.observed import Pod
from llamamodel_operator.core.times import format_time, parse_time
from llamamodel_operator.shell.client import (
    CONFIG_MAPS,
    JOBS,
    MODELS,
    PERSISTENT_VOLUME_CLAIMS,
    PODS,
    ApiError,
    ClusterClient,
)
from llamamodel_operator.shell.store import Key, Store, claim_group, controller_uid, inspection_group

__all__ = ["Inspector", "Step"]

_log = logging.getLogger(__name__)
_KEPT = 64
"""Inspections that are kept as objects; those of other models are read anew from the cache's text."""
_REFUSED_AGAIN_SEC = 15.0
_READ_AGAIN_SEC = 5.0
_UNREADABLE_AGAIN_SEC = 120.0
_UNKEPT_AGAIN_SEC = 60.0


@dataclass(frozen=True, kw_only=True)
class Step:
    """Where an inspection stands, and with what it goes on.

    Attributes:
        asked: value of the annotation.
        document: facts that are to be kept.
        stale: name of the ConfigMap whose facts a pod has found to be old; empty where none has.
    """

    key: str
    asked: str
    course: Course
    document: bytes = b""
    stale: str = ""

    @property
    def inspection(self) -> Inspection:
        return self.course.inspection


@dataclass(frozen=True, kw_only=True)
class _Refused:
    key: str
    since: datetime
    last: datetime
    message: str


@dataclass(frozen=True, kw_only=True)
class _Unkept:
    """Facts that the API server does not take, a quota for example; held here, so that no log is read twice."""

    uid: str
    last: datetime
    step: Step


class Inspector:
    """Looks from the cache, so that a restart of the operator begins nothing anew."""

    def __init__(
        self,
        *,
        client: ClusterClient,
        store: Store,
        image: str,
        timeout_sec: float,
        now: Callable[[], datetime],
        later: Callable[[Key, float], None],
    ) -> None:
        self.image = image
        self._client = client
        self._store = store
        self._timeout_sec = timeout_sec
        self._now = now
        self._later = later
        self._refused: dict[Key, _Refused] = {}
        self._unkept: dict[Key, _Unkept] = {}
        self._known: OrderedDict[Key, tuple[int, str, Inspection]] = OrderedDict()

    def forget(self, key: Key) -> None:
        """The LlamaModel is gone."""
        self._refused.pop(key, None)
        self._unkept.pop(key, None)

    def known(self, model: LlamaModel, *, asked: str) -> Inspection | None:
        """What was found before in the very files that the model names; None where nobody looked, or it is not at hand.

        Reads only, so that other threads may ask: reviews do.
        """
        key = inspection_key(files_of(model.spec), asked=asked)
        name = Key(model.namespace, facts_name(model, key))
        kept = self._known.get(name)
        return kept[2] if kept is not None and kept[:2] == (self._store.version(CONFIG_MAPS, name), model.uid) else None

    # Looking

    async def look(self, model: LlamaModel, *, asked: str) -> Step:
        """Where the inspection of this model stands."""
        files = files_of(model.spec)
        key = inspection_key(files, asked=asked)
        now, found, stale = self._now(), self._facts(model, files=files, key=key), ""
        if found is not None:
            if not self._is_stale(model, found):
                return Step(key=key, asked=asked, course=Course(inspection=found))
            stale = facts_name(model, key)
        elif (again := self._keep_again(model, key=key)) is not None:
            return again
        name = job_name(model, key)
        job = self._store.get(JOBS, Key(model.namespace, name))
        if job is not None and controller_uid(job) != model.uid:
            message = f"Job {job['metadata']['name']} exists and is not this model's: delete or rename it"
            course = Course(inspection=not_inspected(Reason.INSPECTION_UNAVAILABLE, message, key=key))
            return Step(key=key, asked=asked, course=course)
        course = course_of(job, self._pod_of(model, job), name=name, key=key, now=now, timeout_sec=self._timeout_sec)
        if course.action is Action.READ_LOG:
            read = await self._read(model, Step(key=key, asked=asked, course=course, stale=stale), files=files)
            if not read.inspection.done or not self._is_stale(model, read.inspection):
                return read
            # It has looked before the files changed: there must be another one.
            course = course_of(None, None, name=name, key=key, now=now, timeout_sec=self._timeout_sec)
        if course.action is Action.START:
            course = with_claims(self._claims(model), key=key, now=now) or self._after_refusal(model, course, key=key)
        return Step(key=key, asked=asked, course=course, stale=stale)

    def _facts(self, model: LlamaModel, *, files: tuple[FileToInspect, ...], key: str) -> Inspection | None:
        name = Key(model.namespace, facts_name(model, key))
        version = self._store.version(CONFIG_MAPS, name)
        if not version:
            return None
        known = self._known.get(name)
        if known is not None and known[:2] == (version, model.uid):
            self._known.move_to_end(name)
            return known[2]
        raw = self._store.get(CONFIG_MAPS, name) or {}
        if controller_uid(raw) != model.uid:
            return None
        try:
            inspection = inspection_of_facts(raw, files=files, key=key)
        except InvalidDocumentError as error:
            _log.warning("ConfigMap %s is not usable, the files are inspected again: %s", name.name, error)
            return None
        self._known[name] = (version, model.uid, inspection)
        if len(self._known) > _KEPT:
            self._known.popitem(last=False)
        return inspection

    def _keep_again(self, model: LlamaModel, *, key: str) -> Step | None:
        """What was found, where it could not be kept: now and then that is tried again."""
        owner = Key(model.namespace, model.name)
        unkept = self._unkept.get(owner)
        if unkept is None or (unkept.uid, unkept.step.key) != (model.uid, key):
            return None
        if self._is_stale(model, unkept.step.inspection):
            del self._unkept[owner]
            return None
        wait = _UNKEPT_AGAIN_SEC - (self._now() - unkept.last).total_seconds()
        if wait <= 0:
            return unkept.step
        return replace(unkept.step, course=Course(inspection=unkept.step.inspection, again_sec=wait))

    def _is_stale(self, model: LlamaModel, found: Inspection) -> bool:
        """Whether a pod that started later has found other files."""
        pods = self._store.select(PODS, Key(model.namespace, child_name(model.name)))
        failures = [pod.check_failure for raw in pods if (pod := Pod.parse(raw, container="", check=CHECK_CONTAINER))]
        return any(
            failure is not None
            and failure.verdict.bad
            and failure.verdict.expected == found.digest
            and failure.finished_at > found.time
            for failure in failures
        )

    def _pod_of(self, model: LlamaModel, job: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
        if job is None:
            return None
        pods = self._store.select(PODS, inspection_group(Key(model.namespace, child_name(model.name))))
        return next((pod for pod in pods if controller_uid(pod) == job["metadata"]["uid"]), None)

    def _claims(self, model: LlamaModel) -> list[ClaimUse]:
        uses = []
        for name in dict.fromkeys(file.claim for file in files_of(model.spec)):
            key = Key(model.namespace, name)
            raw = self._store.get(PERSISTENT_VOLUME_CLAIMS, key)
            if raw is None:
                uses.append(ClaimUse(name=name, phase=""))
                continue
            uses.append(
                ClaimUse(
                    name=name,
                    phase=raw["status"]["phase"] or "Pending",
                    created=raw["metadata"].get("creationTimestamp") or "",
                    modes=tuple((raw.get("spec") or {}).get("accessModes") or ()),
                    pods=self._pods_with(key),
                )
            )
        return uses

    def _pods_with(self, claim: Key) -> dict[str, str]:
        """Pods of LlamaModels that read from the claim, each with its node."""
        return {
            pod["metadata"]["name"]: (pod.get("spec") or {}).get("nodeName") or ""
            for user in self._store.keys_in(MODELS, claim_group(claim))
            for pod in self._store.select(PODS, Key(user.namespace, child_name(user.name)))
            if (pod.get("status") or {}).get("phase") not in ("Succeeded", "Failed")
        }

    def _after_refusal(self, model: LlamaModel, course: Course, *, key: str) -> Course:
        """A Job that was refused a moment ago is not sent again at once; after a time the model starts without."""
        refused, now = self._refused.get(Key(model.namespace, model.name)), self._now()
        if refused is None or refused.key != key:
            return course
        left = self._timeout_sec - (now - refused.since).total_seconds()
        reason = Reason.INSPECTION_UNAVAILABLE if left <= 0 else Reason.INSPECTING
        inspection = not_inspected(reason, refused.message, key=key)
        if course.tries is not None and course.tries.reason is not Reason.INSPECTION_UNAVAILABLE:
            inspection = not_inspected(course.tries.reason, course.tries.message, key=key)  # what was bad stays so
        pause = _REFUSED_AGAIN_SEC if left > 0 else 4 * _REFUSED_AGAIN_SEC
        wait = pause - (now - refused.last).total_seconds()
        if wait > 0:
            return Course(inspection=inspection, again_sec=min(wait, left) if left > 0 else wait)
        return replace(course, inspection=inspection)

    async def _read(self, model: LlamaModel, step: Step, *, files: tuple[FileToInspect, ...]) -> Step:
        """The facts from the log of the Job's pod."""
        course, key = step.course, step.key
        try:
            text = await self._client.read_log(
                namespace=model.namespace,
                name=course.pod,
                container=INSPECT_CONTAINER,
                limit_bytes=LONGEST_DOCUMENT_BYTES,
            )
            document = _line(text, digest=course.document)
            models = models_of_document(document, files=files)
        except InvalidDocumentError as error:
            message = f"the log of pod {course.pod} does not hold the facts: {error}"
            return _not_read(step, Reason.INSPECTION_UNAVAILABLE, message, again_sec=_UNREADABLE_AGAIN_SEC)
        except (ApiError, ClientError, TimeoutError) as error:
            why = error.message if isinstance(error, ApiError) else f"{type(error).__name__}: {error}"
            return self._unreadable(step, f"the log of pod {course.pod} cannot be read: {why}")
        time = course.ended or format_time(self._now())
        done = inspected(models, files=files, key=key, time=time)
        return replace(step, course=replace(course, inspection=done, action=Action.SAVE), document=document)

    def _unreadable(self, step: Step, message: str) -> Step:
        """Somebody is away for the moment: the model waits for it, and starts when that takes too long."""
        ended = parse_time(step.course.ended) if step.course.ended else self._now()
        waits = (self._now() - ended).total_seconds() < self._timeout_sec
        reason = Reason.INSPECTING if waits else Reason.INSPECTION_UNAVAILABLE
        return _not_read(step, reason, message, again_sec=_READ_AGAIN_SEC if waits else _UNREADABLE_AGAIN_SEC)

    # Acting

    async def act(self, model: LlamaModel, step: Step) -> None:
        """Takes the step. What is refused is remembered, and shown by the next pass. Raises ApiError."""
        course, owner = step.course, Key(model.namespace, model.name)
        if step.stale:
            await self._delete(CONFIG_MAPS, self._store.get(CONFIG_MAPS, Key(model.namespace, step.stale)))
        if course.action is Action.START:
            await self._start(model, step)
        elif course.action is Action.SAVE:
            if await self._save(model, step):
                self._unkept.pop(owner, None)
            else:
                self._unkept[owner] = _Unkept(uid=model.uid, last=self._now(), step=step)
                course = replace(course, again_sec=_UNKEPT_AGAIN_SEC)
        done = course.inspection.done
        if done:
            self._refused.pop(owner, None)
        # Where facts could not be kept, the log of the Job is all that is left after a restart.
        await self._clean_up(model, keep=step.key, keep_job=not done or owner in self._unkept)
        if course.again_sec is not None:
            self._later(owner, course.again_sec)

    async def _start(self, model: LlamaModel, step: Step) -> None:
        key, owner = step.key, Key(model.namespace, model.name)
        name, tries = Key(model.namespace, job_name(model, key)), step.course.tries
        await self._delete(JOBS, self._store.get(JOBS, name))
        claims = self._claims(model)
        body = build_job(
            model,
            asked=step.asked,
            image=self.image,
            node=next((claim.only_node for claim in claims if claim.only_node), None),
            annotations={TRIES_ANNOTATION: tries.to_text()} if tries is not None else {},
        )
        try:
            self._store.put(JOBS, await self._client.create(JOBS, body))
        except ApiError as error:
            if error.status == 409:  # the cache is behind, or the earlier one is not gone yet
                if live := await self._client.get(JOBS, namespace=name.namespace, name=name.name):
                    self._store.put(JOBS, live)
                self._later(owner, 1.0)
                return
            if error.status == 401 or (error.transient and "failed calling webhook" not in error.message):
                raise
            now, before = self._now(), self._refused.get(owner)
            self._refused[owner] = _Refused(
                key=key,
                since=before.since if before is not None and before.key == key else now,
                last=now,
                message=f"the API server refuses Job {name.name}: {error.message}",
            )
            _log.warning("%s", self._refused[owner].message, extra={"model": str(owner)})
            self._later(owner, min(_REFUSED_AGAIN_SEC, self._timeout_sec))
            return
        self._refused.pop(owner, None)
        _log.info("inspects the files: Job %s", name.name, extra={"model": str(owner)})
        self._later(owner, self._timeout_sec)

    async def _save(self, model: LlamaModel, step: Step) -> bool:
        found = step.inspection
        try:
            body = build_facts(model, key=step.key, digest=found.digest, time=found.time, document=step.document)
            self._store.put(CONFIG_MAPS, await self._client.apply(CONFIG_MAPS, body))
        except TooManyFactsError as error:
            _log.warning("the facts are not kept: %s", error, extra={"model": f"{model.namespace}/{model.name}"})
            return False
        except ApiError as error:
            if error.status in (401, 409) or error.transient:
                raise
            _log.warning("the facts are not kept: %s", error, extra={"model": f"{model.namespace}/{model.name}"})
            return False
        return True

    async def _clean_up(self, model: LlamaModel, *, keep: str, keep_job: bool) -> None:
        """Deletes Jobs and facts that are of no use any more. Facts of an earlier spec stay until then."""
        group = Key(model.namespace, child_name(model.name))
        wanted = job_name(model, keep) if keep_job else ""
        for job in self._store.select(JOBS, group):
            if controller_uid(job) == model.uid and job["metadata"]["name"] != wanted:
                await self._delete(JOBS, job)
        if keep_job:
            return
        for facts in self._store.select(CONFIG_MAPS, group):
            key = (facts["metadata"].get("labels") or {}).get(FACTS_LABEL)
            if key and key != keep and controller_uid(facts) == model.uid:
                await self._delete(CONFIG_MAPS, facts)

    async def _delete(self, resource: Any, raw: Mapping[str, Any] | None) -> None:
        if raw is None or "deletionTimestamp" in raw["metadata"]:
            return
        key = Key.of(raw)
        await self._client.delete(resource, namespace=key.namespace, name=key.name, uid=raw["metadata"]["uid"])
        self._store.discard(resource, key)


def _line(text: bytes, *, digest: str) -> bytes:
    """The line that the verdict tells of; others are the progress of checksums."""
    for line in reversed(text.splitlines()):
        if line.startswith(b"{") and hashlib.sha256(line).hexdigest() == digest:
            return line
    raise InvalidDocumentError(f"no line of {len(text):,} bytes has the digest that the verdict names")


def _not_read(step: Step, reason: Reason, message: str, *, again_sec: float) -> Step:
    inspection = not_inspected(reason, message, key=step.key)
    return replace(step, course=Course(inspection=inspection, again_sec=again_sec))
