"""Windows. `MaxPool` forgets NaN, so a mask says where they were; windows over any axes are reduced axis by axis.

`reduce_window` is exact. Documented exception: `max_pool` in float32 gives −3.4e38 for a window of nothing but −inf.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from graphc.codegen.onnx.graph import GraphWriter, Tensor
from graphc.codegen.onnx.kernels import carrier
from graphc.codegen.onnx.spelling.contraction import attributes_of, back, image, padded_first
from graphc.codegen.onnx.spelling.elementwise import either
from graphc.codegen.onnx.spelling.movement import padded, part
from graphc.codegen.windows import Geometry
from graphc.ir.dims import Size, maximum, product
from graphc.ir.dtypes import bool_, f32, i64
from graphc.ir.graph import Op, Value
from graphc.ir.ops.reduction import greatest, least
from graphc.ir.sliding import padding_pairs
from graphc.ir.types import Shape, TensorType


def _type(op: Op, index: int = 0) -> TensorType:
    return op.operands[index].type  # type: ignore[union-attr]


def is_made_of_integers(value: Value | None) -> bool:
    """Whether a value was quantized and dequantized by a known scale: it has no NaN then."""
    op = None if value is None else value.op
    if op is None or op.name != "dequantize":
        return False
    scale = op.operands[1].op if op.operands[1] is not None else None
    return scale is not None and scale.name == "constant" and bool(np.isfinite(scale.attributes[0]).all())


def max_pool(graph: GraphWriter, op: Op, x: Tensor) -> Tensor:
    type = _type(op)
    geometry = Geometry(type.shape, op.attributes[0], op.attribute_dict)
    x = image(graph, x, type.ndim, geometry)
    x = padded_first(graph, x, geometry, -np.inf)
    attributes, window = attributes_of(geometry), geometry.window
    y = graph.compute("MaxPool", x, kernel_shape=window, **attributes)
    if is_made_of_integers(op.operands[0]):
        return back(graph, y, type.ndim, geometry)
    nan = graph.compute("MaxPool", graph.cast(graph.is_nan(x), f32), kernel_shape=window, **attributes)
    y = graph.where(graph.cast(nan, bool_), graph.constant(np.nan, x.dtype), y)
    return back(graph, y, type.ndim, geometry)


def avg_pool(graph: GraphWriter, op: Op, x: Tensor) -> Tensor:
    type = _type(op)
    geometry = Geometry(type.shape, op.attributes[0], op.attribute_dict)
    x = image(graph, x, type.ndim, geometry)
    y = graph.compute("AveragePool", x, **attributes_of(geometry), kernel_shape=geometry.window)
    return back(graph, y, type.ndim, geometry)


def _pools(kind: str) -> Any:
    """Floats of an image of one to three spatial axes; `AveragePool` must do the padding itself."""

    def when(op: Op) -> bool:
        type = _type(op)
        known = Geometry(type.shape, op.attributes[0], op.attribute_dict).is_known
        return type.dtype.is_float and carrier(kind, type.dtype) is not None and (known or kind == "MaxPool")

    return when


COMBINE = {"max": "Max", "min": "Min", "sum": "Add"}


def _identity(kind: str, op: Op) -> Any:
    dtype = op.results[0].dtype
    return 0 if kind == "sum" else least(dtype) if kind == "max" else greatest(dtype)


def reduce_window(graph: GraphWriter, op: Op, x: Tensor) -> Tensor:
    """A window is a product of intervals, so the axes are reduced one after the other."""
    kind, window, strides, padding, dilation = op.attributes
    shape = _type(op).shape
    pairs = padding_pairs(shape, window, strides, padding, dilation)
    x = padded(graph, x, pairs, _identity(kind, op))
    sizes = [low + size + high for size, (low, high) in zip(shape, pairs, strict=True)]
    for axis, (count, k, step, d) in enumerate(zip(op.results[0].shape, window, strides, dilation, strict=True)):
        if (k, step) == (1, 1):
            continue
        seen = [_along(graph, x, sizes, axis, place * d, count, step) for place in range(k)]
        if kind == "sum" or carrier(COMBINE[kind], x.dtype) is None:
            x = seen[0]
            for other in seen[1:]:
                x = graph.compute(COMBINE[kind], x, other)
        else:
            x = graph.compute(COMBINE[kind], *seen) if len(seen) > 1 else seen[0]
        sizes[axis] = count
    return x


def _along(
    graph: GraphWriter, x: Tensor, sizes: Sequence[Size], axis: int, start: int, count: Size, step: int
) -> Tensor:
    starts: list[Size] = [0] * len(sizes)
    limits, steps = list(sizes), [1] * len(sizes)
    starts[axis], limits[axis], steps[axis] = start, start + maximum((count - 1) * step + 1, 0), step
    return part(graph, x, tuple(sizes), starts, limits, steps)


def select_and_scatter(graph: GraphWriter, op: Op, x: Tensor, dy: Tensor) -> Tensor:
    """The places of the window are compared in order, with the flat index of each; then dy is added up there.

    Padding has the index behind the last one; that row is cut off.
    """
    kind, window, strides, padding, dilation = op.attributes
    shape = _type(op).shape
    pairs = padding_pairs(shape, window, strides, padding, dilation)
    total = product(shape)
    flat = graph.node(
        "Range", [graph.constant(0, i64).name, graph.sizes.scalar(total).name, graph.constant(1, i64).name], i64
    )
    behind = graph.sizes.scalar(total)
    index = graph.reshape(flat, shape)
    if any(size != 0 for pair in pairs for size in pair):
        pads = graph.sizes.shape([*(low for low, _ in pairs), *(high for _, high in pairs)])
        index = graph.compute("Pad", index, pads, behind)
        x = padded(graph, x, pairs, _identity(kind, op))
    sizes = tuple(low + size + high for size, (low, high) in zip(shape, pairs, strict=True))
    chosen = _selected(graph, x, index, behind, sizes, _type(op, 1).shape, kind, window, strides, dilation)
    zeros = graph.full((total + 1,), 0, dy.dtype)
    places = graph.reshape(chosen, (product(_type(op, 1).shape), 1))
    rows = graph.reshape(dy, (product(_type(op, 1).shape),))
    sums = graph.compute("ScatterND", zeros, places.name, rows, reduction="add")
    return graph.reshape(graph.slice(sums, graph.integers(0), graph.integers(-1), [0], [1]), shape)


def _selected(
    graph: GraphWriter, x: Tensor, index: Tensor, behind: Tensor, sizes: Shape, counts: Shape, kind: str,
    window: Sequence[int], strides: Sequence[int], dilation: Sequence[int],
) -> Tensor:  # fmt: skip
    """The index of the greatest (least) element of each window: the first of equals, the first NaN, never padding."""
    found: tuple[Tensor, Tensor] | None = None
    beats = "Greater" if kind == "max" else "Less"
    for place in itertools.product(*map(range, window)):
        starts = [p * d for p, d in zip(place, dilation, strict=True)]
        limits = [a + maximum((n - 1) * s + 1, 0) for a, n, s in zip(starts, counts, strides, strict=True)]
        value, where = (part(graph, each, sizes, starts, limits, strides) for each in (x, index))
        if found is None:
            found = value, where
            continue
        best, at = found
        better = graph.compute(beats, value, best, result=bool_)
        if x.dtype.is_float:
            first_nan = graph.compute("And", graph.is_nan(value), graph.compute("Not", graph.is_nan(best)))
            better = either(graph, better, first_nan)
        unset = graph.compute("Equal", at, behind, result=bool_)
        better = either(graph, better, unset)  # what is better than padding: anything, and padding again
        found = graph.where(better, value, best), graph.where(better, where, at)
    assert found is not None
    return found[1]


SPELLING: dict[str, Any] = {
    "max_pool": max_pool,
    "avg_pool": avg_pool,
    "reduce_window": reduce_window,
    "select_and_scatter": select_and_scatter,
}

WHEN: dict[str, Any] = {
    "max_pool": _pools("MaxPool"),
    "avg_pool": _pools("AveragePool"),
}
