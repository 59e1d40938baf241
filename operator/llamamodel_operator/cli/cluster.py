"""A cluster for a command: finds it, tells in one line why it cannot be had, reads LlamaModels and their texts."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import aiohttp
from kubernetes.aio.config.kube_config import list_kube_config_contexts

from llamamodel_operator.shell.client import MODELS, ApiError, ClusterClient, ClusterConfigError

if TYPE_CHECKING:
    from llamamodel_operator.api.sources import ConfigMapKey
    from llamamodel_operator.core.facts import Missing

__all__ = ["Cluster", "Found", "NoClusterError", "ask_cluster", "read_cluster"]

_T = TypeVar("_T")

_NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


_LASTING = frozenset({401, 403, 404})
"""Statuses that stay as they are until somebody changes something."""


class NoClusterError(Exception):
    """The cluster cannot be read; the message is one line that says why and what to do.

    Attributes:
        passing: whether it may be over in a moment, by itself.
    """

    def __init__(self, message: str, *, passing: bool = False) -> None:
        super().__init__(message)
        self.passing = passing


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """What a command talks to.

    Attributes:
        client: of the API server.
        session: with the same credentials, for what is streamed, and for pods behind the API server's proxy.
        namespace: that of the command line, else the context's.
    """

    client: ClusterClient
    session: aiohttp.ClientSession
    namespace: str

    async def model(self, name: str) -> dict[str, Any]:
        """The LlamaModel. Raises NoClusterError where there is none, and ApiError."""
        try:
            found = await self.client.get(MODELS, namespace=self.namespace, name=name)
        except ApiError as error:
            raise _refusal(error, self.namespace) from None
        if found is None:
            raise NoClusterError(
                f"there is no LlamaModel {name} in the namespace {self.namespace}: name another with --namespace"
            )
        return found

    async def models(self, *, everywhere: bool) -> list[dict[str, Any]]:
        """All LlamaModels of the namespace, or of the cluster. Raises NoClusterError."""
        namespace = None if everywhere else self.namespace
        try:
            return [raw async for chunk in self.client.list(MODELS, namespace=namespace) for raw in chunk]
        except ApiError as error:
            raise _refusal(error, namespace) from None


def ask_cluster(
    work: Callable[[Cluster], Awaitable[_T]],
    *,
    kubeconfig: str | None,
    context: str | None,
    namespace: str | None = None,
) -> _T:
    """Runs it with a cluster, and gives what it gives.

    Raises:
        NoClusterError: there is no cluster, it cannot be reached, or it refuses.
    """

    async def run() -> _T:
        async with (
            ClusterClient.connect(kubeconfig=kubeconfig, context=context) as client,
            client.new_session() as session,
        ):
            where = namespace or _namespace(kubeconfig, context)
            return await work(Cluster(client=client, session=session, namespace=where))

    try:
        return asyncio.run(run())
    except ClusterConfigError as error:
        raise NoClusterError(f"no cluster: {error}") from None
    except ApiError as error:
        raise NoClusterError(f"the cluster answered {error.status}: {error}") from None
    except TimeoutError:
        raise NoClusterError("the cluster does not answer: look at --kubeconfig and --context") from None
    except (aiohttp.ClientError, OSError) as error:
        raise NoClusterError(f"the cluster cannot be reached: {error}") from None


def _namespace(kubeconfig: str | None, context: str | None) -> str:
    """As kubectl has it: that of the context, in a pod that of the service account, else default."""
    if kubeconfig is None and context is None and "KUBERNETES_SERVICE_HOST" in os.environ and _NAMESPACE_FILE.exists():
        return _NAMESPACE_FILE.read_text(encoding="utf-8").strip() or "default"
    contexts, current = list_kube_config_contexts(config_file=kubeconfig)
    chosen = next((entry for entry in contexts if entry["name"] == context), None) if context else current
    return str(((chosen or {}).get("context") or {}).get("namespace") or "default")


@dataclass(frozen=True, kw_only=True)
class Found:
    """Attributes:
    models: the objects.
    texts: what keys of ConfigMaps hold, by namespace.
    """

    models: tuple[Mapping[str, Any], ...]
    texts: Mapping[tuple[str, ConfigMapKey], str | Missing]

    def text(self, ref: ConfigMapKey, namespace: str) -> str | Missing | None:
        """What a key holds; None where it may not be read."""
        return self.texts.get((namespace, ref))


def read_cluster(
    *, namespace: str | None, kubeconfig: str | None, context: str | None, defaults: Mapping[str, Any]
) -> Found:
    """All LlamaModels of a namespace, or of the cluster where None is given.

    Raises:
        NoClusterError: there is no cluster, or it may not be read.
    """

    # not needed by those who read LlamaModels alone, and not quick
    from llamamodel_operator.api.llamamodel import InvalidLlamaModelError, LlamaModel
    from llamamodel_operator.core.text.template import TemplateReport
    from llamamodel_operator.shell.gather import Gatherer
    from llamamodel_operator.shell.store import Store

    async def later(_template: str) -> TemplateReport:
        """Chat templates are examined with the rest of the plan, not here."""
        return TemplateReport()

    async def read(cluster: Cluster) -> Found:
        models = await cluster.models(everywhere=namespace is None)
        gatherer = Gatherer(client=cluster.client, store=Store(), examine=later)
        texts: dict[tuple[str, ConfigMapKey], str | Missing] = {}
        for raw in models:
            try:
                model = LlamaModel.parse(raw, defaults=defaults)
            except InvalidLlamaModelError:
                continue
            facts = await gatherer.facts(model)
            texts |= {(model.namespace, key): text for key, text in facts.texts.items()}
        kinds = {"apiVersion": MODELS.api_version, "kind": MODELS.kind}  # a list leaves them out of its items
        return Found(models=tuple({**kinds, **raw} for raw in models), texts=texts)

    return ask_cluster(read, kubeconfig=kubeconfig, context=context, namespace=namespace)


def _refusal(error: ApiError, namespace: str | None) -> NoClusterError:
    if error.status == 404:
        return NoClusterError("the cluster has no LlamaModels: the CustomResourceDefinition is not installed")
    if error.status == 403:
        narrower = "" if namespace else "; --namespace asks for one namespace alone"
        return NoClusterError(f"LlamaModels may not be read: {error}{narrower}")
    return NoClusterError(f"the cluster answered {error.status}: {error}", passing=error.status not in _LASTING)
