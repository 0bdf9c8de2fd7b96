"""Policies of what to save that need no sizes: all, nothing, all products, by tags, by layers, by marked blocks."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import replace
from fnmatch import fnmatchcase

from graphc.ir.analysis.remat_blocks import remat_blocks, remat_border
from graphc.ir.graph import Op
from graphc.ir.location import Scope
from graphc.passes.partition.cut import Cutter
from graphc.passes.partition.joint_graph import JointGraph


def everything(graph: JointGraph) -> list[int]:
    """All that the backward part reads."""
    return graph.read_by_backward()


def nothing(graph: JointGraph) -> list[int]:
    """Nothing: all is computed again from the parameters."""
    return _saved(graph, lambda op: True)


PRODUCTS = ("dot_general", "matmul", "einsum", "linear", "quantized_linear", "convolution", "attention", "lora_")
"""How the names of ops begin that are products, or hold some."""


def products(graph: JointGraph) -> list[int]:
    """The fewest bytes without which no product has to run again: what is cheap is computed again from them.

    Views are computed again too, from the values whose buffers they share. A minimum cut, see `cut.py`.
    """
    dear = {
        number
        for number, op in enumerate(graph.ops[: graph.forward])
        if op.regions or op.name in ("call", "conv", "quantized_conv") or op.name.startswith(PRODUCTS)
    }
    views = {
        made
        for number, sources in enumerate(graph.shares)
        if sources is not None or graph.ops[number].name in VIEWS
        for made in graph.makes[number]
    }
    whole = 1 + sum(graph.bytes)
    sizes = [whole if value in views and graph.bytes[value] else size for value, size in enumerate(graph.bytes)]
    seen = replace(graph, bytes=sizes)
    flops = sum(graph.flops[: graph.forward]) or 1
    return Cutter(seen, dear).cut(SMALLEST / flops)


VIEWS = frozenset({"reshape", "transpose", "split", "slice"})
"""Ops whose results may share the buffer of what they read, depending on how it lies."""
SMALLEST = 1e-3
"""What all FLOPs of the forward part weigh against a byte: they only choose among cuts of as many bytes."""


def by_tags(graph: JointGraph, tags: Collection[str]) -> list[int]:
    """What ops `name` tag so; the rest is computed again from it."""
    return _saved(graph, lambda op: not (op.name == "name" and op.attribute_dict["tag"] in tags))


def by_layers(graph: JointGraph, patterns: Collection[str]) -> list[int]:
    """All but what is inside the layers whose paths match a pattern (`block_*`)."""
    calls: dict[Scope, Scope | None] = {}

    def call_of(scope: Scope) -> Scope | None:
        if scope not in calls:
            above = None if scope.parent is None else call_of(scope.parent)
            matches = scope.parent is not None and any(fnmatchcase(scope.owner, each) for each in patterns)
            calls[scope] = above if above is not None else scope if matches else None
        return calls[scope]

    inside = {op: call_of(op.location.scope) for op in graph.ops[: graph.forward]}
    readers: dict[int, set[Scope | None]] = {}
    for op, reads in zip(graph.ops[: graph.forward], graph.reads, strict=False):
        for value in reads:
            readers.setdefault(value, set()).add(inside[op])

    def leaves(op: Op) -> bool:
        return any(readers.get(graph.number[value], set()) - {inside[op]} for value in op.results)

    return _saved(graph, lambda op: inside[op] is not None and not leaves(op))


def by_marks(graph: JointGraph) -> list[int]:
    """All but what is inside the blocks that `graphc.remat` and `RematScope` marked."""
    again = {op for ops in remat_blocks(graph.function.block).values() for op in ops}
    for op in graph.ops[: graph.forward]:
        border = remat_border(op)
        if border is not None and border[1] == "out" and (value := op.operands[0]) is not None:
            again.discard(value.owner)  # type: ignore[arg-type]
    return _saved(graph, lambda op: op in again)


def _saved(graph: JointGraph, runs_again: Callable[[Op], bool]) -> list[int]:
    """What is to be saved when the ops that `runs_again` names are not, as far as the backward part needs them."""
    saved: dict[int, None] = {}
    seen: set[int] = set()
    stack: list[int] = list(reversed(graph.read_by_backward()))
    while stack:
        value = stack.pop()
        if value in seen:
            continue
        seen.add(value)
        maker = graph.maker[value]
        if graph.fixed[maker] or not runs_again(graph.ops[maker]):
            saved[value] = None
        else:
            stack += _forward(graph, graph.reads[maker])
    return list(saved)


def _forward(graph: JointGraph, values: Iterable[int]) -> list[int]:
    return [value for value in values if graph.is_forward(value)]
