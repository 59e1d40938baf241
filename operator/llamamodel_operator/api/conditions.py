"""Condition types and reasons, all in one place, and how a condition changes over time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from llamamodel_operator.api.base import ApiModel

__all__ = ["Condition", "ConditionStatus", "ConditionType", "Reason", "carry_transition_times"]


class ConditionType(StrEnum):
    """What is said about a LlamaModel, in the order in which it becomes true."""

    ACCEPTED = "Accepted"
    """The spec is valid and every object made from it was accepted by the API server."""
    INSPECTED = "Inspected"
    """The headers of the model's files were read, and they fit together."""
    MEMORY_FITS = "MemoryFits"
    """What the model takes, as estimated, fits the GPUs of a node that it may run on."""
    AVAILABLE = "Available"
    """At least one pod answers through the Service, possibly one of an earlier spec."""
    PROGRESSING = "Progressing"
    """Something is under way: pods are being scheduled, pulled, loaded or replaced."""
    OFFLOADED = "Offloaded"
    """The servers have the GPUs that were asked for, by what their own logs say."""
    READY = "Ready"
    """The spec of this generation is served by as many pods as it asks for."""


class ConditionStatus(StrEnum):
    """The three values that Kubernetes gives a condition."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class Reason(StrEnum):
    """Why a condition has its status. One word each, for people and for machines."""

    # all is well
    ACCEPTED = "Accepted"
    READY = "Ready"
    PODS_AVAILABLE = "PodsAvailable"
    ROLLOUT_COMPLETE = "RolloutComplete"
    # asked to stop
    SUSPENDED = "Suspended"
    SCALED_TO_ZERO = "ScaledToZero"
    # under way
    STARTING = "Starting"
    LOADING = "Loading"
    ROLLING_OUT = "RollingOut"
    VERIFYING = "Verifying"
    # refused
    INVALID_SPEC = "InvalidSpec"
    HELD_BACK = "HeldBack"
    NOT_OURS = "NotOurs"
    OBJECT_REFUSED = "ObjectRefused"
    QUOTA_EXCEEDED = "QuotaExceeded"
    FORBIDDEN = "Forbidden"
    # the files
    INSPECTED = "Inspected"
    INSPECTING = "Inspecting"
    INSPECTION_OFF = "InspectionOff"
    INSPECTION_UNAVAILABLE = "InspectionUnavailable"
    MODEL_FILE_NOT_FOUND = "ModelFileNotFound"
    MODEL_FILE_CHANGED = "ModelFileChanged"
    MODEL_TRUNCATED = "ModelTruncated"
    NOT_GGUF = "NotGGUF"
    UNSUPPORTED_VERSION = "UnsupportedVersion"
    INVALID_HEADER = "InvalidHeader"
    MODEL_CORRUPT = "ModelCorrupt"
    UNSUPPORTED_ARCHITECTURE = "UnsupportedArchitecture"
    UNSUPPORTED_QUANTIZATION = "UnsupportedQuantization"
    PART_MISSING = "PartMissing"
    PART_MISMATCH = "PartMismatch"
    ADAPTER_INCOMPATIBLE = "AdapterIncompatible"
    PROJECTOR_INCOMPATIBLE = "ProjectorIncompatible"
    DRAFT_INCOMPATIBLE = "DraftIncompatible"
    PERMISSION_DENIED = "PermissionDenied"
    CHECKSUM_MISMATCH = "ChecksumMismatch"
    # memory
    MEMORY_FITS = "MemoryFits"
    MEMORY_TOO_SMALL = "MemoryTooSmall"
    NO_GPU_ASKED_FOR = "NoGpuAskedFor"
    NOT_ESTIMATED = "NotEstimated"
    NODES_NOT_VISIBLE = "NodesNotVisible"
    NO_NODE_YET = "NoNodeYet"
    GPU_MEMORY_UNKNOWN = "GpuMemoryUnknown"
    GPU_SHARED = "GpuShared"
    # cannot start
    CLAIM_NOT_FOUND = "ClaimNotFound"
    CLAIM_PENDING = "ClaimPending"
    CLAIM_LOST = "ClaimLost"
    CLAIM_TERMINATING = "ClaimTerminating"
    UNSCHEDULABLE = "Unschedulable"
    VOLUME_MOUNT_FAILED = "VolumeMountFailed"
    MULTI_ATTACH = "MultiAttach"
    POD_SECURITY_VIOLATION = "PodSecurityViolation"
    ADMISSION_DENIED = "AdmissionDenied"
    POD_CREATION_FAILED = "PodCreationFailed"
    IMAGE_NOT_FOUND = "ImageNotFound"
    IMAGE_PULL_DENIED = "ImagePullDenied"
    IMAGE_PULL_FAILED = "ImagePullFailed"
    CONTAINER_CONFIG_ERROR = "ContainerConfigError"
    API_KEYS_NOT_FOUND = "ApiKeysNotFound"
    API_KEYS_UNUSABLE = "ApiKeysUnusable"
    # the server ends
    INVALID_ARGUMENT = "InvalidArgument"
    INVALID_GRAMMAR = "InvalidGrammar"
    INVALID_CHAT_TEMPLATE = "InvalidChatTemplate"
    OUT_OF_GPU_MEMORY = "OutOfGPUMemory"
    OUT_OF_MEMORY = "OutOfMemory"
    GPU_DRIVER_MISMATCH = "GPUDriverMismatch"
    ILLEGAL_INSTRUCTION = "IllegalInstruction"
    PORT_IN_USE = "PortInUse"
    STARTUP_TIMEOUT = "StartupTimeout"
    CRASH_LOOP = "CrashLoop"
    # nothing gets further
    PROGRESS_DEADLINE_EXCEEDED = "ProgressDeadlineExceeded"
    POD_NOT_READY = "PodNotReady"
    NOT_ANSWERING = "NotAnswering"
    API_KEY_NOT_REQUIRED = "ApiKeyNotRequired"
    RUNS_ON_CPU = "RunsOnCPU"
    # of the condition Offloaded
    ON_GPU = "OnGPU"
    OFFLOAD_UNKNOWN = "OffloadUnknown"
    # no pod answers
    NO_POD_AVAILABLE = "NoPodAvailable"


_LONGEST_MESSAGE = 4096
"""Longer ones, such as an admission webhook's, are cut: a status is read by people and stays small."""


class Condition(ApiModel):
    """One observation of a LlamaModel, in the form of `metav1.Condition`."""

    type: Annotated[str, Field(min_length=1, max_length=316)]
    """What is observed: Accepted, Inspected, MemoryFits, Available, Progressing or Ready."""
    status: ConditionStatus
    """True, False or Unknown."""
    reason: Annotated[str, Field(min_length=1, max_length=1024)]
    """Why, in one CamelCase word that programs may rely on."""
    message: Annotated[str, BeforeValidator(lambda text: text[:_LONGEST_MESSAGE]), Field(max_length=32768)]
    """Why, in a sentence for people: what was found and what to do."""
    last_transition_time: Annotated[str, Field(json_schema_extra={"format": "date-time"})]
    """When the status last changed from one value to another."""
    observed_generation: Annotated[int, Field(ge=0, json_schema_extra={"format": "int64"})]
    """The metadata.generation of the LlamaModel that this was observed for."""


def carry_transition_times(
    conditions: Iterable[Condition], *, before: Iterable[Mapping[str, Any]]
) -> tuple[Condition, ...]:
    """The conditions, each keeping the time of its last transition where its status is what it was before."""
    known = {old.get("type"): old for old in before}
    return tuple(
        condition.model_copy(update={"last_transition_time": old["lastTransitionTime"]})
        if (old := known.get(condition.type)) and old.get("status") == condition.status and "lastTransitionTime" in old
        else condition
        for condition in conditions
    )
