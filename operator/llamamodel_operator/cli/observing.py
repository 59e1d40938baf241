"""One look at a LlamaModel, its pods and its running servers, as `status` and `top` show them. Reads alone."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp

from llamamodel_operator.api.labels import MODEL_LABEL
from llamamodel_operator.cli.cluster import Cluster
from llamamodel_operator.cli.live import Look, NotReadable, Rates, look_at, rates
from llamamodel_operator.cli.pods import is_running
from llamamodel_operator.cli.server_keys import ServerKey, ServerKeys
from llamamodel_operator.cli.servers import server_of_pod
from llamamodel_operator.core.objects.names import child_name
from llamamodel_operator.shell.client import PODS, ApiError

__all__ = ["INTERVAL_SEC", "Observation", "Watcher", "pods_of"]

INTERVAL_SEC = 1.0
"""Between the two looks that tokens per second need."""
_MOST_SERVERS = 64
"""Of one model that are asked."""
_AT_ONCE = 8
"""Servers that are asked at the same time: each is a request through the API server."""


@dataclass(frozen=True, kw_only=True)
class Observation:
    """Attributes:
    model: the LlamaModel, raw.
    pods: raw.
    looks: at servers that run.
    rates: None where nobody knows.
    """

    model: Mapping[str, Any]
    pods: tuple[Mapping[str, Any], ...] | NotReadable
    looks: tuple[Look, ...]
    rates: Rates | None

    @property
    def ready(self) -> bool:
        """Whether the present spec is served, by the operator's word on the present generation."""
        generation = self.model["metadata"].get("generation", 0)
        conditions = (self.model.get("status") or {}).get("conditions") or []
        return any(
            condition.get("type") == "Ready"
            and condition.get("status") == "True"
            and condition.get("observedGeneration", 0) >= generation
            for condition in conditions
        )


class Watcher:
    """Looks again and again, and remembers the last look at each server, from which tokens per second follow."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._keys = ServerKeys(cluster)
        self._free = asyncio.Semaphore(_AT_ONCE)
        self._before: dict[str, tuple[Look, ...]] = {}

    async def observe(self, models: Sequence[Mapping[str, Any]]) -> list[Observation]:
        """One for each model. The first time it takes an interval longer than later."""
        pods = await asyncio.gather(*(self._pods(model) for model in models))
        if any(_uid(model) not in self._before for model in models):
            await self._look(models, pods)
            if any(self._before[_uid(model)] for model in models):
                await asyncio.sleep(INTERVAL_SEC)
        before = self._before
        await self._look(models, pods)
        return [
            Observation(
                model=model,
                pods=found,
                looks=self._before[_uid(model)],
                rates=rates(before.get(_uid(model), ()), self._before[_uid(model)]),
            )
            for model, found in zip(models, pods, strict=True)
        ]

    async def _look(
        self, models: Sequence[Mapping[str, Any]], pods: Sequence[tuple[Mapping[str, Any], ...] | NotReadable]
    ) -> None:
        looks = await asyncio.gather(*map(self._look_at, models, pods))
        self._before = {_uid(model): found for model, found in zip(models, looks, strict=True)}

    async def _look_at(
        self, model: Mapping[str, Any], pods: tuple[Mapping[str, Any], ...] | NotReadable
    ) -> tuple[Look, ...]:
        running = [] if isinstance(pods, NotReadable) else [pod for pod in pods if is_running(pod)]
        if not running:
            return ()
        async with self._free:
            key = await self._keys.of(model)
        return tuple(await asyncio.gather(*(self._look_at_one(pod, key) for pod in running[:_MOST_SERVERS])))

    async def _look_at_one(self, pod: Mapping[str, Any], key: ServerKey) -> Look:
        metadata = pod["metadata"]
        server = server_of_pod(self._cluster, metadata["name"], key=key, namespace=metadata["namespace"])
        async with self._free:
            return await look_at(server)

    async def _pods(self, model: Mapping[str, Any]) -> tuple[Mapping[str, Any], ...] | NotReadable:
        async with self._free:
            return await pods_of(self._cluster, model)


async def pods_of(cluster: Cluster, model: Mapping[str, Any]) -> tuple[Mapping[str, Any], ...] | NotReadable:
    """Those that run, or shall run, its server; oldest first."""
    metadata = model["metadata"]
    selector = f"{MODEL_LABEL}={child_name(metadata['name'])}"
    try:
        listing = cluster.client.list(PODS, namespace=metadata["namespace"], label_selector=selector)
        found = [pod async for chunk in listing for pod in chunk]
    except ApiError as error:
        return NotReadable(str(error))
    except TimeoutError:
        return NotReadable("the API server does not answer")
    except aiohttp.ClientError as error:
        return NotReadable(str(error))
    order = sorted(found, key=lambda pod: (pod["metadata"].get("creationTimestamp") or "", pod["metadata"]["name"]))
    return tuple(order)


def _uid(model: Mapping[str, Any]) -> str:
    return str(model["metadata"]["uid"])
