"""Asking running servers: passes never wait, nothing is asked twice, scales are put right, and no answer is trusted."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import logging
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from llamamodel_operator.api.spec import Task
from llamamodel_operator.core.engine.buffer_log import Measured
from llamamodel_operator.core.engine.offload_log import Offload
from llamamodel_operator.core.engine.proof import Expected
from llamamodel_operator.core.memory.estimate import DeviceMemory
from llamamodel_operator.core.observed import Pod, Proof, ServerReport
from llamamodel_operator.shell import prober as module
from llamamodel_operator.shell.client import ApiError
from llamamodel_operator.shell.log_reader import LoadLog
from llamamodel_operator.shell.prober import Prober
from llamamodel_operator.shell.store import Key

pytestmark = pytest.mark.real_time

GEMMA = Key("demo", "gemma")
BUILD = ServerReport(build=11669)
MEASURED = Measured(gpus=(), host=DeviceMemory(weights=235, kv_cache=27, compute=22))

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Timers:
    """Stands in for the event loop's `call_later`: the test says when time has passed."""

    def __init__(self) -> None:
        self.delays: list[float] = []
        self._set: list[tuple[Callable[[], None], OneTimer]] = []

    def __call__(self, delay: float, callback: Callable[[], None]) -> OneTimer:
        timer = OneTimer()
        self.delays.append(delay)
        self._set.append((callback, timer))
        return timer

    def fire(self) -> None:
        due, self._set = self._set, []
        for callback, timer in due:
            if not timer.cancelled:
                callback()


class OneTimer:
    def __init__(self) -> None:
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class LlamaServer:
    """The part of llama-server that is asked, over real HTTP; `instead` replaces the answer to a method and path."""

    def __init__(self) -> None:
        self.scales: list[float] = []
        self.requests: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.posted: list[Any] = []
        self.instead: dict[str, Answer] = {}
        self.key = ""
        self.now = self.most = 0
        self.port = 0

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        application = web.Application()
        application.router.add_route("*", "/{path:.*}", self._answer)
        runner = web.AppRunner(application, access_log=None, handle_signals=False, handler_cancellation=True)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            self.port = runner.addresses[0][1]
            yield
        finally:
            await runner.cleanup()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        asked = f"{request.method} {request.path}"
        self.requests.append(asked)
        self.headers.append({name.lower(): value for name, value in request.headers.items()})
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            if self.key and request.path != "/health" and request.headers.get("Authorization") != f"Bearer {self.key}":
                return web.json_response({"error": {"message": "Invalid API Key"}}, status=401)
            return await self.instead.get(asked, self._as_llama)(request)
        finally:
            self.now -= 1

    async def _as_llama(self, request: web.Request) -> web.StreamResponse:
        if request.path == "/props":
            return web.json_response({"build_info": "b11669-Debian", "total_slots": 4})
        if request.method == "POST":
            self.posted.append(given := await request.json())
            named = {entry["id"]: _single(entry["scale"]) for entry in given}
            self.scales = [named.get(index, 0.0) for index in range(len(self.scales))]
            return web.json_response({"success": True})
        return web.json_response(
            [{"id": index, "path": f"/models/{index}.gguf", "scale": scale} for index, scale in enumerate(self.scales)]
        )


class World:
    def __init__(self, server: LlamaServer) -> None:
        self.server = server
        self.timers = Timers()
        self.again: list[Key] = []
        self.logs_read: list[str] = []
        self.log_says: Measured | Exception | None = None
        self.log_hangs = False
        self.offload: Offload | None = None
        self.keys: dict[str, str] = {}
        self.prober = Prober(
            again=self.again.append,
            read_log=self._read_log,
            pod_key=lambda namespace: self.keys.get(namespace),
            call_later=self.timers,
            port=server.port,
        )

    async def _read_log(self, namespace: str, pod: str) -> LoadLog:
        self.logs_read.append(f"{namespace}/{pod}")
        if self.log_hangs:
            await asyncio.Event().wait()
        if isinstance(self.log_says, Exception):
            raise self.log_says
        return LoadLog(measured=self.log_says, offload=self.offload)

    def asks(
        self,
        *pods: Pod,
        scales: tuple[float, ...] | None = None,
        read_log: bool = False,
        expected: Expected | None = None,
    ) -> dict[str, ServerReport]:
        return dict(self.prober.reports(GEMMA, pods or [a_pod()], scales=scales, read_log=read_log, expected=expected))

    async def settled(self) -> None:
        """Every ask has ended, or waits for a timer."""
        servers = self.prober._servers.get(GEMMA, {})
        await until(
            lambda: (
                not any(server.due.is_set() for server in servers.values())
                and len(asking()) == sum(not timer.cancelled for _, timer in self.timers._set)
            )
        )

    async def knows(
        self,
        *pods: Pod,
        scales: tuple[float, ...] | None = None,
        read_log: bool = False,
        expected: Expected | None = None,
    ) -> dict[str, ServerReport]:
        self.asks(*pods, scales=scales, read_log=read_log, expected=expected)
        await self.settled()
        return self.asks(*pods, scales=scales, read_log=read_log, expected=expected)

    async def time_passes(self) -> None:
        self.timers.fire()
        await asyncio.sleep(0)
        await self.settled()


@asynccontextmanager
async def a_world(*, scales: tuple[float, ...] = ()) -> AsyncIterator[World]:
    server = LlamaServer()
    server.scales = [_single(scale) for scale in scales]
    async with server.running():
        world = World(server)
        try:
            yield world
        finally:
            await world.prober.close()
            assert asking() == []


def a_pod(name: str = "gemma-0", *, run: str = "1", ready: bool = True, address: str = "127.0.0.1") -> Pod:
    return Pod(name=name, ready=ready, address=address, container_id=f"containerd://{run}")


def asking() -> list[str]:
    return [task.get_name() for task in asyncio.all_tasks() if task.get_name().startswith("ask-")]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 (conditions of many kinds)
            await asyncio.sleep(0.001)


def says(body: Any = None, *, status: int = 200, text: str | None = None, headers: Any = None) -> Answer:
    async def answer(_: web.Request) -> web.StreamResponse:
        if text is not None:
            return web.Response(text=text, status=status, headers=headers)
        return web.json_response(body, status=status, headers=headers)

    return answer


def _single(value: float) -> float:
    return float(struct.unpack("f", struct.pack("f", value))[0])


# --- which build


async def test_a_pass_gets_what_is_known_and_another_one_is_asked_for_when_more_is() -> None:
    async with a_world() as world:
        assert world.asks() == {}
        assert world.server.requests == []
        await world.settled()
        assert world.again == [GEMMA]
        assert world.asks() == {"gemma-0": BUILD}


async def test_a_container_without_adapters_is_asked_once() -> None:
    async with a_world() as world:
        await world.knows()
        for _ in range(3):
            world.asks()
        assert asking() == []
        assert world.server.requests == ["GET /props"]
        assert world.again == [GEMMA]


async def test_while_a_server_is_asked_passes_do_not_ask_again() -> None:
    async with a_world() as world:
        for _ in range(3):
            world.asks()
        await world.settled()
        assert world.server.requests == ["GET /props"]


@pytest.mark.parametrize("later", [a_pod(run="2"), a_pod(address="127.0.0.2")])
async def test_of_another_run_nothing_is_known_yet(later: Pod) -> None:
    async with a_world() as world:
        await world.knows()
        assert world.asks(later) == {}


async def test_a_container_that_was_started_again_is_asked_again() -> None:
    async with a_world() as world:
        await world.knows()
        world.server.instead["GET /props"] = says({"build_info": "b10434-abcdef"})
        assert await world.knows(a_pod(run="2")) == {"gemma-0": ServerReport(build=10434)}


@pytest.mark.parametrize("not_yet", [a_pod(ready=False), a_pod(address="")])
async def test_only_ready_pods_with_an_address_are_asked(not_yet: Pod) -> None:
    async with a_world() as world:
        assert await world.knows(not_yet) == {}
        assert world.server.requests == []
        assert world.timers.delays == []
        assert await world.knows() == {"gemma-0": BUILD}


async def test_a_pod_that_is_not_ready_any_more_has_nothing_to_say() -> None:
    async with a_world() as world:
        await world.knows()
        assert world.asks(a_pod(ready=False)) == {}


async def test_each_pod_is_asked_and_known_by_its_name() -> None:
    async with a_world() as world:
        pods = [a_pod(f"gemma-{number}") for number in range(3)]
        assert await world.knows(*pods) == {pod.name: BUILD for pod in pods}
        assert world.server.requests == 3 * ["GET /props"]


@pytest.mark.parametrize(
    ("answer", "build"),
    [
        ({"build_info": "b10434-abcdef"}, 10434),
        ({"build_info": "b11669-Debian", "chat_template": "x" * 100_000}, 11669),
        ({"build_info": ""}, None),
        ({"build_info": "unknown"}, None),
        ({"build_info": 11669}, None),
        ({"build_info": ["b11669-Debian"]}, None),
        ({}, None),
        ([], None),
        (None, None),
        ("b11669-Debian", None),
    ],
)
async def test_the_build_is_what_build_info_says(answer: object, build: int | None) -> None:
    async with a_world() as world:
        world.server.instead["GET /props"] = says(answer)
        assert await world.knows() == {"gemma-0": ServerReport(build=build)}


@pytest.mark.parametrize("status", [404, 501])
async def test_a_build_without_such_a_path_is_asked_for_its_scales_all_the_same(status: int) -> None:
    async with a_world(scales=(0.5,)) as world:
        world.server.instead["GET /props"] = says({"error": {"message": "not found"}}, status=status)
        assert await world.knows(scales=(0.5,)) == {"gemma-0": ServerReport(scales=(0.5,))}


# --- memory


async def test_a_log_is_read_once_in_a_run_and_only_where_it_can_tell() -> None:
    async with a_world(scales=(1,)) as world:
        world.log_says = MEASURED
        assert await world.knows(scales=(1.0,)) == {"gemma-0": ServerReport(build=11669, scales=(1.0,))}
        assert world.logs_read == []
        later = a_pod(run="2")
        assert await world.knows(later, scales=(1.0,), read_log=True) == {
            "gemma-0": ServerReport(build=11669, scales=(1.0,), measured=MEASURED)
        }
        await world.time_passes()
        await world.knows(later, scales=(0.5,), read_log=True)
        assert world.logs_read == ["demo/gemma-0"]


async def test_another_run_is_measured_anew() -> None:
    async with a_world() as world:
        world.log_says = MEASURED
        await world.knows(read_log=True)
        world.log_says = None
        assert await world.knows(a_pod(run="2"), read_log=True) == {"gemma-0": BUILD}
        assert world.logs_read == ["demo/gemma-0", "demo/gemma-0"]


@pytest.mark.parametrize("status", [400, 403, 404])
async def test_a_log_that_may_not_be_read_is_let_be(status: int) -> None:
    async with a_world() as world:
        world.log_says = ApiError(status=status, reason="", message="pods/log: no")
        assert await world.knows(read_log=True) == {"gemma-0": BUILD}
        assert await world.knows(read_log=True) == {"gemma-0": BUILD}
        assert world.logs_read == ["demo/gemma-0"]
        assert asking() == []


async def test_a_log_that_cannot_be_read_now_is_read_later() -> None:
    async with a_world() as world:
        world.log_says = ApiError(status=503, reason="", message="busy")
        assert await world.knows(read_log=True) == {"gemma-0": replace(BUILD, log_pending=True)}
        assert world.timers.delays == [5]
        world.log_says = MEASURED
        await world.time_passes()
        assert world.asks(read_log=True) == {"gemma-0": ServerReport(build=11669, measured=MEASURED)}


async def test_a_log_that_can_never_be_read_is_let_be_in_the_end_and_nothing_waits_for_it() -> None:
    async with a_world(scales=(1,)) as world:
        world.log_says = ApiError(status=500, reason="InternalError", message="the kubelet does not answer")
        known = ServerReport(build=11669, scales=(0.5,))
        assert await world.knows(scales=(0.5,), read_log=True) == {"gemma-0": replace(known, log_pending=True)}
        for _ in range(6):
            await world.time_passes()
        assert world.asks(scales=(0.5,), read_log=True) == {"gemma-0": known}
        assert len(world.logs_read) == module._LOG_TRIES
        assert sorted(world.timers.delays) == [5, 10, 20, 40, *7 * [60]]


async def test_a_log_that_takes_too_long_is_let_be_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LOG_SEC", 0.01)
    async with a_world() as world:
        world.log_hangs = True
        await world.knows(read_log=True)
        for _ in range(module._LOG_TRIES):
            await world.time_passes()
        assert world.asks(read_log=True) == {"gemma-0": BUILD}
        assert len(world.logs_read) == module._LOG_TRIES
        assert world.again[-1] == GEMMA
        assert asking() == []


async def test_a_server_that_cannot_be_reached_is_measured_all_the_same() -> None:
    async with a_world() as world:
        world.log_says = MEASURED
        world.server.instead["GET /props"] = says(status=401)
        assert await world.knows(read_log=True) == {"gemma-0": ServerReport(measured=MEASURED)}
        assert world.again == [GEMMA]
        world.server.instead.clear()
        await world.time_passes()
        assert world.asks(read_log=True) == {"gemma-0": ServerReport(build=11669, measured=MEASURED)}
        assert world.logs_read == ["demo/gemma-0"]


# --- scales


async def test_scales_that_are_right_are_left_alone_and_reported_as_they_are_written() -> None:
    async with a_world(scales=(0.1, -2.5, 0)) as world:
        assert _single(0.1) != 0.1
        assert await world.knows(scales=(0.1, -2.5, 0.0)) == {
            "gemma-0": ServerReport(build=11669, scales=(0.1, -2.5, 0.0))
        }
        assert world.server.requests == ["GET /props", "GET /lora-adapters"]


async def test_where_one_differs_all_are_sent_and_read_back() -> None:
    async with a_world(scales=(1, 1)) as world:
        assert await world.knows(scales=(1.0, 0.3)) == {"gemma-0": ServerReport(build=11669, scales=(1.0, 0.3))}
        assert world.server.posted == [[{"id": 0, "scale": 1.0}, {"id": 1, "scale": 0.3}]]
        assert world.server.requests[1:] == ["GET /lora-adapters", "POST /lora-adapters", "GET /lora-adapters"]
        assert world.again == [GEMMA]


async def test_a_changed_scale_acts_at_once_and_the_build_is_not_asked_again() -> None:
    async with a_world(scales=(1,)) as world:
        await world.knows(scales=(1.0,))
        assert world.asks(scales=(0.5,)) == {"gemma-0": ServerReport(build=11669, scales=(1.0,))}
        await world.settled()
        assert world.asks(scales=(0.5,)) == {"gemma-0": ServerReport(build=11669, scales=(0.5,))}
        assert world.again == [GEMMA, GEMMA]
        assert world.server.requests.count("GET /props") == 1


async def test_adapters_of_a_server_that_nothing_more_was_wanted_of_are_asked_for() -> None:
    async with a_world(scales=(1,)) as world:
        await world.knows()
        assert asking() == []
        assert await world.knows(scales=(0.5,)) == {"gemma-0": ServerReport(build=11669, scales=(0.5,))}


async def test_a_scale_that_changes_while_its_server_is_asked_is_right_in_the_end() -> None:
    async with a_world(scales=(1,)) as world:
        world.asks(scales=(0.5,))
        await until(lambda: "POST /lora-adapters" in world.server.requests)
        assert await world.knows(scales=(0.25,)) == {"gemma-0": ServerReport(build=11669, scales=(0.25,))}


async def test_a_scale_that_somebody_else_changed_is_put_back_within_a_minute() -> None:
    async with a_world(scales=(1,)) as world:
        await world.knows(scales=(1.0,))
        assert world.timers.delays == [60]
        world.server.scales = [0.0]
        await world.time_passes()
        assert world.server.scales == [1.0]
        assert world.again == [GEMMA]


async def test_a_container_that_was_started_again_gets_its_scales_again() -> None:
    async with a_world(scales=(1,)) as world:
        await world.knows(scales=(0.5,))
        world.server.scales = [1.0]
        assert await world.knows(a_pod(run="2"), scales=(0.5,)) == {"gemma-0": ServerReport(build=11669, scales=(0.5,))}


async def test_only_what_is_read_back_is_believed() -> None:
    async with a_world(scales=(1,)) as world:
        world.server.instead["POST /lora-adapters"] = says({"success": True})
        assert await world.knows(scales=(0.5,)) == {"gemma-0": ServerReport(build=11669, scales=(1.0,))}
        await world.time_passes()
        assert world.timers.delays == [5, 10]


@pytest.mark.parametrize(
    "answer",
    [
        [],
        {},
        None,
        "[]",
        [{"id": 0, "scale": 1.0}],
        [{"id": 0, "scale": 1.0}, {"id": 2, "scale": 1.0}],
        [{"id": 0, "scale": 1.0}, {"id": 0, "scale": 1.0}],
        [{"id": 0, "scale": 1.0}, {"id": 1, "scale": "1"}],
        [{"id": 0, "scale": 1.0}, {"id": 1, "scale": None}],
        [{"id": 0, "scale": 1.0}, {"id": 1}],
        [{"id": 0, "scale": 1.0}, {"id": 1, "scale": 1.0}, {"id": 2, "scale": 1.0}],
        [{"id": 0, "scale": 1.0}, {"id": 1, "scale": 1.0}, None],
        [{"id": number, "scale": 1.0} for number in range(10_000)],
    ],
)
async def test_where_the_adapters_are_not_the_wanted_ones_nothing_is_sent_and_the_build_is_known(
    answer: object,
) -> None:
    async with a_world() as world:
        world.server.instead["GET /lora-adapters"] = says(answer)
        assert await world.knows(scales=(1.0, 0.5)) == {"gemma-0": BUILD}
        assert "POST /lora-adapters" not in world.server.requests
        assert world.timers.delays == [5]


async def test_a_scale_beyond_what_a_float_holds_is_not_the_wanted_one() -> None:
    async with a_world() as world:
        world.server.instead["GET /lora-adapters"] = says(text='[{"id": 0, "scale": 1e300}]')
        assert await world.knows(scales=(1.0,)) == {"gemma-0": ServerReport(build=11669, scales=(float("inf"),))}


# --- servers that cannot be asked


async def test_a_server_that_is_not_reached_is_tried_again_ever_more_rarely_and_told_of_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with a_world() as world:
        world.server.instead["GET /props"] = says({}, status=500)
        with caplog.at_level(logging.INFO):
            assert await world.knows() == {}
            for _ in range(8):
                await world.time_passes()
        assert world.timers.delays == [5, 10, 20, 40, 80, 160, 300, 300, 300]
        assert [record.getMessage() for record in caplog.records] == [
            "pod gemma-0 did not say what it was asked for, which stays unknown for now:"
            " GET /props: expected status 200, found 500"
        ]
        assert world.again == []
        del world.server.instead["GET /props"]
        await world.time_passes()
        assert world.asks() == {"gemma-0": BUILD}
        assert world.again == [GEMMA]


async def test_a_changed_scale_is_tried_at_once_however_long_the_server_was_not_reached() -> None:
    async with a_world(scales=(1,)) as world:
        world.server.instead["GET /props"] = says({}, status=503)
        await world.knows(scales=(1.0,))
        await world.time_passes()
        await world.knows(scales=(0.5,))
        assert world.timers.delays == [5, 10, 5]


async def test_passes_do_not_shorten_the_pause_after_a_failure() -> None:
    async with a_world() as world:
        world.server.instead["GET /props"] = says({}, status=503)
        for _ in range(3):
            await world.knows()
        assert world.server.requests == ["GET /props"]


async def test_what_was_known_stays_known_when_the_server_cannot_be_asked_any_more() -> None:
    async with a_world(scales=(1,)) as world:
        known = await world.knows(scales=(1.0,))
        world.server.instead["GET /lora-adapters"] = says({}, status=503)
        await world.time_passes()
        assert world.asks(scales=(1.0,)) == known
        assert world.timers.delays == [60, 5]


async def test_a_server_that_wants_an_api_key_is_asked_rarely_and_told_of_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with a_world() as world:
        world.server.instead["GET /props"] = says(
            {"error": {"message": "Invalid API Key", "type": "authentication_error", "code": 401}}, status=401
        )
        with caplog.at_level(logging.INFO):
            assert await world.knows(scales=(1.0,)) == {}
            await world.time_passes()
        assert world.timers.delays == [300, 300]
        assert [record.getMessage().partition(": ")[2] for record in caplog.records] == ["it wants an API key"]


async def test_where_nothing_listens_the_server_is_unknown() -> None:
    server = LlamaServer()
    async with server.running():
        pass
    world = World(server)
    assert await world.knows() == {}
    assert world.timers.delays == [5]
    await world.prober.close()


async def test_an_address_that_is_none_is_no_traceback(caplog: pytest.LogCaptureFixture) -> None:
    async with a_world() as world:
        assert await world.knows(a_pod(address="no such/../address:\n")) == {}
        assert world.timers.delays == [5]
    assert "Traceback" not in caplog.text


async def _never(request: web.Request) -> web.StreamResponse:
    await asyncio.sleep(3600)
    return web.Response()


async def _drop_by_drop(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    while True:
        await response.write(b" ")
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("answer", [_never, _drop_by_drop])
async def test_a_server_that_takes_too_long_is_unknown(monkeypatch: pytest.MonkeyPatch, answer: Answer) -> None:
    monkeypatch.setattr(module, "_QUICK", aiohttp.ClientTimeout(total=0.1))
    async with a_world() as world:
        world.server.instead["GET /props"] = answer
        assert await world.knows() == {}
        assert world.timers.delays == [5]


# --- answers are not trusted


async def _endless(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    while True:
        await response.write(b'"' * 65_536)


async def _breaks_off(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Length": "100"})
    await response.prepare(request)
    await response.write(b"{")
    assert request.transport is not None
    request.transport.close()
    return response


async def _packed(_: web.Request) -> web.StreamResponse:
    body = gzip.compress(b'{"build_info": "b11669-Debian"}')
    return web.Response(body=body, headers={"Content-Encoding": "gzip"})


@pytest.mark.parametrize(
    "answer",
    [
        says(text=""),
        says(text="<html>"),
        says(text='{"build_info": NaN}'),
        says(text="[" * 1_000_000),
        says(text='{"build_info": "b11669-Debian"' + " " * 2_000_000 + "}"),
        says({"build_info": "b11669-Debian"}, status=202),
        says({}, status=302, headers={"Location": "/elsewhere"}),
        says({}, status=307, headers={"Location": "/elsewhere"}),
        says({"build_info": "b11669-Debian"}, headers={"X-Long": "x" * 100_000}),
        _endless,
        _breaks_off,
        _packed,
    ],
)
async def test_an_answer_that_is_too_large_or_no_json_or_leads_elsewhere_is_none(answer: Answer) -> None:
    async with a_world() as world:
        world.server.instead["GET /props"] = answer
        assert await world.knows() == {}
        assert world.server.requests == ["GET /props"]
        assert world.timers.delays == [5]


async def test_cookies_are_not_sent_back_and_connections_not_kept() -> None:
    async with a_world(scales=(1,)) as world:
        world.server.instead["GET /props"] = says({}, headers={"Set-Cookie": "a=b; Path=/"})
        await world.knows(scales=(0.5,))
        assert len(world.server.headers) == 4
        for headers in world.server.headers:
            assert headers["connection"] == "close"
            assert "cookie" not in headers


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["id", "scale", "build_info", "x"]), inner),
)


@given(answer=_JSON, number=st.integers(0, 3))
def test_whatever_json_it_is_it_is_understood_or_refused(answer: object, number: int) -> None:
    assert isinstance(module._build(answer), int | None)
    try:
        scales = module._scales(answer, number=number)
    except module._AnswerError:
        return
    assert len(scales) == number


@pytest.mark.parametrize(("address", "host"), [("10.0.0.1", "10.0.0.1"), ("fd00::1", "[fd00::1]")])
def test_addresses_of_both_families_make_an_url(address: str, host: str) -> None:
    assert module._host(address) == host


# --- bounds, and the end


async def test_only_so_many_servers_are_asked_at_once() -> None:
    released = asyncio.Event()

    async def waits(_: web.Request) -> web.StreamResponse:
        await released.wait()
        return web.json_response({"build_info": "b11669-Debian"})

    async with a_world() as world:
        world.server.instead["GET /props"] = waits
        pods = [a_pod(f"gemma-{number}") for number in range(100)]
        world.asks(*pods)
        await until(lambda: world.server.now == module._AT_ONCE)
        released.set()
        await world.settled()
        assert world.server.most == module._AT_ONCE
        assert len(world.asks(*pods)) == 100


async def test_servers_that_keep_a_small_request_waiting_keep_nobody_else_from_being_asked() -> None:
    async with a_world() as world:
        serving(world).server.instead["POST /v1/completions"] = _never
        pods = [a_pod(f"gemma-{number}") for number in range(2 * module._AT_ONCE)]
        world.asks(*pods, expected=EXPECTED)
        asked = world.server.requests
        await until(lambda: asked.count("GET /v1/models") == len(pods) and world.server.now == module._PATIENT_AT_ONCE)
        qwen = Key("demo", "qwen")
        world.prober.reports(qwen, [a_pod("qwen-0")], scales=None)
        await until(lambda: qwen in world.again)
        assert world.prober.reports(qwen, [a_pod("qwen-0")], scales=None) == {"qwen-0": BUILD}
        assert world.server.now == asked.count("POST /v1/completions") == module._PATIENT_AT_ONCE


async def test_logs_that_do_not_come_keep_no_server_from_being_asked() -> None:
    async with a_world() as world:
        world.log_hangs = True
        pods = [a_pod(f"gemma-{number}") for number in range(2 * module._AT_ONCE)]
        world.asks(*pods, read_log=True)
        await until(lambda: len(world.again) == len(pods))
        pending = replace(BUILD, log_pending=True)
        assert world.asks(*pods, read_log=True) == {pod.name: pending for pod in pods}
        assert len(world.logs_read) == module._LOGS_AT_ONCE


async def test_pods_that_are_gone_are_forgotten() -> None:
    async with a_world(scales=(1,)) as world:
        pods = [a_pod("gemma-0"), a_pod("gemma-1")]
        await world.knows(*pods, scales=(1.0,))
        assert list(world.asks(pods[0], scales=(1.0,))) == ["gemma-0"]
        await until(lambda: len(asking()) == 1)
        assert world.asks(*pods, scales=(1.0,)).keys() == {"gemma-0"}, "the other one is asked anew"


async def test_a_model_that_is_gone_is_forgotten_also_while_its_servers_are_asked() -> None:
    async with a_world() as world:
        world.server.instead["GET /props"] = _never
        world.asks()
        await until(lambda: world.server.requests != [])
        world.prober.forget(GEMMA)
        world.prober.forget(Key("demo", "never-seen"))
        await until(lambda: asking() == [])
        assert world.again == []


async def test_models_do_not_forget_each_others_pods() -> None:
    async with a_world() as world:
        await world.knows()
        assert world.prober.reports(Key("demo", "qwen"), [a_pod("qwen-0")], scales=None) == {}
        assert world.asks() == {"gemma-0": BUILD}


async def test_closing_ends_what_is_under_way_and_may_come_before_anything_was_asked() -> None:
    async with a_world() as world:
        world.server.instead["GET /props"] = _never
        world.asks()
        await until(lambda: world.server.requests != [])
        await world.prober.close()
        assert asking() == []
    await Prober(again=world.again.append).close()


# --- whether it serves its model

EXPECTED = Expected(name="gemma", task=Task.GENERATE)
COMPLETION = {"choices": [{"text": " b"}]}


def serving(world: World) -> World:
    world.server.instead |= {
        "GET /health": says({"status": "ok"}),
        "GET /v1/models": says({"data": [{"id": "gemma"}]}),
        "POST /v1/completions": says(COMPLETION),
    }
    return world


async def test_a_server_that_serves_its_model_is_asked_for_it_once_in_a_run() -> None:
    async with a_world() as world:
        serving(world)
        known = ServerReport(build=11669, proof=Proof.ANSWERS)
        assert await world.knows(expected=EXPECTED) == {"gemma-0": known}
        assert await world.knows(expected=EXPECTED) == {"gemma-0": known}
        assert world.server.requests == ["GET /health", "GET /v1/models", "POST /v1/completions", "GET /props"]
        assert world.timers.delays == []
        await world.knows(a_pod(run="2"), expected=EXPECTED)
        assert world.server.requests.count("POST /v1/completions") == 2


@pytest.mark.parametrize(
    ("asked", "answer", "problem"),
    [
        ("GET /v1/models", says({"data": [{"id": "qwen"}]}), "/v1/models names qwen, expected gemma"),
        ("GET /v1/models", says(text="nonsense"), "GET /v1/models: the answer is not JSON"),
        ("POST /v1/completions", says({"choices": []}), "/v1/completions gave no text"),
        (
            "POST /v1/completions",
            says({"error": {"message": "Failed to initialize samplers", "code": 400}}, status=400),
            "POST /v1/completions: expected status 200, found 400: Failed to initialize samplers",
        ),
        ("POST /v1/completions", says(text="", status=500), "POST /v1/completions: expected status 200, found 500"),
        ("GET /health", says(text="", status=500), "GET /health: expected status 200, found 500"),
    ],
)
async def test_a_wrong_answer_is_told_and_asked_for_again_until_it_is_right(
    asked: str, answer: Answer, problem: str
) -> None:
    async with a_world() as world:
        serving(world)
        world.server.instead[asked] = answer
        known = ServerReport(build=11669, proof=Proof.FAILS, problem=problem)
        assert await world.knows(expected=EXPECTED) == {"gemma-0": known}
        for _ in range(8):
            await world.time_passes()
        assert max(world.timers.delays) == 30
        serving(world)
        await world.time_passes()
        assert await world.knows(expected=EXPECTED) == {"gemma-0": ServerReport(build=11669, proof=Proof.ANSWERS)}


@pytest.mark.parametrize("status", [503, 0], ids=["busy", "unreachable"])
async def test_a_server_that_cannot_be_asked_is_said_to_be_so_at_the_second_try(status: int) -> None:
    async with a_world() as world:
        serving(world)
        pod = a_pod()
        if status:
            world.server.instead["GET /health"] = says({"error": {"message": "Loading model"}}, status=status)
        else:
            world.prober._port = 1
        assert (await world.knows(pod, expected=EXPECTED)).get("gemma-0", ServerReport()).proof is None
        assert world.timers.delays == [1]
        await world.time_passes()
        report = (await world.knows(pod, expected=EXPECTED))["gemma-0"]
        assert report.proof is Proof.NOT_REACHED
        assert report.problem


async def test_a_server_that_takes_the_request_and_never_answers_is_silent() -> None:
    async with a_world() as world:
        serving(world)

        world.server.instead["POST /v1/completions"] = says(text="", status=503)
        await world.knows(expected=EXPECTED)
        await world.time_passes()
        report = (await world.knows(expected=EXPECTED))["gemma-0"]
        assert report.proof is Proof.SILENT
        assert report.problem == "POST /v1/completions: it took a small request and did not answer it"
        serving(world)
        await world.time_passes()
        assert (await world.knows(expected=EXPECTED))["gemma-0"].proof is Proof.ANSWERS


@pytest.mark.parametrize("slow", ["GET /health", "GET /v1/models"])
async def test_a_server_that_is_only_slow_is_waited_for_and_proven(monkeypatch: pytest.MonkeyPatch, slow: str) -> None:
    monkeypatch.setattr(module, "_QUICK", aiohttp.ClientTimeout(total=0.1))
    async with a_world() as world:
        at_once = serving(world).server.instead[slow]

        async def slow_at_first(request: web.Request) -> web.StreamResponse:
            return await (_never if world.server.requests.count(slow) == 1 else at_once)(request)

        world.server.instead[slow] = slow_at_first
        assert (await world.knows(expected=EXPECTED))["gemma-0"].proof is Proof.ANSWERS
        assert world.again == [GEMMA], "nothing else was said of it before"


async def test_a_server_that_takes_connections_and_never_answers_is_silent_and_not_unreached(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("_QUICK", "_PATIENT"):
        monkeypatch.setattr(module, name, aiohttp.ClientTimeout(total=0.1))
    async with a_world() as world:
        serving(world).server.instead["GET /health"] = _never
        assert await world.knows(expected=EXPECTED) == {}
        await world.time_passes()
        report = (await world.knows(expected=EXPECTED))["gemma-0"]
        assert report.proof is Proof.SILENT
        assert report.problem == "GET /health: it took the connection and gave no answer within 120 s"


async def test_a_server_whose_connections_are_dropped_on_the_way_is_not_reached(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_QUICK", aiohttp.ClientTimeout(total=60, sock_connect=0.1))
    async with a_world() as world:
        with contextlib.ExitStack() as opened:
            deaf = opened.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
            world.prober._port = deaf.getsockname()[1]
            for _ in range(8):  # more than its queue holds: packets for further ones are dropped
                waiting = opened.enter_context(socket.socket())
                waiting.setblocking(False)
                waiting.connect_ex(deaf.getsockname())
            await world.knows(expected=EXPECTED)
            await world.time_passes()
            assert (await world.knows(expected=EXPECTED))["gemma-0"].proof is Proof.NOT_REACHED


async def test_tries_that_fail_in_different_ways_do_not_add_up() -> None:
    async with a_world() as world:
        serving(world).server.instead["GET /health"] = says({}, status=503)
        await world.knows(expected=EXPECTED)
        serving(world).server.instead["POST /v1/completions"] = says(text="", status=503)
        await world.time_passes()
        assert await world.knows(expected=EXPECTED) == {}
        await world.time_passes()
        assert (await world.knows(expected=EXPECTED))["gemma-0"].proof is Proof.SILENT


async def test_a_server_that_wants_a_key_is_not_reached() -> None:
    async with a_world() as world:
        serving(world)
        world.server.instead["GET /v1/models"] = says({"error": {"message": "Invalid API Key"}}, status=401)
        report = (await world.knows(expected=EXPECTED))["gemma-0"]
        assert (report.proof, report.problem) == (Proof.LOCKED, "it wants an API key")


async def test_the_log_tells_of_gpus_in_the_same_reading() -> None:
    async with a_world() as world:
        world.offload = Offload(on_gpu=False, line="no usable GPU found")
        assert (await world.knows(read_log=True))["gemma-0"].offload == world.offload
