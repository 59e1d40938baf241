"""Renews the schemas of Kubernetes' own types that the CRD and the chart's values contain, from a running API server.

    python3 hack/openapi > operator/llamamodel_operator/api/kubernetes_schemas.json
    python3 hack/openapi chart > hack/chart/kubernetes_types.json

The server is the one of the current kubeconfig (`kubectl` is used). What comes out is structural: references are
resolved, and what a CRD may not contain is left out.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

CORE = "/openapi/v3/api/v1"
TYPES = {
    CORE: (
        "core.v1.Affinity",
        "core.v1.EnvVar",
        "core.v1.PodSecurityContext",
        "core.v1.Toleration",
        "core.v1.TopologySpreadConstraint",
    )
}
"""Names of types by the path of the document that has them."""
CHART_TYPES = {
    CORE: ("core.v1.Volume", "core.v1.VolumeMount"),
    "/openapi/v3/apis/autoscaling/v2": ("autoscaling.v2.HorizontalPodAutoscalerBehavior", "autoscaling.v2.MetricSpec"),
    "/openapi/v3/apis/networking.k8s.io/v1": ("networking.v1.NetworkPolicyPeer",),
}
"""Those that only the chart's values have."""
KEPT = (
    "type",
    "format",
    "required",
    "enum",
    "x-kubernetes-list-type",
    "x-kubernetes-list-map-keys",
    "x-kubernetes-map-type",
)
INT_OR_STRING = ("io.k8s.apimachinery.pkg.util.intstr.IntOrString", "io.k8s.apimachinery.pkg.api.resource.Quantity")


def main() -> None:
    """Prints the schemas of TYPES, or of CHART_TYPES, as JSON."""
    version = json.loads(_kubectl("version", "-o", "json"))["serverVersion"]["gitVersion"]
    types: dict[str, Any] = {}
    for_chart = sys.argv[1:] == ["chart"]
    for path, names in (CHART_TYPES if for_chart else TYPES).items():
        schemas = json.loads(_kubectl("get", "--raw", path))["components"]["schemas"]
        types |= {name: structural(schemas[f"io.k8s.api.{name}"], schemas) for name in names}
    if for_chart:
        types = _without_prose(types)
    json.dump({"kubernetes": version, "types": types}, sys.stdout, indent=1, sort_keys=True)
    print()


def structural(schema: dict[str, Any], schemas: dict[str, Any]) -> dict[str, Any]:
    """The schema without references, in what a CRD may contain."""
    result = {key: schema[key] for key in KEPT if key in schema}
    if description := schema.get("description"):
        result["description"] = " ".join(description.split())
    for reference in (schema, *schema.get("allOf", ())):
        if "$ref" in reference:
            name = reference["$ref"].rsplit("/", 1)[-1]
            target = (
                {"x-kubernetes-int-or-string": True} if name in INT_OR_STRING else structural(schemas[name], schemas)
            )
            result = target | result
    if "properties" in schema:
        result["properties"] = {name: structural(field, schemas) for name, field in schema["properties"].items()}
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            result[key] = structural(schema[key], schemas)
    return result


def _without_prose(value: Any) -> Any:
    """The same without descriptions, which are strings: a property of that name is an object."""
    if not isinstance(value, dict):
        return value
    kept = {key: part for key, part in value.items() if key != "description" or not isinstance(part, str)}
    return {key: _without_prose(part) for key, part in kept.items()}


def _kubectl(*arguments: str) -> str:
    return subprocess.run(["kubectl", *arguments], check=True, capture_output=True, text=True).stdout


if __name__ == "__main__":
    main()
