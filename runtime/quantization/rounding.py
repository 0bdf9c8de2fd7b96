"""Scales by search, and what a matrix becomes in the values of a format: the common part of GPTQ and AWQ.

Matrices here have a row for each channel, float64.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphc.ir.dtypes import DType, f32
from graphc.ir.errors import UnsupportedError
from graphc.ir.formats import AWQ, BlockFormat, Format, Int8
from graphc.ir.formats.format import rounded_scales
from graphc.ir.formats.shapes import from_rows

Array = np.ndarray[Any, Any]

FACTORS = np.linspace(0.4, 1.05, 27)
"""By how much a block's range is narrowed: what is clipped costs less than coarser steps, up to a point."""


@dataclass(frozen=True)
class Grid:
    """The values of a format: (integer − zero point) · scale, the integers from `low` to `high`, in blocks."""

    block: int
    low: int
    high: int
    asymmetric: bool
    dtype: DType

    @classmethod
    def of(cls, form: Format, width: int) -> Grid:
        """The grid of a format for channels of `width` elements. Raises `UnsupportedError` for one that has none."""
        if isinstance(form, BlockFormat):
            low, high = (0, form.most) if form.asymmetric else (-form.middle, form.most - form.middle)
            return cls(form.block or max(width, 1), low, high, form.asymmetric, form.scales)
        if isinstance(form, Int8) and not form.tensor:
            return cls(max(width, 1), *form.limits, form.asymmetric, f32)
        raise UnsupportedError(
            f"GPTQ and AWQ find integers in int3, int4 or int8 with a scale for each channel, not {form}"
            + ("; method='awq' makes that of int3 and int4 where factors are kept" if isinstance(form, AWQ) else "")
        )

    def slices(self, width: int) -> list[slice]:
        """The columns of each block."""
        return [slice(start, min(start + self.block, width)) for start in range(0, width, self.block)]

    def fitted(self, w: Array, importance: Array, search: bool = True) -> tuple[Array, Array]:
        """The scale and zero point of each row of a block [rows, k], float64: those with the least squared error,
        weighted by `importance` [k], of the ranges in `FACTORS`; without a search, those of rounding to nearest."""
        best = np.full(len(w), np.inf)
        scales, zeros = np.ones(len(w)), np.zeros(len(w))
        for scale, zero in self._candidates(w, search):
            error = np.square(self.rounded(w, scale[:, None], zero[:, None]) - w) @ importance
            better = error < best
            best = np.where(better, error, best)
            scales, zeros = np.where(better, scale, scales), np.where(better, zero, zeros)
        return scales, zeros

    def _candidates(self, w: Array, search: bool) -> list[tuple[Array, Array]]:
        factors = FACTORS if search else np.ones(1)
        least, most = np.min(w, 1, initial=0), np.max(w, 1, initial=0)
        if self.asymmetric:
            steps = self.high - self.low
            found: list[tuple[Array, Array]] = []
            for factor in factors:
                scale = self.stored((most - least) * factor / steps)
                found.append((scale, np.clip(np.rint(self.low - least * factor / scale), self.low, self.high)))
            return found
        largest = np.maximum(-least, most)
        zero = np.zeros(len(w))
        if not search or self.low + self.high == 0:
            return [(self.stored(largest * factor / self.high), zero) for factor in factors]
        whole = [self.stored(largest * factor / (self.high + 0.5)) for factor in factors]
        return [(sign * scale, zero) for scale in whole for sign in (1, -1)]  # one end has a value more

    def stored(self, scales: Array) -> Array:
        """Scales above 0 as they are stored, in float64."""
        return rounded_scales(scales, 1, self.dtype, "a scale").astype(np.float64)

    def integers(self, w: Array, scale: Array, zero: Array) -> Array:
        """The nearest integers, zero points taken off."""
        return np.clip(np.rint(w / scale), self.low - zero, self.high - zero)

    def rounded(self, w: Array, scale: Array, zero: Array) -> Array:
        """The nearest values there are."""
        return self.integers(w, scale, zero) * scale


@dataclass
class Rounded:
    """A matrix in the values of a grid, with the scales and zero points [rows, blocks] of these."""

    values: Array
    scales: Array
    zeros: Array

    def arrays(self, form: Format, shape: Sequence[int]) -> tuple[Array, ...]:
        """The arrays of the format for a tensor of this shape."""
        tensor = from_rows(self.values, shape, form.channel_axis(len(shape)))
        if isinstance(form, BlockFormat):
            zeros = self.zeros.astype(np.uint8) if form.asymmetric else None
            return form.with_scales(tensor, self.scales.astype(form.scales.numpy), zeros)
        assert isinstance(form, Int8)
        zeros = self.zeros[:, 0].astype(form.storage.numpy) if form.asymmetric else None
        return form.with_scales(tensor, self.scales[:, 0].astype(np.float32), zeros)


def nearest_values(w: Array, grid: Grid, importance: Array, search: bool = True) -> Rounded:
    """Each element rounded to nearest, after the scales of each block were found."""
    values = np.zeros_like(w)
    fits: list[tuple[Array, Array]] = []
    for columns in grid.slices(w.shape[1]):
        scale, zero = grid.fitted(w[:, columns], importance[columns], search)
        values[:, columns] = grid.rounded(w[:, columns], scale[:, None], zero[:, None])
        fits.append((scale, zero))
    scales, zeros = (np.stack([fit[i] for fit in fits], 1) for i in (0, 1))
    return Rounded(values, scales, zeros)


def output_error(change: Array, second: Array) -> float:
    """tr(D·H·Dᵀ): the squared error in the outputs, summed over the data."""
    return float(np.sum((change @ second) * change))


__all__ = ["FACTORS", "Grid", "Rounded", "nearest_values", "output_error"]
