"""The lines by which a llama-server, or what starts it, tells why it ended: one table, and what to do about each.

A pattern is matched at the beginning of a line, after its time, level, colours and the names of up to three functions;
so text that a user sent can hardly be taken for one. `where` is the function that prints it. `builds` are those that
printed such a line when they were made to fail (tests/server/test_failures.py does it again); without builds the line
is known from llama.cpp's sources or from the report that `where` names.

A server that ends at once may do so before all of its log is written: in three or four of about 190 starts of b10068 to
b10434 on a busy machine the telling lines were missing. The next start tells.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from llamamodel_operator.api.conditions import Reason

__all__ = ["REMEDIES", "TELLING_LINES", "TellingLine"]

_ALL = (10068, 10092, 10434, 11669)
_LOAD = "error loading model: "


@dataclass(frozen=True, kw_only=True)
class TellingLine:
    """A line that names a cause.

    Attributes:
        pattern: regular expression without named groups.
        cause: what it means; `{field}` is the field of the spec that names the file.
        where: function or file that prints it, or who reported it.
        example: a whole line.
        builds: that printed the example; empty where it was not provoked.
        weak: it follows from an earlier cause or goes without harm, and counts only where no other line tells more.
            Among weak ones the first of the table counts, among others the last of the log.
    """

    reason: Reason
    pattern: str
    cause: str
    where: str
    example: str
    builds: tuple[int, ...] = ()
    weak: bool = False


REMEDIES: Mapping[Reason, str] = {
    Reason.MODEL_FILE_NOT_FOUND: "correct {field}.path, or copy the file there",
    Reason.PERMISSION_DENIED: "let the pod's user read the file: spec.podSecurityContext (runAsUser, fsGroup,"
    " supplementalGroups), or the file's mode",
    Reason.NOT_GGUF: "name a GGUF file in {field}.path; a git-lfs pointer has to be fetched first",
    Reason.UNSUPPORTED_VERSION: "use an image with a newer llama.cpp (spec.image), or convert the model again",
    Reason.MODEL_TRUNCATED: "copy the file again, or wait until the copy is finished",
    Reason.INVALID_HEADER: "copy the file again; if it stays, convert the model again",
    Reason.MODEL_CORRUPT: "copy the file again, and name its sha256 in {field}; a model that is newer than the image"
    " needs"
    " a newer spec.image",
    Reason.PART_MISSING: "copy all parts into the folder of the first",
    Reason.PART_MISMATCH: "name the first part, …-00001-of-….gguf, and leave the names of all parts as they were made",
    Reason.UNSUPPORTED_ARCHITECTURE: "use an image with a newer llama.cpp (spec.image), or another model",
    Reason.UNSUPPORTED_QUANTIZATION: "use an image with a newer llama.cpp (spec.image), or a quantization that this one"
    " knows",
    Reason.ADAPTER_INCOMPATIBLE: "use the model that the adapter was made for, or take it out of spec.loraAdapters",
    Reason.PROJECTOR_INCOMPATIBLE: "use the projector that comes with the model in spec.projector",
    Reason.DRAFT_INCOMPATIBLE: "use a draft model of the same family in spec.speculative.draftModel",
    Reason.OUT_OF_GPU_MEMORY: "lower spec.engine.contextSize, parallelSlots or microBatchSize, offload fewer layers"
    " (gpuLayers), take a smaller quantization, or more GPUs (spec.gpu)",
    Reason.OUT_OF_MEMORY: "lower spec.engine.contextSize or parallelSlots, or raise spec.resources.limits.memory",
    Reason.GPU_DRIVER_MISMATCH: "use an image that fits the node's driver and GPU (spec.image), or a node with a newer"
    " driver (spec.nodeSelector)",
    Reason.INVALID_ARGUMENT: "correct the field or the word of spec.extraArgs that it comes from; `llamamodel validate`"
    " checks arguments beforehand",
    Reason.INVALID_GRAMMAR: "correct spec.grammar",
    Reason.INVALID_CHAT_TEMPLATE: "correct spec.chatTemplate",
    Reason.PORT_IN_USE: "free the port: another container of the pod has it, or, where something gives the pod the"
    " node's"
    " network, another program; with TLS in spec.extraArgs, check that its files can be read",
    Reason.ILLEGAL_INSTRUCTION: "use an image that is built for the node's CPU (spec.image), or other nodes"
    " (spec.nodeSelector)",
}
"""What to do, by reason."""


def _line(
    reason: Reason, pattern: str, cause: str, where: str, example: str, *builds: int, weak: bool = False
) -> TellingLine:
    return TellingLine(
        reason=reason, pattern=pattern, cause=cause, where=where, example=example, builds=builds, weak=weak
    )


_FILES = (
    _line(
        Reason.PART_MISSING,
        r"failed to open GGUF file '.*-(?!00001-)\d{5}-of-\d{5}\.gguf' \(No such file or directory\)",
        "a part of the model that {field} names is not beside the first one",
        "ggml/src/gguf.cpp gguf_init_from_file",
        "0.00.029.598 E gguf_init_from_file: failed to open GGUF file '/models/m/x-00002-of-00002.gguf'"
        " (No such file or directory)",
        *_ALL,
    ),
    _line(
        Reason.MODEL_FILE_NOT_FOUND,
        r"failed to open (GGUF file )?'.*'( \(|: )No such file or directory",
        "{field} names a file that is not there",
        "ggml/src/gguf.cpp gguf_init_from_file; src/llama-adapter.cpp llama_adapter_lora_init",
        "0.00.029.180 E gguf_init_from_file: failed to open GGUF file '/models/m/x.gguf' (No such file or directory)",
        *_ALL,
    ),
    _line(
        Reason.PERMISSION_DENIED,
        r"failed to open (GGUF file )?'.*'( \(|: )Permission denied",
        "the pod's user may not read the file that {field} names",
        "ggml/src/gguf.cpp gguf_init_from_file; src/llama-adapter.cpp llama_adapter_lora_init",
        "0.00.116.617 E gguf_init_from_file: failed to open GGUF file '/models/m/x.gguf' (Permission denied)",
        *_ALL,
    ),
    _line(
        Reason.MODEL_TRUNCATED,
        r"failed to read magic$",
        "the file that {field} names is empty, or a folder",
        "ggml/src/gguf.cpp gguf_init_from_reader",
        "0.00.053.583 E gguf_init_from_reader: failed to read magic",
        *_ALL,
    ),
    _line(
        Reason.NOT_GGUF,
        r"invalid magic characters: '.*', expected 'GGUF'",
        "the file that {field} names is no GGUF file",
        "ggml/src/gguf.cpp gguf_init_from_reader",
        "0.00.014.821 E gguf_init_from_reader: invalid magic characters: 'PK??', expected 'GGUF'",
        *_ALL,
    ),
    _line(
        Reason.UNSUPPORTED_VERSION,
        r"(this GGUF file is version \d+|GGUFv1 is no longer supported|failed to load model: this GGUF file version)",
        "the file that {field} names is a GGUF of a version or byte order that this build does not load",
        "ggml/src/gguf.cpp gguf_init_from_reader",
        "0.00.022.433 E gguf_init_from_reader: this GGUF file is version 9 but this software only supports up to"
        " version 3",
        *_ALL,
    ),
    _line(
        Reason.MODEL_TRUNCATED,
        rf"({_LOAD}tensor '.*' data is not within the file bounds|.*unexpectedly reached end of file)",
        "the file that {field} names is shorter than its header says",
        "src/llama-model-loader.h llama_tensor_weight; src/llama-mmap.cpp read_raw",
        "0.00.165.187 E llama_model_load: error loading model: tensor 'token_embd.weight' data is not within the file"
        " bounds, model is corrupted or incomplete",
        *_ALL,
    ),
    _line(
        Reason.UNSUPPORTED_QUANTIZATION,
        r"tensor '.*' (has invalid ggml type \d+|of type \d+ \(.*(DEPRECATED|REMOVED))",
        "the file that {field} names stores weights in a way that this build does not know",
        "ggml/src/gguf.cpp gguf_init_from_reader",
        "0.00.213.952 E gguf_init_from_reader: tensor 'blk.0.attn_output.weight' has invalid ggml type 250. should"
        " be in"
        " [0, 43)",
        *_ALL,
    ),
    _line(
        Reason.INVALID_HEADER,
        r"tensor '.*' (has offset \d+, expected \d+|of type \d+ \(.*\) has \d+ elements per row|.*invalid number of"
        r" elements)",
        "the header of the file that {field} names contradicts itself",
        "ggml/src/gguf.cpp gguf_init_from_reader",
        "0.00.146.292 E gguf_init_from_reader: tensor 'blk.0.attn_q.weight' has offset 178745344, expected 180998144",
        *_ALL,
    ),
    _line(
        Reason.PART_MISMATCH,
        rf"{_LOAD}(illegal split file idx|invalid split file (name|idx|count)|corrupted model: \d+ tensors expected)",
        "{field} does not name the first part of a whole model",
        "src/llama-model-loader.cpp llama_model_loader",
        "0.00.014.273 E llama_model_load: error loading model: illegal split file idx: 1 (file:"
        " /models/m/x-00002-of-00002.gguf), model must be loaded with the first split",
        *_ALL,
    ),
    _line(
        Reason.UNSUPPORTED_ARCHITECTURE,
        rf"{_LOAD}(unknown model architecture: '|error loading model vocabulary: unknown (pre-)?tokenizer)",
        "this build of llama.cpp does not know the architecture or the tokenizer of the file that {field} names",
        "src/llama-model.cpp llama_model_load; src/llama-vocab.cpp load",
        "0.00.433.791 E llama_model_load: error loading model: unknown model architecture: 'gemmaX'",
        *_ALL,
    ),
    _line(
        Reason.MODEL_CORRUPT,
        r"tensor '.*' has invalid data",
        "the file that {field} names has weights that are no numbers (found with spec.engine.checkTensors)",
        "src/llama-model-loader.cpp load_all_data",
        "0.02.686.655 E load_all_data: tensor 'blk.0.attn_output.weight' has invalid data",
        *_ALL,
    ),
    _line(
        Reason.MODEL_CORRUPT,
        rf"{_LOAD}(missing tensor '|check_tensor_dims: |wrong number of tensors|error loading model"
        r" (hyperparameters|vocabulary): )",
        "the file that {field} names lacks something that its architecture needs, or has it in another shape",
        "src/llama-model-loader.cpp check_tensor_dims; src/llama-model.cpp llama_model_load",
        "0.01.353.906 E llama_model_load: error loading model: check_tensor_dims: tensor 'blk.3.ffn_down.weight' not"
        " found",
        *_ALL,
    ),
)

_OTHER_FILES = (
    _line(
        Reason.ADAPTER_INCOMPATIBLE,
        r"failed to apply lora adapter: (?!failed to load lora adapter)",
        "the adapter that {field} names was made for another model",
        "src/llama-adapter.cpp llama_adapter_lora_init_impl",
        "0.02.850.135 E llama_adapter_lora_init_from_file_ptr: failed to apply lora adapter: model arch and LoRA arch"
        " mismatch",
        *_ALL,
    ),
    _line(
        Reason.PROJECTOR_INCOMPATIBLE,
        r"(mismatch between text model \(n_embd = \d+\) and mmproj|failed to load model '.*':"
        r" (?!clip_model_loader: failed to load CLIP model))",
        "the projector that {field} names does not go with the model or with this build",
        "tools/mtmd/mtmd.cpp mtmd_context; tools/mtmd/clip.cpp clip_init",
        "0.03.065.992 E clip_init: failed to load model '/models/m/mmproj.gguf': load_hparams: image_mean/image_std"
        " arrays"
        " must have at least 3 elements, got 0 and 0",
        *_ALL,
    ),
    _line(
        Reason.DRAFT_INCOMPATIBLE,
        r"(the target and draft vocabs are not compatible$|.*draft model .* must match target model to use"
        r" speculation)",
        "the vocabulary of the draft model that {field} names is another than the model's",
        "common/speculative.cpp common_speculative_impl_draft_simple",
        "E spec common_specu: the target and draft vocabs are not compatible",
    ),
)

_TEXTS = (
    _line(
        Reason.INVALID_GRAMMAR,
        r'error while handling argument "(--grammar(-file)?|--json-schema(-file)?|-jf?)":',
        "the grammar or the JSON schema cannot be used",
        "common/arg.cpp common_params_parse_ex",
        'error while handling argument "--json-schema": JSON schema conversion failed:',
        *_ALL,
    ),
    _line(
        Reason.INVALID_GRAMMAR,
        r"error parsing grammar: ",
        "the grammar has an error",
        "src/llama-grammar.cpp llama_grammar_parser::parse",
        "parse: error parsing grammar: Undefined rule identifier 'nothere'",
        *_ALL,
    ),
    _line(
        Reason.INVALID_CHAT_TEMPLATE,
        r'(error while handling argument "--chat-template(-file)?":|error: the supplied chat template is not supported'
        r"|common_chat_templates_init: error: |failed to apply template: (?!std::exception))",
        "the chat template cannot be used",
        "common/chat.cpp common_chat_templates_init, common_chat_verify_template",
        "0.00.005.802 E common_chat_templates_init: error: Unexpected token type",
        *_ALL,
    ),
    _line(
        Reason.INVALID_ARGUMENT,
        r"(error: (invalid|unknown) argument: |error while handling (argument|environment variable) \"|error: invalid"
        r" parameter)",
        "this build of llama-server refuses an argument",
        "common/arg.cpp common_params_parse_ex",
        "error: invalid argument: --flash-atten",
        *_ALL,
    ),
    _line(
        Reason.INVALID_ARGUMENT,
        r"(n_batch and n_ubatch cannot both be zero|(quantized )?V cache (quantization )?requires flash_attn|static"
        r" assets"
        r" path not found|the server is built without SSL|failed to initialize the context: (?!failed to allocate))",
        "settings do not go together",
        "src/llama-context.cpp llama_init_from_model; tools/server/server-http.cpp init",
        "0.01.012.816 E llama_init_from_model: quantized V cache requires flash_attn to be enabled",
        *_ALL,
    ),
)

_MACHINE = (
    _line(
        Reason.OUT_OF_GPU_MEMORY,
        r"(allocating [\d.]+ MiB on device \d+: \w+ failed: out of memory"
        r"|failed to allocate (?!CPU|\S+_Host)\S+ buffer of size \d+"
        rf"|{_LOAD}unable to allocate (?!CPU|\S+_Host)\S+ buffer"
        r"|(CUDA|ROCm|MUSA) error: (out of memory|CUBLAS_STATUS_ALLOC_FAILED))",
        "the GPU has not enough memory free for what was asked",
        "ggml/src/ggml-cuda/ggml-cuda.cu ggml_backend_cuda_buffer_type_alloc_buffer, ggml_cuda_error;"
        " ggml/src/ggml-alloc.c"
        " (llama.cpp issue 20431, pull request 26297)",
        "1.06.520.077 E ggml_backend_cuda_buffer_type_alloc_buffer: allocating 51748.72 MiB on device 1: cudaMalloc"
        " failed:"
        " out of memory",
    ),
    _line(
        Reason.OUT_OF_GPU_MEMORY,
        r"(Device memory allocation of size \d+ failed|(?!.*Failed to allocate pinned memory).*ErrorOutOfDeviceMemory"
        r"|.*UR_RESULT_ERROR_OUT_OF_DEVICE_MEMORY)",
        "the GPU has not enough memory free for what was asked",
        "ggml/src/ggml-vulkan/ggml-vulkan.cpp ggml_vk_create_buffer (llama.cpp issue 15256)",
        "ggml_vulkan: Device memory allocation of size 118497280 failed.",
    ),
    _line(
        Reason.OUT_OF_MEMORY,
        rf"(insufficient memory \(attempted to allocate|failed to allocate (CPU\S*|\S+_Host) buffer of"
        rf" size|.*std::bad_alloc"
        rf"|{_LOAD}unable to allocate (CPU\S*|\S+_Host) buffer|{_LOAD}mmap failed: Cannot allocate memory)",
        "the node could not give the host memory that was asked for",
        "ggml/src/ggml.c ggml_aligned_malloc; ggml/src/ggml-alloc.c",
        "0.05.727.403 E ggml_aligned_malloc: insufficient memory (attempted to allocate 117187.50 MB)",
        *_ALL,
    ),
    _line(
        Reason.GPU_DRIVER_MISMATCH,
        r"((CUDA|ROCm|MUSA) error: (no kernel image is available|the provided PTX|invalid device function|device"
        r" kernel image"
        r" is invalid|CUDA driver version|forward compatibility)|rocBLAS error: Cannot read .*TensileLibrary)",
        "the image is not built for this GPU, or its libraries are newer than the node's driver",
        "ggml/src/ggml-cuda/ggml-cuda.cu ggml_cuda_error; rocBLAS (llama.cpp issue 14421)",
        "ROCm error: invalid device function",
    ),
    _line(
        Reason.GPU_DRIVER_MISMATCH,
        r".*(nvidia-container-cli: |error while loading shared libraries:"
        r" lib(cuda|nvidia|amdhip|hsa-runtime|vulkan|ze_loader)"
        r"|ErrorIncompatibleDriver)",
        "the node's GPU driver does not go with the image, or is not there",
        "the dynamic loader; NVIDIA's container runtime",
        "nvidia-container-cli: requirement error: unsatisfied condition: cuda>=12.8, please update your driver to a"
        " newer"
        " version",
    ),
    _line(
        Reason.PORT_IN_USE,
        r"couldn't bind HTTP server socket, hostname: ",
        "the server cannot listen on its port",
        "tools/server/server-http.cpp start",
        "0.00.024.643 E srv         start: couldn't bind HTTP server socket, hostname: 127.0.0.1, port: 36321",
        *_ALL,
    ),
    _line(
        Reason.ILLEGAL_INSTRUCTION,
        r".*exec format error",
        "the image is built for another CPU architecture than the node's",
        "the container runtime, of a program for another machine",
        "exec /app/llama-server: exec format error",
    ),
)

_WEAK = (
    _line(
        Reason.MODEL_CORRUPT,
        rf"{_LOAD}found tensors with invalid data",
        "the file that {field} names has weights that are no numbers (found with spec.engine.checkTensors)",
        "src/llama-model-loader.cpp load_all_data",
        "0.02.822.848 E llama_model_load: error loading model: found tensors with invalid data",
        *_ALL,
        weak=True,
    ),
    _line(
        Reason.GPU_DRIVER_MISMATCH,
        r"failed to initialize (CUDA|ROCm|MUSA): ",
        "the server found no GPU that it can use",
        "ggml/src/ggml-cuda/ggml-cuda.cu ggml_cuda_init",
        "ggml_cuda_init: failed to initialize CUDA: CUDA driver version is insufficient for CUDA runtime version",
        weak=True,
    ),
    _line(
        Reason.INVALID_GRAMMAR,
        r"(what\(\):\s+)?failed to parse grammar",
        "the grammar has an error",
        "common/sampling.cpp common_sampler_init",
        "  what():  failed to parse grammar",
        *_ALL,
        weak=True,
    ),
    _line(
        Reason.MODEL_TRUNCATED,
        r"failed to read (header|key-value pairs)$",
        "the file that {field} names ends within its header",
        "ggml/src/gguf.cpp gguf_init_from_reader",
        "0.00.040.131 E gguf_init_from_reader: failed to read key-value pairs",
        *_ALL,
        weak=True,
    ),
    _line(
        Reason.INVALID_HEADER,
        r"failed to read tensor (info|data)$",
        "the header of the file that {field} names cannot be read",
        "ggml/src/gguf.cpp gguf_init_from_reader",
        "0.00.213.966 E gguf_init_from_reader: failed to read tensor info",
        *_ALL,
        weak=True,
    ),
    _line(
        Reason.ADAPTER_INCOMPATIBLE,
        r"failed to (apply|load) lora adapter",
        "the adapter that {field} names cannot be used",
        "src/llama-adapter.cpp llama_adapter_lora_init; common/common.cpp common_init_from_params",
        "0.03.311.047 E cmn  common_init_: failed to load lora adapter '/models/m/lora.gguf'",
        *_ALL,
        weak=True,
    ),
    _line(
        Reason.PROJECTOR_INCOMPATIBLE,
        r"(error: )?(F|f)ailed to load (CLIP model from|multimodal model)",
        "the projector that {field} names cannot be used",
        "tools/mtmd/mtmd.cpp mtmd_init_from_file",
        "0.03.245.918 E mtmd_init_from_file: error: Failed to load CLIP model from /models/m/mmproj.gguf",
        *_ALL,
        weak=True,
    ),
    _line(
        Reason.DRAFT_INCOMPATIBLE,
        r"failed to load draft model, '",
        "the draft model that {field} names cannot be used",
        "tools/server/server-context.cpp load_model",
        "0.03.336.496 E srv    load_model: failed to load draft model, '/models/m/draft.gguf'",
        *_ALL,
        weak=True,
    ),
)

TELLING_LINES: Sequence[TellingLine] = (*_FILES, *_OTHER_FILES, *_TEXTS, *_MACHINE, *_WEAK)
"""Where one line matches several, the first counts."""
