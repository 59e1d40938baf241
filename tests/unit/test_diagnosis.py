"""Why a llama-server ended: the line of its log that tells, whatever stands before and around it.

`failure_logs/` has what real llama-servers of four builds wrote when they were made to fail (informational lines left
out, other paths); `tests/server/test_failures.py` makes them fail again.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from llamamodel_operator.api.conditions import Reason
from llamamodel_operator.core.engine.diagnosis import Diagnosis, diagnose, shown_line
from llamamodel_operator.core.engine.telling_lines import REMEDIES, TELLING_LINES, TellingLine

LOGS = Path(__file__).parent / "failure_logs"
FILES = {
    "/models/m/none.gguf": "spec.model.pvc",
    "/models/m/cut.gguf": "spec.speculative.draftModel.pvc",
    "/models/m/lora-none.gguf": "spec.loraAdapters[0].pvc",
    "/models/m/mmproj-other.gguf": "spec.projector.pvc",
}


def recorded() -> Iterator[tuple[str, str, int, str, str]]:
    """(build, case, exit code, reason, log)"""
    for file in sorted(LOGS.glob("*.txt")):
        for case in file.read_text().split("=== ")[1:]:
            head, log = case.split("\n", 1)
            found = re.fullmatch(r"(\S+): exit (\d+), (\w+)", head)
            assert found is not None, head
            yield file.stem, found[1], int(found[2]), found[3], log


RECORDED = list(recorded())


def diagnosis(log: str, *, exit_code: int = 1) -> Diagnosis:
    found = diagnose(log, exit_code=exit_code, files=FILES)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("build", "case", "exit_code", "reason", "log"), RECORDED, ids=[f"{r[0]}-{r[1]}" for r in RECORDED]
)
def test_a_recorded_log_tells_why_it_ended(build: str, case: str, exit_code: int, reason: str, log: str) -> None:
    found = diagnosis(log, exit_code=exit_code)
    assert found.reason == reason
    assert found.line
    assert found.remedy
    assert "{" not in found.message + found.remedy


@pytest.mark.parametrize("line", TELLING_LINES, ids=lambda line: f"{line.reason}: {line.pattern[:30]}")
def test_each_line_of_the_table_tells_its_reason(line: TellingLine) -> None:
    found = diagnosis(f"before\n{line.example}\nafter")
    assert (found.reason, found.line) == (line.reason, shown_line(line.example))
    assert found.message == line.cause.format(field="spec.model.pvc")
    assert found.sure is not line.weak


@pytest.mark.parametrize("line", [line for line in TELLING_LINES if line.builds], ids=lambda line: line.pattern[:40])
def test_what_the_table_calls_seen_is_in_the_recorded_logs(line: TellingLine) -> None:
    for build in line.builds:
        logs = "\n".join(log for name, *_, log in RECORDED if name == f"b{build}")
        assert re.search(line.pattern, logs, re.MULTILINE), build


def test_there_is_something_to_do_about_each_reason_of_the_table() -> None:
    assert {line.reason for line in TELLING_LINES} == set(REMEDIES)


MISSING = "gguf_init_from_file: failed to open GGUF file '/models/m/none.gguf' (No such file or directory)"


@pytest.mark.parametrize(
    "line",
    [
        MISSING,
        f"E {MISSING}",
        f"0.00.029.180 E {MISSING}",
        f"12.34.567.890 E {MISSING}",
        f"\x1b[34m0.00.011.655\x1b[0m \x1b[31mE {MISSING}\x1b[0m",
        f"\x1b[31mE {MISSING}\x1b[0m\r",
        f"0.00.029.180 E srv    {MISSING}",
    ],
)
def test_time_level_and_colours_do_not_matter(line: str) -> None:
    found = diagnosis(line)
    assert found.reason is Reason.MODEL_FILE_NOT_FOUND
    assert found.line.endswith(MISSING)
    assert "\x1b" not in found.line


def test_a_line_is_found_however_much_was_written_after_it() -> None:
    log = "\n".join([f"E {MISSING}", *(f"0.00.000.001 D {n}: chatter" for n in range(3000))])
    assert diagnosis(log).reason is Reason.MODEL_FILE_NOT_FOUND


def test_a_log_that_does_not_tell_gives_nothing() -> None:
    assert diagnose("", exit_code=1, files={}) is None
    assert diagnose("E srv  llama_server: exiting due to model loading error\n", exit_code=1, files={}) is None


def test_what_a_user_wrote_is_not_taken_for_a_line() -> None:
    prompt = "cudaMalloc failed: out of memory"
    request = f'0.10.000.000 D srv  log_server_r: request: {{"prompt": "{prompt} error: invalid argument: x"}}'
    log = f"{request}\nyou say: {prompt}"
    assert diagnose(log, exit_code=1, files={}) is None


def test_the_field_that_names_the_file_is_named() -> None:
    loading = "E srv  load_model: failed to load draft model, '/models/m/cut.gguf'"
    found = diagnosis(f"E gguf_init_from_reader: failed to read magic\n{loading}")
    assert found.message == "the file that spec.speculative.draftModel.pvc names is empty, or a folder"
    lost = "I common_speculative_init_result: loading draft model '/models/m/cut.gguf'\nE f: failed to read magic"
    assert "spec.speculative.draftModel.pvc" in diagnosis(lost).message, "what came after it was not written any more"
    adapter = diagnosis(
        "E llama_adapter_lora_init: failed to open '/models/m/lora-none.gguf': No such file or directory"
    )
    assert adapter.remedy == "correct spec.loraAdapters[0].pvc.path, or copy the file there"


def test_the_last_cause_counts_since_earlier_ones_did_no_harm() -> None:
    retried = "E ggml_gallocr_reserve_n_impl: failed to allocate CUDA1 buffer of size 54262464512"
    bind = "E srv         start: couldn't bind HTTP server socket, hostname: 0.0.0.0, port: 8080"
    assert diagnosis(f"{retried}\n{bind}").reason is Reason.PORT_IN_USE


def test_what_only_follows_from_a_cause_does_not_hide_it() -> None:
    log = f"E {MISSING}\nE mtmd_init_from_file: error: Failed to load CLIP model from /models/m/none.gguf"
    assert diagnosis(log).reason is Reason.MODEL_FILE_NOT_FOUND
    alone = diagnosis("E mtmd_init_from_file: error: Failed to load CLIP model from /models/m/mmproj-other.gguf")
    assert (alone.reason, alone.sure) == (Reason.PROJECTOR_INCOMPATIBLE, False)


def test_host_memory_and_gpu_memory_are_told_apart() -> None:
    host = "E alloc_tensor_range: failed to allocate CPU buffer of size 122880000000"
    pinned = "E ggml_gallocr_reserve_n: failed to allocate CUDA_Host buffer of size 1"
    gpu = "E alloc_tensor_range: failed to allocate ROCm0 buffer of size 122880000000"
    assert [diagnosis(line).reason for line in (host, pinned, gpu)] == [
        Reason.OUT_OF_MEMORY,
        Reason.OUT_OF_MEMORY,
        Reason.OUT_OF_GPU_MEMORY,
    ]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("E llama_model_load: error loading model: unable to allocate CUDA0 buffer", Reason.OUT_OF_GPU_MEMORY),
        ("CUDA error: out of memory", Reason.OUT_OF_GPU_MEMORY),
        ("ggml_vulkan: vk::Device::allocateMemory: ErrorOutOfDeviceMemory", Reason.OUT_OF_GPU_MEMORY),
        ("CUDA error: no kernel image is available for execution on the device", Reason.GPU_DRIVER_MISMATCH),
        (
            "rocBLAS error: Cannot read /opt/rocm/lib/rocblas/library/TensileLibrary.dat: No such file or directory for"
            " GPU arch : gfx1036",
            Reason.GPU_DRIVER_MISMATCH,
        ),
        (
            "/app/llama-server: error while loading shared libraries: libcuda.so.1: cannot open shared object file: No"
            " such file or directory",
            Reason.GPU_DRIVER_MISMATCH,
        ),
        ("  what():  vk::createInstance: ErrorIncompatibleDriver", Reason.GPU_DRIVER_MISMATCH),
        (
            "mtmd_init_from_file: error: mismatch between text model (n_embd = 2560) and mmproj (n_embd = 2048)",
            Reason.PROJECTOR_INCOMPATIBLE,
        ),
        (
            "llama_model_load: error loading model: error loading model vocabulary: unknown pre-tokenizer type: 'x'",
            Reason.UNSUPPORTED_ARCHITECTURE,
        ),
    ],
)
def test_lines_that_others_reported_tell_too(line: str, reason: Reason) -> None:
    assert diagnosis(line).reason is reason


def test_a_host_buffer_that_could_not_be_pinned_is_no_failure() -> None:
    line = (
        "0.06.132.047 W ggml_vulkan: Failed to allocate pinned memory (Requested buffer size exceeds device buffer size"
        " limit: ErrorOutOfDeviceMemory)"
    )
    assert diagnose(line, exit_code=1, files={}) is None


def test_an_illegal_instruction_is_told_by_the_exit_code_alone() -> None:
    found = diagnosis("", exit_code=132)
    assert found.reason is Reason.ILLEGAL_INSTRUCTION
    assert "spec.image" in found.remedy


def test_a_very_long_line_is_cut() -> None:
    assert len(diagnosis(f"error: invalid argument: --{'x' * 10_000}").line) <= 400


def test_the_sentence_has_cause_line_and_remedy() -> None:
    assert diagnosis("error: invalid argument: --flash-atten").sentence == (
        'this build of llama-server refuses an argument ("error: invalid argument: --flash-atten"): correct the'
        " field or"
        " the word of spec.extraArgs that it comes from; `llamamodel validate` checks arguments beforehand"
    )
