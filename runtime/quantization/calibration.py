"""From observed values to a range: all of them, all but the rarest, or the range that loses least.

- `minmax`: from the least to the greatest value.
- `percentile`: the middle 99.99 % (or another share) of the values.
- `entropy`: the range whose 256 steps keep most of the distribution, by the divergence of Kullback and Leibler:
  Migacz, "8-bit inference with TensorRT" (2017).
- `mse`: the range with the least mean squared error of rounding and clipping.

All but the first look at a histogram, made in a second run over the data between the least and the greatest value.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from graphc.ir.errors import GraphcError
from graphc.ir.graph import Function, Value
from graphc.ir.module import Module
from graphc.ir.suggestions import nearest
from graphc.passes.quantization.activations import Range
from graphc.runtime.quantization.observing import Batch, observed

Array = np.ndarray[Any, Any]
Method = Literal["minmax", "percentile", "entropy", "mse"]
Choose = Callable[[Function], Mapping[str, Value]]

BINS = 2048
LEVELS = 255
PERCENTILE = 99.99


@dataclass(slots=True)
class Histogram:
    """How many values fell into each of `BINS` equal bins between `low` and `high`."""

    low: float
    high: float
    counts: Array

    @property
    def has_bins(self) -> bool:
        """Whether there are so many numbers between the ends that bins have a width."""
        width = (self.high - self.low) / len(self.counts)
        return np.isfinite(width) and self.low + width > self.low and self.high - width < self.high

    @property
    def edges(self) -> Array:
        return np.linspace(self.low, self.high, len(self.counts) + 1)

    @property
    def centres(self) -> Array:
        return (self.edges[:-1] + self.edges[1:]) / 2


def calibrated(
    module: Module, choose: Choose, data: list[Batch], method: Method = "minmax", percentile: float = PERCENTILE
) -> dict[str, Range]:
    """The range of each value that `choose` names, by what it is on the data. Raises `GraphcError` for no such method
    or percentile, and for values that are not finite."""
    if method not in get_args(Method):
        raise GraphcError(f"there is no calibration by {method!r}{nearest(method, get_args(Method))}")
    if not 50 < percentile <= 100:
        raise GraphcError(f"a percentile is above 50 and at most 100, not {percentile}")
    limits = _limits(module, choose, data)
    if method == "minmax":
        return limits
    found = {name: Histogram(low, high, np.zeros(BINS, np.int64)) for name, (low, high) in limits.items()}
    for values in observed(module, choose, data):
        for name, value in values.items():
            each = found[name]
            if each.has_bins:  # in float64, where a few steps of float32 can be divided into bins
                each.counts += np.histogram(value.astype(np.float64), BINS, (each.low, each.high))[0]
    finders: dict[str, Callable[[Histogram], Range]] = {
        "percentile": lambda each: by_percentile(each, percentile),
        "entropy": by_entropy,
        "mse": by_error,
    }
    return {name: finders[method](each) if each.has_bins else limits[name] for name, each in found.items()}


def _limits(module: Module, choose: Choose, data: list[Batch]) -> dict[str, Range]:
    found: dict[str, Range] = {}
    for values in observed(module, choose, data):
        for name, value in values.items():
            low, high = found.get(name, (np.inf, -np.inf))
            found[name] = min(low, float(value.min())), max(high, float(value.max()))
    return found


def by_percentile(histogram: Histogram, percentile: float) -> Range:
    """The range that leaves out (100 − percentile) / 2 per cent at each end; at an end where all values are of one
    sign, as behind a rectifier, nothing lies beyond 0 anyway."""
    share = (100 - percentile) / 200
    cumulative = np.cumsum(histogram.counts) / histogram.counts.sum()
    low = int(np.searchsorted(cumulative, share, side="right"))
    high = int(np.searchsorted(cumulative, 1 - share, side="left"))
    edges = histogram.edges
    return float(edges[min(low, BINS - 1)]), float(edges[min(high, BINS - 1) + 1])


def _candidates(histogram: Histogram, steps: int = 100) -> list[Range]:
    """Ranges that clip magnitudes beyond a hundredth, two hundredths, … of the largest, up to all of the range."""
    largest = max(abs(histogram.low), abs(histogram.high))
    limits = [largest * i / steps for i in range(1, steps + 1)]
    return [(max(histogram.low, -limit), min(histogram.high, limit)) for limit in limits]


def _quantized(values: Array, low: float, high: float) -> Array:
    """Values rounded and clipped as `uint8` with this range does."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = (high - low) / LEVELS or 1.0
    zero = np.rint(-low / scale)
    return (np.clip(np.rint(values / scale) + zero, 0, LEVELS) - zero) * scale


def by_error(histogram: Histogram) -> Range:
    """The range with the least mean squared error."""
    centres = histogram.centres
    errors = [
        float(np.sum(histogram.counts * np.square(_quantized(centres, *each) - centres)))
        for each in _candidates(histogram)
    ]
    return _candidates(histogram)[int(np.argmin(errors))]


def by_entropy(histogram: Histogram) -> Range:
    """The range in which the values' distribution, those beyond it counted at its ends, is most like what is left of
    it in 256 levels.

    The bin of 0 counts as its neighbour does: behind a rectifier it holds half of all values, and hides the others.
    """
    counts, edges = histogram.counts.astype(np.float64), histogram.edges
    zero = int(np.searchsorted(edges, 0, side="right")) - 1
    if 0 <= zero < BINS:
        counts[zero] = counts[min(zero + 1, BINS - 1)]
    best, least = (histogram.low, histogram.high), np.inf
    for low, high in _candidates(histogram):
        first = max(int(np.searchsorted(edges, low, side="right")) - 1, 0)
        last = min(int(np.searchsorted(edges, high, side="left")), BINS)
        if last - first < LEVELS + 1:
            continue
        inside = counts[first:last]
        reference = inside.copy()
        reference[0] += counts[:first].sum()
        reference[-1] += counts[last:].sum()
        divergence = _divergence(reference, _in_levels(inside))
        if divergence <= least:
            best, least = (float(edges[first]), float(edges[last])), divergence
    return best


def _in_levels(counts: Array) -> Array:
    """The counts in 256 levels, each spread evenly over those of its bins that have any."""
    level = np.arange(len(counts)) * (LEVELS + 1) // len(counts)
    filled = counts > 0
    totals = np.bincount(level, counts, LEVELS + 1)
    places = np.bincount(level, filled, LEVELS + 1)
    return np.where(filled, (totals / np.maximum(places, 1))[level], 0)


def _divergence(p: Array, q: Array, smallest: float = 1e-4) -> float:
    """Σ p·log(p / q) of both as distributions; where q has nothing, a little is put."""
    p, q = p / p.sum(), q / max(q.sum(), 1)
    held = p > 0
    return float(np.sum(p[held] * np.log(p[held] / np.maximum(q[held], smallest / len(q)))))


__all__ = ["Histogram", "Method", "by_entropy", "by_error", "by_percentile", "calibrated"]
