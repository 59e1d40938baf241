"""Which rules of a grammar start with which: left recursion, as llama.cpp finds it, and what it overlooks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["MAX_DEPTH", "MAX_STEPS", "TERMINAL", "Examined", "Rules", "examine"]

TERMINAL = -1
"""An element that consumes something; all others are numbers of rules."""

MAX_DEPTH = 5_000
"""Rules that start with each other. A rule of ours: `llama_grammar_detect_left_recursion` recurses into each."""

MAX_STEPS = 1_000_000
"""Of that function, which visits a rule once for each way that leads to it. A rule of ours."""


class Rules:
    """The rules as llama.cpp numbers them: named ones, and those that it makes for groups and repetitions."""

    def __init__(self) -> None:
        self.bodies: list[list[list[int]] | None] = []
        self._places: list[tuple[int, str]] = []

    def __len__(self) -> int:
        return len(self.bodies)

    def add(self) -> int:
        """A new rule without a body."""
        self.bodies.append(None)
        self._places.append((0, ""))
        return len(self.bodies) - 1

    def define(self, rule_id: int, alternates: list[list[int]], *, offset: int, name: str = "") -> None:
        """Its body; a second one replaces the first, as in llama.cpp."""
        self.bodies[rule_id] = alternates
        self._places[rule_id] = (offset, name)

    def defined(self, rule_id: int) -> bool:
        """Whether it has a body."""
        return self.bodies[rule_id] is not None

    def place(self, rule_id: int) -> tuple[int, str]:
        """Where it stands in the text, and its name; groups and repetitions have none."""
        return self._places[rule_id]


@dataclass(frozen=True, kw_only=True)
class Examined:
    """Rules, by number, that cannot be or should not be; None where there is none.

    Attributes:
        recursive: starts with itself, and llama.cpp sees it.
        hidden: starts with itself after something that may be empty; llama.cpp does not see it and fills its memory.
        idle: may repeat nothing at all without end; llama.cpp notices that it was there before.
        too_deep: leads to more than MAX_DEPTH or MAX_STEPS.
    """

    recursive: int | None = None
    hidden: int | None = None
    idle: int | None = None
    too_deep: int | None = None


def examine(rules: Rules) -> Examined:
    """Looks at what each rule can start with; rules without a body start with nothing."""
    bodies = [body or [] for body in rules.bodies]
    plainly_empty = [any(not alternate for alternate in body) for body in bodies]
    seen_by_llama = [list(_starts(body, plainly_empty)) for body in bodies]
    components = list(_components([[target for target, _ in starts] for starts in seen_by_llama]))
    if (found := _cycle(components, seen_by_llama)) is not None:
        return Examined(recursive=found)
    if (found := _too_deep(components, seen_by_llama)) is not None:
        return Examined(too_deep=found)
    empty = _may_be_empty(bodies)
    if empty == plainly_empty:
        return Examined()  # llama.cpp sees it all, and it has been looked at
    real = [list(_starts(body, empty)) for body in bodies]
    components = list(_components([[target for target, _ in starts] for starts in real]))
    growing = [[start for start in starts if not start[1]] for starts in real]
    if (found := _cycle(components, growing)) is not None:
        return Examined(hidden=found)
    return Examined(idle=_cycle(components, real))


def _starts(body: list[list[int]], empty: list[bool]) -> Iterator[tuple[int, bool]]:
    """Rules that can come first, each with whether nothing follows it."""
    for alternate in body:
        for index, element in enumerate(alternate):
            if element == TERMINAL:
                break
            yield element, index == len(alternate) - 1
            if not empty[element]:
                break


def _may_be_empty(bodies: list[list[list[int]]]) -> list[bool]:
    """Rules that can produce the empty text, through whatever other rules."""
    empty = [False] * len(bodies)
    waiting: dict[int, list[tuple[int, list[int], int]]] = {}
    todo = [(rule, alternate, 0) for rule, body in enumerate(bodies) for alternate in body]
    while todo:
        rule, alternate, index = todo.pop()
        while index < len(alternate) and alternate[index] != TERMINAL and empty[alternate[index]]:
            index += 1
        if index == len(alternate):
            if not empty[rule]:
                empty[rule] = True
                todo.extend(waiting.pop(rule, ()))
        elif alternate[index] != TERMINAL:
            waiting.setdefault(alternate[index], []).append((rule, alternate, index))
    return empty


def _components(edges: list[list[int]]) -> Iterator[list[int]]:
    """Strongly connected components, those that are led to first (Tarjan, without recursion)."""
    order: dict[int, int] = {}
    lowest: dict[int, int] = {}
    on_stack: set[int] = set()
    stack: list[int] = []
    for start in range(len(edges)):
        if start in order:
            continue
        walk = [(start, iter(edges[start]))]
        order[start] = lowest[start] = len(order)
        stack.append(start)
        on_stack.add(start)
        while walk:
            node, targets = walk[-1]
            for target in targets:
                if target not in order:
                    order[target] = lowest[target] = len(order)
                    stack.append(target)
                    on_stack.add(target)
                    walk.append((target, iter(edges[target])))
                    break
                if target in on_stack:
                    lowest[node] = min(lowest[node], order[target])
            else:
                walk.pop()
                if walk:
                    lowest[walk[-1][0]] = min(lowest[walk[-1][0]], lowest[node])
                if lowest[node] == order[node]:
                    component = [stack.pop()]
                    while component[-1] != node:
                        component.append(stack.pop())
                    on_stack.difference_update(component)
                    yield component


def _cycle(components: list[list[int]], edges: list[list[tuple[int, bool]]]) -> int | None:
    """The first rule, in the order of the text, with one of these edges inside its component."""
    found = []
    for component in components:
        members = set(component)
        found += [rule for rule in component if any(target in members for target, _ in edges[rule])]
    return min(found, default=None)


def _too_deep(components: list[list[int]], edges: list[list[tuple[int, bool]]]) -> int | None:
    steps = [1] * len(edges)
    depth = [1] * len(edges)
    for (rule,) in components:  # there are no cycles
        for target, _ in edges[rule]:
            steps[rule] = min(steps[rule] + steps[target], MAX_STEPS + 1)
            depth[rule] = max(depth[rule], depth[target] + 1)
        if steps[rule] > MAX_STEPS or depth[rule] > MAX_DEPTH:
            return rule
    return None
