"""What a real llama-server says it took, beside the estimate. It has no GPU here: everything is on the host."""

from __future__ import annotations

from pathlib import Path

import pytest

from llamamodel_operator.core.engine.buffer_log import Measured, measured_buffers, tells_buffers
from llamamodel_operator.core.engine.catalogues import shipped_catalogues
from llamamodel_operator.core.memory.arguments import settings_of
from llamamodel_operator.core.memory.comparison import estimate_ratios
from llamamodel_operator.core.memory.estimate import MemoryEstimate, estimate_memory
from llamamodel_operator.shell.gguf_files import open_model
from support.lora import write_adapter

from .conftest import BUILD, Server, Start

_BUILD = int(BUILD.removeprefix("b"))
_TELLS = ("-lv", "4")


def measured(server: Server) -> Measured:
    with server.log.open(encoding="utf-8", errors="replace") as log:
        found = measured_buffers(log)
    assert found is not None, server.log.read_text(errors="replace")[-3000:]
    return found


def estimated(server: Server) -> MemoryEstimate:
    words = server.arguments
    catalogue = shipped_catalogues().get(_BUILD)
    arguments = settings_of(words, catalogue=catalogue)
    assert arguments.files.model is not None
    return estimate_memory(
        open_model(arguments.files.model),
        settings=arguments.settings,
        gpus=0,
        adapters=[open_model(file) for file in arguments.files.adapters],
    )


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(["-c", "8192"], id="context"),
        pytest.param(["-c", "6000", "-np", "3"], id="slots with caches of their own"),
        pytest.param(["-c", "8192", "-np", "4", "-kvu"], id="slots that share a cache"),
        pytest.param(["-c", "8192", "-ctk", "q8_0", "-ctv", "q4_0", "-fa", "on"], id="cache types"),
        pytest.param(["-c", "8192", "-ub", "128"], id="micro batch"),
        pytest.param(["-c", "4096", "--embeddings", "--pooling", "none"], id="embeddings of each token"),
        pytest.param(["-c", "4096", "-fa", "off", "--swa-full"], id="no flash attention, full caches"),
    ],
)
def test_the_estimate_is_what_the_server_takes(start_server: Start, arguments: list[str]) -> None:
    with start_server(*arguments, *_TELLS) as server:
        mine, real = estimated(server).host, measured(server).host
    assert mine.weights == pytest.approx(real.weights, rel=0.001)
    assert mine.kv_cache == pytest.approx(real.kv_cache, rel=0.001)
    assert mine.compute == pytest.approx(real.compute, rel=0.1)


def test_the_estimate_of_pooled_embeddings_is_not_too_small(start_server: Start) -> None:
    """Builds up to b11434 compute logits as well, b11669 does not; the estimate is that of the former."""
    with start_server("-c", "4096", "--embeddings", "--pooling", "mean", *_TELLS) as server:
        mine, real = estimated(server).host, measured(server).host
    assert mine.kv_cache == pytest.approx(real.kv_cache, rel=0.001)
    assert mine.compute >= real.compute


def test_adapters_are_told_and_estimated(start_server: Start, tmp_path: Path) -> None:
    adapter = write_adapter(tmp_path / "adapter.gguf", seed=1)
    with start_server("--lora", str(adapter), *_TELLS) as server:
        estimate, real = estimated(server), measured(server)
    assert estimate.host.adapters == pytest.approx(real.host.adapters, rel=0.01)
    assert estimate_ratios(estimate, real)["host"] == pytest.approx(1, abs=0.02)


def test_all_messages_tell_the_same_although_the_model_is_measured_before_it_is_loaded(start_server: Start) -> None:
    with start_server(*_TELLS) as server:
        quiet = measured(server)
    with start_server("--log-verbose") as server:
        assert measured(server) == quiet


@pytest.mark.parametrize("form", [["--log-colors", "on"], ["--log-jsonl"], ["--no-log-prefix", "--no-log-timestamps"]])
def test_the_form_of_the_lines_does_not_matter(start_server: Start, form: list[str]) -> None:
    with start_server(*_TELLS) as server:
        plain = measured(server)
    with start_server(*_TELLS, *form) as server:
        assert measured(server) == plain


def test_the_default_log_does_not_tell_which_is_known(start_server: Start) -> None:
    with start_server() as server, server.log.open(encoding="utf-8") as log:
        assert measured_buffers(log) is None
        assert not tells_buffers(server.arguments, build=_BUILD)
