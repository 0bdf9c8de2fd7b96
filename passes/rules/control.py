"""Control flow that is decided already, and sizes that are known. Part of `canonicalize`."""

from __future__ import annotations

from typing import Any

from graphc.ir import ops
from graphc.ir.graph import Block, Op, Value
from graphc.ir.opdef import OPS
from graphc.ir.rewriter import Rewriter
from graphc.passes.driver import Rewritten, producer, rule
from graphc.passes.rules.arithmetic import number


def unfold(block: Block, arguments: list[Value], op: Op, rewriter: Rewriter) -> list[Value]:
    """Move the ops of a region's block before `op`, its parameters replaced; returns what it yields."""
    for parameter, argument in zip(block.parameters, arguments, strict=True):
        rewriter.replace_value(parameter, argument)
    rewriter.flush()
    inner = block.first
    while inner is not None and inner.next is not None:
        following = inner.next
        rewriter.move_before(inner, op)
        inner = following
    return list(block.outputs)


@rule(OPS["cond"])
def cond_by_constant(op: Any, rewriter: Rewriter) -> Rewritten:
    """cond(constant, …) is the branch that it chooses"""
    index, *captures = op.operands
    if not producer(index, ops.constant):
        return None
    choice = number(index)
    branch = (0 if choice else 1) if index.dtype.is_bool else min(max(int(choice), 0), len(op.regions) - 1)
    return unfold(op.regions[branch].block, captures, op, rewriter)


@rule(OPS["scan"])
def scan_of_one_step(op: Any, rewriter: Rewriter) -> Rewritten:
    """A scan of length 1 is its body."""
    if op.length != 1:
        return None
    carried, sliced = op.carried, op.sliced
    carries, xs = op.operands[:carried], op.operands[carried : carried + sliced]
    slices = [ops.reshape(x, shape=x.shape[1:]) for x in xs]
    arguments = [*carries, *slices, *op.operands[carried + sliced :]]
    outputs = unfold(op.regions[0].block, arguments, op, rewriter)
    with rewriter.before(op):
        stacks = [ops.reshape(y, shape=(1, *y.shape)) for y in outputs[carried:]]
    return [*outputs[:carried], *stacks]


@rule(ops.dim_size)
def known_size(op: Any, rewriter: Rewriter) -> Rewritten:
    """The value of a size that is a number is a constant."""
    return ops.constant(value=op.size, dtype=op.results[0].dtype) if isinstance(op.size, int) else None
