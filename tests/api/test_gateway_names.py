"""Bare names of the gateway, with an operator and gateways as processes: none changes its namespace by itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from .harness.audit import AuditLog
from .harness.bench import Bench
from .harness.cluster import Cluster
from .harness.gateway import a_gateway
from .harness.kube import Obj
from .harness.models import a_model
from .harness.operators import Operators
from .harness.process import OperatorProcess
from .harness.waiting import eventually


@pytest.fixture
def operator(operators: Operators) -> OperatorProcess:
    """One that knows of a gateway; not started yet."""
    return operators.make("operator", resync_interval_sec=600, gateway=True)


@pytest.fixture
def theirs(bench: Bench) -> Iterator[Bench]:
    """Another team's namespace."""
    namespace = f"{bench.namespace[:50]}-theirs"
    bench.kube.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
    made = Bench(kube=bench.kube, cluster=bench.cluster, namespace=namespace)
    yield made
    made.play_namespace_controller()


def said_of_names(model: Obj) -> list[str]:
    found = (model.get("status") or {}).get("findings") or []
    return [finding["message"] for finding in found if finding["code"] == "NameTaken"]


def asked(gateway: httpx.Client, name: str) -> dict[str, Any]:
    """The error for a chat with this model: no pod of any runs here."""
    answer = gateway.post(
        "/v1/chat/completions",
        json={"model": name, "messages": [{"role": "user", "content": "hello"}]},
        headers={"x-llamamodel-wait": "0"},
    )
    error: dict[str, Any] = answer.json()["error"]
    return error


def listed(gateway: httpx.Client) -> set[str]:
    return {model["id"] for model in gateway.get("/v1/models").json()["data"]}


def test_a_name_stays_in_its_namespace_until_somebody_takes_it(
    cluster: Cluster, bench: Bench, theirs: Bench, operator: OperatorProcess, audit: AuditLog, tmp_path: Path
) -> None:
    operator.start_and_lead()
    ours_full, theirs_full = f"{bench.namespace}/first", f"{theirs.namespace}/second"
    bench.create(a_model("first").with_(servedModelName="chat"))
    first = bench.wait_until_settled("first")
    assert first["status"]["gatewayName"] == "chat"
    theirs.create(a_model("second").with_(servedModelName="chat"))
    second = theirs.wait_until_settled("second")
    assert second["status"]["refusedName"] == "chat"
    (told,) = said_of_names(second)
    assert "first" not in told

    with a_gateway(cluster, tmp_path / "log") as gateway:
        assert listed(gateway) == {"chat", theirs_full}
        bench.delete("LlamaModel", "first")
        eventually(lambda: listed(gateway) == {theirs_full}, what="the gateway has seen it go")
        error = asked(gateway, "chat")
        assert (error["code"], f"`{theirs_full}`" in error["message"]) == ("model_not_found", True)
        freed = eventually(
            lambda: theirs.get("LlamaModel", "second"),
            until=lambda model: "had the name chat" in said_of_names(model)[0],
            what="its owner is told that the name is free",
        )
        assert freed["status"]["refusedName"] == "chat"
        mark = audit.mark()
        theirs.edit("LlamaModel", "second", {"metadata": {"labels": {"touched": "yes"}}})
        bench.create(a_model("first").with_(servedModelName="talk"))
        bench.wait_until_settled("first")
        assert not mark.writes(namespace=theirs.namespace)

        operator.stop()
        theirs.kubectl("annotate", "llamamodel", "second", "llamamodel.dev/take-name=chat")
        eventually(lambda: asked(gateway, "chat")["code"] != "model_not_found", what="the gateway knows it by the name")
        operator.start_and_lead()
        eventually(
            lambda: theirs.get("LlamaModel", "second")["status"],
            until=lambda status: status.get("gatewayName") == "chat" and "refusedName" not in status,
            what="the operator has noted it",
        )
        assert listed(gateway) == {"talk", "chat"}
        assert asked(gateway, ours_full)["code"] != "model_not_found"


def test_two_models_that_are_made_while_the_operator_is_away_have_the_same_standing_before_and_after(
    cluster: Cluster, bench: Bench, theirs: Bench, operator: OperatorProcess, tmp_path: Path
) -> None:
    for where, name in ((bench, "first"), (theirs, "second")):
        where.create(a_model(name).with_(servedModelName="chat"))
    with a_gateway(cluster, tmp_path / "one") as one, a_gateway(cluster, tmp_path / "other") as other:
        before = listed(one)
        assert listed(other) == before
        assert "chat" in before
        operator.start_and_lead()
        found = {
            model["metadata"]["name"]: model["status"]
            for model in (bench.wait_until_settled("first"), theirs.wait_until_settled("second"))
        }
        assert (listed(one), listed(other)) == (before, before)
    with_name = [name for name, status in found.items() if status.get("gatewayName") == "chat"]
    refused = [name for name, status in found.items() if status.get("refusedName") == "chat"]
    assert sorted(with_name + refused) == ["first", "second"]
    assert len(with_name) == 1
    assert not any(full_name.endswith(f"/{with_name[0]}") for full_name in before)
