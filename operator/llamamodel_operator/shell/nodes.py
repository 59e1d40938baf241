"""The nodes with GPUs: what Nodes say, and what ResourceSlices and DeviceClasses add to it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from llamamodel_operator.core.devices import DeviceClass, DeviceSlice, class_of, slice_of, with_devices
from llamamodel_operator.core.inventory import NodeGpus, node_of
from llamamodel_operator.shell.client import ClusterClient, Resource
from llamamodel_operator.shell.object_watch import ObjectWatch

__all__ = ["NodeWatch"]

_log = logging.getLogger(__name__)

_NODES = Resource(group="", version="v1", plural="nodes", kind="Node")
_SLICES = Resource(group="resource.k8s.io", version="v1", plural="resourceslices", kind="ResourceSlice")
_CLASSES = Resource(group="resource.k8s.io", version="v1", plural="deviceclasses", kind="DeviceClass")

_PAUSE_SEC = 1.0
"""Between two notices at least: a device plugin that is rolled out changes all nodes at once."""


class NodeWatch:
    """The nodes with GPUs, as they are now. Clusters without DRA lack nothing: that is not worth a line in the log."""

    def __init__(self, *, client: ClusterClient | None, on_change: Callable[[], None]) -> None:
        """`client`: None where nodes are not to be looked at. `on_change` is called once a second at most."""
        self._client = client
        self._on_change = on_change
        so = "nothing is said about their GPUs"
        self._nodes: ObjectWatch[NodeGpus] = ObjectWatch(_NODES, keep=node_of, on_change=self._notice, so=so)
        self._slices: ObjectWatch[DeviceSlice] = ObjectWatch(
            _SLICES, keep=slice_of, on_change=self._notice, so=so, level=logging.DEBUG
        )
        self._classes: ObjectWatch[DeviceClass] = ObjectWatch(
            _CLASSES, keep=class_of, on_change=self._notice, so=so, level=logging.DEBUG
        )
        self._known: tuple[NodeGpus, ...] | None = None
        self._due: asyncio.TimerHandle | None = None

    def nodes(self) -> tuple[NodeGpus, ...] | None:
        """Sorted by name; None where they may not be read, or have not been yet. Other threads may ask."""
        return self._known

    async def ready(self, *, within: float) -> None:
        """Returns when nodes were read once, or may not be, or after that many seconds."""
        if self._client is None:
            return
        try:
            async with asyncio.timeout(within):
                for watch in (self._nodes, self._slices, self._classes):
                    await watch.first.wait()
        except TimeoutError:
            _log.warning("nodes and their devices have not been read after %.0f s; starting without", within)
        self._known = self._now()

    async def run(self) -> None:
        """For ever."""
        if self._client is None:
            await asyncio.Event().wait()
            return
        try:
            async with self._client.new_session() as session, asyncio.TaskGroup() as group:
                for watch in (self._nodes, self._slices, self._classes):
                    group.create_task(watch.run(self._client, session))
        finally:
            if self._due is not None:
                self._due.cancel()

    def _now(self) -> tuple[NodeGpus, ...] | None:
        if self._nodes.found is None:
            return None
        slices, classes = self._slices.found or {}, self._classes.found or {}
        return with_devices(self._nodes.found.values(), slices=slices.values(), classes=classes.values())

    def _notice(self) -> None:
        if self._due is None:
            self._due = asyncio.get_running_loop().call_later(_PAUSE_SEC, self._tell)

    def _tell(self) -> None:
        self._due = None
        before, self._known = self._known, self._now()
        if self._known != before:
            self._on_change()
