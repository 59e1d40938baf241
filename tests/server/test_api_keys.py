"""What a llama-server does with a file of API keys: on this the decision about keys between gateway and pods stands
(docs/adr/0029-keys-of-pods.md)."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from llamamodel_operator import drainer
from llamamodel_operator.api.spec import Task
from llamamodel_operator.core.engine.proof import Expected
from llamamodel_operator.core.observed import Proof, ServerReport
from support.probing import probed

from .conftest import Server, Start

_TIMEOUT_SEC = 60
_OPEN = {"/health", "/v1/health"}
_ASKED_BY_THE_OPERATOR = ("/v1/models", "/props", "/lora-adapters")
_ASKED_FOR_LOAD = ("/slots", "/metrics")


def status(server: Server, path: str, headers: Mapping[str, str] | None = None) -> int:
    with closing(http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=_TIMEOUT_SEC)) as connection:
        connection.request("GET", path, headers=dict(headers or {}))
        return connection.getresponse().status


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("keys") / "keys"
    path.write_text("first\n\n# a note\nlast")
    return path


@pytest.fixture(scope="module")
def locked(start_server: Start, keys: Path) -> Iterator[Server]:
    with start_server("--metrics", "--api-key-file", str(keys)) as server:
        yield server


@pytest.mark.parametrize("path", [*sorted(_OPEN), *_ASKED_BY_THE_OPERATOR, *_ASKED_FOR_LOAD])
def test_with_a_key_only_health_is_open(path: str, locked: Server) -> None:
    assert status(locked, path) == (200 if path in _OPEN else 401)
    assert status(locked, path, bearer("first")) == 200


@pytest.mark.parametrize("key", ["first", "last"])
def test_each_line_is_a_key_in_either_header(key: str, locked: Server) -> None:
    assert status(locked, "/props", bearer(key)) == 200
    assert status(locked, "/props", {"X-Api-Key": key}) == 200


@pytest.mark.parametrize("key", ["", "# a note", "firs", "First", "first,last"])
def test_nothing_else_is_a_key(key: str, locked: Server) -> None:
    assert status(locked, "/props", bearer(key)) == 401


def test_a_wrong_bearer_is_wrong_whatever_the_other_header_says(locked: Server) -> None:
    assert status(locked, "/props", {**bearer("wrong"), "X-Api-Key": "first"}) == 401


def test_the_file_is_read_at_the_start_alone(start_server: Start, tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("old\n")
    with start_server("--api-key-file", str(file)) as server:
        file.write_text("new\n")
        assert (status(server, "/props", bearer("old")), status(server, "/props", bearer("new"))) == (200, 401)
    with start_server("--api-key-file", str(file)) as server:
        assert (status(server, "/props", bearer("old")), status(server, "/props", bearer("new"))) == (401, 200)


def test_a_file_without_a_key_opens_the_server_to_all(start_server: Start, tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("# none yet\n\n")
    with start_server("--api-key-file", str(file)) as server:
        assert status(server, "/props") == 200


# --- what the operator makes of it


def proof(server: Server, *, key: str | None) -> ServerReport:
    """What the operator knows of a server that must want a key, after it has asked with this one."""
    return probed(
        server.port,
        until=lambda report: report.proof is not None,
        pod_key={"demo": key}.get,
        expected=Expected(name="gemma", task=Task.GENERATE),
        locked=True,
    )


def test_a_server_is_proven_by_its_key_alone_and_an_open_one_is_found_out(start_server: Start, keys: Path) -> None:
    with start_server("--alias", "gemma", "--api-key-file", str(keys)) as server:
        assert [proof(server, key=key).proof for key in ("last", "other", None)] == [
            Proof.ANSWERS,
            Proof.LOCKED,
            Proof.LOCKED,
        ]
    with start_server("--alias", "gemma") as server:
        found = proof(server, key="last")
        assert (found.proof, found.problem) == (Proof.OPEN, "GET /props without a key: expected status 401, found 200")


def test_the_drain_sees_a_running_answer_by_a_key_of_its_file(locked: Server, tmp_path: Path) -> None:
    nobody, file = tmp_path / "tcp", tmp_path / "keys"
    nobody.write_text("header\n")  # by connections nobody is there
    file.write_text("not-yet\nlast\n")

    def busy() -> bool:
        return drainer.is_busy(locked.port, keys_file=file, tables=[str(nobody)])

    assert not busy()
    with closing(http.client.HTTPConnection(urlsplit(locked.url).netloc, timeout=_TIMEOUT_SEC)) as connection:
        body = json.dumps({"prompt": "a", "n_predict": 4000, "ignore_eos": True, "stream": True})
        connection.request("POST", "/completion", body, {**bearer("first"), "Content-Type": "application/json"})
        assert connection.getresponse().readline().startswith(b"data:")
        assert busy()
        file.write_text("other\n")
        assert not busy(), "without a key that it takes, the server does not tell of its slots"
