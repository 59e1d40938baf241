"""How many tokens an answer took, read from its first and last bytes alone: no event of a stream is parsed for it."""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ["HEAD_BYTES", "TAIL_BYTES", "Tokens", "tokens_of"]

HEAD_BYTES = 1024
"""Of an answer's beginning: embeddings have their `usage` there, as has the first event of /v1/messages."""
TAIL_BYTES = 4096
"""Of an answer's end: all others have it there, behind the text."""

_OBJECTS = re.compile(rb'"(?:usage|timings)":\s?\{.{0,400}', re.DOTALL)
_COUNTS = re.compile(
    rb'"(prompt_tokens|input_tokens|prompt_n|completion_tokens|output_tokens|predicted_n'
    rb'|cached_tokens|cache_read_input_tokens|cache_n)":\s?(\d{1,12})(?=[\s,}])'
)
"""A text of the model cannot look so: within a JSON string its quotes are escaped."""


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """Counts of one answer; None where the server said none.

    Attributes:
        prompt: of the request, those from the cache included.
        cached: of these, what the KV cache had already.
        completion: that were generated.
    """

    prompt: int | None = None
    cached: int | None = None
    completion: int | None = None


def tokens_of(said: bytes) -> Tokens:
    """The counts in `usage`, which go before llama-server's own `timings`: streams have those alone, unless their
    client asks for more.

    OpenAI's `prompt_tokens` and `input_tokens` count all tokens of the prompt; llama.cpp's `prompt_n` those that had to
    be computed (tools/server/server-common.cpp), as does Anthropic's `input_tokens` (to_json_anthropic in
    tools/server/server-task.cpp). What counts outside of both, as /v1/messages/count_tokens does, is not looked at.

    Args:
        said: the beginning and the end of the answer; of a count that is said twice, the last one holds.
    """
    found = {name: int(count) for part in _OBJECTS.findall(said) for name, count in _COUNTS.findall(part)}
    read = found.get(b"cache_read_input_tokens")
    cached = found.get(b"cached_tokens", read if read is not None else found.get(b"cache_n"))
    prompt = found.get(b"prompt_tokens")
    if prompt is None and (computed := found.get(b"input_tokens", found.get(b"prompt_n"))) is not None:
        apart = read is not None or b"input_tokens" not in found
        prompt = computed + (cached or 0) if apart else computed
    completion = found.get(b"completion_tokens", found.get(b"output_tokens", found.get(b"predicted_n")))
    return Tokens(prompt=prompt, cached=cached, completion=completion)
