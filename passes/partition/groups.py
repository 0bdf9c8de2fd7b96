"""The groups of ops that run again, in the form that a target's own optimizer leaves alone.

Targets that run statement by statement need no barrier: `without_barriers`. XLA drops barriers before it schedules, and
merges what is equal then; it neither looks into the branches of a conditional nor runs it before its predicate is
known, so there a group becomes a branch whose predicate depends on the cotangent: `in_conditionals`.
"""

from __future__ import annotations

from collections.abc import Sequence

from graphc.ir import ops
from graphc.ir.builder import Builder
from graphc.ir.cloning import clone_op
from graphc.ir.dtypes import f32, i32
from graphc.ir.graph import Block, Op, Region, Value, operand_values
from graphc.ir.module import Module
from graphc.ir.ops.control import cond_op
from graphc.ir.ops.structure import yield_
from graphc.ir.rewriter import Rewriter
from graphc.passes.partition.rewrite import group_of


def without_barriers(module: Module) -> None:
    """Take the barriers of groups away, in place; what the groups read and when they run stays. Linear."""
    with Rewriter() as rewriter:
        for function in module.functions.values():
            for op in function.block:
                if op.name == "barrier" and group_of(op) is not None:
                    rewriter.replace(op, *operand_values(op))


def in_conditionals(module: Module) -> None:
    """Put each group into the taken branch of a `cond`, in place. Linear."""
    for function in module.functions.values():
        groups: dict[object, list[Op]] = {}
        for op in function.block:
            scope = group_of(op)
            if scope is not None:
                groups.setdefault(scope, []).append(op)
        for members in groups.values():
            _put_in_conditional(function.block, members)


def _put_in_conditional(block: Block, members: Sequence[Op]) -> None:
    """Replace the ops of a group, which stand together, by a `cond`. A group without a barrier stays as it is."""
    barriers = [op for op in members if op.name == "barrier"]
    if not barriers:
        return
    outside: dict[Value, Value] = {}
    for op in barriers:
        outside |= dict(zip(op.results, operand_values(op), strict=True))
    link = barriers[0].operands[-1]
    copies = [op for op in members if op.name != "barrier"]
    inside = {value for op in copies for value in op.results}
    taken: dict[Value, None] = {}
    for op in copies:
        for value in operand_values(op):
            source = outside.get(value, value)
            if source not in inside:
                taken[source] = None
    captures = list(taken)
    whole = set(members)
    given = [v for op in members for v in op.results if any(user not in whole for user in v.uses or ())]
    results = [(value, outside.get(value, value)) for value in given if outside.get(value, value) in inside]
    assert link is not None
    anchor = members[-1]
    rewriter = Rewriter()
    builder = rewriter.before(anchor)
    builder.location = barriers[0].location
    with builder:
        index = _always(link)
    again = _copied(builder, captures, copies, outside, [value for _, value in results])
    never = Region()
    for value in captures:
        never.block.add_parameter(value.type, value.name)
    with Builder(never.block, function=block.function) as inner:
        nothing = [ops.full(value.shape, 0, value.dtype) for value, _ in results]
        yield_.build(inner, tuple(nothing))
    if results:
        found = cond_op.build(builder, (index, *captures), None, (again, never)).results
        for (old, _), new in zip(results, found, strict=True):
            rewriter.replace_value(old, new)
    for value, source in outside.items():  # what only passed through a barrier
        if value.uses and source not in inside and any(user not in whole for user in value.uses):
            rewriter.replace_value(value, source)
    for op in reversed(members):
        rewriter.erase(op)
    rewriter.flush()


def _copied(
    builder: Builder, captures: Sequence[Value], copies: Sequence[Op], outside: dict[Value, Value], results: list[Value]
) -> Region:
    region = Region()
    values: dict[Value, Value] = {value: region.block.add_parameter(value.type, value.name) for value in captures}
    for op in copies:
        for value in operand_values(op):
            if value in outside:
                values[value] = values[outside[value]]
        copy = clone_op(op, values)
        copy.location = op.location
        region.block.append(copy)
    inner = Builder(region.block, function=builder.function)
    yield_.build(inner, tuple(values[value] for value in results))
    return region


def _always(link: Value) -> Value:
    """A bool that is true whatever `link` is, in a way that no compiler sees: of the bits of an element, or 1."""
    first = link
    if link.shape:
        first = ops.slice(link, starts=(0,) * link.ndim, limits=(1,) * link.ndim)
        first = ops.reshape(first, shape=())
    if first.dtype.is_float or first.dtype.is_complex:
        first = ops.real(first) if first.dtype.is_complex else first
        bits = ops.bitcast(first if first.dtype is f32 else ops.convert(first, dtype=f32), dtype=i32)
    else:
        bits = first if first.dtype is i32 else ops.convert(first, dtype=i32)
    return ops.ne(ops.or_(bits, 1), 0)
