"""The operator with checks of the tests' own, so that tests of the webhook need know nothing of llama.cpp's flags.

A variable whose name begins with REFUSED is an error, one whose name begins with DOUBTFUL a warning.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from llamamodel_operator import main
from llamamodel_operator.api.findings import Finding, FindingCode, Severity

__all__: list[str] = []

_SEVERITIES = {"REFUSED": Severity.ERROR, "DOUBTFUL": Severity.WARNING}


def _review(raw: Mapping[str, Any]) -> Sequence[Finding]:
    return [
        Finding(
            severity=severity,
            code=FindingCode.UNKNOWN_FLAG,
            field=f"spec.env[{number}].name",
            message=f"{variable['name']} is known to nobody",
            suggestion="did you mean ACCEPTED?",
        )
        for number, variable in enumerate(raw["spec"].get("env", ()))
        for word, severity in _SEVERITIES.items()
        if variable["name"].startswith(word)
    ]


def _review_of(*_: object, **__: object) -> Callable[[Mapping[str, Any]], Sequence[Finding]]:
    return _review


if __name__ == "__main__":
    main.review_of = _review_of
    main.main()
