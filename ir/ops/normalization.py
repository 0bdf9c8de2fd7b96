"""Normalizations: to zero mean and unit variance, or unit mean square, then scaled and shifted.

Statistics of 8- and 16-bit floats are taken in float32, also in the decomposition: in float16 a variance overflows at
once. The gradients treat mean and variance as functions of `x`, except in `batch_norm`, where they are operands;
`batch_norm_training` takes its own.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from graphc.ir import ops
from graphc.ir.attributes import Axes, Axis
from graphc.ir.dtypes import FLOATS, dtype, f32
from graphc.ir.errors import ShapeError
from graphc.ir.inference import require_equal, shape_text
from graphc.ir.opdef import Draw, Tensor, composite
from graphc.ir.ops.reduction import count_of


def _counted(x, axes: Sequence[int]) -> tuple[int, ...]:
    """The axes counted from the front, sorted."""
    for axis in axes:
        if not -x.ndim <= axis < x.ndim:
            raise ShapeError(f"axis {axis} is out of range for x {shape_text(x.shape)}")
    found = tuple(sorted(axis % x.ndim for axis in axes))
    if len(set(found)) != len(found) or not found:
        raise ShapeError(f"axes = {list(axes)} must name at least one axis, and none twice")
    return found


def _others(x, axes: Sequence[int]) -> tuple[int, ...]:
    return tuple(axis for axis in range(x.ndim) if axis not in axes)


def _wide(x):
    """Narrow floats as float32, others as they are."""
    kind = dtype(x.dtype)
    return ops.convert(x, dtype=f32) if kind.is_float and kind.bits < 32 else x


def _like(y, x):
    """`y` in the dtype of `x`."""
    return y if dtype(y.dtype) is dtype(x.dtype) else ops.convert(y, dtype=x.dtype)


def _along(parameter, x, axes: Sequence[int]):
    """A parameter with the shape of `x` along `axes`, such that it broadcasts with `x`."""
    wide = _wide(parameter)
    if tuple(axes) == tuple(range(x.ndim - len(axes), x.ndim)):
        return wide
    return ops.reshape(wide, shape=tuple(size if axis in axes else 1 for axis, size in enumerate(x.shape)))


def _check_parameters(x, axes: Sequence[int], **parameters) -> None:
    """Demand that parameters have the shape of `x` along `axes`."""
    for name, parameter in parameters.items():
        if parameter is None:
            continue
        what = f"{name} {shape_text(parameter.shape)} and x {shape_text(x.shape)} do not agree along axes {list(axes)}"
        if parameter.ndim != len(axes):
            raise ShapeError(what)
        for axis, size in zip(axes, parameter.shape, strict=True):
            require_equal(size, x.shape[axis], what)


def _affine(y, scale, offset, axes: Sequence[int]):
    y = y if scale is None else y * _along(scale, y, axes)
    return y if offset is None else y + _along(offset, y, axes)


def _mean(x, axes: Sequence[int]):
    return ops.reduce_mean(x, axes=axes, keepdims=True)


def _standardized(x, axes: Sequence[int], epsilon: float):
    """`x` with zero mean and unit variance over `axes`, and the factor that made it so."""
    centred = x - _mean(x, axes)
    factor = ops.rsqrt(_mean(ops.square(centred), axes) + epsilon)
    return centred * factor, factor


def _standardized_gradient(dy, y, factor, axes: Sequence[int]):
    """The cotangent of `x` in `y, factor = _standardized(x)`."""
    return factor * (dy - _mean(dy, axes) - y * _mean(dy * y, axes))


def _parameter_gradients(dy, normal, scale, offset, axes: Sequence[int]):
    """The cotangents of scale and offset in `normal * scale + offset`."""
    over = _others(dy, axes)

    def total(x, like):
        return _like(ops.reduce_sum(x, axes=over) if over else x, like)

    return (
        None if scale is None else total(dy * normal, scale),
        None if offset is None else total(dy, offset),
    )


def _affine_reference(y, scale, offset, axes):
    shape = [size if axis in axes else 1 for axis, size in enumerate(y.shape)]
    y = y if scale is None else y * scale.reshape(shape)
    return y if offset is None else y + offset.reshape(shape)


# --- layer ----------------------------------------------------------------------------------------------------------


@composite(dtypes=FLOATS)
def layer_norm(
    x: Tensor,
    scale: Tensor | None = None,
    offset: Tensor | None = None,
    *,
    axes: Axes = (-1,),
    epsilon: float = 1e-3,
) -> Tensor:
    """(x − mean) / √(variance + epsilon) over `axes`, times `scale`, plus `offset`, which have the shape of `x` along
    `axes`."""
    over = _counted(x, axes)
    _check_parameters(x, over, scale=scale, offset=offset)
    normal, _ = _standardized(_wide(x), over, epsilon)
    return _like(_affine(normal, scale, offset, over), x)


@layer_norm.reference
def _(x, scale, offset, *, axes, epsilon):
    over = _counted(x, axes)
    normal = (x - x.mean(over, keepdims=True)) / np.sqrt(x.var(over, keepdims=True) + epsilon)
    return _affine_reference(normal, scale, offset, over)


@layer_norm.vjp
def _(dy, y, x, scale, offset, *, axes, epsilon):
    over, dy = _counted(x, axes), _wide(dy)
    normal, factor = _standardized(_wide(x), over, epsilon)
    dx = _standardized_gradient(_affine(dy, scale, None, over), normal, factor, over)
    return _like(dx, x), *_parameter_gradients(dy, normal, scale, offset, over)


layer_norm.sample((2, 5))
layer_norm.sample((2, 3, 4), (4,), (4,))
layer_norm.sample((2, 3, 4), (3, 4), (3, 4), axes=(1, 2), epsilon=1e-5)
layer_norm.sample((2, 4, 3), (4,), None, axes=(1,))


# --- root mean square -----------------------------------------------------------------------------------------------


@composite(dtypes=FLOATS)
def rms_norm(
    x: Tensor,
    scale: Tensor | None = None,
    *,
    axes: Axes = (-1,),
    epsilon: float = 1e-6,
) -> Tensor:
    """x / √(mean of x² + epsilon) over `axes`, times `scale`, which has the shape of `x` along `axes`."""
    over = _counted(x, axes)
    _check_parameters(x, over, scale=scale)
    normal, _ = _by_root_mean_square(_wide(x), over, epsilon)
    return _like(_affine(normal, scale, None, over), x)


def _by_root_mean_square(x, axes, epsilon):
    factor = ops.rsqrt(_mean(ops.square(x), axes) + epsilon)
    return x * factor, factor


@rms_norm.reference
def _(x, scale, *, axes, epsilon):
    over = _counted(x, axes)
    normal = x / np.sqrt(np.mean(x * x, axis=over, keepdims=True) + epsilon)
    return _affine_reference(normal, scale, None, over)


@rms_norm.vjp
def _(dy, y, x, scale, *, axes, epsilon):
    over, dy = _counted(x, axes), _wide(dy)
    normal, factor = _by_root_mean_square(_wide(x), over, epsilon)
    g = _affine(dy, scale, None, over)
    dx = factor * (g - normal * _mean(g * normal, over))
    return _like(dx, x), _parameter_gradients(dy, normal, scale, None, over)[0]


rms_norm.sample((2, 5))
rms_norm.sample((2, 3, 4), (4,))
rms_norm.sample((2, 3, 4), (3, 4), axes=(1, 2), epsilon=1e-3)


# --- batch ----------------------------------------------------------------------------------------------------------


@composite(dtypes=FLOATS)
def batch_norm(
    x: Tensor,
    mean: Tensor,
    variance: Tensor,
    scale: Tensor | None = None,
    offset: Tensor | None = None,
    *,
    axis: Axis = -1,
    epsilon: float = 1e-3,
) -> Tensor:
    """(x − mean) / √(variance + epsilon) · scale + offset, all of them vectors along `axis` of `x`.

    Mean and variance are given: averages of earlier batches at inference, those of the batch itself in training.
    """
    (channels,) = over = _counted(x, (axis,))
    _check_parameters(x, over, mean=mean, variance=variance, scale=scale, offset=offset)
    factor = ops.rsqrt(_wide(variance) + epsilon)
    factor = factor if scale is None else factor * _wide(scale)
    y = (_wide(x) - _along(mean, x, over)) * _along(factor, x, (channels,))
    return _like(_affine(y, None, offset, over), x)


@batch_norm.reference
def _batch_norm(x, mean, variance, scale, offset, *, axis, epsilon):
    over = _counted(x, (axis,))
    normal = _affine_reference(x, 1 / np.sqrt(variance + epsilon), -mean / np.sqrt(variance + epsilon), over)
    return _affine_reference(normal, scale, offset, over)


@batch_norm.vjp
def _(dy, y, x, mean, variance, scale, offset, *, axis, epsilon):
    over, dy = _counted(x, (axis,)), _wide(dy)
    factor = ops.rsqrt(_wide(variance) + epsilon)
    slope = factor if scale is None else factor * _wide(scale)
    others = _others(x, over)
    centred = _wide(x) - _along(mean, x, over)
    d_offset = ops.reduce_sum(dy, axes=others) if others else dy
    d_scale = factor * (ops.reduce_sum(dy * centred, axes=others) if others else dy * centred)
    return (
        _like(dy * _along(slope, x, over), x),
        _like(-d_offset * slope, mean),
        _like(-0.5 * d_scale * slope * factor, variance),
        None if scale is None else _like(d_scale, scale),
        None if offset is None else _like(d_offset, offset),
    )


batch_norm.sample((2, 3, 4), (4,), Draw((4,), 0.5, 2))
batch_norm.sample((2, 3, 4), (4,), Draw((4,), 0.5, 2), (4,), (4,), epsilon=1e-5)
batch_norm.sample((2, 3, 2, 2), (3,), Draw((3,), 0.5, 2), None, (3,), axis=1)


@composite(dtypes=FLOATS)
def batch_norm_training(
    x: Tensor,
    scale: Tensor | None = None,
    offset: Tensor | None = None,
    *,
    axis: Axis = -1,
    epsilon: float = 1e-3,
) -> tuple[Tensor, ...]:
    """`batch_norm` of `x` by its own statistics over all axes but `axis`, and these: the result, mean and variance."""
    over = _counted(x, (axis,))
    others, wide = _others(x, over), _wide(x)
    mean = ops.reduce_mean(wide, axes=others)
    variance = ops.reduce_mean(ops.square(wide - _along(mean, wide, over)), axes=others)  # which takes no second mean
    mean, variance = _like(mean, x), _like(variance, x)
    return batch_norm(x, mean, variance, scale, offset, axis=over[0], epsilon=epsilon), mean, variance


@batch_norm_training.reference
def _(x, scale, offset, *, axis, epsilon):
    over = _counted(x, (axis,))
    others = _others(x, over)
    mean, variance = x.mean(others), x.var(others)
    return _batch_norm(x, mean, variance, scale, offset, axis=axis, epsilon=epsilon), mean, variance


@batch_norm_training.vjp
def _(dy, y, x, scale, offset, *, axis, epsilon):
    (dy, d_mean, d_variance), (_, mean, variance) = dy, y
    over = _counted(x, (axis,))
    dx = d_scale = d_offset = None
    if dy is not None:
        dx, d_scale, d_offset = batch_norm_gradient(dy, x, mean, variance, scale, axis=over[0], epsilon=epsilon)
    count = count_of(x, _others(x, over))
    if d_mean is not None:
        part = ops.broadcast(_along(d_mean / count, x, over), shape=x.shape)
        dx = part if dx is None else dx + part
    if d_variance is not None:
        part = _along(d_variance * 2 / count, x, over) * (x - _along(mean, x, over))
        dx = part if dx is None else dx + part
    return dx, None if scale is None else d_scale, None if offset is None else d_offset


@composite(dtypes=FLOATS)
def batch_norm_gradient(
    dy: Tensor,
    x: Tensor,
    mean: Tensor,
    variance: Tensor,
    scale: Tensor | None = None,
    *,
    axis: Axis = -1,
    epsilon: float = 1e-3,
) -> tuple[Tensor, ...]:
    """The cotangents of `x`, scale and offset for the cotangent `dy` of the first result of `batch_norm_training`;
    the others are `mean` and `variance`."""
    over = _counted(x, (axis,))
    _check_parameters(x, over, mean=mean, variance=variance, scale=scale)
    others, wide = _others(x, over), _wide(dy)
    count = count_of(x, others)
    factor = ops.rsqrt(_wide(variance) + epsilon)
    slope = factor if scale is None else factor * _wide(scale)
    centred = _wide(x) - _along(mean, x, over)
    d_offset = ops.reduce_sum(wide, axes=others)
    d_scale = ops.reduce_sum(wide * centred, axes=others) * factor
    dx = (
        wide * _along(slope, x, over)
        - centred * _along(slope * factor * d_scale / count, x, over)
        - _along(slope * d_offset / count, x, over)
    )
    return _like(dx, x), _like(d_scale, mean), _like(d_offset, mean)


@batch_norm_gradient.reference
def _(dy, x, mean, variance, scale, *, axis, epsilon):
    over = _counted(x, (axis,))
    others = _others(x, over)
    deviation = np.sqrt(variance + epsilon)
    normal = _affine_reference(x, 1 / deviation, -mean / deviation, over)
    d_scale, d_offset = (dy * normal).sum(others), dy.sum(others)
    count = x.size / mean.size
    rest = dy - _affine_reference(normal, d_scale / count, d_offset / count, over)
    return _affine_reference(rest, (1 if scale is None else scale) / deviation, None, over), d_scale, d_offset


for _op, _first in ((batch_norm_training, ()), (batch_norm_gradient, ((2, 3, 4),))):
    _rest = ((4,), Draw((4,), 0.5, 2)) if _first else ()
    _op.sample(*_first, (2, 3, 4), *_rest)
    _op.sample(*_first, (2, 3, 4), *_rest, (4,), *(() if _first else ((4,),)), epsilon=1e-2)
batch_norm_training.sample((2, 3, 2, 2), (3,), (3,), axis=1)
batch_norm_gradient.sample((2, 3, 2, 2), (2, 3, 2, 2), (3,), Draw((3,), 0.5, 2), (3,), axis=1)


# --- group ----------------------------------------------------------------------------------------------------------


@composite(dtypes=FLOATS)
def group_norm(
    x: Tensor,
    scale: Tensor | None = None,
    offset: Tensor | None = None,
    *,
    groups: int,
    axis: Axis = -1,
    epsilon: float = 1e-3,
) -> Tensor:
    """`layer_norm` over all axes but the first, for each of `groups` groups of neighbouring channels along `axis`;
    `scale` and `offset` are vectors of a number for each channel."""
    over = _counted(x, (axis,))
    _check_parameters(x, over, scale=scale, offset=offset)
    grouped, axes = _grouped(_wide(x), over[0], groups)
    normal, _ = _standardized(grouped, axes, epsilon)
    return _like(_affine(ops.reshape(normal, shape=x.shape), scale, offset, over), x)


def _grouped(x, axis: int, groups: int):
    """`x` with the axis of channels split into groups and the channels of a group, and the axes to normalize over."""
    channels = x.shape[axis]
    if axis == 0:
        raise ShapeError("group_norm needs channels along another axis than the first, the batch")
    if groups < 1 or not isinstance(channels, int) or channels % groups:
        raise ShapeError(f"{channels} channels of x {shape_text(x.shape)} do not divide into {groups} groups")
    shape = (*x.shape[:axis], groups, channels // groups, *x.shape[axis + 1 :])
    return ops.reshape(x, shape=shape), tuple(i for i in range(1, x.ndim + 1) if i != axis)


@group_norm.reference
def _(x, scale, offset, *, groups, axis, epsilon):
    over = _counted(x, (axis,))
    parts = np.split(np.moveaxis(x, over[0], -1), groups, axis=-1)
    axes = tuple(range(1, x.ndim))
    normal = [(p - p.mean(axes, keepdims=True)) / np.sqrt(p.var(axes, keepdims=True) + epsilon) for p in parts]
    return _affine_reference(np.moveaxis(np.concatenate(normal, -1), -1, over[0]), scale, offset, over)


@group_norm.vjp
def _(dy, y, x, scale, offset, *, groups, axis, epsilon):
    over, dy = _counted(x, (axis,)), _wide(dy)
    grouped, axes = _grouped(_wide(x), over[0], groups)
    normal, factor = _standardized(grouped, axes, epsilon)
    g = ops.reshape(_affine(dy, scale, None, over), shape=grouped.shape)
    dx = ops.reshape(_standardized_gradient(g, normal, factor, axes), shape=x.shape)
    return _like(dx, x), *_parameter_gradients(dy, ops.reshape(normal, shape=x.shape), scale, offset, over)


group_norm.sample((2, 3, 4), groups=2)
group_norm.sample((2, 3, 4), (4,), (4,), groups=4, epsilon=1e-5)
group_norm.sample((2, 6, 2, 2), (6,), (6,), groups=3, axis=1)


__all__ = ["batch_norm", "batch_norm_gradient", "batch_norm_training", "group_norm", "layer_norm", "rms_norm"]
