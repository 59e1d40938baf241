"""Which rights a service account has by roles as YAML, and which of them it used, as the audit log tells."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Right", "granted", "used"]


@dataclass(frozen=True, kw_only=True, order=True)
class Right:
    """One verb on one resource. `namespace` is empty for the whole cluster, `name` where all objects are meant."""

    verb: str
    group: str
    resource: str
    namespace: str
    name: str = ""

    def covers(self, other: Right) -> bool:
        """Whether this right allows that request."""
        return (
            (self.verb, self.group, self.resource) == (other.verb, other.group, other.resource)
            and self.namespace in ("", other.namespace)
            and self.name in ("", other.name)
        )

    def __str__(self) -> str:
        return f"{self.verb} {self.resource}{f'.{self.group}' if self.group else ''}" + (
            f" {self.name}" * bool(self.name)
        )


def granted(objects: Iterable[Mapping[str, Any]], *, account: str) -> Iterator[Right]:
    """All rights that bindings give to this account."""
    documents = list(objects)
    for binding in documents:
        if not binding["kind"].endswith("Binding") or binding["subjects"][0]["name"] != account:
            continue
        namespace = binding["metadata"].get("namespace", "")
        [role] = [
            found
            for found in documents
            if found["kind"] == binding["roleRef"]["kind"]
            and found["metadata"]["name"] == binding["roleRef"]["name"]
            and found["metadata"].get("namespace", "") == namespace
        ]
        for rule in role["rules"]:
            for group in rule["apiGroups"]:
                for resource in rule["resources"]:
                    for verb in rule["verbs"]:
                        for name in rule.get("resourceNames", [""]):
                            yield Right(verb=verb, group=group, resource=resource, namespace=namespace, name=name)


def used(audit_log: Path, *, user: str, since: int) -> tuple[set[Right], list[str]]:
    """What this user asked for from an offset in the log on, and what it was refused (403). To apply what is not there
    yet needs `create` as well."""
    rights, refused = set(), []
    with audit_log.open("rb") as file:
        file.seek(since)
        lines = file.read().split(b"\n")[:-1]
    for line in lines:
        event = json.loads(line)
        target = event.get("objectRef")
        if event["user"]["username"] != user or target is None:
            continue
        code = event.get("responseStatus", {}).get("code", 0)
        subresource = f"/{target['subresource']}" if target.get("subresource") else ""
        right = Right(
            verb=event["verb"],
            group=target.get("apiGroup", ""),
            resource=target["resource"] + subresource,
            namespace=target.get("namespace", ""),
            name=target.get("name", ""),
        )
        rights.add(right)
        if (right.verb, code) == ("patch", 201):
            rights.add(Right(**{**vars(right), "verb": "create"}))
        if code == 403:
            refused.append(
                f"{right} in {right.namespace or 'the cluster'}: {event['responseStatus'].get('message', '')}"
            )
    return rights, refused
