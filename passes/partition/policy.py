"""Policies of what to save that need no sizes: everything, nothing, by tags, by layers, by marked blocks."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from fnmatch import fnmatchcase

from graphc.ir.analysis.remat_blocks import remat_blocks, remat_border
from graphc.ir.graph import Op
from graphc.ir.location import Scope
from graphc.passes.partition.joint_graph import JointGraph


def everything(graph: JointGraph) -> list[int]:
    """All that the backward part reads."""
    return graph.read_by_backward()


def nothing(graph: JointGraph) -> list[int]:
    """Nothing: all is computed again from the parameters."""
    return _saved(graph, lambda op: True)


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
