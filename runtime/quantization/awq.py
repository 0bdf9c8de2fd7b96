"""AWQ: inputs that matter are scaled up in the weights, and down where they come from, before these are rounded.

Lin et al., "AWQ: Activation-aware Weight Quantization for LLM Compression and Acceleration" (2024). The scale of an
input is its mean magnitude to the power of α; α is searched for. Where all that reads a normalization's result is
scaled alike, its scale and offset take the factors in; otherwise the format keeps them (`awq` in `ir/formats`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphc.ir.graph import Function, Op, Value
from graphc.ir.module import Module
from graphc.runtime.quantization.moments import Moments, Reader
from graphc.runtime.quantization.rounding import Grid, nearest_values, output_error

Array = np.ndarray[Any, Any]

_NORMALIZATIONS = ("rms_norm", "layer_norm")


@dataclass(frozen=True)
class AWQOptions:
    """`points`: how many α from 0 to 1 are tried; `search`: ranges of blocks may be narrowed afterwards."""

    points: int = 20
    search: bool = True


def input_scales(matrices: Sequence[tuple[Array, Grid, Moments]], points: int) -> Array:
    """The scale of each input [n], which all these matrices [rows, n] share, with the least error in their outputs of
    all α; 1 if none is better than that. The inputs are those of one group."""
    magnitude = matrices[0][2].magnitude[0] / max(matrices[0][2].count, 1)
    magnitude = np.maximum(magnitude, 1e-4 * (float(magnitude.max()) or 1.0))
    best: Array = np.ones(len(magnitude))
    least = np.inf
    for point in range(points):
        scales: Array = magnitude ** (point / points)
        scales = scales / np.sqrt(scales.max() * scales.min())
        stored: Array = (1 / scales).astype(np.float16).astype(np.float64)
        error = sum(_error(w, grid, moments.second[0], 1 / stored) for w, grid, moments in matrices)
        if error < least:
            best, least = (1 / stored if point else np.ones(len(magnitude))), error
    return best


def _error(w: Array, grid: Grid, second: Array, scales: Array) -> float:
    rounded = nearest_values(w * scales, grid, np.ones(w.shape[1]), search=False)
    return output_error(rounded.values / scales - w, second)


# --- folding ----------------------------------------------------------------------------------------------------------


def foldable(module: Module, function: Function, reads: Mapping[str, Sequence[Reader]]) -> list[str]:
    """The weights that give the values which all these weights read, a normalization's scale and offset; none where
    something else reads these, or there are several values."""
    values = {reader.x for each in reads.values() for reader in each}
    op = next(iter(values)).op if len(values) == 1 else None
    if op is None or op.name not in _NORMALIZATIONS:
        return []
    ops_inside = {reader.op for each in reads.values() for reader in each}
    if any(reader.kind != "linear" for each in reads.values() for reader in each):
        return []
    if not set(op.results[0].uses or ()) <= ops_inside:
        return []
    names = [_only_reader(module, function, value, op) for value in op.operands[1:] if value is not None]
    return [name for name in names if name] if names and all(names) and op.operands[1] is not None else []


def _only_reader(module: Module, function: Function, value: Value, op: Op) -> str:
    """The weight that a value is, where this op alone reads it in the whole module."""
    found = next((p for p in function.parameters if p.value is value and p.weight is not None), None)
    if found is None or found.weight is None or set(value.uses or ()) != {op}:
        return ""
    name = module.weights.source(found.weight).name
    holders = [
        (each, p)
        for each in module.functions.values()
        for p in each.parameters
        if p.weight is not None and module.weights.source(p.weight).name == name
    ]
    width = op.results[0].shape[-1:]
    return name if len(holders) == 1 and tuple(value.shape) == tuple(width) else ""


__all__ = ["AWQOptions", "foldable", "input_scales"]
