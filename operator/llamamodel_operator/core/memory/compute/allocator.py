"""ggml's graph allocator: addresses for a sequence of tensors that come and go."""

from __future__ import annotations

__all__ = ["ALIGNMENT", "Arena"]

ALIGNMENT = 32
"""Bytes that a tensor's size is rounded up to (TENSOR_ALIGNMENT; CUDA's 128 makes no difference that counts)."""
_ENDLESS = 1 << 62


class Arena:
    """One device's buffer: best fit among the free blocks, the last of which has no end.

    Source: ggml_dyn_tallocr_alloc and ggml_dyn_tallocr_free_bytes in ggml/src/ggml-alloc.c.
    """

    __slots__ = ("offsets", "peak", "sizes")

    def __init__(self) -> None:
        self.offsets = [0]
        self.sizes = [_ENDLESS]
        self.peak = 0

    def take(self, size: int) -> int:
        """Address of so many bytes, a multiple of `ALIGNMENT`."""
        sizes, offsets = self.sizes, self.offsets
        best, fit = 0, _ENDLESS
        for index, block in enumerate(sizes):
            if size <= block <= fit:
                best, fit = index, block
        offset = offsets[best]
        if fit == size:
            del sizes[best], offsets[best]
        else:
            sizes[best] = fit - size
            offsets[best] = end = offset + size
            if end > self.peak:
                self.peak = end
        return offset

    def give(self, offset: int, size: int) -> None:
        """Free what was taken there."""
        sizes, offsets = self.sizes, self.offsets
        index = 0
        while offsets[index] < offset:
            index += 1
        if index and offsets[index - 1] + sizes[index - 1] == offset:
            sizes[index - 1] += size
            if offset + size == offsets[index]:
                sizes[index - 1] += sizes[index]
                del sizes[index], offsets[index]
        elif offset + size == offsets[index]:
            offsets[index] = offset
            sizes[index] += size
        else:
            offsets.insert(index, offset)
            sizes.insert(index, size)
