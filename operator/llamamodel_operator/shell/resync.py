"""Periodic comparison of the cache with the API server: finds what a watch did not tell."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

import aiohttp

from llamamodel_operator.api.labels import MANAGED_SELECTOR, WATCH_LABEL
from llamamodel_operator.shell.client import (
    CONFIG_MAPS,
    JOBS,
    MODELS,
    PERSISTENT_VOLUME_CLAIMS,
    PODS,
    ApiError,
    ClusterClient,
    Resource,
)
from llamamodel_operator.shell.metrics import Metrics
from llamamodel_operator.shell.store import (
    CACHED,
    CHILDREN,
    Key,
    Store,
    claim_group,
    config_map_group,
    name_groups,
    version_of,
)

__all__ = ["Resync", "models_of", "namesakes_of"]

_log = logging.getLogger(__name__)

_GRACE_SEC = 10.0
"""How long a watch may take to tell of a change before it counts as deaf."""
_FIRST_SEC = 30.0
_CHUNK = 200
_UNREACHABLE = (aiohttp.ClientError, TimeoutError, OSError)


def label_selector(resource: Resource) -> str:
    """What is asked of the API server, in lists and in watches: of children and pods only our own, of ConfigMaps
    those of users with our label too."""
    if resource is CONFIG_MAPS:
        return WATCH_LABEL
    return MANAGED_SELECTOR if resource in CHILDREN or resource in (JOBS, PODS) else ""


def models_of(store: Store, resource: Resource, key: Key, label: str | None) -> Sequence[Key]:
    """The LlamaModels that an object concerns."""
    if resource is MODELS:
        return (key,)
    if resource is PERSISTENT_VOLUME_CLAIMS:
        return store.keys_in(MODELS, claim_group(key))
    by_label = store.keys_in(MODELS, Key(key.namespace, label)) if label else ()
    if resource is CONFIG_MAPS:
        return tuple({*by_label, *store.keys_in(MODELS, config_map_group(key))})
    if resource in CHILDREN:  # by its name too, since somebody may have edited its labels
        return tuple({*by_label, *store.keys_in(MODELS, key)})
    return by_label


def namesakes_of(store: Store, key: Key) -> frozenset[Key]:
    """The LlamaModels that share a name at the gateway with this one, itself included; none where it is not known."""
    raw = store.get(MODELS, key)
    groups = name_groups(raw) if raw is not None else ()
    return frozenset(other for group in groups for other in store.keys_in(MODELS, group))


class Resync:
    """Fills the cache at the start, then checks it every `interval_sec`, and asks for a pass over every model."""

    def __init__(
        self,
        *,
        client: ClusterClient,
        store: Store,
        metrics: Metrics,
        namespaces: Sequence[str],
        interval_sec: float,
        enqueue: Callable[[Key], None],
    ) -> None:
        self._client = client
        self._store = store
        self._metrics = metrics
        self._namespaces: Sequence[str | None] = namespaces or (None,)
        self._interval_sec = interval_sec
        self._enqueue = enqueue
        self.deaf: frozenset[str] = frozenset()
        """Resources whose watch did not tell of changes that the last comparison found."""
        self.last_success: float | None = None
        """When the last comparison was complete, by the event loop's clock."""

    async def fill(self) -> None:
        """Reads everything once, before the first pass: decisions never rest on a half-filled cache.

        Waits, and says so, while the CustomResourceDefinition is missing or the API server does not answer.
        """
        while True:
            try:
                for resource in CACHED:
                    await self._fill(resource)
                break
            except ApiError as error:
                if error.status == 404:
                    _log.error("the CustomResourceDefinition of LlamaModel is not installed: install the chart's CRD")
                else:
                    _log.error("the cluster cannot be read: %s", error)
            except _UNREACHABLE as error:
                _log.error("the API server does not answer: %s", str(error) or type(error).__name__)
            await asyncio.sleep(5)
        self.last_success = asyncio.get_running_loop().time()
        self._enqueue_all()

    async def _fill(self, resource: Resource) -> None:
        left_from_an_earlier_try = set(self._store.keys(resource))
        async for raw in self._list(resource):
            self._store.put(resource, raw)
            left_from_an_earlier_try.discard(Key.of(raw))
        for key in left_from_an_earlier_try:
            self._store.discard(resource, key)

    async def run(self) -> None:
        """Compares for ever."""
        pause = min(_FIRST_SEC, self._interval_sec)  # soon, for what fell between the first reading and the watches
        while True:
            await asyncio.sleep(pause)
            pause = self._interval_sec
            try:
                await self.compare()
            except (ApiError, *_UNREACHABLE) as error:
                reason = str(error) or type(error).__name__
                _log.warning("resync failed, the next one is in %.0f s: %s", self._interval_sec, reason)

    async def compare(self) -> None:
        """One comparison. What is newer than the cache gets a moment to arrive by its watch."""
        newer: list[tuple[Resource, Mapping[str, Any]]] = []
        gone: list[tuple[Resource, Key, int]] = []
        for resource in CACHED:
            known = {key: self._store.version(resource, key) for key in self._store.keys(resource)}
            async for raw in self._list(resource):
                known.pop(key := Key.of(raw), None)
                if self._store.version(resource, key) < version_of(raw):
                    newer.append((resource, raw))
            gone.extend((resource, key, version) for key, version in known.items())
        if newer or gone:
            await asyncio.sleep(_GRACE_SEC)
        missed = Counter(resource.plural for resource, raw in newer if self._store.put(resource, raw))
        for plural, number in missed.items():
            self._metrics.missed_events.labels(resource=plural).inc(number)
            _log.error("the watch of %s is deaf: it did not tell of %d changes", plural, number)
        for resource, key, version in gone:
            if self._store.version(resource, key) == version:
                self._store.discard(resource, key)
        self.deaf = frozenset(missed)
        self.last_success = asyncio.get_running_loop().time()
        self._enqueue_all()

    async def _list(self, resource: Resource) -> AsyncIterator[dict[str, Any]]:
        for namespace in self._namespaces:
            chunks = self._client.list(
                resource, namespace=namespace, label_selector=label_selector(resource), chunk_size=_CHUNK
            )
            async for items in chunks:
                for raw in items:
                    yield raw

    def _enqueue_all(self) -> None:
        for key in self._store.keys(MODELS):
            self._enqueue(key)
