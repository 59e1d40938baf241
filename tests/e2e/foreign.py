"""A cluster that somebody else made, by its kubeconfig: what the end-to-end tests are told of it, and leave behind.

The tests install the operator there as they do in a cluster of their own, and take it away again. Settings are
environment variables, so that `make e2e` takes them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from localcluster.gpus import FAKE_LABEL, labels_patch, status_patch

from support.kube import Kube, eventually

__all__ = ["CRD", "FAKE_GPUS", "KUBECONFIG", "Settings", "borrowed", "has_fake_gpus", "is_meant"]

KUBECONFIG = "E2E_KUBECONFIG"
OPERATOR_IMAGE = "E2E_OPERATOR_IMAGE"
ENGINE_IMAGE = "E2E_ENGINE_IMAGE"
STORAGE_CLASS = "E2E_STORAGE_CLASS"
FAKE_GPUS = "E2E_FAKE_GPUS"
CRD = "llamamodels.llamamodel.dev"
GPUS = 2


def is_meant() -> bool:
    """Whether the tests are to run on such a cluster."""
    return bool(os.environ.get(KUBECONFIG))


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is said of the cluster."""

    kubeconfig: Path
    operator_image: str
    engine_image: str
    storage_class: str
    """Empty for the cluster's default."""
    fake_gpus: bool

    @classmethod
    def read(cls, environ: Mapping[str, str] = os.environ) -> Settings:
        """From the environment; fails with all that is missing."""
        missing = [name for name in (OPERATOR_IMAGE, ENGINE_IMAGE) if not environ.get(name)]
        if missing:
            pytest.fail(f"{KUBECONFIG} needs {' and '.join(missing)}: images that nodes have or can get", pytrace=False)
        kubeconfig = Path(environ[KUBECONFIG]).resolve()
        if not kubeconfig.is_file():
            pytest.fail(f"{KUBECONFIG}: there is no file {kubeconfig}", pytrace=False)
        return cls(
            kubeconfig=kubeconfig,
            operator_image=environ[OPERATOR_IMAGE],
            engine_image=environ[ENGINE_IMAGE],
            storage_class=environ.get(STORAGE_CLASS, ""),
            fake_gpus=environ.get(FAKE_GPUS) == "1",
        )

    @property
    def _cluster(self) -> tuple[str, ...]:
        return ("--kubeconfig", str(self.kubeconfig), "--operator-image", self.operator_image)

    @property
    def operator_target(self) -> tuple[str, ...]:
        """Arguments of `hack/deploy operator`."""
        return (*self._cluster, "--engine-image", self.engine_image)

    @property
    def storage_target(self) -> tuple[str, ...]:
        """Arguments of `hack/deploy storage`."""
        return (*self._cluster, *(("--storage-class", self.storage_class) if self.storage_class else ()))


@contextmanager
def borrowed(kube: Kube, *, settings: Settings, release: str, namespace: str) -> Iterator[None]:
    """The cluster, as it was once all is done; fails where an operator is installed there already."""
    if kube.get("crd", CRD) or kube.get("namespace", namespace):
        pytest.fail(
            f"the cluster of {KUBECONFIG} has the CRD {CRD} or the namespace {namespace}: the tests install an "
            "operator of their own, and would remove this one",
            pytrace=False,
        )
    with _gpus_of(_node(kube), kube=kube) if settings.fake_gpus else _nothing():
        try:
            yield
        finally:
            kube.within(namespace).uninstall(release)
            kube.delete("namespace", namespace)
            kube.delete("crd", CRD)


def has_fake_gpus(kube: Kube) -> bool:
    """Whether a node advertises as many as the tests run."""
    counts = [
        int(node["status"].get("allocatable", {}).get("nvidia.com/gpu", "0"))
        for node in kube.select("nodes", f"{FAKE_LABEL}=true")
    ]
    return max(counts, default=0) >= GPUS


def _node(kube: Kube) -> str:
    """The first that takes pods."""
    nodes = kube.select("nodes")
    names: list[str] = [
        node["metadata"]["name"]
        for node in nodes
        if not any(taint["effect"] != "PreferNoSchedule" for taint in node["spec"].get("taints", ()))
    ]
    assert names, f"none of {len(nodes)} nodes takes pods without a toleration"
    return names[0]


@contextmanager
def _nothing() -> Iterator[None]:
    yield


@contextmanager
def _gpus_of(node: str, *, kube: Kube) -> Iterator[None]:
    """Fake GPUs on the node, gone in the end; refused where it has any of its own."""
    if "nvidia.com/gpu" in kube.must_get("node", node)["status"].get("capacity", {}):
        pytest.fail(f"{FAKE_GPUS}: node {node} has GPUs already", pytrace=False)

    def advertise(count: int) -> None:
        labels: dict[str, Any] = labels_patch(count)
        kube.patch("node", node, labels)
        kube.patch("node", node, status_patch(count), "--subresource=status")

    advertise(GPUS)
    try:
        eventually(lambda: has_fake_gpus(kube), within=30)
        yield
    finally:
        advertise(0)
