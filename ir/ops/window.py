"""Reductions over sliding windows, and the poolings made of them.

`reduce_window`, `select_and_scatter` and `select_and_gather` have a window entry for every axis and so know no layout;
`max_pool` and `avg_pool` have one for each spatial axis of [B, *spatial, C] or, without `channels_last`,
[B, C, *spatial].
"""

from __future__ import annotations

import itertools
import math
from typing import Any, Literal

import numpy as np

from graphc.ir import ops
from graphc.ir.attributes import Padding
from graphc.ir.dims import maximum, product
from graphc.ir.dtypes import FLOATS, REAL, dtype, f32
from graphc.ir.errors import ShapeError
from graphc.ir.inference import is_literal, require_equal, shape_text
from graphc.ir.interpreter import widened
from graphc.ir.opdef import Tensor, composite, primitive
from graphc.ir.ops.convolution import spatial_axes
from graphc.ir.ops.reduction import greatest, least
from graphc.ir.sliding import check_lengths, check_positive, covered, padding_pairs, window_counts
from graphc.ir.types import TensorType


def windowed(x, window, strides, padding, dilation) -> TensorType:
    """The type of a reduction of the windows of `x`."""
    check_lengths("axes", x.ndim, window=window, strides=strides, padding=padding, dilation=dilation)
    check_positive(window=window, strides=strides, dilation=dilation)
    return x.with_shape(window_counts(x.shape, window, strides, padding, dilation))


def _ones(x, *others, strides, dilation, **attributes):
    """Strides and dilation are 1 along each axis where they are not given."""
    ones = (1,) * x.ndim
    return {"strides": ones if strides is None else strides, "dilation": ones if dilation is None else dilation}


@primitive(dtypes=REAL)
def reduce_window(
    x: Tensor,
    *,
    kind: Literal["max", "min", "sum"],
    window: tuple[int, ...],
    strides: tuple[int, ...] | None = None,
    padding: Padding = "valid",
    dilation: tuple[int, ...] | None = None,
) -> TensorType:
    """The maximum, minimum or sum of each window of `x`.

    Padding is the identity of the reduction: -inf (of integers the least), +inf or 0. NaN propagates. Strides and
    dilation are 1 where not given.
    """
    return windowed(x, window, strides, padding, dilation)


@primitive(dtypes=REAL)
def select_and_scatter(
    x: Tensor,
    dy: Tensor,
    *,
    kind: Literal["max", "min"],
    window: tuple[int, ...],
    strides: tuple[int, ...] | None = None,
    padding: Padding = "valid",
    dilation: tuple[int, ...] | None = None,
) -> TensorType:
    """The cotangent of `x` in `reduce_window`, given the result's cotangent `dy`: each element of `dy` is added to the
    place of its window where `x` is largest (smallest).

    Of equal elements the first in row-major order is taken, of several NaN the first, as by `argmax`; padding never.
    """
    y = windowed(x, window, strides, padding, dilation)
    _require_shape("dy", dy, y)
    return x


def _require_shape(name, x, like) -> None:
    what = f"{name} must have the shape {shape_text(like.shape)}, not {shape_text(x.shape)}"
    if x.ndim != like.ndim:
        raise ShapeError(what)
    for have, want in zip(x.shape, like.shape, strict=True):
        require_equal(have, want, what)


for _op in (reduce_window, select_and_scatter):
    _op.canonical(_ones)


# --- reference ------------------------------------------------------------------------------------------------------


# The identity of a maximum depends on the dtype.
reduce_window.widens = False


def _identity(kind, of):
    return 0 if kind == "sum" else least(of) if kind == "max" else greatest(of)


_COMBINE = {"max": np.maximum, "min": np.minimum, "sum": np.add}


@reduce_window.reference
def _(x, *, kind, window, strides, padding, dilation):
    pairs: Any = padding_pairs(x.shape, window, strides, padding, dilation)
    counts = window_counts(x.shape, window, strides, padding, dilation)
    y = np.pad(widened(x), pairs, constant_values=_identity(kind, dtype(x.dtype)))
    for axis in range(x.ndim):  # a window is a product of intervals, so the axes are reduced one after the other
        n, k, s, d = counts[axis], window[axis], strides[axis], dilation[axis]
        if (k, s) != (1, 1):
            places = [np.take(y, np.arange(j * d, j * d + n * s, s), axis) for j in range(k)]
            y = _COMBINE[kind].reduce(places)
    return y


def _windows(x, fill, window, strides, padding, dilation):
    """The elements of each window of `x` in `fill`, along a last axis."""
    counts = window_counts(x.shape, window, strides, padding, dilation)
    if 0 in counts:
        return np.empty((*counts, math.prod(window)), x.dtype)
    pairs: Any = padding_pairs(x.shape, window, strides, padding, dilation)
    padded = np.pad(x, pairs, constant_values=fill)
    reach = [int(covered(k, d)) for k, d in zip(window, dilation, strict=True)]
    cut = tuple(np.s_[: n * s : s] for n, s in zip(counts, strides, strict=True)) + tuple(np.s_[::d] for d in dilation)
    return np.lib.stride_tricks.sliding_window_view(padded, reach)[cut].reshape(*counts, math.prod(window))


def _selected(x, kind, **geometry) -> Any:
    """For each window the flat index in `x` of the element that is selected; -1 where all of it is padding."""
    seen = _windows(np.arange(x.size).reshape(x.shape), -1, **geometry)
    real = seen >= 0
    if not real.any():
        return np.full(seen.shape[:-1], -1)
    values = np.where(real, x.reshape(-1)[seen], _identity(kind, dtype(x.dtype)))
    best = (np.argmax if kind == "max" else np.argmin)(values, axis=-1)[..., None]
    # Where padding ties with what is real (an infinity), the first real element is the one.
    best = np.where(np.take_along_axis(real, best, -1), best, np.argmax(real, axis=-1)[..., None])
    return np.take_along_axis(seen, best, -1)[..., 0]


@select_and_scatter.reference
def _(x, dy, *, kind, **geometry):
    index = _selected(x, kind, **geometry)
    dx = np.zeros(x.size, dy.dtype)
    np.add.at(dx, index[index >= 0], dy[index >= 0])
    return dx.reshape(x.shape)


# --- gradients ------------------------------------------------------------------------------------------------------


def sum_window_gradient(dy, sizes, window, strides, padding, dilation):
    """The cotangent of `x`, of shape `sizes`, in the sum of its windows.

    Windows that moved by `strides` over `x` are moved by 1 over `dy`, between whose elements strides - 1 zeros stand.
    """
    if any(is_literal(size, 0) for size in sizes):
        return ops.full(sizes, 0.0, dy.dtype)
    around, starts, limits = [], [], []
    pairs = padding_pairs(sizes, window, strides, padding, dilation)
    for size, n, k, s, (before, _), d in zip(sizes, dy.shape, window, strides, pairs, dilation, strict=True):
        low, places = covered(k, d) - 1 - before, (n - 1) * s + 1
        high = size + before - places
        around.append((maximum(low, 0), maximum(high, 0)))
        # Windows that lie wholly in the padding have no part in the gradient.
        starts.append(maximum(-low, 0))
        limits.append(maximum(low, 0) + places + high)
    spread = ops.pad(dy, padding=around, interior=tuple(s - 1 for s in strides))
    if limits != list(spread.shape) or any(starts):
        spread = ops.slice(spread, starts=starts, limits=limits)
    return reduce_window(spread, kind="sum", window=window, dilation=dilation)


@reduce_window.vjp
def _(dy, y, x, *, kind, window, strides, padding, dilation):
    if kind == "sum":
        return sum_window_gradient(dy, x.shape, window, strides, padding, dilation)
    return select_and_scatter(x, dy, kind=kind, window=window, strides=strides, padding=padding, dilation=dilation)


@select_and_scatter.vjp
def _(g, dx, x, dy, **attributes):
    return None, select_and_gather(x, g, **attributes)


@composite(dtypes=REAL)
def select_and_gather(
    x: Tensor,
    values: Tensor,
    *,
    kind: Literal["max", "min"],
    window: tuple[int, ...],
    strides: tuple[int, ...] | None = None,
    padding: Padding = "valid",
    dilation: tuple[int, ...] | None = None,
) -> Tensor:
    """For each window of `x`, the element of `values` where `x` is largest (smallest): the transpose of
    `select_and_scatter`, with its choice between equals. 0 for a window of nothing but padding."""
    _require_shape("values", values, x)
    steps, gaps = strides or (1,) * x.ndim, dilation or (1,) * x.ndim
    check_lengths("axes", x.ndim, window=window, strides=steps, padding=padding, dilation=gaps)
    around = padding_pairs(x.shape, window, steps, padding, gaps)
    counts = window_counts(x.shape, window, steps, padding, gaps)
    padded = ops.pad(x, padding=around), ops.pad(values, padding=around)
    real = ops.pad(ops.full(x.shape, 1.0, f32), padding=around)
    best = chosen = known = None
    for place in itertools.product(*map(range, window)):
        starts = tuple(p * d for p, d in zip(place, gaps, strict=True))
        limits = tuple(f + maximum((n - 1) * s + 1, 0) for f, n, s in zip(starts, counts, steps, strict=True))
        element, value, inside = (
            ops.slice(each, starts=starts, limits=limits, strides=steps) for each in (*padded, real)
        )
        inside = ops.ne(inside, 0)
        if best is None:
            best, chosen, known = element, value, inside
            continue
        better = ops.gt(element, best) if kind == "max" else ops.lt(element, best)
        better = ops.or_(better, ops.and_(ops.ne(element, element), ops.eq(best, best)))  # the first NaN
        better = ops.and_(inside, ops.or_(better, ops.not_(known)))
        best, chosen = ops.select(better, element, best), ops.select(better, value, chosen)
        known = ops.or_(known, inside)
    return chosen


@select_and_gather.canonical
def _(x, values, **attributes):
    return _ones(x, **attributes)


@select_and_gather.reference
def _(x, values, *, kind, **geometry):
    index = _selected(x, kind, **geometry)
    return np.where(index >= 0, values.reshape(-1)[np.maximum(index, 0)], 0) if x.size else np.zeros(index.shape)


@select_and_gather.vjp
def _(dy, y, x, values, **attributes):
    return None, select_and_scatter(x, dy, **attributes)


@reduce_window.flops
def _(x, *, window, **attributes):
    y = reduce_window.infer((x,), reduce_window.make_attributes(window=window, **attributes)).types[0]
    return product(y.shape) * math.prod(window)


@select_and_scatter.flops
@select_and_gather.flops
def _(x, values, *, kind, **geometry):
    y = reduce_window.infer((x,), reduce_window.make_attributes(kind=kind, **geometry)).types[0]
    return product(y.shape) * math.prod(geometry["window"])


# --- pooling --------------------------------------------------------------------------------------------------------


def _stride_of_a_window(x, *, window, strides, **attributes):
    """Windows do not overlap where strides are not given; dilation is 1."""
    found = {"strides": window if strides is None else strides}
    if "dilation" in attributes and attributes["dilation"] is None:
        found["dilation"] = (1,) * len(window)
    return found


def _over_all_axes(x, channels_last, *, window, strides, padding, dilation):
    """The window attributes of a pooling, which are for spatial axes, as those of `reduce_window`, for all axes."""
    if x.ndim < 3:
        raise ShapeError(f"pooling takes x of 3 axes or more (batch, spatial ones, channels), not {x.ndim}")
    spatial = spatial_axes(x.ndim, channels_last)
    check_lengths("spatial axes", len(spatial), window=window, strides=strides, padding=padding, dilation=dilation)

    def widened(entries, outside):
        return (*[outside] * spatial.start, *entries, *[outside] * (x.ndim - spatial.stop))

    return {
        "window": widened(window, 1),
        "strides": widened(strides, 1),
        "padding": padding if isinstance(padding, str) else widened(padding, (0, 0)),
        "dilation": widened(dilation, 1),
    }


@composite(dtypes=REAL)
def max_pool(
    x: Tensor,
    *,
    window: tuple[int, ...],
    strides: tuple[int, ...] | None = None,
    padding: Padding = "valid",
    dilation: tuple[int, ...] | None = None,
    channels_last: bool = True,
) -> Tensor:
    """The largest element of each window. Strides are the window's sizes where not given. Padding never wins."""
    geometry = _over_all_axes(x, channels_last, window=window, strides=strides, padding=padding, dilation=dilation)
    return reduce_window(x, kind="max", **geometry)


@max_pool.reference
def _(x, *, channels_last, **geometry):
    fill = _identity("max", dtype(x.dtype))
    return _windows(x, fill, **_over_all_axes(x, channels_last, **geometry)).max(-1)


@max_pool.vjp
def _(dy, y, x, *, channels_last, **geometry):
    return select_and_scatter(x, dy, kind="max", **_over_all_axes(x, channels_last, **geometry))


@composite(dtypes=FLOATS)
def avg_pool(
    x: Tensor,
    *,
    window: tuple[int, ...],
    strides: tuple[int, ...] | None = None,
    padding: Padding = "valid",
    channels_last: bool = True,
) -> Tensor:
    """The mean of each window, in which padding does not count. Strides are the window's sizes where not given."""
    geometry = _over_all_axes(
        x, channels_last, window=window, strides=strides, padding=padding, dilation=(1,) * len(window)
    )
    return reduce_window(x, kind="sum", **geometry) / _window_elements(x, channels_last, geometry)


def _window_elements(x, channels_last, geometry):
    """How many elements of `x` each window has: a number where there is no padding, else a tensor that broadcasts."""
    window, padding = geometry["window"], geometry["padding"]
    if padding == "valid" or (padding != "same" and all(pair == (0, 0) for pair in padding)):
        return math.prod(window)
    spatial = spatial_axes(x.ndim, channels_last)
    inside = tuple(size if axis in spatial else 1 for axis, size in enumerate(x.shape))
    return reduce_window(ops.full(inside, 1.0, x.dtype), kind="sum", **geometry)


@avg_pool.reference
def _(x, *, channels_last, **geometry):
    geometry = _over_all_axes(x, channels_last, **geometry, dilation=(1,) * len(geometry["window"]))
    spatial = spatial_axes(x.ndim, channels_last)
    inside = _windows(np.ones([n if axis in spatial else 1 for axis, n in enumerate(x.shape)]), 0, **geometry)
    return _windows(x, 0, **geometry).sum(-1) / inside.sum(-1)


@avg_pool.vjp
def _(dy, y, x, *, channels_last, **geometry):
    geometry = _over_all_axes(x, channels_last, **geometry, dilation=(1,) * len(geometry["window"]))
    return sum_window_gradient(dy / _window_elements(x, channels_last, geometry), x.shape, **geometry)


for _op in (max_pool, avg_pool):
    _op.canonical(_stride_of_a_window)
    _op.sample((2, 6, 3), window=(2,))
    _op.sample((1, 5, 6, 2), window=(3, 2), strides=(2, 1), padding="same")
    _op.sample((1, 2, 5, 5), window=(3, 3), strides=(2, 2), padding=((1, 1), (1, 0)), channels_last=False)
    _op.sample((1, 4, 3, 5, 1), window=(2, 3, 2), strides=(1, 1, 1), padding="same")
max_pool.sample((1, 7, 6, 2), window=(2, 3), strides=(1, 1), dilation=(2, 2), padding="same")

for _kind in ("max", "min", "sum"):
    reduce_window.sample((5, 6), kind=_kind, window=(2, 3), strides=(2, 1), padding="same")
    reduce_window.sample((2, 7), kind=_kind, window=(1, 3), padding=((0, 0), (2, 1)), dilation=(1, 2))
    reduce_window.sample((7, 4), kind=_kind, window=(2, 2), strides=(3, 2))
for _op in (select_and_scatter, select_and_gather):
    _values = (3, 6) if _op is select_and_scatter else (5, 6)
    _op.sample((5, 6), _values, kind="max", window=(2, 3), strides=(2, 1), padding="same")
    _values = (2, 6) if _op is select_and_scatter else (2, 7)
    _op.sample((2, 7), _values, kind="min", window=(1, 3), padding=((0, 0), (2, 1)), dilation=(1, 2))
    _values = (2, 2, 3, 3) if _op is select_and_scatter else (2, 2, 5, 5)
    _pairs = ((0, 0), (0, 0), (1, 1), (1, 1))
    _op.sample((2, 2, 5, 5), _values, kind="max", window=(1, 1, 3, 3), strides=(1, 1, 2, 2), padding=_pairs)


__all__ = ["avg_pool", "max_pool", "reduce_window", "select_and_gather", "select_and_scatter"]
