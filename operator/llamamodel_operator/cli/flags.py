"""The flags of each build, for people: lists, differences, builds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from typing import Any

from llamamodel_operator.cli.terminal import clean, json_text, table
from llamamodel_operator.core.engine.catalogue import Catalogue, Flag, FlagState
from llamamodel_operator.core.engine.catalogues import Catalogues
from llamamodel_operator.core.engine.suggestions import suggest

__all__ = ["builds_text", "chat_templates_text", "difference_text", "flags_text", "matching_flags", "not_found"]


def matching_flags(catalogue: Catalogue, pattern: str | None) -> list[Flag]:
    """Flags of which a spelling or the variable has the pattern in it; with * or ? it describes the whole."""
    if not pattern:
        return list(catalogue.flags)
    wanted = pattern.lower().replace("_", "-")
    return [flag for flag in catalogue.flags if any(_fits(name, wanted) for name in _names(flag))]


def not_found(catalogue: Catalogue, pattern: str) -> str:
    """One line about a pattern that fits nothing."""
    close = suggest(pattern, catalogue)
    meant = f"; did you mean {' or '.join(close)}?" if close else ""
    return f"b{catalogue.build} has no flag with {clean(pattern)[:80]!r} in its name{meant}"


def flags_text(flags: Sequence[Flag], *, output: str) -> str:
    """A table, or JSON."""
    if output == "json":
        return json_text([_flag(flag) for flag in flags])
    heads = ("FLAG", "ALIASES", "VALUE", "DEFAULT", "STATE", "VARIABLE")
    return table(
        heads,
        [
            (
                flag.name,
                " ".join((*flag.aliases, *flag.negations)),
                _value(flag),
                flag.default or "",
                _state(flag),
                flag.env or "",
            )
            for flag in flags
        ],
    )


def chat_templates_text(catalogue: Catalogue, *, output: str) -> str:
    """The names for spec.chatTemplate.preset."""
    names = sorted(catalogue.chat_templates)
    return json_text(names) if output == "json" else "\n".join(names)


def builds_text(catalogues: Catalogues, *, output: str) -> str:
    """The builds whose flags are known."""
    known = [catalogues.get(build) for build in catalogues.builds]
    rows = [
        {
            "build": catalogue.build,
            "flags": sum(flag.state is not FlagState.REMOVED for flag in catalogue.flags),
            "chatTemplates": len(catalogue.chat_templates),
            "source": catalogue.source,
        }
        for catalogue in known
    ]
    if output == "json":
        return json_text(rows)
    heads = ("BUILD", "FLAGS", "CHAT TEMPLATES", "FROM")
    return table(
        heads, [(f"b{row['build']}", str(row["flags"]), str(row["chatTemplates"]), str(row["source"])) for row in rows]
    )


def difference_text(old: Catalogue, new: Catalogue, *, output: str) -> str:
    """What another build takes, no longer takes, or takes differently."""
    changes = list(_changes(old, new))
    if output == "json":
        return json_text({"from": old.build, "to": new.build, "changes": changes})
    signs = {"added": "+", "removed": "-", "changed": "~"}
    lines = [f"{signs[change['change']]} {change['flag']}{_details(change)}" for change in changes]
    return "\n".join(lines) or f"b{old.build} and b{new.build} take the same flags"


def _fits(name: str, pattern: str) -> bool:
    low = name.lower().replace("_", "-")
    return fnmatchcase(low, pattern) if any(char in pattern for char in "*?") else pattern in low


def _names(flag: Flag) -> tuple[str, ...]:
    return (*flag.spellings, *((flag.env,) if flag.env else ()))


def _value(flag: Flag) -> str:
    if not flag.arity or flag.value_type is None:
        return ""
    if flag.allowed:
        return "|".join(flag.allowed)
    return " ".join(["|".join((flag.value_type.value, *flag.words))] * flag.arity)


def _state(flag: Flag) -> str:
    if not flag.replacement or flag.state is FlagState.LIVE:
        return flag.state.value
    return f"{flag.state.value}: use {flag.replacement}"


def _flag(flag: Flag) -> dict[str, Any]:
    return {
        "name": flag.name,
        "aliases": list(flag.aliases),
        "negations": list(flag.negations),
        "env": flag.env,
        "arity": flag.arity,
        "type": flag.value_type.value if flag.value_type else None,
        "allowed": list(flag.allowed),
        "words": list(flag.words),
        "default": flag.default,
        "repeatable": flag.repeatable,
        "state": flag.state.value,
        "replacement": flag.replacement,
    }


def _changes(old: Catalogue, new: Catalogue) -> Iterator[dict[str, Any]]:
    """By flag. A flag that got another canonical name is the same flag while a spelling of it lives on."""
    seen: set[str] = set()
    for flag in old.flags:
        if flag.state is FlagState.REMOVED:
            continue
        now = next((found for name in flag.spellings if (found := _live(new, name))), None)
        if now is None:
            gone = new.find(flag.name)
            yield {"change": "removed", "flag": flag.name, "replacement": gone.replacement if gone else None}
            continue
        seen.add(now.name)
        before, after = _flag(flag), _flag(now)
        fields = {key: [before[key], after[key]] for key in before if before[key] != after[key]}
        if fields:
            yield {"change": "changed", "flag": flag.name, "fields": fields}
    for flag in new.flags:
        if flag.state is not FlagState.REMOVED and flag.name not in seen:
            yield {"change": "added", "flag": flag.name}


def _live(catalogue: Catalogue, spelling: str) -> Flag | None:
    flag = catalogue.find(spelling)
    return None if flag is None or flag.state is FlagState.REMOVED else flag


def _details(change: dict[str, Any]) -> str:
    if change["change"] == "removed":
        return f": use {change['replacement']}" if change.get("replacement") else ""
    parts = [_detail(key, *values) for key, values in change.get("fields", {}).items()]
    return f": {'; '.join(parts)}" if parts else ""


def _detail(key: str, before: Any, after: Any) -> str:
    if isinstance(before, list):
        gone, come = [x for x in before if x not in after], [x for x in after if x not in before]
        return f"{key} {' '.join([*(f'-{x}' for x in gone), *(f'+{x}' for x in come)]) or 'in another order'}"
    return f"{key} {'none' if before is None else before} → {'none' if after is None else after}"
