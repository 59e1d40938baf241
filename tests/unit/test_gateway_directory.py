"""What the gateway knows of models and pods, by watches of an API server that a test has started."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any, cast

import aiohttp
import orjson
import pytest
from aiohttp import web

from llamamodel_operator.gateway.directory import Directory
from llamamodel_operator.shell.client import ClusterClient

pytestmark = pytest.mark.real_time

MODEL = {
    "metadata": {"namespace": "demo", "name": "gemma", "resourceVersion": "2"},
    "spec": {"servedModelName": "chat"},
}
SLICE = {
    "metadata": {
        "namespace": "demo",
        "name": "gemma-1",
        "resourceVersion": "3",
        "labels": {"kubernetes.io/service-name": "gemma"},
    },
    "ports": [{"name": "http", "port": 8080}],
    "endpoints": [{"addresses": ["10.0.0.1"]}],
}


class Api:
    """Lists nothing, and tells watches what a test says."""

    def __init__(self) -> None:
        self._told: dict[str, asyncio.Queue[dict[str, Any]]] = {}
        self.server = ""
        self.refuses = False
        """Says of each list that it may not be read."""
        self.refused = asyncio.Semaphore(0)

    def tell(self, plural: str, kind: str, raw: dict[str, Any]) -> None:
        self._queue(plural).put_nowait({"type": kind, "object": raw})

    def new_session(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession()

    def _queue(self, plural: str) -> asyncio.Queue[dict[str, Any]]:
        return self._told.setdefault(plural, asyncio.Queue())

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        if "watch" not in request.query and self.refuses:
            self.refused.release()
            return web.json_response({"message": "forbidden"}, status=403)
        if "watch" not in request.query:
            return web.json_response({"items": [], "metadata": {"resourceVersion": "1"}})
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            event = await self._queue(request.path.rpartition("/")[2]).get()
            await response.write(orjson.dumps(event) + b"\n")


@asynccontextmanager
async def watching() -> AsyncIterator[tuple[Api, Directory]]:
    api, directory = Api(), Directory()
    runner = web.ServerRunner(web.Server(api.answer, access_log=None, handler_cancellation=True), shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    api.server = f"http://127.0.0.1:{runner.addresses[0][1]}"
    task = asyncio.create_task(directory.run(cast(ClusterClient, api)))
    try:
        yield api, directory
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        await runner.cleanup()


async def test_who_waits_is_woken_by_a_name_and_by_an_address() -> None:
    async with asyncio.timeout(20), watching() as (api, directory):
        while directory.problem():
            await directory.change()
        assert directory.routes.find("chat") is None
        api.tell("llamamodels", "ADDED", MODEL)
        await directory.change()
        target = directory.routes.find("chat")
        assert target is not None
        assert directory.addresses(target.model) == ()
        two = [asyncio.create_task(directory.change()) for _ in range(2)]
        await asyncio.sleep(0)
        api.tell("endpointslices", "ADDED", SLICE)
        await asyncio.gather(*two)
        assert directory.addresses(target.model) == ("10.0.0.1:8080",)
        api.tell("llamamodels", "DELETED", MODEL)
        await directory.change()
        assert directory.routes.find("chat") is None


async def test_a_refusal_takes_nothing_away_and_is_soon_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llamamodel_operator.shell.object_watch._AGAIN_SEC", 0.01)
    async with asyncio.timeout(20), watching() as (api, directory):
        api.tell("llamamodels", "ADDED", MODEL)
        while directory.routes.find("chat") is None:
            await directory.change()
        api.refuses = True
        api.tell("llamamodels", "ERROR", {"code": 410})  # all must be read anew
        for _ in range(2):
            await api.refused.acquire()
        assert directory.routes.find("chat") is not None
        api.refuses = False
        await directory.change()
        assert directory.routes.find("chat") is None, "the list is read again, and has none"
