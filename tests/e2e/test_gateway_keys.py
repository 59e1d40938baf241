"""API keys of the gateway in the cluster: whose models they open, how often, and how they are exchanged."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from e2e.conftest import GATEWAY, Environment
from support.kube import Kube, condition, eventually, llama_model
from support.openai_clients import CLIENTS, Says

pytestmark = pytest.mark.e2e

SECRET = "llamamodel-gateway-keys"
RENEWED_WITHIN_SEC = 240
"""The kubelet takes up to a minute or two to renew a mounted Secret."""
WRONG_PER_MINUTE = 2  # one is forgiven in 30 s, which the next ones take by no means
HELLO = [{"role": "user", "content": "Say hello."}]

Keys = Mapping[str, str]
Ask = Callable[[str, str], Says]


def new_key(environment: Environment, name: str, *limits: str) -> str:
    """Made by the command line, known to the gateway from when its Secret is renewed."""
    command = [str(Path(sys.executable).parent / "llamamodel"), "gateway-key", name, *limits]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    apply = ("apply", "--server-side", "--field-manager", f"gateway-key-{name}", "--filename", "-")
    environment.system(*apply, stdin=done.stdout)
    return next(word for word in done.stderr.split() if word.startswith("llm-"))


@pytest.fixture(scope="module")
def other(kube: Kube) -> Iterator[Kube]:
    """Another team's namespace."""
    within = kube.within(f"{kube.namespace}-other")
    within("create", "namespace", within.namespace)
    yield within
    within("delete", "llamamodels", "--all", "--wait")
    within("delete", "namespace", within.namespace, "--timeout=100s")


@pytest.fixture(scope="module")
def keys(environment: Environment, kube: Kube, other: Kube) -> Iterator[dict[str, str]]:
    """Of two namespaces with a suspended model each, which the gateway knows how to refuse without a server."""
    made = {"slow": new_key(environment, "slow", "--requests-per-minute", "1")}
    for at, name in ((kube, "ours"), (other, "theirs")):
        made[name] = new_key(environment, name, "--namespace", at.namespace)
        at.apply(llama_model(name, suspend=True))
        eventually(lambda at=at, name=name: _suspended(at, name), within=60)  # type: ignore[misc]
    environment.deploy_operator(
        "gateway.enabled=true",
        "gateway.replicas=1",
        f"gateway.keys.secretName={SECRET}",
        f"gateway.keys.wrongPerMinute={WRONG_PER_MINUTE}",
    )
    environment.system("rollout", "status", f"deployment/{GATEWAY}", "--timeout=120s", timeout=130)
    yield made
    environment.deploy_operator()
    environment.system.delete("secret", SECRET)


def _suspended(kube: Kube, name: str) -> bool:
    return condition(kube.must_get("lm", name), "Ready").get("reason") == "Suspended"


@pytest.fixture(scope="module")
def base_url(environment: Environment, keys: Keys) -> Iterator[str]:
    with environment.system.port_forward(GATEWAY, 80) as port:
        yield f"http://127.0.0.1:{port}/v1"


@pytest.fixture(params=CLIENTS)
def ask(request: pytest.FixtureRequest, base_url: str) -> Ask:
    """What a client says to a chat with a model, by a key."""

    def say(key: str, model: str) -> Says:
        return call(request.param, base_url, key, [("chat", {"model": model, "messages": HELLO})])

    return say


def call(client: str, base_url: str, key: str, calls: Sequence[tuple[str, Mapping[str, Any]]]) -> Says:
    (said,) = CLIENTS[client](base_url, key, calls)
    return said


def test_a_key_of_one_namespace_finds_nothing_of_another(ask: Ask, keys: Keys, kube: Kube, other: Kube) -> None:
    own = ask(keys["ours"], f"{kube.namespace}/ours")
    assert (own["raised"], own["code"]) == ("InternalServerError", "model_unavailable"), own
    for name in (f"{other.namespace}/theirs", "theirs", f"{other.namespace}/their"):
        others = ask(keys["ours"], name)
        assert (others["raised"], others["status"], others["code"]) == ("NotFoundError", 404, "model_not_found"), others
        assert "theirs" not in others["message"].partition("Did you mean")[2]


def test_lists_show_what_a_key_may_use(base_url: str, keys: Keys) -> None:
    ids = call("python", base_url, keys["theirs"], [("models", {})])["ids"]
    assert "theirs" in ids
    assert "ours" not in ids


def test_no_key_and_wrong_ones_are_refused_and_wrong_ones_are_limited(ask: Ask, keys: Keys, kube: Kube) -> None:
    found = [ask(f"llm-wrong-{number}", f"{kube.namespace}/ours") for number in range(WRONG_PER_MINUTE + 1)]
    assert {said["code"] for said in found} <= {"invalid_api_key", "rate_limit_exceeded"}, found
    assert found[-1]["raised"] == "RateLimitError", found[-1]
    assert ask(keys["ours"], f"{kube.namespace}/ours")["code"] == "model_unavailable", "a right key is not held back"


def test_a_key_has_so_many_requests_a_minute(ask: Ask, keys: Keys, kube: Kube) -> None:
    found = [ask(keys["slow"], f"{kube.namespace}/ours") for _ in range(3)]
    assert (found[-1]["raised"], found[-1]["status"]) == ("RateLimitError", 429), found
    assert found[-1]["code"] == "rate_limit_exceeded"


def test_keys_are_exchanged_without_a_restart(environment: Environment, base_url: str, keys: Keys, kube: Kube) -> None:
    chat = ("chat", {"model": f"{kube.namespace}/ours", "messages": HELLO})

    def code(key: str) -> str:
        return str(call("python", base_url, key, [chat])["code"])

    def refused(key: str) -> bool:
        return code(key) in ("invalid_api_key", "rate_limit_exceeded")

    def pods() -> list[tuple[str, int]]:
        found = environment.system.select("pods", "app.kubernetes.io/component=gateway")
        return [(pod["metadata"]["uid"], pod["status"]["containerStatuses"][0]["restartCount"]) for pod in found]

    before = pods()
    new = new_key(environment, "ours", "--namespace", kube.namespace)
    environment.system.patch("secret", SECRET, {"data": {"theirs": None}})
    eventually(lambda: code(new) == "model_unavailable", within=RENEWED_WITHIN_SEC, pause=3)
    assert refused(keys["ours"]), "the old one went with its entry"
    assert refused(keys["theirs"])
    assert pods() == before
