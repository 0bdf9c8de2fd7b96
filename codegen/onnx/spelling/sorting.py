"""Sorting, and picking by indices of as many axes."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphc.codegen.onnx.graph import GraphWriter, Tensor
from graphc.codegen.onnx.spelling.elementwise import either, less, number, widened
from graphc.codegen.onnx.spelling.integer import comparable
from graphc.ir.dtypes import DType, bool_, f64, i64
from graphc.ir.graph import Op


def picked(graph: GraphWriter, x: Tensor, indices: Tensor, axis: int) -> Tensor:
    """The elements of `x` at int64 `indices` along `axis`, which have as many axes."""
    inside = widened(graph, x) if x.dtype.is_float else x
    found = graph.node("GatherElements", [inside.name, indices.name], inside.dtype, axis=axis)
    return graph.cast(found, x.dtype)


def sort(graph: GraphWriter, op: Op, *xs: Tensor) -> list[Tensor]:
    """`TopK` of all elements, the least first, which keeps the order of equal ones. Floats are sorted with NaN as
    infinity, then by whether they are NaN."""
    axis = op.attributes[0]
    count = graph.sizes.size(op.operands[0].type.shape[axis])  # type: ignore[union-attr]
    first = xs[0]
    if first.dtype.is_float:
        wide = widened(graph, first)
        missing = graph.is_nan(wide)
        order = _order(graph, graph.where(missing, number(graph, np.inf, wide), wide), count, axis)
        last = picked(graph, graph.cast(missing, i64), order, axis)
        order = picked(graph, order, _order(graph, last, count, axis), axis)
    else:
        order = _order(graph, graph.cast(comparable(graph, first), i64), count, axis)
    return [picked(graph, x, order, axis) for x in xs]


def _order(graph: GraphWriter, x: Tensor, count: Tensor, axis: int) -> Tensor:
    """The places of the elements in ascending order."""
    types: list[DType] = [x.dtype, i64]
    return graph.several("TopK", [x.name, count.name], types, axis=axis, largest=0, sorted=1)[1]


def sparse_cross_entropy(graph: GraphWriter, op: Op, logits: Tensor, labels: Tensor) -> Tensor:
    """−log softmax(logits), picked at the labels."""
    ignore_index, share = op.attributes
    type = op.operands[0].type  # type: ignore[union-attr]
    axis = type.ndim - 1
    wide = widened(graph, logits)
    chances = graph.compute("LogSoftmax", wide, axis=axis)
    index = graph.cast(labels, i64)
    size, zero = graph.sizes.scalar(type.shape[axis]), graph.constant(0, i64)
    outside = either(graph, less(graph, index, zero), graph.compute("GreaterOrEqual", index, size, result=bool_))
    place = graph.reshape(graph.where(outside, zero, index), (*type.shape[:-1], 1))
    loss = graph.compute("Neg", graph.reshape(picked(graph, chances, place, axis), type.shape[:-1]))
    if share:
        mean = graph.compute("ReduceMean", chances, graph.integers(axis), keepdims=0)
        loss = graph.compute("Mul", loss, number(graph, 1 - share, loss))
        loss = graph.compute("Sub", loss, graph.compute("Mul", mean, number(graph, share, loss)))
    loss = graph.where(outside, number(graph, np.nan, loss), loss)
    if ignore_index is not None:
        ignored = graph.compute("Equal", index, graph.constant(ignore_index, i64), result=bool_)
        loss = graph.where(ignored, number(graph, 0, loss), loss)
    return graph.cast(loss, logits.dtype)


def _losses(op: Op) -> bool:
    """float64's `LogSoftmax` forgets NaN; uint64 labels may lie beyond int64."""
    logits, labels = (value.type for value in op.operands if value is not None)
    return logits.dtype is not f64 and labels.dtype != "uint64" and logits.shape[-1] != 0


SPELLING: dict[str, Any] = {"sort": sort, "sparse_cross_entropy": sparse_cross_entropy}

WHEN: dict[str, Any] = {
    "sort": lambda op: all(value.dtype.bits != 4 for value in op.operands),
    "sparse_cross_entropy": _losses,
}
