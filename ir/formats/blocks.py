"""`int4`, `uint4`, `int3` and `uint3`: few bits an element, in blocks of a channel's elements that have a scale."""

from __future__ import annotations

from abc import abstractmethod
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

PADDED = 128
"""Up to so many elements a channel is filled up to a whole block; larger blocks are as small as the channel allows, so
that what a file says of blocks does not decide what memory is taken."""


@dataclass(frozen=True)
class BlockFormat(Format):
    """(value − zero point) · scale, with values of `bits` bits, in blocks of `block` elements of a channel; of all of
    them where it is None.

    Scales are [channels, blocks] in `scales` (f16 or f32). Symmetric, the zero point is the middle of the range, and
    of rounding to nearest its ends are alike; `asymmetric`, each block has its own, u8[channels, ⌈blocks / 2⌉], two a
    byte. How values are packed is the subclass's.

    A channel's last block may be shorter. What was dequantized quantizes to the same
    arrays where it is symmetric, or where both ends of the range occur in each block.
    """

    bits: ClassVar[int]

    block: int | None = 32
    asymmetric: bool = False
    scales: DType = f16

    def __post_init__(self) -> None:
        if self.block is not None and (self.block < SMALLEST or self.block & (self.block - 1)):
            raise GraphcError(f"{self}: a block is a power of two from {SMALLEST} on, or none, not {self.block}")
        if self.scales not in (f16, f32):
            raise GraphcError(f"{self}: scales are f16 or f32, not {self.scales.short}")

    def parts(self, shape: Sequence[Any]) -> tuple[Part, ...]:
        rows, blocks = self._counts(shape)
        scales = Part("scales", TensorType.of(self.scales, (rows, blocks)))
        zeros = (Part("zero_points", TensorType.of(u8, (rows, -(-blocks // 2)))),) if self.asymmetric else ()
        width = columns(shape, self.channel_axis(len(shape)))
        return Part("values", TensorType.of(u8, (rows, *self.packed_shape(width)))), scales, *zeros

    def joined_axes(self, shapes: Sequence[Sequence[Any]], axis: int) -> tuple[int, ...] | None:
        along_channels = axis == self.channel_axis(len(shapes[0]))
        return tuple(0 for _ in self.parts(shapes[0])) if along_channels else None

    @abstractmethod
    def packed_shape(self, width: Any) -> tuple[Any, ...]:
        """The shape in which so many values of a channel are stored, in bytes."""

    @abstractmethod
    def pack(self, rows: Array) -> Array:
        """Values [channels, n] as they are stored."""

    @abstractmethod
    def unpack(self, stored: Array) -> Array:
        """What was packed, with zeros behind where bytes have room for more."""

    @abstractmethod
    def unpack_recorded(self, stored: Tensor) -> Tensor:
        """`unpack` with ops."""

    @property
    def middle(self) -> int:
        """The zero point of blocks that have none of their own."""
        return 1 << (self.bits - 1)

    @property
    def most(self) -> int:
        """The greatest value."""
        return (1 << self.bits) - 1

    def size(self, shape: Sequence[Any]) -> int:
        """Elements of a block of a tensor of this shape."""
        width = columns(shape, self.channel_axis(len(shape)))
        if self.block is None:
            return max(width, 1)
        if self.block <= PADDED or not isinstance(width, int):
            return self.block
        return min(self.block, max(PADDED, 1 << (width - 1).bit_length() if width else 0))

    def _counts(self, shape: Sequence[Any]) -> tuple[Any, Any]:
        """Channels, and blocks of each."""
        axis = self.channel_axis(len(shape))
        return shape[axis], -(-columns(shape, axis) // self.size(shape))

    def blocks(self, array: Array) -> Array:
        """The elements [channels, blocks, block], the last block of a channel filled up with zeros."""
        size = self.size(array.shape)
        rows = padded(as_rows(array, self.channel_axis(array.ndim)), size)
        return rows.reshape(rows.shape[0], rows.shape[1] // size, size)

    def quantize(self, array: Array) -> tuple[Array, ...]:
        blocks = self.blocks(finite(array, self))
        least, most = np.min(blocks, 2, initial=0), np.max(blocks, 2, initial=0)
        if not self.asymmetric:
            return self.with_scales(array, rounded_scales(np.maximum(-least, most), self.middle - 1, self.scales, self))
        scales = rounded_scales(most - least, self.most, self.scales, self)
        return self.with_scales(array, scales, zero_points_of(least, scales.astype(np.float64), (0, self.most), u8))

    def with_scales(self, array: Array, scales: Array, zero_points: Array | None = None) -> tuple[Array, ...]:
        """The arrays for given scales (and zero points, one for each block, not packed), each element rounded to the
        nearest value there is."""
        whole = np.rint(self.blocks(finite(array, self)) / scales[..., None].astype(np.float64))
        middle = self.middle if zero_points is None else zero_points[..., None]
        blocks = np.clip(whole + middle, 0, self.most).astype(np.uint8)
        width = int(columns(array.shape, self.channel_axis(array.ndim)))
        values = self.pack(blocks.reshape(blocks.shape[0], blocks.shape[1] * blocks.shape[2])[:, :width])
        return (values, scales) if zero_points is None else (values, scales, packed(padded(zero_points, 2)))

    def dequantize(self, *arrays: Array, shape: Sequence[int]) -> Array:
        values, scales, *zeros = arrays
        size = self.size(shape)
        zero_points = unpacked(zeros[0])[:, : scales.shape[1], None].astype(np.float64) if zeros else float(self.middle)
        rows = padded(self.unpack(values), size)[:, : scales.shape[1] * size]
        whole = (rows.reshape(*scales.shape, size) - zero_points) * scales[..., None].astype(np.float64)
        return from_rows(whole.reshape(whole.shape[0], -1 if whole.size else 0), shape, self.channel_axis(len(shape)))

    def decompose(self, *parts: Tensor, shape: Sequence[Any], dtype: DType) -> Tensor:
        wide = computed_in(parts[1], dtype)
        rows, blocks = self._counts(shape)
        whole = self._whole(parts, shape, wide) * ops.reshape(as_dtype(parts[1], wide), shape=(rows, blocks, 1))
        flat = ops.reshape(whole, shape=(rows, blocks * self.size(shape)))
        return as_dtype(from_rows_recorded(flat, shape, self.channel_axis(len(shape))), dtype)

    def cotangents(self, dy: Tensor, *parts: Tensor, shape: Sequence[Any]) -> tuple[Tensor | None, ...]:
        wide = f32 if parts[1].dtype == f16 else parts[1].dtype
        rows, blocks = self._counts(shape)
        size = self.size(shape)
        flat = padded_recorded(rows_recorded(as_dtype(dy, wide), self.channel_axis(len(shape))), size)
        spread = ops.reshape(flat, shape=(rows, blocks, size))
        found = ops.reduce_sum(spread * self._whole(parts, shape, wide), axes=(2,))
        return None, as_dtype(found, parts[1].dtype), *(None for _ in parts[2:])

    def _whole(self, parts: Sequence[Tensor], shape: Sequence[Any], dtype: DType) -> Tensor:
        """The values [channels, blocks, block] less their zero points, as floats."""
        rows, blocks = self._counts(shape)
        size = self.size(shape)
        flat = self.unpack_recorded(parts[0])
        if flat.shape[1] < blocks * size:
            flat = padded_recorded(flat, size)
        if flat.shape[1] != blocks * size:
            flat = ops.slice(flat, starts=(0, 0), limits=(rows, blocks * size))
        values = as_dtype(ops.reshape(flat, shape=(rows, blocks, size)), dtype)
        if len(parts) < 3:
            return values - self.middle
        zero_points = ops.slice(unpacked_recorded(parts[2]), starts=(0, 0), limits=(rows, blocks))
        return values - ops.reshape(as_dtype(zero_points, dtype), shape=(rows, blocks, 1))


@register_format
@dataclass(frozen=True)
class Int4(BlockFormat):
    """Values from 0 to 15, two a byte, u8[channels, ⌈n / 2⌉] for the n elements of a channel, the first of a pair in
    the low four bits. So ONNX's `MatMulNBits` has its weights. See `BlockFormat`."""

    name: ClassVar[str] = "int4"
    bits: ClassVar[int] = 4

    def packed_shape(self, width: Any) -> tuple[Any, ...]:
        return (-(-width // 2),)

    def pack(self, rows: Array) -> Array:
        return packed(padded(rows, 2))

    def unpack(self, stored: Array) -> Array:
        return unpacked(stored)

    def unpack_recorded(self, stored: Tensor) -> Tensor:
        return unpacked_recorded(stored)


@register_format
@dataclass(frozen=True)
class UInt4(Int4):
    """`int4{asymmetric}`: every block has a zero point."""

    name: ClassVar[str] = "uint4"
    asymmetric: bool = True


@register_format
@dataclass(frozen=True)
class Int3(BlockFormat):
    """Values from 0 to 7 by their bits: u8[channels, 3, ⌈n / 8⌉], where byte j of row b has bit b of the values 8j to
    8j + 7, that of the first one lowest. See `BlockFormat`."""

    name: ClassVar[str] = "int3"
    bits: ClassVar[int] = 3

    def packed_shape(self, width: Any) -> tuple[Any, ...]:
        return 3, -(-width // 8)

    def pack(self, rows: Array) -> Array:
        values = padded(rows, 8)
        bits = (values[:, None, :] >> np.arange(3, dtype=np.uint8)[:, None]) & 1
        return np.packbits(bits.astype(np.uint8), axis=2, bitorder="little")

    def unpack(self, stored: Array) -> Array:
        low, middle, high = np.moveaxis(np.unpackbits(stored, axis=2, bitorder="little"), 1, 0)
        return low | middle << 1 | high << 2

    def unpack_recorded(self, stored: Tensor) -> Tensor:
        rows, _, width = stored.shape
        single = [ops.reshape(x, shape=(rows, 3, width, 1)) for x in _bits(stored)]
        bits = ops.reshape(ops.concat(*single, axis=3), shape=(rows, 3, width * 8))
        planes = [
            ops.reshape(ops.slice(bits, starts=(0, b, 0), limits=(rows, b + 1, width * 8)), shape=(rows, width * 8))
            for b in range(3)
        ]
        return ops.or_(planes[0], ops.or_(_shifted(planes[1], 1), _shifted(planes[2], 2)))


def _bits(stored: Tensor) -> list[Tensor]:
    """Bit 0 to bit 7 of every byte."""
    shifted = [stored, *(ops.shift_right(stored, np.uint8(i)) for i in range(1, 8))]
    return [ops.and_(x, np.uint8(1)) for x in shifted]


def _shifted(x: Tensor, places: int) -> Tensor:
    return ops.shift_left(x, np.uint8(places))


@register_format
@dataclass(frozen=True)
class UInt3(Int3):
    """`int3{asymmetric}`: every block has a zero point."""

    name: ClassVar[str] = "uint3"
    asymmetric: bool = True
