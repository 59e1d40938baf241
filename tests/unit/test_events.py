"""Events: one when a model becomes ready, stops, or fails in another way, and none for steps on the way."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest

from llamamodel_operator.api.conditions import Reason
from llamamodel_operator.shell.client import EVENTS, ApiError
from llamamodel_operator.shell.events import TransitionEvent, transition_event

from .builders import NOON, a_model
from .fake_cluster import FakeCluster

SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*")


def an_event(
    before: str = "", after: str = Reason.CRASH_LOOP, *, name: str = "gemma", message: str = "bad file"
) -> TransitionEvent | None:
    return transition_event(
        a_model().named(name).raw()["metadata"],
        before={"reason": before} if before else {},
        after={"reason": after, "message": message},
        now=NOON,
    )


def body(event: TransitionEvent | None) -> dict[str, Any]:
    assert event is not None
    return dict(event.body)


@pytest.mark.parametrize(
    ("before", "after", "kind"),
    [
        ("", Reason.CRASH_LOOP, "Warning"),
        (Reason.LOADING, Reason.READY, "Normal"),
        (Reason.READY, Reason.CRASH_LOOP, "Warning"),
        (Reason.CRASH_LOOP, Reason.OUT_OF_MEMORY, "Warning"),
        (Reason.READY, Reason.SUSPENDED, "Normal"),
        (Reason.READY, Reason.SCALED_TO_ZERO, "Normal"),
        (Reason.STARTING, Reason.UNSCHEDULABLE, "Warning"),
        (Reason.READY, Reason.INVALID_SPEC, "Warning"),
        ("SomethingOfAnOlderVersion", Reason.READY, "Normal"),
    ],
)
def test_a_transition_that_people_want_to_know_of_is_told(before: str, after: str, kind: str) -> None:
    event = body(an_event(before, after))
    assert (event["type"], event["reason"]) == (kind, after)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", Reason.INSPECTING),
        (Reason.INSPECTING, Reason.STARTING),
        ("", Reason.STARTING),
        (Reason.STARTING, Reason.LOADING),
        (Reason.READY, Reason.ROLLING_OUT),
        (Reason.STARTING, Reason.CLAIM_PENDING),
        (Reason.CRASH_LOOP, Reason.CRASH_LOOP),
        (Reason.READY, Reason.READY),
    ],
)
def test_a_step_on_the_way_and_the_same_again_are_not(before: str, after: str) -> None:
    assert an_event(before, after) is None


def test_an_event_names_the_model_says_why_and_who_says_so() -> None:
    event = body(an_event())
    assert event["regarding"] == {
        "apiVersion": "llamamodel.dev/v1alpha1",
        "kind": "LlamaModel",
        "name": "gemma",
        "namespace": "demo",
        "uid": "uid-of-gemma",
    }
    assert event["note"] == "bad file"
    assert event["eventTime"] == "2026-01-01T12:00:00.000000Z"
    assert event["action"] == "Reconcile"
    assert event["reportingController"] == "llamamodel.dev/llamamodel-operator"
    assert event["metadata"]["namespace"] == "demo"


@pytest.mark.parametrize("name", ["gemma", "qwen2.5-7b", "x" * 253, "a." * 100 + "b"])
def test_the_name_of_an_event_is_valid(name: str) -> None:
    found = body(an_event(name=name))["metadata"]["name"]
    assert len(found) <= 253
    assert SUBDOMAIN.fullmatch(found)


@pytest.mark.parametrize("name", ["a" * 219 + "-" + "b" * 20, "a" * 219 + "." + "b" * 20])
def test_the_name_of_an_event_is_valid_wherever_the_models_name_is_cut(name: str) -> None:
    assert SUBDOMAIN.fullmatch(body(an_event(name=name))["metadata"]["name"])


def test_two_transitions_are_two_events() -> None:
    later = transition_event(
        a_model().raw()["metadata"], before={}, after={"reason": "CrashLoop"}, now=NOON + timedelta(seconds=1)
    )
    assert body(an_event())["metadata"]["name"] != body(later)["metadata"]["name"]


def test_a_long_message_is_cut_to_what_an_event_may_hold() -> None:
    assert body(an_event(message="x" * 5000))["note"] == "x" * 1024


def test_a_long_message_in_another_script_is_cut_to_what_an_event_may_hold() -> None:
    note = body(an_event(message="模型" * 600))["note"]
    assert 0 < len(note.encode()) <= 1024


def test_a_condition_without_a_message_makes_an_event_without_a_note() -> None:
    event = transition_event(a_model().raw()["metadata"], before={}, after={"reason": "CrashLoop"}, now=NOON)
    assert body(event)["note"] == ""


async def test_an_event_is_sent_by_creating_it(cluster: FakeCluster) -> None:
    event = an_event()
    assert event is not None
    await event.send(cluster)
    assert len(cluster.keys(EVENTS)) == 1


async def test_an_event_that_cannot_be_sent_is_logged_and_no_more(
    cluster: FakeCluster, caplog: pytest.LogCaptureFixture
) -> None:
    event = an_event()
    assert event is not None
    cluster.refuses("Event", ApiError(status=403, reason="Forbidden", message="may not create events"))
    await event.send(cluster)
    assert "may not create events" in caplog.text


async def test_an_event_that_was_sent_before_is_no_news(cluster: FakeCluster, caplog: pytest.LogCaptureFixture) -> None:
    event = an_event()
    assert event is not None
    await event.send(cluster)
    await event.send(cluster)
    assert caplog.text == ""
