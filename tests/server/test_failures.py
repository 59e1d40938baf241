"""Real llama-servers that are made to fail, build by build: their own log gives the reason."""

from __future__ import annotations

import os
import signal
import socket
import struct
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from gguf import GGUFReader

from llamamodel_operator.api.conditions import Reason
from llamamodel_operator.core.engine.diagnosis import Diagnosis, diagnose
from support.gguf import layer_tensors, llama_metadata, write_gguf, write_parts, write_projector
from support.lora import LAYERS, write_adapter

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
    data = good.read_bytes()
    tensor = next(tensor for tensor in GGUFReader(good).tensors if tensor.tensor_type.name == "Q4_K")
    offset, name = int(tensor.data_offset), tensor.name.encode()
    info = data.index(struct.pack("<Q", len(name)) + name) + 8 + len(name)
    kind = info + 4 + 8 * struct.unpack_from("<I", data, info)[0]
    architecture = data.index(b"gemma3", data.index(b"general.architecture"))

    def write(file: str, *parts: bytes) -> None:
        (folder / file).write_bytes(b"".join(parts))

    def with_bytes(file: str, at: int, new: bytes) -> None:
        write(file, data[:at], new, data[at + len(new) :])

    write("empty.gguf")
    write("cut.gguf", data[:100_000_000])
    write("cut-header.gguf", data[:2000])
    write("zip.gguf", b"PK\3\4", data[4:100_000])
    write("version.gguf", data[:4], struct.pack("<I", 9), data[8:100_000])
    write("text.gbnf", b'root ::= "a" | nothere\n')
    write("text.jinja", b"{% for m in messages %}{{ m.content }}")
    with_bytes("architecture.gguf", architecture, b"gemmaX")
    with_bytes("nan.gguf", offset, struct.pack("<H", 0x7E00))
    with_bytes("type.gguf", kind, struct.pack("<I", 250))
    with_bytes("offsets.gguf", kind, struct.pack("<I", 0))
    write("tensor.gguf", data.replace(b"blk.3.ffn_down.weight", b"blk.3.ffn_dXwn.weight", 1))
    write("locked.gguf", data[:100_000])
    (folder / "locked.gguf").chmod(0)
    write_parts(folder, "two", metadata=llama_metadata(), tensors=layer_tensors(), parts=2)
    write_parts(folder, "half", metadata=llama_metadata(), tensors=layer_tensors(), parts=2)
    (folder / "half-00002-of-00002.gguf").unlink()
    write_adapter(folder / "adapter.gguf", seed=1, layers=LAYERS + 1)
    write_projector(folder / "projector.gguf", embedding=1024)
    write_gguf(folder / "small.gguf", metadata=llama_metadata(), tensors=layer_tensors())
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
