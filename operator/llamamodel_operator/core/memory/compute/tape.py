"""A graph as llama.cpp builds it, without what takes no memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from llamamodel_operator.core.memory.compute.graph import Graph, Size, Step

__all__ = ["Tape"]

_INPUT, _OP, _USE, _OUTSIDE, _IN_PLACE, _PART = range(6)
_NOT_COMPUTED = (_INPUT, _OUTSIDE, _PART)
_NOWHERE = -2
"""The device of a part, which is where it is a part of is."""
_NOBODY = -1
"""Reads a tensor last that is kept, or that is not read."""
_Op: TypeAlias = tuple[int, Size, int | None, tuple[int, ...]]
"""Kind, bytes, device, sources."""


class Tape:
    """Operations in the order in which they are computed.

    A tensor is a number. Its complement (`~tensor`) stands for a view of it: a slice, a transposed or a reshaped one.
    Views take no memory, and keep what they are a view of; a result cannot take the place of what it only has a view
    of. Operations that take their argument's place anyway (a bias that is added, a scale, the weights of a norm) need
    not be recorded.
    """

    __slots__ = ("_host", "apart", "device", "kept", "ops")

    def __init__(self, host: int) -> None:
        self._host = host
        self.ops: list[_Op] = []
        self.device: int | None = None
        self.kept: set[int] = set()
        self.apart: dict[int, int] = {}

    def input(self, size: Size) -> int:
        """What the host fills before each run: allocated before all else."""
        return self._add(_INPUT, size, self._host, ())

    def outside(self, size: Size, device: int) -> int:
        """What has memory of its own on a device, such as a cache, and is copied to another one that reads it."""
        return self._add(_OUTSIDE, size, device, ())

    def op(self, size: Size, *sources: int, in_place: bool = False) -> int:
        """The result of an operation with weights, which decide where it runs; `device` says where they are."""
        return self._add(_IN_PLACE if in_place else _OP, size, self.device, sources)

    def free(self, size: Size, *sources: int, in_place: bool = False) -> int:
        """The result of an operation without weights: it runs where its neighbours do."""
        return self._add(_IN_PLACE if in_place else _OP, size, None, sources)

    def at(self, device: int, size: Size, *sources: int) -> int:
        """The result of an operation that is put on a device (ggml_backend_sched_set_tensor_backend)."""
        return self._add(_OP, size, device, sources)

    def use(self, *sources: int, device: int | None = None) -> None:
        """An operation whose result has memory of its own, such as a row of a cache on that device."""
        self._add(_USE, 0, device, sources)

    def part(self, size: Size, tensor: int) -> int:
        """A view of so many bytes of a result: where it is needed elsewhere, only these are copied."""
        return ~self._add(_PART, size, None, (~tensor if tensor < 0 else tensor,))

    def keep(self, tensor: int) -> int:
        """A result that the host reads, so that its memory is never used again (ggml_set_output)."""
        self.kept.add(tensor)
        return tensor

    def _add(self, kind: int, size: Size, device: int | None, sources: tuple[int, ...]) -> int:
        self.ops.append((kind, size, device, sources))
        return len(self.ops) - 1

    def graph(self) -> Graph:
        """What was recorded, with the copies of what a split reads of another device at the split's start.

        A split is what is computed on a device before another one's turn comes.

        Source: ggml_backend_sched_split_graph in ggml/src/ggml-backend.cpp.
        """
        ops, devices = self.ops, _assigned(self.ops, self._host)
        sizes = [op[1] for op in ops]
        last = [_NOBODY] * len(ops)
        inputs: list[int] = []
        steps: list[Step] = []
        split: list[Step] = []
        copies: dict[tuple[int, int], int] = {}
        current = self._host

        def here(source: int) -> int:
            """What the current split reads of a tensor that may be elsewhere."""
            tensor = source if source >= 0 else ~source
            whole = ops[tensor][3][0] if ops[tensor][0] == _PART else tensor
            if devices[whole] != current:
                copy = copies.get((tensor, current))
                if copy is None:
                    copy = copies[tensor, current] = last[whole] = len(sizes)
                    sizes.append(sizes[tensor])
                    last.append(_NOBODY)
                    steps.append((copy, current, (~whole,), False))
                whole = copy
            return whole if source >= 0 else ~whole

        for index, (kind, _, _, sources) in enumerate(ops):
            if kind in _NOT_COMPUTED:
                if kind == _INPUT:
                    inputs.append(index)
                continue
            device = devices[index]
            if device != current:
                steps += split
                split = []
                current = device
            away = False
            for source in sources:
                tensor = source if source >= 0 else ~source
                if devices[tensor] == device:
                    last[tensor] = index
                else:
                    away = True
            if away:
                sources = tuple(here(source) for source in sources)
                for source in sources:
                    last[source if source >= 0 else ~source] = index
            split.append((index, device, sources, kind == _IN_PLACE))
        for tensor in self.kept:
            last[tensor] = _NOBODY
        return Graph(
            sizes=sizes,
            last=last,
            steps=[*((tensor, self._host, (), False) for tensor in inputs), *steps, *split],
            copied=[
                *((self._host, tensor) for tensor in inputs),
                *((device, copy) for (_, device), copy in copies.items()),
            ],
            apart=self.apart,
        )


def _assigned(ops: Sequence[_Op], host: int) -> list[int]:
    """Where each operation runs: those without weights as the next one on a GPU, so the host only where it has to.

    One that has a GPU before it runs there; else, with a GPU behind it, there; else on the host. Parts are nowhere.

    Source: passes 1 and 2 of ggml_backend_sched_split_graph in ggml/src/ggml-backend.cpp.
    """
    devices = [_NOWHERE if op[2] is None else op[2] for op in ops]
    before = host
    waiting: list[int] = []
    for index, (kind, _, device, _) in enumerate(ops):
        if kind in _NOT_COMPUTED:
            continue
        if device is not None:
            for earlier in waiting:
                devices[earlier] = device
            waiting = []
            before = device
        elif before != host:
            devices[index] = before
        else:
            waiting.append(index)
    for index in waiting:
        devices[index] = host
    return devices
