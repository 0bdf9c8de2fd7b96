"""`awq`: few bits an element in blocks, and a factor for each element of a channel that all channels share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from graphc.ir import ops
from graphc.ir.dtypes import DType, f16
from graphc.ir.errors import GraphcError
from graphc.ir.formats.blocks import BlockFormat, Int3, Int4
from graphc.ir.formats.format import Array, Format, Part, Tensor, finite, register_format
from graphc.ir.formats.shapes import as_dtype, columns, computed_in
from graphc.ir.types import TensorType

_BASES: dict[int, type[BlockFormat]] = {3: Int3, 4: Int4}


@register_format
@dataclass(frozen=True)
class AWQ(Format):
    """What `int4` or `int3` (by `bits`) with these options holds, each input of a channel times its own factor.

    Inputs that matter are stored larger, and so more exactly, and their factor is smaller: Lin et al., "AWQ:
    Activation-aware Weight Quantization for LLM Compression and Acceleration" (2024). The factors, f16[n], come last;
    of `quantize` they are 1. Where all readers allow it, they are better folded into what comes before.
    """

    name: ClassVar[str] = "awq"

    bits: int = 4
    block: int | None = 32
    asymmetric: bool = False
    scales: DType = f16

    def __post_init__(self) -> None:
        if self.bits not in _BASES:
            raise GraphcError(f"awq has 3 or 4 bits, not {self.bits}")
        _ = self.base

    @property
    def base(self) -> BlockFormat:
        """The format of what the factors are multiplied with."""
        return _BASES[self.bits](axis=self.axis, block=self.block, asymmetric=self.asymmetric, scales=self.scales)

    @classmethod
    def of(cls, base: BlockFormat) -> AWQ:
        """The format with factors besides a format's own parts."""
        return cls(base.axis, base.bits, base.block, base.asymmetric, base.scales)

    @property
    def has_rows(self) -> bool:
        return False

    def parts(self, shape: Sequence[Any]) -> tuple[Part, ...]:
        width = columns(shape, self.channel_axis(len(shape)))
        return *self.base.parts(shape), Part("factors", TensorType.of(f16, (width,)))

    def quantize(self, array: Array) -> tuple[Array, ...]:
        width = columns(array.shape, self.channel_axis(array.ndim))
        return *self.base.quantize(finite(array, self)), np.ones(int(width), np.float16)

    def dequantize(self, *arrays: Array, shape: Sequence[int]) -> Array:
        factors = arrays[-1].astype(np.float64).reshape(self._spread(shape))
        return self.base.dequantize(*arrays[:-1], shape=shape) * factors

    def decompose(self, *parts: Tensor, shape: Sequence[Any], dtype: DType) -> Tensor:
        wide = computed_in(parts[1], dtype)
        return as_dtype(self._base(parts, shape, wide) * self._factors(parts, shape, wide), dtype)

    def cotangents(self, dy: Tensor, *parts: Tensor, shape: Sequence[Any]) -> tuple[Tensor | None, ...]:
        wide = computed_in(parts[1], dy.dtype)
        inner = as_dtype(dy, wide) * self._factors(parts, shape, wide)
        found = self.base.cotangents(inner, *parts[:-1], shape=shape)
        axis = self.channel_axis(len(shape))
        product = as_dtype(dy, wide) * self._base(parts, shape, wide)
        return *found, as_dtype(ops.reshape(ops.reduce_sum(product, axes=(axis,)), shape=parts[-1].shape), f16)

    def _base(self, parts: Sequence[Tensor], shape: Sequence[Any], dtype: DType) -> Tensor:
        return self.base.decompose(*parts[:-1], shape=shape, dtype=dtype)

    def _factors(self, parts: Sequence[Tensor], shape: Sequence[Any], dtype: DType) -> Tensor:
        """The factors as they broadcast with the tensor."""
        return ops.reshape(as_dtype(parts[-1], dtype), shape=self._spread(shape))

    def _spread(self, shape: Sequence[Any]) -> tuple[Any, ...]:
        """The tensor's shape with one channel."""
        axis = self.channel_axis(len(shape))
        return tuple(1 if i == axis else size for i, size in enumerate(shape))
