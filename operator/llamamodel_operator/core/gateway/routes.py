"""Which LlamaModel a request means, and which of its pods may take it: from what the API server has alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from llamamodel_operator.api.conditions import ConditionType
from llamamodel_operator.api.engine import DEFAULT_PARALLEL_SLOTS, DEFAULT_QUEUE_LIMIT
from llamamodel_operator.api.findings import FindingCode
from llamamodel_operator.api.llamamodel import with_defaults
from llamamodel_operator.api.spec import Task
from llamamodel_operator.core.gateway.standing import Standing, standing_of

__all__ = ["ServedModel", "Target", "build_routes", "ready_addresses", "served_model"]

_SERVICE_LABEL = "kubernetes.io/service-name"
_PORT_NAME = "http"


@dataclass(frozen=True, kw_only=True)
class ServedModel:
    """A LlamaModel as clients of the gateway see it.

    Attributes:
        created: RFC 3339, as the API server has it: orders by age.
        served_name: under which its servers know it.
        standing: how well it stands to have this name as a bare one.
        adapters: names of its LoRA adapters, in the order of their ids.
        phase: of its status; empty where the operator has not seen it yet.
        reason, message: of its condition Ready.
        context_tokens: of all slots together; None where it is not settled.
        startup_timeout_sec: that a pod may take to load; None where it is not settled.
        http_threads: of each of its servers: as many requests may be at one at a time.
        progressing: whether the operator expects it to get further without anybody doing anything.
        startup_deadline: RFC 3339, by which the pod that loads it must answer; empty where none loads.
        metrics: whether its servers tell what they have to do.
        locked: whether its servers want the key of its namespace.
        grammar: whether its servers hold every answer to a grammar.
        stop: texts at which an answer ends where the request names none: its servers do not know them.
        max_tokens: of an answer where the request says nothing; -1: no limit; None: the LlamaModel says nothing.
        system_prompt: of a conversation without one, where its servers do not put it in themselves; else empty.
    """

    namespace: str
    name: str
    created: str = ""
    served_name: str
    standing: Standing = Standing.WANTS
    task: str = Task.GENERATE
    adapters: tuple[str, ...] = ()
    phase: str = ""
    reason: str = ""
    message: str = ""
    context_tokens: int | None = None
    startup_timeout_sec: int | None = None
    http_threads: int = DEFAULT_PARALLEL_SLOTS + DEFAULT_QUEUE_LIMIT
    progressing: bool = False
    startup_deadline: str = ""
    metrics: bool = True
    locked: bool = False
    grammar: bool = False
    stop: tuple[str, ...] = ()
    max_tokens: int | None = None
    system_prompt: str = ""

    @property
    def full_name(self) -> str:
        """The name that is its own in every gateway."""
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, kw_only=True)
class Target:
    """What a name means.

    Attributes:
        adapter: id of the LoRA adapter that was asked for by `name:adapter`; None where none was.
    """

    model: ServedModel
    adapter: int | None = None


@dataclass(frozen=True)
class Routes:
    """Names and what they mean; made by `build_routes`."""

    by_name: Mapping[str, ServedModel] = field(default_factory=dict)
    """All names, full ones and bare ones."""
    shadowed: tuple[ServedModel, ...] = ()
    """Those whose bare name another one has, or had: they answer to their full name alone."""

    def find(self, name: str) -> Target | None:
        """What the `model` of a request means; None where nothing has this name.

        A name that holds a colon as it stands is looked up before a part of it is taken for an adapter's.
        """
        if (model := self.by_name.get(name)) is not None:
            return Target(model=model)
        base, colon, adapter = name.rpartition(":")
        model = self.by_name.get(base) if colon else None
        if model is None or adapter not in model.adapters:
            return None
        return Target(model=model, adapter=model.adapters.index(adapter))

    def again(self, target: Target) -> Target | None:
        """The same LlamaModel and adapter as they are now, whatever became of the name; None where they are gone."""
        model = self.by_name.get(target.model.full_name)
        if model is None or target.adapter is None:
            return Target(model=model) if model else None
        adapter = target.model.adapters[target.adapter]
        return Target(model=model, adapter=model.adapters.index(adapter)) if adapter in model.adapters else None

    def full_names(self, name: str) -> tuple[str, ...]:
        """Under which names those answer that are served under this one and have it not, in order; `name` may ask for
        an adapter."""
        base, colon, adapter = name.rpartition(":")
        found = [model.full_name for model in self.shadowed if model.served_name == name]
        if colon:
            found += [
                f"{model.full_name}:{adapter}"
                for model in self.shadowed
                if model.served_name == base and adapter in model.adapters
            ]
        return tuple(sorted(found))

    def names(self) -> Iterator[str]:
        """All names that clients may use, adapters' too, in order."""
        for name in sorted(self.by_name):
            yield name
            yield from (f"{name}:{adapter}" for adapter in self.by_name[name].adapters)

    def models(self) -> Iterator[tuple[str, ServedModel]]:
        """Each LlamaModel once, in order, under the shortest name that it has here."""
        best: dict[str, str] = {}
        for name, model in self.by_name.items():
            if name != model.full_name or model.full_name not in best:
                best[model.full_name] = name
        for full_name in sorted(best):
            yield best[full_name], self.by_name[best[full_name]]


def build_routes(models: Iterable[ServedModel], *, bare_namespaces: frozenset[str] | None = None) -> Routes:
    """The names of all models.

    A full name is always the LlamaModel's own: nobody takes `team-b/chat` by serving another under this name. A bare
    name belongs to who has been serving it, then to the elder, but to none that it was refused to.

    Args:
        models: all that the gateway may route to.
        bare_namespaces: whose models have bare names, too; None: all.
    """
    named, shadowed = dict[str, ServedModel](), list[ServedModel]()
    ordered = sorted(models, key=lambda model: (model.standing, model.created, model.full_name))
    for model in ordered:
        named[model.full_name] = model
    for model in ordered:
        if bare_namespaces is not None and model.namespace not in bare_namespaces:
            continue
        name = model.served_name
        holder = named.get(name) if model.standing is Standing.REFUSED else named.setdefault(name, model)
        if holder is not model:
            shadowed.append(model)
    return Routes(named, tuple(shadowed))


def served_model(raw: Mapping[str, Any], *, defaults: Mapping[str, Any] | None = None) -> ServedModel:
    """From an object as the API server has it: its schema was checked there.

    Args:
        defaults: the operator's, a part of a spec; the chart gives a gateway of them the fields that are read here.
    """
    metadata, status = raw["metadata"], raw.get("status") or {}
    spec = with_defaults(raw.get("spec") or {}, defaults or {})
    conditions: Sequence[Mapping[str, Any]] = status.get("conditions") or ()
    by_type = {one.get("type"): one for one in conditions}
    ready, progressing = by_type.get(ConditionType.READY, {}), by_type.get(ConditionType.PROGRESSING, {})
    settled = (status.get("engine") or {}).get("settled") or {}
    request = spec.get("requestDefaults") or {}
    found = {finding.get("code") for finding in status.get("findings") or ()}
    name = spec.get("servedModelName") or metadata["name"]
    return ServedModel(
        namespace=metadata["namespace"],
        name=metadata["name"],
        created=metadata.get("creationTimestamp") or "",
        served_name=name,
        standing=standing_of(raw, name=name),
        task=spec.get("task") or Task.GENERATE,
        adapters=tuple(adapter.get("name") or "" for adapter in spec.get("loraAdapters") or ()),
        phase=status.get("phase") or "",
        reason=ready.get("reason") or "",
        message=ready.get("message") or "",
        context_tokens=_number((spec.get("engine") or {}).get("contextSize")) or _number(settled.get("contextSize")),
        startup_timeout_sec=_number(spec.get("startupTimeoutSec")) or _number(settled.get("startupTimeoutSec")),
        http_threads=_http_threads(spec.get("engine") or {}),
        progressing=progressing.get("status") == "True",
        startup_deadline=status.get("startupDeadline") or "",
        metrics=(spec.get("endpoints") or {}).get("metrics") is not False,
        locked=bool(spec.get("apiKeySecretRef")),
        grammar=bool(spec.get("grammar")),
        stop=tuple(request.get("stop") or ()),
        max_tokens=_number(request.get("max_tokens")),
        # Only what the operator could not put into the template. Prompts in ConfigMaps cannot be read here.
        system_prompt=(spec.get("systemPrompt") or {}).get("inline") or ""
        if FindingCode.SYSTEM_PROMPT_UNUSED in found
        else "",
    )


def _http_threads(engine: Mapping[str, Any]) -> int:
    """As `EngineSpec.settled_http_threads` has it."""
    slots, limit = _number(engine.get("parallelSlots")), _number(engine.get("queueLimit"))
    return (slots or DEFAULT_PARALLEL_SLOTS) + (limit or DEFAULT_QUEUE_LIMIT)


def _number(value: object) -> int | None:
    """None for what is settled by the operator: `auto`, or nothing."""
    return value if isinstance(value, int) else None


def ready_addresses(endpoint_slice: Mapping[str, Any]) -> tuple[str, tuple[str, ...]]:
    """Name of the Service that an EndpointSlice belongs to, and `host:port` of each of its pods that takes requests.

    A pod that is to stop takes none, also where the slice says that it still serves.
    """
    labels = endpoint_slice["metadata"].get("labels") or {}
    ports = (port for port in endpoint_slice.get("ports") or () if port.get("name") == _PORT_NAME)
    number = next((port.get("port") for port in ports), None)
    found = []
    for endpoint in endpoint_slice.get("endpoints") or () if number else ():
        conditions = endpoint.get("conditions") or {}
        # Not said is ready, by the API's own words.
        if conditions.get("ready") is False or conditions.get("terminating"):
            continue
        for address in (endpoint.get("addresses") or ())[:1]:
            found.append(f"[{address}]:{number}" if ":" in address else f"{address}:{number}")
    return labels.get(_SERVICE_LABEL) or "", tuple(sorted(found))
