"""How many requests a minute, and how many wrong keys from an address."""

from __future__ import annotations

import pytest

from llamamodel_operator.core.gateway.limits import SharedBytes, TokenBucket, WrongKeys


def test_a_minutes_requests_may_come_at_once_and_then_one_by_one() -> None:
    bucket = TokenBucket(6, now=100.0)
    assert [bucket.take(now=100.0) for _ in range(7)] == [0] * 6 + [10]
    assert bucket.take(now=104.0) == 6
    assert bucket.take(now=110.0) == 0
    assert bucket.take(now=110.0) == 10


def test_what_is_not_used_does_not_gather() -> None:
    bucket = TokenBucket(2, now=0.0)
    assert [bucket.take(now=10_000.0) for _ in range(3)] == [0, 0, 30]


def test_the_wait_that_is_told_is_long_enough() -> None:
    bucket, now = TokenBucket(7, now=0.0), 0.0
    for _ in range(7):
        bucket.take(now=now)
    for _ in range(20):
        now += (waiting := bucket.take(now=now))
        assert waiting > 0
        assert bucket.take(now=now) == 0


def test_a_fast_limit_tells_to_wait_a_second() -> None:
    bucket = TokenBucket(6000, now=0.0)
    assert {bucket.take(now=0.0) for _ in range(6000)} == {0}
    assert bucket.take(now=0.0) == 1


def test_wrong_keys_are_limited_for_each_address() -> None:
    wrong = WrongKeys(2, most_addresses=10)
    assert [wrong.note("10.0.0.1", now=0.0) for _ in range(3)] == [0, 0, 30]
    assert wrong.note("10.0.0.2", now=0.0) == 0
    assert wrong.note("10.0.0.1", now=30.0) == 0


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8:0:1::1", "2001:db8:0:2::1", False),
        ("::ffff:10.0.0.1", "10.0.0.1", True),
        ("::ffff:10.0.0.1", "::ffff:10.0.0.2", False),
        (None, "no address", True),
        ("fe80::1%eth0", "fe80::2%eth0", True),
    ],
)
def test_addresses_that_one_client_has_count_together(one: str | None, other: str, same: bool) -> None:
    wrong = WrongKeys(1, most_addresses=10)
    assert wrong.note(one, now=0.0) == 0
    assert (wrong.note(other, now=0.0) > 0) == same


def test_of_many_addresses_the_quiet_ones_are_forgotten() -> None:
    wrong = WrongKeys(1, most_addresses=2)
    assert [wrong.note(address, now=0.0) for address in ("10.0.0.1", "10.0.0.2", "10.0.0.1", "10.0.0.3")] == [
        0,
        0,
        60,
        0,
    ]
    assert wrong.note("10.0.0.1", now=0.0) == 60, "heard of after 10.0.0.2"
    assert wrong.note("10.0.0.2", now=0.0) == 0, "forgotten"


def test_what_requests_take_together_is_bounded_and_given_back() -> None:
    shared = SharedBytes(10)
    with shared.part() as one:
        assert one.take(6)
        with shared.part() as other:
            assert not other.take(5)
            assert other.take(4)
            assert not one.take(1)
        assert shared.taken == 6
        assert one.take(4)
    assert shared.taken == 0
