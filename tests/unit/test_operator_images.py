"""Which image of the operator the pods of models name after an upgrade of it, and when they get the new one."""

from __future__ import annotations

from dataclasses import replace

import pytest

from llamamodel_operator.api.conditions import Reason
from llamamodel_operator.core.facts import Facts
from llamamodel_operator.core.inspection import Inspection, InspectionState
from llamamodel_operator.core.objects.check import CHECK_CONTAINER, check_of
from llamamodel_operator.core.objects.drain import DRAIN_CONTAINER, drain_image_of
from llamamodel_operator.core.plan import Plan

from .builders import ModelBuilder, a_model
from .gguf_models import an_8b, inspected

OLD, NEW = "example.com/llamamodel-operator:1", "example.com/llamamodel-operator:2"
KNOWN = inspected(an_8b())
LOST = Inspection(state=InspectionState.UNKNOWN, reason=Reason.INSPECTION_UNAVAILABLE, message="")


def images(plan: Plan) -> dict[str, str]:
    """Of the init containers, by name."""
    deployment = next(child for child in plan.objects if child["kind"] == "Deployment")
    containers = deployment["spec"]["template"]["spec"].get("initContainers") or []
    return {container["name"]: container["image"] for container in containers}


def upgraded(model: ModelBuilder, first: Plan, *, pods: bool = True, inspection: Inspection = KNOWN) -> Plan:
    """What the new operator plans where the old one's plan runs, or lies there without a pod."""
    live = next(child for child in first.objects if child["kind"] == "Deployment")
    assert first.settled is not None
    engine = {
        "settledFor": first.settled_for,
        "flags": f"b{first.flags}",
        "settled": first.settled.model_dump(by_alias=True, exclude_none=True),
    }
    facts = Facts(
        operator_image=NEW,
        inspection=inspection,
        running=True,
        running_revision=first.revision if pods else "",
        running_drain=drain_image_of(live),
        running_check=check_of(live),
    )
    return model.with_status({"engine": engine}).plan(facts)


FIRST = a_model().plan(Facts(operator_image=OLD, inspection=KNOWN))
BOTH = {CHECK_CONTAINER, DRAIN_CONTAINER}


def test_an_upgrade_leaves_pods_the_image_that_they_started_with() -> None:
    plan = upgraded(a_model(), FIRST)
    assert images(plan) == dict.fromkeys(BOTH, OLD)
    assert plan.revision == FIRST.revision


def test_the_annotation_settle_renews_the_image_of_sidecar_and_check() -> None:
    plan = upgraded(a_model().annotated(**{"llamamodel.dev/settle": "1"}), FIRST)
    assert images(plan) == dict.fromkeys(BOTH, NEW)


@pytest.mark.parametrize("model", [a_model(), a_model().suspended(), a_model().with_replicas(0)])
def test_a_model_without_pods_gets_the_new_image(model: ModelBuilder) -> None:
    assert images(upgraded(model, FIRST, pods=False)) == dict.fromkeys(BOTH, NEW)


def test_what_is_to_be_suspended_keeps_its_image_until_no_pod_is_asked_for() -> None:
    assert images(upgraded(a_model().suspended(), FIRST)) == dict.fromkeys(BOTH, OLD)


def test_a_model_without_pods_keeps_what_an_inspection_is_needed_for() -> None:
    assert images(upgraded(a_model(), FIRST, pods=False, inspection=LOST)) == dict.fromkeys(BOTH, OLD)


def test_a_model_without_pods_that_began_without_sidecar_and_check_goes_on_so() -> None:
    bare = a_model().plan(Facts(inspection=KNOWN))
    assert images(bare) == {}
    assert images(upgraded(a_model(), bare, pods=False)) == {}


def test_other_files_are_checked_by_the_new_image() -> None:
    other = replace(KNOWN, digest="e" * 64)
    assert images(upgraded(a_model(), FIRST, inspection=other)) == dict.fromkeys(BOTH, NEW)
