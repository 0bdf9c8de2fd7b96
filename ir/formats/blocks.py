"""`int4` and `uint4`: four bits an element, in blocks of a channel's elements that have a scale each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from graphc.ir import ops
from graphc.ir.dtypes import DType, f16, f32, u8
from graphc.ir.errors import GraphcError
from graphc.ir.formats.format import Array, Format, Part, Tensor, finite, register_format, rounded_scales
from graphc.ir.formats.shapes import (
    as_dtype,
    as_rows,
    columns,
    computed_in,
    from_rows,
    from_rows_recorded,
    packed,
    padded,
    padded_recorded,
    rows_recorded,
    unpacked,
    unpacked_recorded,
    zero_points_of,
)
from graphc.ir.types import TensorType

SMALLEST = 16
"""The least size of a block, as in ONNX's `MatMulNBits`."""


@register_format
@dataclass(frozen=True)
class Int4(Format):
    """(value − zero point) · scale, the values from 0 to 15 and two a byte, in blocks of `block` elements of a channel.

    Values are u8[channels, ⌈n / 2⌉] for the n elements of a channel, the first of a pair in the low four bits; scales
    are [channels, blocks] in `scales` (f16 or f32). Symmetric, the zero point is 8 and values go from 1 to 15;
    `asymmetric`, each block has its own, u8[channels, ⌈blocks / 2⌉] packed as the values are. So ONNX's `MatMulNBits`
    has its weights.

    A channel's last block may be shorter. What was dequantized quantizes to the same
    arrays where it is symmetric, or where both ends of the range occur in each block.
    """

    name: ClassVar[str] = "int4"

    block: int = 32
    asymmetric: bool = False
    scales: DType = f16

    def __post_init__(self) -> None:
        if self.block < SMALLEST or self.block & (self.block - 1):
            raise GraphcError(f"{self}: a block is a power of two from {SMALLEST} on, not {self.block}")
        if self.scales not in (f16, f32):
            raise GraphcError(f"{self}: scales are f16 or f32, not {self.scales.short}")

    def parts(self, shape: Sequence[Any]) -> tuple[Part, ...]:
        rows, blocks = self._counts(shape)
        scales = Part("scales", TensorType.of(self.scales, (rows, blocks)))
        zeros = (Part("zero_points", TensorType.of(u8, (rows, -(-blocks // 2)))),) if self.asymmetric else ()
        width = columns(shape, self.channel_axis(len(shape)))
        return Part("values", TensorType.of(u8, (rows, -(-width // 2)))), scales, *zeros

    def _counts(self, shape: Sequence[Any]) -> tuple[Any, Any]:
        """Channels, and blocks of each."""
        axis = self.channel_axis(len(shape))
        return shape[axis], -(-columns(shape, axis) // self.block)

    def blocks(self, array: Array) -> Array:
        """The elements [channels, blocks, block], the last block of a channel filled up with zeros."""
        rows = padded(as_rows(array, self.channel_axis(array.ndim)), self.block)
        return rows.reshape(rows.shape[0], -1 if rows.size else 0, self.block)

    def quantize(self, array: Array) -> tuple[Array, ...]:
        blocks = self.blocks(finite(array, self))
        least, most = np.min(blocks, 2, initial=0), np.max(blocks, 2, initial=0)
        if not self.asymmetric:
            return self.with_scales(array, rounded_scales(np.maximum(-least, most), 7, self.scales, self))
        scales = rounded_scales(most - least, 15, self.scales, self)
        return self.with_scales(array, scales, zero_points_of(least, scales.astype(np.float64), (0, 15), u8))

    def with_scales(self, array: Array, scales: Array, zero_points: Array | None = None) -> tuple[Array, ...]:
        """The arrays for given scales (and zero points, one for each block, not packed), each element rounded to the
        nearest value there is."""
        whole = np.rint(self.blocks(finite(array, self)) / scales[..., None].astype(np.float64))
        if zero_points is None:
            return self._packed(np.clip(whole + 8, 1, 15), array.shape), scales
        values = self._packed(np.clip(whole + zero_points[..., None], 0, 15), array.shape)
        return values, scales, packed(padded(zero_points, 2))

    def _packed(self, blocks: Array, shape: Sequence[int]) -> Array:
        """Values [channels, blocks, block] as they are stored, a zero behind an odd number of them."""
        width = int(columns(shape, self.channel_axis(len(shape))))
        rows = blocks.reshape(blocks.shape[0], blocks.shape[1] * self.block)[:, :width]
        return packed(padded(rows, 2))

    def dequantize(self, *arrays: Array, shape: Sequence[int]) -> Array:
        values, scales, *zeros = arrays
        zero_points = unpacked(zeros[0])[:, : scales.shape[1], None].astype(np.float64) if zeros else 8.0
        rows = padded(unpacked(values), self.block)[:, : scales.shape[1] * self.block]
        whole = (rows.reshape(*scales.shape, self.block) - zero_points) * scales[..., None].astype(np.float64)
        return from_rows(whole.reshape(whole.shape[0], -1 if whole.size else 0), shape, self.channel_axis(len(shape)))

    def decompose(self, *parts: Tensor, shape: Sequence[Any], dtype: DType) -> Tensor:
        wide = computed_in(parts[1], dtype)
        rows, blocks = self._counts(shape)
        whole = self._whole(parts, shape, wide) * ops.reshape(as_dtype(parts[1], wide), shape=(rows, blocks, 1))
        flat = ops.reshape(whole, shape=(rows, blocks * self.block))
        return as_dtype(from_rows_recorded(flat, shape, self.channel_axis(len(shape))), dtype)

    def cotangents(self, dy: Tensor, *parts: Tensor, shape: Sequence[Any]) -> tuple[Tensor | None, ...]:
        wide = f32 if parts[1].dtype == f16 else parts[1].dtype
        rows, blocks = self._counts(shape)
        flat = padded_recorded(rows_recorded(as_dtype(dy, wide), self.channel_axis(len(shape))), self.block)
        spread = ops.reshape(flat, shape=(rows, blocks, self.block))
        found = ops.reduce_sum(spread * self._whole(parts, shape, wide), axes=(2,))
        return None, as_dtype(found, parts[1].dtype), *(None for _ in parts[2:])

    def _whole(self, parts: Sequence[Tensor], shape: Sequence[Any], dtype: DType) -> Tensor:
        """The values [channels, blocks, block] less their zero points, as floats."""
        rows, blocks = self._counts(shape)
        flat = padded_recorded(unpacked_recorded(parts[0]), self.block)
        values = as_dtype(ops.reshape(flat, shape=(rows, blocks, self.block)), dtype)
        if len(parts) < 3:
            return values - 8
        zero_points = ops.slice(unpacked_recorded(parts[2]), starts=(0, 0), limits=(rows, blocks))
        return values - ops.reshape(as_dtype(zero_points, dtype), shape=(rows, blocks, 1))


@register_format
@dataclass(frozen=True)
class UInt4(Int4):
    """`int4{asymmetric}`: every block has a zero point."""

    name: ClassVar[str] = "uint4"
    asymmetric: bool = True
