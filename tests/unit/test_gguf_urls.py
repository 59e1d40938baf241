"""GGUF files at an address: how much is fetched, and what servers do wrong."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from llamamodel_operator.core.gguf.problem import GgufError, GgufProblem
from llamamodel_operator.shell.gguf_files import open_gguf, open_model
from support.gguf import Typed, layer_tensors, llama_metadata, write_gguf, write_parts

MIB = 1 << 20


@dataclass
class Server:
    """Gives the files of a folder by ranges; paths say what it does otherwise.

    Attributes:
        requests: (path, query, status) of all that came.
        sent: bytes of all bodies.
    """

    folder: Path
    url: str = ""
    requests: list[tuple[str, str, int]] = field(default_factory=list)
    sent: int = 0


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    state = Server(folder=tmp_path)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            address = urlsplit(self.path)
            name = unquote(address.path).lstrip("/")
            status, headers, body = answer(state, name, self.headers.get("Range", ""))
            state.requests.append((address.path, address.query, status))
            state.sent += len(body)
            self.send_response(status)
            for key, value in ({"Content-Length": str(len(body))} | headers).items():
                self.send_header(key, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    class Quiet(ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None:
            """Clients hang up when they have seen enough."""

    with Quiet(("127.0.0.1", 0), Handler) as listening:
        state.url = f"http://127.0.0.1:{listening.server_port}"
        thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield state
        listening.shutdown()
        thread.join()


def answer(state: Server, name: str, wanted: str) -> tuple[int, dict[str, str], bytes]:
    what, _, rest = name.partition("/")
    if what.isdigit():
        return int(what), {}, b"no"
    if what == "redirect":
        return 302, {"Location": f"/{rest}"}, b""
    if what == "loop":
        return 302, {"Location": f"/{name}"}, b""
    if what == "elsewhere":
        return 302, {"Location": "file:///etc/hostname"}, b""
    file = state.folder / (rest or name)
    if not file.is_file():
        return 404, {}, b"no"
    size = file.stat().st_size
    found = re.fullmatch("bytes=([0-9]+)-([0-9]+)", wanted)
    if what == "whole" or not found:
        return 200, {}, b"x" * 100
    if not size:
        return 416, {"Content-Range": "bytes */0"}, b""
    first, last = int(found[1]), min(int(found[2]), size - 1)
    with file.open("rb") as stream:
        stream.seek(first)
        body = stream.read(last - first + 1)
    if what == "growing":
        size += len(state.requests)
    if what == "short":
        return 206, {"Content-Range": f"bytes {first}-{last}/{size}", "Content-Length": str(len(body))}, body[:50]
    if what == "wrong":
        return 206, {"Content-Range": f"bytes {first + 1}-{last + 1}/{size}"}, body
    if what == "silent":
        return 206, {}, body
    return 206, {"Content-Range": f"bytes {first}-{last}/{size}"}, body


def problem(url: str) -> GgufError:
    with pytest.raises(GgufError) as caught:
        open_gguf(url)
    return caught.value


def test_of_a_large_file_only_the_header_is_fetched(server: Server, tmp_path: Path) -> None:
    metadata = {
        **llama_metadata(),
        "tokenizer.ggml.tokens": [f"token{n}" for n in range(262_144)],
        "tokenizer.ggml.scores": [0.0] * 262_144,
        "tokenizer.ggml.token_type": Typed("int32", [1] * 262_144),
    }
    tensors = layer_tensors(vocabulary=1_000_000, layers=40, embedding=8192, heads=64)
    file = write_gguf(tmp_path / "big model.gguf", metadata=metadata, tensors=tensors)
    found = open_gguf(f"{server.url}/big%20model.gguf?download=true&token=secret")
    assert found == open_model(file)
    assert file.stat().st_size > 20_000 * MIB
    assert len(server.requests) <= 8
    assert server.sent <= found.parts[0].header_size + MIB
    assert {query for _, query, _ in server.requests} == {"download=true&token=secret"}


def test_parts_are_looked_for_beside_the_first(server: Server, tmp_path: Path) -> None:
    parts = write_parts(tmp_path, "model", metadata=llama_metadata(), tensors=layer_tensors(), parts=3)
    assert open_gguf(f"{server.url}/{parts[0].name}?a=b") == open_model(parts[0])
    assert [path for path, _, _ in server.requests] == [f"/{part.name}" for part in parts]
    parts[1].unlink()
    assert problem(f"{server.url}/{parts[0].name}").reason is GgufProblem.PART_MISSING


def test_a_redirect_is_followed_once(server: Server, tmp_path: Path) -> None:
    metadata = {**llama_metadata(), "tokenizer.ggml.tokens": ["x" * 20] * 200_000}
    file = write_gguf(tmp_path / "model.gguf", metadata=metadata, tensors=layer_tensors())
    assert open_gguf(f"{server.url}/redirect/model.gguf") == open_model(file)
    statuses = [status for _, _, status in server.requests]
    assert statuses.count(302) == 1
    assert statuses.count(206) > 1


@pytest.mark.parametrize(
    ("path", "reason", "words"),
    [
        ("missing.gguf", GgufProblem.MODEL_FILE_NOT_FOUND, "answered 404"),
        ("401/model.gguf", GgufProblem.PERMISSION_DENIED, "answered 401"),
        ("403/model.gguf", GgufProblem.PERMISSION_DENIED, "credentials"),
        ("500/model.gguf", GgufProblem.UNREADABLE, "answered 500"),
        ("whole/model.gguf", GgufProblem.UNREADABLE, "without ranges"),
        ("silent/model.gguf", GgufProblem.UNREADABLE, "Content-Range"),
        ("wrong/model.gguf", GgufProblem.UNREADABLE, "Content-Range"),
        ("short/model.gguf", GgufProblem.UNREADABLE, ""),
        ("growing/model.gguf", GgufProblem.UNREADABLE, "it was replaced"),
        ("loop/model.gguf", GgufProblem.UNREADABLE, ""),
        ("elsewhere/model.gguf", GgufProblem.UNREADABLE, ""),
        ("empty.gguf", GgufProblem.NOT_GGUF, "an empty file"),
        ("page.gguf", GgufProblem.NOT_GGUF, "an HTML page"),
    ],
)
def test_what_servers_do_wrong_is_told(
    server: Server, tmp_path: Path, path: str, reason: GgufProblem, words: str
) -> None:
    metadata = {**llama_metadata(), "tokenizer.ggml.tokens": ["x" * 20] * 200_000}
    write_gguf(tmp_path / "model.gguf", metadata=metadata, tensors=layer_tensors())
    (tmp_path / "empty.gguf").touch()
    (tmp_path / "page.gguf").write_text("<html>Log in</html>")
    error = problem(f"{server.url}/{path}?token=secret")
    assert error.reason is reason
    assert words in error.message
    assert "secret" not in error.message
    assert error.message.startswith(f"{server.url}/{path}")


@pytest.mark.parametrize(
    "url",
    [
        "http://",
        "http:///model.gguf",
        "http://user:secret@127.0.0.1/model.gguf",
        "http://[::1/model.gguf",
        "http://127.0.0.1:99999/model.gguf",
        "http://127.0.0.1:port/model.gguf",
        "http://127.0.0.1:1/model.gguf",
        "https://127.0.0.1:1/a b\n.gguf",
        "http://no.such.host.invalid/model.gguf",
    ],
)
def test_addresses_that_lead_nowhere_are_told(url: str, server: Server) -> None:
    error = problem(url)
    assert error.reason is GgufProblem.UNREADABLE
    assert "secret" not in error.message
    assert error.message.isprintable()
