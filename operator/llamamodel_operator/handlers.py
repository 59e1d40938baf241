"""Kopf as an event source, and nothing else: each handler notes an object in the cache and queues a LlamaModel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import kopf

from llamamodel_operator.api.labels import MODEL_LABEL
from llamamodel_operator.core.objects.job import INSPECTION_LABEL
from llamamodel_operator.shell.client import MODELS, ClusterClient, Resource
from llamamodel_operator.shell.metrics import Metrics
from llamamodel_operator.shell.resync import label_selector, models_of, namesakes_of
from llamamodel_operator.shell.store import CACHED, Key, Store

__all__ = ["make_registry", "make_settings"]


def make_registry(
    *, client: ClusterClient, store: Store, metrics: Metrics, enqueue: Callable[[Key], None]
) -> kopf.OperatorRegistry:
    """One `on.event` handler per cached kind.

    No other kind of handler: those write annotations, finalizers or progress to the objects they handle.
    """
    registry = kopf.OperatorRegistry()

    @kopf.on.login(registry=registry)
    async def login(**_: Any) -> kopf.AiohttpSession:
        return kopf.AiohttpSession(server=client.server, aiohttp_session=client.new_session())

    def watch(resource: Resource) -> None:
        received = metrics.watch_events.labels(resource=resource.plural)

        @kopf.on.event(resource.group, resource.version, resource.plural, registry=registry)
        async def seen(event: kopf.RawEvent, **_: Any) -> None:
            raw: dict[str, Any] = event["object"]  # type: ignore[assignment]
            received.inc()
            namesakes = namesakes_of(store, Key.of(raw)) if resource is MODELS else frozenset()
            if event["type"] == "DELETED":
                store.remove(resource, raw)
            elif not store.put(resource, raw):
                return  # the answer to our own write told the same before
            labels = raw["metadata"].get("labels") or {}
            label = labels.get(MODEL_LABEL) or labels.get(INSPECTION_LABEL)
            concerned = models_of(store, resource, Key.of(raw), label)
            if resource is MODELS:  # a name that is taken or given back is another's matter too
                namesakes |= namesakes_of(store, Key.of(raw))
            for key in (*concerned, *sorted(namesakes.difference(concerned))):
                enqueue(key)

    for resource in CACHED:
        watch(resource)
    return registry


def make_settings() -> kopf.OperatorSettings:
    """Kopf's settings, each for a reason."""
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False  # our events tell of transitions, not of log lines
    settings.scanning.disabled = True  # needs no rights on namespaces and CRDs; kinds are known
    settings.queueing.idle_timeout = 1.0  # kopf's task per object ends soon after its last event
    settings.queueing.exit_timeout = 1.0
    settings.watching.server_timeout = 280  # watches end and begin anew before load balancers cut them
    settings.networking.request_timeout = 30
    settings.networking.connect_timeout = 10
    settings.process.ultimate_exiting_timeout = 20  # below the pod's grace period of 30 s
    settings.watching.chunk_size = 200
    settings.peering.standalone = True  # leadership is by Lease
    settings.persistence.diffbase_storage = _NoDiffBase()
    settings.persistence.progress_storage = _NoProgress()
    for resource in CACHED:
        if selector := label_selector(resource):
            name = f"{resource.plural}.{resource.group}" if resource.group else resource.plural
            settings.watching.label_selectors[name] = selector
    return settings


class _NoDiffBase(kopf.DiffBaseStorage):
    """`on.event` handlers need no difference to an earlier state: none is computed, and none can be stored."""

    def build(self, *, body: kopf.Body, extra_fields: Any = None) -> kopf.BodyEssence:  # noqa: ARG002
        return kopf.BodyEssence()

    def fetch(self, *, body: kopf.Body) -> None:
        pass

    def store(self, *, body: kopf.Body, patch: kopf.Patch, essence: kopf.BodyEssence) -> None:
        pass


class _NoProgress(kopf.ProgressStorage):
    """`on.event` handlers have no progress: none is looked for, and none can be stored."""

    def fetch(self, **_: Any) -> None:
        pass

    def store(self, **_: Any) -> None:
        pass

    def purge(self, **_: Any) -> None:
        pass

    def touch(self, **_: Any) -> None:
        pass

    def clear(self, *, essence: kopf.BodyEssence) -> kopf.BodyEssence:
        return essence
