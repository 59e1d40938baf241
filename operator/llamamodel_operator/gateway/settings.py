"""Settings of the gateway: each a flag and an environment variable, with unit, default and reason."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from llamamodel_operator.core.schema_check import defaults_problem

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

    model_defaults: dict[str, Any] = {}
    """What holds for fields that a LlamaModel says nothing about, as in the operator's settings: a part of its spec, as
    a JSON map. Those that a gateway looks at: task, loraAdapters, engine, startupTimeoutSec, endpoints, grammar,
    systemPrompt and requestDefaults; without them it takes llama-server's defaults."""

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

    bodies_limit_bytes: Annotated[int, Field(ge=1024, le=1 << 40)] = 128 << 20
    """What all requests of one gateway may take together, until they are answered; more are refused with 429. One of
    the largest size is always taken."""

    keys_dir: str | None = None
    """Folder with a file for each API key, as a mounted Secret has them, read again when it changes. Unset: whoever
    reaches the gateway may use every model."""

    pod_keys_dir: str | None = None
    """Folder with a file for each namespace of models, as a mounted Secret has them, read again when it changes: the
    API key that is shown to pods of models with spec.apiKeySecretRef there. Unset: none is."""

    wrong_keys_per_minute: Annotated[int, Field(ge=1, le=100_000)] = 20
    """Wrong keys that one address may send in a minute, before it is told to wait."""

    tls_dir: str | None = None
    """Folder with tls.crt and tls.key, as a mounted Secret has them, read again when it changes. Unset: no TLS."""

    cors_origins: Annotated[list[Annotated[str, Field(pattern=r"^(\*|https?://[^/\s]+)$")]], Field(max_length=100)] = []
    """Origins whose pages may use the gateway from a browser, such as https://chat.example.com; * is all. Unset:
    none."""

    max_in_flight: Annotated[int, Field(ge=1, le=1_000_000)] = 2000
    """Requests that one gateway works on at a time; more are refused with 429."""

    max_in_flight_per_pod: Annotated[int | None, Field(ge=1, le=10_000)] = None
    """Requests that one gateway has at one pod at a time. Unset, and at most: the HTTP threads of the model's server
    (engine.parallelSlots and engine.queueLimit) without 8, divided by the number of gateways."""

    gateways: Annotated[int, Field(ge=1, le=1000)] = 1
    """Gateways that send to the same pods: each uses its part of a pod's HTTP threads."""

    max_connections: Annotated[int, Field(ge=1, le=1_000_000)] = 4000
    """Connections of clients that are open at a time; more are closed at once."""

    idle_timeout_sec: Annotated[int, Field(ge=1, le=86_400)] = 75
    """Seconds within which a connection must bring the whole of a request's headers, and that one may be idle. Longer
    than the 60 s of most proxies, which would else send a request to a connection that is just closing."""

    write_timeout_sec: Annotated[int, Field(ge=1, le=86_400)] = 60
    """Seconds within which a client must take what was sent to it; one that does not is dropped."""
    wait_sec: Annotated[int, Field(ge=0, le=3600)] = 30
    """Seconds that a request waits at most for a model that loads; 0: it is refused at once. Many proxies give an
    answer 60 s to begin, and the model needs some of them."""

    wait_per_model: Annotated[int, Field(ge=1, le=100_000)] = 64
    """Requests that may wait for one model, in this pod. When it is ready, as many come at once as its pods take."""

    wait_total: Annotated[int, Field(ge=1, le=100_000)] = 256
    """Requests that may wait for models at all, in this pod: each keeps its body in memory."""

    load_poll_sec: Annotated[int, Field(ge=0, le=60)] = 1
    """Seconds between two questions to each pod how many requests it works on or has waiting, while a model with two
    pods or more is asked for something; 0: none. The questions go to /metrics, and each reader of that sets the
    averages `llamacpp:prompt_tokens_seconds` and `llamacpp:predicted_tokens_seconds` to zero."""

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

    @field_validator("model_defaults")
    @classmethod
    def _part_of_a_spec(cls, value: dict[str, Any]) -> dict[str, Any]:
        if problem := defaults_problem(value, path="model_defaults"):
            raise ValueError(problem)
        return value
