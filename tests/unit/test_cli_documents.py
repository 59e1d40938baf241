"""YAML and JSON are read as kubectl reads them, with lines, and no input is too odd, too large or too deep."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from llamamodel_operator.cli.documents import MAX_NODES, Document, read_documents


def values(text: str | bytes) -> list[Any]:
    documents, problems = read_documents(text if isinstance(text, bytes) else text.encode(), file="f.yaml")
    assert problems == []
    return [document.value for document in documents]


def the_document(text: str) -> Document:
    (document,), problems = read_documents(text.encode(), file="f.yaml")
    assert problems == []
    return document


def problems_of(text: str | bytes) -> list[str]:
    return [str(found) for found in read_documents(text if isinstance(text, bytes) else text.encode(), file="f")[1]]


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("yes", True),
        ("On", True),
        ("n", False),
        ("OFF", False),
        ("'on'", "on"),
        ("~", None),
        ("", None),
        ("null", None),
        ("2026-01-01", "2026-01-01"),
        ("12:30:45", "12:30:45"),
        ("0x1F", 31),
        ("0o17", 15),
        ("017", 15),
        ("08", 8.0),
        ("0b101", 5),
        ("-0x10", -16),
        ("1_000", 1000),
        ("1e3", 1000.0),
        (".5", 0.5),
        ("1.", 1.0),
        (".", "."),
        ("4Gi", "4Gi"),
        ("--flash-attn", "--flash-attn"),
        ("1.2.3", "1.2.3"),
        ("18446744073709551615", 18446744073709551615),
        ("18446744073709551616", 1.8446744073709552e19),
        ("1e400", "1e400"),
        ("9" * 5000, "9" * 5000),
        ("!!str 5", "5"),
        ("! 5", "5"),
        ("!!int '5'", 5),
        ('"\\u00e4\\n"', "ä\n"),
        ("|\n  a\n  b\n", "a\nb\n"),
        (">-\n  a\n  b\n", "a b"),
    ],
)
def test_a_word_means_what_it_means_to_kubectl(written: str, meant: Any) -> None:
    ((found,),) = [list(document.values()) for document in values(f"a: {written}")]

    assert found == meant
    assert type(found) is type(meant)


def test_keys_are_text_whatever_they_look_like() -> None:
    assert values("{1: a, on: b, '~': c, 1.5: d, 'on': e, 08: f}") == [
        {"1": "a", "true": "b", "~": "c", "1.5": "d", "on": "e", "8": "f"}
    ]


def test_documents_are_cut_as_kubectl_cuts_them_and_empty_ones_are_passed_over() -> None:
    text = "%YAML 1.1\n---\n# nothing\n---\na: 1\n--- # next\nb: 2\n---\n\n--- {c: 3}\n...\n"

    assert values(text) == [{"a": 1}, {"b": 2}, {"c": 3}]


def test_aliases_and_merge_keys_work() -> None:
    text = "a: &a {x: 1, w: 2}\nb: {<<: *a, w: 3}\nc: {<<: [*a, {x: 9, z: 4}]}\nd: *a\n'<<': q\n"

    assert values(text) == [
        {"a": {"x": 1, "w": 2}, "b": {"x": 1, "w": 3}, "c": {"x": 1, "w": 2, "z": 4}, "d": {"x": 1, "w": 2}, "<<": "q"}
    ]


def test_a_byte_order_mark_and_windows_line_ends_do_no_harm() -> None:
    assert values(b"\xef\xbb\xbfa: 1\r\nb: |\r\n  x\r\n  y\r\n") == [{"a": 1, "b": "x\ny\n"}]


JSON = '{\n\t"a": ["\\u00e4\\ud83d\\ude00", "\\/", "\\\\ud83d\\\\ude00", 1e2, -0, null],\n\t"b": {"c": true}}'


def test_json_is_read_too_with_its_tabs_and_escapes_and_lines() -> None:
    document = the_document(JSON)

    assert document.value == json.loads(JSON)
    assert (document.line_of("a[2]"), document.line_of("b.c")) == (2, 3)


MANIFEST = """\
# a comment
kind: LlamaModel
metadata:
  labels:
    example.com/team: a
    example.com: b
spec:
  engine: {threads: 4,
    contextSize: 1}
  env:
    - name: A
      valueFrom:
        secretKeyRef: {}
    -
      name: B
"""


@pytest.mark.parametrize(
    ("field", "line"),
    [
        ("", 2),
        ("kind", 2),
        ("spec", 7),
        ("spec.engine.threads", 8),
        ("spec.engine.contextSize", 9),
        ("spec.engine.missing", 8),
        ("spec.env[0]", 11),
        ("spec.env[0].valueFrom.secretKeyRef.key", 13),
        ("spec.env[1].name", 15),
        ("spec.env[7]", 10),
        ("metadata.labels.example.com/team", 5),
        ("metadata.labels.example.com", 6),
        ("nothing.at.all", 2),
    ],
)
def test_the_line_of_a_field_or_of_the_nearest_thing_around_it_is_known(field: str, line: int) -> None:
    assert the_document(MANIFEST).line_of(field) == line
    (second,) = [d for d in read_documents(f"a: 1\n---\n{MANIFEST}".encode(), file="f")[0] if "kind" in d.value]
    assert second.line_of(field) == line + 2


def test_a_list_is_taken_apart() -> None:
    document = the_document("kind: List\nitems:\n- kind: A\n- kind: BList\n  items:\n  - kind: B\n    x: 1\n- 7\n")
    items = list(document.items())

    assert [(item.value["kind"], item.line) for item in items] == [("A", 3), ("B", 6)]
    assert items[1].line_of("x") == 7
    assert [str(stray) for stray in document.strays()] == ["f.yaml:8: items[2]: expected an object, found the value 7"]


BOMB = "a: &a [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{name}: &{name} [{','.join([f'*{before}'] * 10)}]\n"
    for before, name in zip("abcdefghi", "bcdefghij", strict=True)
)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\na: 2\n", "f:2: the key 'a' is given twice, first in line 1: remove one of them"),
        ("a: {b: 1, b: 2}", "f:1: the key 'b' is given twice, first in line 1: remove one of them"),
        ("true: 1\non: 2\n", "f:2: the key 'true' is given twice, first in line 1: remove one of them"),
        ("{<<: {a: 1}, <<: {b: 1}}", "f:1: the key << is given twice"),
        ("{<<: 1}", "f:1: <<: expected an alias of an object"),
        ("a:\n\tb: 1\n", "f:2: is no YAML: "),
        ("a:\n\tb: 1\n", "the line is indented with a tab, and YAML wants spaces"),
        ("a: b: c", "f:1: is no YAML: mapping values are not allowed in this context"),
        ("a: [1, 2\n", "f:2: is no YAML: while parsing a flow sequence"),
        ("x: 1\nname: {{ .Values.name }}\n", "f:2: a key must be text, found a list or an object: is it a template?"),
        ("a: 1\nb: {{- if .Values.x }}\n{{- end }}", "is it a template? Give what it renders"),
        ("- 1\n- 2\n", "f:1: expected an object with apiVersion and kind, found a list"),
        ("just words", "f:1: expected an object with apiVersion and kind, found text"),
        ("42", "found the value 42"),
        ("a: .nan", "f:1: .nan cannot be written in JSON"),
        ("~: 1", "f:1: a key is empty: put ~ and null into quotes"),
        ("a: !" + "x" * 100_000, "f:1: the tag !xxx"),
        ("a: !Ref x", "f:1: the tag !Ref means nothing to Kubernetes: remove it"),
        ("a: !!python/object:os.system [x]", "means nothing to Kubernetes"),
        ("a: !!binary aGk=", "f:1: the tag !!binary means nothing to Kubernetes"),
        ("a: *b", "f:1: *b refers to nothing: there is no &b before it"),
        ("a: &a [*a]", "f:1: *a stands inside of what it refers to"),
        ("a: &a [1]\n*a : 2", "f:2: a key must be text, found an alias of a list"),
        ("? [1]\n: 2", "f:1: a key must be text"),
        ("a: 1\n---\nb: *a\n", "f:3: *a refers to nothing"),
        (BOMB, f"f:6: found more than {MAX_NODES} values, aliases counted as what they stand for"),
        ("[" * 100_000, "f:1: lists and objects are inside each other more than 100 levels deep"),
        ("- " * 100_000, "f:1: lists and objects are inside each other more than 100 levels deep"),
        ("[" + "[]," * 300_000, f"f:1: found more than {MAX_NODES} values"),
        ("---\n- 1\n" * 100_000, "f:2: expected an object with apiVersion and kind, found a list"),
        (b"a: 1\nb: \xe4\n", "f:2: expected text in UTF-8, found the byte 0xe4"),
        ("a: 1".encode("utf-16"), "f:1: expected UTF-8, found UTF-16: save it as UTF-8"),
        (b"\x7fELF\x02\x01\x01\x00", "f:1: expected text, found the control character U+007F: is it a binary file?"),
        (b"a: 1\n\x00", "f:2: expected text, found the control character U+0000"),
        ("a: \ufffe", "f:1: is no YAML: "),
    ],
)
def test_a_mistake_is_one_line_with_file_and_line(text: str | bytes, said: str) -> None:
    first = problems_of(text)[0]

    assert said in first
    assert "\n" not in first
    assert len(first) < 400


def test_a_mistake_in_one_document_hides_no_other() -> None:
    documents, problems = read_documents(b"a: 1\n---\nb: [\n---\nc: 3\n---\nd: 1\nd: 2\n", file="f")

    assert [document.value for document in documents] == [{"a": 1}, {"c": 3}]
    assert [problem.line for problem in problems] == [4, 8]


@pytest.mark.parametrize("data", [b"", b"\n\n", b"# only a comment\n", b"---\n---\n", b"...\n", b"null\n"])
def test_nothing_is_nothing(data: bytes) -> None:
    assert read_documents(data, file="f") == ([], [])


@given(st.binary(max_size=200))
def test_no_bytes_are_too_odd(data: bytes) -> None:
    read_documents(data, file="f")


@given(st.text(alphabet="ab:-{}[]&*!|>'\"%@`#?,~<. \n\t01\\", max_size=60))
def test_no_punctuation_is_too_odd(text: str) -> None:
    for document in read_documents(text.encode(), file="f")[0]:
        assert 1 <= document.line <= text.count("\n") + 1


TREES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=30), inner, max_size=4),
    max_leaves=20,
)


@given(st.dictionaries(st.text(max_size=30), TREES, min_size=1))
def test_what_is_written_as_json_is_read_as_it_was(value: dict[str, Any]) -> None:
    for indent in (None, 2):
        text = json.dumps(value, indent=indent)
        assert values(text) == [json.loads(text)]


@given(st.dictionaries(st.sampled_from(["a", "yes", "1", "x.y"]), TREES, min_size=1))
def test_what_is_written_as_yaml_is_read_as_it_was(value: dict[str, Any]) -> None:
    assert values(yaml.safe_dump(value, default_style='"')) == [value]
