"""A graph as llama.cpp builds it, without what takes no memory, and what laying it out takes on each device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from llamamodel_operator.core.memory.compute.allocator import ALIGNMENT, Arena

__all__ = ["Tape"]

_INPUT, _OP, _USE, _OUTSIDE, _IN_PLACE, _PART = range(6)
_Op = tuple[int, int, int | None, tuple[int, ...], bool]
"""Kind, bytes, device, sources, whether in place."""
_Step = tuple[int, int, int, tuple[int, ...], int]
"""Number, bytes, device, sources, mode."""


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

    def input(self, size: int) -> int:
        """What the host fills before each run: allocated before all else."""
        return self._add(_INPUT, size, self._host, (), in_place=False)

    def outside(self, size: int, device: int) -> int:
        """What has memory of its own on a device, such as a cache, and is copied to another one that reads it."""
        return self._add(_OUTSIDE, size, device, (), in_place=False)

    def op(self, size: int, *sources: int, in_place: bool = False) -> int:
        """The result of an operation with weights, which decide where it runs; `device` says where they are."""
        return self._add(_OP, size, self.device, sources, in_place=in_place)

    def free(self, size: int, *sources: int, in_place: bool = False) -> int:
        """The result of an operation without weights: it runs where its neighbours do."""
        return self._add(_OP, size, None, sources, in_place=in_place)

    def at(self, device: int, size: int, *sources: int) -> int:
        """The result of an operation that is put on a device (ggml_backend_sched_set_tensor_backend)."""
        return self._add(_OP, size, device, sources, in_place=False)

    def use(self, *sources: int, device: int | None = None) -> None:
        """An operation whose result has memory of its own, such as a row of a cache on that device."""
        self._add(_USE, 0, device, sources, in_place=False)

    def part(self, size: int, tensor: int) -> int:
        """A view of so many bytes of a result: where it is needed elsewhere, only these are copied."""
        return ~self._add(_PART, size, None, (~tensor if tensor < 0 else tensor,), in_place=False)

    def keep(self, tensor: int) -> int:
        """A result that the host reads, so that its memory is never used again (ggml_set_output)."""
        self.kept.add(tensor)
        return tensor

    def _add(self, kind: int, size: int, device: int | None, sources: tuple[int, ...], *, in_place: bool) -> int:
        self.ops.append((kind, -(-size // ALIGNMENT) * ALIGNMENT, device, sources, in_place))
        return len(self.ops) - 1

    def peaks(self) -> Mapping[int, int]:
        """Bytes of each device's buffer.

        Source: ggml_backend_sched_split_graph in ggml/src/ggml-backend.cpp, ggml_gallocr_alloc_graph_impl and
        ggml_gallocr_allocate_node in ggml/src/ggml-alloc.c.
        """
        devices = _assigned(self.ops, self._host)
        steps = self._with_copies(devices) if len(set(devices)) > 1 else self._as_recorded(devices)
        uses: dict[int, int] = {}
        for _, _, _, sources, _ in steps:
            for source in sources:
                tensor = source if source >= 0 else ~source
                uses[tensor] = uses.get(tensor, 0) + 1
        for tensor in self.kept:
            uses[tensor] = _KEPT
        peaks = _laid_out(steps, uses)
        for device, size in self.apart.items():
            peaks[device] = peaks.get(device, 0) + size
        return peaks

    def copied(self) -> Mapping[int, int]:
        """Bytes of inputs on the host, and of what each device has copies of."""
        devices = _assigned(self.ops, self._host)
        sizes: dict[int, int] = {}
        seen: set[tuple[int, int]] = set()
        for index, (kind, size, _, sources, _) in enumerate(self.ops):
            device = devices[index]
            if kind == _INPUT:
                sizes[device] = sizes.get(device, 0) + size
            for source in sources:
                tensor = source if source >= 0 else ~source
                if kind != _PART and devices[tensor] != device and (tensor, device) not in seen:
                    seen.add((tensor, device))
                    sizes[device] = sizes.get(device, 0) + self.ops[tensor][1]
        return sizes

    def _as_recorded(self, devices: Sequence[int]) -> list[_Step]:
        ops = self.ops
        parts = {number: ~op[3][0] for number, op in enumerate(ops) if op[0] == _PART}
        steps = [
            (number, op[1] if op[0] != _OUTSIDE else 0, device, op[3], _mode(op))
            for number, (op, device) in enumerate(zip(ops, devices, strict=True))
            if op[0] != _PART
        ]
        if parts:
            steps = [(*step[:3], tuple(parts.get(~source, source) for source in step[3]), step[4]) for step in steps]
        return sorted(steps, key=lambda step: step[4] != _INPUT)

    def _with_copies(self, devices: Sequence[int]) -> list[_Step]:
        """Steps, with the copies of what a split reads of another device at the split's start."""
        ops = self.ops
        first: list[_Step] = []
        rest: list[_Step] = []
        copies: dict[tuple[int, int], int] = {}
        split: list[_Step] = []
        current: int | None = None
        number = len(ops)
        for index, op in enumerate(ops):
            kind, size, _, sources, _ = op
            device = devices[index]
            if kind in (_INPUT, _OUTSIDE):
                first.append((index, size if kind == _INPUT else 0, device, (), _INPUT))
                continue
            if kind == _PART:
                continue
            if device != current:
                rest += split
                split = []
                current = device
            own = []
            for source in sources:
                tensor = source if source >= 0 else ~source
                whole = tensor
                if ops[tensor][0] == _PART:
                    whole = ops[tensor][3][0]
                    source = ~whole if devices[whole] == device else source
                if devices[whole] == device:
                    own.append(source)
                    continue
                copy = copies.get((tensor, device))
                if copy is None:
                    copy = copies[tensor, device] = number
                    number += 1
                    rest.append((-1, 0, devices[whole], (~whole,), _USE))
                    rest.append((copy, ops[tensor][1], device, (), _OP))
                own.append(copy if source >= 0 else ~copy)
            split.append((index, size, device, tuple(own), _mode(op)))
        return first + rest + split


_NOT_COMPUTED = (_INPUT, _OUTSIDE, _PART)
_KEPT = 1 << 40
"""Uses of an output: never used up."""


def _mode(op: _Op) -> int:
    return _IN_PLACE if op[4] else (_INPUT if op[0] == _OUTSIDE else op[0])


def _assigned(ops: Sequence[_Op], host: int) -> list[int]:
    """Where each operation runs: those without weights as the next one on a GPU, so the host only where it has to.

    Source: passes 1 and 2 of ggml_backend_sched_split_graph in ggml/src/ggml-backend.cpp.
    """
    devices = [op[2] for op in ops]
    if None in devices:
        for only_gpus in (True, False):
            for order in (range(len(ops)), range(len(ops) - 1, -1, -1)):
                current: int | None = None
                for index in order:
                    if ops[index][0] in _NOT_COMPUTED:
                        continue
                    device = devices[index]
                    if device is None:
                        devices[index] = current
                    else:
                        current = None if only_gpus and device == host else device
    for index, op in enumerate(ops):
        if op[0] == _PART:
            devices[index] = devices[op[3][0]]
    return [host if device is None else device for device in devices]


def _laid_out(steps: Sequence[_Step], uses: dict[int, int]) -> dict[int, int]:
    arenas: dict[int, Arena] = {}
    places: dict[int, tuple[Arena, int, int]] = {}
    for number, size, device, sources, mode in steps:
        arena = arenas.get(device)
        if arena is None:
            arena = arenas[device] = Arena()
        if size:
            place = None
            if mode == _IN_PLACE:
                for source in sources:
                    if source >= 0 and uses[source] == 1 and source in places and places[source][2] == size:
                        place = places.pop(source)
                        break
            places[number] = place or (arena, arena.take(size), size)
        for source in sources:
            tensor = source if source >= 0 else ~source
            left = uses[tensor] - 1
            uses[tensor] = left
            if not left and tensor in places:
                owner, offset, length = places.pop(tensor)
                owner.give(offset, length)
    return {device: arena.peak for device, arena in arenas.items()}
