"""How each reason for a failure is made to happen: for real in tests/e2e/test_failures.py, or as it was recorded."""

from __future__ import annotations

from collections.abc import Mapping

from llamamodel_operator.api.conditions import Reason

__all__ = ["PROVOKED", "RECORDED"]

PROVOKED: Mapping[Reason, str] = {
    Reason.CLAIM_NOT_FOUND: "a claim that does not exist",
    Reason.CLAIM_PENDING: "a claim that no volume fits",
    Reason.MODEL_FILE_NOT_FOUND: "a path that does not exist",
    Reason.NOT_GGUF: "a zip file named .gguf",
    Reason.MODEL_TRUNCATED: "a file that was cut short",
    Reason.PART_MISSING: "a part that was deleted",
    Reason.INVALID_HEADER: "an adapter with wrong bits in its header",
    Reason.UNSUPPORTED_VERSION: "a file of version 9 of GGUF",
    Reason.UNSUPPORTED_ARCHITECTURE: "a header with an architecture that nobody knows",
    Reason.MODEL_CORRUPT: "a block scale set to NaN, tensors checked",
    Reason.ADAPTER_INCOMPATIBLE: "an adapter of a model with more layers",
    Reason.PROJECTOR_INCOMPATIBLE: "a projector for a wider model",
    Reason.PERMISSION_DENIED: "a file that only root may read",
    Reason.CHECKSUM_MISMATCH: "another sha256",
    Reason.INVALID_ARGUMENT: "an argument that the server does not know",
    Reason.INVALID_GRAMMAR: "a file with a grammar that is none",
    Reason.INVALID_CHAT_TEMPLATE: "a file with a template that is none",
    Reason.OUT_OF_MEMORY: "a memory limit of 24Mi",
    Reason.STARTUP_TIMEOUT: "one second, and a tenth of a core",
    Reason.UNSCHEDULABLE: "more GPUs than any node has; a label that none has",
    Reason.IMAGE_NOT_FOUND: "an image that is not on the node, never pulled",
    Reason.IMAGE_PULL_FAILED: "an image of a registry that cannot be reached",
    Reason.CONTAINER_CONFIG_ERROR: "a Secret that does not exist, in a variable",
    Reason.VOLUME_MOUNT_FAILED: "a volume whose folder is not on the node",
    Reason.QUOTA_EXCEEDED: "a quota of no pods",
    Reason.POD_SECURITY_VIOLATION: "a pod that runs as root, in a restricted namespace",
    Reason.ADMISSION_DENIED: "a ValidatingAdmissionPolicy that refuses the Deployment",
    Reason.NOT_OURS: "a Service of that name that is somebody else's",
    Reason.INVALID_SPEC: "an argument that the operator sets itself",
    Reason.NOT_ANSWERING: "embeddings of a model that pools nothing",
    Reason.RUNS_ON_CPU: "a GPU that is none, and requireOffload",
}

RECORDED: Mapping[Reason, str] = {
    Reason.OUT_OF_GPU_MEMORY: "lines of CUDA, ROCm and Vulkan back ends; no GPU was at hand",
    Reason.GPU_DRIVER_MISMATCH: "lines of CUDA and ROCm back ends; no GPU was at hand",
    Reason.ILLEGAL_INSTRUCTION: "exit code 132; on some machines b10092 and b10434 end so",
    Reason.PORT_IN_USE: "provoked on the real server, not in a pod, where nobody else listens",
    Reason.UNSUPPORTED_QUANTIZATION: "provoked on the real server; an inspection finds it first",
    Reason.MULTI_ATTACH: "an event of the attach and detach controller; the volumes here are folders",
    Reason.IMAGE_PULL_DENIED: "answers of registries; none is at hand",
    Reason.DRAFT_INCOMPATIBLE: "headers of two vocabularies; b11669 takes any draft model",
    Reason.CRASH_LOOP: "logs that tell nothing",
}
