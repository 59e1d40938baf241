"""Settings of the operator: each a flag and an environment variable, with unit, default and reason."""

from __future__ import annotations

import os
import socket
from typing import Annotated, Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from llamamodel_operator.core.plan import ImageDefaults

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

    @property
    def images(self) -> ImageDefaults:
        """The images for LlamaModels that name none."""
        return ImageDefaults(cpu=self.image_cpu, gpu=self.image_gpu, by_resource=self.image_by_resource)
