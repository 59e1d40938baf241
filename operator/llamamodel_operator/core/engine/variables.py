"""Checks of `spec.env`: variables that set flags of llama-server, and secrets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llamamodel_operator.api.findings import FindingCode, Severity
from llamamodel_operator.core.engine.catalogue import Flag
from llamamodel_operator.core.engine.judging import ArgumentJudge
from llamamodel_operator.core.engine.masking import is_secret_variable
from llamamodel_operator.core.engine.values import TRUE_WORDS, is_switch_word
from llamamodel_operator.core.engine.words import shown

__all__ = ["check_variable"]


def check_variable(judge: ArgumentJudge, place: str, variable: Mapping[str, Any]) -> None:
    """One entry of spec.env."""
    name, value = str(variable.get("name", "")), variable.get("value")
    text: str | None = None
    if variable.get("valueFrom") is None:
        text = str(value if value is not None else "")
        judge.check_text(place, text)
        if "$(" in text:
            text = None  # the kubelet puts another variable in its place
        elif text and is_secret_variable(name):
            judge.add_plain_secret(place, f"the variable {name}")
    flag = judge.match.catalogue.find_env(name)
    if flag is None or flag.carried:
        _check_unknown_variable(judge, place, name, flag)
        return
    if not judge.check_use(flag, f"{name} ({flag.name})", place, values=None if text is None else (text,)):
        return
    turned_off = name != flag.env
    if turned_off and text is not None and text not in TRUE_WORDS:
        judge.add(
            Severity.WARNING,
            FindingCode.INVALID_FLAG_VALUE,
            place,
            f"{name} turns {flag.name} off whatever its value; found {shown(text)} in {place}",
            f'set {name} to "1", or remove it',
        )
    elif text is not None and not turned_off:
        _check_variable_value(judge, flag, name, text, place)


def _check_unknown_variable(judge: ArgumentJudge, place: str, name: str, removed: Flag | None) -> None:
    """A variable that the build does not look at: it starts, and does not do what was asked for."""
    if removed is None and not name.startswith("LLAMA_ARG_"):
        return  # meant for something else
    message = f"{shown(name)} in {place} sets nothing: {judge.build_name()} has no flag with this variable"
    if removed is not None:
        judge.add(
            judge.error_if_known(removed.name),
            FindingCode.REMOVED_FLAG,
            place,
            f"{message} any more",
            f"use {removed.replacement} in spec.extraArgs" if removed.replacement else f"remove {name}",
        )
    else:
        judge.add(
            Severity.WARNING,
            FindingCode.UNKNOWN_FLAG,
            place,
            message,
            "use the flag itself in spec.extraArgs, or look for the variable with: llamamodel flags",
        )


def _check_variable_value(judge: ArgumentJudge, flag: Flag, name: str, text: str, place: str) -> None:
    if flag.arity:
        judge.check_values(flag, f"{name} ({flag.name})", [text], [place])
    elif not is_switch_word(text):
        judge.add(
            # other words are ignored, unless the flag has a form that turns it off
            judge.error_if_known(flag.name) if flag.negations else Severity.WARNING,
            FindingCode.INVALID_FLAG_VALUE,
            place,
            f"{name} takes true or false; found {shown(text)} in {place}",
            f'set {name} to "true", or remove it',
        )
