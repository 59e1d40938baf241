"""What the gateway puts into requests has the effect on a real llama-server that it is meant to have."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from llamamodel_operator.core.gateway.routes import ServedModel, Target
from llamamodel_operator.core.gateway.shaping import shaped

from .conftest import Server, Start

USER = {"role": "user", "content": "Count: one, two, three, four, five, six, seven, eight"}
ASKED: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": [USER]},
    "/v1/completions": {"prompt": USER["content"]},
    "/v1/messages": {"messages": [USER], "max_tokens": 12},
    "/v1/responses": {"input": USER["content"]},
}


@pytest.fixture(scope="module")
def server(start_server: Start) -> Iterator[Server]:
    with start_server("--predict", "12") as server:
        yield server


def used(server: Server, path: str, model: ServedModel, **more: Any) -> tuple[int, int]:
    """Tokens that were read and written."""
    asked = {**ASKED[path], "temperature": 0, **more}
    request = {name: value for name, value in asked.items() if value is not None}
    answer = server.post(path, **shaped(request, path=path, target=Target(model=model)))
    assert answer.status == 200, answer.body
    usage = answer.body["usage"]
    cached = usage.get("cache_read_input_tokens", 0)
    return (
        usage.get("prompt_tokens", usage.get("input_tokens", 0) + cached),
        usage.get("completion_tokens", usage.get("output_tokens", 0)),
    )


def a_model(**more: Any) -> ServedModel:
    return ServedModel(namespace="demo", name="m", served_name="m", **more)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions", "/v1/messages", "/v1/responses"])
def test_stops_end_an_answer(server: Server, path: str) -> None:
    _, without = used(server, path, a_model())
    _, stopped = used(server, path, a_model(stop=tuple("aeiounst<0123456789 ,")))
    assert without == 12
    assert stopped < without


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages", "/v1/responses"])
def test_a_system_prompt_is_part_of_what_is_read(server: Server, path: str) -> None:
    plain, _ = used(server, path, a_model())
    prompted, _ = used(server, path, a_model(system_prompt="Answer as a llama in the Andes would, in few words."))
    assert prompted > plain + 8


def test_the_limit_of_the_model_is_put_in_where_the_command_line_does_not_hold(server: Server) -> None:
    assert used(server, "/v1/messages", a_model(max_tokens=5), max_tokens=None)[1] == 5
