"""The watch of nodes, against an API server of HTTP that says what a test has it say."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
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


class ApiServer:
    """Lists `nodes`, then tells what is put into `events`; None ends the watch."""

    def __init__(self) -> None:
        self.nodes: list[dict[str, Any]] = []
        self.events: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        self.status = 200
        self.lists = 0
        self.watched_from: list[str] = []

    async def answer(self, request: web.Request) -> web.StreamResponse:
        if self.status != 200:
            return web.json_response({"message": "nodes is forbidden"}, status=self.status)
        if "watch" not in request.query:
            self.lists += 1
            start = int(request.query.get("continue", 0))
            more = {"continue": str(start + 1)} if start + 1 < len(self.nodes) else {}
            return web.json_response(
                {"metadata": {"resourceVersion": "100", **more}, "items": self.nodes[start : start + 1]}
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
    def __init__(self, server: ApiServer, watch: NodeWatch, changes: list[int]) -> None:
        self.server = server
        self.watch = watch
        self.changes = changes

    @property
    def names(self) -> list[str] | None:
        nodes = self.watch.nodes()
        return None if nodes is None else [node.name for node in nodes]


@asynccontextmanager
async def watching(*nodes: dict[str, Any], status: int = 200) -> AsyncIterator[Watched]:
    server = ApiServer()
    server.nodes, server.status = list(nodes), status
    application = web.Application()
    application.router.add_get("/api/v1/nodes", server.answer)
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
            yield Watched(server, watch, changes)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
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
        await until(lambda: len(seen.changes) == 1)
        seen.server.tells("ADDED", node("b", version=101))
        seen.server.tells("MODIFIED", node("a", version=102, gpu="l4"))
        seen.server.tells("DELETED", node("b", version=103))
        await until(lambda: len(seen.changes) == 2)
        assert seen.names == ["a"]
        (only,) = seen.watch.nodes() or ()
        assert only.labels == {"gpu": "l4"}


async def test_a_heartbeat_or_a_node_without_gpus_is_no_change() -> None:
    async with watching(node("a")) as seen:
        await until(lambda: len(seen.changes) == 1)
        seen.server.tells("MODIFIED", node("a", version=101, heartbeat="later"))
        seen.server.tells("ADDED", node("cpu", version=102, gpus=0))
        seen.server.tells("DELETED", node("cpu", version=103, gpus=0))
        seen.server.tells("ADDED", node("end", version=104))
        await until(lambda: seen.names == ["a", "end"])
        await until(lambda: len(seen.changes) == 2)


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
        seen.server.nodes = [node("c")]
        seen.server.tells("ERROR", {"code": 410})
        await until(lambda: seen.names == ["c"])


async def test_an_event_of_any_length_is_read() -> None:
    async with watching(node("a")) as seen:
        seen.server.tells("ADDED", node("b", version=101, padding=3 << 20))
        await until(lambda: seen.names == ["a", "b"])


async def test_without_the_right_to_read_nodes_nothing_is_known() -> None:
    async with watching(node("a"), status=403) as seen:
        assert seen.watch.nodes() is None


async def test_where_nodes_are_not_to_be_looked_at_nothing_is_known_and_nobody_waits() -> None:
    watch = NodeWatch(client=None, on_change=lambda: None)
    await watch.ready(within=SOON)
    assert watch.nodes() is None
    task = asyncio.create_task(watch.run())
    await asyncio.sleep(0)
    assert not task.done()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
