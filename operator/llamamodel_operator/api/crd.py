"""Generates the CustomResourceDefinition from the types: `python -m llamamodel_operator.api.crd`."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

import yaml

from llamamodel_operator.api.base import GROUP, KIND, PLURAL, VERSION, ApiModel
from llamamodel_operator.api.spec import LlamaModelSpec
from llamamodel_operator.api.status import LlamaModelStatus

__all__ = ["custom_resource_definition", "main"]

_HEADER = "# Generated from operator/llamamodel_operator/api by `make generate`. Do not edit.\n"

_COLUMNS: list[dict[str, Any]] = [
    {"name": "Phase", "type": "string", "jsonPath": ".status.phase"},
    {"name": "Ready", "type": "string", "jsonPath": '.status.conditions[?(@.type=="Ready")].status'},
    {"name": "Model", "type": "string", "jsonPath": ".status.model.summary"},
    {"name": "Memory", "type": "string", "jsonPath": ".status.memory.summary"},
    {"name": "Endpoint", "type": "string", "jsonPath": ".status.endpoint"},
    {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
    {"name": "Fits", "type": "string", "priority": 1, "jsonPath": ".status.memory.fits"},
    {"name": "Context", "type": "integer", "priority": 1, "jsonPath": ".status.memory.contextSize"},
    {"name": "Alias", "type": "string", "priority": 1, "jsonPath": ".status.servedModelName"},
    {"name": "Pods", "type": "integer", "priority": 1, "jsonPath": ".status.readyReplicas"},
    {"name": "Image", "type": "string", "priority": 1, "jsonPath": ".status.engine.image"},
    {
        "name": "Message",
        "type": "string",
        "priority": 1,
        "jsonPath": '.status.conditions[?(@.type=="Ready")].message',
    },
]


def custom_resource_definition() -> dict[str, Any]:
    """The CRD as the API server takes it: structural, with CEL rules, defaults, columns and subresources."""
    spec = structural_schema(LlamaModelSpec)
    spec["properties"]["replicas"]["default"] = 1  # what `kubectl scale` and autoscalers read
    schema = {
        "type": "object",
        "description": "A LlamaModel says which GGUF model to serve with llama-server, and how.",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": spec,
            "status": structural_schema(LlamaModelStatus),
        },
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{PLURAL}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "names": {
                "kind": KIND,
                "listKind": f"{KIND}List",
                "plural": PLURAL,
                "singular": KIND.lower(),
                "shortNames": ["lm", "llama"],
                "categories": ["all"],
            },
            "scope": "Namespaced",
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "additionalPrinterColumns": _COLUMNS,
                    "subresources": {
                        "status": {},
                        "scale": {
                            "specReplicasPath": ".spec.replicas",
                            "statusReplicasPath": ".status.replicas",
                            "labelSelectorPath": ".status.selector",
                        },
                    },
                    "schema": {"openAPIV3Schema": schema},
                }
            ],
        },
    }


def structural_schema(model: type[ApiModel]) -> dict[str, Any]:
    """The type's JSON schema in the subset that Kubernetes calls structural: no references, no unions."""
    schema = model.model_json_schema(by_alias=True)
    return _Structural(definitions=schema.pop("$defs", {})).convert(schema)


class _Structural:
    """One conversion, with the definitions that references point to."""

    def __init__(self, *, definitions: Mapping[str, Any]) -> None:
        self._definitions = definitions

    def convert(self, schema: Mapping[str, Any]) -> dict[str, Any]:
        if name := schema.get("x-llamamodel-kubernetes-type"):
            return kubernetes_schema(name) | _prose(schema)
        if "$ref" in schema:
            target = self._definitions[schema["$ref"].removeprefix("#/$defs/")]
            return self.convert({**target, **{k: v for k, v in schema.items() if k != "$ref"}})
        if schema.get("x-kubernetes-int-or-string"):
            kept = ("x-kubernetes-int-or-string", "x-kubernetes-validations", "maxLength")
            return self._plain({key: schema[key] for key in kept if key in schema}) | _prose(schema)
        if "anyOf" in schema:
            (only,) = [branch for branch in schema["anyOf"] if branch.get("type") != "null"]
            rest = {k: v for k, v in schema.items() if k not in ("anyOf", "default")}
            return self.convert({**only, **rest})
        return self._plain(schema)

    def _plain(self, schema: Mapping[str, Any]) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key, value in schema.items():
            match key:
                case "title":
                    continue
                case "default":
                    continue  # stored in every object, it would hide the defaults of the operator's configuration
                case "additionalProperties" if schema.get("x-kubernetes-preserve-unknown-fields"):
                    continue
                case "const":
                    result["enum"] = [value]
                case "properties":
                    result[key] = {name: self.convert(field) for name, field in value.items()}
                case "items" | "additionalProperties":
                    result[key] = self.convert(value) if isinstance(value, dict) else value
                case "x-kubernetes-validations":
                    result[key] = [dict(rule) for rule in value]  # shared ones would become YAML aliases
                case "description":
                    result[key] = " ".join(value.split())
                case _:
                    result[key] = value
        return result


def _prose(schema: Mapping[str, Any]) -> dict[str, str]:
    description = schema.get("description")
    return {"description": " ".join(description.split())} if description else {}


def kubernetes_schema(name: str) -> dict[str, Any]:
    """Kubernetes' own type in structural form, from the definitions that the API server publishes.

    `name` is such as `core.v1.Toleration`. `hack/openapi` renews the file.
    """
    text = files("llamamodel_operator.api").joinpath("kubernetes_schemas.json").read_text(encoding="utf-8")
    schema: dict[str, Any] = json.loads(text)["types"][name]
    return schema


def main() -> None:
    """Writes the CRD as YAML to standard output."""
    sys.stdout.write(_HEADER)
    yaml.safe_dump(custom_resource_definition(), sys.stdout, sort_keys=False, width=110, allow_unicode=True)


if __name__ == "__main__":
    main()
