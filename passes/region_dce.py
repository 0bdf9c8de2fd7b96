"""Results, carried values and captures of ops with regions that nothing reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphc.ir.graph import Block, Op, Value
from graphc.ir.rewriter import Rewriter


def trim_results(op: Op, rewriter: Rewriter) -> Op:
    """Drop results of a `cond`, `while` or `scan` that nothing reads, with what is carried for them only; returns the
    op that stands for it."""
    if all(value.uses for value in op.results):
        return op
    if op.name == "cond":
        return _trim_cond(op, rewriter)
    carried = op.attribute_dict["carried"]
    live = _live_carries(op, carried)
    if op.name == "scan":
        return _trim_scan(op, rewriter, carried, live)
    return _trim_while(op, rewriter, carried, live)


def trim_captures(op: Op, rewriter: Rewriter) -> None:
    """Drop operands that are read in no region."""
    attributes = op.attribute_dict
    # Where operands that are region parameters begin among the operands, and the first that may be dropped.
    lead = 1 if op.name == "cond" else 0
    first = attributes.get("carried", 0)
    parameters = range(first, len(op.operands) - lead)
    unread = [i for i in parameters if not any(region.block.parameters[i].uses for region in op.regions)]
    if not unread:
        return
    for region in op.regions:
        _drop_parameters(region.block, unread, rewriter)
    if op.name == "scan":
        attributes["sliced"] -= sum(i < first + attributes["sliced"] for i in unread)
        rewriter.set_attributes(op, op.definition.make_attributes(**attributes))
    gone = {i + lead for i in unread}
    rewriter.set_operands(op, [v for i, v in enumerate(op.operands) if i not in gone])


def _trim_cond(op: Op, rewriter: Rewriter) -> Op:
    kept = [i for i, value in enumerate(op.results) if value.uses]
    for region in op.regions:
        _yield_only(region.block, kept, rewriter)
    return rewriter.retain(op, op.operands, op.attributes, kept)


def _trim_scan(op: Op, rewriter: Rewriter, carried: int, live: Sequence[int]) -> Op:
    stacks = [i for i in range(carried, len(op.results)) if op.results[i].uses]
    kept = [*live, *stacks]
    if len(kept) == len(op.results):
        return op
    (body,) = (region.block for region in op.regions)
    dead = [i for i in range(carried) if i not in live]
    _yield_only(body, kept, rewriter)
    _erase_dead(body, rewriter)
    _drop_parameters(body, dead, rewriter)
    return _without_carries(op, rewriter, dead, kept)


def _trim_while(op: Op, rewriter: Rewriter, carried: int, live: Sequence[int]) -> Op:
    dead = [i for i in range(carried) if i not in live]
    if not dead:
        return op
    body = op.regions[1].block
    _yield_only(body, live, rewriter)
    _erase_dead(body, rewriter)
    for region in op.regions:
        _drop_parameters(region.block, dead, rewriter)
    return _without_carries(op, rewriter, dead, live)


def _without_carries(op: Op, rewriter: Rewriter, dead: Sequence[int], kept: Sequence[int]) -> Op:
    named: dict[str, Any] = op.attribute_dict
    named["carried"] -= len(dead)
    operands = [v for i, v in enumerate(op.operands) if i not in dead]
    return rewriter.retain(op, operands, op.definition.make_attributes(**named), kept)


def _live_carries(op: Op, carried: int) -> list[int]:
    """Carried values that something depends on: a result that is read, a stack that is read, the condition."""
    *conditions, body = (region.block for region in op.regions)
    live = {i for i in range(carried) if op.results[i].uses}
    for condition in conditions:
        live |= {i for i in range(carried) if condition.parameters[i].uses}
    outputs = body.outputs
    roots = [outputs[i] for i in range(carried, len(outputs)) if op.results[i].uses]
    reached: set[Value] = set()
    pending = roots + [outputs[i] for i in live]
    while pending:
        value = pending.pop()
        if value in reached:
            continue
        reached.add(value)
        if value.op is not None:
            pending.extend(v for v in value.op.operands if v is not None)
        elif value.index < carried and value.index not in live:
            live.add(value.index)
            pending.append(outputs[value.index])
    return sorted(live)


def _yield_only(block: Block, kept: Sequence[int], rewriter: Rewriter) -> None:
    terminator = block.terminator
    rewriter.set_operands(terminator, [terminator.operands[i] for i in kept])


def _erase_dead(block: Block, rewriter: Rewriter) -> None:
    """Remove what only a dropped output read, so that parameters are seen to be unread."""
    op = block.terminator.prev
    while op is not None:
        before = op.prev
        if not op.definition.has_effect and not any(value.uses for value in op.results):
            rewriter.erase(op)
        op = before


def _drop_parameters(block: Block, indices: Sequence[int], rewriter: Rewriter) -> None:
    for index in sorted(indices, reverse=True):
        rewriter.remove_block_parameter(block, index)
