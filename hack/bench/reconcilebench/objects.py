"""The bodies of all writes, made by the project's own plan and status and serialised before any clock starts."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import orjson

from llamamodel_operator.api.base import API_VERSION, GROUP, KIND, PLURAL, VERSION
from llamamodel_operator.api.labels import MANAGER
from llamamodel_operator.api.llamamodel import LlamaModel
from llamamodel_operator.core.facts import Facts
from llamamodel_operator.core.inspection import inspection_off
from llamamodel_operator.core.observed import Claim, Observed
from llamamodel_operator.core.plan import Configuration, make_plan
from llamamodel_operator.core.status import make_status

__all__ = ["CLAIM", "MANAGER", "UID_PLACEHOLDER", "Bodies", "Paths", "make_bodies"]

CLAIM = "models"
UID_PLACEHOLDER = b"00000000-0000-4000-8000-000000000000"
"""Stands where the UID of the LlamaModel goes; the API server makes that up when the model is created."""

_CREATOR = "llamamodel-bench"


@dataclass(frozen=True, kw_only=True)
class Paths:
    """URL paths of the collections of one namespace."""

    namespace: str

    @property
    def models(self) -> str:
        return f"/apis/{GROUP}/{VERSION}/namespaces/{self.namespace}/{PLURAL}"

    @property
    def create_models(self) -> str:
        return f"{self.models}?fieldManager={_CREATOR}"

    @property
    def deployments(self) -> str:
        return f"/apis/apps/v1/namespaces/{self.namespace}/deployments"

    @property
    def services(self) -> str:
        return f"/api/v1/namespaces/{self.namespace}/services"

    @property
    def claims(self) -> str:
        return f"/api/v1/namespaces/{self.namespace}/persistentvolumeclaims"


@dataclass(frozen=True, kw_only=True)
class Bodies:
    """One model as sent by the creator, and what the operator is to make of it."""

    name: str
    model: bytes
    deployment: bytes
    service: bytes
    status: bytes


def make_bodies(*, namespace: str, count: int, configuration: Configuration) -> tuple[Bodies, ...]:
    """Bodies for `count` models, all alike but for their names and files."""
    now = datetime.now(UTC)
    return tuple(
        _bodies(name=f"model-{number:05d}", namespace=namespace, configuration=configuration, now=now)
        for number in range(count)
    )


def _bodies(*, name: str, namespace: str, configuration: Configuration, now: datetime) -> Bodies:
    uid = UID_PLACEHOLDER.decode()
    identity = {"name": name, "namespace": namespace}
    raw: dict[str, Any] = {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": identity,
        "spec": {
            "model": {"pvc": {"claimName": CLAIM, "path": f"qwen3/{name}-Q4_K_M.gguf"}},
            "servedModelName": f"served-{name}",
            "gpu": {"count": 1},
            "resources": {"requests": {"cpu": "500m", "memory": "2Gi"}, "limits": {"memory": "8Gi"}},
            "engine": {"contextSize": 8192, "parallelSlots": 4, "gpuLayers": "all"},
        },
    }
    model = LlamaModel.parse({**raw, "metadata": {**identity, "uid": uid, "generation": 1}})
    plan = make_plan(model, configuration=configuration, facts=Facts(inspection=inspection_off(), nodes=()))
    children = {child["kind"]: child for child in plan.objects}
    if set(children) != {"Deployment", "Service"}:
        raise ValueError(f"the floor knows Deployment and Service, the plan has {', '.join(sorted(children))}")
    observed = Observed(deployment=children["Deployment"], claim=Claim(name=CLAIM, phase="Bound"))
    status = make_status(model, plan=plan, observed=observed, now=now).to_wire()
    return Bodies(
        name=name,
        model=orjson.dumps(raw),
        deployment=orjson.dumps(children["Deployment"]),
        service=orjson.dumps(children["Service"]),
        status=orjson.dumps(
            {"apiVersion": API_VERSION, "kind": KIND, "metadata": {**identity, "uid": uid}, "status": status}
        ),
    )
