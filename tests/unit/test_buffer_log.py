"""What a llama-server took, by its log: lines of real servers, and anything else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamamodel_operator.core.engine.buffer_log import Measured, MeasuredGpu, measured_buffers, tells_buffers
from llamamodel_operator.core.memory.estimate import DeviceMemory
from llamamodel_operator.shell.log_reader import read_load_log

from .fake_cluster import FakeCluster


def mib(value: float) -> int:
    return round(value * 2**20)


def measured(log: str) -> Measured | None:
    return measured_buffers(log.splitlines())


def gpus(log: str) -> dict[str, DeviceMemory]:
    found = measured(log)
    assert found is not None
    return {gpu.name: gpu.memory for gpu in found.gpus}


B10092 = """\
0.00.982.734 I load_tensors: loading model tensors, this can take a while... (mmap = true, direct_io = false)
0.00.987.773 I load_tensors: offloaded 19/19 layers to GPU
0.00.987.777 I load_tensors:   CPU_Mapped model buffer size =   235.16 MiB
0.00.987.778 I load_tensors:   CPU_REPACK model buffer size =    12.66 MiB
0.01.006.644 I llama_context: constructing llama_context
0.01.006.740 I llama_context:        CPU  output buffer size =     1.00 MiB
0.01.006.821 I llama_kv_cache:        CPU KV buffer size =    12.00 MiB
0.01.013.210 I llama_kv_cache: size =   12.00 MiB (  4096 cells,   3 layers,  1/1 seqs), K (f16):    6.00 MiB
0.01.013.322 I llama_kv_cache:        CPU KV buffer size =    15.00 MiB
0.01.023.832 I sched_reserve:        CPU compute buffer size =    22.77 MiB
0.01.023.851 I sched_reserve: graph nodes  = 727
"""

B10434_TWO_GPUS = """\
0.00.593.901 I load_tensors: offloaded 19/19 layers to GPU
0.00.593.917 I load_tensors:   CPU_Mapped model buffer size =   170.00 MiB
0.00.593.918 I load_tensors: RPC0[127.0.0.1:50052] model buffer size =    35.82 MiB
0.00.593.920 I load_tensors: RPC0[127.0.0.1:50053] model buffer size =   199.34 MiB
0.01.303.828 I llama_context: constructing llama_context
0.01.304.424 I llama_context:        CPU  output buffer size =     4.00 MiB
0.01.304.848 I llama_kv_cache: RPC0[127.0.0.1:50052] KV buffer size =     8.00 MiB
0.01.317.038 I llama_kv_cache: RPC0[127.0.0.1:50053] KV buffer size =    16.00 MiB
0.01.328.966 I llama_kv_cache: RPC0[127.0.0.1:50052] KV buffer size =    22.50 MiB
0.01.343.213 I llama_kv_cache: RPC0[127.0.0.1:50053] KV buffer size =    15.00 MiB
0.01.379.299 I sched_reserve: RPC0[127.0.0.1:50052] compute buffer size =    27.02 MiB
0.01.379.328 I sched_reserve: RPC0[127.0.0.1:50053] compute buffer size =    27.02 MiB
0.01.379.330 I sched_reserve:        CPU compute buffer size =    13.02 MiB
"""

B10434_DRAFT = (
    B10434_TWO_GPUS.replace("35.82", "3.50").replace("199.34", "19.50").replace("offloaded 19", "offloaded 7")
)
"""Printed after the lines of the model itself."""

B11669 = """\
0.01.194.338 I load_tensors: loading model tensors, this can take a while... (load_mode = mmap)
0.01.531.290 I load_tensors:   CPU_Mapped model buffer size =   170.11 MiB
0.01.531.317 I load_tensors:   CPU_Mapped model buffer size =     3.46 MiB
0.01.531.318 I load_tensors:   CPU_Mapped model buffer size =     0.54 MiB
0.01.531.367 I load_tensors:   CPU_REPACK model buffer size =    12.66 MiB
0.01.587.798 I llama_context: constructing llama_context
0.01.588.160 I llama_context:        CPU  output buffer size =     1.00 MiB
0.01.588.295 I llama_kv_cache:        CPU KV buffer size =    12.00 MiB
0.01.595.075 I llama_kv_cache:        CPU KV buffer size =    15.00 MiB
0.01.606.335 I sched_reserve:        CPU compute buffer size =    23.28 MiB
0.01.841.300 I srv  update_slots: all slots are idle
"""
B11669_HOST = DeviceMemory(
    weights=mib(170.11) + mib(3.46) + mib(0.54) + mib(12.66), kv_cache=mib(27), compute=mib(23.28), output=mib(1)
)

B11669_DRY = """\
0.00.459.015 I load_tensors:          CPU model buffer size =     0.00 MiB
0.00.459.016 I load_tensors:   CPU_REPACK model buffer size =     0.00 MiB
0.00.460.139 I llama_context: constructing llama_context
0.00.460.196 I llama_context:        CPU  output buffer size =     1.00 MiB
0.00.460.252 I llama_kv_cache:        CPU KV buffer size =     0.00 MiB
0.00.463.229 I sched_reserve:        CPU compute buffer size =    23.28 MiB
"""
"""What --fit prints with -v before the model is loaded."""

B11669_ADAPTER = "\n".join(
    f"\x1b[34m0.01.2{number}.774\x1b[0m \x1b[32mI \x1b[0m{line}"
    for number, line in enumerate(
        [
            "load_tensors:   CPU_Mapped model buffer size =   170.11 MiB",
            "llama_adapter_lora_init_impl: CPU_Mapped LoRA buffer size =     0.37 MiB",
            "llama_adapter_lora_init_impl:        CPU LoRA buffer size =     0.37 MiB",
            "llama_context:        CPU  output buffer size =     4.00 MiB",
            "llama_kv_cache:        CPU KV buffer size =     6.00 MiB",
            "sched_reserve:        CPU compute buffer size =    22.28 MiB",
            "sched_reserve:        CPU compute buffer size =    22.29 MiB",
        ]
    )
)
"""With colours; the second compute buffer replaces the first, since the adapter is set."""

B11669_JSON = """\
{"type":"log","time":1023583,"level":"info","msg":"load_tensors:   CPU_Mapped model buffer size =   170.11 MiB\\n"}
{"type":"log","time":1048048,"level":"info","msg":"llama_context:        CPU  output buffer size =     4.00 MiB\\n"}
{"type":"log","time":1048173,"level":"info","msg":"llama_kv_cache:        CPU KV buffer size =     6.00 MiB\\n"}
{"type":"log","time":1070125,"level":"info","msg":"sched_reserve:        CPU compute buffer size =    22.28 MiB\\n"}
"""

CUDA = """\
load_tensors: offloaded 49/49 layers to GPU
load_tensors:   CPU_Mapped model buffer size =   166.92 MiB
load_tensors:       CUDA10 model buffer size =  2000.00 MiB
load_tensors:        CUDA9 model buffer size =  1000.00 MiB
llama_context:  CUDA_Host  output buffer size =     0.49 MiB
llama_kv_cache:       CUDA9 KV buffer size =   192.00 MiB
llama_memory_recurrent:      CUDA10 RS buffer size =    50.25 MiB
llama_kv_cache_dsv4:      CUDA10 DSV4 csa state buffer size =     1.25 MiB
sched_reserve:       CUDA9 compute buffer size =   300.75 MiB
sched_reserve:      CUDA10 compute buffer size =   172.02 MiB
sched_reserve:  CUDA_Host compute buffer size =    40.01 MiB
reserve_compute_meta:      CUDA9 compute buffer size =    99.00 MiB
reserve_compute_meta:      CUDA9 compute buffer size =   188.30 MiB
reserve_compute_meta:        CPU compute buffer size =     2.00 MiB
"""
"""Lines of the shapes that public logs of CUDA servers have, put together."""


def test_older_servers_name_what_each_buffer_takes() -> None:
    host = DeviceMemory(weights=mib(247.82), kv_cache=mib(27), compute=mib(22.77), output=mib(1))
    assert measured(B10092) == Measured(gpus=(), host=host, gpu_layers=19, layers=19)


def test_a_file_that_is_mapped_in_pieces_is_summed() -> None:
    assert measured(B11669) == Measured(gpus=(), host=B11669_HOST)


def test_each_gpu_has_what_lies_on_it() -> None:
    assert measured(B10434_TWO_GPUS) == Measured(
        gpus=(
            MeasuredGpu(
                name="RPC0[127.0.0.1:50052]",
                memory=DeviceMemory(weights=mib(35.82), kv_cache=mib(30.5), compute=mib(27.02)),
            ),
            MeasuredGpu(
                name="RPC0[127.0.0.1:50053]",
                memory=DeviceMemory(weights=mib(199.34), kv_cache=mib(31), compute=mib(27.02)),
            ),
        ),
        host=DeviceMemory(weights=mib(170), compute=mib(13.02), output=mib(4)),
        gpu_layers=19,
        layers=19,
    )


def test_a_draft_model_is_added_and_the_layers_are_those_of_the_model() -> None:
    found = measured(B10434_TWO_GPUS + B10434_DRAFT)
    assert found is not None
    assert found.gpus[0].memory == DeviceMemory(weights=mib(35.82) + mib(3.5), kv_cache=mib(61), compute=2 * mib(27.02))
    assert found.host == DeviceMemory(weights=mib(340), compute=2 * mib(13.02), output=mib(8))
    assert found.gpu_layers == 19


def test_a_second_context_of_the_same_model_is_added() -> None:
    again = B11669[B11669.index("0.01.587.798") :]
    found = measured(B11669.replace("0.01.841.300 I srv  update_slots: all slots are idle\n", "") + again)
    assert found is not None
    assert (found.host.compute, found.host.kv_cache) == (2 * mib(23.28), mib(54))
    assert found.host.weights == B11669_HOST.weights


def test_loads_that_only_measure_do_not_count() -> None:
    assert measured(B11669_DRY + B11669_DRY + B11669) == measured(B11669)
    assert measured(B11669_DRY) is None


def test_compute_buffers_that_are_sized_again_count_once() -> None:
    found = measured(B11669_ADAPTER)
    assert found is not None
    assert found.host == DeviceMemory(
        weights=mib(170.11), adapters=2 * mib(0.37), output=mib(4), kv_cache=mib(6), compute=mib(22.29)
    )


def test_json_lines_are_read() -> None:
    found = measured(B11669_JSON)
    assert found is not None
    assert found.host == DeviceMemory(weights=mib(170.11), output=mib(4), kv_cache=mib(6), compute=mib(22.28))


def test_cuda_buffers_go_to_their_gpu_and_pinned_memory_to_the_host() -> None:
    found = measured(CUDA)
    assert found is not None
    assert [gpu.name for gpu in found.gpus] == ["CUDA9", "CUDA10"]
    assert found.gpus[0].memory == DeviceMemory(
        weights=mib(1000), kv_cache=mib(192), compute=mib(300.75), projector=mib(188.3)
    )
    assert found.gpus[1].memory == DeviceMemory(weights=mib(2000), recurrent_state=mib(51.5), compute=mib(172.02))
    assert found.host == DeviceMemory(weights=mib(166.92), output=mib(0.49), compute=mib(40.01), projector=mib(2))
    assert (found.gpu_layers, found.layers) == (49, 49)


@pytest.mark.parametrize(
    ("buffer", "device"),
    [
        ("CUDA0", "CUDA0"),
        ("ROCm1", "ROCm1"),
        ("Vulkan0", "Vulkan0"),
        ("SYCL0", "SYCL0"),
        ("MTL0_Mapped", "MTL0"),
        ("MTL0_Private", "MTL0"),
        ("CUDA_Split", "CUDA_Split"),
        ("Meta(CUDA0,CUDA1)", "Meta(CUDA0,CUDA1)"),
        ("Meta()", "Meta()"),
        ("CPU", None),
        ("CPU_Mapped", None),
        ("CPU_REPACK", None),
        ("AMX", None),
        ("Vulkan_Host", None),
        ("ROCm_Host", None),
    ],
)
def test_a_buffer_belongs_to_a_gpu_or_to_the_host(buffer: str, device: str | None) -> None:
    log = f"load_tensors: {buffer:>12} model buffer size = 5.00 MiB\nsched_reserve: CPU compute buffer size = 1.00 MiB"
    assert list(gpus(log)) == ([device] if device else [])


@pytest.mark.parametrize(
    "log",
    [
        pytest.param("", id="nothing"),
        pytest.param("0.00.004.985 I srv    load_model: loading model '/models/a.gguf'\n" * 5, id="default verbosity"),
        pytest.param(B11669[: B11669.index("0.01.606")], id="cut before the compute buffer"),
        pytest.param(B11669[B11669.index("0.01.587") :], id="the start was rotated away"),
        pytest.param(B10434_TWO_GPUS + B10434_DRAFT[:250], id="cut in the draft model"),
        pytest.param(B11669.replace(" = ", " is "), id="other words"),
    ],
)
def test_a_log_that_does_not_tell_all_tells_nothing(log: str) -> None:
    assert measured(log) is None


def test_what_comes_after_it_is_ready_does_not_count() -> None:
    assert measured(B11669 + B10434_TWO_GPUS) == measured(B11669)


@pytest.mark.parametrize(
    "line",
    [
        "0.01.981.407 D ~llama_context: CPU compute buffer size is  21.2774 MiB, matches expectation of  21.2774 MiB",
        "prompt: CUDA0 model buffer size = 99999.00 MiB, said somebody",
        "0.00.000.001 I tell me why llama_kv_cache: CUDA0 KV buffer size = 1.00 MiB",
        "load_tensors: CUDA0 model buffer size = 12345678901.00 MiB",
        "load_tensors: CUDA0 model buffer size = nan MiB",
        "load_tensors: offloaded 99999999999/1 layers to GPU",
    ],
)
def test_lines_that_only_look_like_it_are_passed_over(line: str) -> None:
    lines = B11669.splitlines()
    assert measured("\n".join([*lines[:-2], line, *lines[-2:]])) == measured(B11669)


def test_more_gpus_than_there_can_be_are_not_believed() -> None:
    lines = [f"load_tensors: CUDA{number} model buffer size = 1.00 MiB" for number in range(1000)]
    assert measured("\n".join([*lines, "sched_reserve: CPU compute buffer size = 1.00 MiB"])) is None


_PIECES = st.sampled_from(
    [*B10092.splitlines(), *B10434_TWO_GPUS.splitlines(), *B11669_DRY.splitlines(), *CUDA.splitlines()]
)


@given(st.lists(_PIECES | st.text(max_size=200), max_size=40))
def test_any_lines_in_any_order_give_an_answer(lines: list[str]) -> None:
    found = measured_buffers(lines)
    assert found is None or found.host.total >= 0


@pytest.mark.parametrize(
    ("words", "env", "build", "expected"),
    [
        pytest.param([], {}, 11669, False, id="default"),
        pytest.param([], {}, 9093, True, id="builds that tell it by default"),
        pytest.param([], {}, None, True, id="an unknown build may tell it"),
        pytest.param(["-lv", "4"], {}, 11669, True, id="-lv 4"),
        pytest.param(["--log_verbosity", "5"], {}, 11669, True, id="another spelling"),
        pytest.param(["-lv", "3"], {}, 11669, False, id="-lv 3"),
        pytest.param(["-lv", "1"], {}, 9093, False, id="an older build told to be quiet"),
        pytest.param(["--log-verbose"], {}, 11669, True, id="all messages"),
        pytest.param(["-v", "-lv", "2"], {}, 11669, False, id="the last one counts"),
        pytest.param(["--verbosity", "2", "-v"], {}, 11669, True, id="the last one counts, the other way round"),
        pytest.param(["-lv"], {}, 11669, False, id="a value is missing"),
        pytest.param(["-lv", "many"], {}, 11669, False, id="no number"),
        pytest.param([], {"LLAMA_ARG_LOG_VERBOSITY": "4"}, 11669, True, id="a variable"),
        pytest.param(["-lv", "3"], {"LLAMA_ARG_LOG_VERBOSITY": "4"}, 11669, False, id="a word beats a variable"),
    ],
)
def test_whether_a_log_is_worth_reading(
    words: list[str], env: dict[str, str], build: int | None, expected: bool
) -> None:
    variables = [{"name": name, "value": value} for name, value in env.items()]
    assert tells_buffers(words, env=variables, build=build) is expected


async def test_the_log_of_a_pod_is_read_from_its_start_whatever_bytes_it_has(cluster: FakeCluster) -> None:
    cluster.logs["gemma-0"] = b"\xff\xfe\x00 prompt\n" + B11669.encode() + b"\xc3" * 3_000_000
    assert (await read_load_log(cluster, "demo", "gemma-0")).measured == measured(B11669)
