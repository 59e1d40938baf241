"""`llamamodel gateway-key`: the key is shown once, and the gateway knows it by the Secret."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
import yaml

from llamamodel_operator.cli.main import run
from llamamodel_operator.core.gateway.keys import KeyRing, read_keys


def made(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[str, dict[str, Any]]:
    """The key, and the Secret."""
    assert run(["llamamodel", "gateway-key", *arguments]) == 0
    told = capsys.readouterr()
    key = told.err.splitlines()[-1]
    assert key not in told.out
    return key, yaml.safe_load(told.out)


def ring_of(secret: dict[str, Any]) -> KeyRing:
    files = {name: base64.b64decode(text) for name, text in secret["data"].items()}
    ring, problems = read_keys(files, known=KeyRing())
    assert problems == ()
    return ring


def test_the_gateway_knows_the_key_by_the_secret(capsys: pytest.CaptureFixture[str]) -> None:
    key, secret = made(capsys, "ci")
    assert (secret["kind"], secret["metadata"]) == ("Secret", {"name": "llamamodel-gateway-keys"})
    found = ring_of(secret).find(key)
    assert found is not None
    assert (found.name, found.entry.namespaces, found.entry.models) == ("ci", None, None)
    assert (found.entry.requests_per_minute, found.entry.concurrency) == (None, None)


def test_the_secret_holds_what_the_key_may_do(capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--namespace", "a", "--namespace", "b", "--model", "a/chat", "--requests-per-minute", "60")
    key, secret = made(capsys, "ci", *options, "--concurrency", "4", "--secret", "others", "-o", "json")
    found = ring_of(secret).find(key)
    assert found is not None
    assert secret["metadata"]["name"] == "others"
    assert (found.entry.namespaces, found.entry.models) == (["a", "b"], ["a/chat"])
    assert (found.entry.requests_per_minute, found.entry.concurrency) == (60, 4)


def test_the_secret_is_json_where_that_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["llamamodel", "gateway-key", "ci", "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["apiVersion"] == "v1"


def test_no_two_keys_are_alike(capsys: pytest.CaptureFixture[str]) -> None:
    keys = {made(capsys, "ci")[0] for _ in range(20)}
    assert len(keys) == 20
    assert {len(key) for key in keys} == {47}, "llm- and 256 bits"


@pytest.mark.parametrize("name", ["..data", "a/b", "", "ü", "a" * 254])
def test_a_name_that_a_secret_cannot_have_is_refused(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["llamamodel", "gateway-key", name]) == 2
    told = capsys.readouterr()
    assert "cannot name an entry of a Secret" in told.err
    assert told.out == ""
