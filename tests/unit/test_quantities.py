"""Resource quantities: what is one, and when two of them are the same."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from llamamodel_operator.api.quantity import parse_quantity, same_quantity

from .builders import a_model

_AMOUNTS = st.integers(min_value=0, max_value=10**15)


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("4Gi", 4 * 2**30),
        ("1.5Gi", 3 * 2**29),
        ("500m", Decimal("0.5")),
        ("100n", Decimal("1e-7")),
        ("7u", Decimal("7e-6")),
        ("3k", 3000),
        ("2M", 2_000_000),
        ("2E", 2 * 10**18),
        ("2E3", 2000),
        ("2e-3", Decimal("0.002")),
        ("1Ei", 2**60),
        (".5", Decimal("0.5")),
        ("5.", 5),
        ("+5", 5),
        ("-1", -1),
        ("0", 0),
        (12, 12),
    ],
)
def test_a_quantity_has_the_value_that_kubernetes_gives_it(written: str | int, value: int | Decimal) -> None:
    assert parse_quantity(written) == value


@pytest.mark.parametrize(
    "written", ["", " ", "4 GB", "4GB", "Gi", "1,5", "0x10", "4gi", "1Ki5", "e3", "--1", "1 ", "inf", "NaN", "1K", True]
)
def test_what_is_no_quantity_is_refused_with_an_example_of_one(written: str) -> None:
    with pytest.raises(ValueError, match="is not a quantity: write a number and a unit without a space, such as 4Gi"):
        parse_quantity(written)


@pytest.mark.parametrize("written", ["\u0663", "\uff13Gi", "1.\u0665"])
def test_digits_of_other_scripts_are_refused_as_the_api_server_refuses_them(written: str) -> None:
    with pytest.raises(ValueError, match="is not a quantity"):
        parse_quantity(written)


@pytest.mark.parametrize("written", ["1e1000000", "1e99999999999", "1e-99999999999", "1e5000"])
def test_a_quantity_beyond_all_bounds_makes_a_plan_or_a_sentence_but_no_stack_trace(written: str) -> None:
    try:
        parse_quantity(written)
    except ValueError:
        return
    a_model().with_limits(cpu=written).plan()


@given(_AMOUNTS)
def test_a_number_of_mebibytes_is_the_same_in_every_spelling(amount: int) -> None:
    assert same_quantity(f"{amount}Mi", amount * 2**20)
    assert same_quantity(f"{amount}Mi", f"{amount * 1024}Ki")


@given(_AMOUNTS)
def test_a_number_of_cores_is_the_same_in_millis(amount: int) -> None:
    assert same_quantity(f"{amount * 1000}m", amount)
    assert same_quantity(str(amount), f"{amount}.000")


@given(_AMOUNTS, _AMOUNTS)
def test_quantities_are_the_same_exactly_where_their_values_are(left: int, right: int) -> None:
    assert same_quantity(f"{left}Ki", f"{right}Ki") == (left == right)
    assert same_quantity(left, right) == same_quantity(right, left)


@given(st.one_of(st.text(max_size=12), st.none(), st.booleans(), st.floats(), st.lists(st.integers(), max_size=2)))
@example("4 GB")
def test_what_is_no_quantity_is_the_same_as_nothing(junk: object) -> None:
    try:
        parse_quantity(junk)  # type: ignore[arg-type]
    except ValueError:
        assert not same_quantity(junk, junk)
        assert not same_quantity(junk, 1)


@given(st.text(max_size=12))
def test_any_text_is_a_quantity_or_refused_with_a_sentence(text: str) -> None:
    try:
        value = parse_quantity(text)
    except ValueError as error:
        refusal = str(error)
    else:
        assert isinstance(value, Decimal)
        return
    assert repr(text) in refusal
