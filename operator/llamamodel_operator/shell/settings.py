"""Settings of the operator: each a flag and an environment variable, with unit, default and reason."""

from __future__ import annotations

import os
import socket
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from llamamodel_operator.api.llamamodel import LlamaModel
from llamamodel_operator.core.engine.catalogues import shipped_catalogues
from llamamodel_operator.core.engine.policy import ArgumentPolicy
from llamamodel_operator.core.memory.overhead import parse_overheads
from llamamodel_operator.core.plan import Configuration, ImageDefaults
from llamamodel_operator.core.schema_check import defaults_problem

__all__ = ["Settings"]


class Settings(BaseSettings):
    """Run the LlamaModel operator.

    Every flag can also be given as an environment variable: --lease-name is LLAMAMODEL_OPERATOR_LEASE_NAME.
    """

    model_config = SettingsConfigDict(
        env_prefix="LLAMAMODEL_OPERATOR_",
        frozen=True,
        use_attribute_docstrings=True,
        cli_prog_name="llamamodel-operator",
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
    """Namespaces whose LlamaModels are served, needs rights in these alone. Unset: all of the cluster."""

    workers: Annotated[int, Field(ge=1, le=256)] = 16
    """LlamaModels that are worked on at once; more puts more load on the API server."""

    resync_interval_sec: Annotated[float, Field(ge=5, le=86_400)] = 300
    """Seconds between comparisons of the cache with the API server. They read everything and write nothing
    unless something differs."""

    leader_election: bool = True
    """Take a lease before working, so that of several replicas one works and the others stand by."""

    lease_name: str = "llamamodel-operator"
    """Name of the lease. Two installations that share a namespace need two names."""

    lease_namespace: str = Field(default_factory=lambda: os.environ.get("POD_NAMESPACE") or "default")
    """Namespace of the lease. Unset: the pod's own (POD_NAMESPACE), else default."""

    identity: str = Field(default_factory=lambda: f"{os.environ.get('POD_NAME') or socket.gethostname()}")
    """Name of this process in the lease; a random suffix is added."""

    http_host: str = "0.0.0.0"  # noqa: S104 (a server in its own pod)
    """Address on which /metrics, /healthz and /readyz are served."""

    http_port: Annotated[int, Field(ge=0, le=65_535)] = 8080
    """Port on which they are served; 0 takes a free one and logs it."""

    webhook: Literal["off", "self-signed", "cert-manager"] = "off"
    """The validating admission webhook: self-signed makes and publishes its certificate by itself, cert-manager
    leaves both to cert-manager and only reads the Secret. Off unless the chart installs what else it needs."""

    webhook_port: Annotated[int, Field(ge=0, le=65_535)] = 9443
    """Port on which LlamaModels are reviewed; 0 takes a free one and logs it. The address is that of http_host."""

    webhook_name: str = "llamamodel-operator-webhook"
    """Name of the webhook's Service, of the Secret with its certificate, and of its ValidatingWebhookConfiguration.
    The first two are in the namespace of the lease."""

    webhook_certificate_life_sec: Annotated[float, Field(ge=10, le=31_536_000)] = 7_776_000
    """Seconds that a self-signed certificate of the webhook lives (90 days); its authority lives four times as long.
    Both are renewed when two thirds have passed."""

    log_format: Literal["auto", "text", "json"] = "auto"
    """How log lines are written: auto is text on a terminal, else json."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """The least severe lines that are written."""

    image_cpu: str = "ghcr.io/ggml-org/llama.cpp:server"
    """Image for LlamaModels without a GPU that name none themselves. Pin a build in production."""

    image_gpu: str = "ghcr.io/ggml-org/llama.cpp:server-vulkan"
    """Image for LlamaModels with a GPU of a resource that image_by_resource does not name."""

    image_by_resource: dict[str, str] = {
        "nvidia.com/gpu": "ghcr.io/ggml-org/llama.cpp:server-cuda",
        "amd.com/gpu": "ghcr.io/ggml-org/llama.cpp:server-rocm",
        "gpu.intel.com/i915": "ghcr.io/ggml-org/llama.cpp:server-intel",
        "gpu.intel.com/xe": "ghcr.io/ggml-org/llama.cpp:server-intel",
    }
    """Image for LlamaModels with a GPU, by its extended resource, as a JSON map."""

    model_defaults: dict[str, Any] = {}
    """What holds for fields that a LlamaModel says nothing about: a part of its spec, as a JSON map, such as
    {"endpoints": {"metrics": false}, "engine": {"contBatching": true}}. A model's own value wins."""

    argument_policy: Literal["Warn", "Strict"] = "Warn"
    """What happens to a flag in extraArgs that no known build has: Warn passes it on, Strict refuses it."""

    allowed_flags: Annotated[list[str], Field(max_length=256)] = []
    """Flags that LlamaModels may use in extraArgs although they read or write files outside the mounts, open ports
    or change security."""

    inspection: bool = True
    """Read the headers of a model's files, by a short Job without a GPU, before the model starts, and check them again
    when a pod starts. Needs operator_image."""

    operator_image: str = ""
    """The operator's own image, which the Jobs run. Unset, as outside of a cluster: no inspection."""

    inspection_timeout_sec: Annotated[float, Field(ge=1, le=3600)] = 120
    """Seconds after which a model starts although its files could not be inspected: no quota, no node, no image. A
    file that was looked at and is bad is never started with."""

    node_affinity: bool = True
    """Where only some of the nodes that a model may run on have GPUs with enough memory, have its pods require one of
    those by the label of its GPUs' memory."""

    gpu_overhead: dict[str, str | int] = {}
    """Memory on each GPU that the driver takes and llama.cpp does not see, by vendor, as a JSON map of quantities such
    as {"nvidia": "512Mi"}. The vendor of nvidia.com/gpu is nvidia. Others: 640Mi, an allowance on the high side."""

    pod_keys_dir: str | None = None
    """Folder with a file for each namespace of models, as a mounted Secret has them, read again when it changes: the
    API key that servers of models with spec.apiKeySecretRef want there. Unset: these are asked for nothing but whether
    they want one."""

    gateway: bool = False
    """There is a gateway: a LlamaModel whose served name another one has there is told so in a finding."""

    gateway_bare_namespaces: Annotated[list[str], Field(max_length=100)] = []
    """Namespaces whose models have bare names at the gateway, as in its own settings. Unset: all."""

    @field_validator("gpu_overhead")
    @classmethod
    def _amounts(cls, value: dict[str, str | int]) -> dict[str, str | int]:
        parse_overheads(value)
        return value

    @field_validator("model_defaults")
    @classmethod
    def _part_of_a_spec(cls, value: dict[str, Any]) -> dict[str, Any]:
        if problem := defaults_problem(value, path="model_defaults"):
            raise ValueError(problem)
        identity = {"name": "defaults", "namespace": "default", "uid": ""}
        placeholder = {"model": {"pvc": {"claimName": "models", "path": "model.gguf"}}}
        LlamaModel.parse({"metadata": identity, "spec": placeholder}, defaults=value)
        return value

    @property
    def bare_namespaces(self) -> frozenset[str] | None:
        """Whose models have bare names at the gateway; None: all of them."""
        return frozenset(self.gateway_bare_namespaces) or None if self.gateway else frozenset()

    @property
    def configuration(self) -> Configuration:
        """What plans are made by."""
        policy = ArgumentPolicy(strict=self.argument_policy == "Strict", allow_unsafe=frozenset(self.allowed_flags))
        return Configuration(
            images=self.images,
            policy=policy,
            catalogues=shipped_catalogues(),
            defaults=self.model_defaults,
            node_affinity=self.node_affinity,
            gpu_overhead=parse_overheads(self.gpu_overhead),
        )

    @property
    def images(self) -> ImageDefaults:
        """The images for LlamaModels that name none."""
        return ImageDefaults(cpu=self.image_cpu, gpu=self.image_gpu, by_resource=self.image_by_resource)
