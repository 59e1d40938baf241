"""Findings: what checks have to say about a LlamaModel before anything runs. Each has a stable code."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import BeforeValidator, Field

from llamamodel_operator.api.base import ApiModel

__all__ = ["Finding", "FindingCode", "Severity", "sentence"]


class Severity(StrEnum):
    """How much a finding weighs."""

    ERROR = "error"
    """It cannot work. The admission webhook refuses the object, the reconciler leaves what runs as it is."""
    WARNING = "warning"
    """It may not do what was meant. It is passed on as it is."""
    INFO = "info"
    """Worth knowing."""


class FindingCode(StrEnum):
    """What was found. One word each, stable, for people and for machines; the reference lists them all."""

    # the fields
    INVALID_FIELD = "InvalidField"
    """A field is missing, or its value is none that it can have."""
    UNKNOWN_FIELD = "UnknownField"
    """A field that LlamaModels do not have."""
    # the build of llama.cpp
    BUILD_UNKNOWN = "BuildUnknown"
    """Neither the image's tag nor `engine.build` nor a running server says which build will run; the newest
    catalogue is used."""
    BUILD_MISMATCH = "BuildMismatch"
    """The image's tag, `engine.build` and what the running server says of itself do not agree."""
    FIELD_UNSUPPORTED = "FieldUnsupported"
    """This build has no flag for what the field asks for, or the flag does nothing; it is left out."""
    # arguments
    UNKNOWN_FLAG = "UnknownFlag"
    """A flag that no catalogue has. It is passed on; with an exact catalogue it is known that the server refuses
    it and will not start."""
    FLAG_OF_OTHER_BUILD = "FlagOfOtherBuild"
    """A flag that the catalogue lacks and a neighbouring build has. It is passed on."""
    REMOVED_FLAG = "RemovedFlag"
    """A flag that the build has no more, with its replacement."""
    DEPRECATED_FLAG = "DeprecatedFlag"
    """A flag that still works in this build and will not for ever."""
    FLAG_WITHOUT_EFFECT = "FlagWithoutEffect"
    """A flag that the build takes and ignores."""
    INVALID_FLAG_VALUE = "InvalidFlagValue"
    """A value of the wrong type, or none of those that the flag allows."""
    WRONG_ARITY = "WrongArity"
    """A value is missing, or one is left over."""
    MANAGED_FLAG = "ManagedFlag"
    """A flag, or its environment variable, that the operator sets itself."""
    DUPLICATE_SETTING = "DuplicateSetting"
    """The same setting is given twice: by flag, alias, environment variable or typed field."""
    FORBIDDEN_FLAG = "ForbiddenFlag"
    """A flag that reads or writes files outside the mounts, opens ports, changes security, or makes the server end
    at once."""
    CONFLICTING_SETTINGS = "ConflictingSettings"
    """Settings that llama-server refuses together, or handles otherwise than one would think."""
    PLAIN_SECRET = "PlainSecret"  # noqa: S105 (the name of a finding)
    """A secret stands in the manifest in plain text. It is masked wherever it is shown."""
    # texts
    INVALID_GRAMMAR = "InvalidGrammar"
    """The grammar is no GBNF: line, column and what was expected."""
    INVALID_JSON_SCHEMA = "InvalidJsonSchema"
    """The text is no JSON Schema."""
    INVALID_CHAT_TEMPLATE = "InvalidChatTemplate"
    """The template is no Jinja, or cannot render a conversation."""
    UNKNOWN_PRESET = "UnknownPreset"
    """The build has no built-in chat template of that name; llama-server would take the name as a template."""
    TOOLS_UNDER_GRAMMAR = "ToolsUnderGrammar"
    """A grammar for the whole server: tool calls cannot work under it."""
    NO_TOOLS_UNDER_PRESET = "NoToolsUnderPreset"
    """A built-in chat template that llama-server renders without Jinja: it answers requests with tools by an error."""
    SYSTEM_PROMPT_IN_USER_MESSAGE = "SystemPromptInUserMessage"
    """The template knows no system message: the system prompt goes into the first user message instead."""
    SYSTEM_PROMPT_UNUSED = "SystemPromptUnused"
    """The system prompt cannot be put in place here; requests must bring it themselves."""
    TEXT_NOT_SEEN = "TextNotSeen"
    """The text lies where this check cannot look (a ConfigMap, a file on a volume); the operator checks it."""
    TEXT_MISSING = "TextMissing"
    """The ConfigMap that is referred to, or its key, does not exist."""
    # running servers
    SERVER_NOT_REACHED = "ServerNotReached"
    """The kubelet calls a pod ready, and the operator cannot ask its server: a network policy, a mesh, an API key. What
    only the server knows stays unknown. A server that is only slow to answer is waited for."""
    NO_DISRUPTION_BUDGET = "NoDisruptionBudget"
    """The PodDisruptionBudget could not be made; the model serves all the same."""
    # names
    NAME_TAKEN = "NameTaken"
    """Another LlamaModel has this served name at the gateway, or one of another namespace had it: this one answers
    there to `namespace/name` alone."""
    # volumes
    CLAIM_TIES_TO_NODE = "ClaimTiesToNode"
    """The volume can be mounted on one node at a time: all pods of the model run on that node."""
    CLAIM_FOR_ONE_POD = "ClaimForOnePod"
    """The volume can be mounted by one pod at a time, and more pods are asked for."""
    # memory
    MEMORY_TOO_SMALL = "MemoryTooSmall"
    """What the model takes, as estimated, is more than the GPUs of any node that it may run on have, or more than the
    memory limit."""
    GPU_SHARED = "GpuShared"
    """Pods share a GPU by turns: how much of its memory one gets nobody knows beforehand."""
    ESTIMATE_UNCERTAIN = "EstimateUncertain"
    """Not everything that takes memory could be counted: the estimate may be wrong."""


class Finding(ApiModel):
    """One thing that a check has to say."""

    severity: Severity
    """error, warning or info."""
    code: FindingCode
    """What was found, in one CamelCase word that programs may rely on."""
    field: Annotated[str, BeforeValidator(lambda text: text[:1024]), Field(max_length=1024)]
    """Path of the field, such as spec.extraArgs[2]."""
    message: Annotated[str, BeforeValidator(lambda text: text[:2048]), Field(max_length=4096)]
    """What was found and what was expected."""
    suggestion: Annotated[str, BeforeValidator(lambda text: text[:1024]), Field(max_length=1024)] | None = None
    """What to do."""


def sentence(finding: Finding) -> str:
    """A finding in one sentence: where, what, and what to do."""
    advice = f"; {finding.suggestion}" if finding.suggestion else ""
    return f"{finding.field}: {finding.message}{advice}"
