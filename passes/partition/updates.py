"""Where new values of weights are made: as soon as nothing reads the old ones any more."""

from __future__ import annotations

from graphc.ir.graph import Function, Op, Value, operand_values
from graphc.ir.rewriter import Rewriter


def settle_updates(function: Function) -> None:
    """Move what leads to nothing but the new value of one weight up to where its operands are there, in place.

    A new value is made behind what reads the old one, so that it can take its place; numbers for several go along; what
    hangs on parameters alone stands before what reads it first. A plan for a target that updates in place then holds no
    gradient to the end. Linear.
    """
    block, last = function.block, function.block.last
    if last is None:
        return
    old = {v: r.updates.value for r, v in zip(function.results, function.outputs, strict=True) if r.updates is not None}
    others = {v for r, v in zip(function.results, function.outputs, strict=True) if r.updates is None}
    number = {op: i for i, op in enumerate(block)}
    moved: set[Op] = set()
    leads: dict[Op, frozenset[Value]] = {}  # to which new values an op leads, for those that lead to nothing else
    for op in reversed(list(block)):
        readers = {user for value in op.results for user in value.uses or ()}
        if op is last or not op.results or others.intersection(op.results) or not readers <= {*leads, last}:
            continue
        new = frozenset(value for value in op.results if value in old)
        leads[op] = new.union(*(leads[user] for user in readers if user is not last))
        if len(leads[op]) == 1 or all(value.ndim == 0 for value in op.results):
            moved.add(op)
    place: dict[Op, int] = {}
    for op in block:
        if op not in moved:
            continue
        before = [value.op for value in operand_values(op) if value.op is not None]
        for value in op.results:
            if value in old:
                before += [user for user in old[value].uses or () if user is not op and number[user] < number[op]]
        place[op] = max((place[each] if each in moved else number[each] for each in before), default=-1)
    for op in reversed(list(block)):
        if place.get(op) == -1:
            places = [place[user] for value in op.results for user in value.uses or () if user in moved]
            place[op] = min(places, default=-1)
    at = list(block)
    rewriter = Rewriter()
    for op in sorted(moved, key=lambda op: number[op]):
        if place[op] >= 0:
            rewriter.move_before(op, _staying(at[place[op] + 1], moved, at, number))


def _staying(op: Op, moved: set[Op], at: list[Op], number: dict[Op, int]) -> Op:
    """The first op from `op` on that is not moved."""
    while op in moved:
        op = at[number[op] + 1]
    return op
