"""Real llama-servers that are made to fail, build by build: their own log gives the reason."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from llamamodel_operator.api.conditions import Reason
from llamamodel_operator.core.engine.diagnosis import Diagnosis, diagnose
from support.bad_files import write_bad_files

from .conftest import cache_folder, free_port, required

BUILDS = ("b10068", "b10092", "b10434", "b11669")
_END_TIMEOUT_SEC = 120
_TRIES = 3
"""Of a server that may end before its log is written."""
_UNPRIVILEGED = ("setpriv", "--inh-caps=-all", "--bounding-set=-all")
"""So that root may not read what its mode forbids."""

Fails = Callable[..., Diagnosis | None]


@pytest.fixture(scope="module")
def good() -> Path:
    return required(cache_folder() / "models" / "gemma-3-270m-Q4_K_M.gguf", command="python3 hack/models")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, good: Path) -> Path:
    """Files that are wrong in one way each."""
    folder = tmp_path_factory.mktemp("files")
    write_bad_files(folder, good)
    return folder


@pytest.fixture(scope="module", params=BUILDS)
def fails(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, folder: Path) -> Fails:
    """Starts a server that shall end, and says why it did."""
    build = request.param
    server = cache_folder() / "servers" / build / "llama-server"
    binary = required(server, command=f"python3 hack/servers fetch {build}")
    log = tmp_path_factory.mktemp(build) / "log"

    def fails(*arguments: str, port: int | None = None, before: Sequence[str] = ()) -> Diagnosis | None:
        argv = [*before, str(binary), "--host", "127.0.0.1", "--port", str(port or free_port()), "--threads", "2"]
        argv += ["--no-warmup", *(argument.format(folder=folder) for argument in arguments)]
        files = {str(file): f"FIELD of {file.name}" for file in folder.iterdir()}
        files |= {f"{folder}/missing.gguf": "FIELD of missing.gguf"}
        found = None
        for _ in range(_TRIES):
            exit_code = _exit_code(argv, log)
            found = diagnose(log.read_text(errors="replace"), exit_code=exit_code, files=files)
            if found is not None:
                return found
        return found

    return fails


def _exit_code(argv: Sequence[str], log: Path) -> int:
    """Of a server that ends by itself, as a shell has it."""
    environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE"}
    with log.open("wb") as output:
        process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment, start_new_session=True
        )
    try:
        code = process.wait(_END_TIMEOUT_SEC)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        pytest.fail(f"it did not end: {log.read_text(errors='replace')[-2000:]}", pytrace=False)
    return code if code >= 0 else 128 - code


CASES: dict[str, tuple[Reason, list[str]]] = {
    "a missing file": (Reason.MODEL_FILE_NOT_FOUND, ["-m", "{folder}/missing.gguf"]),
    "a missing adapter": (Reason.MODEL_FILE_NOT_FOUND, ["GOOD", "--lora", "{folder}/missing.gguf"]),
    "a missing projector": (Reason.MODEL_FILE_NOT_FOUND, ["GOOD", "--mmproj", "{folder}/missing.gguf"]),
    "a missing draft model": (Reason.MODEL_FILE_NOT_FOUND, ["GOOD", "-md", "{folder}/missing.gguf"]),
    "an empty file": (Reason.MODEL_TRUNCATED, ["-m", "{folder}/empty.gguf"]),
    "a file cut short": (Reason.MODEL_TRUNCATED, ["-m", "{folder}/cut.gguf"]),
    "a file cut in its header": (Reason.MODEL_TRUNCATED, ["-m", "{folder}/cut-header.gguf"]),
    "another kind of file": (Reason.NOT_GGUF, ["-m", "{folder}/zip.gguf"]),
    "an unknown version": (Reason.UNSUPPORTED_VERSION, ["-m", "{folder}/version.gguf"]),
    "an unknown architecture": (Reason.UNSUPPORTED_ARCHITECTURE, ["-m", "{folder}/architecture.gguf"]),
    "an unknown type of tensor": (Reason.UNSUPPORTED_QUANTIZATION, ["-m", "{folder}/type.gguf"]),
    "offsets that do not add up": (Reason.INVALID_HEADER, ["-m", "{folder}/offsets.gguf"]),
    "a tensor that is not there": (Reason.MODEL_CORRUPT, ["-m", "{folder}/tensor.gguf"]),
    "weights that are no numbers": (Reason.MODEL_CORRUPT, ["-m", "{folder}/nan.gguf", "--check-tensors"]),
    "a missing part": (Reason.PART_MISSING, ["-m", "{folder}/half-00001-of-00002.gguf"]),
    "the second part": (Reason.PART_MISMATCH, ["-m", "{folder}/two-00002-of-00002.gguf"]),
    "an adapter of another model": (Reason.ADAPTER_INCOMPATIBLE, ["GOOD", "--lora", "{folder}/adapter.gguf"]),
    "a projector of another model": (Reason.PROJECTOR_INCOMPATIBLE, ["GOOD", "--mmproj", "{folder}/projector.gguf"]),
    "a model as projector": (Reason.PROJECTOR_INCOMPATIBLE, ["GOOD", "--mmproj", "{folder}/small.gguf"]),
    "an unknown argument": (Reason.INVALID_ARGUMENT, ["GOOD", "--flash-atten"]),
    "an argument that was removed": (Reason.INVALID_ARGUMENT, ["GOOD", "--draft-max", "4"]),
    "a value that is no number": (Reason.INVALID_ARGUMENT, ["GOOD", "--ctx-size", "many"]),
    "a device that is not there": (Reason.INVALID_ARGUMENT, ["GOOD", "--device", "CUDA7"]),
    "settings that do not go together": (Reason.INVALID_ARGUMENT, ["GOOD", "-ctv", "q4_0", "-fa", "off"]),
    "a grammar with an error": (Reason.INVALID_GRAMMAR, ["GOOD", "--grammar-file", "{folder}/text.gbnf"]),
    "a grammar that is not there": (Reason.INVALID_GRAMMAR, ["GOOD", "--grammar-file", "{folder}/missing"]),
    "a schema that is no JSON": (Reason.INVALID_GRAMMAR, ["GOOD", "--json-schema", "["]),
    "a template with an error": (
        Reason.INVALID_CHAT_TEMPLATE,
        ["GOOD", "--jinja", "--chat-template-file", "{folder}/text.jinja"],
    ),
    "a template that is not there": (
        Reason.INVALID_CHAT_TEMPLATE,
        ["GOOD", "--chat-template-file", "{folder}/missing"],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_its_log_gives_the_reason_of(case: str, fails: Fails, good: Path) -> None:
    reason, words = CASES[case]
    arguments = ["-m", str(good), "--ctx-size", "512", *words[1:]] if words[0] == "GOOD" else words
    found = fails(*arguments)
    assert found is not None
    assert found.reason is reason, found
    if files := [word.rpartition("/")[2] for word in arguments if word.endswith(".gguf") and word != str(good)]:
        assert f"FIELD of {files[0]}" in found.message


def test_its_log_gives_the_reason_whatever_it_is_told_to_write(fails: Fails) -> None:
    everything = ["-v", "--log-timestamps", "--log-prefix", "--log-colors", "on"]
    found = fails("-m", "{folder}/cut.gguf", *everything)
    assert found is not None
    assert found.reason is Reason.MODEL_TRUNCATED
    assert found.line.startswith("llama_model_load: error loading model: tensor ")


def test_a_port_that_is_taken(fails: Fails, good: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        found = fails("-m", str(good), port=taken.getsockname()[1])
    assert found is not None
    assert found.reason is Reason.PORT_IN_USE


def test_a_context_that_there_is_no_memory_for(fails: Fails, good: Path) -> None:
    limited = ("prlimit", "--as=6000000000")
    found = fails("-m", str(good), "--fit", "off", "--ctx-size", "4000000", before=limited)
    assert found is not None
    assert found.reason is Reason.OUT_OF_MEMORY


def test_a_file_that_may_not_be_read(fails: Fails) -> None:
    found = fails("-m", "{folder}/locked.gguf", before=_UNPRIVILEGED if os.geteuid() == 0 else ())
    assert found is not None
    assert found.reason is Reason.PERMISSION_DENIED
