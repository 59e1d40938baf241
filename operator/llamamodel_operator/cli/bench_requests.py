"""One request of a benchmark: what is sent for each task, and when its tokens come."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import aiohttp

from llamamodel_operator.api.spec import Task
from llamamodel_operator.cli.servers import ModelServer, NotReadableError, NotTakenError, parsed, read_whole

__all__ = ["Done", "Workload", "ask", "context_size_of", "ordinary_tokens"]

_T = TypeVar("_T")

_TEXT = (
    "the of and to in a is that for it as was with be by on not he his but at are this have from or had an they which "
    "one you were all her she there would their we him been has when who will no more if out so up said what its "
    "about than into them can only other time new some could these two may first then do any like my now over such "
    "our man even most made after also did many off before must well back through years much where your way down "
    "should because long each just state people those too mr how little good world make very year still see work life "
    "being day get house old great water small large number city school government system program question during "
    "without place however home around found thought away night war set public later left night light against country "
    "hand part"
)
_WORDS = _TEXT.split()
_QUERY_WORDS = 8
_TRIES = 5
"""Of a request that the server did not take."""
_PAUSE_SEC = 0.05


@dataclass(frozen=True, kw_only=True)
class Workload:
    """What each request asks for.

    Attributes:
        prompt_tokens: of each prompt; of rerank about so many.
        generate_tokens: asked for, and given, whatever the model would like.
        seed: of the prompts: the same one gives the same prompts.
    """

    task: Task
    prompt_tokens: int
    generate_tokens: int
    seed: int


@dataclass(frozen=True, kw_only=True)
class Done:
    """One request that was answered. Times are seconds on a steady clock.

    Attributes:
        sent: when it was sent.
        first: when its first token came, or its whole answer where nothing is generated.
        last: when the last one came.
        prompt_tokens, generated_tokens: as counted from the answer.
    """

    sent: float
    first: float
    last: float
    prompt_tokens: int
    generated_tokens: int


async def ordinary_tokens(server: ModelServer) -> tuple[int, ...]:
    """Tokens of ordinary words in the model's vocabulary, of which prompts are made. Raises NotReadableError."""

    async def tokenize() -> Any:
        async with server.asked("POST", "/tokenize", {"content": _TEXT}, timeout_sec=60) as response:
            return parsed(await read_whole(response))

    answer = await _taken(tokenize)
    found = answer.get("tokens") if isinstance(answer, dict) else None
    if not isinstance(found, list) or not found or not all(isinstance(token, int) for token in found):
        raise NotReadableError("/tokenize: the answer is not a list of tokens")
    return tuple(sorted(set(found)))


async def context_size_of(server: ModelServer) -> int | None:
    """Tokens that a slot has room for; None where the server does not say."""
    match await server.json("/props"):
        case {"default_generation_settings": {"n_ctx": int(size)}} if size > 0:
            return size
    return None


async def ask(
    server: ModelServer,
    workload: Workload,
    *,
    name: str,
    tokens: Sequence[int],
    on_token: Callable[[], None],
    clock: Callable[[], float] = time.monotonic,
) -> Done:
    """Sends the request of this name, and waits for all of its answer. Raises NotReadableError."""
    try:
        return await _taken(lambda: _ask(server, workload, name, tokens, on_token, clock))
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        raise NotReadableError(f"{server.name}: the answer broke off: {error or type(error).__name__}") from None


async def _taken(send: Callable[[], Awaitable[_T]]) -> _T:
    """Sends it again where the server did not take it."""
    for tried in range(_TRIES):
        try:
            return await send()
        except NotTakenError:
            await asyncio.sleep(_PAUSE_SEC * (tried + 1))
    return await send()


async def _ask(
    server: ModelServer,
    workload: Workload,
    name: str,
    tokens: Sequence[int],
    on_token: Callable[[], None],
    clock: Callable[[], float],
) -> Done:
    choose = random.Random(f"{workload.seed}-{name}")  # noqa: S311 (nothing is secret)
    match workload.task:
        case Task.GENERATE:
            return await _generate(server, workload, choose, tokens, on_token, clock)
        case Task.EMBED:
            prompt = choose.choices(tokens, k=workload.prompt_tokens)
            return await _whole(server, "/v1/embeddings", {"input": [prompt]}, on_token, clock)
        case Task.RERANK:
            words = choose.choices(_WORDS, k=max(workload.prompt_tokens, _QUERY_WORDS + 1))
            query, document = " ".join(words[:_QUERY_WORDS]), " ".join(words[_QUERY_WORDS:])
            return await _whole(server, "/v1/rerank", {"query": query, "documents": [document]}, on_token, clock)


async def _generate(
    server: ModelServer,
    workload: Workload,
    choose: random.Random,
    tokens: Sequence[int],
    on_token: Callable[[], None],
    clock: Callable[[], float],
) -> Done:
    """By /completion, which takes tokens as they are and tells the tokens of each event."""
    body = {
        "prompt": choose.choices(tokens, k=workload.prompt_tokens),
        "n_predict": workload.generate_tokens,
        "stream": True,
        "cache_prompt": False,
        "ignore_eos": True,
        "return_tokens": True,
        "temperature": 0,
    }
    sent, first, last, streamed = clock(), 0.0, 0.0, 0
    ended: Mapping[str, Any] = {}
    async with server.asked("POST", "/completion", body, timeout_sec=None) as response:
        # to its end, so that the connection can be used again
        async for event in _events(response):
            if event.get("stop"):
                ended = event
                continue
            last = clock()
            first = first or last
            streamed += len(event.get("tokens") or ())
            on_token()
    prompt, generated = ended.get("tokens_evaluated"), ended.get("tokens_predicted")
    if not isinstance(prompt, int) or not isinstance(generated, int):
        raise NotReadableError("/completion: the stream ended without its last event")
    last = last or clock()
    # the bytes of a character that is not whole are held back, so a token may come with the next
    counted = max(generated, streamed)
    return Done(sent=sent, first=first or last, last=last, prompt_tokens=prompt, generated_tokens=counted)


async def _whole(
    server: ModelServer, path: str, body: object, on_token: Callable[[], None], clock: Callable[[], float]
) -> Done:
    sent = clock()
    async with server.asked("POST", path, body, timeout_sec=None) as response:
        content = await read_whole(response)
    end = clock()
    on_token()
    match parsed(content):
        case {"usage": {"prompt_tokens": int(prompt)}}:
            return Done(sent=sent, first=end, last=end, prompt_tokens=prompt, generated_tokens=0)
    raise NotReadableError(f"{path}: the answer does not say how many tokens it took")


async def _events(response: aiohttp.ClientResponse) -> AsyncIterator[dict[str, Any]]:
    """The JSON of server-sent events. Raises NotReadableError for one that is an error."""
    rest = b""
    async for chunk in response.content.iter_any():
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            kind, _, data = line.partition(b":")
            if kind not in (b"data", b"error"):
                continue
            event = parsed(data)
            if not isinstance(event, dict) or kind == b"error" or "error" in event:
                raise NotReadableError(f"/completion: {_said(event)}")
            yield event


def _said(event: Any) -> str:
    match event:
        case {"error": {"message": str(message)}} | {"message": str(message)}:
            return message[:300]
    return json.dumps(event)[:300]
