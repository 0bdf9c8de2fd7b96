"""Convolution (as deep learning means it: the kernel is not flipped) in one to three dimensions, and its gradients.

`x` is [B, *spatial, C] with `channels_last`, else [B, C, *spatial]; the kernel is [*window, C / groups, F] in both
layouts, or [F, C / groups, *window] with `filters_first`, as PyTorch and ONNX have it.
The three primitives are the three partial applications of one trilinear form, so that the gradient of each is written
with the other two, to any order.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from graphc.ir import ops
from graphc.ir.attributes import Padding
from graphc.ir.dims import product
from graphc.ir.dtypes import REAL
from graphc.ir.errors import ShapeError
from graphc.ir.inference import require_equal, shape_text
from graphc.ir.opdef import Tensor, composite, primitive
from graphc.ir.sliding import check_lengths, check_positive, padding_pairs, window_counts
from graphc.ir.types import Shape, TensorType


def spatial_axes(ndim: int, channels_last: bool) -> range:
    """The axes between batch and channels."""
    return range(1, ndim - 1) if channels_last else range(2, ndim)


def channel_axis(ndim: int, channels_last: bool) -> int:
    return ndim - 1 if channels_last else 1


def plain_kernel(shape: Shape, filters_first: bool) -> Shape:
    """The shape of a kernel as [*window, C / groups, F]."""
    return (*shape[2:], shape[1], shape[0]) if filters_first else shape


def _ones(x, kernel, *, strides, dilation, **attributes):
    """Strides and dilation are 1 along each spatial axis where they are not given."""
    ones = (1,) * (x.ndim - 2)
    return {"strides": ones if strides is None else strides, "dilation": ones if dilation is None else dilation}


def convolved(x, kernel, *, strides, padding, dilation, groups, channels_last, filters_first) -> TensorType:
    """The type of the convolution of `x` with `kernel`."""
    if not 3 <= x.ndim <= 5:
        raise ShapeError(f"a convolution takes x of 3 to 5 axes (batch, 1 to 3 spatial ones, channels), not {x}")
    if kernel.ndim != x.ndim:
        axes = "[filters, channels / groups, *window]" if filters_first else "[*window, channels / groups, filters]"
        raise ShapeError(f"the kernel must be {axes} with as many axes as x, {x.ndim}; it is {kernel}")
    rank = x.ndim - 2
    *window, depth, filters = plain_kernel(kernel.shape, filters_first)
    check_lengths("spatial axes", rank, strides=strides, padding=padding, dilation=dilation)
    check_positive(strides=strides, dilation=dilation, groups=(groups,), window=window)
    channels = x.shape[channel_axis(x.ndim, channels_last)]
    layout = "last" if channels_last else "first"
    require_equal(
        channels,
        depth * groups,
        f"x {shape_text(x.shape)} (channels {layout}) and kernel {shape_text(kernel.shape)} with {groups} "
        f"group{'s' * (groups != 1)} do not agree in channels",
    )
    if isinstance(filters, int) and filters % groups:
        raise ShapeError(f"{filters} filters of kernel {shape_text(kernel.shape)} do not divide into {groups} groups")
    sizes = tuple(x.shape[axis] for axis in spatial_axes(x.ndim, channels_last))
    counts = window_counts(sizes, tuple(window), strides, padding, dilation)
    return x.with_shape((x.shape[0], *counts, filters) if channels_last else (x.shape[0], filters, *counts))


@primitive(dtypes=REAL)
def convolution(
    x: Tensor,
    kernel: Tensor,
    *,
    strides: tuple[int, ...] | None = None,
    padding: Padding = "valid",
    dilation: tuple[int, ...] | None = None,
    groups: int = 1,
    channels_last: bool = True,
    filters_first: bool = False,
) -> TensorType:
    """Sums of products of `kernel` with the windows of `x`, over the window and the channels of a group.

    Strides and dilation are 1 where not given. `padding` is (low, high) for each spatial axis, "valid" or "same"
    (see `graphc.ir.sliding`). Group g of the channels meets group g of the filters only.
    """
    return convolved(
        x,
        kernel,
        strides=strides,
        padding=padding,
        dilation=dilation,
        groups=groups,
        channels_last=channels_last,
        filters_first=filters_first,
    )


@primitive(dtypes=REAL)
def convolution_input_gradient(
    dy: Tensor,
    kernel: Tensor,
    *,
    shape: Shape,
    strides: tuple[int, ...] | None = None,
    padding: Padding = "valid",
    dilation: tuple[int, ...] | None = None,
    groups: int = 1,
    channels_last: bool = True,
    filters_first: bool = False,
) -> TensorType:
    """The cotangent of `x`, of shape `shape`, in `convolution(x, kernel)` with the other attributes, given the
    result's cotangent `dy`. As a map of `dy` it is the transposed convolution."""
    x = dy.with_shape(shape)
    y = convolved(
        x,
        kernel,
        strides=strides,
        padding=padding,
        dilation=dilation,
        groups=groups,
        channels_last=channels_last,
        filters_first=filters_first,
    )
    _require_type(dy, y)
    return x


@primitive(dtypes=REAL)
def convolution_kernel_gradient(
    dy: Tensor,
    x: Tensor,
    *,
    shape: Shape,
    strides: tuple[int, ...] | None = None,
    padding: Padding = "valid",
    dilation: tuple[int, ...] | None = None,
    groups: int = 1,
    channels_last: bool = True,
    filters_first: bool = False,
) -> TensorType:
    """The cotangent of `kernel`, of shape `shape`, in `convolution(x, kernel)` with the other attributes, given the
    result's cotangent `dy`."""
    kernel = dy.with_shape(shape)
    y = convolved(
        x,
        kernel,
        strides=strides,
        padding=padding,
        dilation=dilation,
        groups=groups,
        channels_last=channels_last,
        filters_first=filters_first,
    )
    _require_type(dy, y)
    return kernel


for _op in (convolution, convolution_input_gradient, convolution_kernel_gradient):
    _op.canonical(_ones)


def _require_type(dy, y) -> None:
    if dy.ndim != y.ndim:
        raise ShapeError(f"dy {dy} must be of the convolution's type, {y}")
    for have, want in zip(dy.shape, y.shape, strict=True):
        require_equal(have, want, f"dy {dy} must be of the convolution's type, {y}")


# --- reference: one product of matrices for each place of the window ---------------------------------------------


def _channels_last(array, channels_last):
    return array if channels_last else np.moveaxis(array, 1, -1)


def _restored(array, channels_last):
    return array if channels_last else np.moveaxis(array, -1, 1)


def _filters_last(kernel, filters_first):
    return np.moveaxis(kernel, (0, 1), (-1, -2)) if filters_first else kernel


def _places(counts, window, strides, dilation) -> Iterator[tuple[tuple[int, ...], tuple[slice, ...]]]:
    """For each place in the window, where in the padded array it falls as the window moves."""
    for place in itertools.product(*map(range, window)):
        first = [p * d for p, d in zip(place, dilation, strict=True)]
        yield (
            place,
            tuple(
                slice(f, f + (n - 1) * s + 1, s) if n else slice(0)
                for f, n, s in zip(first, counts, strides, strict=True)
            ),
        )


def _padded(x, window, strides, padding, dilation):
    """`x` (channels last) in zeros, and the slices that cut it out again."""
    sizes = x.shape[1:-1]
    pairs: Any = padding_pairs(sizes, window, strides, padding, dilation)
    inner = tuple(slice(low, low + size) for (low, _), size in zip(pairs, sizes, strict=True))
    return np.pad(x, [(0, 0), *pairs, (0, 0)]), inner


def _grouped(array, groups):
    """[..., groups*n] as [groups, rows, n], for products of one matrix for each group."""
    *rows, channels = array.shape
    return np.moveaxis(array.reshape(math.prod(rows), groups, channels // groups), 1, 0)


def _grouped_kernel(matrix, groups):
    """[C/groups, F] as [groups, C/groups, F/groups]."""
    rows, filters = matrix.shape
    return np.moveaxis(matrix.reshape(rows, groups, filters // groups), 1, 0)


@convolution.reference
def _convolution(x, kernel, *, strides, padding, dilation, groups, channels_last, filters_first):
    x, kernel = _channels_last(x, channels_last), _filters_last(kernel, filters_first)
    window, filters = kernel.shape[:-2], kernel.shape[-1]
    counts = window_counts(x.shape[1:-1], window, strides, padding, dilation)
    padded, _ = _padded(x, window, strides, padding, dilation)
    total = np.zeros((groups, x.shape[0] * math.prod(counts), filters // groups), x.dtype)
    for place, where in _places(counts, window, strides, dilation):
        total += _grouped(padded[:, *where], groups) @ _grouped_kernel(kernel[place], groups)
    y = np.moveaxis(total, 0, 1).reshape(x.shape[0], *counts, filters)
    return _restored(y, channels_last)


@convolution_input_gradient.reference
def _(dy, kernel, *, shape, strides, padding, dilation, groups, channels_last, filters_first):
    dy, kernel = _channels_last(dy, channels_last), _filters_last(kernel, filters_first)
    window = kernel.shape[:-2]
    dx = _channels_last(np.zeros(shape, dy.dtype), channels_last)
    padded, inner = _padded(dx, window, strides, padding, dilation)
    counts = dy.shape[1:-1]
    rows = _grouped(dy, groups)
    for place, where in _places(counts, window, strides, dilation):
        part = rows @ np.swapaxes(_grouped_kernel(kernel[place], groups), 1, 2)
        padded[:, *where] += np.moveaxis(part, 0, 1).reshape(dy.shape[0], *counts, dx.shape[-1])
    return _restored(padded[:, *inner], channels_last)


@convolution_kernel_gradient.reference
def _(dy, x, *, shape, strides, padding, dilation, groups, channels_last, filters_first):
    dy, x = _channels_last(dy, channels_last), _channels_last(x, channels_last)
    shape = plain_kernel(shape, filters_first)
    window = shape[:-2]
    padded, _ = _padded(x, window, strides, padding, dilation)
    rows = _grouped(dy, groups)
    kernel = np.zeros(shape, dy.dtype)
    for place, where in _places(dy.shape[1:-1], window, strides, dilation):
        seen = _grouped(padded[:, *where], groups)
        kernel[place] = np.moveaxis(np.swapaxes(seen, 1, 2) @ rows, 0, 1).reshape(shape[-2:])
    return np.moveaxis(kernel, (-1, -2), (0, 1)) if filters_first else kernel


# --- gradients ----------------------------------------------------------------------------------------------------


@convolution.vjp
def _(dy, y, x, kernel, **attributes):
    return (
        convolution_input_gradient(dy, kernel, shape=x.shape, **attributes),
        convolution_kernel_gradient(dy, x, shape=kernel.shape, **attributes),
    )


@convolution_input_gradient.vjp
def _(g, y, dy, kernel, *, shape, **attributes):
    return (
        convolution(g, kernel, **attributes),
        convolution_kernel_gradient(dy, g, shape=kernel.shape, **attributes),
    )


@convolution_kernel_gradient.vjp
def _(g, y, dy, x, *, shape, **attributes):
    return convolution(x, g, **attributes), convolution_input_gradient(dy, g, shape=x.shape, **attributes)


# --- cost: a multiplication and an addition for each element of the result, place of the window and channel ---------


@convolution.flops
def _(x, kernel, **attributes):
    y = convolution.infer((x, kernel), convolution.make_attributes(**attributes)).types[0]
    return 2 * product(y.shape) * product(plain_kernel(kernel.shape, attributes["filters_first"])[:-1])


@convolution_input_gradient.flops
def _(dy, kernel, **attributes):
    return 2 * product(dy.shape) * product(plain_kernel(kernel.shape, attributes["filters_first"])[:-1])


@convolution_kernel_gradient.flops
def _(dy, x, *, shape, **attributes):
    return 2 * product(dy.shape) * product(plain_kernel(shape, attributes["filters_first"])[:-1])


# --- with a bias ----------------------------------------------------------------------------------------------------


@composite(dtypes=REAL)
def conv(
    x: Tensor,
    kernel: Tensor,
    bias: Tensor | None = None,
    *,
    strides: tuple[int, ...] | None = None,
    padding: Padding = "valid",
    dilation: tuple[int, ...] | None = None,
    groups: int = 1,
    channels_last: bool = True,
    filters_first: bool = False,
) -> Tensor:
    """`convolution` of `x` with `kernel`, plus `bias`, a number for each filter."""
    y = convolution(
        x,
        kernel,
        strides=strides,
        padding=padding,
        dilation=dilation,
        groups=groups,
        channels_last=channels_last,
        filters_first=filters_first,
    )
    if bias is None:
        return y
    if bias.ndim != 1:
        raise ShapeError(f"the bias must have one axis, not {bias.ndim} ({bias.type})")
    require_equal(
        bias.shape[0],
        plain_kernel(kernel.shape, filters_first)[-1],
        f"bias {shape_text(bias.shape)} and kernel {shape_text(kernel.shape)} do not agree in filters",
    )
    return y + (bias if channels_last else ops.reshape(bias, shape=(bias.shape[0],) + (1,) * (x.ndim - 2)))


@conv.canonical
def _(x, kernel, bias, **attributes):
    return _ones(x, kernel, **attributes)


@conv.reference
def _(x, kernel, bias, **attributes):
    y = _convolution(x, kernel, **attributes)
    if bias is None:
        return y
    return y + (bias if attributes["channels_last"] else bias.reshape(-1, *[1] * (x.ndim - 2)))


@conv.vjp
def _(dy, y, x, kernel, bias, **attributes):
    channels = channel_axis(dy.ndim, attributes["channels_last"])
    others = tuple(axis for axis in range(dy.ndim) if axis != channels)
    return (
        convolution_input_gradient(dy, kernel, shape=x.shape, **attributes),
        convolution_kernel_gradient(dy, x, shape=kernel.shape, **attributes),
        None if bias is None else ops.reduce_sum(dy, axes=others),
    )


for _op in (convolution, conv):
    _op.sample((2, 6, 3), (3, 3, 4))
    _op.sample((1, 5, 6, 2), (2, 3, 2, 3), strides=(2, 1), padding="same")
    _op.sample((2, 2, 5, 5), (2, 2, 1, 4), strides=(1, 2), padding=((1, 0), (2, 1)), groups=2, channels_last=False)
    _op.sample((1, 4, 3, 5, 2), (2, 2, 2, 2, 2), padding="same", dilation=(1, 2, 1), strides=(2, 1, 2))
    _op.sample((2, 7, 7, 3), (3, 2, 1, 3), dilation=(2, 3), groups=3)
    _op.sample((2, 6, 5, 4), (6, 2, 3, 2), strides=(2, 1), padding=((1, 0), (2, 1)), groups=2, filters_first=True)
    _op.sample((1, 2, 5), (3, 2, 3), padding="same", channels_last=False, filters_first=True)
conv.sample((1, 4, 5, 2), (3, 3, 2, 3), (3,), padding="same")
conv.sample((1, 2, 6), (3, 2, 3), (3,), strides=(2,), channels_last=False)

convolution_input_gradient.sample((2, 4, 4), (3, 3, 4), shape=(2, 6, 3))
convolution_input_gradient.sample((1, 3, 6, 3), (2, 3, 2, 3), shape=(1, 5, 6, 2), strides=(2, 1), padding="same")
convolution_input_gradient.sample((2, 4, 3, 3), (3, 3, 1, 4), shape=(2, 2, 5, 5), groups=2, channels_last=False)
convolution_input_gradient.sample((1, 2, 1), (2, 1, 1), shape=(1, 6, 1), strides=(2,), dilation=(3,))
convolution_input_gradient.sample((1, 2, 3, 3, 2), (2, 2, 2, 2, 2), shape=(1, 4, 3, 5, 2), padding="same",
                                  dilation=(1, 2, 1), strides=(2, 1, 2))  # fmt: skip
convolution_input_gradient.sample((2, 3, 6, 6), (6, 2, 3, 2), shape=(2, 6, 5, 4), strides=(2, 1),
                                  padding=((1, 0), (2, 1)), groups=2, dilation=(1, 2), filters_first=True)  # fmt: skip
convolution_kernel_gradient.sample((2, 4, 4), (2, 6, 3), shape=(3, 3, 4))
convolution_kernel_gradient.sample((1, 3, 6, 3), (1, 5, 6, 2), shape=(2, 3, 2, 3), strides=(2, 1), padding="same")
convolution_kernel_gradient.sample((2, 4, 3, 3), (2, 2, 5, 5), shape=(3, 3, 1, 4), groups=2, channels_last=False)
convolution_kernel_gradient.sample((1, 2, 3, 3, 2), (1, 4, 3, 5, 2), shape=(2, 2, 2, 2, 2), padding="same",
                                   dilation=(1, 2, 1), strides=(2, 1, 2))  # fmt: skip
convolution_kernel_gradient.sample((2, 3, 6, 6), (2, 6, 5, 4), shape=(6, 2, 3, 2), strides=(2, 1),
                                   padding=((1, 0), (2, 1)), groups=2, dilation=(1, 2), filters_first=True)  # fmt: skip


__all__ = ["conv", "convolution", "convolution_input_gradient", "convolution_kernel_gradient"]
