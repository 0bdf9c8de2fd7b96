"""Every sample of every op in every dtype, and every edge, on a target, against the reference.

All that a target can write goes into one artifact, with an entry for each dtype: a framework then compiles a dozen
functions, not a thousand. Where an entry fails as a whole, its calls run one by one. `python tests/codegen_matrix.py
numpy torch` runs it and writes what agrees to `tests/codegen/floor.json`: op → dtype → targets.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from edges import EDGES
from sampling import Case, all_cases

from graphc.codegen import target
from graphc.codegen.artifact import write_manifest
from graphc.codegen.target import EntryFunction, Target
from graphc.ir.builder import Builder
from graphc.ir.dtypes import DTYPES, DType
from graphc.ir.errors import GraphcError
from graphc.ir.graph import Result
from graphc.ir.interpreter import interpret
from graphc.ir.module import Module
from graphc.passes.legalize import legalize

FLOOR = Path(__file__).parent / "codegen" / "floor.json"
Array = np.ndarray[Any, Any]

LINEAR = frozenset(
    [
        "add",
        "sub",
        "reduce_sum",
        "reduce_mean",
        "cumulative_sum",
        "dot_general",
        "matmul",
        "linear",
        "einsum",
        "convolution",
        "conv",
        "avg_pool",
        "scatter",
        "convolution_input_gradient",
        "convolution_kernel_gradient",
        "reduce_window",
    ]
)
"""Ops whose terms cancel: their error is measured against the same op on absolute values."""

ROUNDINGS = {
    "attention_gradient": 64,
    "attention_gradient_with_logsumexp": 64,
    "erf_inv": 32,
    "lgamma": 32,
    "digamma": 32,
    "trigamma": 32,
    "pow": 32,
    "tan": 16,
    "acosh": 16,
    "atanh": 16,
}
"""How many roundings, where more than `FEW`: special functions, and those that are spelled by several."""
FEW = 8


@dataclass(frozen=True)
class Run:
    """One call of one op, on arrays."""

    case: Case
    dtype: DType
    arrays: tuple[Array, ...]
    edge: str = ""

    @property
    def key(self) -> tuple[str, str]:
        """Op and column of the floor: the dtype, or the edge."""
        return self.case.op.name, self.edge or self.dtype.short

    def module(self) -> Module:
        return self.case.module(self.dtype)


@dataclass(frozen=True)
class Outcome:
    """What became of one op in one dtype (or at one edge): "" when every call agrees, else what went wrong first."""

    op: str
    column: str
    problem: str


def runs() -> Iterator[Run]:
    """Every call: the samples in each of their dtypes, and the edges."""
    for case in all_cases():
        for dtype in case.dtypes:
            arrays = case.arrays(dtype, np.random.default_rng(0))
            yield Run(case, dtype, tuple(a for a in arrays if a is not None))
    for edge in EDGES:
        yield Run(edge.case, edge.dtype, tuple(edge.arrays), edge.row)


def run_matrix(name: str, only: Container[str] | None = None) -> list[Outcome]:
    """The outcome of every op in every dtype (`only` those of these short names) on a target. What the target does
    not claim to support is left out."""
    chosen = target(name)
    groups: dict[DType, list[Run]] = {}
    for run in runs():
        if (only is None or run.dtype.short in only) and _is_legal(run, chosen):
            groups.setdefault(run.dtype, []).append(run)
    problems: dict[tuple[str, str], str] = {}
    for each in groups.values():
        for run, problem in _problems(each, chosen):
            problems[run.key] = problems.get(run.key) or problem
    return [Outcome(op, column, problem) for (op, column), problem in problems.items()]


def _is_legal(run: Run, chosen: Target) -> bool:
    try:
        legalize(chosen.prepare(run.module()), chosen.supports)
    except GraphcError:
        return False
    return True


def _problems(group: Sequence[Run], chosen: Target) -> list[tuple[Run, str]]:
    """What is wrong with each call, "" where nothing is: all in one function, or in halves where that fails."""
    try:
        found = list(_load(_together(group), chosen)(*(array for run in group for array in run.arrays)))
    except Exception as error:  # a framework may raise anything; the outcome says what
        if len(group) == 1:
            text = str(error).splitlines()[0][:200] if str(error) else ""
            return [(group[0], f"{group[0].case.id}: {type(error).__name__} {text}")]
        half = len(group) // 2
        return _problems(group[:half], chosen) + _problems(group[half:], chosen)
    out: list[tuple[Run, str]] = []
    for run in group:
        count = len(run.module().main.results)
        out.append((run, _compared(run, found[:count])))
        del found[:count]
    return out


def _together(group: Sequence[Run]) -> Module:
    """One function that makes all of the calls."""
    module = Module()
    function = module.add_function("main")
    results: list[Any] = []
    with Builder(function.block) as builder:
        for run in group:
            types = run.case.types(run.dtype)
            values = [None if t is None else function.add_parameter(t, f"x{len(function.parameters)}") for t in types]
            results += run.case.op.build(builder, values, run.case.attributes).results
        function.results.extend(Result() for _ in results)
        builder.finish(results)
    return module


def _load(module: Module, chosen: Target) -> EntryFunction:
    module = chosen.prepare(module)
    legalize(module, chosen.supports)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        write_manifest(path, chosen.name, module, chosen.write(module, path))
        return chosen.load(path).entries["main"]


def _compared(run: Run, found: Sequence[Array]) -> str:
    module = run.module()
    wanted = _as_tuple(interpret(module, *run.arrays, dtype="float64"))
    sizes = wanted
    if run.case.op.name in LINEAR and run.dtype.kind in "fc":
        absolute = [np.abs(a).astype(a.dtype) if a.dtype.kind not in "biu" else a for a in run.arrays]
        sizes = _as_tuple(interpret(module, *absolute, dtype="float64"))
    roundings = ROUNDINGS.get(run.case.op.name, FEW)
    for value, got, want, size in zip(module.main.outputs, found, wanted, sizes, strict=True):
        problem = difference(got, want, size, value.dtype, roundings)
        if problem:
            return f"{run.case.id}: {problem}"
    return ""


def _as_tuple(found: Any) -> tuple[Array, ...]:
    return found if isinstance(found, tuple) else (found,)


def difference(got: Any, want: Any, size: Any, dtype: DType, roundings: int) -> str:
    """How a result differs from the reference by more than so many roundings of the terms' size; "" if it does not."""
    got = np.asarray(got)
    if got.dtype != dtype.numpy or got.shape != np.shape(want):
        return f"{got.dtype}{list(got.shape)} in place of {dtype}{list(np.shape(want))}"
    if not (dtype.is_float or dtype.is_complex):
        return "" if np.array_equal(got, want) else f"{got.tolist()} in place of {np.asarray(want).tolist()}"[:200]
    wide = got.astype(np.complex128 if dtype.is_complex else np.float64)
    limits = ml_dtypes.finfo(dtype.numpy)
    with np.errstate(all="ignore"):
        scale = np.where(np.isfinite(size), np.abs(size), 0)
        allowed = roundings * float(limits.eps) * (scale + np.max(scale, initial=0) / 4) + float(limits.tiny)
        overflows = np.abs(want) > float(limits.max)
        same = (wide == want) | (np.isnan(wide) & np.isnan(want)) | (np.abs(wide - want) <= allowed)
        same |= overflows & ~np.isfinite(wide) & np.isfinite(want)
    if same.all():
        return ""
    at = tuple(np.argwhere(~same)[0])
    return f"{wide[at]} in place of {np.asarray(want)[at]} at {[int(i) for i in at]}"


# --- the floor ----------------------------------------------------------------------------------------------------


def floor_of(outcomes: dict[str, list[Outcome]]) -> dict[str, dict[str, list[str]]]:
    """Op → dtype or edge → targets that agree."""
    found: dict[str, dict[str, list[str]]] = {}
    for name, each in outcomes.items():
        for outcome in each:
            if not outcome.problem:
                found.setdefault(outcome.op, {}).setdefault(outcome.column, []).append(name)
    return found


def write_floor(outcomes: dict[str, list[Outcome]]) -> None:
    """Let the floor say what these targets reach now; rows of other targets stay."""
    floor = json.loads(FLOOR.read_text()) if FLOOR.exists() else {}
    for columns in floor.values():
        for column, kept in columns.items():
            columns[column] = [name for name in kept if name not in outcomes]
    for op, columns in floor_of(outcomes).items():
        for column, agreeing in columns.items():
            row = floor.setdefault(op, {})
            row[column] = sorted({*row.get(column, ()), *agreeing})
    order = {dtype.short: i for i, dtype in enumerate(DTYPES)}
    lines: list[str] = []
    for op in sorted(floor):
        columns = sorted(floor[op], key=lambda column: (order.get(column, len(order)), column))
        kept = [f"    {json.dumps(c)}: {json.dumps(floor[op][c])}" for c in columns if floor[op][c]]
        lines.append(f"  {json.dumps(op)}: {{\n" + ",\n".join(kept) + "\n  }")
    FLOOR.write_text("{\n" + ",\n".join(lines) + "\n}\n")


def main(names: list[str]) -> None:
    outcomes = {name: run_matrix(name) for name in names}
    for name, each in outcomes.items():
        failing = [outcome for outcome in each if outcome.problem]
        print(f"{name}: {len(each) - len(failing)} of {len(each)} agree")
        for outcome in failing:
            print(f"  {outcome.column:8} {outcome.problem}")
    write_floor(outcomes)


if __name__ == "__main__":
    main(sys.argv[1:])
