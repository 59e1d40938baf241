"""Did you mean: the flag that a misspelt one stands for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamamodel_operator.core.engine.catalogue import Catalogue, FlagState
from llamamodel_operator.core.engine.catalogues import shipped_catalogues
from llamamodel_operator.core.engine.suggestions import suggest

_ROWS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
_KEY_BESIDE = {row[i]: row[i + 1] if i + 1 < len(row) else row[i - 1] for row in _ROWS for i in range(len(row))}


def _newest() -> Catalogue:
    catalogues = shipped_catalogues()
    return catalogues.get(catalogues.builds[-1])


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("--flash-atten", "--flash-attn"),
        ("--flash-attention", "--flash-attn"),
        ("--flashattn", "--flash-attn"),
        ("-flash-attn", "--flash-attn"),
        ("flash-attn", "--flash-attn"),
        ("--FLASH-ATTN", "--flash-attn"),
        ("\u2014flash-attn", "--flash-attn"),
        ("--ngl", "-ngl"),
        ("--ctx-sise", "--ctx-size"),
        ("--ctxsize", "--ctx-size"),
        ("--context-size", "--ctx-size"),
        ("--num-ctx", "--ctx-size"),
        ("--max-model-len", "--ctx-size"),
        ("--log-colours", "--log-colors"),
        ("--paralel", "--parallel"),
        ("--theads", "--threads"),
        ("--tensor_splt", "--tensor-split"),
        ("--gpu-layer", "--gpu-layers"),
        ("--embeding", "--embedding"),
        ("--rerankin", "--reranking"),
        ("--n-gpu-layer", "--n-gpu-layers"),
        ("--top_n_sigm", "--top-n-sigma"),
    ],
)
def test_the_closest_flag_comes_first(written: str, meant: str) -> None:
    assert suggest(written, _newest())[0] == meant


@pytest.mark.parametrize(
    "written", ["", "-", "--", "--quux-frobnicator", "x" * 100_000, "--" + "a-" * 5000, "\x00", "-é"]
)
def test_where_nothing_is_close_nothing_is_suggested(written: str) -> None:
    assert suggest(written, _newest()) == ()


def test_a_flag_that_was_removed_is_not_suggested() -> None:
    assert "--draft-max" not in suggest("--draft-maxx", _newest())


def test_no_more_is_suggested_than_is_asked_for() -> None:
    assert len(suggest("--cache-type", _newest(), limit=2)) == 2


def _typos(spelling: str, turn: int) -> Iterator[tuple[str, str]]:
    """Every kind of slip once; `turn` says at which letter, so that all letters have their turn."""
    word = spelling[2:]
    at = 1 + turn % (len(word) - 1)
    while word[at] == "-":
        at = 1 + at % (len(word) - 1)
    yield "dropped letter", f"--{word[:at]}{word[at + 1 :]}"
    yield "doubled letter", f"--{word[:at]}{word[at]}{word[at:]}"
    left = min(at, len(word) - 2)
    if word[left] != word[left + 1]:
        yield "swapped neighbours", f"--{word[:left]}{word[left + 1]}{word[left]}{word[left + 2 :]}"
    if "-" in word:
        yield "other separator, a letter more", f"--{word.replace('-', '_')}x"
        yield "no separator", f"--{word.replace('-', '', 1)}"
    if word[at] in _KEY_BESIDE:
        yield "key beside", f"--{word[:at]}{_KEY_BESIDE[word[at]]}{word[at + 1 :]}"
    yield "one dash", f"-{word}"
    yield "no dash", word
    yield "cut off", spelling[:-2]
    yield "capitals", spelling.title()


def test_at_least_95_percent_of_all_typos_are_understood(capsys: pytest.CaptureFixture[str]) -> None:
    catalogue = _newest()
    made: Counter[str] = Counter()
    understood: Counter[str] = Counter()
    for turn, flag in enumerate(catalogue.flags):
        if flag.state is FlagState.REMOVED:
            continue
        for spelling in (s for s in flag.spellings if s.startswith("--") and len(s) > 6):
            for kind, typo in _typos(spelling, turn):
                if catalogue.find(typo) is not None:
                    continue
                made[kind] += 1
                first = suggest(typo, catalogue, limit=1)
                understood[kind] += bool(first) and catalogue.find(first[0]) is flag
    with capsys.disabled():
        for kind, count in made.items():
            print(f"\n{kind:>31}: {understood[kind]} of {count}", end="")
        print(f"\n{'all':>31}: {understood.total()} of {made.total()} ({understood.total() / made.total():.1%})")
    assert made.total() >= 100
    assert understood.total() >= 0.95 * made.total()
    assert all(understood[kind] >= 0.9 * count for kind, count in made.items()), understood


@given(st.text(max_size=200))
def test_any_text_gives_flags_of_the_catalogue_or_nothing(text: str) -> None:
    catalogue = _newest()
    found = suggest(text, catalogue)
    assert len(found) <= 3
    assert all(catalogue.find(spelling) is not None for spelling in found)
    assert len({catalogue.find(spelling) for spelling in found}) == len(found)
