"""The watch of nodes and their devices, against an API server of HTTP that says what a test has it say."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from llamamodel_operator.shell.client import ClusterClient
from llamamodel_operator.shell.nodes import NodeWatch

pytestmark = pytest.mark.real_time

SOON = 5.0


def node(
    name: str, *, version: int = 1, gpus: int = 1, heartbeat: str = "", padding: int = 0, **labels: str
) -> dict[str, Any]:
    return {
        "metadata": {
            "name": name,
            "resourceVersion": str(version),
            "labels": labels,
            "annotations": {"x": "y" * padding},
        },
        "spec": {},
        "status": {
            "capacity": {"nvidia.com/gpu": str(gpus)} if gpus else {"cpu": "4"},
            "conditions": [{"type": "Ready", "lastHeartbeatTime": heartbeat}],
        },
    }


NVIDIA_CLASS = {
    "metadata": {"name": "gpu.nvidia.com", "creationTimestamp": "2026-01-01T12:00:00Z"},
    "spec": {
        "selectors": [{"cel": {"expression": "device.driver == 'gpu.nvidia.com'"}}],
        "extendedResourceName": "nvidia.com/gpu",
    },
}


def device_slice(node: str, memory: str, *, generation: int = 1) -> dict[str, Any]:
    return {
        "metadata": {"name": f"{node}-slice", "resourceVersion": str(100 + generation)},
        "spec": {
            "driver": "gpu.nvidia.com",
            "nodeName": node,
            "pool": {"name": node, "generation": generation, "resourceSliceCount": 1},
            "devices": [{"name": "gpu-0", "capacity": {"memory": {"value": memory}}}],
        },
    }


class ApiServer:
    """Lists objects of one kind, then tells what is put into `events`; None ends the watch."""

    def __init__(self) -> None:
        self.objects: list[dict[str, Any]] = []
        self.events: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        self.status = 200
        self.lists = 0
        self.watched_from: list[str] = []

    async def answer(self, request: web.Request) -> web.StreamResponse:
        if self.status != 200:
            return web.json_response({"message": "it is forbidden"}, status=self.status)
        if "watch" not in request.query:
            self.lists += 1
            start = int(request.query.get("continue", 0))
            more = {"continue": str(start + 1)} if start + 1 < len(self.objects) else {}
            return web.json_response(
                {"metadata": {"resourceVersion": "100", **more}, "items": self.objects[start : start + 1]}
            )
        self.watched_from.append(request.query["resourceVersion"])
        response = web.StreamResponse()
        await response.prepare(request)
        while (event := await self.events.get()) is not None:
            await response.write(json.dumps(event).encode() + b"\n")
        return response

    def tells(self, kind: str, raw: dict[str, Any]) -> None:
        self.events.put_nowait({"type": kind, "object": raw})


class Watched:
    def __init__(self, servers: dict[str, ApiServer], watch: NodeWatch, changes: list[int]) -> None:
        self.server, self.slices, self.classes = servers.values()
        self.watch = watch
        self.changes = changes

    @property
    def names(self) -> list[str] | None:
        nodes = self.watch.nodes()
        return None if nodes is None else [node.name for node in nodes]


@asynccontextmanager
async def watching(
    *nodes: dict[str, Any], status: int = 200, dra: int = 404, slices: Sequence[dict[str, Any]] = ()
) -> AsyncIterator[Watched]:
    """`status` is that of the answers about nodes, `dra` that of the others."""
    application = web.Application()
    servers = {
        path: ApiServer()
        for path in (
            "/api/v1/nodes",
            "/apis/resource.k8s.io/v1/resourceslices",
            "/apis/resource.k8s.io/v1/deviceclasses",
        )
    }
    for path, server in servers.items():
        application.router.add_get(path, server.answer)
        server.status = dra
    server, of_slices, of_classes = servers.values()
    server.objects, server.status = list(nodes), status
    of_slices.objects, of_classes.objects = list(slices), [NVIDIA_CLASS]
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    (address,) = runner.addresses
    async with aiohttp.ClientSession() as session:
        client = ClusterClient(
            server=f"http://127.0.0.1:{address[1]}", session=session, new_session=aiohttp.ClientSession
        )
        changes: list[int] = []
        watch = NodeWatch(client=client, on_change=lambda: changes.append(1))
        task = asyncio.create_task(watch.run())
        try:
            await watch.ready(within=SOON)
            yield Watched(servers, watch, changes)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            for server in servers.values():
                server.events.put_nowait(None)
            await runner.cleanup()


async def until(holds: Callable[[], bool]) -> None:
    for _ in range(int(SOON / 0.01)):
        if holds():
            return
        await asyncio.sleep(0.01)
    pytest.fail("it did not come true in time")


async def test_nodes_with_extended_resources_are_known_when_it_is_ready() -> None:
    async with watching(node("b"), node("cpu", gpus=0), node("a")) as seen:
        assert seen.names == ["a", "b"]


async def test_changes_are_told_once_however_many_come_together() -> None:
    async with watching(node("a")) as seen:
        seen.server.tells("ADDED", node("b", version=101))
        seen.server.tells("MODIFIED", node("a", version=102, gpu="l4"))
        seen.server.tells("DELETED", node("b", version=103))
        await until(lambda: len(seen.changes) == 1)
        assert seen.names == ["a"]
        (only,) = seen.watch.nodes() or ()
        assert only.labels == {"gpu": "l4"}


async def test_a_heartbeat_or_a_node_without_gpus_is_no_change() -> None:
    async with watching(node("a")) as seen:
        seen.server.tells("MODIFIED", node("a", version=101, heartbeat="later"))
        seen.server.tells("ADDED", node("cpu", version=102, gpus=0))
        seen.server.tells("DELETED", node("cpu", version=103, gpus=0))
        seen.server.tells("ADDED", node("end", version=104))
        await until(lambda: seen.names == ["a", "end"])
        assert len(seen.changes) == 1


async def test_a_watch_that_ends_goes_on_where_it_was() -> None:
    async with watching(node("a")) as seen:
        seen.server.tells("MODIFIED", node("a", version=117, gpu="l4"))
        seen.server.tells("BOOKMARK", {"metadata": {"resourceVersion": "120"}})
        seen.server.events.put_nowait(None)
        await until(lambda: len(seen.server.watched_from) == 2)
        assert seen.server.watched_from == ["100", "120"]
        assert seen.server.lists == 1


async def test_a_watch_that_is_too_far_behind_reads_all_anew() -> None:
    async with watching(node("a")) as seen:
        seen.server.objects = [node("c")]
        seen.server.tells("ERROR", {"code": 410})
        await until(lambda: seen.names == ["c"])


async def test_an_event_of_any_length_is_read() -> None:
    async with watching(node("a")) as seen:
        seen.server.tells("ADDED", node("b", version=101, padding=3 << 20))
        await until(lambda: seen.names == ["a", "b"])


async def test_without_the_right_to_read_nodes_nothing_is_known() -> None:
    async with watching(node("a"), status=403) as seen:
        assert seen.watch.nodes() is None


async def test_devices_of_nodes_are_watched_too() -> None:
    dra = node("dra", gpus=0)
    async with watching(node("a"), dra, dra=200, slices=[device_slice("dra", "24Gi")]) as seen:
        (_, found) = seen.watch.nodes() or ()
        assert (found.name, found.allocatable, found.device_memory["nvidia.com/gpu"]) == (
            "dra",
            {"nvidia.com/gpu": 1},
            24 << 30,
        )
        seen.slices.tells("MODIFIED", device_slice("dra", "48Gi", generation=2))
        await until(lambda: (seen.watch.nodes() or ())[-1].device_memory == {"nvidia.com/gpu": 48 << 30})
        seen.slices.tells("DELETED", device_slice("dra", "48Gi", generation=2))
        await until(lambda: seen.names == ["a"])


@pytest.mark.parametrize("status", [403, 404])
async def test_a_cluster_without_devices_to_be_read_is_as_good_as_before_and_not_worth_a_line(
    status: int, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        async with watching(node("a"), dra=status) as seen:
            assert seen.names == ["a"]
    assert [record for record in caplog.records if record.name.startswith("llamamodel_operator")] == []


async def test_where_nodes_are_not_to_be_looked_at_nothing_is_known_and_nobody_waits() -> None:
    watch = NodeWatch(client=None, on_change=lambda: None)
    await watch.ready(within=SOON)
    assert watch.nodes() is None
    task = asyncio.create_task(watch.run())
    await asyncio.sleep(0)
    assert not task.done()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
