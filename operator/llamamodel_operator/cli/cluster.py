"""Reads LlamaModels, and the texts they refer to, from a cluster. Writes nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp

from llamamodel_operator.api.llamamodel import InvalidLlamaModelError, LlamaModel
from llamamodel_operator.api.sources import ConfigMapKey
from llamamodel_operator.core.facts import Missing
from llamamodel_operator.core.text.template import TemplateReport
from llamamodel_operator.shell.client import MODELS, ApiError, ClusterClient, ClusterConfigError
from llamamodel_operator.shell.gather import Gatherer
from llamamodel_operator.shell.store import Store

__all__ = ["Found", "NoClusterError", "read_cluster"]


class NoClusterError(Exception):
    """The cluster cannot be read; the message is one line that says why and what to do."""


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
    try:
        return asyncio.run(_read(namespace, kubeconfig, context, defaults))
    except ClusterConfigError as error:
        raise NoClusterError(f"no cluster: {error}") from None
    except ApiError as error:
        raise NoClusterError(_refusal(error, namespace)) from None
    except TimeoutError:
        raise NoClusterError("the cluster does not answer: look at --kubeconfig and --context") from None
    except (aiohttp.ClientError, OSError) as error:
        raise NoClusterError(f"the cluster cannot be reached: {error}") from None


async def _read(
    namespace: str | None, kubeconfig: str | None, context: str | None, defaults: Mapping[str, Any]
) -> Found:
    async with ClusterClient.connect(kubeconfig=kubeconfig, context=context) as client:
        models = [raw async for chunk in client.list(MODELS, namespace=namespace) for raw in chunk]
        gatherer = Gatherer(client=client, store=Store(), examine=_later)
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


async def _later(_template: str) -> TemplateReport:
    """Chat templates are examined with the rest of the plan, not here."""
    return TemplateReport()


def _refusal(error: ApiError, namespace: str | None) -> str:
    if error.status == 404:
        return "the cluster has no LlamaModels: the CustomResourceDefinition is not installed"
    if error.status == 403:
        narrower = "" if namespace else "; --namespace asks for one namespace alone"
        return f"LlamaModels may not be read: {error}{narrower}"
    return f"the cluster answered {error.status}: {error}"
