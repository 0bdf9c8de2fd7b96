"""The graphs that are measured, described without any framework so that all of them build the same one.

`chain`: each op reads the one before. `fan`: half of the ops branch out from one input, the others add them up.
`residual`: blocks of two dense layers on a residual stream, each in a scope of its own with its own weights.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

Extra = Literal["none", "dead", "duplicate", "redundant"]
"""What follows every ninth op, so that a tenth of the ops are such: one that nothing reads, a copy of the op, or a
convert to the dtype that its operand has already."""

WIDTH = 64
HIDDEN = 12
"""Features of the stream in a chain or fan, and in a residual network (whose weights are many, and just too large to be
written into the text)."""


@dataclass(frozen=True, slots=True)
class Node:
    """One op: its kind, its operands by number (inputs first, then weights, then ops), and its scope."""

    kind: str
    operands: tuple[int, ...]
    scope: str = ""


@dataclass(slots=True)
class Graph:
    """Inputs of shape [B, width], weights by name and shape, and ops in order. The last op is the output."""

    name: str
    width: int
    inputs: int
    weights: list[tuple[str, tuple[int, ...]]] = field(default_factory=list[tuple[str, tuple[int, ...]]])
    nodes: list[Node] = field(default_factory=list[Node])

    @property
    def leaves(self) -> int:
        """How many operands come before the first op."""
        return self.inputs + len(self.weights)

    def add(self, kind: str, *operands: int, scope: str = "") -> int:
        """Append an op; returns its number."""
        self.nodes.append(Node(kind, operands, scope))
        return self.leaves + len(self.nodes) - 1


class _Extras:
    """Adds what `extra` says after every ninth op; `add` returns the number to go on with."""

    def __init__(self, graph: Graph, extra: Extra) -> None:
        self.graph = graph
        self.extra = extra
        self.count = 0

    def add(self, kind: str, *operands: int, scope: str = "") -> int:
        number = self.graph.add(kind, *operands, scope=scope)
        self.count += 1
        if self.extra == "none" or self.count % 9:
            return number
        if self.extra == "dead":
            self.graph.add("neg", number, scope=scope)
            return number
        if self.extra == "duplicate":
            return self.graph.add(kind, *operands, scope=scope)
        return self.graph.add("convert", number, scope=scope)


def chain(count: int, extra: Extra = "none") -> Graph:
    graph = Graph("chain", WIDTH, 2)
    extras = _Extras(graph, extra)
    x, kinds = 0, ("add", "tanh", "mul", "neg", "sub", "relu")
    number = 0
    while len(graph.nodes) < count:
        kind = kinds[number % len(kinds)]
        x = extras.add(kind, x, 1) if kind in ("add", "mul", "sub") else extras.add(kind, x)
        number += 1
    return graph


def fan(count: int, extra: Extra = "none") -> Graph:
    graph = Graph("fan", WIDTH, 1)
    extras = _Extras(graph, extra)
    kinds = ("tanh", "sin", "relu", "exp", "abs")
    # Each reads an op of its own on the input, or it would be a duplicate of one that is there already.
    stem = [0]
    level: list[int] = []
    while len(graph.nodes) < count // 2:
        if len(level) % len(kinds) == 0:
            stem.append(graph.add("add", stem[-1], 0))
        level.append(extras.add(kinds[len(level) % len(kinds)], stem[-1]))
    while len(level) > 1:
        pairs = [extras.add("add", a, b) for a, b in zip(level[::2], level[1::2], strict=False)]
        level = pairs + (level[-1:] if len(level) % 2 else [])
    return graph


def residual(count: int, extra: Extra = "none") -> Graph:
    blocks = max(1, count // (5 if extra == "none" else 6))
    graph = Graph("residual", HIDDEN, 1)
    for i in range(blocks):
        graph.weights += [(f"block_{i}/{layer}/kernel", (HIDDEN, HIDDEN)) for layer in ("dense1", "dense2")]
    extras = _Extras(graph, extra)
    x = 0
    for i in range(blocks):
        scope, first = f"block_{i}", 1 + 2 * i
        y = extras.add("linear", x, first, scope=f"{scope}/dense1")
        y = extras.add("relu", y, scope=scope)
        y = extras.add("linear", y, first + 1, scope=f"{scope}/dense2")
        x = extras.add("add", x, y, scope=scope)
        x = extras.add("relu", x, scope=scope)
    return graph


def shared_operands(graph: Graph, operands: tuple[int, ...]) -> tuple[int, ...]:
    """Operand numbers where all blocks share the first two weights, as they do in traced functions."""
    dropped = max(0, len(graph.weights) - 2)
    return tuple(
        i if i < graph.inputs else graph.inputs + (i - graph.inputs) % 2 if i < graph.leaves else i - dropped
        for i in operands
    )


GRAPHS: dict[str, Callable[..., Graph]] = {"chain": chain, "fan": fan, "residual": residual}
