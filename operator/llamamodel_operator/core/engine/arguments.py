"""Checks of `spec.extraArgs` and `spec.env` against the build of llama-server that will run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llamamodel_operator.api.findings import Finding, FindingCode, Severity
from llamamodel_operator.core.engine.catalogues import CatalogueMatch, Catalogues
from llamamodel_operator.core.engine.judging import ArgumentJudge
from llamamodel_operator.core.engine.masking import is_secret_flag
from llamamodel_operator.core.engine.policy import ArgumentPolicy, objection
from llamamodel_operator.core.engine.variables import check_variable
from llamamodel_operator.core.engine.words import Given, Stray, Unknown, plain_spelling, read_words, shown

__all__ = ["ArgumentReport", "check_arguments"]


@dataclass(frozen=True, kw_only=True)
class ArgumentReport:
    """What the checks found.

    Attributes:
        findings: in the order of the manifest.
        will_not_start: why the server is known to refuse its command line; None where it is not known to.
    """

    findings: tuple[Finding, ...]
    will_not_start: str | None = None


def check_arguments(
    extra_args: Sequence[str],
    env: Sequence[Mapping[str, Any]],
    *,
    match: CatalogueMatch,
    catalogues: Catalogues,
    managed: Mapping[str, str],
    typed: Mapping[str, str],
    policy: ArgumentPolicy,
    mounts: Sequence[str],
) -> ArgumentReport:
    """Checks what a manifest adds to the command line.

    Args:
        extra_args: `spec.extraArgs`, one word each.
        env: `spec.env`, as Kubernetes has it: name, and value or valueFrom.
        match: the catalogue of the build that will run.
        catalogues: all of them.
        managed: flags that the operator always sets, with what to do instead.
        typed: flags that typed fields of this model render now, with the path of the field.
        policy: what the cluster allows.
        mounts: folders of the pod's volumes.
    """
    judge = ArgumentJudge(
        match=match, catalogues=catalogues, managed=managed, typed=typed, policy=policy, mounts=mounts
    )
    for index, word in enumerate(extra_args):
        judge.check_text(f"spec.extraArgs[{index}]", word)
    for item in read_words(extra_args, match.find):
        place = f"spec.extraArgs[{item.index}]"
        if isinstance(item, Given):
            _check_given(judge, item, place)
        elif isinstance(item, Unknown):
            _check_unknown(judge, item, place)
        else:
            _check_stray(judge, item, place)
    for index, variable in enumerate(env):
        check_variable(judge, f"spec.env[{index}]", variable)
    return ArgumentReport(findings=tuple(judge.findings), will_not_start=judge.will_not_start)


def _check_given(judge: ArgumentJudge, given: Given, place: str) -> None:
    spelling, flag = shown(given.spelling)[1:-1], given.flag
    places = [f"spec.extraArgs[{given.index + 1 + i}]" for i in range(len(given.values))]
    if not judge.check_use(flag, spelling, place, values=given.values):
        return
    if is_secret_flag(spelling) and given.values:
        judge.add_plain_secret(place, spelling)
    judge.check_values(flag, spelling, given.values, places)
    if given.missing:
        needs = "a value" if given.arity == 1 else f"{flag.arity} values"
        found = f"the flag {given.instead}" if given.instead else "the end of spec.extraArgs"
        judge.add_refusal(
            FindingCode.WRONG_ARITY,
            place,
            f"{spelling} needs {needs}; found {found} after {place}",
            f"write the value as the next item of the list after {spelling}",
            flag.name,
        )


def _check_unknown(judge: ArgumentJudge, unknown: Unknown, place: str) -> None:
    if _check_joined(judge, unknown.spelling, place):
        return
    spelling = plain_spelling(unknown.spelling)
    name = shown(unknown.spelling)[1:-1]
    if unknown.values and is_secret_flag(spelling):
        judge.add_plain_secret(place, name)
    if other := judge.flag_of_other_build(spelling):
        build, flag = other
        if (risk := objection(flag, unknown.values, policy=judge.policy, mounts=judge.mounts)) is not None:
            judge.add(
                Severity.ERROR,
                FindingCode.FORBIDDEN_FLAG,
                place,
                f"{name}, a flag of b{build}, is not allowed: {risk[0]}; found it in {place}",
                risk[1],
            )
            return
        judge.add_unknown(
            FindingCode.FLAG_OF_OTHER_BUILD,
            place,
            spelling,
            f"{name} is a flag of llama-server b{build}, and not of {judge.build_name()}; found it in {place}",
            f"run a build that has it, such as b{build}, or remove {name}",
        )
        return
    close = judge.suggest(unknown.spelling)
    # where only the dashes differ, what is meant is certain, and so is what its value must look like
    same = bool(close) and close[0].strip("-") == spelling.strip("-")
    close = close[:1] if same else close
    judge.add_unknown(
        FindingCode.UNKNOWN_FLAG,
        place,
        spelling,
        f"{name} is no flag of {judge.build_name()}, nor of any other known build; found it in {place}",
        f"did you mean {' or '.join(close)}?" if close else "look for its name with: llamamodel flags",
    )
    if same and (meant := judge.match.find(close[0])):
        values = unknown.values[: meant.arity]
        judge.check_values(
            meant, close[0], values, [f"spec.extraArgs[{unknown.index + 1 + i}]" for i in range(len(values))]
        )


def _check_stray(judge: ArgumentJudge, stray: Stray, place: str) -> None:
    if _check_joined(judge, stray.word, place):
        return
    found = shown(stray.word)
    after = stray.after
    if after is None:
        message = f"{found} in {place} is no flag, and no flag before it takes a value"
    else:
        takes = ("no value", "one value", "two values")[min(after.arity, 2)]
        message = f"{found} in {place} is left over: {after.flag.name} takes {takes}"
    close = () if judge.match.find(stray.word) else judge.suggest(stray.word)
    close = tuple(c for c in close if c.strip("-") == stray.word.strip("-"))
    judge.add_refusal(
        FindingCode.WRONG_ARITY,
        place,
        f"{message}; llama-server refuses every word that is no flag",
        f"did you mean {close[0]}?" if close else f"remove {found}",
        after.flag.name if after else "",
        certain=after is None,
    )


def _check_joined(judge: ArgumentJudge, word: str, place: str) -> bool:
    """`--flag=value` and `--flag value` in one word, neither of which any build takes."""
    head = word.replace("=", " ", 1).split(maxsplit=1)
    if len(head) < 2 and "=" not in word and not word[-1:].isspace():
        return False
    flag = judge.match.find(plain_spelling(head[0])) if head else None
    if flag is None:
        return False
    found = f"{head[0]} and its value" if is_secret_flag(head[0]) else shown(word)
    judge.add_refusal(
        FindingCode.WRONG_ARITY,
        place,
        f"{place} holds {found} in one word; llama-server takes a flag and its value as two words",
        f"write {head[0]} and its value as two items of the list",
        flag.name,
        certain=True,
    )
    return True
