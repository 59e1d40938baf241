"""Did you mean: the flags that a misspelt one is closest to."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

from llamamodel_operator.core.engine.catalogue import Catalogue, FlagState
from llamamodel_operator.core.engine.words import plain_spelling

__all__ = ["suggest"]

_LONGEST = 64
"""Characters; what is longer is no misspelt flag."""

_COMPARED = 24
"""How many flags are compared letter by letter: those that share the most pairs of letters."""

_OTHER_PROGRAMS: Mapping[str, str] = {
    "context": "--ctx-size",
    "context-size": "--ctx-size",
    "context-length": "--ctx-size",
    "n-ctx": "--ctx-size",
    "num-ctx": "--ctx-size",
    "max-model-len": "--ctx-size",
    "slots-number": "--parallel",
    "n-parallel": "--parallel",
    "num-parallel": "--parallel",
    "max-num-seqs": "--parallel",
    "served-model-name": "--alias",
    "max-tokens": "--predict",
    "n-batch": "--batch-size",
    "n-ubatch": "--ubatch-size",
    "micro-batch-size": "--ubatch-size",
    "num-gpu": "--gpu-layers",
    "num-gpu-layers": "--gpu-layers",
    "num-thread": "--threads",
    "n-threads": "--threads",
    "kv-cache-dtype": "--cache-type-k",
    "kv-cache-type": "--cache-type-k",
    "chat-template-path": "--chat-template-file",
    "embed": "--embeddings",
    "embedding-only": "--embeddings",
    "re-ranking": "--reranking",
    "continuous-batching": "--cont-batching",
    "flash-attention": "--flash-attn",
    "draft-model": "--model-draft",
    "speculative-model": "--model-draft",
    "log-colours": "--log-colors",
    "log-level": "--verbosity",
    "lora-adapter": "--lora",
    "no-memory-map": "--no-mmap",
    "memory-lock": "--mlock",
    "projector": "--mmproj",
    "tensor-parallel-size": "--tensor-split",
}
"""What other programs, our own fields and other kinds of English call a flag; without dashes."""

_NEIGHBOURS = frozenset(
    pair for row in ("qwertyuiop", "asdfghjkl", "zxcvbnm") for a, b in pairwise(row) for pair in (a + b, b + a)
)


@dataclass(frozen=True, kw_only=True)
class _Candidate:
    spelling: str
    bare: str
    pairs: frozenset[str]
    flag: str


def suggest(spelling: str, catalogue: Catalogue, *, limit: int = 3) -> tuple[str, ...]:
    """Spellings of the catalogue that are close to a misspelt one, the closest first; none where nothing is close.

    At most one spelling for each flag, and no flag that the build has removed. The work is bounded, whatever the
    length of the text.
    """
    bare = _bare(spelling)
    if not bare or len(bare) > _LONGEST:
        return ()
    by_name = _OTHER_PROGRAMS.get(bare)
    if by_name and catalogue.find(by_name):
        return (by_name,)
    return _closest(bare, spelling.startswith("--"), catalogue)[:limit]


@lru_cache(maxsize=1024)
def _closest(bare: str, is_long: bool, catalogue: Catalogue) -> tuple[str, ...]:
    """All spellings that are close enough. Kept, as the same manifest is checked again and again."""
    pairs = _pairs(bare)
    # one-letter flags and such as -ngl are abbreviations: only something as short can be meant for one
    candidates = [c for c in _candidates(catalogue) if c.spelling.startswith("--") or len(bare) <= 5]
    candidates.sort(key=lambda c: -(common := len(pairs & c.pairs)) / (len(pairs) + len(c.pairs) - common))
    limit = len(bare) / 3 if len(bare) > 2 else 0.5
    ranked: dict[str, tuple[float, int, str]] = {}
    for order, candidate in enumerate(candidates[:_COMPARED]):
        cost = _cost(bare, candidate.bare, limit=limit)
        if cost > limit:
            continue
        # what is written with two dashes is rather meant as a long spelling
        if candidate.spelling.startswith("--") != is_long:
            cost += 0.1
        entry = (cost, order, candidate.spelling)
        ranked[candidate.flag] = min(entry, ranked.get(candidate.flag, entry))
    return tuple(found for *_, found in sorted(ranked.values()))


def _bare(spelling: str) -> str:
    name = re.split(r"[=\s]", plain_spelling(spelling), maxsplit=1)[0]
    return re.sub(r"[-_\u2013\u2014]+", "-", name.lower()).strip("-")


def _pairs(bare: str) -> frozenset[str]:
    padded = f"^{bare}$"
    return frozenset(padded[i : i + 2] for i in range(len(padded) - 1))


@lru_cache(maxsize=32)
def _candidates(catalogue: Catalogue) -> tuple[_Candidate, ...]:
    return tuple(
        _Candidate(spelling=spelling, bare=_bare(spelling), pairs=_pairs(_bare(spelling)), flag=flag.name)
        for flag in catalogue.flags
        if flag.state is not FlagState.REMOVED
        for spelling in flag.spellings
    )


def _cost(written: str, meant: str, *, limit: float) -> float:
    """How far apart two words are: 0 is the same, 1 a letter too many, too few, or swapped with the next one.

    What is further than the limit may be any number above it.
    """
    cost = _distance(written, meant, limit=limit)
    if meant.startswith(written):  # cut off: the more is there, the surer
        cost = min(cost, 0.4 + 0.1 * (len(meant) - len(written)))
    return cost


def _distance(a: str, b: str, *, limit: float) -> float:
    """Optimal string alignment; a neighbouring key costs less than any other, a doubled letter too."""
    if 0.8 * abs(len(a) - len(b)) > limit + 0.1:  # 0.8 is the least for a letter too many
        return math.inf
    before: list[float] = []
    row = [float(j) for j in range(len(b) + 1)]
    for i, x in enumerate(a, start=1):
        before, last, row = row, before, [float(i)]
        doubled = 0.8 if i > 1 and x == a[i - 2] else 1.0
        for j, y in enumerate(b, start=1):
            best = before[j - 1]
            if x != y:
                best += 0.8 if x + y in _NEIGHBOURS else 1.0
            if (cost := before[j] + doubled) < best:
                best = cost
            if (cost := row[j - 1] + 1.0) < best:
                best = cost
            if i > 1 and j > 1 and x == b[j - 2] and y == a[i - 2]:
                best = min(best, last[j - 2] + 0.9)
            row.append(best)
        if min(row) > limit and min(before) > limit:  # letters swapped go back two rows
            return math.inf
    return row[-1]
