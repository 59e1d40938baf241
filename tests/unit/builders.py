"""Objects for tests, built so that a test reads as a sentence: `a_model().named("gemma").with_gpu(2)`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Self

from llamamodel_operator.api.base import API_VERSION, KIND
from llamamodel_operator.api.labels import CONTAINER, MANAGED_BY_LABEL, MANAGER, MODEL_LABEL, REVISION_LABEL
from llamamodel_operator.api.llamamodel import LlamaModel
from llamamodel_operator.api.status import LlamaModelStatus
from llamamodel_operator.core.engine.catalogues import shipped_catalogues
from llamamodel_operator.core.engine.policy import ArgumentPolicy
from llamamodel_operator.core.facts import Facts
from llamamodel_operator.core.objects.names import child_name
from llamamodel_operator.core.observed import Claim, Observed, Pod, Proof, Refusal, ServerReport
from llamamodel_operator.core.plan import Configuration, ImageDefaults, Plan, make_plan
from llamamodel_operator.core.status import make_status

NOON = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)
NAMESPACE = "demo"
IMAGES = ImageDefaults(
    cpu="example.com/llama:cpu", gpu="example.com/llama:gpu", by_resource={"nvidia.com/gpu": "example.com/llama:cuda"}
)
CONFIGURATION = Configuration(images=IMAGES, policy=ArgumentPolicy(), catalogues=shipped_catalogues())


def at(clock: str) -> str:
    """A time of the test's day as Kubernetes writes it: at("12:00:30")."""
    return f"2026-01-01T{clock}Z"


@dataclass(frozen=True, kw_only=True)
class ModelBuilder:
    """A LlamaModel, as stored (`raw`) or as typed (`build`). Fields are given as in a manifest, in camelCase."""

    name: str = "gemma"
    namespace: str = NAMESPACE
    uid: str = ""
    generation: int = 1
    resource_version: int = 1
    deleting: bool = False
    spec: Mapping[str, Any] = field(
        default_factory=lambda: {"model": {"pvc": {"claimName": "models", "path": "gemma/gemma-3-270m.gguf"}}}
    )
    status: Mapping[str, Any] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)

    def named(self, name: str) -> Self:
        return replace(self, name=name)

    def in_namespace(self, namespace: str) -> Self:
        return replace(self, namespace=namespace)

    def with_uid(self, uid: str) -> Self:
        return replace(self, uid=uid)

    def at_generation(self, generation: int) -> Self:
        return replace(self, generation=generation)

    def at_version(self, resource_version: int) -> Self:
        return replace(self, resource_version=resource_version)

    def being_deleted(self) -> Self:
        return replace(self, deleting=True)

    def with_spec(self, **fields: object) -> Self:
        return replace(self, spec={**self.spec, **fields})

    def reading(self, claim: str, path: str) -> Self:
        return self.with_spec(model={"pvc": {"claimName": claim, "path": path}})

    def with_gpu(self, count: int = 1, resource: str = "nvidia.com/gpu") -> Self:
        return self.with_spec(gpu={"count": count, "resourceName": resource})

    def with_engine(self, **fields: object) -> Self:
        return self.with_spec(engine={**self.spec.get("engine", {}), **fields})

    def with_limits(self, **limits: object) -> Self:
        resources = self.spec.get("resources", {})
        return self.with_spec(resources={**resources, "limits": {**resources.get("limits", {}), **limits}})

    def with_replicas(self, replicas: int) -> Self:
        return self.with_spec(replicas=replicas)

    def with_startup_timeout(self, seconds: int) -> Self:
        return self.with_spec(startupTimeoutSec=seconds)

    def suspended(self) -> Self:
        return self.with_spec(suspend=True)

    def with_status(self, status: LlamaModelStatus | Mapping[str, Any]) -> Self:
        return replace(self, status=status.to_wire() if isinstance(status, LlamaModelStatus) else status)

    def annotated(self, **annotations: str) -> Self:
        return replace(self, annotations=annotations)

    def raw(self) -> dict[str, Any]:
        metadata: dict[str, Any] = {
            "name": self.name,
            "namespace": self.namespace,
            "uid": self.uid or f"uid-of-{self.name}",
            "generation": self.generation,
            "resourceVersion": str(self.resource_version),
        }
        if self.annotations:
            metadata["annotations"] = dict(self.annotations)
        if self.deleting:
            metadata["deletionTimestamp"] = at("11:59:00")
        raw = {"apiVersion": API_VERSION, "kind": KIND, "metadata": metadata, "spec": dict(self.spec)}
        return {**raw, "status": dict(self.status)} if self.status else raw

    def build(self) -> LlamaModel:
        return LlamaModel.parse(self.raw())

    def plan(self, facts: Facts | None = None) -> Plan:
        return make_plan(self.build(), configuration=CONFIGURATION, facts=facts or Facts())

    def deployment(self) -> dict[str, Any]:
        """The Deployment that is planned for it."""
        return next(dict(child) for child in self.plan().objects if child["kind"] == "Deployment")

    def service(self) -> dict[str, Any]:
        """The Service that is planned for it."""
        return next(dict(child) for child in self.plan().objects if child["kind"] == "Service")

    def pod_spec(self) -> dict[str, Any]:
        spec: dict[str, Any] = self.deployment()["spec"]["template"]["spec"]
        return spec

    def container(self) -> dict[str, Any]:
        (container,) = self.pod_spec()["containers"]
        return dict(container)

    def arguments(self) -> list[str]:
        """Of llama-server."""
        return list(self.container()["args"])


def a_model() -> ModelBuilder:
    """The smallest model that there is: nothing but a file on a claim."""
    return ModelBuilder()


@dataclass(frozen=True, kw_only=True)
class PodBuilder:
    """A pod of a model, as the API server has it (`raw`) or as a decision sees it (`build`)."""

    name: str = "gemma-0"
    namespace: str = NAMESPACE
    model: str = "gemma"
    revision: str = ""
    resource_version: int = 1
    phase: str = "Pending"
    deleting: bool = False
    node: str = ""
    conditions: Sequence[Mapping[str, Any]] = ()
    container: Mapping[str, Any] = field(default_factory=dict)
    others: Sequence[Mapping[str, Any]] = ()

    def named(self, name: str) -> Self:
        return replace(self, name=name)

    def of(self, model: str) -> Self:
        return replace(self, model=model)

    def of_an_earlier_spec(self) -> Self:
        return self.of_revision("an-earlier-one")

    def of_revision(self, revision: str) -> Self:
        return replace(self, revision=revision)

    def at_version(self, resource_version: int) -> Self:
        return replace(self, resource_version=resource_version)

    def unschedulable(self, message: str = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu.") -> Self:
        condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
        return replace(self, conditions=(*self.conditions, condition))

    def waiting(self, reason: str, message: str = "") -> Self:
        state = {"waiting": {"reason": reason, **({"message": message} if message else {})}}
        return self._container(state=state, started=False)

    def loading_since(self, time: str) -> Self:
        return replace(self._container(state={"running": {"startedAt": time}}, started=False), phase="Running")

    def started_but_unready(self, time: str = at("11:00:00")) -> Self:
        return replace(self._container(state={"running": {"startedAt": time}}, started=True), phase="Running")

    def ready(self) -> Self:
        up = self.started_but_unready()
        return replace(up, conditions=(*up.conditions, {"type": "Ready", "status": "True"}), node="node-1")

    def that_ended(
        self,
        *,
        exit_code: int = 1,
        reason: str = "Error",
        message: str = "",
        started: str = at("11:00:00"),
        finished: str = at("11:00:05"),
    ) -> Self:
        """Its container ended before and was or will be started again."""
        ended = {
            "exitCode": exit_code,
            "reason": reason,
            "message": message,
            "startedAt": started or None,
            "finishedAt": finished or None,
        }
        return self._container(lastState={"terminated": ended})

    def restarted(self, times: int) -> Self:
        return self._container(restartCount=times)

    def terminating(self) -> Self:
        return replace(self, deleting=True)

    def finished(self, phase: str = "Failed") -> Self:
        return replace(self, phase=phase)

    def with_sidecar(self, **status: object) -> Self:
        return replace(self, others=(*self.others, {"name": "sidecar", **status}))

    def _container(self, **status: object) -> Self:
        return replace(self, container={**self.container, **status})

    def raw(self) -> dict[str, Any]:
        metadata: dict[str, Any] = {
            "name": self.name,
            "namespace": self.namespace,
            "uid": f"uid-of-{self.name}",
            "resourceVersion": str(self.resource_version),
            "labels": {
                MANAGED_BY_LABEL: MANAGER,
                MODEL_LABEL: child_name(self.model),
                **({REVISION_LABEL: self.revision} if self.revision else {}),
            },
        }
        if self.deleting:
            metadata["deletionTimestamp"] = at("11:59:00")
        own = [{"name": CONTAINER, **self.container}] if self.container else []
        return {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": metadata,
            "spec": {"nodeName": self.node} if self.node else {},
            "status": {
                "phase": self.phase,
                **({"podIP": "10.0.0.1"} if self.node else {}),
                "conditions": list(self.conditions),
                "containerStatuses": [*self.others, *own],
            },
        }

    def build(self) -> Pod:
        return Pod.parse(self.raw(), container=CONTAINER)


def a_pod() -> PodBuilder:
    """A pod that was just created."""
    return PodBuilder()


@dataclass(frozen=True, kw_only=True)
class DeploymentBuilder:
    """A Deployment as the API server has it, with the status that the deployment controller writes."""

    model: ModelBuilder = field(default_factory=a_model)
    generation: int = 1
    resource_version: int = 1
    status: Mapping[str, Any] = field(default_factory=dict)

    def of(self, model: ModelBuilder) -> Self:
        return replace(self, model=model)

    def with_counts(self, *, updated: int, total: int, ready: int, seen_generation: int = 1) -> Self:
        counts = {"updatedReplicas": updated, "replicas": total, "readyReplicas": ready}
        zeroless = {key: value for key, value in counts.items() if value}  # as Kubernetes writes it
        return replace(self, status={**self.status, "observedGeneration": seen_generation, **zeroless})

    def rolled_out(self, pods: int = 1) -> Self:
        return self.with_counts(updated=pods, total=pods, ready=pods)

    def at_generation(self, generation: int) -> Self:
        return replace(self, generation=generation)

    def failing_to_create_pods(self, message: str) -> Self:
        condition = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": message}
        return replace(self, status={**self.status, "conditions": [condition]})

    def raw(self) -> dict[str, Any]:
        planned = self.model.deployment()
        server = {
            "generation": self.generation,
            "resourceVersion": str(self.resource_version),
            "uid": f"uid-of-deployment-{planned['metadata']['name']}",
        }
        return {**planned, "metadata": {**planned["metadata"], **server}, "status": dict(self.status)}


def a_deployment() -> DeploymentBuilder:
    """The Deployment of the smallest model, not yet seen by its controller."""
    return DeploymentBuilder()


@dataclass(frozen=True, kw_only=True)
class ClaimBuilder:
    """A PersistentVolumeClaim, as the API server has it (`raw`) or as a decision sees it (`build`)."""

    name: str = "models"
    namespace: str = NAMESPACE
    resource_version: int = 1
    phase: str = "Bound"
    deleting: bool = False

    def named(self, name: str) -> Self:
        return replace(self, name=name)

    def in_phase(self, phase: str) -> Self:
        return replace(self, phase=phase)

    def terminating(self) -> Self:
        return replace(self, deleting=True)

    def raw(self) -> dict[str, Any]:
        metadata: dict[str, Any] = {
            "name": self.name,
            "namespace": self.namespace,
            "uid": f"uid-of-claim-{self.name}",
            "resourceVersion": str(self.resource_version),
        }
        if self.deleting:
            metadata["deletionTimestamp"] = at("11:59:00")
        return {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": metadata,
            "status": {"phase": self.phase},
        }

    def build(self) -> Claim:
        return Claim(name=self.name, phase=self.phase, terminating=self.deleting)


def a_claim() -> ClaimBuilder:
    """A claim with its volume."""
    return ClaimBuilder()


def no_claim(name: str = "models") -> Claim:
    """What is observed where the claim does not exist."""
    return Claim(name=name, phase="")


def status_of(
    model: ModelBuilder,
    *pods: PodBuilder,
    deployment: DeploymentBuilder | None = None,
    claim: Claim | None = None,
    refusals: Sequence[Refusal] = (),
    servers: Mapping[str, ServerReport] | None = None,
    now: datetime = NOON,
) -> LlamaModelStatus:
    """The status that the operator would write; the claim is bound, the Deployment exists, pods are of the present spec
    and their servers answer unless told otherwise."""
    answers = {pod.name: ServerReport(proof=Proof.ANSWERS) for pod in pods}
    observed = Observed(
        servers=answers if servers is None else servers,
        deployment=(deployment or a_deployment().of(model).rolled_out()).raw(),
        pods=tuple((pod if pod.revision else pod.of_revision(model.plan().revision)).build() for pod in pods),
        claim=claim or a_claim().build(),
        refusals=tuple(refusals),
    )
    return make_status(model.build(), plan=model.plan(), observed=observed, now=now)
