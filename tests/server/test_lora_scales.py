"""LoRA adapters on the real llama-server: what they do, the scales of our command line, and scales that change live."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from llamamodel_operator.api.llamamodel import LlamaModel
from llamamodel_operator.core.engine.argv import build_arguments
from llamamodel_operator.core.engine.catalogues import shipped_catalogues
from llamamodel_operator.core.engine.settings import LORA_SCALE_VARIABLE, Inputs, TextPaths
from llamamodel_operator.core.objects.configmap import build_scales
from llamamodel_operator.core.observed import Pod, ServerReport
from llamamodel_operator.shell.prober import Prober
from llamamodel_operator.shell.store import Key
from support.lora import LAYERS, write_adapter
from support.probing import probed

from .conftest import BUILD, NoStartError, Server, Start

Scales = tuple[float, ...]


@pytest.fixture(scope="module")
def adapters(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two adapters."""
    folder = tmp_path_factory.mktemp("adapters")
    for seed, name in enumerate(("sql", "poems")):
        write_adapter(folder / f"{name}.gguf", seed=seed)
    return folder


@pytest.fixture(scope="module")
def server(start_server: Start, adapters: Path) -> Iterator[Server]:
    """One with both adapters, started as the operator would: the first at 0.8, the second at 0."""
    with start_server(*lora_arguments(adapters, 0.8, 0.0)) as server:
        yield server


def lora_arguments(folder: Path, *scales: float) -> list[str]:
    """What our command line says of the adapters, as the kubelet fills it in from our ConfigMap."""
    adapters = [
        {"name": name, "pvc": {"claimName": "models", "path": f"{name}.gguf"}, "scale": scale}
        for name, scale in zip(("sql", "poems"), scales, strict=True)
    ]
    model = LlamaModel.parse(
        {
            "metadata": {"name": "gemma", "namespace": "demo", "uid": "1", "generation": 1},
            "spec": {"model": {"pvc": {"claimName": "models", "path": "gemma.gguf"}}, "loraAdapters": adapters},
        }
    )
    inputs = Inputs(model=model, path=lambda file: str(folder / file.path), texts=TextPaths())
    words = build_arguments(inputs, catalogue=shipped_catalogues().get(int(BUILD[1:]))).words
    config_map = build_scales(model)
    assert config_map is not None
    environment = {
        f"$({LORA_SCALE_VARIABLE.format(index=index)})": config_map["data"][adapter["name"]]
        for index, adapter in enumerate(adapters)
    }
    position = words.index("--lora-scaled")
    return [
        re.sub(r"\$\([^)]*\)", lambda found: environment[found[0]], word) for word in words[position : position + 2]
    ]


def make_so(server: Server, *scales: float) -> ServerReport:
    """Passes with these scales in the spec, until the server is known to have them."""
    return probed(server.port, until=lambda report: report.scales == scales, scales=scales)


def scales_of(server: Server) -> Scales:
    with urllib.request.urlopen(server.url + "/lora-adapters", timeout=60) as answer:  # noqa: S310 (loopback)
        return tuple(round(adapter["scale"], 6) for adapter in json.load(answer))


def says(server: Server) -> str:
    answer = server.completion("The capital of France is", n_predict=24)
    assert answer.status == 200, answer.body
    text: str = answer.body["content"]
    return text


@pytest.fixture(scope="module")
def base(start_server: Start) -> str:
    """What the model says without adapters."""
    with start_server() as server:
        return says(server)


def test_it_starts_with_the_scales_of_our_command_line(start_server: Start, adapters: Path) -> None:
    with start_server(*lora_arguments(adapters, 0.8, -1.25)) as server:
        assert scales_of(server) == (0.8, -1.25)


def test_each_adapter_changes_what_it_says_and_scale_0_is_the_base_model(server: Server, base: str) -> None:
    said = {}
    for scales in ((0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (0.5, 0.5)):
        make_so(server, *scales)
        said[scales] = says(server)
    assert said.pop((0.0, 0.0)) == base
    assert len({base, *said.values()}) == 4
    make_so(server, 0.0, 0.0)
    assert says(server) == base


def test_a_changed_scale_acts_on_the_running_server_and_is_read_back(server: Server) -> None:
    make_so(server, 1.0, 0.0)
    before = says(server)
    assert make_so(server, 0.1, 0.7) == ServerReport(build=int(BUILD[1:]), scales=(0.1, 0.7))
    assert scales_of(server) == (0.1, 0.7)
    assert says(server) != before


def test_a_restarted_server_has_the_scales_of_its_command_line_and_is_put_right(
    start_server: Start, adapters: Path
) -> None:
    started_with = lora_arguments(adapters, 1.0, 1.0)
    with start_server(*started_with) as server:
        make_so(server, 0.25, 0.0)
    with start_server(*started_with) as server:
        assert scales_of(server) == (1.0, 1.0)
        make_so(server, 0.25, 0.0)
        assert scales_of(server) == (0.25, 0.0)


def test_it_says_success_for_an_adapter_that_it_does_not_have_and_an_adapter_not_named_gets_0(server: Server) -> None:
    """Why all are sent, and only what is read back is believed."""
    make_so(server, 1.0, 1.0)
    with urllib.request.urlopen(  # noqa: S310 (loopback)
        urllib.request.Request(  # noqa: S310
            f"{server.url}/lora-adapters", b'[{"id": 1, "scale": 0.5}, {"id": 7, "scale": 1}]'
        ),
        timeout=60,
    ) as answer:
        assert json.load(answer) == {"success": True}
    assert scales_of(server) == (0.0, 0.5)


def test_scales_are_put_right_while_it_generates(server: Server) -> None:
    make_so(server, 0.0, 0.0)

    async def at_once() -> None:
        generating = asyncio.create_task(
            asyncio.to_thread(server.completion, "Once upon a time", n_predict=400, ignore_eos=True)
        )
        await asyncio.to_thread(make_so, server, 0.5, 0.5)
        assert (await generating).status == 200

    asyncio.run(at_once())
    assert scales_of(server) == (0.5, 0.5)


def test_a_server_with_an_api_key_is_unknown(start_server: Start, caplog: pytest.LogCaptureFixture) -> None:
    async def one_pass(port: int) -> dict[str, ServerReport]:
        prober = Prober(again=lambda _: None, port=port)
        pod = Pod(name="gemma-0", ready=True, address="127.0.0.1", container_id="containerd://1")
        prober.reports(Key("demo", "gemma"), [pod], scales=None)
        async with asyncio.timeout(120):
            while "API key" not in caplog.text:  # noqa: ASYNC110 (the log is what is waited for)
                await asyncio.sleep(0.05)
        known = prober.reports(Key("demo", "gemma"), [pod], scales=None)
        await prober.close()
        return dict(known)

    with start_server("--api-key", "secret") as server, caplog.at_level(logging.INFO):
        assert asyncio.run(one_pass(server.port)) == {}


def test_an_adapter_of_another_model_is_refused_at_the_start(start_server: Start, adapters: Path) -> None:
    other = write_adapter(adapters / "other.gguf", seed=3, layers=LAYERS + 1)
    with pytest.raises(NoStartError, match="LoRA"), start_server("--lora", str(other)):
        raise AssertionError("unreachable")
