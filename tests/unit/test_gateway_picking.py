"""Which pod takes a request."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamamodel_operator.core.gateway.picking import Pick, Why, beginning_of, others_load, pick

PODS = ["10.0.0.1:8080", "10.0.0.2:8080", "10.0.0.3:8080"]
SYSTEM = {"role": "system", "content": "Be brief."}


def chat(*contents: str) -> dict[str, Any]:
    roles = ("user", "assistant")
    return {"messages": [SYSTEM, *({"role": roles[n % 2], "content": text} for n, text in enumerate(contents))]}


def test_the_turns_of_a_conversation_have_one_beginning() -> None:
    first = beginning_of(chat("What is a llama?"))
    assert first is not None
    assert first == beginning_of(chat("What is a llama?", "An animal.", "Where does it live?"))
    assert first != beginning_of(chat("What is an alpaca?"))
    parts = {"messages": [SYSTEM, {"role": "user", "content": [{"type": "text", "text": "What is a llama?"}]}]}
    assert beginning_of(parts) == first


@pytest.mark.parametrize(
    "request_body",
    [{}, {"messages": []}, {"messages": "x"}, {"messages": ["x"]}, {"prompt": 5}, {"input": []}, {"prompt": ""}],
)
def test_what_has_no_beginning_has_none(request_body: dict[str, Any]) -> None:
    assert beginning_of(request_body) is None


@given(st.recursive(st.none() | st.text() | st.integers(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)))
def test_any_content_has_a_beginning_or_none(content: Any) -> None:
    beginning_of({"messages": [{"role": "user", "content": content}]})
    beginning_of({"prompt": content})


def test_a_conversation_stays_and_conversations_spread() -> None:
    picked = {
        name: {pick(PODS, in_flight={}, beginning=name.encode(), turn=turn).address for turn in range(4)}
        for name in map(str, range(300))
    }
    assert all(len(pods) == 1 for pods in picked.values())
    assert min(Counter(next(iter(pods)) for pods in picked.values()).values()) > 60


def test_a_pod_that_goes_moves_no_other_conversation() -> None:
    for name in map(str, range(100)):
        before = pick(PODS, in_flight={}, beginning=name.encode(), turn=0).address
        after = pick(PODS[:2], in_flight={}, beginning=name.encode(), turn=0).address
        assert after == before or before == PODS[2]


def test_a_conversation_moves_on_from_a_pod_that_has_more_to_do_than_others() -> None:
    at_home = pick(PODS, in_flight={}, beginning=b"x", turn=0).address
    busy = {at_home: 8}
    assert pick(PODS, in_flight=busy, beginning=b"x", turn=0).address != at_home
    even = dict.fromkeys(PODS, 8)
    assert pick(PODS, in_flight=even, beginning=b"x", turn=0).address == at_home


@given(st.lists(st.integers(0, 50), min_size=1, max_size=8), st.binary(max_size=4) | st.none(), st.integers(0, 99))
def test_no_pod_gets_more_than_its_share(loads: list[int], beginning: bytes | None, turn: int) -> None:
    addresses = [f"10.0.0.{n}:8080" for n in range(len(loads))]
    in_flight = dict(zip(addresses, loads, strict=True))
    picked = pick(addresses, in_flight=in_flight, beginning=beginning, turn=turn).address
    if len(loads) > 1:
        assert in_flight[picked] <= 1.25 * (sum(loads) + 1) / len(loads)


def test_without_a_beginning_who_has_least_to_do_takes_turns() -> None:
    in_flight = {PODS[0]: 2}
    assert [pick(PODS, in_flight=in_flight, beginning=None, turn=turn).address for turn in range(4)] == [
        PODS[1],
        PODS[2],
        PODS[1],
        PODS[2],
    ]


SAID = b"# TYPE llamacpp:requests_processing gauge\nllamacpp:requests_processing 2\nllamacpp:requests_deferred 3\n"


@pytest.mark.parametrize(
    ("metrics", "own", "expected"),
    [
        (SAID, 0, 5),
        (SAID, 2, 3),
        (SAID, 7, 0),
        (b"", 0, None),
        (b"llamacpp:requests_processing 2\n", 0, None),
        (b"llamacpp:requests_processing nan\nllamacpp:requests_deferred 0\n", 0, None),
        (b"<html>llamacpp:requests_processing 2</html>", 0, None),
    ],
)
def test_what_others_have_sent_a_pod_is_what_it_says_less_ones_own(
    metrics: bytes, own: int, expected: int | None
) -> None:
    assert others_load(metrics, own=own) == expected


def test_a_pick_says_why() -> None:
    at_home = pick(PODS, in_flight={}, beginning=b"x", turn=0)
    assert at_home.why == Why.AFFINITY
    assert pick(PODS, in_flight={at_home.address: 8}, beginning=b"x", turn=0).why == Why.BOUND
    assert pick(PODS, in_flight={}, beginning=None, turn=0).why == Why.LEAST
    assert pick(PODS[:1], in_flight={}, beginning=b"x", turn=0) == Pick(PODS[0], Why.ONLY)
