"""The arguments of llama-server: each setting in the spelling of the build that will run, then the user's own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from llamamodel_operator.api.base import ApiModel
from llamamodel_operator.api.findings import Finding, FindingCode, Severity
from llamamodel_operator.api.spec import LlamaModelSpec
from llamamodel_operator.core.engine.catalogue import Catalogue, Flag, FlagState, ValueType
from llamamodel_operator.core.engine.settings import SETTINGS, Inputs, Setting, Spelling, escape_references

__all__ = ["Arguments", "build_arguments", "field_is_set"]


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """A command line.

    Attributes:
        words: for the container, without the program itself; references to environment variables are `$(NAME)`.
        fields: which field each flag comes from, by the flag's canonical name; those of the operator's own too.
        findings: what the build cannot be told.
    """

    words: tuple[str, ...]
    fields: Mapping[str, str]
    findings: tuple[Finding, ...]


def build_arguments(inputs: Inputs, *, catalogue: Catalogue) -> Arguments:
    """Arguments for the container.

    What the user left out is left to llama-server, except what depends on Kubernetes: layers on the GPU (none where
    no GPU was asked for), threads (the CPU limit, which llama-server does not look at), the prompt cache (the memory
    limit), and what the API promises (metrics, slots, timestamps, checked tensors).
    """
    words: list[str] = []
    fields: dict[str, str] = {}
    findings: list[Finding] = []
    for setting in SETTINGS:
        spellings = list(setting.spellings(inputs))
        if not spellings:
            continue
        chosen = _choose(spellings, catalogue)
        if chosen is None:
            if named := _named(setting, inputs.spec):
                findings.append(_unsupported(named, spellings, catalogue))
            continue
        for said in chosen:
            flag = catalogue.find(said[0])
            fields[flag.name if flag else said[0]] = f"spec.{setting.field}"
            words += said if setting.escaped else map(escape_references, said)
    words += map(escape_references, inputs.spec.extra_args or ())
    return Arguments(words=tuple(words), fields=fields, findings=tuple(findings))


def field_is_set(spec: LlamaModelSpec, path: str) -> bool:
    """Whether the spec itself, or the operator's defaults, say something about a field."""
    value: object = spec
    for part in path.split("."):
        if not isinstance(value, ApiModel):
            return False
        by_alias = {field.alias or name: name for name, field in type(value).model_fields.items()}
        value = getattr(value, by_alias[part], None) if part in by_alias else None
    return value is not None


def _named(setting: Setting, spec: LlamaModelSpec) -> str | None:
    return next((path for path in (setting.field, *setting.also) if field_is_set(spec, path)), None)


def _choose(spellings: list[Spelling], catalogue: Catalogue) -> Spelling | None:
    """The first spelling that the build takes as it is meant to be used, else the first that it still takes."""
    for states in ((FlagState.LIVE,), (FlagState.LIVE, FlagState.DEPRECATED)):
        for spelling in spellings:
            if all(_takes(catalogue, said, states) for said in spelling):
                return spelling
    return None


def _takes(catalogue: Catalogue, said: tuple[str, ...], states: tuple[FlagState, ...]) -> bool:
    flag = catalogue.find(said[0])
    if flag is None or flag.state not in states:
        return False
    arity = 0 if said[0] in flag.negations else flag.arity
    return arity == len(said) - 1 and _allows(flag, said[1:])


def _allows(flag: Flag, values: tuple[str, ...]) -> bool:
    if flag.allowed:
        return all(value in (*flag.allowed, *flag.words) for value in values)
    if flag.value_type is ValueType.INTEGER:
        return all(value in flag.words or value.lstrip("-").isdigit() for value in values)
    return True


def _unsupported(field: str, spellings: list[Spelling], catalogue: Catalogue) -> Finding:
    build = f"b{catalogue.build}"
    flags = list(dict.fromkeys(said[0] for spelling in spellings for said in spelling))
    known = [flag for name in flags if (flag := catalogue.find(name)) and flag.state is not FlagState.REMOVED]
    if any(flag.state is FlagState.WITHOUT_EFFECT for flag in known):
        message = f"{build} takes {flags[0]} and ignores it, so it is left out"
    elif known:
        asked = " ".join(" ".join(said) for said in spellings[0])
        allowed = f": {known[0].name} takes {', '.join(known[0].allowed)}" if known[0].allowed else ""
        message = f"{build} does not take `{asked}`{allowed}; it is left out"
    else:
        message = f"{build} has no flag for it ({' or '.join(flags)}), so it is left out"
    return Finding(
        severity=Severity.WARNING,
        code=FindingCode.FIELD_UNSUPPORTED,
        field=f"spec.{field}",
        message=message,
        suggestion="remove the field, or run a build that has it",
    )
