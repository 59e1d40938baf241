"""Reads what a plan rests on besides the LlamaModel: texts in ConfigMaps, what its chat template does, the nodes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from llamamodel_operator.api.labels import CONTAINER
from llamamodel_operator.api.llamamodel import LlamaModel
from llamamodel_operator.api.sources import ConfigMapKey
from llamamodel_operator.core.checks import revision_of
from llamamodel_operator.core.facts import Facts, Missing
from llamamodel_operator.core.gateway.routes import served_model
from llamamodel_operator.core.gateway.taken import NameVerdict, judge_name
from llamamodel_operator.core.inspection import Inspection
from llamamodel_operator.core.inventory import NodeGpus
from llamamodel_operator.core.objects.check import check_of
from llamamodel_operator.core.objects.drain import drain_image_of
from llamamodel_operator.core.objects.names import child_name
from llamamodel_operator.core.observed import Pod
from llamamodel_operator.core.text.template import TemplateReport
from llamamodel_operator.core.texts import chat_template_text, referenced_keys, text_of
from llamamodel_operator.shell.client import (
    CONFIG_MAPS,
    DEPLOYMENTS,
    MODELS,
    PERSISTENT_VOLUME_CLAIMS,
    PODS,
    ApiError,
    ClusterClient,
)
from llamamodel_operator.shell.store import Key, Store, controller_uid, name_groups

__all__ = ["Gatherer"]


class Gatherer:
    """Reads from the cache of watched ConfigMaps, and from the API server what the watch does not tell of."""

    def __init__(
        self,
        *,
        client: ClusterClient,
        store: Store,
        examine: Callable[[str], Awaitable[TemplateReport]],
        nodes: Callable[[], tuple[NodeGpus, ...] | None] = lambda: None,
        operator_image: str = "",
        bare_namespaces: frozenset[str] | None = frozenset(),
    ) -> None:
        """`bare_namespaces`: whose models have bare names at a gateway; None: all of them."""
        self._client = client
        self._store = store
        self._examine = examine
        self._nodes = nodes
        self._operator_image = operator_image
        self._bare_namespaces = bare_namespaces
        self.unwatched: set[Key] = set()
        """LlamaModels that refer to a ConfigMap without our label: somebody has to look at it now and then."""

    async def facts(self, model: LlamaModel, *, inspection: Inspection | None = None) -> Facts:
        """Everything there is to know. Raises ApiError where the API server does not answer."""
        self.unwatched.discard(Key(model.namespace, model.name))
        texts = {key: await self._text(model, key) for key in referenced_keys(model.spec)}
        known = Facts(texts=texts, inspection=inspection)
        template = chat_template_text(model.spec, known)
        live = self._store.get(DEPLOYMENTS, Key(model.namespace, child_name(model.name)))
        if live is not None and controller_uid(live) != model.uid:
            live = None
        return Facts(
            texts=known.texts,
            template=None if template is None else await self._examine(template),
            inspection=inspection,
            nodes=self._nodes(),
            operator_image=self._operator_image,
            running=live is not None,
            fails=live is not None and not (live.get("status") or {}).get("readyReplicas") and self._ended(live),
            running_revision=revision_of(live) if live is not None and live["spec"].get("replicas") else "",
            running_drain=drain_image_of(live) if live is not None else "",
            running_check=check_of(live) if live is not None else None,
            claim_modes=self._claim_modes(model),
            name=self._name(Key(model.namespace, model.name)),
        )

    def _name(self, key: Key) -> NameVerdict | None:
        """Whether it has its served name at the gateway; None where it can have none, as all without a gateway."""
        if self._bare_namespaces is not None and key.namespace not in self._bare_namespaces:
            return None
        raw = self._store.get(MODELS, key)
        if raw is None:
            return None
        namesakes = {other for group in name_groups(raw) for other in self._store.keys_in(MODELS, group)} - {key}
        others = [found for other in namesakes if (found := self._store.get(MODELS, other)) is not None]
        return judge_name(served_model(raw), map(served_model, others), bare_namespaces=self._bare_namespaces)

    def _ended(self, deployment: Mapping[str, Any]) -> bool:
        """Whether a container of its pods has ended before it answered."""
        pods = (Pod.parse(raw, container=CONTAINER) for raw in self._store.select(PODS, Key.of(deployment)))
        return any(pod.last_termination is not None and not pod.started for pod in pods)

    def _claim_modes(self, model: LlamaModel) -> dict[str, tuple[str, ...]]:
        """By the name of the claim, of those that exist."""
        found = {
            name: self._store.get(PERSISTENT_VOLUME_CLAIMS, Key(model.namespace, name)) for name in model.spec.claims
        }
        return {
            name: tuple((raw.get("spec") or {}).get("accessModes") or ())
            for name, raw in found.items()
            if raw is not None
        }

    def forget(self, key: Key) -> None:
        """The LlamaModel is gone."""
        self.unwatched.discard(key)

    async def _text(self, model: LlamaModel, ref: ConfigMapKey) -> str | Missing:
        """What the key holds."""
        key = Key(model.namespace, ref.name)
        raw = self._store.get(CONFIG_MAPS, key)
        if raw is None:
            self.unwatched.add(Key(model.namespace, model.name))
            try:
                raw = await self._client.get(CONFIG_MAPS, namespace=key.namespace, name=key.name)
            except ApiError as error:
                if error.status != 403:
                    raise
                return Missing(message=f"the operator may not read ConfigMap {ref.name}: {error.message}")
        if raw is None:
            return Missing(message=f"ConfigMap {ref.name} does not exist in namespace {key.namespace}")
        return text_of(raw, ref)
