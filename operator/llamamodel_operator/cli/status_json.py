"""What `llamamodel status -o json` prints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llamamodel_operator.cli.live import Look, NotReadable
from llamamodel_operator.cli.observing import Observation
from llamamodel_operator.cli.pods import container_of, image_of, is_ready, state_of
from llamamodel_operator.cli.rate_report import rates_json
from llamamodel_operator.cli.terminal import json_text

__all__ = ["status_json"]


def status_json(seen: Observation) -> str:
    """One object; what the operator says has the names that it has in the status."""
    status, metadata = seen.model.get("status") or {}, seen.model["metadata"]
    passed_on = (
        "phase",
        "observedGeneration",
        "replicas",
        "readyReplicas",
        "conditions",
        "model",
        "memory",
        "findings",
        "lastFailure",
        "endpoint",
        "servedModelName",
        "engine",
        "command",
    )
    pods = () if isinstance(seen.pods, NotReadable) else seen.pods
    return json_text(
        {
            "name": metadata["name"],
            "namespace": metadata["namespace"],
            "generation": metadata.get("generation"),
            "ready": seen.ready,
            **{key: status.get(key) for key in passed_on},
            "pods": [_pod_json(pod) for pod in pods],
            "podsNotReadable": seen.pods.why if isinstance(seen.pods, NotReadable) else None,
            "servers": [_look_json(look) for look in seen.looks],
            **rates_json(seen.rates),
        }
    )


def _pod_json(pod: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "name": pod["metadata"]["name"],
        "node": (pod.get("spec") or {}).get("nodeName"),
        "ready": is_ready(pod),
        "state": state_of(pod),
        "restarts": container_of(pod).get("restartCount") or 0,
        "created": pod["metadata"].get("creationTimestamp"),
        "image": image_of(pod),
    }


def _look_json(look: Look) -> dict[str, Any]:
    parts = (("build", look.build), ("slots", look.slots), ("metrics", look.counters))
    slots = None if isinstance(look.slots, NotReadable) else look.slots
    counters = None if isinstance(look.counters, NotReadable) else look.counters
    return {
        "pod": look.server,
        "build": None if isinstance(look.build, NotReadable) else look.build,
        "slots": slots
        and [
            {"id": slot.number, "busy": slot.busy, "tokens": slot.tokens, "contextSize": slot.context_size}
            for slot in slots
        ],
        "requestsProcessing": counters and counters.processing,
        "requestsDeferred": counters and counters.deferred,
        "promptTokensTotal": counters and counters.prompt_tokens,
        "generatedTokensTotal": counters and counters.generated_tokens,
        "notReadable": {what: value.why for what, value in parts if isinstance(value, NotReadable)},
    }
