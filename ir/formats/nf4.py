"""`nf4`: bitsandbytes' 4-bit normal floats, in blocks with the largest magnitude as scale.

Dettmers et al., "QLoRA: Efficient Finetuning of Quantized LLMs" (2023). Tables, rounding and packing are those of
bitsandbytes' reference (`backends/default/ops.py`, `functional.py`: `quantize_4bit` with `quant_type="nf4"`, and
`quantize_blockwise` for scales). It works on a weight [out, in]; here it is the channels, one after another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

import numpy as np

from graphc.ir import ops
from graphc.ir.dims import product
from graphc.ir.dtypes import DType, f32, i32, u8
from graphc.ir.errors import GraphcError
from graphc.ir.formats.format import Array, Format, Part, Tensor, held_in, register_format
from graphc.ir.formats.shapes import (
    as_dtype,
    as_rows,
    columns,
    computed_in,
    from_rows,
    from_rows_recorded,
    rows_recorded,
    unpacked_recorded,
)
from graphc.ir.types import TensorType

TABLE = np.array(
    [
        -1.0,
        -0.6961928009986877,
        -0.5250730514526367,
        -0.39491748809814453,
        -0.28444138169288635,
        -0.18477343022823334,
        -0.09105003625154495,
        0.0,
        0.07958029955625534,
        0.16093020141124725,
        0.24611230194568634,
        0.33791524171829224,
        0.44070982933044434,
        0.5626170039176941,
        0.7229568362236023,
        1.0,
    ],
    np.float32,
)
"""What the 16 values stand for: quantiles of the normal distribution, 0 and both ends among them."""

SMALLEST, LARGEST = 16, 1 << 16
"""The sizes of blocks: a tensor is filled up to whole ones, so that a file that says more would take memory."""
PIECE = 64
"""So many elements of a table are written into one constant."""


@cache
def dynamic_map() -> Array:
    """bitsandbytes' signed 8-bit map (`create_dynamic_map`): seven decades below 1, each with twice as many values as
    the one below, in float32 [256]."""
    found = [np.float32(0), np.float32(1)]
    for decade in range(7):
        count = 2**decade + 1
        # As torch.linspace has it: from both ends, product and sum rounded once, which float64 is wide enough for.
        first, step = float(np.float32(0.1)), float((np.float32(1) - np.float32(0.1)) / np.float32(count - 1))
        half = count // 2
        places = [first + step * i if i < half else 1 - step * (count - 1 - i) for i in range(count)]
        bounds = np.array(places, np.float32)
        means = np.float32(10.0 ** (decade - 6)) * ((bounds[:-1] + bounds[1:]) / np.float32(2))
        found += [*means, *-means]
    return np.sort(np.array(found, np.float32))


def nearest_of(table: Array, x: Array) -> Array:
    """The places of the nearest elements of an ascending table, the lower one of two, as u8; differences in float32."""
    above = np.clip(np.searchsorted(table, x), 1, len(table) - 1)
    lower = (x - table[above - 1]) <= (table[above] - x)
    return (above - lower).astype(np.uint8)


def blocks_of(flat: Array, block: int) -> Array:
    """The elements [blocks, block], zeros behind."""
    return np.pad(flat, (0, -flat.size % block)).reshape(-1, block)


def scaled_blocks(flat: Array, block: int) -> tuple[Array, Array]:
    """Each block divided by its largest magnitude, and these, in float32: through the reciprocal, as bitsandbytes
    does. A block of zeros, of which that makes NaN, stays as it is."""
    blocks = blocks_of(flat, block)
    largest = np.max(np.abs(blocks), 1, initial=0)
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        scaled = np.clip(blocks * (np.float32(1) / largest)[:, None], -1, 1)
    return np.where(np.isnan(scaled), np.float32(0), scaled).reshape(-1)[: flat.size], largest


@register_format
@dataclass(frozen=True)
class NF4(Format):
    """table[value] · scale in blocks of `block` elements, the channels one after another; the last may be shorter.

    Values are two a byte, the first of a pair in the high four bits, u8[⌈n / 2⌉]; scales are f32[blocks]. With `double`
    the scales are quantized too: less their mean, in blocks of `double`, by an 8-bit map, u8[blocks], with a scale
    f32[⌈blocks / double⌉] and the mean f32[]. bitsandbytes has 64 and 256.

    The mean is rounded from float64, where bitsandbytes adds in float32 in an order of its own. What was dequantized
    quantizes to the same arrays without `double`.
    """

    name: ClassVar[str] = "nf4"

    block: int = 64
    double: int = 0

    def __post_init__(self) -> None:
        for size in (self.block, self.double or SMALLEST):
            if not SMALLEST <= size <= LARGEST or size & (size - 1):
                raise GraphcError(f"{self}: a block is a power of two from {SMALLEST} to {LARGEST}, not {size}")

    @property
    def has_rows(self) -> bool:
        return False

    def parts(self, shape: Sequence[Any]) -> tuple[Part, ...]:
        axis = self.channel_axis(len(shape))
        count = shape[axis] * columns(shape, axis)
        blocks = -(-count // self.block)
        values = Part("values", TensorType.of(u8, (-(-count // 2),)))
        if not self.double:
            return values, Part("scales", TensorType.of(f32, (blocks,)))
        return (
            values,
            Part("scales", TensorType.of(u8, (blocks,))),
            Part("scales_of_scales", TensorType.of(f32, (-(-blocks // self.double),))),
            Part("mean_scale", TensorType.of(f32, ())),
        )

    def joined_axes(self, shapes: Sequence[Sequence[Any]], axis: int) -> tuple[int, ...] | None:
        """Scales that are quantized have one mean for all, which those of other tensors do not share; and a block has
        no elements of two tensors."""
        if self.double or axis != self.channel_axis(len(shapes[0])):
            return None
        whole = all(product(shape) % self.block == 0 for shape in shapes[:-1])
        return (0, 0) if whole else None

    def quantize(self, array: Array) -> tuple[Array, ...]:
        rows = as_rows(held_in(f32, array, self), self.channel_axis(array.ndim))
        scaled, largest = scaled_blocks(rows.reshape(-1), self.block)
        indices = np.pad(nearest_of(TABLE, scaled), (0, scaled.size % 2), constant_values=7)
        values = (indices[0::2] << 4) | indices[1::2]
        if not self.double:
            return values, largest
        mean = np.array(largest.mean(dtype=np.float64) if largest.size else 0, np.float32)
        found, scales = scaled_blocks(largest - mean, self.double)
        return values, nearest_of(dynamic_map(), found), scales, mean

    def _scales(self, scales: Array, *second: Array) -> Array:
        """The largest magnitude of each block, in the precision of what is given."""
        if not second:
            return scales
        largest, mean = second
        found = blocks_of(dynamic_map()[scales].astype(mean.dtype), self.double) * largest[:, None]
        return found.reshape(-1)[: scales.size] + mean

    def dequantize(self, *arrays: Array, shape: Sequence[int]) -> Array:
        values, *scales = arrays
        axis = self.channel_axis(len(shape))
        count = shape[axis] * columns(shape, axis)
        table = TABLE.astype(np.float64)[np.stack([values >> 4, values & 15], -1).reshape(-1)[:count]]
        flat = blocks_of(table, self.block) * self._scales(*scales)[:, None].astype(np.float64)
        return from_rows(flat.reshape(-1)[:count].reshape(shape[axis], -1 if count else 0), shape, axis)

    def decompose(self, *parts: Tensor, shape: Sequence[Any], dtype: DType) -> Tensor:
        values, *scales = parts
        axis = self.channel_axis(len(shape))
        count = shape[axis] * columns(shape, axis)
        wide = computed_in(scales[-1], dtype)
        found = as_dtype(_scales_recorded(self, scales[0], *(as_dtype(x, wide) for x in scales[1:])), wide)
        product = _in_blocks(self._looked_up(values, count, wide), self.block) * ops.reshape(
            found, shape=(*found.shape, 1)
        )
        flat = _first(ops.reshape(product, shape=(found.shape[0] * self.block,)), count)
        rows = ops.reshape(flat, shape=(shape[axis], columns(shape, axis)))
        return as_dtype(from_rows_recorded(rows, shape, axis), dtype)

    def cotangents(self, dy: Tensor, *parts: Tensor, shape: Sequence[Any]) -> tuple[Tensor | None, ...]:
        values, *scales = parts
        if self.double:
            return None, None, None, None
        axis = self.channel_axis(len(shape))
        count = shape[axis] * columns(shape, axis)
        wide = scales[0].dtype
        rows = rows_recorded(as_dtype(dy, wide), axis)
        product = ops.reshape(rows, shape=(count,)) * self._looked_up(values, count, wide)
        return None, ops.reduce_sum(_in_blocks(product, self.block), axes=(1,))

    def _looked_up(self, values: Tensor, count: Any, dtype: DType) -> Tensor:
        """The table's elements [count]."""
        indices = _first(unpacked_recorded(values, high_first=True), count)
        return as_dtype(ops.gather(TABLE, as_dtype(indices, i32), axis=0), dtype)


def _scales_recorded(form: NF4, scales: Tensor, *second: Tensor) -> Tensor:
    if not second:
        return scales
    largest, mean = second
    pieces = [dynamic_map()[start : start + PIECE] for start in range(0, 256, PIECE)]
    found = as_dtype(ops.gather(ops.concat(*pieces, axis=0), as_dtype(scales, i32), axis=0), mean.dtype)
    product = _in_blocks(found, form.double) * ops.reshape(largest, shape=(*largest.shape, 1))
    flat = _first(ops.reshape(product, shape=(largest.shape[0] * form.double,)), scales.shape[0])
    return flat + mean


def _in_blocks(flat: Tensor, block: int) -> Tensor:
    """`blocks_of` with ops."""
    rest = -flat.shape[0] % block
    full = ops.pad(flat, padding=((0, rest),)) if rest else flat
    return ops.reshape(full, shape=(full.shape[0] // block, block))


def _first(flat: Tensor, count: Any) -> Tensor:
    return flat if flat.shape[0] == count else ops.slice(flat, starts=(0,), limits=(count,))
