"""ConfigMaps: texts that llama-server reads from files, and the scales of its LoRA adapters.

Their names carry a digest of what pods rely on, so that a pod of an earlier spec that is started again still finds
what its command line names; the reconciler deletes them when no such pod is left.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from llamamodel_operator.api.labels import WATCH_LABEL
from llamamodel_operator.api.llamamodel import LlamaModel
from llamamodel_operator.core.engine.settings import plain_number
from llamamodel_operator.core.objects.names import child_metadata, child_name

__all__ = ["build_scales", "build_texts"]


def build_texts(model: LlamaModel, files: Mapping[str, str]) -> dict[str, Any] | None:
    """Templates, grammars and schemas by file name; None where there are none. Never changed, only replaced."""
    if not files:
        return None
    digest = hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()[:8]
    return {**_config_map(model, f"texts-{digest}", files), "immutable": True}


def build_scales(model: LlamaModel) -> dict[str, Any] | None:
    """The scale of each adapter by its name; None where there are no adapters. A changed scale is a changed value:
    the environment of a container that starts anew has it."""
    if not model.spec.lora_adapters:
        return None
    scales = {adapter.name: plain_number(adapter.settled_scale) for adapter in model.spec.lora_adapters}
    digest = hashlib.sha256(json.dumps(sorted(scales)).encode()).hexdigest()[:8]
    return _config_map(model, f"scales-{digest}", scales)


def _config_map(model: LlamaModel, suffix: str, data: Mapping[str, str]) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": child_metadata(model, name=f"{child_name(model.name)}-{suffix}", also={WATCH_LABEL: "true"}),
        "data": dict(data),
    }
