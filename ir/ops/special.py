"""Special functions that decompose into elementary ones."""

from __future__ import annotations

import math

import numpy as np
from scipy import special

from graphc.ir import ops
from graphc.ir.dtypes import FLOATS
from graphc.ir.opdef import Draw, Tensor, composite

SERIES = (1 / 6, -1 / 30, 1 / 42, -1 / 30, 5 / 66, -691 / 2730)
"""The Bernoulli numbers B₂, B₄, …"""


@composite(dtypes=FLOATS)
def trigamma(x: Tensor) -> Tensor:
    """Derivative of digamma.

    By its recurrence up to where the asymptotic series holds, and by reflection below ½ (Abramowitz and Stegun,
    "Handbook of Mathematical Functions", 6.4.6, 6.4.7 and 6.4.12). Its own gradients are those of this decomposition.
    """
    below = x < 0.5
    z = ops.select(below, 1 - x, x)
    total = 1 / ops.square(z)
    for i in range(1, 10):
        total = total + 1 / ops.square(z + i)
    inverse = 1 / (z + 10)
    squared = ops.square(inverse)
    series = squared * SERIES[-1]
    for coefficient in reversed(SERIES[:-1]):
        series = (series + coefficient) * squared
    found = total + (series + 1) * inverse + squared * 0.5
    rest = ops.select(below, x - ops.round_even(x), 0.25)  # whatever, but no pole, where it is not chosen
    return ops.select(below, math.pi**2 / ops.square(ops.sin(rest * math.pi)) - found, found)


@trigamma.reference
def _(x):
    below = x < 0.5
    found = special.zeta(2, np.where(below, 1 - x, x))
    return np.where(below, (np.pi / np.sin(np.pi * (x - np.rint(x)))) ** 2 - found, found)


trigamma.sample(Draw((2, 3), 0.2, 5))
trigamma.sample(Draw((), 0.2, 5))
trigamma.sample(Draw((4, 0), 0.2, 5))
trigamma.sample(Draw((3,), -2.8, -2.2))

__all__ = ["trigamma"]
