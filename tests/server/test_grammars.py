"""What our grammar check says, against what the real llama-server says."""

from __future__ import annotations

import csv
import io
import json
import re
import urllib.parse
from collections.abc import Callable
from datetime import date

import pytest

from llamamodel_operator.api.findings import Severity
from llamamodel_operator.api.sources import BuiltinGrammar
from llamamodel_operator.core.text.builtin_grammars import builtin_grammar
from llamamodel_operator.core.text.grammar import check_grammar
from support.prompts import PROMPTS

from .conftest import Server

VALID = [
    'root ::= "yes"',
    'root ::= "a" | "b" | "c"',
    'root ::= "a" |\n  "b" |\n  "c"',
    'root ::= ( "a"\n | "b"\n )',
    'root ::=\n  "a"',
    'root ::= "a" # comment\n# another\n\n',
    '# first\nroot ::= "a"',
    'root ::= "a"\r\nother ::= "b"\r\n',
    'root ::= "a"\n\n\nother ::= "b"',
    'root::="a"',
    'root\t::=\t"a"',
    'root ::= "\\n\\r\\t\\\\\\"\\[\\]\\-"',
    'root ::= "\\x41\\u00e4\\U0001F600"',
    'root ::= "ä漢😀"',
    'root ::= "two\nlines"',
    'root ::= ""',
    'root ::= "" "a"',
    'root ::= | "a"',
    "root ::= ",
    "root ::= [a-z]",
    "root ::= [^a-z]",
    "root ::= [a-zA-Z0-9_-]",
    "root ::= [-a]",
    "root ::= [a-]",
    "root ::= [a\\-z]",
    "root ::= [\\]]",
    "root ::= [^\\]\\\\]",
    "root ::= [\\x00-\\x1F]",
    "root ::= [😀-😂]",
    'root ::= [] "a"',
    'root ::= [^] "a"',
    "root ::= .",
    "root ::= .{3}",
    "root ::= [a-z]+",
    'root ::= "a"*',
    'root ::= "a"?',
    'root ::= "a"{3}',
    'root ::= "a"{3,}',
    'root ::= "a"{0,3}',
    'root ::= "a"{ 2 , 3 }',
    'root ::= "a"{0}',
    'root ::= "a"{2000}',
    'root ::= "a"{1,2001}',
    'root ::= "a"{007}',
    'root ::= "a"{2}{3}{4}',
    'root ::= ("a" "b")+',
    'root ::= ("a" ("b" ("c" | "d")* )? )+',
    'root ::= "a"+*',
    'root ::= ("a"?)*',
    'root ::= item ("," item)*\nitem ::= [a-z]+',
    'root ::= a\na ::= b\nb ::= "c"',
    'a ::= "x"\nroot ::= a',
    'root ::= "a" root | "b"',
    'root ::= "(" root ")" | "x"',
    'root ::= "a"\nroot ::= "b"',
    "root ::= 1\n1 ::= [0-9]",
    'root ::= -\n- ::= "a"',
    'root ::= my-rule-2\nmy-rule-2 ::= "a"',
    'root ::= ws "a"\nws ::= [ \\t\\n]*',
    'root ::= <[1234]> "a"',
    'root ::= !<[1234]> "a"',
    "root ::= <bos>",
    'root ::= "a" unused\nunused ::= "b"\nunreached ::= "c"',
    'root ::= "a" ;'.replace(" ;", ""),
    "root ::= " + "(" * 100 + '"a"' + ")" * 100,
    "root ::= a0\n" + "".join(f"a{i} ::= a{i + 1}\n" for i in range(4900)) + 'a4900 ::= "x"',
    'root ::= ("a" | "b" | "c"){0,500}',
    "root ::= (x y z){400}\n" + "".join(f'{name} ::= "{name}"\n' for name in "xyz"),
]

INVALID = [
    "root",
    "root :: = a",
    'root = "a"',
    'root := "a"',
    '::= "a"',
    'ro_ot ::= "a"',
    'root ::= a_b\na_b ::= "x"',
    'root ::= "a',
    "root ::= [a-z",
    "root ::= [a-",
    'root ::= ("a"',
    'root ::= "a")',
    "root ::= ('a')",
    'root ::= "a" ; "b"',
    'root ::= "a"\n| "b"',
    'root ::= "a" ::= "b"',
    'root ::= "\\q"',
    'root ::= "\\x4"',
    'root ::= "\\u12"',
    'root ::= "\\U0001F60"',
    "root ::= [\\d]",
    "root ::= *",
    'root ::= "a" | *',
    'root ::= ""*',
    "root ::= []+",
    'root ::= "a"{',
    'root ::= "a"{}',
    'root ::= "a"{,3}',
    'root ::= "a"{a}',
    'root ::= "a"{1;2}',
    'root ::= "a"{1,2',
    'root ::= "a"{-1}',
    'root ::= "a"{2001}',
    'root ::= "a"{99999999999999999999999}',
    'root ::= "a"{100}{100}',
    'root ::= ("a"{0,300} "b"){10}',
    'root ::= "a"{0}*',
    "root ::= foo",
    'root ::= "a" foo',
    'start ::= "a"',
    'root ::= root "a" | "b"',
    'root ::= a\na ::= b "x"\nb ::= a "y" | "z"',
    'root ::= "a"?*',
    'root ::= e root "x" | "y"\ne ::= "z" |',
    'other ::= other "a" | "b"\nroot ::= "x"',
    'root ::= "" root "a"',
    "root ::= <[abc]>",
    "root ::= <[12>",
    "root ::= <[99999999999]>",
    "root ::= ! <[1]>",
    "root ::= <bos",
    "root ::= <two words>",
    'root ::= "a" \u00a0 "b"',
    "# only a comment",
    "   \n\n",
]

STRICTER = {
    "an empty text is no grammar at all to the server": "",
    "llama-server counts down from 3 to 2 until its memory is full": 'root ::= "a"{3,2}',
    "left recursion behind something that may be empty; it fills its memory": (
        'root ::= b root "x" | "y"\nb ::= c\nc ::= "z" |'
    ),
    "groups deeper than a person writes": "root ::= " + "(" * 101 + '"a"' + ")" * 101,
    "its check for left recursion takes it 2 to the 60": (
        "root ::= a0\n" + "".join(f"a{i} ::= a{i + 1} | a{i + 1}\n" for i in range(60)) + 'a60 ::= "x"'
    ),
    "nothing matches it; each request is answered 500": "root ::= [z-a]",
    "a control character": 'root ::= "\x07"',
    "it makes 2 million elements of it": 'root ::= "' + "a" * 1000 + '"{2000}',
}
"""Not sent to the server: it might not survive them."""


def errors(text: str) -> list[str]:
    return [str(problem) for problem in check_grammar(text) if problem.severity is Severity.ERROR]


@pytest.mark.parametrize("text", VALID, ids=lambda text: repr(text)[:60])
def test_what_we_call_valid_the_server_takes(server: Server, text: str) -> None:
    assert errors(text) == []
    answer = server.completion("Hi", grammar=text, n_predict=1)
    assert answer.status == 200, answer.body


def not_in_this_vocabulary(text: str) -> bool:
    return text == "root ::= <two words>"


@pytest.mark.parametrize("text", INVALID, ids=lambda text: repr(text)[:60])
def test_what_we_call_invalid_the_server_refuses(server: Server, text: str) -> None:
    answer = server.completion("Hi", grammar=text, n_predict=1)
    assert answer.status == 400, answer.body
    if not_in_this_vocabulary(text):
        assert "depends on the model" in str(check_grammar(text)[0])
    else:
        assert errors(text) != []


@pytest.mark.parametrize("why", STRICTER)
def test_where_we_are_stricter_it_is_a_rule_of_ours(why: str) -> None:
    assert errors(STRICTER[why]) != []


def test_json_ends_by_itself_in_20_of_20_tries(server: Server) -> None:
    grammar = builtin_grammar(BuiltinGrammar.JSON)
    for prompt in PROMPTS:
        answer = server.post("/v1/completions", prompt=prompt, temperature=0, grammar=grammar, max_tokens=1500).body
        assert answer["choices"][0]["finish_reason"] == "stop", prompt
        assert isinstance(json.loads(answer["choices"][0]["text"]), dict | list)


def is_json(kind: type) -> Callable[[str], object]:
    return lambda text: isinstance(json.loads(text), kind)


def is_uri(text: str) -> bool:
    parts = urllib.parse.urlsplit(text)
    return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0 and not re.search(r"\s", text)


def is_csv(text: str) -> bool:
    rows = list(csv.reader(io.StringIO(text), strict=True))
    return len(rows) > 1 and len({len(row) for row in rows}) == 1


CONFORMS: dict[BuiltinGrammar, Callable[[str], object]] = {
    BuiltinGrammar.JSON: is_json(dict | list),  # type: ignore[arg-type]
    BuiltinGrammar.JSON_ARRAY: is_json(list),
    BuiltinGrammar.JSON_OBJECT: is_json(dict),
    BuiltinGrammar.LIST: re.compile(r"(- \S.*\n)+").fullmatch,
    BuiltinGrammar.YES_NO: re.compile("yes|no").fullmatch,
    BuiltinGrammar.INTEGER: lambda text: str(int(text)) == text or text == "-0",
    BuiltinGrammar.NUMBER: lambda text: isinstance(json.loads(text), int | float),
    BuiltinGrammar.DATE: date.fromisoformat,
    BuiltinGrammar.URI: is_uri,
    BuiltinGrammar.CSV: is_csv,
}


@pytest.mark.parametrize("name", BuiltinGrammar)
def test_each_built_in_grammar_conforms(server: Server, name: BuiltinGrammar) -> None:
    for seed, temperature in enumerate((0, 1.0)):
        prompt = PROMPTS[seed] if seed else f"An example of {name}: "
        answer = server.post(
            "/completion",
            prompt=prompt,
            grammar=builtin_grammar(name),
            temperature=temperature,
            seed=seed,
            n_predict=3000,
        ).body
        assert answer["stop_type"] == "eos", (prompt, answer["content"])
        assert CONFORMS[name](answer["content"]), (prompt, answer["content"])
