"""Parts of tensors at places that are data: dynamic slices, gather and scatter. No index is an error when it runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from graphc.ir import ops
from graphc.ir.attributes import Axis, Shape
from graphc.ir.dims import Size, product
from graphc.ir.dtypes import DType, f32, i32
from graphc.ir.errors import ShapeError
from graphc.ir.inference import is_literal, require_at_most, require_equal, require_rank, shape_text
from graphc.ir.opdef import AnyTensor, IndexTensor, Tensor, composite, primitive
from graphc.ir.ops.cotangents import zeros_like
from graphc.ir.ops.movement import movement_flops, windows
from graphc.ir.suggestions import number_of
from graphc.ir.types import TensorType


def check_starts(x: TensorType, sizes: Sequence[Size], starts: Sequence[TensorType], what: str) -> None:
    if len(sizes) != x.ndim or len(starts) != x.ndim:
        raise ShapeError(f"{what} needs a size and a start for each axis of {x}")
    for start in starts:
        require_rank(start, 0, f"a start of {what}")
    for size, limit in zip(sizes, x.shape, strict=True):
        require_at_most(size, limit, f"{what} of {shape_text(sizes)} in {x}")


def clamped(starts: Sequence[np.ndarray], sizes: Sequence[int], shape: Sequence[int]) -> tuple[Any, ...]:
    """The index of a window whose starts are moved so that all of it lies inside."""
    firsts = [min(max(int(a), 0), n - size) for a, size, n in zip(starts, sizes, shape, strict=True)]
    return windows(firsts, [first + size for first, size in zip(firsts, sizes, strict=True)], None)


@primitive
def dynamic_slice(x: AnyTensor, *starts: IndexTensor, sizes: Shape) -> TensorType:
    """The part of `x` of these sizes that begins at `starts`, one integer scalar for each axis. A start is moved so
    that the part lies inside."""
    check_starts(x, sizes, starts, "dynamic_slice")
    return x.with_shape(sizes)


@dynamic_slice.reference
def _(x, *starts, sizes):
    return x[clamped(starts, sizes, x.shape)]


@dynamic_slice.vjp
def _(dy, y, x, *starts, sizes):
    return [dynamic_update_slice(zeros_like(x), dy, *starts), *(None for _ in starts)]


dynamic_slice.sample((4, 5), np.int32(1), np.int32(2), sizes=(2, 3))
dynamic_slice.sample((4,), np.int64(9), sizes=(3,))
dynamic_slice.sample((4,), np.int32(-2), sizes=(2,))


@primitive
def dynamic_update_slice(x: Tensor, update: Tensor, *starts: IndexTensor) -> TensorType:
    """`x` with `update` in place of the part of its sizes that begins at `starts`, one integer scalar for each axis.
    A start is moved so that the part lies inside."""
    if update.ndim != x.ndim:
        raise ShapeError(f"dynamic_update_slice: {update} must have as many axes as {x}")
    check_starts(x, update.shape, starts, "dynamic_update_slice")
    return x


@dynamic_update_slice.reference
def _(x, update, *starts):
    out = x.copy()
    out[clamped(starts, update.shape, x.shape)] = update
    return out


@dynamic_update_slice.vjp
def _(dy, y, x, update, *starts):
    dx = dynamic_update_slice(dy, zeros_like(update), *starts)
    return [dx, dynamic_slice(dy, *starts, sizes=update.shape), *(None for _ in starts)]


dynamic_update_slice.sample((4, 5), (2, 3), np.int32(1), np.int32(2))
dynamic_update_slice.sample((4,), (3,), np.int64(9))


def indexed(x: TensorType, indices: TensorType, axis: int) -> tuple[Size, ...]:
    """The shape of `x` with `axis` replaced by the axes of `indices`."""
    return (*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :])


@primitive
def gather(
    x: AnyTensor,
    indices: IndexTensor,
    *,
    axis: Axis = 0,
    mode: Literal["clamp", "fill"] = "clamp",
) -> TensorType:
    """The slices of `x` at `indices` along `axis`, which the axes of `indices` replace. An index outside 0 ≤ i < size
    is clamped, or gives zeros (`mode="fill"`)."""
    if mode == "clamp" and not any(is_literal(size, 0) for size in indices.shape):
        require_at_most(1, x.shape[axis], f"gather from axis {axis} of {x}, which may be empty")
    return x.with_shape(indexed(x, indices, axis))


@gather.reference
def _(x, indices, *, axis, mode):
    count = x.shape[axis]
    outside = (indices < 0) | (indices >= count)
    if not count:
        return np.zeros((*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]), x.dtype)
    found = np.take(x, np.clip(indices, 0, count - 1).astype(np.int64), axis)
    if mode == "fill":
        found[(np.s_[:],) * axis + (outside,)] = 0
    return found


@gather.vjp
def _(dy, y, x, indices, *, axis, mode):
    if mode == "clamp":
        last = ops.size_of(x.shape[axis], indices) - 1
        indices = ops.clip(indices, 0, last)
    return scatter(zeros_like(x), indices, dy, axis=axis), None


gather.sample((4, 3), np.array([2, 0, 3], np.int32))
gather.sample((2, 5), np.array([[0, 4], [4, 1]], np.int64), axis=1)
gather.sample((2, 3), np.int32(1), axis=-1)
gather.sample((3, 2), np.array([-1, 7, 1], np.int32))
gather.sample((3, 2), np.array([-1, 7, 1], np.int32), mode="fill")
gather.sample((0, 2), np.array([0, 1], np.int32), mode="fill")


@primitive
def scatter(
    x: Tensor,
    indices: IndexTensor,
    updates: Tensor,
    *,
    axis: Axis = 0,
    reduction: Literal["add", "set"] = "add",
) -> TensorType:
    """`x` with `updates` added to (or set in place of) its slices at `indices` along `axis`.

    In `updates` the axes of `indices` stand in place of `axis`. What has an index outside 0 ≤ i < size is dropped. Of
    several slices set in one place, which one stays is unspecified.
    """
    wanted = indexed(x, indices, axis)
    require_rank(updates, len(wanted), f"the updates of scatter into {x} at {indices}")
    for have, want in zip(updates.shape, wanted, strict=True):
        require_equal(have, want, f"the updates of scatter must have the shape {shape_text(wanted)}")
    return x


@scatter.reference
def _(x, indices, updates, *, axis, reduction):
    out = np.moveaxis(x.copy(), axis, 0)
    places = indices.ravel()
    inside = (places >= 0) & (places < x.shape[axis])
    rows = updates.reshape((*x.shape[:axis], places.size, *x.shape[axis + 1 :]))
    rows, places = np.moveaxis(rows, axis, 0)[inside], places[inside].astype(np.int64)
    if reduction == "add":
        np.add.at(out, places, rows)
    else:
        out[places] = rows
    return np.moveaxis(out, 0, axis)


@scatter.vjp
def _(dy, y, x, indices, updates, *, axis, reduction):
    taken = gather(dy, indices, axis=axis, mode="fill")
    if reduction == "add":
        return dy, None, taken
    return scatter(dy, indices, zeros_like(updates), axis=axis, reduction="set"), None, taken


scatter.sample((4, 3), np.array([2, 0, 2], np.int32), (3, 3))
scatter.sample((2, 5), np.array([[0, 4], [-1, 9]], np.int64), (2, 2, 2), axis=1)
scatter.sample((4, 3), np.array([2, 0], np.int32), (2, 3), reduction="set")


for _op in (dynamic_slice, dynamic_update_slice, gather):
    _op.flops(movement_flops)


@scatter.flops
def _(x, indices, updates, *, axis, reduction):
    return product(updates.shape) if reduction == "add" else 0


# --- rows of tables -----------------------------------------------------------------------------------------------


@composite
def embedding(table: Tensor, ids: IndexTensor) -> Tensor:
    """The rows of `table` [rows, …] at `ids` [...]: [..., …]. An id outside 0 ≤ i < rows is clamped."""
    return gather(table, ids)


@embedding.reference
def _(table, ids):
    return np.take(table, np.clip(ids, 0, len(table) - 1).astype(np.int64), 0)


@embedding.vjp
def _(dy, y, table, ids):
    last = ops.size_of(table.shape[0], ids) - 1
    return scatter(zeros_like(table), ops.clip(ids, 0, last), dy), None


@embedding.flops
def _(table, ids):
    return 0


embedding.sample((5, 3), np.array([[0, 4, 4], [2, 0, 0]], np.int32))
embedding.sample((4, 2), np.array([-1, 7, 1], np.int64))
embedding.sample((4,), np.int32(2))


@composite
def one_hot(ids: IndexTensor, *, size: Size, axis: int = -1, dtype: DType = f32) -> AnyTensor:
    """1 at the index that `ids` give along a new axis of this size, 0 elsewhere; nothing but 0 for other indices."""
    ndim = ids.ndim + 1
    if not -ndim <= axis < ndim:
        raise ShapeError(f"one_hot: axis {axis} is out of range for {number_of(ndim, 'axis', 'axes')}")
    at = axis % ndim
    counting = ids.dtype if ids.dtype.bits >= 32 else i32
    places = ops.iota(shape=[size if i == at else 1 for i in range(ndim)], axis=at, dtype=counting)
    return ops.convert(ops.eq(ops.expand_dims(ops.convert(ids, dtype=counting), (at,)), places), dtype=dtype)


@one_hot.reference
def _(ids, *, size, axis, dtype):
    at = axis % (ids.ndim + 1)
    places = np.arange(size).reshape([-1 if i == at else 1 for i in range(ids.ndim + 1)])
    found = np.expand_dims(ids, at) == places
    return found if dtype.is_bool else found.astype(np.int8)


one_hot.sample(np.array([[0, 2], [-1, 3]], np.int32), size=3)
one_hot.sample(np.array([1, 0, 1], np.uint8), size=2, axis=0, dtype="int32")
one_hot.sample(np.int64(4), size=6, dtype="bool")
