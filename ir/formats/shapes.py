"""What formats are written with: channels as rows, nibbles, zero points; in NumPy and with ops."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from graphc.ir import ops
from graphc.ir.dims import product
from graphc.ir.dtypes import DType, f32, f64

Array = np.ndarray[Any, Any]


def as_dtype(x: Any, dtype: DType) -> Any:
    """`x` converted, where it is not of the dtype already."""
    return x if x.dtype == dtype else ops.convert(x, dtype=dtype)


def zero_points_of(least: Array, scales: Array, limits: tuple[int, int], storage: DType) -> Array:
    """The value that stands for 0 in each channel whose least element, 0 or below, is to be the least value."""
    low, high = limits
    return np.clip(np.rint(low - least / scales), low, high).astype(storage.numpy)


def computed_in(scales: Any, dtype: DType) -> DType:
    """The dtype in which scales are multiplied: float32, or float64 where they or what is wanted are that."""
    return f64 if f64 in (dtype, scales.dtype) else f32


# --- channels as rows -----------------------------------------------------------------------------------------------


def rows_first(shape: Sequence[Any], axis: int) -> tuple[int, ...]:
    """The permutation that moves `axis` to the front."""
    return (axis, *(i for i in range(len(shape)) if i != axis))


def as_rows(array: Array, axis: int) -> Array:
    """The tensor as a matrix with a row for each channel, the other axes in order."""
    moved = array.transpose(rows_first(array.shape, axis))
    return moved.reshape(moved.shape[0], prod(moved.shape[1:]))


def from_rows(rows: Array, shape: Sequence[int], axis: int) -> Array:
    """The tensor whose rows these are; what follows its last column is left out."""
    order = rows_first(shape, axis)
    moved = tuple(shape[i] for i in order)
    return rows[:, : prod(moved[1:])].reshape(moved).transpose(np.argsort(order))


def columns(shape: Sequence[Any], axis: int) -> Any:
    """Elements of a channel."""
    return product(size for i, size in enumerate(shape) if i != axis)


def rows_recorded(x: Any, axis: int) -> Any:
    """`as_rows` with ops."""
    order = rows_first(x.shape, axis)
    moved = ops.transpose(x, permutation=order) if axis else x
    shape = (x.shape[axis], columns(x.shape, axis))
    return moved if tuple(moved.shape) == shape else ops.reshape(moved, shape=shape)


def from_rows_recorded(rows: Any, shape: Sequence[Any], axis: int) -> Any:
    """`from_rows` with ops, of rows that may be padded."""
    width = columns(shape, axis)
    if rows.shape[1] != width:
        rows = ops.slice(rows, starts=(0, 0), limits=(rows.shape[0], width))
    order = rows_first(shape, axis)
    moved = tuple(shape[i] for i in order)
    x = rows if tuple(rows.shape) == moved else ops.reshape(rows, shape=moved)
    return ops.transpose(x, permutation=tuple(int(i) for i in np.argsort(order))) if axis else x


def padded(rows: Array, multiple: int) -> Array:
    """Rows with zeros behind, so that their length is a multiple."""
    return np.pad(rows, [(0, 0), (0, -rows.shape[1] % multiple)])


def padded_recorded(rows: Any, multiple: int) -> Any:
    """`padded` with ops."""
    rest = -rows.shape[1] % multiple
    return ops.pad(rows, padding=((0, 0), (0, rest))) if rest else rows


# --- two values a byte ------------------------------------------------------------------------------------------------


def packed(values: Array) -> Array:
    """Values from 0 to 15 in pairs along the last axis, which is even: the first of a pair in the low four bits."""
    values = values.astype(np.uint8)
    return values[..., 0::2] | (values[..., 1::2] << 4)


def unpacked(array: Array) -> Array:
    """What was packed."""
    return np.stack([array & 15, array >> 4], -1).reshape(*array.shape[:-1], 2 * array.shape[-1])


def unpacked_recorded(x: Any, high_first: bool = False) -> Any:
    """`unpacked` with ops; `high_first`: the first of a pair is in the high four bits."""
    pairs = (*x.shape, 1)
    halves = [
        ops.reshape(ops.and_(x, np.uint8(15)), shape=pairs),
        ops.reshape(ops.shift_right(x, np.uint8(4)), shape=pairs),
    ]
    both = ops.concat(*(reversed(halves) if high_first else halves), axis=len(pairs) - 1)
    return ops.reshape(both, shape=(*x.shape[:-1], 2 * x.shape[-1]))
