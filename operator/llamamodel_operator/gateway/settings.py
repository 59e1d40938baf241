"""Settings of the gateway: each a flag and an environment variable, with unit, default and reason."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

__all__ = ["GatewaySettings"]


class GatewaySettings(BaseSettings):
    """Run the gateway: one OpenAI-compatible address for all LlamaModels.

    Every flag can also be given as an environment variable: --http-port is LLAMAMODEL_GATEWAY_HTTP_PORT.
    """

    model_config = SettingsConfigDict(
        env_prefix="LLAMAMODEL_GATEWAY_",
        frozen=True,
        use_attribute_docstrings=True,
        cli_prog_name="llamamodel-gateway",
        cli_kebab_case=True,
        cli_implicit_flags=True,
        cli_avoid_json=True,
        cli_hide_none_type=True,
    )

    kubeconfig: str | None = None
    """Path of a kubeconfig. Unset: the pod's service account, else KUBECONFIG or ~/.kube/config."""

    context: str | None = None
    """Context of the kubeconfig. Unset: its current one."""

    watch_namespaces: Annotated[list[str], Field(max_length=100)] = []
    """Namespaces whose models are served, needs rights in these alone. Unset: all of the cluster."""

    bare_namespaces: Annotated[list[str], Field(max_length=100)] = []
    """Namespaces whose models have bare names, such as `chat`, besides `namespace/name`. Unset: all that are served."""

    host: str = "0.0.0.0"  # noqa: S104 (a server in its own pod)
    """Address that is listened on."""

    port: Annotated[int, Field(ge=0, le=65_535)] = 8080
    """Port on which models are served; 0 takes a free one and logs it."""

    http_port: Annotated[int, Field(ge=0, le=65_535)] = 8081
    """Port of /metrics, /healthz and /readyz; 0 takes a free one and logs it."""

    timeout_sec: Annotated[int, Field(ge=1, le=86_400)] = 3600
    """Seconds within which each piece of an answer must come, its first one included; as long as llama-server itself
    takes by default."""

    body_limit_bytes: Annotated[int, Field(ge=1024, le=1 << 30)] = 32 << 20
    """Largest request: images are sent within it."""

    stop_delay_sec: Annotated[int, Field(ge=0, le=600)] = 5
    """Seconds for which requests are still taken after it was asked to stop, while it says that it is not ready: nodes
    and proxies send some until they have heard of it."""

    drain_sec: Annotated[int, Field(ge=0, le=86_400)] = 300
    """Seconds after that for answers to end by themselves; those that take longer end with an error. Longer than nearly
    all answers take, shorter than the 600 that autoscalers wait for a pod. Without requests nobody waits."""

    access_log: bool = True
    """Write a line for each request: who, what model and pod, how long, how many tokens; nothing of what was asked or
    answered. On, as it is where an id that a user reports is found again; it takes less than 0.1 ms of a request."""

    log_format: Literal["auto", "text", "json"] = "auto"
    """How log lines are written: auto is text on a terminal, else json."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """The least severe lines that are written."""
