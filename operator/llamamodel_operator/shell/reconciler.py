"""One pass over one LlamaModel: gather, plan, apply, prune, status, events. Level-triggered; nothing is assumed."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from llamamodel_operator.api.base import API_VERSION, KIND
from llamamodel_operator.api.conditions import Reason
from llamamodel_operator.api.findings import Finding, FindingCode, Severity, sentence
from llamamodel_operator.api.labels import (
    APPLIED_HASH_ANNOTATION,
    CONTAINER,
    INSPECT_ANNOTATION,
    MANAGED_BY_LABEL,
    MANAGER,
    REVISION_LABEL,
)
from llamamodel_operator.api.llamamodel import InvalidLlamaModelError, LlamaModel
from llamamodel_operator.api.status import LlamaModelStatus
from llamamodel_operator.core.checks import revision_of
from llamamodel_operator.core.engine.buffer_log import tells_buffers
from llamamodel_operator.core.engine.proof import expected_of
from llamamodel_operator.core.inspection import Inspection, InspectionState, inspection_off
from llamamodel_operator.core.memory.comparison import estimate_ratios
from llamamodel_operator.core.objects.check import CHECK_CONTAINER
from llamamodel_operator.core.objects.deployment import has_keys
from llamamodel_operator.core.objects.drift import differences, with_foreign_items
from llamamodel_operator.core.objects.facts import FACTS_LABEL
from llamamodel_operator.core.objects.names import child_name
from llamamodel_operator.core.observed import Claim, Observed, Pod, Refusal
from llamamodel_operator.core.plan import Configuration, Plan, make_plan
from llamamodel_operator.core.pod_messages import refusal_reason
from llamamodel_operator.core.status import invalid_status, make_status, status_differs
from llamamodel_operator.shell.client import (
    CONFIG_MAPS,
    DEPLOYMENTS,
    MODELS,
    PERSISTENT_VOLUME_CLAIMS,
    PODS,
    ApiError,
    ClusterClient,
    Resource,
)
from llamamodel_operator.shell.events import transition_event
from llamamodel_operator.shell.gather import Gatherer
from llamamodel_operator.shell.inspecting import Inspector
from llamamodel_operator.shell.metrics import Metrics
from llamamodel_operator.shell.post_mortem import PostMortem
from llamamodel_operator.shell.prober import Prober
from llamamodel_operator.shell.store import CHILDREN, Key, Store, controller_uid, version_of

__all__ = ["Reconciler", "RefusedError"]

_log = logging.getLogger(__name__)
_RESOURCES: Mapping[str, Resource] = {resource.kind: resource for resource in CHILDREN}


class RefusedError(Exception):
    """Children could not be written; the status says why. The queue tries again, with growing pauses."""


class GoneError(Exception):
    """The LlamaModel of this pass does not exist any more, and no watch has told of it."""


class Reconciler:
    """Makes the cluster what LlamaModels say, one key at a time."""

    def __init__(
        self,
        *,
        client: ClusterClient,
        store: Store,
        metrics: Metrics,
        configuration: Configuration,
        gatherer: Gatherer,
        prober: Prober,
        now: Callable[[], datetime],
        again: Callable[[Key], None],
        inspector: Inspector | None = None,
        post_mortem: PostMortem | None = None,
    ) -> None:
        self._client = client
        self._store = store
        self._metrics = metrics
        self._configuration = configuration
        self._gatherer = gatherer
        self._prober = prober
        self._now = now
        self._again = again
        self._inspector = inspector
        self._post_mortem = post_mortem
        self._settled: dict[tuple[str, Key], frozenset[str]] = {}

    async def reconcile(self, key: Key) -> None:
        """One pass.

        Raises:
            RefusedError: a child was refused; the status has been written.
            ApiError: the API server could not be reached or is overloaded.
        """
        raw = self._store.get(MODELS, key)
        if raw is None or "deletionTimestamp" in raw["metadata"]:
            for resource in CHILDREN:
                self._settled.pop((resource.kind, Key(key.namespace, child_name(key.name))), None)
            self._prober.forget(key)
            self._metrics.show_memory_ratios(namespace=key.namespace, name=key.name, ratios={})
            self._gatherer.forget(key)
            if self._inspector is not None:
                self._inspector.forget(key)
            if self._post_mortem is not None:
                self._post_mortem.forget(key)
            return  # the garbage collector takes the children
        try:
            model = LlamaModel.parse(raw, defaults=self._configuration.defaults)
        except InvalidLlamaModelError as error:
            await self._write_status(raw, self._invalid(raw, str(error)))
            return
        try:
            await self._make_so(raw, model)
        except GoneError as error:
            _log.info("%s", error, extra=_about(model))

    async def _make_so(self, raw: Mapping[str, Any], model: LlamaModel) -> None:
        inspection = await self._inspect(model)
        facts = await self._gatherer.facts(model, inspection=inspection)
        plan = make_plan(model, configuration=self._configuration, facts=facts)
        refusals: list[Refusal] = []
        held_back = self._held_back(model, plan)
        left_alone = inspection.state in (InspectionState.PENDING, InspectionState.BAD)
        if held_back or left_alone:
            refusals += await self._keep_what_runs(model, plan)
        else:
            for child in plan.objects:
                if refusal := await self._apply(model, child):
                    if refusal.kind == "PodDisruptionBudget":
                        plan = _with_refused_budget(plan, refusal)
                        continue
                    refusals.append(refusal)
                    if refusal.reason is Reason.NOT_OURS or refusal.kind == "ConfigMap":
                        break  # what is still missing would serve nobody, and take a GPU
            else:
                await self._prune(model, plan)
        observed = self._observe(model, plan, refusals=tuple(refusals), held_back=held_back, left_alone=left_alone)
        if self._post_mortem is not None:
            observed = await self._post_mortem.look(model, plan=plan, observed=observed)
        self._compare(model, plan, observed)
        await self._write_status(raw, make_status(model, plan=plan, observed=observed, now=self._now()))
        if refusals:
            raise RefusedError("; ".join(refusal.message for refusal in refusals))

    async def _inspect(self, model: LlamaModel) -> Inspection:
        """Where the inspection of the files stands, after it was taken a step further."""
        if self._inspector is None:
            return inspection_off()
        step = await self._inspector.look(model, asked=model.annotations.get(INSPECT_ANNOTATION, ""))
        await self._inspector.act(model, step)
        return step.inspection

    def _held_back(self, model: LlamaModel, plan: Plan) -> str:
        """Why what runs is left as it is; empty where nothing speaks against the plan.

        What cannot work is not applied at all. What is only known not to start is, unless that would replace pods
        that serve.
        """
        if plan.errors:
            more = len(plan.errors) - 1
            others = f" (and {more} more in status.findings)" if more else ""
            return f"{sentence(plan.errors[0])}{others}"
        if plan.will_not_start is None:
            return ""
        live = self._store.get(DEPLOYMENTS, Key(model.namespace, plan.name))
        if live is None or controller_uid(live) != model.uid or revision_of(live) == plan.revision:
            return ""
        # What was ready a moment ago counts too: a pod that is not for a moment must not be replaced by one that
        # never will be.
        pods = [Pod.parse(pod, container=CONTAINER) for pod in self._pods_of(model, plan, live)]
        known = {c.get("type"): c for c in model.status.get("conditions") or []}
        served = any(pod.ready for pod in pods) or known.get("Available", {}).get("status") == "True"
        held_already = known.get("Accepted", {}).get("reason") == Reason.HELD_BACK
        if not served and not held_already:
            return ""
        return f"{plan.will_not_start}: the pods of the earlier spec keep serving"

    async def _keep_what_runs(self, model: LlamaModel, plan: Plan) -> list[Refusal]:
        """While a spec is held back, suspending and scaling work, and the Service is kept. Nothing is started from
        nothing: memoryPolicy may have it held, and its files may be bad."""
        live = self._store.get(DEPLOYMENTS, Key(model.namespace, plan.name))
        if live is None or controller_uid(live) != model.uid:
            return []
        service = next(child for child in plan.objects if child["kind"] == "Service")
        refusals = [refusal] if (refusal := await self._apply(model, service)) else []
        if live["spec"].get("replicas") in (0, model.spec.wanted_replicas):
            return refusals
        scale = {
            "apiVersion": "autoscaling/v1",
            "kind": "Scale",
            "metadata": {"name": plan.name, "namespace": model.namespace},
            "spec": {"replicas": model.spec.wanted_replicas},
        }
        try:
            await self._client.apply(DEPLOYMENTS, scale, subresource="scale")
        except ApiError as error:
            if error.transient or error.status in (401, 409):
                raise
            return [*refusals, _refusal(live, error)]
        if scaled := await self._client.get(DEPLOYMENTS, namespace=model.namespace, name=plan.name):
            self._store.put(DEPLOYMENTS, scaled)
        return refusals

    async def _apply(self, model: LlamaModel, desired: Mapping[str, Any]) -> Refusal | None:
        """Writes a child where it is missing or differs; says so where that is refused."""
        resource, key = _RESOURCES[desired["kind"]], Key.of(desired)
        live = self._store.get(resource, key)
        put_back, changed = False, set[str]()
        if live is None:
            live = await self._client.get(resource, namespace=key.namespace, name=key.name)
        # A child that is missing although it was there is missing perhaps since the model is gone too.
        if live is None and model.status and not await self._still_exists(Key(model.namespace, model.name), model.uid):
            raise GoneError("the LlamaModel is gone, its children are left to the garbage collector")
        if live is not None:
            if not _is_ours(live, desired, model):
                return _not_ours(desired, live)
            changed = set(differences(desired, live)) - self._settled.get((resource.kind, key), frozenset())
            if not changed:
                self._store.put(resource, live)
                return None
            put_back = _applied_hash(live) == _applied_hash(desired)
            desired = {**desired, "metadata": {**desired["metadata"], "uid": live["metadata"]["uid"]}}
        try:
            written = await self._write(resource, desired, live=live)
        except ApiError as error:
            if error.status == 409:
                self._store.discard(resource, key)  # the cache is behind: the next pass asks the API server
            if error.status in (401, 409) or (error.transient and "failed calling webhook" not in error.message):
                raise
            return _refusal(desired, error)
        if put_back and live is not None and version_of(written) != version_of(live):
            self._metrics.drift_repaired.labels(kind=resource.kind).inc()
            _log.warning("put %s back: %s", resource.kind, "; ".join(sorted(changed)), extra=_about(model))
        self._store.put(resource, written)
        self._settle(resource, key, frozenset(differences(desired, written)))
        return None

    async def _write(
        self, resource: Resource, desired: Mapping[str, Any], *, live: Mapping[str, Any] | None
    ) -> dict[str, Any]:
        """Server-side apply. Where a hand edit cannot stand beside it (a port under another number but the same name,
        a volume or probe of another kind), the lists with our items and the foreign ones replace the edited ones."""
        try:
            return await self._client.apply(resource, desired)
        except ApiError as error:
            if live is None or error.status != 422:
                raise
        content = "data" if resource is CONFIG_MAPS else "spec"
        whole = with_foreign_items(desired[content], live.get(content))
        await self._client.overwrite(resource, {**desired, content: whole})
        return await self._client.apply(resource, desired)

    def _settle(self, resource: Resource, key: Key, kept: frozenset[str]) -> None:
        """Remembers what the API server keeps otherwise than it was sent; sending it again would change nothing."""
        if kept:
            self._settled[resource.kind, key] = kept
            _log.info("%s %s is kept as: %s", resource.kind, key, "; ".join(sorted(kept)))
        else:
            self._settled.pop((resource.kind, key), None)

    async def _prune(self, model: LlamaModel, plan: Plan) -> None:
        """Deletes children of this very LlamaModel that the plan does not have any more."""
        wanted = {(child["kind"], Key.of(child)) for child in plan.objects}
        pods = self._store.select(PODS, Key(model.namespace, plan.name))
        rolled = all(
            _finished(pod) or (pod["metadata"].get("labels") or {}).get(REVISION_LABEL) == plan.revision for pod in pods
        )
        for resource in CHILDREN:
            if resource is CONFIG_MAPS and not rolled:
                continue  # pods of an earlier spec that start again still read theirs
            for live in self._store.select(resource, Key(model.namespace, plan.name)):
                if FACTS_LABEL in (live["metadata"].get("labels") or {}):
                    continue  # the inspector's
                ours = controller_uid(live) == model.uid
                managed = (live["metadata"].get("labels") or {}).get(MANAGED_BY_LABEL) == MANAGER
                key = Key.of(live)
                if ours and managed and (resource.kind, key) not in wanted and not _being_deleted(live):
                    _log.info("deleting %s %s, it is no longer wanted", resource.kind, key.name, extra=_about(model))
                    await self._client.delete(
                        resource, namespace=key.namespace, name=key.name, uid=live["metadata"]["uid"]
                    )

    def _pods_of(self, model: LlamaModel, plan: Plan, deployment: Mapping[str, Any] | None) -> list[dict[str, Any]]:
        """The pods of this model that have not finished; none where the Deployment is somebody else's."""
        if deployment is not None and controller_uid(deployment) != model.uid:
            return []
        return [pod for pod in self._store.select(PODS, Key(model.namespace, plan.name)) if not _finished(pod)]

    def _observe(
        self, model: LlamaModel, plan: Plan, *, refusals: tuple[Refusal, ...], held_back: str, left_alone: bool
    ) -> Observed:
        deployment = self._store.get(DEPLOYMENTS, Key(model.namespace, plan.name))
        pods = tuple(
            Pod.parse(pod, container=CONTAINER, check=CHECK_CONTAINER) for pod in self._pods_of(model, plan, deployment)
        )
        adapters = model.spec.lora_adapters
        servers = self._prober.reports(
            Key(model.namespace, model.name),
            [pod for pod in pods if pod.revision == (revision_of(deployment) if deployment else plan.revision)],
            scales=tuple(adapter.settled_scale for adapter in adapters) if adapters else None,
            read_log=model.spec.gpu is not None
            or tells_buffers(plan.command, env=model.spec.env or (), build=plan.build),
            expected=expected_of(
                model,
                plan.inspection.model if plan.inspection is not None else None,
                words=plan.command[1:],
                match=self._configuration.catalogues.match(plan.flags),
            ),
            # As the pods are that are asked: the spec may have changed since, and be held back.
            locked=deployment is not None and has_keys(deployment),
        )
        somebody_elses = deployment is not None and controller_uid(deployment) != model.uid
        return Observed(
            deployment=None if somebody_elses else deployment,
            pods=pods,
            claim=self._claim(model),
            refusals=refusals,
            held_back=held_back,
            left_alone=left_alone,
            servers=servers,
        )

    def _compare(self, model: LlamaModel, plan: Plan, observed: Observed) -> None:
        """Shows what a server took beside what was estimated, as metrics."""
        measured = next((r.measured for _, r in sorted(observed.servers.items()) if r.measured is not None), None)
        ratios = estimate_ratios(plan.estimate, measured) if plan.estimate and measured else {}
        self._metrics.show_memory_ratios(namespace=model.namespace, name=model.name, ratios=ratios)

    def _claim(self, model: LlamaModel) -> Claim:
        """The first claim that is not as it must be, else the model's."""
        claims = [
            _claim(name, self._store.get(PERSISTENT_VOLUME_CLAIMS, Key(model.namespace, name)), field=field)
            for name, field in model.spec.claims.items()
        ]
        return next((claim for claim in claims if claim.phase != "Bound" or claim.terminating), claims[0])

    def _invalid(self, raw: Mapping[str, Any], message: str) -> LlamaModelStatus:
        return invalid_status(
            generation=raw["metadata"].get("generation", 0),
            message=message,
            before=raw.get("status") or {},
            now=self._now(),
        )

    async def _write_status(self, raw: Mapping[str, Any], status: LlamaModelStatus) -> None:
        """The one status write of a pass, where something changed; then the event that tells of it."""
        before, desired = raw.get("status") or {}, status.to_wire()
        if not status_differs(desired, before):
            return
        metadata = raw["metadata"]
        identity = {"name": metadata["name"], "namespace": metadata["namespace"], "uid": metadata["uid"]}
        body = {"apiVersion": API_VERSION, "kind": KIND, "metadata": identity, "status": desired}
        try:
            written = await self._client.apply(MODELS, body, subresource="status")
        except ApiError as error:
            if error.status not in (404, 409):
                raise
            await self._still_exists(Key.of(raw), metadata["uid"])
            return
        self._store.put(MODELS, written)
        if written["metadata"].get("generation") != metadata.get("generation"):
            self._again(Key.of(raw))  # the answer brought a newer spec, its event will tell us nothing new
        if _build(desired) != _build(before):
            self._again(Key.of(raw))  # the plan of this pass did not know what a server says now
        _log.info("%s: %s", desired["phase"], _ready(desired).get("message", ""), extra={"model": str(Key.of(raw))})
        if event := transition_event(metadata, before=_ready(before), after=_ready(desired), now=self._now()):
            await event.send(self._client)

    async def _still_exists(self, key: Key, uid: str) -> bool:
        """Asks the API server; where the LlamaModel is gone, or another one bears its name, the cache learns of it."""
        live = await self._client.get(MODELS, namespace=key.namespace, name=key.name)
        if live is None or live["metadata"]["uid"] != uid:
            self._store.discard(MODELS, key)
        if live is not None and self._store.put(MODELS, live):
            self._again(key)
        return live is not None and bool(live["metadata"]["uid"] == uid)

    def models_by_phase(self) -> Mapping[str, int]:
        """How many LlamaModels stand where, as their status says."""
        phases: Counter[str] = Counter()
        for key in self._store.keys(MODELS):
            raw = self._store.get(MODELS, key) or {}
            phases[(raw.get("status") or {}).get("phase") or "Unknown"] += 1
        return phases


def _claim(name: str, raw: Mapping[str, Any] | None, *, field: str) -> Claim:
    if raw is None:
        return Claim(name=name, phase="", field=field)
    phase = raw["status"]["phase"] or "Pending"
    return Claim(name=name, phase=phase, field=field, terminating=_being_deleted(raw))


def _is_ours(live: Mapping[str, Any], desired: Mapping[str, Any], model: LlamaModel) -> bool:
    """Ours by its owner; or ours by its marks where it has no owner any more (deleted with --cascade=orphan)."""
    owner = controller_uid(live)
    if owner is not None:
        return owner == model.uid
    labels, wanted = live["metadata"].get("labels") or {}, desired["metadata"]["labels"]
    return _applied_hash(live) is not None and all(labels.get(key) == value for key, value in wanted.items())


def _applied_hash(raw: Mapping[str, Any]) -> str | None:
    return (raw["metadata"].get("annotations") or {}).get(APPLIED_HASH_ANNOTATION)


def _being_deleted(raw: Mapping[str, Any]) -> bool:
    return "deletionTimestamp" in raw["metadata"]


def _finished(pod: Mapping[str, Any]) -> bool:
    return (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")


def _ready(status: Mapping[str, Any]) -> Mapping[str, Any]:
    return next((c for c in status.get("conditions") or [] if c.get("type") == "Ready"), {})


def _build(status: Mapping[str, Any]) -> object:
    return (status.get("engine") or {}).get("build")


def _not_ours(desired: Mapping[str, Any], live: Mapping[str, Any]) -> Refusal:
    kind, name = desired["kind"], desired["metadata"]["name"]
    owner = next((o for o in live["metadata"].get("ownerReferences") or [] if o.get("controller")), None)
    belongs = f"belongs to {owner['kind']} {owner['name']}" if owner else "was not made by this operator"
    return Refusal(
        kind=kind,
        name=name,
        reason=Reason.NOT_OURS,
        message=f"{kind} {name} already exists and {belongs}; it is left as it is: rename or delete it, or give the"
        " LlamaModel another name",
    )


def _with_refused_budget(plan: Plan, refusal: Refusal) -> Plan:
    """The model serves without: that is worth a warning, and no more."""
    finding = Finding(
        severity=Severity.WARNING,
        code=FindingCode.NO_DISRUPTION_BUDGET,
        field="spec.replicas",
        message=f"draining a node may take several pods at once: {refusal.message}",
    )
    return replace(plan, findings=(*plan.findings, finding))


def _refusal(desired: Mapping[str, Any], error: ApiError) -> Refusal:
    kind, name = desired["kind"], desired["metadata"]["name"]
    reason = refusal_reason(error.message, otherwise=Reason.FORBIDDEN if error.status == 403 else Reason.OBJECT_REFUSED)
    return Refusal(
        kind=kind, name=name, reason=reason, message=f"the API server refuses {kind} {name}: {error.message}"
    )


def _about(model: LlamaModel) -> dict[str, str]:
    return {"model": f"{model.namespace}/{model.name}"}
