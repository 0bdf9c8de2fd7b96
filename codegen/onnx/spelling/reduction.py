"""Reductions. ONNX Runtime's maximum forgets NaN, and its integer sums and products go through floats and saturate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from graphc.codegen.onnx.graph import GraphWriter, Tensor
from graphc.codegen.onnx.kernels import KERNELS, carrier
from graphc.codegen.onnx.sizes import at_least
from graphc.codegen.onnx.spelling.integer import comparable, comparable_back
from graphc.ir.dims import product
from graphc.ir.dtypes import bool_, i32, i64, u8, u64
from graphc.ir.graph import Op
from graphc.ir.ops.reduction import greatest, least
from graphc.ir.types import TensorType


def reduced(graph: GraphWriter, kind: str, x: Tensor, axes: Sequence[int], keepdims: bool) -> Tensor:
    return graph.compute(kind, x, graph.integers(*axes), keepdims=int(keepdims), noop_with_empty_axes=1)


def count(type: TensorType, axes: Sequence[int]) -> Any:
    return product(type.shape[axis] for axis in axes)


def _of_operand(op: Op) -> TensorType:
    return op.operands[0].type  # type: ignore[union-attr]


def reduce_sum(graph: GraphWriter, op: Op, x: Tensor) -> Tensor:
    axes, keepdims = op.attributes
    if not axes:
        return x
    if x.dtype.is_float:
        return reduced(graph, "ReduceSum", x, axes, keepdims)
    rows = _last(graph, op, x, axes)
    ones = graph.full((count(_of_operand(op), axes),), 1, x.dtype)
    return graph.reshape(graph.compute("MatMul", rows, ones), op.results[0].shape)


def _last(graph: GraphWriter, op: Op, x: Tensor, axes: Sequence[int]) -> Tensor:
    """`x` with `axes` as one, the last."""
    type = _of_operand(op)
    kept = [axis for axis in range(type.ndim) if axis not in axes]
    rows = graph.transpose(x, [*kept, *axes])
    return graph.reshape(rows, [*(type.shape[axis] for axis in kept), count(type, axes)])


def reduce_prod(graph: GraphWriter, op: Op, x: Tensor) -> Tensor:
    axes, keepdims = op.attributes
    if not axes:
        return x
    if x.dtype.is_float:
        return reduced(graph, "ReduceProd", x, axes, keepdims)
    inside = carrier("Mul", x.dtype)
    assert inside is not None
    return graph.cast(_integer_product(graph, op, graph.cast(x, inside), axes), x.dtype)


def _integer_product(graph: GraphWriter, op: Op, x: Tensor, axes: Sequence[int]) -> Tensor:
    """A loop that multiplies slice by slice."""
    type = _of_operand(op)
    kept = [axis for axis in range(type.ndim) if axis not in axes]
    shape = tuple(type.shape[axis] for axis in kept)
    rows = graph.reshape(graph.transpose(x, [*axes, *kept]), [count(type, axes), *shape])
    step, go, so_far = (graph.unique(f"{op.name}.{name}") for name in ("step", "go", "product"))
    scalar, state = TensorType.of(i64), TensorType.of(x.dtype, shape)

    def body() -> list[Tensor]:
        row = graph.compute("Gather", rows, step, axis=0)
        return [Tensor(go, bool_), graph.compute("Mul", Tensor(so_far, x.dtype), row)]

    inputs = [(step, scalar), (go, scalar.with_dtype(bool_)), (so_far, state)]
    proto = graph.subgraph(inputs, body, [scalar.with_dtype(bool_), state])
    trips = graph.sizes.scalar(count(type, axes)).name
    initial = graph.full(shape, 1, x.dtype)
    found = graph.node("Loop", [trips, "", initial.name], x.dtype, body=proto)
    return graph.reshape(found, op.results[0].shape)


def extremum(kind: str, identity: Any) -> Any:
    def spell(graph: GraphWriter, op: Op, x: Tensor) -> Tensor:
        axes, keepdims = op.attributes
        if not axes:
            return x
        if x.dtype.is_bool:
            return (_any if kind == "ReduceMax" else _all)(graph, op, x, axes, keepdims)
        empty = not at_least(count(_of_operand(op), axes), 1)
        found = comparable(graph, x)
        found = reduced(graph, kind, found, axes, keepdims)
        if empty and x.dtype not in KERNELS[kind] and x.dtype is not u64 and not np.isinf(identity(x.dtype)):
            found = _of_nothing(graph, kind, op, x, axes, keepdims, identity(x.dtype))
        found = comparable_back(graph, found, x.dtype)
        if not x.dtype.is_float:
            return found
        nan = _any_of(graph, graph.is_nan(x), axes, keepdims, empty)
        return graph.where(nan, graph.constant(np.nan, x.dtype), found)

    return spell


def _of_nothing(
    graph: GraphWriter, kind: str, op: Op, x: Tensor, axes: Sequence[int], keepdims: bool, identity: Any
) -> Tensor:
    """A reduction in a wider dtype, whose own value for nothing would not fit back."""
    inside = carrier(kind, x.dtype)
    assert inside is not None
    found = reduced(graph, kind, graph.cast(x, inside), axes, keepdims)
    limit = graph.constant(identity, inside)
    return graph.cast(graph.compute("Max" if kind == "ReduceMax" else "Min", found, limit), x.dtype)


def _any(graph: GraphWriter, op: Op, x: Tensor, axes: Sequence[int], keepdims: bool) -> Tensor:
    return _any_of(graph, x, axes, keepdims, not at_least(count(_of_operand(op), axes), 1))


def _any_of(graph: GraphWriter, x: Tensor, axes: Sequence[int], keepdims: bool, empty: bool) -> Tensor:
    """Whether any of bools is true; `ReduceMax` of bool refuses to reduce nothing, of int32 it gives the least one."""
    if not empty:
        return reduced(graph, "ReduceMax", x, axes, keepdims)
    found = reduced(graph, "ReduceMax", graph.cast(x, i32), axes, keepdims)
    return graph.compute("Greater", found, graph.constant(0, i32), result=bool_)


def _all(graph: GraphWriter, op: Op, x: Tensor, axes: Sequence[int], keepdims: bool) -> Tensor:
    if at_least(count(_of_operand(op), axes), 1):
        return reduced(graph, "ReduceMin", x, axes, keepdims)
    found = reduced(graph, "ReduceMin", graph.cast(x, i32), axes, keepdims)
    return graph.compute("Greater", found, graph.constant(0, i32), result=bool_)


def logical(spell: Any) -> Any:
    return lambda graph, op, x: spell(graph, op, x, *op.attributes) if op.attributes[0] else x


def reduce_mean(graph: GraphWriter, op: Op, x: Tensor) -> Tensor:
    return reduced(graph, "ReduceMean", x, *op.attributes)


def argument(kind: str) -> Any:
    def spell(graph: GraphWriter, op: Op, x: Tensor) -> Tensor:
        axis, keepdims, dtype = op.attributes
        attributes = {"axis": axis, "keepdims": int(keepdims)}
        found = graph.compute(kind, comparable(graph, x), result=i64, **attributes)
        if x.dtype.is_float:
            nan = graph.is_nan(x)
            first = graph.compute("ArgMax", graph.cast(nan, u8), result=i64, **attributes)
            found = graph.where(_any_of(graph, nan, (axis,), keepdims, False), first, found)
        return graph.cast(found, dtype)

    return spell


def cumulative_sum(graph: GraphWriter, op: Op, x: Tensor) -> Tensor:
    axis, reverse, exclusive = op.attributes
    along = graph.constant(axis, i64).name
    return graph.compute("CumSum", x, along, reverse=int(reverse), exclusive=int(exclusive))


def _has_count(op: Op) -> bool:
    """The mean of nothing is NaN; `ReduceMean` says 0."""
    axes = [axis % _of_operand(op).ndim for axis in op.attributes[0]]
    return bool(axes) and at_least(count(_of_operand(op), axes), 1)


SPELLING: dict[str, Any] = {
    "reduce_sum": reduce_sum,
    "reduce_prod": reduce_prod,
    "reduce_max": extremum("ReduceMax", least),
    "reduce_min": extremum("ReduceMin", greatest),
    "reduce_all": logical(_all),
    "reduce_any": logical(_any),
    "reduce_mean": reduce_mean,
    "argmax": argument("ArgMax"),
    "argmin": argument("ArgMin"),
    "cumulative_sum": cumulative_sum,
}

WHEN: dict[str, Any] = {"reduce_mean": _has_count}
