"""Every sample of every op in every dtype, on a target, against the reference: what the floor file is made of.

All that a target can write goes into one artifact, with an entry for each call. `python tests/codegen_matrix.py
numpy torch jax` runs it and writes `tests/codegen/floor.json`: op → dtype → the targets that agree with the reference.
"""

from __future__ import annotations

import json
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from sampling import Case, all_cases

from graphc.codegen import target
from graphc.codegen.artifact import write_manifest
from graphc.codegen.target import Target
from graphc.ir.cloning import clone_module
from graphc.ir.dtypes import DTYPES, DType
from graphc.ir.errors import GraphcError
from graphc.ir.interpreter import interpret
from graphc.ir.module import Module
from graphc.passes.legalize import legalize

FLOOR = Path(__file__).parent / "codegen" / "floor.json"

LINEAR = frozenset(
    "add sub reduce_sum reduce_mean cumulative_sum dot_general matmul linear einsum convolution conv avg_pool "
    "convolution_input_gradient convolution_kernel_gradient reduce_window".split()
)
"""Ops whose terms cancel: their error is measured against the same op on absolute values."""

ROUNDINGS = {"erf_inv": 32, "lgamma": 32, "digamma": 32, "pow": 32, "tan": 16, "atan2": 8, "acosh": 16, "atanh": 16}
"""How many roundings, where more than `FEW`: special functions and those that are spelled by several."""
FEW = 8


@dataclass(frozen=True)
class Outcome:
    """What became of one op in one dtype: "" when every sample agrees, else what went wrong first."""

    op: str
    dtype: DType
    problem: str


def run_matrix(name: str) -> list[Outcome]:
    """The outcome of every op in every dtype on a target. What the target does not claim to support is left out."""
    chosen = target(name)
    module, calls = _all_calls(chosen)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        write_manifest(path, name, module, chosen.write(module, path))
        entries = chosen.load(path)
        problems: dict[tuple[str, DType], str] = {}
        for entry, (case, dtype) in calls.items():
            key = case.op.name, dtype
            if not problems.get(key):
                problems[key] = _problem(entries[entry], case, dtype)
    return [Outcome(op, dtype, problem) for (op, dtype), problem in problems.items()]


def _all_calls(chosen: Target) -> tuple[Module, dict[str, tuple[Case, DType]]]:
    """One module with an entry for each call that is legal on the target."""
    everything = Module()
    calls: dict[str, tuple[Case, DType]] = {}
    for case in all_cases():
        for dtype in case.dtypes:
            module = case.module(dtype)
            try:
                module = chosen.prepare(module)
                legalize(module, chosen.supports)
            except GraphcError:
                continue
            (function,) = clone_module(module).functions.values()
            function.name = f"{case.op.name}_{case.number}_{dtype.short}"
            function.module = everything
            everything.functions[function.name] = function
            calls[function.name] = case, dtype
    return everything, calls


def _problem(entry: Any, case: Case, dtype: DType) -> str:
    arrays = [a for a in case.arrays(dtype, np.random.default_rng(0)) if a is not None]
    try:
        found = entry(*arrays)
    except Exception as error:  # a framework may raise anything; it becomes the outcome
        return f"{case.id}: {type(error).__name__} {str(error).splitlines()[0][:200] if str(error) else ''}"
    wanted = _as_tuple(interpret(case.module(dtype), *arrays, dtype="float64"))
    sizes = wanted
    if case.op.name in LINEAR:
        sizes = _as_tuple(interpret(case.module(dtype), *map(np.abs, arrays), dtype="float64"))
    for i, (got, want, size) in enumerate(zip(found, wanted, sizes, strict=True)):
        problem = difference(got, want, size, case.module(dtype).main.outputs[i].dtype, ROUNDINGS.get(case.op.name, FEW))
        if problem:
            return f"{case.id}: {problem}"
    return ""


def _as_tuple(found: Any) -> tuple[np.ndarray[Any, Any], ...]:
    return found if isinstance(found, tuple) else (found,)


def difference(got: Any, want: Any, size: Any, dtype: DType, roundings: int) -> str:
    """How a result differs from the reference by more than so many roundings of the terms' size; "" if it does not."""
    got = np.asarray(got)
    if got.dtype != dtype.numpy or got.shape != np.shape(want):
        return f"{got.dtype}{list(got.shape)} in place of {dtype}{list(np.shape(want))}"
    if not (dtype.is_float or dtype.is_complex):
        return "" if np.array_equal(got, want) else f"{got.tolist()} in place of {np.asarray(want).tolist()}"[:200]
    wide = got.astype(np.complex128 if dtype.is_complex else np.float64)
    epsilon = float(ml_dtypes.finfo(dtype.numpy).eps)
    with np.errstate(all="ignore"):
        largest = float(ml_dtypes.finfo(dtype.numpy).max)
        scale = np.where(np.isfinite(size), np.abs(size), 0)
        allowed = roundings * epsilon * (scale + np.max(scale, initial=0) / 4) + float(ml_dtypes.finfo(dtype.numpy).tiny)
        near = np.abs(wide - want) <= allowed
        same = (wide == want) | (np.isnan(wide) & np.isnan(want)) | near | (np.abs(want) > largest)
    if same.all():
        return ""
    at = tuple(np.argwhere(~same)[0])
    return f"{wide[at]} in place of {np.asarray(want)[at]} at {[int(i) for i in at]}"


def floor_of(outcomes: dict[str, list[Outcome]]) -> dict[str, dict[str, list[str]]]:
    """Op → dtype → targets that agree."""
    found: dict[str, dict[str, list[str]]] = {}
    for name, each in outcomes.items():
        for outcome in each:
            if not outcome.problem:
                found.setdefault(outcome.op, {}).setdefault(outcome.dtype.short, []).append(name)
    order = {dtype.short: i for i, dtype in enumerate(DTYPES)}
    return {op: dict(sorted(found[op].items(), key=lambda item: order[item[0]])) for op in sorted(found)}


def main(names: list[str]) -> None:
    floor = json.loads(FLOOR.read_text()) if FLOOR.exists() else {}
    outcomes = {name: run_matrix(name) for name in names}
    for name, each in outcomes.items():
        failing = [outcome for outcome in each if outcome.problem]
        print(f"{name}: {len(each) - len(failing)} of {len(each)} agree")
        for outcome in failing:
            print(f"  {outcome.dtype.short:8} {outcome.problem}")
    for op, dtypes in floor.items():
        for dtype, kept in dtypes.items():
            floor[op][dtype] = [name for name in kept if name not in names]
    for op, dtypes in floor_of(outcomes).items():
        for dtype, agreeing in dtypes.items():
            row = floor.setdefault(op, {})
            row[dtype] = sorted({*row.get(dtype, ()), *agreeing})
    lines = [f'  "{op}": {json.dumps({d: t for d, t in floor[op].items() if t})}' for op in sorted(floor)]
    FLOOR.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
