"""Reductions over axes, and running sums."""

from __future__ import annotations

import ml_dtypes
import numpy as np

from graphc.ir import ops
from graphc.ir.attributes import Axes, Axis
from graphc.ir.dims import product
from graphc.ir.dtypes import BOOL, COMPLEX, FLOATS, NUMERIC, ORDERED, DType, dtype, f32, i32
from graphc.ir.errors import DTypeError
from graphc.ir.inference import reduced, require_at_most
from graphc.ir.interpreter import widened
from graphc.ir.opdef import Tensor, composite, primitive
from graphc.ir.ops.cotangents import holomorphic, kept, size_of, spread
from graphc.ir.types import TensorType

# Every reduction takes `axes` (which may be none: the operand itself) and `keepdims` (they stay, with size 1).


@primitive(dtypes=NUMERIC)
def reduce_sum(x: Tensor, *, axes: Axes, keepdims: bool = False) -> TensorType:
    """Sum over `axes`; integers wrap, nothing sums to 0."""
    return reduced(x, axes, keepdims)


@reduce_sum.reference
def _(x, *, axes, keepdims):
    return np.sum(x, axis=axes, keepdims=keepdims)


@reduce_sum.vjp
def _(dy, y, x, *, axes, keepdims):
    return spread(dy, x, axes, keepdims)


@primitive(dtypes=NUMERIC)
def reduce_prod(x: Tensor, *, axes: Axes, keepdims: bool = False) -> TensorType:
    """Product over `axes`; integers wrap, the product of nothing is 1."""
    return reduced(x, axes, keepdims)


@reduce_prod.reference
def _(x, *, axes, keepdims):
    return np.prod(x, axis=axes, keepdims=keepdims)


@reduce_prod.vjp
@holomorphic
def _(dy, y, x, *, axes, keepdims):
    """The product of the others: y / x, but the product of the non-zeros at a zero that is the only one."""
    zero = ops.eq(x, 0)
    zeros = reduce_sum(ops.convert(zero, dtype=i32), axes=axes, keepdims=True)
    factors = ops.select(zero, 1, x)
    rest = reduce_prod(factors, axes=axes, keepdims=True)
    others = ops.select(zero, ops.select(ops.eq(zeros, 1), rest, 0), ops.select(ops.eq(zeros, 0), rest / factors, 0))
    return kept(dy, x, axes, keepdims) * others


@primitive(dtypes=ORDERED)
def reduce_max(x: Tensor, *, axes: Axes, keepdims: bool = False) -> TensorType:
    """The greatest element over `axes`; NaN if one is, the dtype's least value of nothing. Ties share the gradient."""
    return reduced(x, axes, keepdims)


@primitive(dtypes=ORDERED)
def reduce_min(x: Tensor, *, axes: Axes, keepdims: bool = False) -> TensorType:
    """The least element over `axes`; NaN if one is, the dtype's greatest value of nothing. Ties share the gradient."""
    return reduced(x, axes, keepdims)


# What nothing has for a maximum depends on the dtype.
reduce_max.widens = reduce_min.widens = False


def least(of: DType) -> float | int | bool:
    """The identity of the maximum: −inf where the dtype has it, else its least value."""
    if of.is_bool:
        return False
    if of.is_integer:
        return ops.integer_limits(of)[0]
    return -np.inf if np.isinf(np.asarray(-np.inf).astype(of.numpy)) else float(ml_dtypes.finfo(of.numpy).min)


def greatest(of: DType) -> float | int | bool:
    """The identity of the minimum: inf where the dtype has it, else its greatest value."""
    if of.is_bool:
        return True
    if of.is_integer:
        return ops.integer_limits(of)[1]
    return np.inf if np.isinf(np.asarray(np.inf).astype(of.numpy)) else float(ml_dtypes.finfo(of.numpy).max)


@reduce_max.reference
def _(x, *, axes, keepdims):
    return np.max(widened(x), axis=axes, keepdims=keepdims, initial=least(dtype(x.dtype)))


@reduce_min.reference
def _(x, *, axes, keepdims):
    return np.min(widened(x), axis=axes, keepdims=keepdims, initial=greatest(dtype(x.dtype)))


@reduce_max.vjp
@reduce_min.vjp
def _(dy, y, x, *, axes, keepdims):
    ties = ops.convert(ops.eq(x, kept(y, x, axes, keepdims)), dtype=x.dtype)
    return kept(dy, x, axes, keepdims) * ties / reduce_sum(ties, axes=axes, keepdims=True)


@primitive(dtypes=BOOL)
def reduce_all(x: Tensor, *, axes: Axes, keepdims: bool = False) -> TensorType:
    """Whether all elements over `axes` are true; of nothing, yes."""
    return reduced(x, axes, keepdims)


@reduce_all.reference
def _(x, *, axes, keepdims):
    return np.all(x, axis=axes, keepdims=keepdims)


@primitive(dtypes=BOOL)
def reduce_any(x: Tensor, *, axes: Axes, keepdims: bool = False) -> TensorType:
    """Whether any element over `axes` is true; of nothing, no."""
    return reduced(x, axes, keepdims)


@reduce_any.reference
def _(x, *, axes, keepdims):
    return np.any(x, axis=axes, keepdims=keepdims)


for _op in (reduce_sum, reduce_prod, reduce_max, reduce_min, reduce_all, reduce_any):
    _op.sample((2, 3, 4), axes=(1,))
    _op.sample((2, 3, 4), axes=(0, -1), keepdims=True)
    _op.sample((3, 2), axes=())
    _op.sample((0, 3), axes=(0,))
    _op.sample((2, 0), axes=(0,))


# --- statistics --------------------------------------------------------------------------------------------------

INEXACT = FLOATS | COMPLEX


def count_of(x, axes):
    """How many elements each result of a reduction of `x` over `axes` stands for."""
    return size_of(product(x.shape[axis] for axis in axes), x)


@composite(dtypes=INEXACT)
def reduce_mean(x: Tensor, *, axes: Axes, keepdims: bool = False) -> Tensor:
    """Mean over `axes`; NaN of nothing. Floats below 32 bits are summed in float32, where the sum does not overflow."""
    wide = ops.convert(x, dtype=f32) if x.dtype.is_float and x.dtype.bits < 32 else x
    return ops.convert(reduce_sum(wide, axes=axes, keepdims=keepdims) / count_of(wide, axes), dtype=x.dtype)


@reduce_mean.reference
def _(x, *, axes, keepdims):
    return np.sum(x, axis=axes, keepdims=keepdims) / count_of(x, axes)  # np.mean warns of nothing, as does np.var


@reduce_mean.vjp
def _(dy, y, x, *, axes, keepdims):
    return spread(dy / count_of(x, axes), x, axes, keepdims)


@composite(dtypes=FLOATS)
def variance(x: Tensor, *, axes: Axes, keepdims: bool = False) -> Tensor:
    """Mean square of the distance from the mean over `axes` (divided by the count, not by one less); NaN of nothing."""
    wide = ops.convert(x, dtype=f32) if x.dtype.bits < 32 else x
    centered = wide - reduce_mean(wide, axes=axes, keepdims=True)
    return ops.convert(reduce_mean(ops.square(centered), axes=axes, keepdims=keepdims), dtype=x.dtype)


@variance.reference
def _(x, *, axes, keepdims):
    centered = x - np.sum(x, axis=axes, keepdims=True) / count_of(x, axes)
    return np.sum(centered * centered, axis=axes, keepdims=keepdims) / count_of(x, axes)


@variance.vjp
def _(dy, y, x, *, axes, keepdims):
    centered = x - reduce_mean(x, axes=axes, keepdims=True)
    return kept(dy * 2 / count_of(x, axes), x, axes, keepdims) * centered


for _op in (reduce_mean, variance):
    _op.sample((2, 3, 4), axes=(1,))
    _op.sample((2, 3, 4), axes=(0, -1), keepdims=True)
    _op.sample((0, 3), axes=(0,))

# --- places ------------------------------------------------------------------------------------------------------


def place(x: TensorType, axis: int, keepdims: bool, dtype: DType) -> TensorType:
    if not dtype.is_integer:
        raise DTypeError(f"an index is an integer, not a {dtype}")
    require_at_most(1, x.shape[axis], f"nothing along axis {axis} of {x} has no greatest element")
    return reduced(x, (axis,), keepdims).with_dtype(dtype)


@primitive(dtypes=ORDERED)
def argmax(x: Tensor, *, axis: Axis, keepdims: bool = False, dtype: DType = i32) -> TensorType:
    """Index of the greatest element along `axis`: the first of several, the first NaN where there is one."""
    return place(x, axis, keepdims, dtype)


@argmax.reference
def _(x, *, axis, keepdims, dtype):
    return np.argmax(x, axis=axis, keepdims=keepdims)


@primitive(dtypes=ORDERED)
def argmin(x: Tensor, *, axis: Axis, keepdims: bool = False, dtype: DType = i32) -> TensorType:
    """Index of the least element along `axis`: the first of several, the first NaN where there is one."""
    return place(x, axis, keepdims, dtype)


@argmin.reference
def _(x, *, axis, keepdims, dtype):
    return np.argmin(x, axis=axis, keepdims=keepdims)


for _op in (argmax, argmin):
    _op.sample((2, 3, 4), axis=1)
    _op.sample((5,), axis=-1, keepdims=True, dtype="int64")
    _op.sample((0, 2), axis=1)

# --- running sums ------------------------------------------------------------------------------------------------


@primitive(dtypes=NUMERIC)
def cumulative_sum(
    x: Tensor,
    *,
    axis: Axis,
    reverse: bool = False,
    exclusive: bool = False,
) -> TensorType:
    """Sum of all elements up to each one along `axis`, with itself unless `exclusive`; from the end if `reverse`."""
    return x


@cumulative_sum.reference
def _(x, *, axis, reverse, exclusive):
    ordered = np.flip(x, axis) if reverse else x
    sums = np.cumsum(ordered, axis=axis, dtype=x.dtype)
    if exclusive:
        sums = sums - ordered
    return np.flip(sums, axis) if reverse else sums


@cumulative_sum.vjp
def _(dy, y, x, *, axis, reverse, exclusive):
    return cumulative_sum(dy, axis=axis, reverse=not reverse, exclusive=exclusive)


cumulative_sum.sample((2, 4), axis=1)
cumulative_sum.sample((3, 2), axis=0, reverse=True, exclusive=True)
cumulative_sum.sample((0,), axis=-1)


def operand_count(x, **attributes):
    return product(x.shape)


for _op in (reduce_sum, reduce_prod, reduce_max, reduce_min, reduce_all, reduce_any, argmax, argmin, cumulative_sum):
    _op.flops(operand_count)
