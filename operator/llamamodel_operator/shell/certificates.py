"""The webhook's certificates as its Secret holds them: read, judged, and made anew when they are due.

The Secret has the form of cert-manager's: `tls.crt` and `tls.key` are what the server shows, `ca.crt` are the
authorities that clients shall trust, newest first. `ca.key` is ours: the key of the newest authority.

All times come from one figure, the life of a serving certificate: an authority lives four times as long, both are
renewed when two thirds have passed, and an overlap is a 24th. A new authority is first published beside the old one;
after an overlap it signs the serving certificate; after another one the old authority goes. So at each moment every
replica shows a certificate that every API server trusts, as long as each of them hears of a change within an overlap.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

__all__ = ["CA", "CA_KEY", "CERTIFICATE", "KEY", "SKEW", "Renewal", "expiry", "renewed"]

CA = "ca.crt"
CA_KEY = "ca.key"
CERTIFICATE = "tls.crt"
KEY = "tls.key"

SKEW = timedelta(hours=1)
"""How far the clock of an API server may be behind the one of whoever makes a certificate."""

_AUTHORITY_LIVES = 4
"""Its last third is then longer than a serving certificate's whole life, so that it never shortens one."""
_OVERLAPS = 24

_UNREADABLE = (ValueError, TypeError, UnsupportedAlgorithm, x509.UnsupportedGeneralNameType)


@dataclass(frozen=True, kw_only=True)
class Renewal:
    """What a Secret should hold instead.

    Attributes:
        data: all four files.
        reasons: why, each a sentence.
        urgent: whether what it held cannot be served, so that whoever sees it should write, leader or not.
    """

    data: Mapping[str, bytes]
    reasons: tuple[str, ...]
    urgent: bool


@dataclass(frozen=True, kw_only=True)
class _Signer:
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


def renewed(
    data: Mapping[str, bytes], *, names: Sequence[str], now: datetime, life: timedelta, published: bytes | None
) -> Renewal | None:
    """What is due now, or None where nothing is.

    Args:
        data: the Secret's content, whatever it is; empty where there is none.
        names: the DNS names of the server.
        now: with a time zone.
        life: of a serving certificate.
        published: the authorities (PEM) that clients were told of, as found before; None where that is not known.
    """
    reasons: list[str] = []
    authorities = [found for found in _certificates(data.get(CA)) if _is_authority(found) and _is_valid(found, now)]
    signer = _signer(authorities, data.get(CA_KEY))
    if why := _authority_is_due(signer, now):
        signer = _new_authority(now=now, life=_AUTHORITY_LIVES * life)
        authorities = [signer.certificate, *authorities]
        reasons.append(f"a new authority: {why}")
    assert signer is not None  # noqa: S101 (none is due)

    shown = data.get(CERTIFICATE, b"")
    key = data.get(KEY, b"")
    unusable = _cannot_be_served(shown, key, names=names, authorities=authorities, now=now)
    why = unusable or _serving_is_due(
        _certificates(shown), signer=signer, now=now, overlap=life / _OVERLAPS, published=published
    )
    if why:
        shown, key = _new_serving(signer, names=names, now=now, life=life)
        reasons.append(f"a new serving certificate: {why}")

    serving = _certificates(shown)[0]
    if now - _made(serving) >= life / _OVERLAPS:  # every replica shows it by now
        kept = [found for found in authorities if found == signer.certificate or _signed(serving, by=found)]
    else:
        kept = authorities
    wanted = {CA: _pem(kept), CA_KEY: _key_pem(signer.key), CERTIFICATE: shown, KEY: key}
    if len(kept) < len(authorities):
        reasons.append("the authority before is not needed any more")
    if not reasons:
        return None  # also where the files differ in form alone
    return Renewal(data=wanted, reasons=tuple(reasons), urgent=unusable is not None)


def expiry(certificate: bytes) -> datetime | None:
    """When the first certificate of a PEM file ends; None where it cannot be read."""
    found = _certificates(certificate)
    return found[0].not_valid_after_utc if found else None


# --- what is due, and why


def _authority_is_due(signer: _Signer | None, now: datetime) -> str | None:
    if signer is None:
        return "none was found that is valid and has its key"
    return "two thirds of its life have passed" if _is_old(signer.certificate, now) else None


def _cannot_be_served(
    shown: bytes, key: bytes, *, names: Sequence[str], authorities: Sequence[x509.Certificate], now: datetime
) -> str | None:
    if not shown or not key:
        return "there was none"
    found = _certificates(shown)
    private = _private_key(key)
    if not found or private is None:
        return "the one that was found cannot be read"
    serving = found[0]
    if private.public_key() != serving.public_key():
        return "its key is another certificate's"
    if not _is_valid(serving, now):
        return f"it is not valid now, but from {serving.not_valid_before_utc} to {serving.not_valid_after_utc}"
    if missing := sorted(set(names) - _names(serving)):
        return f"it lacks the name {missing[0]}"
    if not any(_signed(serving, by=authority) for authority in authorities):
        return "no known authority has signed it"
    return None


def _serving_is_due(
    shown: Sequence[x509.Certificate], *, signer: _Signer, now: datetime, overlap: timedelta, published: bytes | None
) -> str | None:
    """Of one that can be served; not before its new authority is trusted."""
    serving = shown[0]
    if not _signed(serving, by=signer.certificate):
        known = published is None or signer.certificate in _certificates(published)
        if not known or now - _made(signer.certificate) < overlap:
            return None
        return "its authority is being replaced"
    return "two thirds of its life have passed" if _is_old(serving, now) else None


# --- reading, whatever there is


def _certificates(pem: bytes | None) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(pem) if pem else []
    except _UNREADABLE:
        return []


def _private_key(pem: bytes | None) -> ec.EllipticCurvePrivateKey | None:
    """We make no others; one of another kind is replaced as one that cannot be read."""
    try:
        found = load_pem_private_key(pem or b"", password=None)
    except _UNREADABLE:
        return None
    return found if isinstance(found, ec.EllipticCurvePrivateKey) else None


def _signer(authorities: Iterable[x509.Certificate], key_pem: bytes | None) -> _Signer | None:
    key = _private_key(key_pem)
    if key is None:
        return None
    public = key.public_key()
    return next((_Signer(certificate=found, key=key) for found in authorities if _has_key(found, public)), None)


def _has_key(certificate: x509.Certificate, public: ec.EllipticCurvePublicKey) -> bool:
    try:
        return certificate.public_key() == public
    except _UNREADABLE:
        return False


def _signed(certificate: x509.Certificate, *, by: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(by)
    except (*_UNREADABLE, InvalidSignature):
        return False
    return True


def _is_authority(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (*_UNREADABLE, x509.ExtensionNotFound, x509.DuplicateExtension):
        return False


def _names(certificate: x509.Certificate) -> set[str]:
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except (*_UNREADABLE, x509.ExtensionNotFound, x509.DuplicateExtension):
        return set()
    return set(found.value.get_values_for_type(x509.DNSName))


def _is_valid(certificate: x509.Certificate, now: datetime) -> bool:
    return certificate.not_valid_before_utc <= now < certificate.not_valid_after_utc


def _made(certificate: x509.Certificate) -> datetime:
    return certificate.not_valid_before_utc + SKEW


def _is_old(certificate: x509.Certificate, now: datetime) -> bool:
    end = certificate.not_valid_after_utc
    return now >= end - (end - _made(certificate)) / 3


# --- making


def _new_authority(*, now: datetime, life: timedelta) -> _Signer:
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name("llamamodel-operator webhook authority")
    usage = _usage(key_cert_sign=True, crl_sign=True)
    builder = (
        _builder(name=name, issuer=name, key=key, now=now, end=now + life)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
    )
    return _Signer(certificate=builder.sign(key, hashes.SHA256()), key=key)


def _new_serving(signer: _Signer, *, names: Sequence[str], now: datetime, life: timedelta) -> tuple[bytes, bytes]:
    """Certificate and key, PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    end = min(now + life, signer.certificate.not_valid_after_utc)
    issuer_key = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.key.public_key())
    builder = (
        _builder(
            name=_name("llamamodel-operator webhook"), issuer=signer.certificate.subject, key=key, now=now, end=end
        )
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(digital_signature=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False)
        .add_extension(issuer_key, critical=False)
    )
    return _pem([builder.sign(signer.key, hashes.SHA256())]), _key_pem(key)


def _builder(
    *, name: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, now: datetime, end: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - SKEW)
        .not_valid_after(end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _usage(*, digital_signature: bool = False, key_cert_sign: bool = False, crl_sign: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(certificates: Iterable[x509.Certificate]) -> bytes:
    return b"".join(found.public_bytes(Encoding.PEM) for found in certificates)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
