"""The command line shows servers the key of the Secret that their LlamaModel names, where the environment has none."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from llamamodel_operator.cli import observing
from llamamodel_operator.cli.main import run

from .builders import a_model, a_pod
from .fake_api import FakeApi, FakeServer, a_fake_api

READY = {"type": "Ready", "status": "True", "reason": "Ready", "message": "", "observedGeneration": 1}
LOCKED = (
    a_model().with_spec(apiKeySecretRef={"name": "llama-keys"}).with_status({"phase": "Ready", "conditions": [READY]})
)
REFUSED = (401, {"error": {"message": "Invalid API Key"}})
SECRET = "/api/v1/namespaces/demo/secrets/llama-keys"

Call = Callable[..., str]


@pytest.fixture
def api(tmp_path: Path) -> Iterator[FakeApi]:
    with a_fake_api(tmp_path) as api:
        api.has(LOCKED.raw(), a_pod().ready().raw())
        api.servers["gemma-0"] = FakeServer()
        api.secrets["demo", "llama-keys"] = {"api-keys": b"# ours\nold\nnew\n", "mine": b"own"}
        yield api


@pytest.fixture
def call(api: FakeApi, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    monkeypatch.setattr(observing, "INTERVAL_SEC", 0)
    monkeypatch.delenv("LLAMAMODEL_API_KEY", raising=False)

    def call(*arguments: str) -> str:
        run(["llamamodel", *arguments, "--kubeconfig", api.kubeconfig])
        told = capsys.readouterr()
        assert "should not happen" not in told.err, told.err
        return told.out

    return call


def shown(api: FakeApi) -> set[str | None]:
    return {headers.get("X-Api-Key") for headers in api.servers["gemma-0"].headers}


BENCH = ("bench", "gemma", "--parallel", "1", "--prompt-tokens", "5", "--generate-tokens", "2")


@pytest.mark.parametrize("command", [("status", "gemma"), ("top",), BENCH])
def test_the_first_key_of_the_secret_is_shown(api: FakeApi, call: Call, command: tuple[str, ...]) -> None:
    call(*command)
    assert shown(api) == {"old"}
    assert api.asked.count(f"GET {SECRET}") == 1


def test_the_entry_is_the_one_that_the_model_names(api: FakeApi, call: Call) -> None:
    api.has(LOCKED.with_spec(apiKeySecretRef={"name": "llama-keys", "key": "mine"}).raw())
    call("status", "gemma")
    assert shown(api) == {"own"}


def test_the_environment_comes_first(api: FakeApi, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLAMAMODEL_API_KEY", "given")
    call("status", "gemma")
    assert shown(api) == {"given"}
    assert f"GET {SECRET}" not in api.asked


def test_of_a_model_without_the_field_no_secret_is_read(api: FakeApi, call: Call) -> None:
    api.has(a_model().with_status({"phase": "Ready", "conditions": [READY]}).raw())
    call("status", "gemma")
    assert shown(api) == {None}
    assert f"GET {SECRET}" not in api.asked


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        (None, "Secret llama-keys in the namespace demo does not exist"),
        ({}, "Secret llama-keys in the namespace demo has no key in its entry api-keys"),
        ({"api-keys": b"# none\n"}, "Secret llama-keys in the namespace demo has no key in its entry api-keys"),
    ],
)
def test_a_secret_without_a_key_is_said_where_a_server_wants_one(
    api: FakeApi, call: Call, entries: dict[str, bytes] | None, said: str
) -> None:
    del api.secrets["demo", "llama-keys"]
    if entries is not None:
        api.secrets["demo", "llama-keys"] = entries
    api.servers["gemma-0"].answers["/slots"] = REFUSED
    assert f"LLAMAMODEL_API_KEY ({said}): Invalid API Key" in call("status", "gemma")


def test_a_right_that_is_missing_is_said(api: FakeApi, call: Call) -> None:
    api.servers["gemma-0"].answers["/slots"] = REFUSED
    api.refusals[f"GET {SECRET}"] = (403, {"kind": "Status", "message": 'secrets "llama-keys" is forbidden'})
    said = call("status", "gemma")
    assert "Secret llama-keys in the namespace demo cannot be read" in said
    assert 'secrets "llama-keys" is forbidden' in said
