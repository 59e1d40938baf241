"""Command lines that nothing is to be said about: told quickly, without the machinery of the checks."""

from __future__ import annotations

from collections.abc import Sequence

from llamamodel_operator.core.engine.catalogue import Catalogue, FlagState
from llamamodel_operator.core.engine.masking import is_secret_flag
from llamamodel_operator.core.engine.policy import Reach, risk_of
from llamamodel_operator.core.engine.values import expected_value
from llamamodel_operator.core.engine.words import Given, read_words

__all__ = ["is_plain"]


def is_plain(words: Sequence[str], catalogue: Catalogue) -> bool:
    """Whether `check_arguments` certainly finds nothing: known flags, each once, with values that fit.

    For commands that have to answer at once; False only means that the checks have to look.
    """
    seen: set[str] = set()
    for item in read_words(words, catalogue.find):
        if not isinstance(item, Given) or item.missing or item.flag.state is not FlagState.LIVE:
            return False
        flag = item.flag
        risk = risk_of(flag)
        again = flag.name in seen and not flag.repeatable
        if again or is_secret_flag(item.spelling) or (risk is not None and risk.reach is Reach.EXIT):
            return False
        if any(expected_value(value, flag, position=index) for index, value in enumerate(item.values)):
            return False
        seen.add(flag.name)
    return all(word.isprintable() for word in words)
