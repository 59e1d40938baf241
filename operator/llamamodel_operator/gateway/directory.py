"""Who may be asked: LlamaModels and their ready pods, by watches. With the API server away, what was known holds."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Coroutine, Mapping, Sequence
from functools import partial
from typing import Any

from llamamodel_operator.api.labels import MANAGED_SELECTOR
from llamamodel_operator.core.gateway.routes import Routes, ServedModel, build_routes, ready_addresses, served_model
from llamamodel_operator.core.objects.names import child_name
from llamamodel_operator.shell.client import MODELS, ClusterClient, Resource
from llamamodel_operator.shell.object_watch import ObjectWatch

__all__ = ["Directory"]

_SLICES = Resource(group="discovery.k8s.io", version="v1", plural="endpointslices", kind="EndpointSlice")

Slice = tuple[str, tuple[str, ...]]


class Directory:
    """Names and addresses, as they are now."""

    def __init__(
        self,
        *,
        namespaces: Sequence[str] = (),
        bare_namespaces: frozenset[str] | None = None,
        defaults: Mapping[str, Any] | None = None,
    ) -> None:
        """Args:
        namespaces: the only ones whose models are served; empty: all.
        bare_namespaces: whose models have bare names as well; None: all of them.
        defaults: a part of a spec, for what a LlamaModel's own says nothing about.
        """
        self._bare_namespaces = bare_namespaces
        self.routes = Routes()
        self._addresses: Mapping[str, tuple[str, ...]] = {}
        self._changed = asyncio.Event()
        self._models: list[ObjectWatch[ServedModel]] = []
        self._slices: list[ObjectWatch[Slice]] = []
        for namespace in namespaces or (None,):
            self._models.append(
                ObjectWatch(
                    MODELS,
                    keep=partial(served_model, defaults=defaults),
                    on_change=self._name_anew,
                    so="what is known of models may be old",
                    namespace=namespace,
                    needed=True,
                )
            )
            self._slices.append(
                ObjectWatch(
                    _SLICES,
                    keep=_slice_of,
                    on_change=self._locate_anew,
                    so="what is known of pods may be old",
                    namespace=namespace,
                    needed=True,
                    selector=MANAGED_SELECTOR,  # the EndpointSlice controller copies the labels of the Service
                )
            )

    async def run(self, client: ClusterClient) -> None:
        """For ever."""
        async with client.new_session() as session, asyncio.TaskGroup() as group:
            for watch in self._watches:
                group.create_task(watch.run(client, session), name="watch")

    def problem(self) -> str | None:
        """Why nobody can be routed to; None once everything was read."""
        if all(watch.found is not None for watch in self._watches):
            return None
        return "LlamaModels and EndpointSlices have not been read yet, or may not be"

    def change(self) -> Coroutine[None, None, object]:
        """Ends when names or addresses are others than at this call, whenever it is awaited."""
        return self._changed.wait()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    @property
    def _watches(self) -> tuple[ObjectWatch[Any], ...]:
        return (*self._models, *self._slices)

    def addresses(self, model: ServedModel) -> tuple[str, ...]:
        """`host:port` of each of its pods that takes requests."""
        return self._addresses.get(f"{model.namespace}/{child_name(model.name)}", ())

    def _name_anew(self) -> None:
        models = [model for watch in self._models for model in (watch.found or {}).values()]
        self.routes = build_routes(models, bare_namespaces=self._bare_namespaces)
        self._tell()

    def _locate_anew(self) -> None:
        found: dict[str, set[str]] = defaultdict(set)
        for watch in self._slices:
            for key, (service, addresses) in (watch.found or {}).items():
                found[f"{key.partition('/')[0]}/{service}"].update(addresses)
        self._addresses = {service: tuple(sorted(addresses)) for service, addresses in found.items()}
        self._tell()


def _slice_of(raw: Mapping[str, Any]) -> Slice | None:
    service, addresses = ready_addresses(raw)
    return (service, addresses) if service else None
