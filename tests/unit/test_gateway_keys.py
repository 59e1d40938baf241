"""What a Secret says of keys, and which models each may use."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from llamamodel_operator.core.gateway.keys import KeyEntry, KeyRing, digest, presented_key, read_keys, visible_to
from llamamodel_operator.core.gateway.routes import ServedModel, build_routes

SECRET = "llm-secret"
NOTHING = KeyRing()


def a_model(full_name: str, served: str = "") -> ServedModel:
    namespace, _, name = full_name.partition("/")
    return ServedModel(namespace=namespace, name=name, served_name=served or name, adapters=("sql",))


ROUTES = build_routes([a_model("a/chat"), a_model("a/embed"), a_model("b/chat"), a_model("b/code", "coder")])


def seen(**entry: object) -> list[str]:
    key = KeyEntry.model_validate({"sha256": digest(SECRET), **entry})
    return sorted(visible_to(key, ROUTES).by_name)


def test_a_key_is_found_by_its_digest_alone() -> None:
    content = f"sha256: {digest(SECRET).upper()}\nrequestsPerMinute: 60\n".encode()
    ring, problems = read_keys({"ci": content}, known=NOTHING)
    key = ring.find(SECRET)
    assert problems == ()
    assert key is not None
    assert (key.name, key.entry.requests_per_minute, key.entry.concurrency) == ("ci", 60, None)
    assert ring.find(digest(SECRET)) is None, "who reads the Secret has no key"
    assert ring.find("") is None


def test_json_is_taken_as_well() -> None:
    ring, problems = read_keys({"ci": json.dumps({"sha256": digest(SECRET), "models": ["m"]}).encode()}, known=NOTHING)
    assert (sorted(ring.names), problems) == (["ci"], ())


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "expected an object with `sha256`, found nothing"),
        (SECRET.encode(), "expected an object with `sha256`, found a text"),
        (b"\xff\xfe\x00", "expected YAML or JSON, found something else"),
        (b"sha256: [", "expected YAML or JSON, found something else in line 1"),
        (b"[" * 10_000, "expected YAML or JSON"),
        (b"expires: 2026-99-99", "month must be in 1..12"),
        (f"{SECRET}: {digest('x')}".encode(), "a field: expected one of sha256"),
        (b"namespaces: [a]", "sha256: expected, not found"),
        (f"sha256: {SECRET}".encode(), "expected the key's SHA-256, 64 hexadecimal digits, found 10 characters"),
        (b"sha256: 12", "sha256: expected a text of 64 hexadecimal digits, found a number or the like"),
        (f"sha256: {digest('x')}\nnamespace: a".encode(), "namespace: expected one of sha256, namespaces, models"),
        (f"sha256: {digest('x')}\nnamespaces: a".encode(), "namespaces: Input should be a valid list, found 'a'"),
        (f"sha256: {digest('x')}\nnamespaces: []".encode(), "namespaces: List should have at least 1 item"),
        (f"sha256: {digest('x')}\nconcurrency: 0".encode(), "concurrency: Input should be greater than or equal to 1"),
    ],
)
def test_a_wrong_entry_is_named_with_what_was_expected_and_repeats_no_key(content: bytes, told: str) -> None:
    ring, problems = read_keys({"ci": content}, known=NOTHING)
    (problem,) = problems
    assert problem.startswith("ci: ")
    assert told in problem
    assert problem.endswith("it opens nothing")
    assert SECRET not in problem
    assert ring == NOTHING


def test_a_wrong_entry_stays_what_it_was_and_the_others_change() -> None:
    good = {name: f"sha256: {digest(name)}".encode() for name in ("one", "two", "three")}
    before, _ = read_keys(good, known=NOTHING)
    after, problems = read_keys({"one": b"oops", "two": f"sha256: {digest('new')}".encode()}, known=before)
    assert [problem.partition(":")[0] for problem in problems] == ["one"]
    assert "what was known of it holds" in problems[0]
    assert after.find("one") == before.find("one")
    assert after.find("two") is None, "replaced"
    assert after.find("three") is None, "taken away"
    assert after.find("new") is not None


def test_what_has_not_changed_is_the_same_key_as_before() -> None:
    files = {name: f"sha256: {digest(name)}".encode() for name in ("one", "two")}
    before, _ = read_keys(files, known=NOTHING)
    after, _ = read_keys({**files, "two": files["two"] + b"\nconcurrency: 1"}, known=before)
    assert after.find("one") is before.find("one")
    assert after.find("two") is not before.find("two")


def test_two_entries_with_one_key_are_told_and_the_first_holds() -> None:
    content = f"sha256: {digest(SECRET)}".encode()
    ring, problems = read_keys({"b": content, "a": content}, known=NOTHING)
    assert ring.names == {"a"}
    assert problems == ("b: expected a key of its own, found that of a, which holds",)


@given(st.binary(max_size=200))
def test_whatever_an_entry_holds_is_read_or_told(content: bytes) -> None:
    ring, problems = read_keys({"x": content}, known=NOTHING)
    assert len(ring.by_digest) + len(problems) == 1


def test_a_key_without_bounds_sees_all_names() -> None:
    assert seen() == sorted(ROUTES.by_name)


def test_a_key_of_a_namespace_sees_its_models_alone() -> None:
    assert seen(namespaces=["b"]) == ["b/chat", "b/code", "coder"], "the bare name chat is that of a"


def test_a_key_of_models_sees_them_under_all_their_names() -> None:
    assert seen(models=["chat"]) == ["a/chat", "chat"]
    assert seen(models=["b/code", "gone"]) == ["b/code", "coder"]


def test_a_key_of_both_sees_what_both_allow() -> None:
    assert seen(models=["chat", "coder"], namespaces=["b"]) == ["b/code", "coder"]


def test_what_a_key_does_not_see_is_found_by_no_other_spelling() -> None:
    routes = visible_to(KeyEntry(sha256=digest(SECRET), namespaces=["b"]), ROUTES)
    assert [routes.find(name) for name in ("a/chat", "chat", "a/chat:sql", "chat:sql", "a/embed")] == [None] * 5
    assert routes.find("coder:sql") is not None


@pytest.mark.parametrize(
    ("headers", "key"),
    [
        ({}, None),
        ({"authorization": "Bearer k"}, "k"),
        ({"Authorization": "bearer  k "}, "k"),
        ({"Authorization": "Bearer "}, None),
        ({"Authorization": "Basic k"}, None),
        ({"X-Api-Key": "k"}, "k"),
        ({"Authorization": "Basic u", "x-api-key": "k"}, "k"),
        ({"Authorization": "Bearer k", "x-api-key": "other"}, "k"),
    ],
)
def test_a_key_is_shown_as_openais_or_anthropics_clients_do(headers: dict[str, str], key: str | None) -> None:
    assert presented_key(CIMultiDict(headers)) == key


def test_bytes_that_are_no_text_can_be_shown_and_open_nothing() -> None:
    ring, _ = read_keys({"ci": f"sha256: {digest(SECRET)}".encode()}, known=NOTHING)
    assert ring.find(b"\xff\xfe".decode(errors="surrogateescape")) is None
