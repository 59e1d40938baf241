"""Which LlamaModel a name means, and which of its pods take requests."""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Any

import pytest

from llamamodel_operator.core.gateway.routes import ServedModel, build_routes, ready_addresses, served_model
from llamamodel_operator.core.gateway.standing import Standing


def a_model(full_name: str, served: str = "", **more: Any) -> ServedModel:
    namespace, _, name = full_name.partition("/")
    return ServedModel(namespace=namespace, name=name, served_name=served or name, **more)


def found(models: Iterable[ServedModel], name: str, bare: frozenset[str] | None = None) -> str | None:
    target = build_routes(models, bare_namespaces=bare).find(name)
    return target.model.full_name if target else None


def test_a_model_answers_to_its_served_name_and_to_its_full_name() -> None:
    models = [a_model("demo/gemma", "google/gemma-3"), a_model("demo/qwen")]
    assert found(models, "google/gemma-3") == "demo/gemma"
    assert found(models, "demo/gemma") == "demo/gemma"
    assert found(models, "gemma") is None, "its servers do not know it by this name"
    assert found(models, "qwen") == "demo/qwen"


def test_bare_names_come_from_the_namespaces_that_are_allowed() -> None:
    models = [a_model("demo/gemma"), a_model("other/qwen")]
    allowed = frozenset({"demo"})
    assert found(models, "gemma", allowed) == "demo/gemma"
    assert found(models, "qwen", allowed) is None
    assert found(models, "other/qwen", allowed) == "other/qwen"


def test_nobody_takes_the_full_name_of_another() -> None:
    thief = a_model("demo/thief", "team-b/chat", created="2020", standing=Standing.HOLDS)
    owner = a_model("team-b/chat", created="2026")
    assert found([thief, owner], "team-b/chat") == "team-b/chat"
    assert build_routes([thief, owner]).shadowed == (thief,)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"created": "2025"}, {"created": "2026"}),
        ({"created": "2026", "standing": Standing.HOLDS}, {"created": "2025"}),
        ({"created": "2026"}, {"created": "2026"}),
    ],
    ids=["the elder", "who has been serving it", "by name"],
)
def test_a_name_that_is_taken_twice_stays_with_one_whatever_the_order(
    first: dict[str, Any], second: dict[str, Any]
) -> None:
    one, other = a_model("a/one", "chat", **first), a_model("b/other", "chat", **second)
    for models in ([one, other], [other, one]):
        routes = build_routes(models)
        target = routes.find("chat")
        assert target is not None
        assert target.model is one
        assert routes.shadowed == (other,)
        assert found(models, "b/other") == "b/other"


def test_an_adapter_is_asked_for_behind_a_colon() -> None:
    models = [a_model("demo/gemma", adapters=("sql", "pirate")), a_model("demo/llama3:8b", adapters=("sql",))]
    routes = build_routes(models)
    assert [
        (target.model.name, target.adapter) if (target := routes.find(name)) else None
        for name in ("gemma:pirate", "demo/gemma:sql", "gemma:none", "llama3:8b", "llama3:8b:sql", "gemma:", ":sql")
    ] == [("gemma", 1), ("gemma", 0), None, ("llama3:8b", None), ("llama3:8b", 0), None, None]


def test_each_model_is_listed_once_by_the_name_that_clients_know_best() -> None:
    models = [a_model("demo/gemma", adapters=("sql",)), a_model("other/gemma", created="2026")]
    routes = build_routes(models)
    assert [name for name, _ in routes.models()] == ["gemma", "other/gemma"]
    assert list(routes.names()) == ["demo/gemma", "demo/gemma:sql", "gemma", "gemma:sql", "other/gemma"]


def test_routes_do_not_depend_on_the_order_in_which_the_api_server_lists() -> None:
    models = [a_model(f"n{n % 3}/m{n}", f"s{n % 5}", created=f"20{n % 4}") for n in range(30)]
    shuffled = random.Random(7).sample(models, len(models))  # noqa: S311
    assert build_routes(models) == build_routes(shuffled)


def test_a_model_is_read_from_the_object() -> None:
    raw: dict[str, Any] = {
        "metadata": {"namespace": "demo", "name": "gemma", "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {
            "servedModelName": "gemma-3",
            "task": "embed",
            "loraAdapters": [{"name": "sql"}],
            "engine": {"contextSize": "auto"},
        },
        "status": {
            "phase": "Loading",
            "gatewayName": "gemma-3",
            "engine": {"settled": {"contextSize": 4096, "startupTimeoutSec": 300}},
            "conditions": [{"type": "Ready", "status": "False", "reason": "Loading", "message": "pod x loads"}],
        },
    }
    assert served_model(raw) == ServedModel(
        namespace="demo",
        name="gemma",
        created="2026-01-01T00:00:00Z",
        served_name="gemma-3",
        standing=Standing.HOLDS,
        task="embed",
        adapters=("sql",),
        phase="Loading",
        reason="Loading",
        message="pod x loads",
        context_tokens=4096,
        startup_timeout_sec=300,
    )
    bare = served_model({"metadata": {"namespace": "demo", "name": "gemma"}, "spec": {"model": {}}})
    assert (bare.served_name, bare.standing, bare.phase, bare.task) == ("gemma", Standing.WANTS, "", "generate")


def an_endpoint(address: str, **conditions: bool) -> dict[str, Any]:
    return {"addresses": [address], "conditions": conditions}


def test_only_pods_that_are_ready_and_stay_take_requests() -> None:
    endpoint_slice = {
        "metadata": {"namespace": "demo", "name": "gemma-x", "labels": {"kubernetes.io/service-name": "gemma"}},
        "ports": [{"name": "other", "port": 1}, {"name": "http", "port": 8080}],
        "endpoints": [
            an_endpoint("10.0.0.2", ready=True),
            an_endpoint("10.0.0.1"),
            an_endpoint("10.0.0.3", ready=False),
            an_endpoint("10.0.0.4", ready=False, serving=True, terminating=True),
            an_endpoint("fd00::1", ready=True, serving=True, terminating=False),
        ],
    }
    assert ready_addresses(endpoint_slice) == ("gemma", ("10.0.0.1:8080", "10.0.0.2:8080", "[fd00::1]:8080"))
    assert ready_addresses({"metadata": {}, "endpoints": None, "ports": None}) == ("", ())
