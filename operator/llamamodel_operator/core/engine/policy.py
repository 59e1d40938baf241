"""Which flags of llama-server reach beyond the pod's own volumes and port, and what the cluster allows of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from llamamodel_operator.core.engine.catalogue import Flag
from llamamodel_operator.core.engine.words import shown

__all__ = ["HARMLESS", "RISKS", "ArgumentPolicy", "Reach", "Risk", "objection", "risk_of"]


@dataclass(frozen=True, kw_only=True)
class ArgumentPolicy:
    """What the cluster's configuration says about arguments.

    Attributes:
        strict: whether a flag that is known to no catalogue is an error rather than a warning.
        allow_unsafe: flags that are allowed although they reach beyond the pod; any spelling.
    """

    strict: bool = False
    allow_unsafe: frozenset[str] = frozenset()


class Reach(StrEnum):
    """How a flag reaches beyond what the operator gave the pod."""

    FILES = "files"
    """Its value names files, separated by commas; each must lie on a volume of the pod or under /tmp."""
    SCALED_FILES = "scaled files"
    """The same, each followed by a colon and a number."""
    NETWORK = "network"
    """It opens a port, changes how the port is served, or connects to other machines."""
    SECURITY = "security"
    """It lets callers do more than ask the model: run programs, read files, use the pod's network."""
    EXIT = "exit"
    """It prints something and ends: the container would be started again for ever. Never allowed."""


@dataclass(frozen=True, kw_only=True)
class Risk:
    """Why a flag is not simply passed on."""

    reach: Reach
    reason: str


def _files(*spellings: str) -> Iterator[tuple[str, Risk]]:
    for spelling in spellings:
        yield spelling, Risk(reach=Reach.FILES, reason="it names files")


def _scaled_files(*spellings: str) -> Iterator[tuple[str, Risk]]:
    for spelling in spellings:
        yield spelling, Risk(reach=Reach.SCALED_FILES, reason="it names files")


def _risky(reach: Reach, reason: str, *spellings: str) -> Iterator[tuple[str, Risk]]:
    for spelling in spellings:
        yield spelling, Risk(reach=reach, reason=reason)


RISKS: Mapping[str, Risk] = dict(
    [
        *_files(
            "--model",
            "--model-draft",
            "--model-vocoder",
            "--mmproj",
            "--lora",
            "--control-vector",
            "--chat-template-file",
            "--grammar-file",
            "--json-schema-file",
            "--lookup-cache-static",
            "--lookup-cache-dynamic",
            "--log-file",
            "--log-prompts-dir",
            "--slot-save-path",
            "--media-path",
            "--path",
            "--api-key-file",
            "--ui-config-file",
            "--webui-config-file",
            "--models-dir",
            "--models-preset",
            "--file",
            "--binary-file",
        ),
        *_scaled_files("--lora-scaled", "--control-vector-scaled"),
        *_risky(
            Reach.NETWORK,
            "it downloads files instead of using spec.model",
            "--model-url",
            "--docker-repo",
            "--hf-repo",
            "--hf-file",
            "--hf-repo-draft",
            "--hf-repo-v",
            "--hf-file-v",
            "--mmproj-url",
            "--embd-bge-small-en-default",
            "--embd-e5-small-en-default",
            "--embd-gte-small-default",
            "--embd-gemma-default",
            "--fim-qwen-1.5b-default",
            "--fim-qwen-3b-default",
            "--fim-qwen-7b-default",
            "--fim-qwen-7b-spec",
            "--fim-qwen-14b-spec",
            "--fim-qwen-30b-default",
            "--gpt-oss-20b-default",
            "--gpt-oss-120b-default",
            "--vision-gemma-4b-default",
            "--vision-gemma-12b-default",
        ),
        *_risky(Reach.NETWORK, "it sends the model's data to other machines, unencrypted", "--rpc"),
        *_risky(Reach.NETWORK, "another process could answer on the model's port", "--reuse-port"),
        *_risky(
            Reach.NETWORK,
            "the probes and the Service speak plain HTTP, so the pod would never become ready",
            "--ssl-key-file",
            "--ssl-cert-file",
        ),
        *_risky(
            Reach.SECURITY,
            "callers of the model could run programs in the pod, or read and write its files",
            "--tools",
            "--tools-runtime",
            "--agent",
            "--mcp-servers-config",
            "--mcp-servers-json",
        ),
        *_risky(
            Reach.SECURITY,
            "callers of the model could send requests from the pod to anywhere it reaches",
            "--ui-mcp-proxy",
            "--webui-mcp-proxy",
        ),
        *_risky(Reach.SECURITY, "it makes the server run programs from a folder", "--video-ffmpeg-dir"),
        *_risky(
            Reach.EXIT,
            "it makes llama-server print something and end, so that the container is started again for ever",
            "--help",
            "--usage",
            "--version",
            "--cache-list",
            "--completion-bash",
            "--list-devices",
            "--license",
        ),
    ]
)
"""By one spelling that each flag has in every build that has the flag."""

HARMLESS: Mapping[str, str] = {
    "--host": "the operator sets it",
    "--port": "the operator sets it",
    "--api-prefix": "the operator's probes need the plain paths; refused as managed",
    "--alias": "a name",
    "--api-key": "a secret, handled as one",
    "--hf-token": "a secret, handled as one; alone it downloads nothing",
    "--offline": "forbids downloads",
    "--cors-origins": "open to all origins without it, so it can only restrict",
    "--cors-methods": "restricts",
    "--cors-headers": "restricts",
    "--cors-credentials": "allowed without it",
    "--ui": "static pages on the model's own port",
    "--log-prefix": "how log lines look",
    "--spec-default": "settings alone, nothing is downloaded",
    "--no-webui": "restricts",
    "--webui": "static pages on the model's own port",
    "--ui-config": "settings of these pages",
    "--webui-config": "settings of these pages",
    "--models-max": "only for a server without a model of its own",
    "--models-autoload": "only for a server without a model of its own",
    "--mmproj-auto": "concerns --hf-repo alone",
    "--mmproj-offload": "where the projector is computed",
    "--mmproj-device": "where the projector is computed",
    "--no-host": "a kind of memory",
    "--timeout": "of connections to the model's own port",
    "--threads-http": "of the model's own port",
    "--sse-ping-interval": "of the model's own port",
    "--metrics": "a page on the model's own port",
    "--props": "a page on the model's own port",
    "--slots": "a page on the model's own port",
}
"""Flags that have to do with files or the network by their name, and need no permission; with the reason."""


def risk_of(flag: Flag) -> Risk | None:
    """What speaks against passing a flag on; None where nothing does."""
    return next((RISKS[spelling] for spelling in flag.spellings if spelling in RISKS), None)


def objection(
    flag: Flag, values: Sequence[str] | None, *, policy: ArgumentPolicy, mounts: Sequence[str]
) -> tuple[str, str] | None:
    """Why a flag may not be used so, and what to do instead; None where it may.

    Args:
        flag: the flag.
        values: its values; None where they are not known, because they come from a Secret or a ConfigMap.
        policy: what the cluster allows.
        mounts: absolute folders, those of the volumes in the pod.
    """
    risk = risk_of(flag)
    if risk is None:
        return None
    if risk.reach is Reach.EXIT:
        return risk.reason, f"remove {flag.name}"
    if not policy.allow_unsafe.isdisjoint(flag.spellings):
        return None
    allow = f"ask whoever runs the operator to allow {flag.name} in its configuration"
    if risk.reach not in (Reach.FILES, Reach.SCALED_FILES):
        return risk.reason, f"remove {flag.name}, or {allow}"
    if values is None:
        return (
            "it names files, and the value stands elsewhere, where it cannot be checked",
            f"write the path here, or {allow}",
        )
    folders = ["/tmp", *mounts]  # noqa: S108 (the pod's own)
    for path in _paths(values, scaled=risk.reach is Reach.SCALED_FILES and flag.arity == 1):
        if not _lies_under(path, folders):
            return (
                f"{shown(path)} does not lie on a volume of the pod",
                f"use an absolute path under {', '.join(folders)}, or {allow}",
            )
    return None


def _paths(values: Sequence[str], *, scaled: bool) -> Iterator[str]:
    # the first value alone: what follows a file as a word of its own is its scale
    for path in values[0].split(",") if values else ():
        yield path.rpartition(":")[0] if scaled and ":" in path else path


def _lies_under(path: str, folders: Sequence[str]) -> bool:
    if ".." in path.split("/"):
        return False
    return any(path == folder or path.startswith(folder.rstrip("/") + "/") for folder in folders)
