"""A reconciler with all that it works with, in memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from llamamodel_operator.api.guide import guide_link
from llamamodel_operator.core.engine.proof import Expected
from llamamodel_operator.core.observed import Pod, Proof, ServerReport
from llamamodel_operator.core.text.template import TemplateReport, examine_template
from llamamodel_operator.shell.client import DEPLOYMENTS, MODELS, PERSISTENT_VOLUME_CLAIMS
from llamamodel_operator.shell.gather import Gatherer
from llamamodel_operator.shell.inspecting import Inspector
from llamamodel_operator.shell.metrics import Metrics
from llamamodel_operator.shell.post_mortem import PostMortem
from llamamodel_operator.shell.prober import Prober
from llamamodel_operator.shell.reconciler import Reconciler
from llamamodel_operator.shell.store import Key, Store

from .builders import CONFIGURATION, NOON, ModelBuilder, a_claim
from .fake_cluster import FakeCluster

GEMMA = Key("demo", "gemma")
OPERATOR_IMAGE = "example.com/llamamodel-operator:1"


class SilentServers(Prober):
    """Servers that answer and tell nothing of themselves, or that say what a test has them say."""

    def __init__(self) -> None:
        self.says: dict[str, ServerReport] = {}
        self.expected: Expected | None = None
        self.locked = False

    def reports(
        self,
        key: Key,
        pods: Sequence[Pod],
        *,
        scales: tuple[float, ...] | None,
        read_log: bool = False,
        expected: Expected | None = None,
        locked: bool = False,
    ) -> Mapping[str, ServerReport]:
        self.expected, self.locked = expected, locked
        answers = ServerReport(proof=Proof.ANSWERS)
        return {pod.name: self.says.get(pod.name, answers) for pod in pods if pod.ready}

    def forget(self, key: Key) -> None:
        pass


async def _examine(text: str) -> TemplateReport:
    return examine_template(text)


class World:
    """A reconciler, its cache, and the API server that both see."""

    def __init__(self, cluster: FakeCluster, *, inspecting: bool = False, gateway: bool = False) -> None:
        self.cluster = cluster
        self.store = Store()
        self.metrics = Metrics()
        self.again: list[Key] = []
        self.now = NOON
        self.later: dict[Key, float] = {}
        image = OPERATOR_IMAGE if inspecting else ""
        self.gatherer = Gatherer(
            client=cluster,
            store=self.store,
            examine=_examine,
            operator_image=image,
            bare_namespaces=None if gateway else frozenset(),
        )
        self.inspector = Inspector(
            client=cluster,
            store=self.store,
            image=image,
            timeout_sec=120,
            now=lambda: self.now,
            later=self.later.__setitem__,
        )
        self.prober = SilentServers()
        self.post_mortem = PostMortem(client=cluster, now=lambda: self.now, later=self.later.__setitem__)
        self.reconciler = Reconciler(
            client=cluster,
            store=self.store,
            metrics=self.metrics,
            configuration=CONFIGURATION,
            gatherer=self.gatherer,
            prober=self.prober,
            now=lambda: self.now,
            again=self.again.append,
            inspector=self.inspector if inspecting else None,
            post_mortem=self.post_mortem,
        )

    def has(self, model: ModelBuilder) -> None:
        """A user created or changed a LlamaModel, and the watch told of it."""
        key = Key(model.namespace, model.name)
        status = self.cluster.shows(MODELS, key).get("status") if key in self.cluster.keys(MODELS) else None
        raw = {**model.raw(), **({"status": status} if status else {})}
        self.store.put(MODELS, self.cluster.has(MODELS, raw))

    def has_claim(self) -> None:
        self.store.put(PERSISTENT_VOLUME_CLAIMS, self.cluster.has(PERSISTENT_VOLUME_CLAIMS, a_claim().raw()))

    async def settles(self, key: Key = GEMMA) -> None:
        """A pass, then nothing is counted so far."""
        await self.reconciler.reconcile(key)
        self.cluster.forget_writes()

    def someone_edits(self, edit: Callable[[dict[str, Any]], object], key: Key = GEMMA) -> None:
        """A Deployment is changed by hand, and the watch told of it."""
        raw = self.cluster.shows(DEPLOYMENTS, key)
        edit(raw)
        self.store.put(DEPLOYMENTS, self.cluster.has(DEPLOYMENTS, raw))

    def condition(self, kind: str, key: Key = GEMMA) -> tuple[str, str, str]:
        """(status, reason, message)."""
        conditions = self.cluster.shows(MODELS, key)["status"]["conditions"]
        (found,) = (condition for condition in conditions if condition["type"] == kind)
        return found["status"], found["reason"], found["message"]

    def ready(self, key: Key = GEMMA) -> tuple[str, str]:
        """(reason, message) as a user reads them, without the section that the message names."""
        conditions = self.cluster.shows(MODELS, key)["status"]["conditions"]
        (found,) = (condition for condition in conditions if condition["type"] == "Ready")
        return found["reason"], found["message"].removesuffix(f"; see {guide_link(found['reason'])}")
