"""What a llama-server must answer before it counts as serving its model: its name, and one small request of its task.

Each `…_problem` takes a parsed answer and says what is wrong with it; empty where it is as it must be.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llamamodel_operator.api.engine import Pooling
from llamamodel_operator.api.llamamodel import LlamaModel
from llamamodel_operator.api.spec import Task
from llamamodel_operator.core.engine.catalogues import CatalogueMatch
from llamamodel_operator.core.engine.effective import EffectiveSettings
from llamamodel_operator.core.gguf.model import GgufModel

__all__ = ["Expected", "answer_problem", "expected_of", "models_problem", "small_request"]


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What is known of a server beforehand.

    Attributes:
        name: under which it serves the model.
        task: what the server does.
        widths: numbers of elements that an embedding may have; empty where nobody knows.
        pooled: whether the vectors of an input's tokens must become one; without that /v1/embeddings refuses.
    """

    name: str
    task: Task
    widths: frozenset[int] = frozenset()
    pooled: bool = True


def expected_of(model: LlamaModel, file: GgufModel | None, *, words: Sequence[str], match: CatalogueMatch) -> Expected:
    """From the command line, and from the file's header where that is known.

    Args:
        words: of the command line, without the program: extraArgs may ask for embeddings as well as `spec.task`.
        match: of the build that it is written for.
    """
    settings = EffectiveSettings(words, match=match, fields={}, env=model.spec.env or ())
    pooling = settings.text("--pooling")
    task = _task(settings, pooling)
    widths = set()
    for key in ("embedding_length", "embedding_length_out", "dense_3_feat_out") if file is not None else ():
        found = file.metadata.get(f"{file.architecture}.{key}") if file is not None else None
        if isinstance(found, int) and found > 0:
            widths.add(found)
    return Expected(
        name=model.served_name,
        task=task,
        widths=frozenset(widths),
        # Whoever asks for embeddings by a flag alone may mean those of single tokens, and /embedding has both.
        pooled=pooling != Pooling.NONE if pooling else task is not Task.EMBED or model.spec.task is task,
    )


def _task(settings: EffectiveSettings, pooling: str | None) -> Task:
    """As the server sees it: --reranking is --embeddings with pooling by rank, and that pooling alone does nothing
    (b10068 and b11669 answer completions then, and nothing else)."""
    embeddings = settings.is_on("--embeddings")
    if settings.is_on("--reranking") or (embeddings and pooling == Pooling.RANK):
        return Task.RERANK
    return Task.EMBED if embeddings else Task.GENERATE


def small_request(expected: Expected) -> tuple[str, dict[str, Any]]:
    """Path and body of the smallest request of its task. One token costs as much as one step of any other request."""
    match expected.task:
        case Task.EMBED if expected.pooled:
            return "/v1/embeddings", {"model": expected.name, "input": "a"}
        case Task.EMBED:
            return "/embedding", {"content": "a"}
        case Task.RERANK:
            return "/v1/rerank", {"model": expected.name, "query": "a", "documents": ["a"]}
    return "/v1/completions", {"model": expected.name, "prompt": "a", "max_tokens": 1, "temperature": 0}


def models_problem(answer: Any, expected: Expected) -> str:
    """Of `/v1/models`."""
    listed = answer.get("data") if isinstance(answer, Mapping) else None
    models = [entry for entry in listed if isinstance(entry, Mapping)] if isinstance(listed, list) else []
    names = [str(entry.get("id")) for entry in models]
    also = [str(name) for entry in models for name in entry.get("aliases") or () if isinstance(name, str)]
    if expected.name in (*names, *also):
        return ""
    return f"/v1/models names {', '.join(names)[:200] or 'no model'}, expected {expected.name}"


def answer_problem(answer: Any, expected: Expected) -> str:
    """Of the small request."""
    path, _ = small_request(expected)
    match expected.task:
        case Task.EMBED:
            return _embedding_problem(answer, expected, path)
        case Task.RERANK:
            results = answer.get("results") if isinstance(answer, Mapping) else None
            first = results[0] if isinstance(results, list) and results else None
            score = first.get("relevance_score") if isinstance(first, Mapping) else None
            return "" if _is_number(score) else f"{path} gave no finite score"
    choices = answer.get("choices") if isinstance(answer, Mapping) else None
    first = choices[0] if isinstance(choices, list) and choices else None
    return "" if isinstance(first, Mapping) and isinstance(first.get("text"), str) else f"{path} gave no text"


def _embedding_problem(answer: Any, expected: Expected, path: str) -> str:
    # The oldest builds answer /embedding with one object, not with a list.
    listed = answer.get("data", [answer]) if isinstance(answer, Mapping) else answer
    first = listed[0] if isinstance(listed, list) and listed else None
    vector = first.get("embedding") if isinstance(first, Mapping) else None
    if isinstance(vector, list) and vector and isinstance(vector[0], list):
        vector = vector[0]  # one for each token
    if not isinstance(vector, list) or not vector or not all(map(_is_number, vector)):
        return f"{path} gave no vector of finite numbers"
    if not any(vector):
        return f"{path} gave a vector of zeros alone"
    if expected.widths and len(vector) not in expected.widths:
        widths = " or ".join(map(str, sorted(expected.widths)))
        return f"{path} gave a vector of {len(vector)} elements, expected {widths} as the file says"
    return ""


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
