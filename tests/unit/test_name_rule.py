"""The rule by which bare names are had: the operator and every gateway come to the same, and no name changes its
namespace since a model has gone."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamamodel_operator.api.llamamodel import LlamaModel
from llamamodel_operator.core.gateway.keys import KeyEntry, digest, visible_to
from llamamodel_operator.core.gateway.routes import Routes, ServedModel, build_routes, served_model
from llamamodel_operator.core.gateway.standing import Standing, standing_of
from llamamodel_operator.core.gateway.taken import judge_name, names_in_status

from .builders import a_model

NAMES = ("chat", "code", "b/m1")
Raw = dict[str, Any]


@st.composite
def models(draw: st.DrawFn) -> list[Raw]:
    """Some, with names that several want; in no order."""
    found = []
    for number in range(draw(st.integers(1, 7))):
        model = a_model().named(f"m{number}").in_namespace(draw(st.sampled_from("abc")))
        annotations = {"llamamodel.dev/take-name": draw(st.sampled_from(NAMES))} if draw(st.booleans()) else {}
        raw = model.with_spec(servedModelName=draw(st.sampled_from(NAMES))).annotated(**annotations).raw()
        raw["metadata"]["creationTimestamp"] = f"2026-01-0{draw(st.integers(1, 3))}T00:00:00Z"
        raw["status"] = {
            field: draw(st.sampled_from(NAMES)) for field in ("gatewayName", "refusedName") if draw(st.booleans())
        }
        found.append(raw)
    return draw(st.permutations(found))


def at_the_gateway(raws: Iterable[Raw]) -> Routes:
    return build_routes(served_model(raw) for raw in raws)


def after_a_pass(raws: Sequence[Raw], number: int) -> list[Raw]:
    """The operator looks at one of them."""
    served = [served_model(raw) for raw in raws]
    verdict = judge_name(served[number], served[:number] + served[number + 1 :], bare_namespaces=None)
    model = LlamaModel.parse(raws[number])
    names = names_in_status(model, verdict)
    status = {"servedModelName": model.served_name, "gatewayName": names.has, "refusedName": names.refused}
    return [*raws[:number], {**raws[number], "status": status}, *raws[number + 1 :]]


def settled(raws: Sequence[Raw]) -> list[Raw]:
    """As often as anything changes."""
    now = list(raws)
    for _ in range(4):
        before = copy.deepcopy(now)
        for number in range(len(now)):
            now = after_a_pass(now, number)
        if now == before:
            return now
    raise AssertionError("the operator comes to no end")


@given(models())
def test_the_operator_says_of_each_model_what_every_gateway_does(raws: list[Raw]) -> None:
    served = [served_model(raw) for raw in raws]
    routes = at_the_gateway(raws)
    for model in served:
        others = [other for other in served if other is not model]
        verdict = judge_name(model, others, bare_namespaces=None)
        target = routes.find(model.served_name)
        assert (verdict.finding is None) == (target is not None and target.model == model)
        assert (verdict.finding is not None) == (model in routes.shadowed)


@given(models(), st.data())
def test_no_name_changes_its_namespace_by_what_becomes_of_others(raws: list[Raw], data: st.DataObject) -> None:
    now = settled(raws)
    before = at_the_gateway(now).by_name
    while len(now) > 1:
        del now[data.draw(st.integers(0, len(now) - 1))]
        for number in data.draw(st.lists(st.integers(0, len(now) - 1), max_size=3)):
            now = after_a_pass(now, number)
        asked = {raw["metadata"].get("annotations", {}).get("llamamodel.dev/take-name") for raw in now}
        for name, model in at_the_gateway(now).by_name.items():
            had = before.get(name)
            assert name in asked or (had is not None and had.namespace == model.namespace)


@given(models())
def test_once_settled_each_name_that_somebody_may_have_is_had_and_noted(raws: list[Raw]) -> None:
    now = settled(raws)
    routes = at_the_gateway(now)
    for raw in now:
        name, status = raw["spec"]["servedModelName"], raw["status"]
        full_name = f"{raw['metadata']['namespace']}/{raw['metadata']['name']}"
        target = routes.find(name)
        has = target is not None and target.model.full_name == full_name
        assert (status["gatewayName"] == name) == has
        assert not (status["gatewayName"] and status["refusedName"])
        assert target is not None or status["refusedName"] == name


@pytest.mark.parametrize(
    ("status", "annotations", "standing"),
    [
        ({}, {}, Standing.WANTS),
        ({"servedModelName": "chat"}, {}, Standing.WANTS),
        ({"gatewayName": "chat"}, {}, Standing.HOLDS),
        ({"gatewayName": "code"}, {}, Standing.WANTS),
        ({"refusedName": "chat"}, {}, Standing.REFUSED),
        ({"refusedName": "code"}, {}, Standing.WANTS),
        ({"refusedName": "chat"}, {"llamamodel.dev/take-name": "chat"}, Standing.WANTS),
        ({"refusedName": "chat"}, {"llamamodel.dev/take-name": "code"}, Standing.REFUSED),
    ],
)
def test_how_well_a_model_stands(status: Mapping[str, str], annotations: Mapping[str, str], standing: Standing) -> None:
    raw = {"metadata": {"annotations": annotations}, "status": status}
    assert standing_of(raw, name="chat") is standing


def a_served_model(full_name: str, **more: Any) -> ServedModel:
    namespace, _, name = full_name.partition("/")
    return ServedModel(namespace=namespace, name=name, served_name="chat", **more)


def test_a_name_that_others_are_served_under_is_told_with_their_full_names() -> None:
    routes = build_routes(
        [
            a_served_model("b/two", standing=Standing.REFUSED, adapters=("sql",)),
            a_served_model("a/one", standing=Standing.REFUSED),
        ]
    )
    assert routes.find("chat") is None
    assert routes.full_names("chat") == ("a/one", "b/two")
    assert routes.full_names("chat:sql") == ("b/two:sql",)
    assert routes.full_names("code") == routes.full_names("chat:none") == ()


def test_a_key_is_told_of_the_models_that_it_may_use_alone() -> None:
    routes = build_routes(
        [
            a_served_model("a/one", standing=Standing.HOLDS),
            a_served_model("b/two", standing=Standing.REFUSED),
            a_served_model("c/three", standing=Standing.REFUSED),
        ]
    )
    seen = visible_to(KeyEntry(sha256=digest("key"), namespaces=["b"]), routes)
    assert (seen.find("chat"), seen.full_names("chat")) == (None, ("b/two",))
    seen = visible_to(KeyEntry(sha256=digest("key"), models=["chat"]), routes)
    assert list(seen.names()) == ["a/one", "chat"]
    assert seen.full_names("chat") == ()
