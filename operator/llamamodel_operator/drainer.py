"""The sidecar that tells when a llama-server has nothing left to do: `GET /drain/…` answers then, and not before.

The kubelet asks it before it stops the server, and waits for the answer at most as long as the pod may take to end.
From then on `GET /ready`, the sidecar's own readiness, says 503: a pod that stops is sent no request, also where no
other pod is ready. It imports little more than the standard library: it stays in memory.
"""

from __future__ import annotations

import argparse
import http.client
import json
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import TCPServer

from llamamodel_operator.core.pod_keys import keys_in

__all__ = ["is_busy", "main", "wait_until_idle"]

_SETTLE_SEC = 5.0
"""New requests come until the kubelet has asked for readiness (every 2 s, 2 times) and everybody has heard that the pod
leaves its Service: kube-proxy on each node, gateways."""
_POLL_SEC = 0.5
_IDLE_POLLS = 2
_ANSWER_SEC = 10.0
_TCP_TABLES = ("/proc/net/tcp", "/proc/net/tcp6")
_ESTABLISHED = "01"
_LOOPBACK = ("0100007F", "00000000000000000000000001000000", "0000000000000000FFFF00000100007F")
"""127.0.0.1, ::1 and ::ffff:127.0.0.1, as the kernel writes them."""


def main(words: Sequence[str] | None = None) -> int:
    """Serves until it is told to end."""
    parser = argparse.ArgumentParser(prog="drainer", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--port", type=int, required=True, help="TCP port that it serves")
    parser.add_argument("--server-port", type=int, required=True, help="TCP port of llama-server, in the same pod")
    parser.add_argument("--drain-path", required=True, help="what the kubelet asks for; hard to guess")
    parser.add_argument("--keys-file", type=Path, help="of API keys, one of which llama-server wants")
    options = parser.parse_args(words)
    server = _server(options.port, options.server_port, options.drain_path, options.keys_file)
    # In another thread: shutdown waits for the loop that runs in this one.
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    with server:
        server.serve_forever()
    return 0


def _server(port: int, server_port: int, drain_path: str, keys_file: Path | None = None) -> ThreadingHTTPServer:
    draining = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/ready":
                self._answer(503 if draining.is_set() else 200)
            elif self.path == drain_path:
                draining.set()
                time.sleep(_SETTLE_SEC)
                _say("draining: the pod stops when no slot is busy")
                wait_until_idle(lambda: is_busy(server_port, keys_file=keys_file), sleep=time.sleep)
                _say("drained: nothing is left to do")
                self._answer(200)
            else:
                self._answer(404)

        def _answer(self, status: int) -> None:
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True  # a pod that may not wait any longer ends with answers outstanding

        def server_bind(self) -> None:
            TCPServer.server_bind(self)  # without asking the DNS for the pod's own name

    return Server(("", port), Handler)


def wait_until_idle(busy: Callable[[], bool], *, sleep: Callable[[float], object]) -> None:
    """Returns when the server was idle several times in a row: between two requests of a client it is, for a moment."""
    idle = 0
    while idle < _IDLE_POLLS:
        idle = 0 if busy() else idle + 1
        sleep(_POLL_SEC)


def is_busy(port: int, *, keys_file: Path | None = None, tables: Sequence[str] = _TCP_TABLES) -> bool:
    """Whether the server works on a request, or has one that waits.

    By its slots and its queue; where it does not tell of them (switched off, behind an API key that is not in the file,
    too busy, hung), by the connections that clients have to it. One that does not listen any more is not busy.
    """
    keys = _keys(keys_file)
    try:
        slots, metrics = _get(port, "/slots", keys), _get(port, "/metrics", keys)
    except ConnectionRefusedError:
        return False
    except (OSError, http.client.HTTPException):
        slots = metrics = None  # too busy to answer, or hung
    known = [found for found in (_busy_slots(slots), _waiting(metrics)) if found is not None]
    if known:
        return any(known)
    return any(_clients(port, tables))


def _keys(file: Path | None) -> tuple[str, ...]:
    """As they are now. The server has those that were there when it started: in a rotation, some of them."""
    try:
        return keys_in(file.read_bytes()) if file is not None else ()
    except OSError:
        return ()


def _get(port: int, path: str, keys: Sequence[str]) -> bytes | None:
    """The answer, by the first key that the server takes; None where there is none to be had."""
    for key in keys or (None,):
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=_ANSWER_SEC)) as connection:
            shown = {} if key is None else {"Authorization": f"Bearer {key}"}
            connection.request("GET", path, headers={"Connection": "close", **shown})
            response = connection.getresponse()
            text = response.read(1 << 22)
        if response.status != 401:
            return text if response.status == 200 else None
    return None


def _busy_slots(text: bytes | None) -> bool | None:
    try:
        slots = json.loads(text or b"")
        return any(bool(slot["is_processing"]) for slot in slots)
    except (ValueError, TypeError, KeyError):
        return None


def _waiting(text: bytes | None) -> bool | None:
    """By the metrics: requests that are worked on, and those that wait for a slot."""
    found = None
    for line in (text or b"").splitlines():
        name, _, value = line.partition(b" ")
        if name in (b"llamacpp:requests_processing", b"llamacpp:requests_deferred"):
            try:
                found = bool(found) or float(value) > 0
            except ValueError:
                return None
    return found


def _clients(port: int, tables: Sequence[str]) -> Iterator[str]:
    """Remote addresses of connections to the port that are open, as the kernel writes them; the pod's own do not
    count."""
    for table in tables:
        try:
            lines = Path(table).read_text(encoding="ascii").splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            _, local, remote, state, *_ = line.split()
            address = remote.rpartition(":")[0]
            if state == _ESTABLISHED and int(local.rpartition(":")[2], 16) == port and address not in _LOOPBACK:
                yield address


def _say(what: str) -> None:
    sys.stderr.write(f"{what}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
