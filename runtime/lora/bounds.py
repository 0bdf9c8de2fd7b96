"""Merging an adapter into an array, and how far from the exact result rounding can have taken it.

The exact result is `M = W + s·A·B` of the numbers that are stored, with DoRA `M·m/n`, where n are the norms of the
columns of M. It is computed in float64 (unit roundoff u = 2⁻⁵³, least number η = 2⁻¹⁰⁷⁴) and cast to the dtype of W.
With γ(k) = k·u / (1 − k·u) (Higham, "Accuracy and Stability of Numerical Algorithms", 2nd edition, 2002, lemma 3.1) and
|·| taken of each element:

1. The product, in whatever order it is summed, with or without fused multiplication (Higham, equation 3.13, and section
   2.1 for underflow): |fl(A·B) − A·B| ≤ γ(r)·|A|·|B| + r·η.
2. Times s: one more rounding, at most u·|s|·|fl(A·B)| + η. Both together are at most
   γ(r + 1)·|s|·|A|·|B| + ((r + 1)·|s| + 1)·η.
3. The sum with W: at most u·|W + fl(s·A·B)|; a sum does not underflow. So the error before the cast is
   e = (γ(r + 1)·|s|·|A|·|B| + ((r + 1)·|s| + 1)·η)·(1 + u) + u·(|W| + |s|·|A|·|B|).
4. DoRA. Norms of columns of k numbers are computed from a column divided by a power of two, so that squares neither
   overflow nor vanish beside others: |fl(n) − n| ≤ ‖e‖ + γ(k + 4)·(n + ‖e‖), the first by the triangle inequality, the
   second since a sum of squares has the relative error γ(k + 1) and a root halves it. With ρ = |fl(n) − n| / n < 1 the
   factor g = m/n has a relative error of at most t = (ρ + u) / (1 − ρ), and the product
   e' = e·|g|·(1 + t) + |M|·|g|·t + u·(|M| + e)·|g|·(1 + t) + 2·η.
5. The cast rounds once, to 16 bits twice, by way of float32: |cast(x) − x| ≤ c·|x| + d, where c and d are unit roundoff
   and half the least number of the dtype, and of float32 besides where there are two.

6. Where the merged weight is quantized again, what that changes of each element, which is a difference of numbers that
   are there, is added.

What is computed of these in float64 has itself a relative error below γ(r + k + 16), for which it is enlarged.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphc.ir.dtypes import dtype as dtype_of
from graphc.ir.errors import DTypeError, GraphcError

Array = np.ndarray[Any, Any]

U = 2.0**-53
ETA = 2.0**-1074
OUTPUTS = 64
"""At so many outputs at most the error is measured."""

ROUNDOFF = {"float64": (0.0, 0.0), "float32": (2.0**-24, 2.0**-150)}
ROUNDOFF |= {"bfloat16": (2.0**-8 + 2.0**-23, 2.0**-133), "float16": (2.0**-11 + 2.0**-23, 2.0**-24)}
"""What a cast from float64 costs: relative, and absolute where numbers are subnormal."""


@dataclass(frozen=True)
class Merged:
    """A merged array, the bound of its largest error, and what that is found to be at so many of its outputs."""

    array: Array
    bound: float
    measured: float
    outputs: int


def gamma(k: int) -> float:
    """Higham's γ for k roundings in float64."""
    return k * U / (1 - k * U)


def merge(
    kernel: Array,
    a: Array,
    b: Array,
    scaling: float,
    dtype: Any,
    magnitude: Array | None = None,
    what: str = "weight",
    stored: Callable[[Array], Array] | None = None,
) -> Merged:
    """`kernel + scaling · a·b` of [..., out], [..., r] and [r, out] in this dtype, and its error; with a `magnitude`
    DoRA's. `stored` gives what becomes of the result where it is stored, of the same shape and dtype. See the module's
    docstring for the bound.

    Raises `GraphcError` where the result is too large for the dtype or not finite, `DTypeError` for a dtype that is not
    one of `ROUNDOFF`.
    """
    name = str(dtype_of(dtype))
    if name not in ROUNDOFF:
        raise DTypeError(f"{what} is {name}; an adapter is merged into {', '.join(ROUNDOFF)}")
    shape, out = kernel.shape, kernel.shape[-1]
    w, x, y = (np.asarray(each, np.float64) for each in (kernel.reshape(-1, out), a.reshape(-1, a.shape[-1]), b))
    m = None if magnitude is None else np.asarray(magnitude, np.float64)
    with np.errstate(all="ignore"):
        merged = w + scaling * (x @ y)
        error = _error_of_sum(w, x, y, scaling)
        if m is not None:
            merged, error = _scaled(merged, error, m, what)
        array = _cast(merged, name)
        relative, absolute = ROUNDOFF[name]
        error = error + relative * (np.abs(merged) + error) + absolute
        if stored is not None:
            before, array = array, stored(array.reshape(shape)).reshape(w.shape)
            error = error + np.abs(array.astype(np.float64) - before.astype(np.float64))
        error = error * (1 + 4 * gamma(x.shape[1] + len(w) + 16)) + ETA
    if not np.isfinite(np.asarray(array, np.float64)).all():
        raise GraphcError(
            f"{what} with its adapter has numbers up to {float(np.abs(merged).max()):.3g}, which {name} does not hold"
        )
    measured, outputs = _measured(array.reshape(w.shape), w, x, y, scaling, m)
    return Merged(array.reshape(shape), float(error.max(initial=0.0)), measured, outputs)


def _error_of_sum(w: Array, x: Array, y: Array, scaling: float) -> Array:
    """Steps 1 to 3."""
    rank, s = x.shape[1], abs(scaling)
    products = s * (np.abs(x) @ np.abs(y))
    before = gamma(rank + 1) * products + ((rank + 1) * s + 1) * ETA
    return before * (1 + U) + U * (np.abs(w) + products)


def _scaled(merged: Array, error: Array, magnitude: Array, what: str) -> tuple[Array, Array]:
    """Step 4: DoRA's result and its error before the cast."""
    norm = _norms(merged)
    if not norm.all():
        raise GraphcError(
            f"{what} with its adapter has only zeros for output {int(np.flatnonzero(norm == 0)[0])}: its norm, by "
            "which DoRA divides, is 0"
        )
    off = _norms(error)
    rounding = gamma(len(merged) + 4)
    rho = (off + rounding * (norm + off)) / (norm - off)
    rho = np.where((rho >= 0) & (rho < 1), rho, np.inf)
    t = np.where(np.isfinite(rho), (rho + U) / (1 - rho), np.inf)
    gain = magnitude / norm
    g = np.abs(gain) * (1 + t)
    size = np.abs(merged)
    return merged * gain, error * g + (size + error) * g * t + U * (size + error) * g + 2 * ETA


def _norms(x: Array) -> Array:
    """The norms of columns, which are first divided by a power of two near their largest number."""
    largest = np.abs(x).max(axis=0, initial=0.0)
    exponent = np.frexp(np.where(largest > 0, largest, 1.0))[1]
    return np.ldexp(np.sqrt((np.ldexp(x, -exponent) ** 2).sum(0)), exponent)


def _cast(x: Array, name: str) -> Array:
    kind = dtype_of(name).numpy
    return x.astype(kind) if name in ("float32", "float64") else x.astype(np.float32).astype(kind)


def _measured(array: Array, w: Array, x: Array, y: Array, scaling: float, magnitude: Array | None) -> tuple[float, int]:
    """The largest error at some outputs, beside a result in NumPy's widest float, and how many outputs these are."""
    count = w.shape[1]
    if not w.size:
        return 0.0, 0
    at = np.unique(np.linspace(0, count - 1, min(count, OUTPUTS)).astype(int))
    w, x, y, scale = w[:, at].astype(np.longdouble), x.astype(np.longdouble), y[:, at], np.longdouble(scaling)
    exact = w + scale * (x @ y.astype(np.longdouble))
    if magnitude is not None:
        exact = exact * (magnitude[at].astype(np.longdouble) / np.sqrt((exact * exact).sum(0)))
    stored = array[:, at].astype(np.float64).astype(np.longdouble)
    return float(np.abs(stored - exact).max()), len(at)


__all__ = ["ROUNDOFF", "Merged", "gamma", "merge"]
