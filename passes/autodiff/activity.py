"""Which values matter to a derivative: those that depend on what is differentiated, through inexact dtypes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from graphc.ir.graph import Block, Op, Value
from graphc.ir.module import Module

STOPS = frozenset({"stop_gradient"})


def is_inexact(value: Value) -> bool:
    return value.dtype.is_float or value.dtype.is_complex


def active_values(module: Module | None, block: Block, seeds: Iterable[Value]) -> set[Value]:
    """The values of `block` (not of its regions) whose derivative by `seeds` may not be zero, seeds included."""
    active = {value for value in seeds if is_inexact(value)}
    for op in block:
        if op.definition.name in STOPS or not any(value in active for value in op.operands):
            continue
        active.update(active_results(module, op, active))
    return active


def active_results(module: Module | None, op: Op, active: set[Value]) -> list[Value]:
    """Which results of `op` depend on active operands."""
    if op.name == "call" and module is not None:
        block = module.functions[op.attributes[0]].block
        flags = [value in active for value in op.operands]
        return _selected(op.results, outputs_active(module, block, flags))
    if op.name == "custom_gradient":
        attributes = op.attribute_dict
        reached = any(op.operands[i] in active for i in attributes["wrt"])
        return [value for value in op.results[: attributes["outputs"]] if reached and is_inexact(value)]
    if op.name == "cond":
        flags = [value in active for value in op.operands[1:]]
        branches = [outputs_active(module, region.block, flags) for region in op.regions]
        return _selected(op.results, [any(column) for column in zip(*branches, strict=True)])
    if op.name in ("scan", "while"):
        carried = loop_activity(module, op, active)
        block = op.regions[-1].block
        flags = carried + [value in active for value in op.operands[len(carried) :]]
        return _selected(op.results, carried + outputs_active(module, block, flags)[len(carried) :])
    return [value for value in op.results if is_inexact(value)]


def loop_activity(module: Module | None, op: Op, active: set[Value]) -> list[bool]:
    """Which carries of a loop are active, in any of its rounds."""
    count = op.attribute_dict["carried"]
    block = op.regions[-1].block
    rest = [value in active for value in op.operands[count:]]
    carried = [value in active for value in op.operands[:count]]
    while True:
        after = outputs_active(module, block, carried + rest)[:count]
        grown = [before or now for before, now in zip(carried, after, strict=True)]
        if grown == carried:
            return carried
        carried = grown


def outputs_active(module: Module | None, block: Block, flags: Sequence[bool]) -> list[bool]:
    """Which outputs of a block are active when the parameters with a true flag are."""
    seeds = [value for value, flag in zip(block.parameters, flags, strict=True) if flag]
    active = active_values(module, block, seeds)
    return [value in active for value in block.outputs]


def _selected(values: Sequence[Value], flags: Sequence[bool]) -> list[Value]:
    return [value for value, flag in zip(values, flags, strict=True) if flag and is_inexact(value)]
