"""The built-in grammars as texts; tests/server samples with them."""

from __future__ import annotations

from pathlib import Path

import pytest

from llamamodel_operator.api.sources import BuiltinGrammar
from llamamodel_operator.core.text.builtin_grammars import builtin_grammar
from llamamodel_operator.core.text.grammar import check_grammar

DOCS = Path(__file__).parents[2] / "docs" / "grammars.md"


@pytest.mark.parametrize("name", BuiltinGrammar)
def test_each_built_in_grammar_is_one_without_a_warning(name: BuiltinGrammar) -> None:
    assert check_grammar(builtin_grammar(name)) == ()


@pytest.mark.parametrize("name", BuiltinGrammar)
def test_each_built_in_grammar_gets_to_an_end(name: BuiltinGrammar) -> None:
    text = builtin_grammar(name)
    assert not any(sign in text.replace("[*", "").replace("*+", "") for sign in ("]*", "]+", ")*", ")+", '"*', '"+'))


@pytest.mark.parametrize("name", BuiltinGrammar)
def test_each_built_in_grammar_is_documented(name: BuiltinGrammar) -> None:
    assert f"| `{name}` |" in DOCS.read_text()
