"""AdmissionReview in, AdmissionReview out: what is reviewed, what is let through, and how findings are told."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import orjson

from llamamodel_operator.api.base import API_VERSION, GROUP, KIND
from llamamodel_operator.api.findings import Finding, Severity

__all__ = ["Answer", "NotAReviewError", "Review", "answer"]

Review: TypeAlias = Callable[[Mapping[str, Any]], Sequence[Finding]]
"""What the checks have to say about a LlamaModel as the API server holds it."""

_REVIEW_API = "admission.k8s.io/v1"
_OPERATIONS = ("CREATE", "UPDATE")
_SWITCHES = ("suspend", "replicas")
"""Fields that stop and start what runs, and must work whatever else the spec says."""

# The API server takes more, and then cuts: staging/src/k8s.io/apiserver/pkg/endpoints/filters/warning.go
_WARNING_CHARS = 256
_WARNINGS_CHARS = 4096 - 512
"""Of all warnings together; some room is left for other webhooks'."""
_SUGGESTION_CHARS = 96
"""Of a suggestion in a warning that has no room for all of it."""
_MESSAGE_CHARS = 16_384


class NotAReviewError(ValueError):
    """The request is none that a webhook can answer; the message says what was expected and what was found."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """`body` is JSON; `result` is for the metrics: allowed, warned, refused, or skipped where nothing was reviewed."""

    body: bytes
    result: str


def answer(body: bytes, *, review: Review) -> Answer:
    """Reviews one object.

    Errors refuse it. They become warnings where nobody could mend anything by being refused: the spec is what it was,
    or only `suspend` or `replicas` changed. What is being deleted is not reviewed at all.

    Raises:
        NotAReviewError: the body is no AdmissionReview.
    """
    request = _request(body)
    uid, reviewed = request["uid"], request.get("object")
    if stranger := _stranger(request):
        return _allow(uid, result="skipped", warnings=[stranger])
    if request.get("operation") not in _OPERATIONS or request.get("subResource"):
        return _allow(uid, result="skipped")
    if not isinstance(reviewed, dict):
        raise NotAReviewError(f"request.object: expected a {KIND}, found {_type(reviewed)}")
    metadata = reviewed.get("metadata")
    if isinstance(metadata, dict) and metadata.get("deletionTimestamp"):
        return _allow(uid, result="skipped")

    findings = review(reviewed)
    errors = [found for found in findings if found.severity is Severity.ERROR]
    warnings = [found for found in findings if found.severity is Severity.WARNING]
    if errors and _is_kept(reviewed, request.get("oldObject")):
        errors, warnings = [], errors + warnings
    told = _warnings(warnings)
    if errors:
        return _refuse(request, errors, warnings=told)
    return _allow(uid, result="warned" if told else "allowed", warnings=told)


def _request(body: bytes) -> dict[str, Any]:
    try:
        review = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise NotAReviewError(f"expected JSON: {error}") from None
    if not isinstance(review, dict) or review.get("kind") != "AdmissionReview":
        raise NotAReviewError(f"expected an AdmissionReview, found {_kind(review)}")
    if review.get("apiVersion") != _REVIEW_API:
        raise NotAReviewError(
            f"expected an AdmissionReview of {_REVIEW_API}, found {_shown(review.get('apiVersion'))}:"
            " set admissionReviewVersions: [v1] in the ValidatingWebhookConfiguration"
        )
    request = review.get("request")
    if not isinstance(request, dict):
        raise NotAReviewError(f"request: expected an object, found {_type(request)}")
    if not isinstance(request.get("uid"), str) or not request["uid"]:
        raise NotAReviewError(f"request.uid: expected a string, found {_type(request.get('uid'))}")
    return request


def _stranger(request: Mapping[str, Any]) -> str | None:
    """A sentence about an object that is not for this webhook. Refusing it would hold up what we know nothing of."""
    kind = request.get("kind")
    if not isinstance(kind, dict):
        raise NotAReviewError(f"request.kind: expected group, version and kind, found {_type(kind)}")
    found = f"{kind.get('group')}/{kind.get('version')} {kind.get('kind')}"
    if found == f"{API_VERSION} {KIND}":
        return None
    return _line(f"{found[:100]} was sent to the webhook for {API_VERSION} {KIND}, and was not reviewed: fix its rules")


def _is_kept(reviewed: Mapping[str, Any], old: object) -> bool:
    """Whether the spec is the old one but for the switches."""
    return isinstance(old, dict) and _without_switches(reviewed) == _without_switches(old)


def _without_switches(raw: Mapping[str, Any]) -> object:
    spec = raw.get("spec")
    return {key: value for key, value in spec.items() if key not in _SWITCHES} if isinstance(spec, dict) else spec


# --- telling


def _allow(uid: str, *, result: str, warnings: Sequence[str] = ()) -> Answer:
    response = {"uid": uid, "allowed": True} | ({"warnings": list(warnings)} if warnings else {})
    return _answer(response, result=result)


def _refuse(request: Mapping[str, Any], errors: Sequence[Finding], *, warnings: Sequence[str]) -> Answer:
    metadata = request["object"].get("metadata")
    named = metadata if isinstance(metadata, dict) else {}
    name = str(request.get("name") or named.get("name") or named.get("generateName") or "")
    listed: list[str] = []
    causes: list[dict[str, str]] = []
    left = _MESSAGE_CHARS
    for error in errors:
        text = _paragraph(_sentence(error))
        left -= len(error.field) + len(text)
        if left < 0 and listed:
            listed.append(f"and {len(errors) - len(listed)} more")
            break
        text = text[:_MESSAGE_CHARS]
        listed.append(f"{error.field}: {text}")
        causes.append({"reason": "FieldValueInvalid", "field": error.field, "message": text})
    told = listed[0] if len(listed) == 1 else "".join(f"\n- {text}" for text in listed)
    status = {
        "status": "Failure",
        "code": 422,
        "reason": "Invalid",
        "message": f'{KIND}.{GROUP} "{name}" is invalid: {told}',
        "details": {"group": GROUP, "kind": KIND, "name": name, "causes": causes},
    }
    response = {"uid": request["uid"], "allowed": False, "status": status}
    return _answer(response | ({"warnings": list(warnings)} if warnings else {}), result="refused")


def _answer(response: Mapping[str, Any], *, result: str) -> Answer:
    review = {"apiVersion": _REVIEW_API, "kind": "AdmissionReview", "response": response}
    return Answer(body=orjson.dumps(review), result=result)


def _warnings(findings: Sequence[Finding]) -> list[str]:
    """A line each, as many as the API server passes on."""
    lines: list[str] = []
    left = _WARNINGS_CHARS
    for number, finding in enumerate(findings):
        line = _warning(finding)
        left -= len(line)
        if left < 0:
            lines.append(f"and {len(findings) - number} more, which the operator writes to status.findings")
            break
        lines.append(line)
    return lines


def _warning(finding: Finding) -> str:
    """What was found is cut before what to do: the rest of it is in the status."""
    whole = _line(f"{finding.field}: {_sentence(finding)}")
    if len(whole) <= _WARNING_CHARS:
        return whole
    tail = f"; {_cut(_line(finding.suggestion), _SUGGESTION_CHARS)}" if finding.suggestion else ""
    return _cut(_line(f"{finding.field}: {finding.message}"), _WARNING_CHARS - len(tail)) + tail


def _sentence(finding: Finding) -> str:
    return f"{finding.message}; {finding.suggestion}" if finding.suggestion else finding.message


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1].rstrip() + "…"


def _line(text: str) -> str:
    """One line, for an HTTP header: the API server drops a warning with a control character."""
    return " ".join(_paragraph(text).split())


def _paragraph(text: str) -> str:
    """Nothing that a terminal would obey."""
    return "".join(char if char.isprintable() or char == "\n" else " " for char in text)


def _shown(value: object) -> str:
    return _line(repr(value))[:100]


def _kind(value: object) -> str:
    return f"kind {_shown(value.get('kind'))}" if isinstance(value, dict) else _type(value)


def _type(value: object) -> str:
    words = {dict: "an object", list: "a list", str: "a string", bool: "a boolean", type(None): "nothing"}
    return words.get(type(value), "a number")
