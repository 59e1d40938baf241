"""Fake GPUs: what a node with real ones would say of itself, as two merge patches.

The scheduler and the kubelet then treat limits on nvidia.com/gpu as real ones; no container
gets a device. The labels are those of NVIDIA's GPU feature discovery.
"""

from typing import Any

__all__ = ["GPU_MEMORY_MIB", "labels_patch", "status_patch"]

GPU_MEMORY_MIB = 24576
FAKE_LABEL = "llamamodel.dev/fake-gpu"

_RESOURCE = "nvidia.com/gpu"


def labels_patch(count: int) -> dict[str, Any]:
    """For the node itself; with no GPUs the labels are taken away."""
    labels = {
        FAKE_LABEL: "true",
        "nvidia.com/gpu.present": "true",
        "nvidia.com/gpu.count": str(count),
        "nvidia.com/gpu.memory": str(GPU_MEMORY_MIB),
        "nvidia.com/gpu.product": "NVIDIA-GeForce-RTX-3090",
        "nvidia.com/gpu.family": "ampere",
        "nvidia.com/gpu.compute.major": "8",
        "nvidia.com/gpu.compute.minor": "6",
        "nvidia.com/gpu.replicas": "1",
        "nvidia.com/gpu.sharing-strategy": "none",
        "nvidia.com/mig.capable": "false",
    }
    return {"metadata": {"labels": labels if count else dict.fromkeys(labels)}}


def status_patch(count: int) -> dict[str, Any]:
    """For the node's status subresource. A kubelet that starts anew sets the count to zero."""
    amount = {_RESOURCE: str(count) if count else None}
    return {"status": {"capacity": amount, "allocatable": amount}}
