"""What a real llama-server must answer before its model counts as Ready, and what it is caught by."""

from __future__ import annotations

from llamamodel_operator.api.spec import Task
from llamamodel_operator.core.engine.offload_log import offload_of
from llamamodel_operator.core.engine.proof import Expected
from llamamodel_operator.core.observed import Proof, ServerReport
from support.probing import probed

from .conftest import Server, Start

WIDTH = 640
"""Of Gemma 3 270M's vectors."""


def asked(server: Server, expected: Expected) -> ServerReport:
    """What the operator knows of it after it has asked."""
    return probed(server.port, until=lambda report: report.proof is not None, expected=expected)


def test_a_server_that_generates_is_proven_and_another_name_or_task_is_not(start_server: Start) -> None:
    with start_server("--alias", "gemma") as server:
        assert asked(server, Expected(name="gemma", task=Task.GENERATE)).proof is Proof.ANSWERS
        other = asked(server, Expected(name="qwen", task=Task.GENERATE))
        assert (other.proof, other.problem) == (Proof.FAILS, "/v1/models names gemma, expected qwen")
        embed = asked(server, Expected(name="gemma", task=Task.EMBED))
        assert embed.proof is Proof.FAILS
        assert "expected status 200, found 501: This server does not support embeddings" in embed.problem
        rerank = asked(server, Expected(name="gemma", task=Task.RERANK))
        assert rerank.proof is Proof.FAILS


def test_a_vector_must_have_the_width_of_the_model(start_server: Start) -> None:
    with start_server("--alias", "gemma", "--embeddings", "--pooling", "mean") as server:
        right = Expected(name="gemma", task=Task.EMBED, widths=frozenset({WIDTH}))
        assert asked(server, right).proof is Proof.ANSWERS
        wrong = asked(server, Expected(name="gemma", task=Task.EMBED, widths=frozenset({768})))
        assert f"a vector of {WIDTH} elements, expected 768" in wrong.problem


def test_vectors_of_single_tokens_are_asked_for_where_nothing_is_pooled(start_server: Start) -> None:
    with start_server("--alias", "gemma", "--embeddings", "--pooling", "none") as server:
        expected = Expected(name="gemma", task=Task.EMBED, widths=frozenset({WIDTH}), pooled=False)
        assert asked(server, expected).proof is Proof.ANSWERS


def test_a_pooling_by_rank_alone_changes_nothing_and_with_embeddings_it_is_reranking(start_server: Start) -> None:
    with start_server("--alias", "gemma", "--pooling", "rank") as server:
        assert asked(server, Expected(name="gemma", task=Task.GENERATE)).proof is Proof.ANSWERS
        assert asked(server, Expected(name="gemma", task=Task.RERANK)).proof is Proof.FAILS
    with start_server("--alias", "gemma", "--embeddings", "--pooling", "rank") as server:
        assert asked(server, Expected(name="gemma", task=Task.RERANK)).proof is Proof.ANSWERS


def test_a_grammar_for_the_whole_server_does_not_stand_in_the_way(start_server: Start) -> None:
    with start_server("--alias", "gemma", "--grammar", 'root ::= "yes" | "no"') as server:
        assert asked(server, Expected(name="gemma", task=Task.GENERATE)).proof is Proof.ANSWERS


def test_a_server_without_a_gpu_says_so_in_its_log(start_server: Start) -> None:
    with start_server("--n-gpu-layers", "all") as server:
        found = offload_of(server.log.read_text(errors="replace").splitlines(), measured=None)
        assert found is not None
        assert not found.on_gpu
        assert "no usable GPU found" in found.line
