"""`int8` and `uint8`: a byte an element, with one scale for each channel or for the whole tensor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import numpy as np

from graphc.ir import ops
from graphc.ir.dtypes import DType, f32, i8, u8
from graphc.ir.formats.format import Array, Format, Part, Tensor, finite, register_format, rounded_scales
from graphc.ir.formats.shapes import as_dtype, computed_in, zero_points_of
from graphc.ir.types import TensorType


@register_format
@dataclass(frozen=True)
class Int8(Format):
    """(values − zero point) · scale, the values in int8 and in the tensor's own shape.

    Symmetric, values go from −127 to 127 and there is no zero point; `asymmetric`, they go from −128 to 127 and span
    from the least to the greatest element, zero among them, which is a value. `tensor`: one scale for all elements.
    `reduced`: half the range, for kernels whose sums would overflow.

    What was dequantized quantizes to the same arrays, where it is symmetric, or where both ends of the range occur.
    """

    name: ClassVar[str] = "int8"
    storage: ClassVar[DType] = i8

    asymmetric: bool = False
    tensor: bool = False
    reduced: bool = False

    @property
    def limits(self) -> tuple[int, int]:
        """The least and the greatest value."""
        if self.reduced:
            return (-64, 63) if self.asymmetric else (-63, 63)
        return (-128, 127) if self.asymmetric else (-127, 127)

    @property
    def has_rows(self) -> bool:
        return self.axis == 0 and not self.tensor

    def parts(self, shape: Sequence[Any]) -> tuple[Part, ...]:
        spread = () if self.tensor else (shape[self.channel_axis(len(shape))],)
        scales = Part("scales", TensorType.of(f32, spread))
        zeros = (Part("zero_points", TensorType.of(self.storage, spread)),) if self.asymmetric else ()
        return Part("values", TensorType.of(self.storage, shape)), scales, *zeros

    def joined_axes(self, shapes: Sequence[Sequence[Any]], axis: int) -> tuple[int, ...] | None:
        if self.tensor or axis != self.channel_axis(len(shapes[0])):
            return None
        return axis, *(0 for _ in self.parts(shapes[0])[1:])

    def quantize(self, array: Array) -> tuple[Array, ...]:
        wide = finite(array, self)
        axis = None if self.tensor else self.channel_axis(array.ndim)
        others = tuple(i for i in range(array.ndim) if i != axis)
        least = np.min(wide, others, initial=0)
        most = np.max(wide, others, initial=0)
        low, high = self.limits
        if not self.asymmetric:
            return self.with_scales(array, rounded_scales(np.maximum(-least, most), high, f32, self))
        scales = rounded_scales(most - least, high - low, f32, self)
        return self.with_scales(array, scales, zero_points_of(least, scales, self.limits, self.storage))

    def with_scales(self, array: Array, scales: Array, zero_points: Array | None = None) -> tuple[Array, ...]:
        """The arrays for given scales (and zero points), each element rounded to the nearest value there is."""
        wide = finite(array, self) / self._spread(scales, array.shape)
        low, high = self.limits
        if zero_points is None:
            return np.clip(np.rint(wide), low, high).astype(self.storage.numpy), scales
        values = np.clip(np.rint(wide) + self._spread(zero_points, array.shape), low, high)
        return values.astype(self.storage.numpy), scales, zero_points

    def dequantize(self, *arrays: Array, shape: Sequence[int]) -> Array:
        values, scales, *zeros = arrays
        whole = values.astype(np.float64)
        if zeros:
            whole = whole - self._spread(zeros[0], shape)
        return whole * self._spread(scales, shape)

    def decompose(self, *parts: Tensor, shape: Sequence[Any], dtype: DType) -> Tensor:
        wide = computed_in(parts[1], dtype)
        return as_dtype(self._whole(parts, shape, wide) * self._spread(as_dtype(parts[1], wide), shape), dtype)

    def cotangents(self, dy: Tensor, *parts: Tensor, shape: Sequence[Any]) -> tuple[Tensor | None, ...]:
        kept = None if self.tensor else self.channel_axis(len(shape))
        axes = tuple(i for i in range(len(shape)) if i != kept)
        dtype = parts[1].dtype
        product = as_dtype(dy, dtype) * self._whole(parts, shape, dtype)
        return None, ops.reduce_sum(product, axes=axes) if axes else product, *(None for _ in parts[2:])

    def _whole(self, parts: Sequence[Tensor], shape: Sequence[Any], dtype: DType) -> Tensor:
        """The values less their zero points, as floats."""
        whole = as_dtype(parts[0], dtype)
        return whole - self._spread(as_dtype(parts[2], dtype), shape) if len(parts) > 2 else whole

    def _spread(self, channels: Tensor, shape: Sequence[Any]) -> Any:
        """An element for each channel, so that it broadcasts with the tensor."""
        axis = len(shape) - 1 if self.tensor else self.channel_axis(len(shape))
        if self.tensor or axis == len(shape) - 1:
            return channels
        spread = (channels.shape[0], *(1,) * (len(shape) - 1 - axis))
        if isinstance(channels, np.ndarray):
            return np.reshape(cast(Array, channels), spread)
        return ops.reshape(channels, shape=spread)


@register_format
@dataclass(frozen=True)
class UInt8(Int8):
    """`int8{asymmetric}` with the values from 0 to 255: what kernels take for activations."""

    name: ClassVar[str] = "uint8"
    storage: ClassVar[DType] = u8
    asymmetric: bool = True

    @property
    def limits(self) -> tuple[int, int]:
        return (0, 127) if self.reduced else (0, 255)
