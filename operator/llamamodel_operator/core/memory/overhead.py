"""Memory on a GPU that llama.cpp does not see: the driver's own context, kernels and library workspaces."""

from __future__ import annotations

import re
from collections.abc import Mapping

from llamamodel_operator.api.amounts import parse_quantity

__all__ = ["OVERHEAD_BYTES", "UNKNOWN_VENDOR_BYTES", "overhead_of", "parse_overheads", "vendor_of"]

_MIB = 1 << 20
_MOST_BYTES = 1 << 40

OVERHEAD_BYTES: Mapping[str, int] = {
    "nvidia": 640 * _MIB,
    "amd": 640 * _MIB,
    "intel": 640 * _MIB,
}
"""Per GPU and process, by vendor: allowances, no measurements of ours.

NVIDIA: a CUDA context takes 120 to 550 MiB, the more the more multiprocessors the card has (llama.cpp's pull request
20595); 107 MiB were seen on an RTX 4060 Ti and 555 MiB on an RTX PRO 6000 (pull request 23604). The figure is for the
largest, with some room for cuBLAS. We know of no figures for the others; they get the same.
"""

UNKNOWN_VENDOR_BYTES = 640 * _MIB


def vendor_of(resource_name: str) -> str:
    """The vendor of an extended resource such as nvidia.com/gpu or amd.com/gpu; the domain's first label."""
    domain = resource_name.partition("/")[0].removesuffix(".com")
    return domain.rpartition(".")[2]


def parse_overheads(given: Mapping[str, str | int]) -> dict[str, int]:
    """Bytes by vendor, from quantities such as 512Mi.

    Raises:
        ValueError: something is no vendor, or no amount of memory; the message names it.
    """
    found: dict[str, int] = {}
    for vendor, amount in given.items():
        if not re.fullmatch("[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", vendor):
            meant = vendor_of(vendor.lower()) or "nvidia"
            raise ValueError(f"{vendor}: expected the name of a vendor in lower case, such as {meant}")
        try:
            size = parse_quantity(amount)
        except ValueError:
            size = None
        if size is None or not 0 <= size <= _MOST_BYTES:
            raise ValueError(f"{vendor}: expected what the driver takes on each GPU, such as 512Mi; found {amount!r}")
        found[vendor] = int(size)
    return found


def overhead_of(vendor: str, *, configured: Mapping[str, int] | None = None) -> int:
    """Bytes per GPU. `configured` is what the operator was told, by vendor."""
    known = {**OVERHEAD_BYTES, **(configured or {})}
    return known.get(vendor.lower(), UNKNOWN_VENDOR_BYTES)
