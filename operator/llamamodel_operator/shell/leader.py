"""Leader election by a `coordination.k8s.io` Lease: at most one process writes.

The rules are client-go's (tools/leaderelection): a lease is free when nobody has renewed it for its duration, by
the watcher's own clock since it last saw a change; clocks of different machines are never compared. The holder
stops writing well before that, `RENEW_DEADLINE_SEC` after it *sent* its last successful renewal.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import aiohttp

from llamamodel_operator.shell.client import LEASES, ApiError, ClusterClient

__all__ = ["LEASE_DURATION_SEC", "LeaseLock", "LeaseLostError"]

LEASE_DURATION_SEC = 12.0
"""After so long without renewal others may take the lease."""
RENEW_DEADLINE_SEC = 8.0
"""After so long without renewal the holder writes nothing more, and exits."""
RETRY_PERIOD_SEC = 2.0
"""Pause between renewals, and between looks at somebody else's lease."""

_log = logging.getLogger(__name__)
_FAILURES = (ApiError, aiohttp.ClientError, TimeoutError, OSError)


class LeaseLostError(Exception):
    """This process does not lead (any more) and must not write."""


class LeaseLock:
    """One lease, seen by one candidate.

    `clock` counts seconds and goes on while the process is frozen (CLOCK_BOOTTIME); `client` has no fence.
    """

    def __init__(
        self, *, client: ClusterClient, namespace: str, name: str, identity: str, clock: Callable[[], float]
    ) -> None:
        self._client = client
        self._namespace = namespace
        self._name = name
        self._identity = identity
        self._clock = clock
        self._held: Mapping[str, Any] | None = None
        self._renewed = float("-inf")
        self._seen: tuple[str, float] | None = None
        self._other = ""
        self.problem: str | None = None
        """Why the last look at the lease failed; None after one that did not."""

    def check(self) -> None:
        """The fence of every write. Raises LeaseLostError."""
        if self._clock() - self._renewed >= RENEW_DEADLINE_SEC:
            raise LeaseLostError(f"the lease {self._namespace}/{self._name} was not renewed in time")

    @property
    def leading(self) -> bool:
        """Whether writes are allowed now."""
        return self._clock() - self._renewed < RENEW_DEADLINE_SEC

    async def acquire(self) -> None:
        """Returns when this process leads."""
        while True:
            try:
                async with asyncio.timeout(RENEW_DEADLINE_SEC):
                    acquired = await self._try_acquire()
            except _FAILURES as error:
                self._report(error)
            else:
                self.problem = None
                if acquired:
                    _log.info("leading, by the lease %s/%s", self._namespace, self._name)
                    return
            await asyncio.sleep(RETRY_PERIOD_SEC)

    async def keep(self) -> None:
        """Renews until that fails for too long. Raises LeaseLostError."""
        while True:
            await asyncio.sleep(RETRY_PERIOD_SEC)
            self.check()
            try:
                async with asyncio.timeout(RENEW_DEADLINE_SEC - (self._clock() - self._renewed)):
                    await self._renew()
            except ApiError as error:
                if error.status == 404:
                    self._renewed = float("-inf")
                    raise LeaseLostError("somebody deleted the lease") from None
                self._report(error)
            except _FAILURES as error:
                self._report(error)
            else:
                self.problem = None

    async def release(self) -> None:
        """Lets the next one lead at once. Called when all work has ended."""
        if self._held is None or not self.leading:
            return
        self._renewed = float("-inf")
        try:
            async with asyncio.timeout(RETRY_PERIOD_SEC):
                await self._give_back(self._held)
        except _FAILURES as error:
            _log.info("the lease could not be released, it will expire: %s", _sentence(error))

    async def _give_back(self, held: Mapping[str, Any]) -> None:
        """Without a holder. A renewal that was cut short may have arrived all the same: then the lease is read anew."""
        spec = {**held["spec"], "holderIdentity": "", "leaseDurationSeconds": 1, "renewTime": _micro_time()}
        try:
            await self._client.replace(LEASES, {**held, "spec": spec})
        except ApiError as error:
            if error.status != 409:
                raise
            lease = await self._client.get(LEASES, namespace=self._namespace, name=self._name)
            if lease is None or (lease.get("spec") or {}).get("holderIdentity") != self._identity:
                return
            await self._client.replace(LEASES, {**lease, "spec": spec})
        _log.info("released the lease %s/%s", self._namespace, self._name)

    async def _try_acquire(self) -> bool:
        asked = self._clock()
        lease = await self._client.get(LEASES, namespace=self._namespace, name=self._name)
        try:
            if lease is None:
                self._held = await self._client.create(LEASES, self._record(transitions=0))
            elif self._is_free(lease):
                transitions = ((lease.get("spec") or {}).get("leaseTransitions") or 0) + 1
                record = self._record(transitions=transitions)
                body = {**lease, "spec": record["spec"]}
                self._held = await self._client.replace(LEASES, body)
            else:
                return False
        except ApiError as error:
            if error.status == 409:  # another candidate was faster
                return False
            raise
        self._renewed = asked
        return True

    async def _renew(self) -> None:
        assert self._held is not None  # noqa: S101 (keep follows acquire)
        asked = self._clock()
        body = {**self._held, "spec": {**self._held["spec"], "renewTime": _micro_time()}}
        try:
            self._held = await self._client.replace(LEASES, body)
        except ApiError as error:
            if error.status != 409:
                raise
            await self._look_again()
            return
        self._renewed = asked

    async def _look_again(self) -> None:
        """After a conflict: with ourselves, where the answer to a renewal was lost, or with whoever leads now."""
        lease = await self._client.get(LEASES, namespace=self._namespace, name=self._name)
        holder = ((lease or {}).get("spec") or {}).get("holderIdentity") or "nobody"
        if lease is None or holder != self._identity:
            self._renewed = float("-inf")
            raise LeaseLostError(f"{holder} holds the lease now")
        self._held = lease
        await self._renew()

    def _report(self, error: BaseException) -> None:
        """Says once what is wrong, not every two seconds."""
        sentence = f"the lease {self._namespace}/{self._name} cannot be had: {_sentence(error)}"
        if sentence != self.problem:
            _log.warning("%s", sentence)
        self.problem = sentence

    def _is_free(self, lease: Mapping[str, Any]) -> bool:
        spec, version = lease.get("spec") or {}, lease["metadata"]["resourceVersion"]
        holder = spec.get("holderIdentity") or ""
        if holder in ("", self._identity):  # ours: an answer got lost
            return True
        if self._seen is None or self._seen[0] != version:
            self._seen = (version, self._clock())
        if holder != self._other:
            self._other = holder
            _log.info("standing by, %s leads", holder)
        return self._clock() - self._seen[1] >= float(spec.get("leaseDurationSeconds") or LEASE_DURATION_SEC)

    def _record(self, *, transitions: int) -> dict[str, Any]:
        now = _micro_time()
        return {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"namespace": self._namespace, "name": self._name},
            "spec": {
                "holderIdentity": self._identity,
                "leaseDurationSeconds": int(LEASE_DURATION_SEC),
                "acquireTime": now,
                "renewTime": now,
                "leaseTransitions": transitions,
            },
        }


def _micro_time() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _sentence(error: BaseException) -> str:
    return str(error) or type(error).__name__
