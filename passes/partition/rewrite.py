"""Carries a plan out: copies of forward ops beside their backward use.

A run of copies is a group. It stands in the scope `gradient/recompute#n`, and what it reads of the forward part passes
through a `barrier` together with a cotangent (or another value of the backward part) that is there when the group is
to run: no pass merges the copies with the ops they repeat, and a compiler that moves ops cannot run them earlier.
"""

from __future__ import annotations

from collections.abc import Sequence

from graphc.ir.builder import Builder
from graphc.ir.cloning import clone_op
from graphc.ir.graph import Block, Op, Value, operand_values
from graphc.ir.location import ROOT, Location, Scope
from graphc.ir.ops.structure import barrier
from graphc.ir.rewriter import Rewriter
from graphc.passes.autodiff.joint import MARK
from graphc.passes.partition.joint_graph import JointGraph
from graphc.passes.partition.schedule import steps_of

AGAIN = "recompute"
"""The scope, below autodiff's mark, of ops that run again; its call index numbers the groups."""


def group_of(op: Op) -> Scope | None:
    """The scope of the group that a copy (or the barrier before it) belongs to; None for other ops."""
    scope = op.location.scope
    while scope.depth > 2 and scope.parent is not None:
        scope = scope.parent
    parent = scope.parent
    return scope if scope.depth == 2 and scope.name == AGAIN and parent is not None and parent.name == MARK else None


def apply_plan(graph: JointGraph, saved: Sequence[int]) -> int:
    """Let the backward part of the graph's function read only these forward values; returns how many ops were copied.

    Forward ops that stand among the backward ones move before them. `graph` is of no use afterwards. Linear.
    """
    if graph.forward in (0, len(graph.ops)):
        return 0
    rewriter = Rewriter()
    following = graph.function.block.terminator
    for op in reversed(graph.ops[graph.forward :]):
        if op in graph.sunk:
            rewriter.move_before(op, following)
        following = op
    first = graph.ops[graph.forward]
    for op in graph.ops[: graph.forward]:
        if not op.is_before(first):
            rewriter.move_before(op, first)
    copier = _Copier(graph, {graph.values[number] for number in saved}, rewriter)
    waiting: list[Op] = []
    for index, again in steps_of(graph, saved):
        op = graph.ops[index]
        if again:
            waiting.append(op)
        elif index >= graph.forward:
            if waiting:
                copier.group(waiting, op)
                waiting = []
            copier.redirect(op)
    return copier.count


class _Copier:
    def __init__(self, graph: JointGraph, kept: set[Value], rewriter: Rewriter) -> None:
        self.rewriter = rewriter
        self.forward = {v for op in graph.ops[: graph.forward] for v in op.results}
        self.dropped = {v for v in self.forward if graph.is_forward(graph.number[v]) and v not in kept}
        self.weights = {p.value for p in graph.function.parameters if p.weight is not None}
        self.copies: dict[Value, Value] = {}
        """What the backward part reads in place of a value that is not saved."""
        # Until there is a backward value: the loss, which is held to the end anyway.
        self.latest = next(
            (v for v in graph.function.outputs if v in self.forward), graph.ops[graph.forward - 1].results[0]
        )
        self.number = _next_number(graph.ops[0].block)
        self.count = 0

    def redirect(self, op: Op) -> None:
        """Let a backward op read copies."""
        if any(value in self.dropped for value in operand_values(op)):
            operands = [self.copies[v] if v is not None and v in self.dropped else v for v in op.operands]
            self.rewriter.set_operands(op, operands)
        if op.results:
            self.latest = op.results[0]

    def group(self, ops: Sequence[Op], reader: Op) -> None:
        """Copy these ops to stand before `reader`."""
        scope = ROOT.child(MARK).child(AGAIN, self.number)
        self.number += 1
        self.count += len(ops)
        made = {value for op in ops for value in op.results if value in self.dropped}
        borders = self._borders(ops, made)
        link = next((v for v in operand_values(reader) if v.op is not None and v not in self.forward), self.latest)
        values: dict[Value, Value] = {}
        builder = Builder(reader.block, reader, Location.of(scope), function=reader.block.function)
        if borders:
            outside = [self.copies.get(value, value) for value in borders]
            passed = barrier.build(builder, (*outside, link)).results
            values = dict(zip(borders, passed, strict=False))
        for op in ops:
            for value in operand_values(op):
                values.setdefault(value, self.copies.get(value, value) if value in self.dropped else value)
            copy = clone_op(op, values)
            copy.location = _below(scope, op.location)
            reader.block.insert_before(reader, copy)
            if not op.operands and op.name != "constant":
                held = barrier.build(builder, (*copy.results, link)).results
                values |= dict(zip(op.results, held, strict=False))
            for value in op.results:
                if value in self.dropped:
                    self.copies[value] = values[value]

    def _borders(self, ops: Sequence[Op], made: set[Value]) -> list[Value]:
        """What comes from outside and must pass the barrier: all but weights and constants, and for an op that reads
        nothing else these as well."""
        found: dict[Value, None] = {}
        for op in ops:
            outside = [v for v in operand_values(op) if v not in made and not _is_constant(v)]
            others = [v for v in outside if v not in self.weights]
            inner = any(v in made for v in operand_values(op))
            found.update(dict.fromkeys(others if others or inner else outside))
        return list(found)


def _is_constant(value: Value) -> bool:
    return value.op is not None and value.op.name == "constant"


def _next_number(block: Block) -> int:
    """One more than the numbers of the groups there are."""
    scopes = [group_of(op) for op in block]
    return 1 + max((scope.call for scope in scopes if scope is not None), default=-1)


def _below(scope: Scope, location: Location) -> Location:
    for part in location.scope.parts:
        scope = Scope.of(scope, part.name, part.call)
    return Location.of(scope, location.file, location.line, location.origins)
