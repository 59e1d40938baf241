"""Names of children: valid for a Service whatever the LlamaModel is called, steady, and its own."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamamodel_operator.core.objects.names import child_name, labels, selector

SERVICE_NAME = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")

_TEXT = "abcxyz0189-."
_END = st.sampled_from("ab90")
MODEL_NAMES = st.builds(
    lambda first, middle, last: re.sub(r"[-.]*[.][-.]*", ".", first + middle + last),
    _END,
    st.text(alphabet=_TEXT, max_size=251),
    _END,
)
"""All that the API server takes as metadata.name: DNS subdomains, often long, with dots, beginning with digits."""


@given(MODEL_NAMES)
def test_every_model_name_gives_a_valid_service_name(name: str) -> None:
    assert SERVICE_NAME.fullmatch(child_name(name))


@given(MODEL_NAMES)
def test_a_name_is_mapped_the_same_way_every_time(name: str) -> None:
    assert child_name(name) == child_name(name)


@given(st.sets(MODEL_NAMES, min_size=2, max_size=5))
def test_distinct_models_get_distinct_names(names: set[str]) -> None:
    assert len({child_name(name) for name in names}) == len(names)


@given(st.builds(lambda middle: f"a{middle}z", st.text(alphabet="az09-", max_size=61)))
def test_a_name_that_is_a_service_name_is_kept(name: str) -> None:
    assert child_name(name) == name


@pytest.mark.parametrize(
    ("name", "child"),
    [
        ("gemma", "gemma"),
        ("a", "a"),
        ("a" * 63, "a" * 63),
        ("qwen2.5-7b", "qwen2-5-7b-5f5e975c"),
        ("7b", "m-7b-925a7bf1"),
        ("0", "m-0-5feceb66"),
        ("a" * 64, "a" * 54 + "-ffe054fe"),
        ("a" * 53 + "." + "b" * 60, "a" * 53 + "-0e66cff1"),
        ("a.-b" * 63, None),
        ("x" * 253, None),
    ],
)
def test_a_name_that_is_none_stays_readable_and_gets_a_hash(name: str, child: str | None) -> None:
    mapped = child_name(name)
    assert SERVICE_NAME.fullmatch(mapped)
    assert child is None or mapped == child


def test_names_that_differ_only_in_what_is_cut_off_stay_distinct() -> None:
    assert child_name("a" * 252 + "b") != child_name("a" * 252 + "c")
    assert child_name("a.b") != child_name("a-b")


@given(MODEL_NAMES)
def test_every_label_value_is_valid(name: str) -> None:
    for value in labels(child_name(name)).values():
        assert re.fullmatch(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?", value)


def test_the_selector_is_one_label_and_part_of_the_labels() -> None:
    assert selector("gemma") == {"llamamodel.dev/model": "gemma"}
    assert selector("gemma").items() <= labels("gemma").items()
