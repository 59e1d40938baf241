"""Reads what the status of a pod does not tell: the log of a container that ended, once for each end, and the events of
a pod whose node does not get it ready for its containers.

A pass waits for it, a few seconds at most, so that a status says at once what is the matter, and says one thing only.
What cannot be read is left alone: the status then has what the kubelet kept.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TypeVar

from aiohttp import ClientError

from llamamodel_operator.api.labels import CONTAINER
from llamamodel_operator.api.llamamodel import LlamaModel
from llamamodel_operator.core.engine.diagnosis import Diagnosis
from llamamodel_operator.core.failure import diagnosis_of_log, diagnosis_of_status, log_may_tell
from llamamodel_operator.core.observed import Observed, Pod, Termination
from llamamodel_operator.core.plan import Plan
from llamamodel_operator.core.pod_messages import Trouble, trouble_of_events
from llamamodel_operator.core.times import parse_time
from llamamodel_operator.shell.client import ApiError, ClusterClient
from llamamodel_operator.shell.store import Key

__all__ = ["PostMortem"]

_log = logging.getLogger(__name__)

_HEAD_BYTES = 256 * 1024
"""From the start: a refused argument is in the first line, and 3,000 lines with all messages fit."""
_TAIL_LINES = 400
_TAIL_BYTES = 256 * 1024
"""From the end, where the start is not all: the cause comes shortly before the end."""
_MOST_EVENTS = 50
_PATIENCE_SEC = 10.0
"""A node takes so long for volumes and network of most pods."""
_READ_AGAIN_SEC = 30.0
"""The kubelet repeats its events after pauses that grow to two minutes."""
_TIMEOUT_SEC = 5.0
"""For one reading: the kubelet of a node that is down does not answer."""


@dataclass(frozen=True, kw_only=True)
class _End:
    """An end of a container that was looked into, with what its log told."""

    ended: Termination
    diagnosis: Diagnosis | None


@dataclass(frozen=True, kw_only=True)
class _Events:
    read: datetime
    trouble: Trouble | None


T = TypeVar("T")


class PostMortem:
    """Why pods end or do not start. Remembers what it read; what pods of the past had is forgotten with them.

    Args:
        now: the time.
        later: asks for another pass over a LlamaModel in so many seconds.
    """

    def __init__(
        self, *, client: ClusterClient, now: Callable[[], datetime], later: Callable[[Key, float], None]
    ) -> None:
        self._client = client
        self._now = now
        self._later = later
        self._ends: dict[Key, dict[str, _End]] = {}
        self._events: dict[Key, dict[str, _Events]] = {}

    @property
    def remembered(self) -> int:
        """Pods that something is kept of."""
        return sum(len(pods) for known in (self._ends, self._events) for pods in known.values())

    def forget(self, key: Key) -> None:
        """The LlamaModel is gone."""
        self._ends.pop(key, None)
        self._events.pop(key, None)

    async def look(self, model: LlamaModel, *, plan: Plan, observed: Observed) -> Observed:
        """The same, with what logs and events say of the pods that do not run."""
        key = Key(model.namespace, model.name)
        ends = await asyncio.gather(*(self._end(model, plan, pod, end, key) for pod, end in _ended(observed.pods)))
        unprepared = [pod for pod in observed.pods if pod.prepared_since and not pod.terminating]
        troubles = await asyncio.gather(*(self._trouble(pod, key) for pod in unprepared))
        self._keep(key, pods=observed.pods)
        return replace(
            observed,
            diagnoses={name: diagnosis for name, diagnosis in ends if diagnosis is not None},
            troubles={name: trouble for name, trouble in troubles if trouble is not None},
        )

    def _keep(self, key: Key, *, pods: Iterable[Pod]) -> None:
        """What is known of these pods alone."""
        uids = {pod.uid for pod in pods}
        for known in (self._ends.get(key, {}), self._events.get(key, {})):
            for uid in known.keys() - uids:
                del known[uid]
        for by_model in (self._ends, self._events):
            if not by_model.get(key):
                by_model.pop(key, None)

    async def _end(
        self, model: LlamaModel, plan: Plan, pod: Pod, ended: Termination, key: Key
    ) -> tuple[str, Diagnosis | None]:
        known = self._ends.get(key, {}).get(pod.uid)
        if known is None or replace(known.ended, previous=ended.previous) != ended:
            known = _End(ended=ended, diagnosis=diagnosis_of_status(model.status, ended))
            if known.diagnosis is None and log_may_tell(ended, spec=plan.spec):
                log = await self._read(self._whole_log(pod, previous=ended.previous, namespace=key.namespace), pod, key)
                known = _End(ended=ended, diagnosis=diagnosis_of_log(log, ended=ended, spec=plan.spec) if log else None)
            self._ends.setdefault(key, {})[pod.uid] = known
        return pod.name, known.diagnosis

    async def _whole_log(self, pod: Pod, *, previous: bool, namespace: str) -> str:
        """Its start and its end."""

        def part(*, limit_bytes: int, tail_lines: int | None = None) -> Awaitable[bytes]:
            return self._client.read_log(
                namespace=namespace,
                name=pod.name,
                container=CONTAINER,
                limit_bytes=limit_bytes,
                tail_lines=tail_lines,
                previous=previous,
            )

        log = await part(limit_bytes=_HEAD_BYTES)
        if len(log) >= _HEAD_BYTES:
            log += b"\n" + await part(limit_bytes=_TAIL_BYTES, tail_lines=_TAIL_LINES)
        return log.decode(errors="replace")

    async def _trouble(self, pod: Pod, key: Key) -> tuple[str, Trouble | None]:
        waited = (self._now() - parse_time(pod.prepared_since)).total_seconds()
        if waited < _PATIENCE_SEC:
            self._later(key, _PATIENCE_SEC - waited)
            return pod.name, None
        known = self._events.get(key, {}).get(pod.uid)
        age = (self._now() - known.read).total_seconds() if known is not None else _READ_AGAIN_SEC
        if known is None or age >= _READ_AGAIN_SEC:
            events = await self._read(
                self._client.events_about(namespace=key.namespace, uid=pod.uid, most=_MOST_EVENTS), pod, key
            )
            before = known.trouble if known is not None else None
            known = _Events(read=self._now(), trouble=before if events is None else trouble_of_events(events) or before)
            self._events.setdefault(key, {})[pod.uid] = known
            age = 0.0
        self._later(key, _READ_AGAIN_SEC - age)
        return pod.name, known.trouble

    async def _read(self, reading: Awaitable[T], pod: Pod, key: Key) -> T | None:
        try:
            async with asyncio.timeout(_TIMEOUT_SEC):
                return await reading
        except (ApiError, ClientError, OSError, TimeoutError) as error:
            why = str(error) or type(error).__name__
            _log.info("log or events of pod %s cannot be read: %s", pod.name, why, extra={"model": str(key)})
            return None


def _ended(pods: Iterable[Pod]) -> Iterator[tuple[Pod, Termination]]:
    """Those that ended and do not serve, without being asked to end."""
    for pod in pods:
        if pod.last_termination is not None and not pod.ready and not pod.terminating and not pod.started:
            yield pod, pod.last_termination
