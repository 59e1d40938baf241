"""What a build has no more: flags of older builds, carried on as removed."""

from collections.abc import Sequence
from dataclasses import replace

from devcatalogue import curated
from llamamodel_operator.core.engine.catalogue import Catalogue, Flag, FlagState

__all__ = ["with_removed"]


def with_removed(catalogue: Catalogue, *, older: Catalogue | None) -> Catalogue:
    """The catalogue with those spellings of the next older one, its removed ones included, that it has not itself."""
    if older is None:
        return catalogue
    gone = [removed for flag in older.flags if (removed := _removed(flag, catalogue)) is not None]
    return replace(catalogue, flags=(*catalogue.flags, *gone))


def _removed(flag: Flag, catalogue: Catalogue) -> Flag | None:
    missing = tuple(spelling for spelling in flag.spellings if catalogue.find(spelling) is None)
    if not missing:
        return None
    positive = tuple(spelling for spelling in missing if spelling not in flag.negations) or missing
    negative = tuple(spelling for spelling in missing if spelling not in positive)
    name = flag.name if flag.name in positive else max(positive, key=len)
    return Flag(
        name=name,
        aliases=tuple(spelling for spelling in positive if spelling != name),
        negations=negative,
        env=flag.env if flag.env and catalogue.find_env(flag.env) is None else None,
        arity=flag.arity,
        value_type=flag.value_type,
        state=FlagState.REMOVED,
        replacement=_replacement(flag, positive, catalogue),
        negated_replacement=_replacement(flag, negative, catalogue) if negative else None,
        carried=True,
    )


def _replacement(flag: Flag, missing: Sequence[str], catalogue: Catalogue) -> str | None:
    candidates = [curated.REPLACEMENTS.get(spelling) for spelling in missing]
    candidates.append(flag.replacement_of(missing[0]))
    # Another spelling to the same end lives on, or another flag has taken over the variable.
    negated = missing[0] in flag.negations
    others = flag.negations if negated else (flag.name, *flag.aliases)
    for spelling in others:
        if kept := catalogue.find(spelling):
            candidates.append(spelling if negated else kept.name)
    if flag.env and not negated and (heir := catalogue.find_env(flag.env)) and heir.env == flag.env:
        candidates.append(heir.name)
    for candidate in candidates:
        if candidate and (found := catalogue.find(candidate.split()[0])) and found.state is not FlagState.REMOVED:
            return candidate
    return None
