"""Official clients, and all that llama.cpp was ever seen to say: each body goes through a gateway, each client raises.

A scripted server has the place of llama-server here, for most of these builds cannot be run; what the present one says
is provoked for real in test_server_errors.py.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from llamamodel_operator.core.gateway.routes import ServedModel
from support.gateway import FakeServer, GivenDirectory, running_gateway
from support.openai_clients import CLIENTS

RECORDED: list[dict[str, Any]] = json.loads(
    (Path(__file__).parents[1] / "unit" / "llama_server_errors.json").read_text()
)
_RAISED: Mapping[int, str] = {
    400: "BadRequestError",
    401: "AuthenticationError",
    403: "PermissionDeniedError",
    404: "NotFoundError",
    409: "ConflictError",
    422: "UnprocessableEntityError",
    429: "RateLimitError",
}


def says_what_was_recorded(handler: BaseHTTPRequestHandler, body: bytes) -> None:
    """The record whose number is the prompt, as its server sent it."""
    record = RECORDED[int(json.loads(body)["prompt"])]
    streamed = "event" in record
    text = (record["event"].strip() + "\n\n" if streamed else record["body"]).encode()
    handler.send_response(200 if streamed else record["status"])
    handler.send_header("Content-Type", "text/event-stream" if streamed else "application/json")
    handler.send_header("Content-Length", str(len(text)))
    handler.end_headers()
    handler.wfile.write(text)


@pytest.fixture(scope="module")
def base_url() -> Iterator[str]:
    server = FakeServer(says_what_was_recorded)
    directory = GivenDirectory(
        [ServedModel(namespace="demo", name="any", served_name="any", phase="Ready")], {"demo/any": [server.address]}
    )
    with running_gateway(directory) as url:
        yield f"{url}/v1"
    server.end()


@pytest.mark.parametrize("client", CLIENTS)
def test_each_recorded_error_is_raised_with_its_type_and_code(base_url: str, client: str) -> None:
    methods = ["completion_stream" if "event" in record else "completion" for record in RECORDED]
    calls = [(method, {"model": "any", "prompt": str(number)}) for number, method in enumerate(methods)]
    for record, said in zip(RECORDED, CLIENTS[client](base_url, "any", calls), strict=True):
        status, kind, code, _ = record["becomes"]
        about = f"{record}: {said}"
        if "event" in record:
            assert said["raised"] == "APIError", about
        else:
            raised = "InternalServerError" if status >= 500 else _RAISED.get(status, said["raised"])
            assert (said["raised"], said["status"]) == (raised, status), about
        assert (said["type"], said["code"]) == (kind, code), about
        assert said["message"], about
