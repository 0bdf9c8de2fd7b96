"""What the IR itself needs: constants, tags, sizes; and ops with regions, as `If` and `Loop`.

A region's captures need no inputs: a graph inside sees what stands before it outside.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from graphc.codegen.onnx.graph import GraphWriter, Tensor
from graphc.codegen.onnx.sizes import at_least
from graphc.codegen.onnx.spelling.movement import FAR
from graphc.ir.dims import Dim
from graphc.ir.dtypes import bool_, i64
from graphc.ir.graph import Block, Op, Value, operand_values
from graphc.ir.types import TensorType

SCALAR = TensorType.of(i64)
FLAG = TensorType.of(bool_)


def constant(graph: GraphWriter, op: Op) -> Tensor:
    value, dtype = op.attributes
    return graph.constant(np.asarray(value), dtype)


def same(graph: GraphWriter, op: Op, x: Tensor) -> Tensor:
    return x


def barrier(graph: GraphWriter, op: Op, *xs: Tensor) -> Sequence[Tensor]:
    """ONNX has no fence; its optimizer moves what it likes."""
    return xs


def dim_size(graph: GraphWriter, op: Op) -> Tensor:
    return graph.sizes.scalar(op.attributes[0])


def assume_dim(graph: GraphWriter, op: Op, x: Tensor, count: Tensor) -> Tensor:
    axis, size = op.attributes
    graph.sizes.define(size, count)
    return graph.slice(x, graph.integers(0), graph.sizes.size(size).name, [axis], [1])


def run(graph: GraphWriter, block: Block, operands: Sequence[Tensor]) -> list[Tensor]:
    """Write a region's block with its parameters standing for `operands`."""
    graph.values.update(zip(block.parameters, operands, strict=True))
    return graph.block(block)


def cond(graph: GraphWriter, op: Op, index: Tensor, *captures: Tensor) -> Sequence[Tensor]:
    """`If`; for several branches the rest of them stand in its else branch."""
    types = [value.type for value in op.results]
    last = len(op.regions) - 1

    def write(number: int) -> list[Tensor]:
        if number == last:
            return run(graph, op.regions[number].block, captures)
        if index.dtype.is_bool:
            chosen = index
        else:
            chosen = graph.compute("LessOrEqual", index, graph.constant(number, index.dtype), result=bool_)
        base = graph.base
        here = graph.subgraph([], lambda: run(graph, op.regions[number].block, captures), types)
        rest = graph.subgraph([], lambda: write(number + 1), types)
        graph.base = base
        return graph.nodes("If", [chosen.name], op.results, then_branch=here, else_branch=rest)

    return write(0)


def while_loop(graph: GraphWriter, op: Op, *operands: Tensor) -> Sequence[Tensor]:
    """`Loop` without a trip count: the condition is written once before it and once at the end of its body."""
    carried: int = op.attributes[0]
    values, captures = operands[:carried], operands[carried:]
    condition, body = (region.block for region in op.regions)
    base = graph.base
    (first,) = run(graph, condition, operands)
    graph.base = base
    step, go, *names = (graph.unique(f"{base}.{name}") for name in ("step", "go", *_names(body.parameters[:carried])))
    state = [Tensor(name, value.dtype) for name, value in zip(names, values, strict=True)]
    types = [value.type for value in body.parameters[:carried]]

    def write() -> list[Tensor]:
        after = run(graph, body, [*state, *captures])
        return [*run(graph, condition, [*after, *captures]), *after]

    inputs = [(step, SCALAR), (go, FLAG), *zip(names, types, strict=True)]
    proto = graph.subgraph(inputs, write, [FLAG, *types])
    return graph.nodes("Loop", ["", first.name, *(t.name for t in values)], op.results, body=proto)


def scan(graph: GraphWriter, op: Op, *operands: Tensor) -> Sequence[Tensor]:
    """`Loop` with a trip count. (ONNX's `Scan` refuses to run over nothing.) A slice is gathered by the step's number,
    from the end when reversed; the stacks are then turned around."""
    carried, sliced, length, backwards = op.attributes
    carries, xs = operands[:carried], operands[carried : carried + sliced]
    captures = operands[carried + sliced :]
    body = op.regions[0].block
    base = graph.base
    step, go, *names = (graph.unique(f"{base}.{name}") for name in ("step", "go", *_names(body.parameters[:carried])))
    state = [Tensor(name, value.dtype) for name, value in zip(names, carries, strict=True)]
    types = [value.type for value in body.parameters[:carried]]
    rows = [value.type for value in body.outputs[carried:]]
    trips = graph.sizes.scalar(length)

    def write() -> list[Tensor]:
        place = step
        if backwards:
            last = graph.node("Sub", [trips.name, graph.constant(1, i64).name], i64)
            place = graph.node("Sub", [last.name, step], i64).name
        slices = [graph.compute("Gather", x, place, axis=0) for x in xs]
        found = run(graph, body, [*state, *slices, *captures])
        return [Tensor(go, bool_), *found]

    inputs = [(step, SCALAR), (go, FLAG), *zip(names, types, strict=True)]
    proto = graph.subgraph(inputs, write, [FLAG, *types, *rows])
    lacks_shape = not at_least(length, 1) and any(isinstance(size, Dim) for row in rows for size in row.shape)
    initial = [trips.name, "", *(t.name for t in carries)]
    found = graph.nodes("Loop", initial, op.results, named=not (backwards or lacks_shape), body=proto)
    if backwards:
        minus = graph.integers(-1), graph.integers(-FAR)
        found[carried:] = [graph.slice(stack, *minus, [0], [-1]) for stack in found[carried:]]
    if lacks_shape:  # of no rows the runtime does not know how long they would have been
        found[carried:] = [
            graph.compute("Reshape", stack, graph.sizes.shape((length, *row.shape)), allowzero=1)
            for stack, row in zip(found[carried:], rows, strict=True)
        ]
    return found


def _names(parameters: Sequence[Value]) -> list[str]:
    return [value.name or "carry" for value in parameters]


def _has_bytes(op: Op) -> bool:
    """Whether a region has no 4-bit integers, which `If` and `Loop` do not hand through."""
    return all(value.dtype.bits >= 8 or value.dtype.is_bool for value in (*operand_values(op), *op.results))


SPELLING: dict[str, Any] = {
    "constant": constant,
    "name": same,
    "stop_gradient": same,
    "barrier": barrier,
    "dim_size": dim_size,
    "assume_dim": assume_dim,
    "cond": cond,
    "while": while_loop,
    "scan": scan,
}

WHEN: dict[str, Any] = {"cond": _has_bytes, "while": _has_bytes, "scan": _has_bytes}
