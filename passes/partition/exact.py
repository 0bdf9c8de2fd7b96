"""The fewest FLOPs for as many saved bytes, as an integer program.

Cuts at a price (`cut.py`) are only those on the convex hull of saved bytes and FLOPs; between two of them may lie far
better plans. Here each value is saved or not, an op runs again or not, and the bytes saved have a limit:

    minimise Σ flops(op) · again(op)  subject to  Σ bytes(v) · saved(v) ≤ limit,
    again(maker(v)) + saved(v) ≥ 1 for what the backward part reads, ≥ again(op) for what an op reads that runs again.

Where `saved` is whole, so is the best `again`; only the former are integer variables.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
from scipy import optimize
from scipy.sparse import csr_array

from graphc.passes.integer_programs import milp
from graphc.passes.partition.cut import Cutter

_optimize: Any = optimize  # its types are incomplete
MOST_NODES = 100
"""Of branch and bound; more than this is not searched, so that plans do not hang on the speed of a machine."""
GAP = 5e-3
"""A plan is good enough whose FLOPs are within this part of the bound."""


def fewest_flops(cutter: Cutter, saved_bytes: int, pinned: Collection[int] = ()) -> list[int] | None:
    """Values to save, the `pinned` ones among them, of no more than these bytes; None if none were found within
    `MOST_NODES`."""
    graph, needed = cutter.graph, set(cutter.needed)
    if not needed:
        return []
    values = {value: i for i, value in enumerate(cutter.values)}
    ops = {op: len(values) + i for i, op in enumerate(cutter.ops)}
    rows: list[int] = []
    columns: list[int] = []
    entries: list[float] = []
    least: list[float] = []

    def row(bound: float, *terms: tuple[int, float]) -> None:
        for column, entry in terms:
            rows.append(len(least))
            columns.append(column)
            entries.append(entry)
        least.append(bound)

    for value in needed:
        row(1, (values[value], 1), (ops[graph.maker[value]], 1))
    for op, column in ops.items():
        for read in dict.fromkeys(graph.reads[op]):
            if read in values:
                row(0, (values[read], 1), (ops[graph.maker[read]], 1), (column, -1))
    unit = max([1, *(graph.bytes[value] for value in values)])
    row(-saved_bytes / unit, *((column, -graph.bytes[value] / unit) for value, column in values.items()))
    flops = np.array([0.0] * len(values) + [float(graph.flops[op]) for op in ops])
    whole = np.array([1] * len(values) + [0] * len(ops))
    most = np.array([1.0] * len(values) + [0.0 if op in cutter.never else 1.0 for op in ops])
    pins = set(pinned)
    fewest = np.array([*(1.0 if value in pins else 0.0 for value in values), *(0.0 for _ in ops)])
    table = csr_array((entries, (rows, columns)), shape=(len(least), len(whole)))
    found = milp(
        flops / max(float(flops.sum()), 1.0),
        integrality=whole,
        bounds=_optimize.Bounds(fewest, most),
        constraints=_optimize.LinearConstraint(table, np.array(least), np.inf),
        options={"node_limit": MOST_NODES, "mip_rel_gap": GAP},
    )
    if found.x is None:
        return None
    return [value for value, column in values.items() if found.x[column] > 0.5]
