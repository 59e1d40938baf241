"""The webhook's certificates: what is made, when it is renewed, and that nobody is shown what he does not trust."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError
from hypothesis import given
from hypothesis import strategies as st

from llamamodel_operator.shell.certificates import CA, CA_KEY, CERTIFICATE, KEY, SKEW, Renewal, expiry, renewed

NOW = datetime(2031, 5, 1, 12, 0, tzinfo=UTC)
DAY = timedelta(days=1)
LIFE = 90 * DAY
OVERLAP = LIFE / 24
NAMES = ("llamamodel-operator-webhook.llamamodel-system.svc", "localhost")
FILES = (CA, CA_KEY, CERTIFICATE, KEY)

Data = Mapping[str, bytes]


def due(data: Data, *, at: datetime = NOW, names: tuple[str, ...] = NAMES, published: bytes | None = None) -> Renewal:
    found = renewed(data, names=names, now=at, life=LIFE, published=published)
    assert found is not None, "nothing is due"
    return found


def is_well(data: Data, *, at: datetime = NOW, published: bytes | None = None) -> bool:
    return renewed(data, names=NAMES, now=at, life=LIFE, published=published) is None


def fresh(*, at: datetime = NOW) -> Data:
    return due({}, at=at).data


def certificates(pem: bytes) -> list[x509.Certificate]:
    return x509.load_pem_x509_certificates(pem)


def is_trusted(shown: bytes, *, by: bytes, at: datetime, name: str = NAMES[0]) -> bool:
    """As a strict client sees it: chain, times, names, usages."""
    verifier = PolicyBuilder().store(Store(certificates(by))).time(at).build_server_verifier(x509.DNSName(name))
    leaf, *others = certificates(shown)
    try:
        verifier.verify(leaf, others)
    except VerificationError:
        return False
    return True


def test_of_nothing_an_authority_and_a_certificate_for_each_name_are_made() -> None:
    found = due({})
    assert found.urgent
    assert found.reasons == (
        "a new authority: none was found that is valid and has its key",
        "a new serving certificate: there was none",
    )
    assert set(found.data) == set(FILES)
    for name in NAMES:
        assert is_trusted(found.data[CERTIFICATE], by=found.data[CA], at=NOW, name=name)
    assert not is_trusted(found.data[CERTIFICATE], by=found.data[CA], at=NOW, name="other.svc")
    assert is_well(found.data)


def test_a_clock_that_is_behind_trusts_it_at_once() -> None:
    data = fresh()
    assert is_trusted(data[CERTIFICATE], by=data[CA], at=NOW - SKEW)
    assert not is_trusted(data[CERTIFICATE], by=data[CA], at=NOW - 2 * SKEW)


def test_two_installations_have_nothing_in_common() -> None:
    one, other = fresh(), fresh()
    assert not is_trusted(one[CERTIFICATE], by=other[CA], at=NOW)
    assert not {one[name] for name in FILES} & {other[name] for name in FILES}


def test_a_serving_certificate_is_renewed_by_the_same_authority_after_two_thirds_of_its_life() -> None:
    data = fresh()
    assert is_well(data, at=NOW + 59.9 * DAY)
    found = due(data, at=NOW + 60 * DAY)
    assert found.reasons == ("a new serving certificate: two thirds of its life have passed",)
    assert not found.urgent, "the leader has time"
    assert (found.data[CA], found.data[CA_KEY]) == (data[CA], data[CA_KEY])
    assert found.data[KEY] != data[KEY]
    assert expiry(found.data[CERTIFICATE]) == NOW + 150 * DAY


def test_an_authority_is_replaced_in_three_steps() -> None:
    old = fresh()
    begin = NOW + 240 * DAY
    for step in range(60, 240, 60):
        old = due(old, at=NOW + step * DAY, published=old[CA]).data

    first = due(old, at=begin, published=old[CA])
    assert "a new authority: two thirds of its life have passed" in first.reasons
    assert certificates(first.data[CA])[1:] == certificates(old[CA]), "both are trusted, the new one first"
    assert is_trusted(first.data[CERTIFICATE], by=old[CA], at=begin), "nobody need know the new one yet"

    assert is_well(first.data, at=begin + 0.9 * OVERLAP, published=first.data[CA]), "not before all have heard of it"
    second = due(first.data, at=begin + 1.1 * OVERLAP, published=first.data[CA])
    assert second.reasons == ("a new serving certificate: its authority is being replaced",)
    assert second.data[CA] == first.data[CA]
    assert not is_trusted(second.data[CERTIFICATE], by=old[CA], at=begin + OVERLAP)

    shown = begin + 1.1 * OVERLAP
    assert is_well(second.data, at=shown + 0.9 * OVERLAP, published=second.data[CA])
    third = due(second.data, at=shown + 1.1 * OVERLAP, published=second.data[CA])
    assert third.reasons == ("the authority before is not needed any more",)
    assert certificates(third.data[CA]) == certificates(second.data[CA])[:1]
    assert third.data[CERTIFICATE] == second.data[CERTIFICATE]


def test_a_new_authority_signs_nothing_before_it_was_found_to_be_published() -> None:
    old = fresh()
    begin = NOW + 240 * DAY
    renewed_late = due({**old, CERTIFICATE: b"", KEY: b""}, at=begin - DAY).data
    both = due(renewed_late, at=begin).data
    later = begin + 10 * OVERLAP
    assert is_well(both, at=later, published=old[CA])
    assert not is_well(both, at=later, published=both[CA])
    assert not is_well(both, at=later, published=None), "where nobody can say, the time counts alone"


def test_over_years_no_replica_ever_shows_what_an_api_server_does_not_trust() -> None:
    """Each replica and each API server may be as much as most of an overlap late; the leader looks as often as it
    does in truth, and is away for a fortnight now and then."""
    step = OVERLAP / 4
    shown: list[bytes] = []
    published: list[bytes] = []
    data: Data = {}
    pairs: dict[tuple[bytes, bytes], tuple[datetime, datetime]] = {}
    for number in range(1500):  # 3.8 years
        at = NOW + number * step
        if number % 97 <= 80:
            found = renewed(data, names=NAMES, now=at, life=LIFE, published=published[-1] if published else None)
            data = found.data if found else data
            published.append(data[CA])
        else:  # nobody leads
            published.append(published[-1])
        shown.append(data[CERTIFICATE])
        for pair in {(late, later) for late in shown[-4:] for later in published[-4:]}:
            first, _ = pairs.get(pair, (at, at))
            pairs[pair] = (first, at)

    for (certificate, authorities), times in pairs.items():
        for at in times:
            assert is_trusted(certificate, by=authorities, at=at), f"at {at}"
    assert len(set(shown)) > 20
    assert len({authority for pem in published for authority in certificates(pem)}) >= 5


# --- a Secret that somebody else had his hands in


@pytest.mark.parametrize(
    ("spoilt", "reasons"),
    [
        ({CERTIFICATE: b""}, ["serving certificate: there was none"]),
        ({KEY: b""}, ["serving certificate: there was none"]),
        ({CERTIFICATE: b"garbage"}, ["serving certificate: the one that was found cannot be read"]),
        ({KEY: b"garbage"}, ["serving certificate: the one that was found cannot be read"]),
        ({CERTIFICATE: fresh()[CERTIFICATE]}, ["serving certificate: its key is another certificate's"]),
        ({KEY: fresh()[KEY]}, ["serving certificate: its key is another certificate's"]),
        (
            {CA: b""},
            [
                "authority: none was found that is valid and has its key",
                "certificate: no known authority has signed it",
            ],
        ),
        (
            {CA: b"garbage"},
            [
                "authority: none was found that is valid and has its key",
                "certificate: no known authority has signed it",
            ],
        ),
        (
            {CA: fresh()[CA]},
            [
                "authority: none was found that is valid and has its key",
                "certificate: no known authority has signed it",
            ],
        ),
    ],
)
def test_what_cannot_be_served_is_replaced_at_once_and_said(spoilt: Data, reasons: list[str]) -> None:
    found = due({**fresh(), **spoilt})
    assert found.urgent
    assert len(found.reasons) == len(reasons)
    for said, expected in zip(found.reasons, reasons, strict=True):
        assert expected in said
    assert is_trusted(found.data[CERTIFICATE], by=found.data[CA], at=NOW)
    assert is_well(found.data)


@pytest.mark.parametrize("spoilt", [b"", b"garbage", fresh()[CA_KEY]])
def test_an_authority_without_its_key_is_replaced_without_haste(spoilt: bytes) -> None:
    data = {**fresh(), CA_KEY: spoilt}
    found = due(data)
    assert not found.urgent
    assert found.reasons == ("a new authority: none was found that is valid and has its key",)
    assert found.data[CERTIFICATE] == data[CERTIFICATE]
    assert is_trusted(found.data[CERTIFICATE], by=found.data[CA], at=NOW)
    later = due(found.data, at=NOW + 1.1 * OVERLAP, published=found.data[CA])
    assert later.reasons == ("a new serving certificate: its authority is being replaced",)


def test_a_certificate_of_another_name_is_replaced() -> None:
    found = due(fresh(), names=("renamed.llamamodel-system.svc", "localhost"))
    assert found.reasons == ("a new serving certificate: it lacks the name renamed.llamamodel-system.svc",)
    assert found.urgent


@pytest.mark.parametrize(("at", "what"), [(NOW + 400 * DAY, "long expired"), (NOW - 400 * DAY, "of the future")])
def test_a_secret_of_another_time_is_replaced(at: datetime, what: str) -> None:
    data = fresh()
    found = due(data, at=at)
    assert found.urgent, what
    assert is_trusted(found.data[CERTIFICATE], by=found.data[CA], at=at)
    assert len(certificates(found.data[CA])) == 1


def test_a_key_of_a_kind_that_we_do_not_make_is_replaced() -> None:
    key = ed25519.Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    assert due({**fresh(), KEY: key}).urgent
    assert not due({**fresh(), CA_KEY: key}).urgent


def test_an_encrypted_key_is_replaced() -> None:
    data = fresh()
    key = load_pem_private_key(data[KEY], password=None)
    locked = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))
    assert due({**data, KEY: locked}).urgent


_GOOD = fresh()


@st.composite
def _spoilt(draw: st.DrawFn) -> dict[str, bytes]:
    """Real files with pieces cut out, doubled or overwritten, or bytes that were never a file."""
    result = {}
    for name in FILES:
        content = _GOOD[draw(st.sampled_from(FILES)) if draw(st.integers(0, 4)) == 0 else name]
        match draw(st.sampled_from(("whole", "cut", "overwritten", "doubled", "bytes", "none"))):
            case "whole":
                result[name] = content
            case "cut":
                result[name] = content[: draw(st.integers(0, len(content)))]
            case "overwritten":
                place = draw(st.integers(0, len(content)))
                result[name] = content[:place] + draw(st.binary(max_size=8)) + content[place + 3 :]
            case "doubled":
                result[name] = content + content
            case "bytes":
                result[name] = draw(st.binary(max_size=64))
    return result


@given(_spoilt())
def test_whatever_a_secret_holds_one_look_makes_it_good(data: dict[str, bytes]) -> None:
    found = renewed(data, names=NAMES, now=NOW, life=LIFE, published=None)
    good = data if found is None else found.data
    assert is_trusted(good[CERTIFICATE], by=good[CA], at=NOW)
    assert is_well(good)


@given(st.binary(max_size=200))
def test_the_end_of_garbage_is_unknown(content: bytes) -> None:
    assert expiry(content) is None
