"""The reference meaning of the ops with regions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from graphc.ir.dims import Dim, Size
from graphc.ir.errors import GraphcError, UnsupportedError
from graphc.ir.graph import Op

if TYPE_CHECKING:
    from graphc.ir.interpreter import Interpreter

Array = np.ndarray[Any, Any]


def run_region_op(
    interpreter: Interpreter,
    op: Op,
    operands: Sequence[Array],
    attributes: Mapping[str, Any],
    bindings: dict[Dim, Size],
) -> list[Array]:
    """Results of a `cond`, `while` or `scan`."""
    run = interpreter.run_block
    if op.name == "cond":
        choice, *captures = operands
        last = len(op.regions) - 1
        index = (0 if choice else 1) if choice.dtype == bool else min(max(int(choice), 0), last)
        return run(op.regions[index].block, captures, bindings)
    if op.name == "while":
        carried = attributes["carried"]
        values, captures = list(operands[:carried]), list(operands[carried:])
        condition, body = (region.block for region in op.regions)
        count, bound = 0, attributes["bound"]
        while run(condition, values + captures, bindings)[0]:
            if count == bound:
                raise GraphcError(f"a while that is bound to {bound} rounds goes on after them").at(str(op.location))
            values = run(body, values + captures, bindings)
            count += 1
        return values
    if op.name == "scan":
        return _scan(interpreter, op, operands, attributes, bindings)
    raise UnsupportedError(f"the op {op.name} has regions and no reference")


def _scan(
    interpreter: Interpreter,
    op: Op,
    operands: Sequence[Array],
    attributes: Mapping[str, Any],
    bindings: dict[Dim, Size],
) -> list[Array]:
    carried, sliced, length = attributes["carried"], attributes["sliced"], attributes["length"]
    carries, xs = list(operands[:carried]), operands[carried : carried + sliced]
    captures = list(operands[carried + sliced :])
    block = op.regions[0].block
    rows: list[list[Array]] = [[] for _ in op.results[carried:]]
    steps = range(length)
    for i in reversed(steps) if attributes["reverse"] else steps:
        out = interpreter.run_block(block, [*carries, *(x[i] for x in xs), *captures], bindings)
        carries = out[:carried]
        for row, array in zip(rows, out[carried:], strict=True):
            row.append(array)
    if attributes["reverse"]:
        rows = [row[::-1] for row in rows]
    if length:
        return carries + [np.stack(row) for row in rows]
    empty = [
        np.zeros((0, *_sizes(value.type.shape[1:], bindings)), value.type.dtype.numpy) for value in op.results[carried:]
    ]
    return carries + empty


def _sizes(shape: Sequence[Size], bindings: Mapping[Dim, Size]) -> list[int]:
    from graphc.ir.interpreter import concrete

    return [concrete(size, bindings) for size in shape]
