"""What a client's headers say of which request this is, where they can be believed."""

from __future__ import annotations

import re

__all__ = ["REQUEST_ID", "given_request_id", "trace_id"]

REQUEST_ID = "X-Request-Id"
_SANE = re.compile(r"[A-Za-z0-9._-]{1,64}")
_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}(-.*)?")
_NONE = "0" * 32
_NO_PARENT = "0" * 16


def given_request_id(value: str | None) -> str | None:
    """The client's own id of its request; None where it has none that may be repeated in headers and logs."""
    return value if value is not None and _SANE.fullmatch(value) else None


def trace_id(traceparent: str | None) -> str:
    """Of a valid `traceparent` (W3C Trace Context, 3.2), 32 hexadecimal digits; empty where there is none.

    Versions to come may have more behind it, version ff is none.
    """
    found = _TRACEPARENT.fullmatch(traceparent or "")
    if found is None:
        return ""
    version, trace, parent, more = found.groups()
    valid = version != "ff" and trace != _NONE and parent != _NO_PARENT and not (version == "00" and more)
    return trace if valid else ""
