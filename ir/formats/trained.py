"""Rounding to a format as part of a training step: written with ops, in the dtype of the weight.

`fake_quantize_weight` is made of this. What it gives can be stored in the format to the bit (`stored`): its values are
integers times scales that the format holds. `Format.quantize` computes scales in float64, and may differ in one's last
bit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from graphc.ir import ops
from graphc.ir.dtypes import f16
from graphc.ir.errors import ShapeError, UnsupportedError
from graphc.ir.formats.blocks import BlockFormat
from graphc.ir.formats.channel import Int8
from graphc.ir.formats.format import Array, Format, Tensor
from graphc.ir.formats.shapes import (
    as_rows,
    columns,
    from_rows,
    from_rows_recorded,
    padded,
    padded_recorded,
    rows_recorded,
)
from graphc.ir.inference import shape_text

F16_LEAST, F16_MOST, F32_LEAST = 2.0**-24, 65504.0, 2.0**-126


@dataclass(frozen=True)
class Rounding:
    """Integers less their zero points, scales and zero points (None where there are none), as they broadcast."""

    whole: Tensor
    scales: Tensor
    zeros: Tensor | None


def can_be_trained(form: Format) -> bool:
    """Whether a weight can be rounded to this format in a training step."""
    return isinstance(form, (BlockFormat, Int8))


def rounded(x: Tensor, form: Format) -> Tensor:
    """The nearest values of the format, by the scales that `x` itself gives. Raises `UnsupportedError` for a format of
    tables or of others' blocks."""
    found = rounding(x, form)
    values = found.whole * found.scales
    if not isinstance(form, BlockFormat):
        return values
    axis = form.channel_axis(x.ndim)
    flat = ops.reshape(values, shape=(x.shape[axis], values.shape[1] * values.shape[2]))
    return from_rows_recorded(flat, x.shape, axis)


def rounding(x: Tensor, form: Format) -> Rounding:
    """What `rounded` is the product of: of formats in blocks [channels, blocks, block]."""
    if not all(isinstance(size, int) for size in x.shape):
        raise ShapeError(f"a weight has a shape of numbers, not {shape_text(x.shape)}")
    if isinstance(form, BlockFormat):
        axis = form.channel_axis(x.ndim)
        size = form.size(x.shape)
        rows = padded_recorded(rows_recorded(x, axis), size)
        count = -(-columns(x.shape, axis) // size)
        blocks = ops.reshape(rows, shape=(x.shape[axis], count, size))
        low, high = (0, form.most) if form.asymmetric else (-form.middle, form.most - form.middle)
        steps = form.most if form.asymmetric else form.middle - 1
        return _rounding(blocks, (2,), low, high, steps, form.asymmetric, form.scales is f16)
    if isinstance(form, Int8):
        kept = None if form.tensor else form.channel_axis(x.ndim)
        low, high = form.limits
        axes = tuple(i for i in range(x.ndim) if i != kept)
        return _rounding(x, axes, low, high, high - low if form.asymmetric else high, form.asymmetric, half=False)
    raise UnsupportedError(f"training rounds weights to int8, int4 and int3, not to {form}: quantize before or after")


def _rounding(
    x: Tensor, axes: tuple[int, ...], low: int, high: int, steps: int, asymmetric: bool, half: bool
) -> Rounding:
    least = ops.minimum(ops.reduce_min(x, axes=axes, keepdims=True), 0)
    most = ops.maximum(ops.reduce_max(x, axes=axes, keepdims=True), 0)
    spread = most - least if asymmetric else ops.maximum(most, -least)
    scales = ops.maximum(spread / steps, F16_LEAST if half else F32_LEAST)
    if half:
        scales = ops.minimum(scales, F16_MOST)
        scales = ops.convert(ops.convert(scales, dtype=f16), dtype=x.dtype)
    scales = ops.select(ops.eq(spread, 0), 1, scales)
    if not asymmetric:
        return Rounding(ops.clip(ops.round_even(x / scales), low=low, high=high), scales, None)
    zeros = ops.clip(ops.round_even(low - least / scales), low=low, high=high)
    return Rounding(ops.clip(ops.round_even(x / scales) + zeros, low=low, high=high) - zeros, scales, zeros)


def stored(array: Array, form: Format) -> tuple[Array, ...]:
    """The arrays of the format for what `rounded` makes of a weight."""
    found = rounding(array, form)
    scales = np.asarray(found.scales)
    zeros = None if found.zeros is None else np.asarray(found.zeros)
    values = np.asarray(rounded(array, form))
    if isinstance(form, BlockFormat):
        packed_zeros = None if zeros is None else zeros[..., 0].astype(np.uint8)
        return form.with_scales(values, scales[..., 0].astype(form.scales.numpy), packed_zeros)
    assert isinstance(form, Int8)
    flat = () if form.tensor else (-1,)
    kept = None if zeros is None else zeros.reshape(flat).astype(form.storage.numpy)
    return form.with_scales(values, scales.reshape(flat).astype(np.float32), kept)


def reference(array: Array, form: Format) -> Array:
    """`rounded` in plain NumPy, in the dtype of the array."""
    kind: Any = array.dtype.type
    x: Array
    if isinstance(form, BlockFormat):
        axis = form.channel_axis(array.ndim)
        size = form.size(array.shape)
        rows = padded(as_rows(array, axis), size)
        x = rows.reshape(rows.shape[0], -1 if rows.size else 0, size)
        axes: tuple[int, ...] = (2,)
        low, high = (0, form.most) if form.asymmetric else (-form.middle, form.most - form.middle)
        steps, half = form.most if form.asymmetric else form.middle - 1, form.scales is f16
    else:
        assert isinstance(form, Int8)
        x, half = array, False
        kept = None if form.tensor else form.channel_axis(array.ndim)
        axes = tuple(i for i in range(array.ndim) if i != kept)
        low, high = form.limits
        steps = high - low if form.asymmetric else high
    least: Array = np.min(x, axes, initial=0, keepdims=True)
    most: Array = np.max(x, axes, initial=0, keepdims=True)
    spread: Array = most - least if form.asymmetric else np.maximum(most, -least)
    scales: Array = np.maximum(spread / kind(steps), kind(F16_LEAST if half else F32_LEAST))
    if half:
        scales = np.minimum(scales, kind(F16_MOST)).astype(np.float16).astype(kind)
    scales = np.where(spread == 0, kind(1), scales)
    zeros: Any = np.clip(np.rint(low - least / scales), low, high) if form.asymmetric else kind(0)
    values: Array = (np.clip(np.rint(x / scales) + zeros, low, high) - zeros) * scales
    if not isinstance(form, BlockFormat):
        return values
    flat = values.reshape(values.shape[0], -1 if values.size else 0)
    return from_rows(flat, array.shape, form.channel_axis(array.ndim))


__all__ = ["Rounding", "can_be_trained", "reference", "rounded", "rounding", "stored"]
