"""Ops that move elements. Sizes that are symbols are read where they are needed, which is seldom."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from graphc.codegen.onnx.graph import GraphWriter, Tensor
from graphc.codegen.onnx.kernels import KERNELS
from graphc.codegen.onnx.sizes import at_least
from graphc.codegen.onnx.spelling.elementwise import either, less
from graphc.ir.dims import Size, product
from graphc.ir.dtypes import bool_, f32, i16, i32, i64, u32
from graphc.ir.graph import Op
from graphc.ir.inference import is_literal
from graphc.ir.types import Shape, TensorType

FAR = 2**62
"""A limit beyond any size."""


def _type(op: Op, index: int = 0) -> TensorType:
    return op.operands[index].type  # type: ignore[union-attr]


def reshape(graph: GraphWriter, op: Op, x: Tensor) -> Tensor:
    return graph.reshape(x, op.attributes[0])


def transpose(graph: GraphWriter, op: Op, x: Tensor) -> Tensor:
    return graph.transpose(x, op.attributes[0])


def broadcast(graph: GraphWriter, op: Op, x: Tensor) -> Tensor:
    """`Expand` keeps an axis where it is told 1, so that only what is new must be known."""
    return expanded(graph, x, _type(op).shape, op.attributes[0])


def expanded(graph: GraphWriter, x: Tensor, have: Shape, shape: Shape) -> Tensor:
    if tuple(have) == tuple(shape):
        return x
    padded = (*(None,) * (len(shape) - len(have)), *have)
    wanted = [1 if old is new else new for old, new in zip(padded, shape, strict=True)]
    return graph.compute("Expand", x, graph.sizes.shape(wanted))


def iota(graph: GraphWriter, op: Op) -> Tensor:
    shape, axis, dtype = op.attributes
    counting = dtype if dtype in (i16, i32, i64, f32) else i64
    if dtype is u32 and isinstance(shape[axis], int) and shape[axis] < 2**31:
        counting = i32
    if isinstance(shape[axis], int) and shape[axis] <= 64:
        along = graph.constant(np.arange(shape[axis]), dtype)
    else:
        ends = [graph.constant(0, counting), graph.sizes.scalar(shape[axis], counting), graph.constant(1, counting)]
        along = graph.cast(graph.node("Range", [t.name for t in ends], counting), dtype)
    if len(shape) > 1:
        spread = tuple(size if i == axis else 1 for i, size in enumerate(shape))
        along = expanded(graph, graph.reshape(along, spread), spread, shape)
    return along


def reverse(graph: GraphWriter, op: Op, x: Tensor) -> Tensor:
    axes: tuple[int, ...] = op.attributes[0]
    if not axes:
        return x
    minus = [-1] * len(axes)
    return graph.slice(x, graph.integers(*minus), graph.integers(*[-FAR] * len(axes)), axes, minus)


def slice(graph: GraphWriter, op: Op, x: Tensor) -> Tensor:
    starts, limits, strides = op.attributes
    return part(graph, x, _type(op).shape, starts, limits, strides or (1,) * len(starts))


def part(
    graph: GraphWriter, x: Tensor, shape: Shape, starts: Sequence[Size], limits: Sequence[Size], steps: Sequence[int]
) -> Tensor:
    """`x[start:limit:step, …]`, along the axes where that is not everything."""
    places = [
        (axis, start, FAR if limit is size else limit, step)
        for axis, (size, start, limit, step) in enumerate(zip(shape, starts, limits, steps, strict=True))
        if not (is_literal(start, 0) and (limit is size or limit == size) and step == 1)
    ]
    if not places:
        return x
    axes, firsts, ends, strides = zip(*places, strict=True)
    return graph.slice(x, graph.sizes.shape(firsts), graph.sizes.shape(ends), axes, strides)


def pad(graph: GraphWriter, op: Op, x: Tensor) -> Tensor:
    padding, interior, value = op.attributes
    shape = _type(op).shape
    if interior:
        x, shape = _spread(graph, x, shape, interior, value)
    return padded(graph, x, padding, value)


def padded(graph: GraphWriter, x: Tensor, padding: Sequence[tuple[Size, Size]], value: Any) -> Tensor:
    """`x` with pairs of padding around its axes."""
    if all(is_literal(low, 0) and is_literal(high, 0) for low, high in padding):
        return x
    pads = graph.sizes.shape([*(low for low, _ in padding), *(high for _, high in padding)])
    return graph.compute("Pad", x, pads, graph.constant(value, x.dtype))


def _spread(graph: GraphWriter, x: Tensor, shape: Shape, interior: Sequence[int], value: Any) -> tuple[Tensor, Shape]:
    """`x` with gaps between neighbours: each element gets a row of its own, which is filled up, and the last filling
    is cut off."""
    sizes = list(shape)
    for axis, gap in enumerate(interior):
        if not gap:
            continue
        rows = graph.reshape(x, [*sizes[: axis + 1], 1, *sizes[axis + 1 :]])
        pairs: list[tuple[Size, Size]] = [(0, gap if i == axis + 1 else 0) for i in range(len(sizes) + 1)]
        filled = padded(graph, rows, pairs, value)
        sizes[axis] = sizes[axis] * (gap + 1)
        x = graph.reshape(filled, sizes)
        x = graph.slice(x, graph.integers(0), graph.integers(-gap), [axis], [1])
        sizes[axis] = sizes[axis] - gap if at_least(shape[axis], 1) else sizes[axis]
    return x, tuple(sizes)


# --- parts at places that are data --------------------------------------------------------------------------------


def _starts(graph: GraphWriter, starts: Sequence[Tensor], shape: Shape, sizes: Sequence[Size]) -> Tensor:
    """The starts as one int64 vector, moved so that the part lies inside."""
    parts = [graph.node("Reshape", [graph.cast(s, i64).name, graph.integers(1)], i64).name for s in starts]
    vector = graph.node("Concat", parts, i64, axis=0) if len(parts) > 1 else Tensor(parts[0], i64)
    last = graph.sizes.shape([have - size for have, size in zip(shape, sizes, strict=True)])
    zero = graph.integers(*[0] * len(parts))
    return graph.node("Max", [graph.node("Min", [vector.name, last], i64).name, zero], i64)


def dynamic_slice(graph: GraphWriter, op: Op, x: Tensor, *starts: Tensor) -> Tensor:
    sizes = op.attributes[0]
    if not starts:
        return x
    first = _starts(graph, starts, _type(op).shape, sizes)
    limit = graph.node("Add", [first.name, graph.sizes.shape(sizes)], i64)
    return graph.slice(x, first.name, limit.name, range(len(starts)), [1] * len(starts))


def dynamic_update_slice(graph: GraphWriter, op: Op, x: Tensor, update: Tensor, *starts: Tensor) -> Tensor:
    """Along one axis by joining what is before, the update, and what is after; else by a mask."""
    shape, sizes = _type(op).shape, _type(op, 1).shape
    axes = [
        axis for axis, (have, size) in enumerate(zip(shape, sizes, strict=True)) if have is not size and have != size
    ]
    if not axes:
        return update
    if len(axes) == 1:
        (axis,) = axes
        first = _starts(graph, starts[axis : axis + 1], (shape[axis],), (sizes[axis],))
        after = graph.node("Add", [first.name, graph.sizes.size(sizes[axis]).name], i64)
        before = graph.slice(x, graph.integers(0), first.name, [axis], [1])
        rest = graph.slice(x, after.name, graph.integers(FAR), [axis], [1])
        return graph.compute("Concat", before, update, rest, axis=axis)
    first = _starts(graph, starts, shape, sizes)
    room = graph.sizes.shape([have - size for have, size in zip(shape, sizes, strict=True)])
    after = graph.node("Sub", [room, first.name], i64)
    pads = graph.node("Concat", [first.name, after.name], i64, axis=0)
    inside = graph.compute("Pad", graph.full(sizes, True, bool_), pads.name, graph.constant(False, bool_))
    return graph.where(inside, graph.compute("Pad", update, pads.name, graph.constant(0, x.dtype)), x)


def _in_range(op: Op, index: int, size: Size) -> bool:
    """Whether the operand at `index` is a constant of indices below `size`."""
    value = op.operands[index]
    if value is None or value.op is None or value.op.name != "constant" or not isinstance(size, int):
        return False
    numbers = np.asarray(value.op.attributes[0])
    return bool(np.all((numbers >= 0) & (numbers < size)))


def _outside(graph: GraphWriter, indices: Tensor, size: Tensor) -> Tensor:
    below = less(graph, indices, graph.constant(0, i64))
    return either(graph, below, graph.compute("GreaterOrEqual", indices, size, result=bool_))


def gather(graph: GraphWriter, op: Op, x: Tensor, indices: Tensor) -> Tensor:
    axis, mode = op.attributes
    type = _type(op)
    count = type.shape[axis]
    index = graph.cast(indices, i64) if indices.dtype not in (i32, i64) else indices
    if _in_range(op, 1, count):
        return graph.compute("Gather", x, index.name, axis=axis)
    index = graph.cast(index, i64)
    size = graph.sizes.scalar(count)
    if mode == "fill" and not at_least(count, 1):  # a row of zeros behind the last one
        pairs: list[tuple[Size, Size]] = [(0, int(i == axis)) for i in range(type.ndim)]
        x = padded(graph, x, pairs, 0)
        index = graph.where(_outside(graph, index, size), size, index)
        return graph.compute("Gather", x, index.name, axis=axis)
    last = graph.node("Sub", [size.name, graph.constant(1, i64).name], i64) if not isinstance(count, int) else None
    last = last or graph.constant(count - 1, i64)  # type: ignore[operator]
    clamped = graph.compute("Clip", index, graph.constant(0, i64), last)
    found = graph.compute("Gather", x, clamped.name, axis=axis)
    if mode == "clamp":
        return found
    outside = _outside(graph, index, size)
    after = type.ndim - axis - 1
    if after:
        outside = graph.reshape(outside, [*_type(op, 1).shape, *[1] * after])
    return graph.where(outside, graph.constant(0, x.dtype), found)


def scatter(graph: GraphWriter, op: Op, x: Tensor, indices: Tensor, updates: Tensor) -> Tensor:
    """`ScatterND` along the first axis. What is outside goes to a row behind the last one, which is cut off."""
    axis, reduction = op.attributes
    type, places = _type(op), _type(op, 1)
    order = [axis, *(i for i in range(type.ndim) if i != axis)]
    behind = tuple(type.shape[i] for i in order[1:])
    lead = [*range(axis, axis + places.ndim)]
    rest = [i for i in range(places.ndim + type.ndim - 1) if i not in lead]
    number = product(places.shape)
    rows = graph.reshape(graph.transpose(updates, [*lead, *rest]), [number, *behind])
    index = graph.cast(indices, i64)
    target = graph.transpose(x, order)
    known = _in_range(op, 1, type.shape[axis])
    if not known:
        size = graph.sizes.scalar(type.shape[axis])
        index = graph.where(_outside(graph, index, size), size, index)
        target = padded(graph, target, [(0, int(i == 0)) for i in range(type.ndim)], 0)
    index = graph.reshape(index, [number, 1])
    kind = "add" if reduction == "add" else "none"
    found = graph.compute("ScatterND", target, index.name, rows, reduction=kind)
    if not known:
        found = graph.slice(found, graph.integers(0), graph.integers(-1), [0], [1])
    return graph.transpose(found, [order.index(i) for i in range(type.ndim)])


# --- joins and splits ---------------------------------------------------------------------------------------------


def concat(graph: GraphWriter, op: Op, *xs: Tensor) -> Tensor:
    return graph.compute("Concat", *xs, axis=op.attributes[0]) if xs[1:] else xs[0]


def split(graph: GraphWriter, op: Op, x: Tensor) -> list[Tensor]:
    sizes, axis = op.attributes
    return graph.nodes("Split", [x.name, graph.sizes.shape(sizes)], op.results, axis=axis)


def _splits(op: Op) -> bool:
    return len(op.attributes[0]) > 0 and _type(op).dtype in KERNELS["Split"]


SPELLING: dict[str, Any] = {
    "reshape": reshape,
    "transpose": transpose,
    "broadcast": broadcast,
    "iota": iota,
    "reverse": reverse,
    "slice": slice,
    "pad": pad,
    "dynamic_slice": dynamic_slice,
    "dynamic_update_slice": dynamic_update_slice,
    "gather": gather,
    "scatter": scatter,
    "concat": concat,
    "split": split,
}

WHEN: dict[str, Any] = {"split": _splits}
