"""Who may use the gateway, and how much: keys, limits, and what a client without a right learns."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from llamamodel_operator.core.gateway.keys import digest
from llamamodel_operator.core.gateway.routes import ServedModel, served_model
from llamamodel_operator.gateway.access import Access, MountedKeys
from support.gateway import FakeServer, GivenDirectory, Say, error_of, running_gateway, stream, whole

pytestmark = pytest.mark.real_time

CHAT = "/v1/chat/completions"
MODELS = (
    ServedModel(namespace="a", name="chat", served_name="chat", phase="Ready", adapters=("sql",)),
    ServedModel(namespace="b", name="secret", served_name="secret-chat", phase="Ready", adapters=("sql",)),
)
KEYS: Mapping[str, Mapping[str, Any]] = {"all": {}, "team-a": {"namespaces": ["a"]}}


def secret(name: str) -> str:
    return f"llm-{name}"


def bearer(name: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret(name)}"}


def asking(model: str = "a/chat") -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": "Hello"}]}


class MountedSecret:
    """A folder as the kubelet makes it, whose content is exchanged at once."""

    def __init__(self, folder: Path, content: Mapping[str, str]) -> None:
        self.folder = folder
        self._turn = 0
        self.write(content)

    def write(self, content: Mapping[str, str]) -> None:
        self._turn += 1
        behind = self.folder / f"..{self._turn}"
        behind.mkdir(parents=True)
        for name, text in content.items():
            (behind / name).write_text(text, encoding="utf-8")
            if not (self.folder / name).is_symlink():
                (self.folder / name).symlink_to(f"..data/{name}")
        (self.folder / "..new").symlink_to(behind.name)
        (self.folder / "..new").rename(self.folder / "..data")


def entries(keys: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    return {name: yaml.safe_dump({"sha256": digest(secret(name)), **entry}) for name, entry in keys.items()}


def eventually(happens: Callable[[], bool]) -> bool:
    until = time.monotonic() + 20
    while not (happened := happens()) and time.monotonic() < until:
        time.sleep(0.02)
    return happened


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Door:
    """A gateway with keys, and pods of the model chat."""

    def __init__(self, url: str, pods: list[FakeServer], keys: MountedKeys, mounted: MountedSecret) -> None:
        self.url = url
        self.pods = pods
        self.keys = keys
        self.mounted = mounted
        self.client = httpx.Client(base_url=url, timeout=20, trust_env=False)

    def opens_to(self, key: str) -> bool:
        """In the end: that a stream has ended is known at the gateway a little later than here."""
        return eventually(lambda: self.ask(key).status_code == 200)

    def ask(self, key: str | None = None, model: str = "a/chat") -> httpx.Response:
        return self.client.post(CHAT, json=asking(model), headers=bearer(key) if key else {})


@contextmanager
def door(
    folder: Path,
    *say: Say,
    keys: Mapping[str, Mapping[str, Any]] = KEYS,
    models: tuple[ServedModel, ...] = MODELS,
    access: Mapping[str, Any] | None = None,
    **more: Any,
) -> Iterator[Door]:
    mounted = MountedSecret(folder / "keys", entries(keys))
    read = MountedKeys(str(mounted.folder))
    read.mounted.look()
    with ExitStack() as stack:
        pods = [FakeServer(one) for one in say or (whole(200, "{}"),)]
        for pod in pods:
            stack.callback(pod.end)
        directory = GivenDirectory(models, {"a/chat": [pod.address for pod in pods], "b/secret": [pods[0].address]})
        more["access"] = Access(keys=read, **(access or {}))
        opened = Door(stack.enter_context(running_gateway(directory, **more)), pods, read, mounted)
        with opened.client:
            yield opened


class Held:
    """A pod whose streams go on until they are let go."""

    def __init__(self) -> None:
        self.go = threading.Event()

    def __call__(self, handler: BaseHTTPRequestHandler, _: bytes) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "text/event-stream")
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        handler.wfile.write(b"a\r\ndata: {}\n\n\r\n")
        while not self.go.wait(0.05):
            handler.wfile.write(b"a\r\ndata: {}\n\n\r\n")  # finds out that nobody listens any more
        handler.wfile.write(b"0\r\n\r\n")


# --- keys


@pytest.mark.parametrize("headers", [bearer("all"), {"x-api-key": secret("all")}], ids=["OpenAI", "Anthropic"])
def test_a_key_opens_and_goes_no_further(tmp_path: Path, headers: dict[str, str]) -> None:
    with door(tmp_path) as at:
        assert at.client.post(CHAT, json=asking(), headers=headers).status_code == 200
    ((_, seen, _),) = at.pods[0].asked
    assert secret("all") not in "".join(seen.values())


@pytest.mark.parametrize("headers", [{}, bearer("nobody"), {"x-api-key": digest(secret("all"))}])
@pytest.mark.parametrize(("method", "path"), [("POST", CHAT), ("GET", "/v1/models"), ("GET", "/"), ("OPTIONS", CHAT)])
def test_without_a_key_there_is_nothing(tmp_path: Path, headers: dict[str, str], method: str, path: str) -> None:
    with door(tmp_path) as at:
        response = at.client.request(method, path, headers=headers)
    assert (response.status_code, error_of(response)["code"]) == (401, "invalid_api_key")
    assert at.pods[0].asked == []


def test_who_has_no_key_is_refused_before_the_body_is_there(tmp_path: Path) -> None:
    with door(tmp_path) as at:
        address = at.client.base_url
        with socket.create_connection((address.host, address.port or 0), timeout=20) as connection:
            connection.sendall(f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nContent-Length: 900000\r\n\r\n".encode())
            assert connection.recv(65_536).startswith(b"HTTP/1.1 401 ")


def test_who_asks_first_whether_to_send_the_body_is_told_to_with_a_right_key_alone(tmp_path: Path) -> None:
    body = b'{"model": "a/chat"}'
    with door(tmp_path) as at:
        address = at.client.base_url
        for name, told in (("all", b"HTTP/1.1 100 Continue\r\n\r\n"), ("wrong", b"HTTP/1.1 401 ")):
            with socket.create_connection((address.host, address.port or 0), timeout=20) as connection:
                head = f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nX-Api-Key: {secret(name)}\r\nExpect: 100-continue\r\n"
                connection.sendall(head.encode() + b"Content-Length: %d\r\n\r\n" % len(body))
                assert connection.recv(65_536).startswith(told)
                if name == "all":
                    connection.sendall(body)
                    assert connection.recv(65_536).startswith(b"HTTP/1.1 200 ")


def test_a_model_of_others_is_as_one_that_is_not_there(tmp_path: Path) -> None:
    names = ("b/secret", "secret-chat", "secret-chat:sql", "b/secret:sql", "secret")
    told = []
    for number, models in enumerate((MODELS, MODELS[:1])):
        with door(tmp_path / str(number), models=models) as at:
            answers = [at.ask("team-a", name) for name in names]
            answers += [at.client.get(f"/v1/models/{name}", headers=bearer("team-a")) for name in names]
            told.append([(answer.status_code, answer.text) for answer in answers])
            assert at.ask("all", names[0]).status_code == (404 if number else 200)
    assert told[0] == told[1]
    assert {status for status, _ in told[0]} == {404}


def test_names_of_others_are_told_nowhere(tmp_path: Path) -> None:
    with door(tmp_path) as at:
        told = [
            at.client.get("/v1/models", headers=bearer("team-a")).text,
            at.ask("team-a", "chet").text,
            at.ask("team-a", "secret-chet").text,
            at.client.post(CHAT, json={}, headers=bearer("team-a")).text,
        ]
        everything = at.client.get("/v1/models", headers=bearer("all")).json()["data"]
    assert ["`chat`" in text or '"chat"' in text for text in told] == [True, True, False, True], "its own are told"
    assert "secret-chat" not in "".join(told)
    assert "b/" not in "".join(told)
    assert [model["id"] for model in everything] == ["chat", "secret-chat"]


def test_wrong_keys_are_limited_and_right_ones_of_the_same_address_are_not(tmp_path: Path) -> None:
    clock = Clock()
    with door(tmp_path, access={"wrong_keys_per_minute": 3, "now": clock}) as at:
        answers = [at.ask("wrong") for _ in range(5)]
        assert [answer.status_code for answer in answers] == [401, 401, 401, 429, 429]
        assert error_of(answers[-1])["code"] == "rate_limit_exceeded"
        assert answers[-1].headers["retry-after"] == "20"
        assert at.ask("all").status_code == 200
        assert at.ask().status_code == 401, "who shows none has guessed nothing"
        clock.now += 20
        assert [at.ask("wrong").status_code for _ in range(2)] == [401, 429]


# --- keys that change


def test_keys_rotate_without_a_restart(tmp_path: Path) -> None:
    with door(tmp_path) as at:
        assert (at.ask("all").status_code, at.ask("new").status_code) == (200, 401)
        at.mounted.write(entries({"new": {}}))
        at.keys.mounted.look()
        assert (at.ask("all").status_code, at.ask("new").status_code) == (401, 200)


def test_a_wrong_entry_stays_what_it_was_and_the_log_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with door(tmp_path) as at:
        at.mounted.write({"all": f"sha256: {secret('all')}", **entries({"new": {}})})
        at.keys.mounted.look()
        at.keys.mounted.look()
        assert [at.ask(name).status_code for name in ("all", "new", "team-a")] == [200, 200, 401]
    (error,) = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert error.startswith("key all: sha256: expected the key's SHA-256, 64 hexadecimal digits, found 7 characters")
    assert secret("all") not in caplog.text


def test_a_secret_that_vanishes_changes_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with door(tmp_path) as at:
        at.mounted.folder.rename(tmp_path / "gone")
        for _ in range(3):
            at.keys.mounted.look()
        assert at.ask("all").status_code == 200
    assert len([record for record in caplog.records if record.levelno == logging.ERROR]) == 1


def test_without_a_key_nobody_gets_in_and_the_gateway_is_not_ready(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with door(tmp_path, keys={}) as at:
        assert at.ask("all").status_code == 401
        assert "nobody gets in" in caplog.text
        assert "nobody gets in" in (at.keys.problem() or "")
        at.mounted.write(entries({"all": {}}))
        at.keys.mounted.look()
        assert (at.ask("all").status_code, at.keys.problem()) == (200, None)
        at.mounted.write({})
        at.keys.mounted.look()
        assert (at.ask("all").status_code, at.keys.problem()) == (401, None), "taken away on purpose"


def test_a_folder_that_is_not_there_opens_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    keys = MountedKeys(str(tmp_path / "nowhere"))
    keys.mounted.look()
    assert keys.problem() is not None
    assert "expected the files of a Secret" in caplog.text


# --- limits


def test_a_key_may_send_so_many_a_minute_and_others_are_not_concerned(tmp_path: Path) -> None:
    clock = Clock()
    with door(tmp_path, keys={"few": {"requestsPerMinute": 2}, "all": {}}, access={"now": clock}) as at:
        answers = [at.ask("few") for _ in range(3)]
        assert [answer.status_code for answer in answers] == [200, 200, 429]
        assert (error_of(answers[-1])["code"], answers[-1].headers["retry-after"]) == ("rate_limit_exceeded", "30")
        assert at.ask("all").status_code == 200
        clock.now += 30
        assert [at.ask("few").status_code for _ in range(2)] == [200, 429]
        at.mounted.write(entries({"few": {"requestsPerMinute": 100}}))
        at.keys.mounted.look()
        assert at.ask("few").status_code == 200, "the limit is the new one"


def test_a_key_has_so_many_at_a_time_until_their_streams_end(tmp_path: Path) -> None:
    held = Held()
    with door(tmp_path, held, keys={"two": {"concurrency": 2}, "all": {"concurrency": 9}}) as at:
        with ExitStack() as stack:
            for _ in range(2):
                running = at.client.stream("POST", CHAT, json=asking(), headers=bearer("two"))
                assert stack.enter_context(running).status_code == 200
            refused = at.ask("two")
            assert (refused.status_code, error_of(refused)["code"]) == (429, "rate_limit_exceeded")
            assert "retry-after" in refused.headers
            assert at.client.get("/v1/models", headers=bearer("all")).status_code == 200
            held.go.set()
        assert at.opens_to("two")


def test_a_client_that_goes_away_gives_back_its_place(tmp_path: Path) -> None:
    held = Held()
    with door(tmp_path, held, keys={"one": {"concurrency": 1}}) as at:
        with at.client.stream("POST", CHAT, json=asking(), headers=bearer("one")) as running:
            next(running.iter_raw())
        assert at.pods[0].gone.wait(20)
        held.go.set()
        assert at.opens_to("one")


def test_a_gateway_works_on_so_many_in_all(tmp_path: Path) -> None:
    held = Held()
    with door(tmp_path, held, access={"max_in_flight": 1}) as at:
        with at.client.stream("POST", CHAT, json=asking(), headers=bearer("all")):
            refused = at.ask("team-a")
            held.go.set()
        assert (refused.status_code, error_of(refused)["code"]) == (429, "rate_limit_exceeded")
        assert "retry-after" in refused.headers
        assert at.opens_to("team-a")


def test_a_pod_gets_no_more_than_its_part_and_another_one_the_rest(tmp_path: Path) -> None:
    held = Held()
    with door(tmp_path, held, held, max_in_flight_per_pod=2) as at:
        with ExitStack() as stack:
            for _ in range(4):  # of one conversation, which one pod would take
                running = at.client.stream("POST", CHAT, json=asking(), headers=bearer("all"))
                assert stack.enter_context(running).status_code == 200
            assert [len(pod.asked) for pod in at.pods] == [2, 2]
            refused = at.ask("all")
            assert (refused.status_code, error_of(refused)["code"]) == (429, "rate_limit_exceeded")
            assert "retry-after" in refused.headers
            held.go.set()
        assert at.opens_to("all")


def test_a_pod_gets_fewer_than_its_http_threads(tmp_path: Path) -> None:
    held = Held()
    spec = {"engine": {"parallelSlots": 1, "queueLimit": 10}}
    model = served_model({"metadata": {"namespace": "a", "name": "chat"}, "spec": spec})
    with door(tmp_path, held, models=(model,)) as at, ExitStack() as stack:
        for _ in range(3):  # 11 threads without 8
            running = at.client.stream("POST", CHAT, json=asking(), headers=bearer("all"))
            assert stack.enter_context(running).status_code == 200
        assert at.ask("all").status_code == 429
        held.go.set()


def test_requests_that_are_too_large_together_are_refused_until_others_are_answered(tmp_path: Path) -> None:
    held = Held()
    large = {**asking(), "padding": "x" * 6_000}
    with door(tmp_path, held, body_limit_bytes=10_000, bodies_limit_bytes=10_000) as at:
        with at.client.stream("POST", CHAT, json=large, headers=bearer("all")) as running:
            assert running.status_code == 200
            refused = at.client.post(CHAT, json=large, headers=bearer("all"))
            assert (refused.status_code, error_of(refused)["code"]) == (429, "rate_limit_exceeded")
            assert "retry-after" in refused.headers
            held.go.set()
        assert eventually(lambda: at.client.post(CHAT, json=large, headers=bearer("all")).status_code == 200)


# --- logs


def test_nothing_of_a_prompt_or_a_key_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    said = "the very private words"
    error = '{"error":{"code":500,"message":"the very private words","type":"server_error"}}'
    caplog.set_level(logging.DEBUG)
    with door(tmp_path, whole(500, error), stream(f"data: {error}\n\n", end=False)) as at:
        bodies: list[Any] = [
            {**asking(), "prompt": said},
            {**asking(), "model": said},
            {**asking(), "messages": [{"role": "user", "content": said}], "lora": said},
            {**asking(), "model": "a/chat:sql", "messages": said, "stream": True},
            said,
        ]
        for body in bodies:
            for key in ("all", "team-a", "wrong"):
                assert at.client.post(CHAT, json=body, headers=bearer(key)).status_code >= 200
        assert at.client.post(CHAT, content=f'{{"model": "{said}'.encode(), headers=bearer("all")).status_code == 400
        answer = at.client.post(f"{CHAT}?{said}", json=asking(), headers=bearer("all"))
        assert answer.status_code in (500, 200), "by the ports of the two, the one or the other gets it"
    own = "".join(r.getMessage() + str(r.exc_text) for r in caplog.records if r.name.startswith("llamamodel"))
    assert "serving models" in own
    for kept in ("private", *(secret(name) for name in ("all", "team-a", "wrong"))):
        assert kept not in own


def test_a_bug_is_logged_without_what_it_says_of_the_request(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = "the very private words"

    def fail(*_: object) -> None:
        raise ValueError(said)

    with door(tmp_path) as at:
        monkeypatch.setattr(GivenDirectory, "addresses", fail)
        response = at.ask("all")
    assert response.status_code == 500
    assert said not in response.text + caplog.text
    assert "ValueError" in caplog.text
    assert "in fail" in caplog.text
