"""GPTQ: columns are rounded one after another, and what follows makes up for the error so far.

Frantar et al., "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers" (2023). With
`sweeps` each column is rounded again as all others are now, and scales are fitted to what came out: Behdin et al.,
"QuantEase: Optimization-based Quantization for Language Models" (2023), whose steps never raise the error.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.linalg import cholesky, solve_triangular

from graphc.runtime.quantization.rounding import Grid, Rounded

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class GPTQ:
    """How it is done.

    `damping`: the part of the mean of H's diagonal that is added to it; `act_order`: columns with the largest inputs
    first, the scales of blocks found before; `search`: ranges of blocks may be narrowed; `sweeps`: how often all
    columns are rounded again; `lazy`: columns after which errors are passed on to the far ones.
    """

    damping: float = 0.01
    act_order: bool = False
    search: bool = True
    sweeps: int = 0
    lazy: int = 128


def damped(second: Array, damping: float) -> Array:
    """H with something on its diagonal, so that it can be inverted; inputs that were always 0 count as little."""
    diagonal = np.diag(second)
    mean = float(np.mean(diagonal)) or 1.0
    return second + np.diag(np.where(diagonal == 0, mean, 0) * 1e-3 + max(damping, 1e-8) * mean)


def gptq(w: Array, second: Array, grid: Grid, options: GPTQ) -> Rounded:
    """A matrix [rows, n] in the values of a grid, given Σ x·xᵀ [n, n] of its inputs. O(rows · n² + n³)."""
    width = w.shape[1]
    h = damped(second, options.damping)
    importance = np.diag(h)
    order = np.argsort(-importance, kind="stable") if options.act_order else np.arange(width)
    blocks = grid.slices(width)
    block_of = np.arange(width) // grid.block
    fits: list[tuple[Array, Array] | None] = [None] * len(blocks)
    if options.act_order:
        fits = [grid.fitted(w[:, columns], importance[columns], options.search) for columns in blocks]
    factor = _upper(h[np.ix_(order, order)])
    left = w[:, order].astype(np.float64)
    values = np.zeros_like(left)
    for start in range(0, width, options.lazy):
        stop = min(start + options.lazy, width)
        errors = np.zeros((len(left), stop - start))
        for i in range(start, stop):
            block = block_of[order[i]]
            fit = fits[block]
            if fit is None:  # in order, so that the block begins here
                end = blocks[block].stop
                now = left[:, i:end].copy()
                if end > stop:  # what is far was not told of the errors of this round yet
                    now[:, stop - i :] -= errors[:, : i - start] @ factor[start:i, stop:end]
                fit = fits[block] = grid.fitted(now, importance[blocks[block]], options.search)
            values[:, i] = grid.rounded(left[:, i], *fit)
            error = (left[:, i] - values[:, i]) / factor[i, i]
            left[:, i:stop] -= error[:, None] * factor[i, i:stop]
            errors[:, i - start] = error
        left[:, stop:] -= errors @ factor[start:stop, stop:]
    back = np.empty_like(order)
    back[order] = np.arange(width)
    scales, zeros = (np.stack([fit[at] for fit in fits if fit is not None], 1) for at in (0, 1))
    found = Rounded(values[:, back], scales, zeros)
    for _ in range(options.sweeps):
        _sweep(w, h, grid, found)
        _fit_scales(w, h, grid, found)
    if options.sweeps:
        _sweep(w, h, grid, found)
    return found


def _upper(h: Array) -> Array:
    """The upper Cholesky factor of H⁻¹."""
    lower = cholesky(h, lower=True)
    inverse = solve_triangular(lower, np.eye(len(h)), lower=True)
    return cholesky(inverse.T @ inverse, lower=False)


def _sweep(w: Array, h: Array, grid: Grid, found: Rounded) -> None:
    """Round each column to what is best beside all others as they are."""
    slope = (w - found.values) @ h
    for i in range(w.shape[1]):
        block = i // grid.block
        wanted = found.values[:, i] + slope[:, i] / h[i, i]
        new = grid.rounded(wanted, found.scales[:, block], found.zeros[:, block])
        moved = new - found.values[:, i]
        if moved.any():
            slope -= moved[:, None] * h[i]
            found.values[:, i] = new


def _fit_scales(w: Array, h: Array, grid: Grid, found: Rounded) -> None:
    """Move each block's scale to what is best for its integers beside all others as they are, where that helps."""
    slope = (w - found.values) @ h
    for block, columns in enumerate(grid.slices(w.shape[1])):
        whole = found.values[:, columns] / found.scales[:, block, None]
        bent = np.sum((whole @ h[columns, columns]) * whole, 1)
        step = np.sum(slope[:, columns] * whole, 1) / np.where(bent > 0, bent, 1)
        wanted = found.scales[:, block] + step
        near = np.sign(wanted) * grid.stored(np.abs(wanted)) - found.scales[:, block]
        better = (near * (2 * step - near) > 0) & (wanted * found.scales[:, block] > 0)
        new = found.scales[:, block] + np.where(better, near, 0)
        moved = (new - found.scales[:, block])[:, None] * whole
        slope -= moved @ h[columns]
        found.values[:, columns] += moved
        found.scales[:, block] = new


__all__ = ["GPTQ", "damped", "gptq"]
