"""`llamamodel estimate`: its figures as JSON and text, what it refuses, its exit codes."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from llamamodel_operator.cli.main import run
from support.gguf import layer_tensors, llama_metadata, write_adapter, write_gguf, write_parts, write_projector

SHAPE: dict[str, Any] = {"layers": 32, "embedding": 4096, "heads": 32, "kv_heads": 8, "feed_forward": 14_336}
DEVICE = {
    "weightsBytes",
    "kvCacheBytes",
    "recurrentStateBytes",
    "computeBytes",
    "outputBytes",
    "adapterBytes",
    "projectorBytes",
    "overheadBytes",
    "totalBytes",
}
GIB = 1 << 30
NOT_NEEDED = {
    "aiohttp",
    "asyncio",
    "http.client",
    "jinja2",
    "jsonschema",
    "kopf",
    "kubernetes",
    "numpy",
    "pydantic",
    "yaml",
}

MANIFEST = """\
apiVersion: llamamodel.dev/v1alpha1
kind: LlamaModel
metadata: {name: eight}
spec:
  image: example.com/llama.cpp:server-cuda-b11669
  model: {pvc: {claimName: models, path: llama/8b.gguf}}
  gpu: {count: 1}
  engine: {contextSize: 8192, parallelSlots: 1}
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """About 8B parameters in q8_0; sparse."""
    return write_gguf(
        tmp_path_factory.mktemp("model") / "8b.gguf",
        metadata=llama_metadata(**SHAPE, vocabulary=128_256, context=131_072),
        tensors=layer_tensors(**SHAPE, vocabulary=128_256, type_name="Q8_0"),
    )


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    file = tmp_path / "eight.yaml"
    file.write_text(MANIFEST)
    return file


class Answer:
    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    @property
    def json(self) -> dict[str, Any]:
        return dict(json.loads(self.out))


@pytest.fixture
def ask(capsys: pytest.CaptureFixture[str]) -> Any:
    def asked(*words: object) -> Answer:
        code = run(["llamamodel", "estimate", *map(str, words)])
        captured = capsys.readouterr()
        return Answer(code, captured.out, captured.err)

    return asked


def test_json_has_the_figures_of_each_device_by_name(ask: Any, model: Path) -> None:
    found = ask("--gguf", model, "--gpu-memory", "24Gi", "-o", "json", "--", "-c", 8192, "-np", 1).json
    [gpu] = found["gpus"]
    assert set(gpu) >= DEVICE
    assert set(found["host"]) == DEVICE | {"promptCacheBytes"}
    assert gpu["totalBytes"] == sum(gpu[name] for name in DEVICE - {"totalBytes"})
    assert gpu["kvCacheBytes"] == 8192 * 32 * 8 * 128 * 2 * 2
    assert gpu["availableBytes"] == 24 * GIB
    assert found["host"]["promptCacheBytes"] == 8 * GIB
    assert (found["fits"], found["uncertain"], found["findings"], found["draft"]) == (True, False, [], None)
    assert found["maxContextSize"] % 256 == 0
    assert (found["contextSize"], found["slots"], found["gpuLayers"], found["layers"]) == (8192, 1, 33, 32)


def test_a_command_line_can_be_pasted_as_it_is(ask: Any, model: Path) -> None:
    short = ask("--gguf", model, "-o", "json", "--", "-c", 8192, "-np", 1, "-ts", "1,1", "-ctk", "q8_0")
    pasted = ask(
        *("-o", "json", "--", "/app/llama-server", "-m", model, "--ctx-size", 8192, "--parallel", 1),
        *("--tensor-split", "1/1", "--cache-type-k", "q8_0", "--port", 8080, "--alias", "x", "--metrics"),
    )
    assert pasted.json == short.json
    assert pasted.code == 0


def test_without_a_size_nobody_knows_whether_it_fits(ask: Any, model: Path) -> None:
    answer = ask("--gguf", model, "-o", "json")
    assert (answer.code, answer.json["fits"], answer.json["maxContextSize"]) == (0, None, None)
    assert "give --gpu-memory" in ask("--gguf", model).out


def test_what_does_not_fit_exits_with_1_and_says_what_would(ask: Any, model: Path) -> None:
    answer = ask("--gguf", model, "--gpu-memory", "12Gi", "-o", "json", "--", "-c", 65536, "-np", 1)
    assert (answer.code, answer.json["fits"]) == (1, False)
    change = next(change for change in answer.json["changes"] if change["change"] == "contextSize")
    assert change["arguments"] == ["-c", str(answer.json["maxContextSize"])]
    assert change["gpuTotalBytes"][0] <= 12 * GIB
    text = ask("--gguf", model, "--gpu-memory", "12Gi", "--", "-c", 65536, "-np", 1).out
    assert "It does not fit" in text
    assert f"engine.contextSize: {answer.json['maxContextSize']}" in text


def test_gpus_of_different_size_share_by_their_memory(ask: Any, model: Path) -> None:
    found = ask("--gguf", model, "--gpu-memory", "8Gi,24Gi", "-o", "json", "--", "-c", 4096).json
    small, large = (gpu["weightsBytes"] for gpu in found["gpus"])
    assert 2 < large / small < 5


def test_one_size_is_that_of_each_gpu(ask: Any, model: Path) -> None:
    found = ask("--gguf", model, "--gpus", 2, "--gpu-memory", "8Gi", "-o", "json").json
    assert [gpu["availableBytes"] for gpu in found["gpus"]] == [8 * GIB] * 2


def test_without_a_gpu_all_of_it_is_on_the_host(ask: Any, model: Path) -> None:
    found = ask("--gguf", model, "--gpus", 0, "-o", "json", "--", "-c", 4096).json
    assert found["gpus"] == []
    assert found["host"]["overheadBytes"] == 0
    assert found["host"]["kvCacheBytes"] > 0
    assert "Without a GPU it takes" in ask("--gguf", model, "--gpus", 0).out


def test_the_overhead_can_be_given(ask: Any, model: Path) -> None:
    found = ask("--gguf", model, "--overhead", "100Mi", "-o", "json").json
    assert found["gpus"][0]["overheadBytes"] == 100 << 20


def test_the_overhead_is_that_of_the_operators_configuration(
    ask: Any, model: Path, manifest: Path, tmp_path: Path
) -> None:
    values = tmp_path / "values.yaml"
    values.write_text("gpuOverhead: {nvidia: 100Mi}\n")
    for request in ((), ("-f", manifest)):
        found = ask(*request, "--gguf", model, "--config", values, "-o", "json").json
        assert found["gpus"][0]["overheadBytes"] == 100 << 20
    found = ask("--gguf", model, "--config", values, "--vendor", "amd", "-o", "json").json
    assert found["gpus"][0]["overheadBytes"] == 640 << 20


def test_the_draft_models_bytes_are_in_the_devices_they_land_on(ask: Any, model: Path, tmp_path: Path) -> None:
    shape: dict[str, Any] = {
        "layers": 4,
        "embedding": 512,
        "heads": 8,
        "kv_heads": 2,
        "feed_forward": 1024,
        "vocabulary": 128_256,
    }
    draft = write_gguf(tmp_path / "d.gguf", metadata=llama_metadata(**shape), tensors=layer_tensors(**shape))
    words = ("--gguf", model, "-o", "json", "--", "-c", 4096, "-np", 1)
    alone, both = ask(*words).json, ask(*words, "-md", draft).json
    part = both["draft"]["gpus"][0]
    assert part["weightsBytes"] > 0
    assert part["kvCacheBytes"] == 4096 * 4 * 2 * 64 * 2 * 2
    assert both["gpus"][0]["weightsBytes"] == alone["gpus"][0]["weightsBytes"] + part["weightsBytes"]


def test_adapters_and_projectors_count(ask: Any, model: Path, tmp_path: Path) -> None:
    lora = write_adapter(tmp_path / "l.gguf", targets={"blk.0.attn_q.weight": (4096, 4096)})
    projector = write_projector(tmp_path / "p.gguf", embedding=4096)
    found = ask("--gguf", model, "-o", "json", "--", "--lora-scaled", f"{lora}:0.5", "--mmproj", projector).json
    assert found["gpus"][0]["adapterBytes"] >= 8 * 4096 * 2 * 4
    assert found["gpus"][0]["projectorBytes"] > 0
    assert found["uncertain"]  # what a projector computes with depends on the images


def test_a_multi_part_model_is_found_by_its_first_part(ask: Any, model: Path, tmp_path: Path) -> None:
    first, second, _ = write_parts(
        tmp_path,
        "split",
        metadata=llama_metadata(**SHAPE, vocabulary=128_256, context=131_072),
        tensors=layer_tensors(**SHAPE, vocabulary=128_256, type_name="Q8_0"),
        parts=3,
    )
    words = ("-o", "json", "--", "-c", 4096)
    assert ask("--gguf", first, *words).json == ask("--gguf", model, *words).json
    second.unlink()
    answer = ask("--gguf", first, *words)
    assert answer.code == 2
    assert "split-00002-of-00003.gguf" in answer.err


@pytest.mark.parametrize(("setting", "first"), [("context", 1024), ("parallel", 1)])
def test_a_sweep_goes_from_small_to_large_until_it_no_longer_fits(
    ask: Any, model: Path, setting: str, first: int
) -> None:
    words = ("--gguf", model, "--gpu-memory", "12Gi", "--sweep", setting)
    points = ask(*words, "-o", "json", "--", "-c", 8192, "-np", 1).json["sweep"]["points"]
    totals = [point["gpus"][0]["totalBytes"] for point in points]
    assert points[0]["value"] == first
    assert totals == sorted(totals)
    fits = [point["fits"] for point in points]
    assert fits == sorted(fits, reverse=True)
    assert {True, False} == set(fits)
    text = ask(*words, "--", "-c", 8192, "-np", 1).out
    assert text.count("───") >= 1


def test_text_is_a_table_with_a_bar_for_each_gpu(ask: Any, model: Path) -> None:
    text = ask("--gguf", model, "--gpu-memory", "24Gi", "--gpus", 2, "--", "-c", 8192, "-np", 1).out
    for word in ("Small test model", "weights", "KV cache", "driver overhead", "GPU 0", "GPU 1", "host", "It fits"):
        assert word in text
    assert text.count("█") > 2
    assert "\x1b[" not in text
    assert "\x1b[" in ask("--gguf", model, "--gpu-memory", "24Gi", "--color", "always").out


# --- with a manifest


def test_a_manifest_without_its_file_says_which_one_is_needed(ask: Any, manifest: Path) -> None:
    answer = ask("-f", manifest)
    assert answer.code == 2
    assert "llama/8b.gguf on the claim models" in answer.err
    assert "--gguf FILE" in answer.err


def test_a_manifest_counts_as_the_command_line_that_it_makes(ask: Any, manifest: Path, model: Path) -> None:
    found = ask("-f", manifest, "--gguf", model, "-o", "json").json
    pasted = ask("--gguf", model, "-o", "json", "--", "-c", 8192, "-np", 1).json
    assert found["gpus"] == pasted["gpus"]
    assert found["host"]["promptCacheBytes"] == GIB


def test_words_come_on_top_of_a_manifest(ask: Any, manifest: Path, model: Path) -> None:
    assert ask("-f", manifest, "--gguf", model, "-o", "json", "--", "-c", 512).json["contextSize"] == 512


def test_an_automatic_context_is_settled_as_the_operator_does(ask: Any, manifest: Path, model: Path) -> None:
    manifest.write_text(
        MANIFEST.replace("contextSize: 8192", "contextSize: auto").replace("1}\n", "1, memory: 12Gi}\n", 1)
    )
    found = ask("-f", manifest, "--gguf", model, "-o", "json").json
    assert found["fits"] is True
    assert found["contextSize"] == found["maxContextSize"]


def test_files_of_a_manifest_that_are_not_given_make_it_uncertain(ask: Any, manifest: Path, model: Path) -> None:
    manifest.write_text(MANIFEST + "  projector: {pvc: {claimName: models, path: p.gguf}}\n")
    found = ask("-f", manifest, "--gguf", model, "-o", "json").json
    assert found["uncertain"]
    assert any("--mmproj FILE" in finding["message"] for finding in found["findings"])


def test_several_models_in_a_file_are_refused(ask: Any, manifest: Path, model: Path) -> None:
    manifest.write_text(f"{MANIFEST}---\n{MANIFEST}")
    answer = ask("-f", manifest, "--gguf", model)
    assert answer.code == 2
    assert "expected one LlamaModel, found 2" in answer.err


# --- what is wrong


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "name the model: --gguf"),
        (("model.gguf",), "--gguf model.gguf"),
        (("--gguf", "/none/x.gguf"), "there is no folder /none"),
        (("--gguf", "/"), "found a folder"),
        (("--gguf", "MODEL", "--gpu-memory", "24"), "such as 24Gi"),
        (("--gguf", "MODEL", "--gpu-memory", "24GB!"), "such as 24Gi"),
        (("--gguf", "MODEL", "--gpu-memory", ""), "such as 24Gi"),
        (("--gguf", "MODEL", "--gpu-memory", "-1Gi"), "expected"),
        (("--gguf", "MODEL", "--gpu-memory", "1Gi,2Gi,3Gi", "--gpus", "2"), "3 figures for 2 GPUs"),
        (("--gguf", "MODEL", "--gpus", "-1"), "expected 0 to 64"),
        (("--gguf", "MODEL", "--overhead", "much"), "640Mi"),
        (("-f", "/none.yaml", "--gguf", "MODEL"), "cannot be read"),
    ],
)
def test_what_cannot_be_counted_is_refused_in_one_sentence(
    ask: Any, model: Path, words: tuple[str, ...], message: str
) -> None:
    answer = ask(*(str(model) if word == "MODEL" else word for word in words))
    assert answer.code == 2
    assert message in answer.err
    assert "this should not happen" not in answer.err
    assert answer.out == ""


def test_a_wrong_word_is_a_finding_by_its_place_and_the_rest_still_counts(ask: Any, model: Path) -> None:
    answer = ask("--gguf", model, "-o", "json", "--", "-c", 8192, "--flash-atten", "on", "--mlock", "-ctk", "q9")
    assert answer.code == 1
    found = {finding["code"]: finding for finding in answer.json["findings"]}
    assert found["UnknownFlag"]["field"] == "word 3"
    assert "--flash-attn" in found["UnknownFlag"]["suggestion"]
    assert found["RemovedFlag"]["field"] == "word 5"
    assert found["InvalidFlagValue"]["field"] == "word 7"
    assert answer.json["contextSize"] == 8192
    assert "extraArgs" not in answer.out


def test_arguments_are_judged_by_the_build_that_is_named(ask: Any, model: Path) -> None:
    assert ask("--gguf", model, "--build", "b10092", "-o", "json", "--", "--mlock").code == 0


def test_a_model_that_llama_cpp_would_not_load_is_refused(ask: Any, tmp_path: Path) -> None:
    file = write_gguf(tmp_path / "m.gguf", metadata={"general.architecture": "llama"}, tensors=layer_tensors())
    answer = ask("--gguf", file)
    assert answer.code == 2
    assert "llama." in answer.err


# --- over HTTP


@contextmanager
def served(folder: Path) -> Iterator[tuple[str, list[int]]]:
    sizes: list[int] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            file = folder / Path(self.path).name
            size = file.stat().st_size
            first, _, last = self.headers["Range"].removeprefix("bytes=").partition("-")
            end = min(int(last), size - 1)
            with file.open("rb") as stream:
                stream.seek(int(first))
                data = stream.read(end - int(first) + 1)
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {first}-{end}/{size}")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            sizes.append(len(data))
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", sizes
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_of_an_address_only_the_header_is_fetched(ask: Any, model: Path) -> None:
    with served(model.parent) as (address, sizes):
        found = ask("--gguf", f"{address}/{model.name}", "-o", "json").json
    assert found == ask("--gguf", model, "-o", "json").json
    assert len(sizes) <= 8
    assert sum(sizes) < 2 << 20


def test_estimating_imports_nothing_that_it_does_not_need(model: Path) -> None:
    sources = str(Path(__file__).parents[2] / "operator")
    code = (
        f"import sys; sys.path.insert(0, {sources!r}); from llamamodel_operator.cli.main import run\n"
        f"run(['llamamodel', 'estimate', '--gguf', {str(model)!r}, '--gpu-memory', '24Gi', '--', '-c', '512'])\n"
        f"print(*sorted({NOT_NEEDED!r} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == ""
