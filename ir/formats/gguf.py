"""`q4_0` and `q8_0`: the blocks of GGUF files, 32 elements with a scale in float16.

A file interleaves the scales with the values (`to_blocks`, `from_blocks`); here they are two arrays. Rounding and
packing are llama.cpp's to the bit (ggml-quants.c, `quantize_row_q4_0_ref` and `quantize_row_q8_0_ref`): in Q8_0 halves
round away from zero, in Q4_0 the element of largest magnitude is the value 0 whatever its sign. A channel is made of
whole blocks; others are refused, since a file has no place for a part of one.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, ClassVar

import numpy as np

from graphc.ir import ops
from graphc.ir.dtypes import DType, f16, f32, i8, u8
from graphc.ir.errors import FormatError, ShapeError
from graphc.ir.formats.format import Array, Format, Part, Tensor, held_in, register_format
from graphc.ir.formats.shapes import (
    as_dtype,
    as_rows,
    columns,
    computed_in,
    from_rows,
    from_rows_recorded,
    rows_recorded,
)
from graphc.ir.types import TensorType

BLOCK = 32


@dataclass(frozen=True)
class _Gguf(Format):
    """Blocks of 32 elements of a channel: `values` [channels, blocks, bytes] and `scales` f16[channels, blocks]."""

    storage: ClassVar[DType]
    width: ClassVar[int]
    """Elements of `values` that a block has."""

    def parts(self, shape: Sequence[Any]) -> tuple[Part, ...]:
        axis = self.channel_axis(len(shape))
        width = columns(shape, axis)
        if width % BLOCK != 0:
            raise ShapeError(f"{self} has whole blocks of {BLOCK}, and a channel of {list(shape)} has {width} elements")
        values = TensorType.of(self.storage, (shape[axis], width // BLOCK, self.width))
        return Part("values", values), Part("scales", TensorType.of(f16, values.shape[:2]))

    def joined_axes(self, shapes: Sequence[Sequence[Any]], axis: int) -> tuple[int, ...] | None:
        return (0, 0) if axis == self.channel_axis(len(shapes[0])) else None

    def quantize(self, array: Array) -> tuple[Array, ...]:
        self.parts(array.shape)
        rows = as_rows(held_in(f32, array, self), self.channel_axis(array.ndim))
        return self.quantize_blocks(rows.reshape(rows.shape[0], rows.shape[1] // BLOCK, BLOCK))

    @abstractmethod
    def quantize_blocks(self, blocks: Array) -> tuple[Array, Array]:
        """Values and scales of float32 blocks [channels, blocks, 32]."""

    @abstractmethod
    def whole(self, values: Array) -> Array:
        """The integers that are multiplied by the scales, [channels, blocks, 32], as floats."""

    @abstractmethod
    def whole_recorded(self, values: Tensor, dtype: DType) -> Tensor:
        """`whole` with ops."""

    def dequantize(self, *arrays: Array, shape: Sequence[int]) -> Array:
        values, scales = arrays
        product = self.whole(values) * scales[..., None].astype(np.float64)
        flat = product.reshape(product.shape[0], prod(product.shape[1:]))
        return from_rows(flat, shape, self.channel_axis(len(shape)))

    def decompose(self, *parts: Tensor, shape: Sequence[Any], dtype: DType) -> Tensor:
        values, scales = parts
        wide = computed_in(scales, dtype)
        rows, blocks = scales.shape
        product = self.whole_recorded(values, wide) * ops.reshape(as_dtype(scales, wide), shape=(rows, blocks, 1))
        flat = ops.reshape(product, shape=(rows, blocks * BLOCK))
        return as_dtype(from_rows_recorded(flat, shape, self.channel_axis(len(shape))), dtype)

    def cotangents(self, dy: Tensor, *parts: Tensor, shape: Sequence[Any]) -> tuple[Tensor | None, ...]:
        values, scales = parts
        wide = f32 if scales.dtype == f16 else scales.dtype
        flat = rows_recorded(as_dtype(dy, wide), self.channel_axis(len(shape)))
        spread = ops.reshape(flat, shape=(*scales.shape, BLOCK))
        return None, as_dtype(ops.reduce_sum(spread * self.whole_recorded(values, wide), axes=(2,)), scales.dtype)

    def to_blocks(self, values: Array, scales: Array) -> Array:
        """The bytes of a GGUF file: u8[channels, blocks · bytes], the scale of a block before its values."""
        lead = scales.astype("<f2")[..., None].view(np.uint8)
        return np.concatenate([lead, values.view(np.uint8)], -1).reshape(values.shape[0], -1)

    def from_blocks(self, data: Array, shape: Sequence[int]) -> tuple[Array, Array]:
        """Values and scales from the bytes of a GGUF file, of a tensor of this shape. Raises `FormatError`."""
        values, scales = (part.type for part in self.parts(shape))
        size = self.width + 2
        if data.dtype != np.uint8 or data.size != prod(scales.shape) * size:
            raise FormatError(f"{self} of {list(shape)} takes {prod(scales.shape) * size} bytes, not {data.size}")
        blocks = np.ascontiguousarray(data).reshape(*scales.shape, size)
        return (
            np.ascontiguousarray(blocks[..., 2:]).view(values.dtype.numpy),
            np.ascontiguousarray(blocks[..., :2]).view("<f2")[..., 0].astype(np.float16),
        )


def _inverse(scales: Array) -> Array:
    """1 / scale; 0 where that is no finite number, of which llama.cpp leaves to the processor what byte it becomes."""
    with np.errstate(divide="ignore", over="ignore"):
        inverse = np.float32(1) / scales
    return np.where(np.isfinite(inverse), inverse, np.float32(0))


@register_format
@dataclass(frozen=True)
class Q8_0(_Gguf):
    """GGUF's Q8_0: value · scale, 32 values from −127 to 127 a block, 8.5 bits an element."""

    name: ClassVar[str] = "q8_0"
    storage: ClassVar[DType] = i8
    width: ClassVar[int] = BLOCK

    def quantize_blocks(self, blocks: Array) -> tuple[Array, Array]:
        scales = np.max(np.abs(blocks), 2, initial=0) / np.float32(127)
        scaled = blocks * _inverse(scales)[..., None]
        magnitude = np.abs(scaled)
        down = np.floor(magnitude)
        rounded = np.sign(scaled) * (down + np.floor(2 * (magnitude - down)))
        return rounded.astype(np.int8), held_in(f16, scales, self)

    def whole(self, values: Array) -> Array:
        return values.astype(np.float64)

    def whole_recorded(self, values: Tensor, dtype: DType) -> Tensor:
        return as_dtype(values, dtype)


@register_format
@dataclass(frozen=True)
class Q4_0(_Gguf):
    """GGUF's Q4_0: (value − 8) · scale, 32 values from 0 to 15 a block, 4.5 bits an element. Byte i holds element i in
    its low four bits and element i + 16 in its high ones."""

    name: ClassVar[str] = "q4_0"
    storage: ClassVar[DType] = u8
    width: ClassVar[int] = BLOCK // 2

    def quantize_blocks(self, blocks: Array) -> tuple[Array, Array]:
        places = np.argmax(np.abs(blocks), 2)[..., None] if blocks.size else np.zeros((*blocks.shape[:2], 1), np.int64)
        scales = np.take_along_axis(blocks, places, 2)[..., 0] / np.float32(-8)
        wide = blocks.astype(np.float64) * _inverse(scales)[..., None].astype(np.float64) + 8.5
        values = np.clip(np.trunc(wide.astype(np.float32)), 0, 15).astype(np.uint8)
        return values[..., :16] | (values[..., 16:] << 4), held_in(f16, scales, self)

    def whole(self, values: Array) -> Array:
        return np.concatenate([values & 15, values >> 4], -1).astype(np.float64) - 8

    def whole_recorded(self, values: Tensor, dtype: DType) -> Tensor:
        halves = ops.and_(values, np.uint8(15)), ops.shift_right(values, np.uint8(4))
        return as_dtype(ops.concat(*halves, axis=2), dtype) - 8
