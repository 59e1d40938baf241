"""The gateway in front of servers that a test has started, without a cluster: names and addresses are given."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import uvloop
from prometheus_client import CollectorRegistry

from llamamodel_operator.core.gateway.routes import ServedModel, build_routes
from llamamodel_operator.core.gateway.waits import WaitLimits
from llamamodel_operator.gateway.access import Access
from llamamodel_operator.gateway.connections import ConnectionLimits
from llamamodel_operator.gateway.cors import Cors
from llamamodel_operator.gateway.directory import Directory
from llamamodel_operator.gateway.forwarding import Forwarder
from llamamodel_operator.gateway.server import serve_gateway
from llamamodel_operator.gateway.sight import Sight
from llamamodel_operator.gateway.upstream import UpstreamSession
from llamamodel_operator.shell.pod_keys import PodKey, no_pod_key
from llamamodel_operator.shell.tls import ServingTls

if TYPE_CHECKING:
    import httpx

__all__ = [
    "CHAT",
    "GEMMA",
    "FakeServer",
    "GivenDirectory",
    "Say",
    "error_of",
    "raw",
    "running_gateway",
    "served",
    "stream",
    "whole",
]

Say = Callable[[BaseHTTPRequestHandler, bytes], None]
GEMMA = ServedModel(namespace="demo", name="gemma", served_name="gemma-3", phase="Ready", adapters=("sql", "pirate"))
CHAT = {"model": "gemma-3", "messages": [{"role": "user", "content": "Hello"}]}


class GivenDirectory(Directory):
    """Knows what it is told, and looks at no cluster."""

    def __init__(self, models: Sequence[ServedModel], addresses: Mapping[str, Sequence[str]]) -> None:
        """`addresses`: of pods, by the full name of their model; may be changed at any time."""
        super().__init__()
        self.routes = build_routes(models)
        self.given = dict(addresses)
        self.loop: asyncio.AbstractEventLoop | None = None
        """The gateway's; None before it has looked."""

    def give(self, addresses: Mapping[str, Sequence[str]], *, models: Sequence[ServedModel] | None = None) -> None:
        """Changes what is known, as a watch does: who waits is told."""
        if models is not None:
            self.routes = build_routes(models)
        self.given = dict(addresses)
        assert self.loop is not None, "nobody waits: the gateway has not asked for addresses yet"
        self.loop.call_soon_threadsafe(self._tell)

    def addresses(self, model: ServedModel) -> tuple[str, ...]:
        if self.loop is None:
            with suppress(RuntimeError):  # a test reads metrics in a thread of its own
                self.loop = asyncio.get_running_loop()
        return tuple(self.given.get(model.full_name, ()))


@contextmanager
def running_gateway(
    directory: Directory,
    *,
    timeout_sec: int = 60,
    body_limit_bytes: int = 1 << 20,
    bodies_limit_bytes: int = 1 << 30,
    max_in_flight_per_pod: int | None = None,
    access: Access | None = None,
    limits: ConnectionLimits | None = None,
    origins: Sequence[str] = (),
    tls: ServingTls | None = None,
    waits: WaitLimits | None = None,
    load_poll_sec: float = 0,
    pod_key: PodKey = no_pod_key,
    registry: CollectorRegistry | None = None,
    access_log: bool = True,
    drain_sec: float = 60,
) -> Iterator[str]:
    """Its URL; it runs in a thread with an event loop of its own. Nobody waits for a model unless `waits` lets them.
    `registry`: its metrics."""
    loop, started, stop = uvloop.new_event_loop(), threading.Event(), asyncio.Event()
    ports: list[int] = []

    async def run() -> None:
        async with (
            UpstreamSession() as session,
            serve_gateway(
                host="127.0.0.1",
                port=0,
                directory=directory,
                forwarder=Forwarder(
                    directory=directory,
                    session=session,
                    timeout_sec=timeout_sec,
                    max_in_flight_per_pod=max_in_flight_per_pod,
                    waits=waits,
                    load_poll_sec=load_poll_sec,
                    pod_key=pod_key,
                ),
                body_limit_bytes=body_limit_bytes,
                bodies_limit_bytes=bodies_limit_bytes,
                access=access or Access(),
                limits=limits or ConnectionLimits(),
                cors=Cors(origins),
                tls=tls,
                sight=Sight(registry=registry or CollectorRegistry(), directory=directory, access_log=access_log),
                drain_sec=drain_sec,
            ) as port,
        ):
            ports.append(port)
            started.set()
            await stop.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(run()))
    thread.start()
    try:
        assert started.wait(10), "the gateway does not start"
        yield f"{'https' if tls else 'http'}://127.0.0.1:{ports[0]}"
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()


class FakeServer:
    """A scripted server in the place of llama-server.

    `asked`: what was posted to it; `gone`: a client did not stay for its answer.
    """

    def __init__(self, say: Say, *, get: Say | None = None) -> None:
        """`get`: what is said to a GET; without it none is taken."""
        self.asked: list[tuple[str, dict[str, str], bytes]] = []
        self.gone = threading.Event()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                server.asked.append((self.path, {k.lower(): v for k, v in self.headers.items()}, body))
                self._say(say, body)

            def do_GET(self) -> None:
                if get is None:
                    self.send_error(501)
                else:
                    self._say(get, b"")

            def _say(self, say: Say, body: bytes) -> None:
                try:
                    say(self, body)
                except OSError:
                    server.gone.set()

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

        self._server = Server(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def end(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def whole(status: int, text: str, content_type: str = "application/json") -> Say:
    def say(handler: BaseHTTPRequestHandler, _: bytes) -> None:
        handler.send_response(status)
        handler.send_header("Content-Type", content_type)
        handler.send_header("Content-Length", str(len(text.encode())))
        handler.end_headers()
        handler.wfile.write(text.encode())

    return say


def stream(*pieces: str, end: bool = True, pause: float = 0.0) -> Say:
    def say(handler: BaseHTTPRequestHandler, _: bytes) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "text/event-stream")
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        for piece in pieces:
            handler.wfile.write(f"{len(piece.encode()):x}\r\n{piece}\r\n".encode())
            handler.wfile.flush()
            time.sleep(pause)
        if end:
            handler.wfile.write(b"0\r\n\r\n")
        else:
            handler.close_connection = True
            handler.connection.shutdown(socket.SHUT_RDWR)

    return say


@contextmanager
def served(*say: Say, **more: Any) -> Iterator[tuple[httpx.Client, list[FakeServer], GivenDirectory]]:
    """A client of a gateway that has one model, with a pod for each of these."""
    import httpx  # not for the benchmark of the gateway's memory

    servers = [FakeServer(one) for one in say]
    directory = GivenDirectory([GEMMA], {"demo/gemma": [server.address for server in servers]})
    try:
        with (
            running_gateway(directory, **more) as url,
            httpx.Client(base_url=url, timeout=20, trust_env=False) as client,
        ):
            yield client, servers, directory
    finally:
        for server in servers:
            server.end()


def error_of(response: httpx.Response) -> dict[str, Any]:
    error: dict[str, Any] = response.json()["error"]
    assert {"message", "type", "param", "code"} <= error.keys()
    return error


def raw(url: str, request: bytes) -> bytes:
    """What is answered to these very bytes."""
    host, _, port = url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(request)
        connection.settimeout(1)
        said = b""
        with suppress(TimeoutError):
            while piece := connection.recv(65_536):
                said += piece
        return said
