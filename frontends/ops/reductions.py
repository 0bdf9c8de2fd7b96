"""Functions that reduce axes, and running ones."""

from __future__ import annotations

from typing import Any

from graphc.frontends.ops.dispatch import axes_of, counted, function, inexact, tensor, truth
from graphc.ir import ops as ir
from graphc.ir.dtypes import i32
from graphc.ir.errors import ShapeError, UnsupportedError


@function
def sum(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    """Sum over `axis` (all axes by default)."""
    x = counted(x)
    return ir.reduce_sum(x, axes=axes_of(x, axis), keepdims=keepdims)


@function
def prod(x: Any, axis: Any = None, keepdims: bool = False, dtype: Any = None) -> Any:
    """Product over `axis`."""
    x = counted(x) if dtype is None else ir.convert(tensor(x), dtype=dtype)
    return ir.reduce_prod(x, axes=axes_of(x, axis), keepdims=keepdims)


@function
def max(x: Any, axis: Any = None, keepdims: bool = False, initial: Any = None) -> Any:
    """The greatest element over `axis`, or `initial` if that is greater; NaN if there is one."""
    x = tensor(x)
    y = ir.reduce_max(x, axes=axes_of(x, axis), keepdims=keepdims)
    return y if initial is None else ir.maximum(y, initial)


@function
def min(x: Any, axis: Any = None, keepdims: bool = False, initial: Any = None) -> Any:
    """The least element over `axis`, or `initial` if that is less; NaN if there is one."""
    x = tensor(x)
    y = ir.reduce_min(x, axes=axes_of(x, axis), keepdims=keepdims)
    return y if initial is None else ir.minimum(y, initial)


amax, amin = max, min


@function
def mean(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    """Mean over `axis`."""
    x = inexact(x)
    return ir.reduce_mean(x, axes=axes_of(x, axis), keepdims=keepdims)


@function
def var(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    """Mean square of the distance from the mean over `axis`."""
    x = inexact(x)
    return ir.variance(x, axes=axes_of(x, axis), keepdims=keepdims)


@function
def std(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    """Square root of `var`."""
    x = inexact(x)
    return ir.sqrt(ir.variance(x, axes=axes_of(x, axis), keepdims=keepdims))


@function
def moments(x: Any, axes: Any, keepdims: bool = False, synchronized: bool = False) -> tuple[Any, Any]:
    """Mean and variance over `axes`."""
    if synchronized:
        raise UnsupportedError("moments over several devices are not supported")
    x = inexact(x)
    over = axes_of(x, axes)
    return ir.reduce_mean(x, axes=over, keepdims=keepdims), ir.variance(x, axes=over, keepdims=keepdims)


@function
def all(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    """Whether all elements over `axis` are true."""
    x = truth(x)
    return ir.reduce_all(x, axes=axes_of(x, axis), keepdims=keepdims)


@function
def any(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    """Whether any element over `axis` is true."""
    x = truth(x)
    return ir.reduce_any(x, axes=axes_of(x, axis), keepdims=keepdims)


@function
def count_nonzero(x: Any, axis: Any = None) -> Any:
    """How many elements over `axis` are not 0."""
    x = truth(x)
    return ir.reduce_sum(ir.convert(x, dtype=i32), axes=axes_of(x, axis))


@function
def argmax(x: Any, axis: int | None = None, keepdims: bool = False) -> Any:
    """Index of the greatest element along `axis` (of all elements, by default)."""
    return _extreme(ir.argmax, x, axis, keepdims)


@function
def argmin(x: Any, axis: int | None = None, keepdims: bool = False) -> Any:
    """Index of the least element along `axis` (of all elements, by default)."""
    return _extreme(ir.argmin, x, axis, keepdims)


def _extreme(op: Any, x: Any, axis: int | None, keepdims: bool) -> Any:
    x = tensor(x)
    if axis is not None:
        return op(x, axis=axis, keepdims=keepdims)
    found = op(ir.reshape(x, shape=(-1,)), axis=0)
    return ir.reshape(found, shape=(1,) * len(x.shape)) if keepdims else found


@function
def logsumexp(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    """log of the sum of exponentials over `axis`, without overflow."""
    x = inexact(x)
    axes = axes_of(x, axis)
    largest = ir.reduce_max(x, axes=axes, keepdims=True)
    shift = ir.select(ir.is_finite(largest), largest, 0.0)
    total = ir.log(ir.reduce_sum(ir.exp(x - shift), axes=axes, keepdims=True)) + shift
    return total if keepdims else ir.squeeze(total, axes)


@function
def norm(x: Any, ord: Any = None, axis: Any = None, keepdims: bool = False) -> Any:
    """The Euclidean norm over `axis`; with `ord` 1, 2 or infinity over one axis that norm."""
    x = inexact(x)
    axes = axes_of(x, axis)
    size = ir.abs(x)
    if ord is None or (ord == 2 and len(axes) == 1):
        return ir.sqrt(ir.reduce_sum(ir.square(size), axes=axes, keepdims=keepdims))
    if len(axes) != 1 or ord not in (1, float("inf")):
        raise UnsupportedError(f"norm with ord={ord!r} over {len(axes)} axes is not supported")
    return (ir.reduce_sum if ord == 1 else ir.reduce_max)(size, axes=axes, keepdims=keepdims)


@function
def cumsum(x: Any, axis: int | None = None, dtype: Any = None) -> Any:
    """Sum of all elements up to each one along `axis` (of the flattened tensor, by default)."""
    x = counted(x) if dtype is None else ir.convert(tensor(x), dtype=dtype)
    if axis is None:
        return ir.cumulative_sum(ir.reshape(x, shape=(-1,)), axis=0)
    if not len(x.shape):
        raise ShapeError("cumsum along an axis of a scalar")
    return ir.cumulative_sum(x, axis=axis)


__all__ = [
    "all",
    "amax",
    "amin",
    "any",
    "argmax",
    "argmin",
    "count_nonzero",
    "cumsum",
    "logsumexp",
    "max",
    "mean",
    "min",
    "moments",
    "norm",
    "prod",
    "std",
    "sum",
    "var",
]
