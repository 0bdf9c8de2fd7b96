"""`verify`: every target, and every pass on the way to it, against the reference on the user's own model.

Each target runs in a worker process. Its outputs are compared with the reference in float64; how much they may differ
by is a multiple of the model's own error in its dtypes, see `own_error`.
"""

from __future__ import annotations

import os
import pickle
import random
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from math import nan
from pathlib import Path
from typing import Any

import numpy as np

from graphc import codegen
from graphc.ir.binding import prepare_inputs
from graphc.ir.dims import Dim, evaluate, symbols
from graphc.ir.dtypes import dtype
from graphc.ir.errors import GraphcError
from graphc.ir.graph import Function
from graphc.ir.interpreter import Interpreter
from graphc.ir.module import Module
from graphc.ir.suggestions import number_of
from graphc.passes.checking import draw_array, draw_sizes, epsilon
from graphc.passes.registry import intended
from graphc.runtime.sources import module_of
from graphc.tools.own_error import Perturbed, call_repeatedly, primitives_only
from graphc.tools.report import Report, Row
from graphc.tools.verification_worker import Reply, Request

Array = np.ndarray[Any, Any]

BATCHES = (1, 2, 7)
"""Sizes of the leading symbol, a draw each."""

RUNS = 4
"""Perturbed runs. Their root mean square is below an eighth of the true scatter once in 2,000 times."""

FACTOR = 16.0
"""How many times the own error a target may be off by: right engines stay below 8, a mistake is off by thousands."""


@dataclass(frozen=True, slots=True)
class Case:
    """One call of one entry, made `count` times in a row (twice where it updates weights)."""

    entry: str
    inputs: list[Array]
    count: int


@dataclass(frozen=True, slots=True)
class Expected:
    """What a case should give: in float64, in the model's own dtypes, and the own error of each element.

    For integers and bools `own` is infinite where rounding decides the value, else 0.
    """

    wide: list[Array]
    narrow: list[Array]
    own: list[Array]


def verify(
    source: Any,
    targets: str | Sequence[str] = "all",
    inputs: Mapping[str, Any] | Sequence[Any] | None = None,
    *,
    entry: str | None = None,
    passes: str | None = None,
    special_values: bool = False,
    seed: int = 0,
) -> Report:
    """Compare targets with the reference on a model, a module or a file.

    `targets` is `"all"`, names, or names with commas; `inputs` are arrays of the main entry by name or in order (drawn
    for every entry by default, at several sizes, with `special_values` also NaN, infinities and −0). `entry` names what
    a `.py` defines. Of all targets, those that are not installed or lack an op are reported and not checked; one that
    was named raises `TargetError` or `UnsupportedError`.

    Where `passes` has one that is approximate on purpose, such as `quantize`, targets are compared with the reference
    of what it leaves; how far that is from the model is told apart, and is no fault.
    """
    module = module_of(source, entry)
    names, named = _chosen(targets)
    cases = _cases(module, inputs, special_values, seed)
    return _report(module, cases, dict.fromkeys(names), named, passes)


def verify_artifact(module: Module, folder: Path, target: str, seed: int = 0, passes: str | None = None) -> Report:
    """Compare an artifact that `module` was compiled to, with these `passes`, with the reference; see `verify`."""
    return _report(module, _cases(module, None, False, seed), {target: folder}, True, passes)


def _chosen(targets: str | Sequence[str]) -> tuple[list[str], bool]:
    """Names, and whether they were named one by one; `TargetError` for one that is unknown or not installed."""
    if targets == "all":
        return sorted(codegen.targets()), False
    names = [name.strip() for name in targets.split(",")] if isinstance(targets, str) else list(targets)
    return [codegen.target(name).name for name in names], True


def _report(
    module: Module, cases: list[Case], artifacts: dict[str, Path | None], named: bool, passes: str | None
) -> Report:
    meant, approximate = intended(module, passes or "")
    expected = _expected(meant, cases)
    weights = {weight.name: module.weights[weight.name] for weight in module.weights.entries() if weight.alias is None}
    calls = [(case.entry, case.inputs, case.count) for case in cases]
    text = str(module)

    def ask(name: str) -> Reply:
        if not codegen.targets()[name].available():
            return Reply(error=f"not installed: pip install 'graphc[{codegen.targets()[name].extra}]'", kind="missing")
        return _ask_worker(Request(name, text, weights, passes, artifacts[name], calls))

    with ThreadPoolExecutor(max_workers=max(1, min(4, os.cpu_count() or 1))) as pool:
        replies = dict(zip(artifacts, pool.map(ask, artifacts), strict=True))
    rows: list[Row] = []
    for name, reply in replies.items():
        if reply.kind in ("missing", "UnsupportedError") and not named:
            rows.append(Row(name, "", "", None, note=reply.error))
        elif reply.error and reply.kind != "crash":
            raise _as_error(reply, name)
        elif reply.error:
            rows.append(Row(name, "", "", False, note=reply.error))
        else:
            rows += _rows(name, meant, cases, expected, reply.outputs)
    reference = _rows(_itself(meant), meant, cases, expected, [each.narrow for each in expected], judge=False)
    by_design = _rows_by_design(module, meant, approximate, cases, expected) if approximate else []
    return Report(tuple(rows), tuple(reference), FACTOR, approximate, tuple(by_design))


def _rows_by_design(
    module: Module, meant: Module, passes: tuple[str, ...], cases: list[Case], expected: list[Expected]
) -> list[Row]:
    """How far the model after approximate passes is from the model before, both in float64."""
    changed: list[Expected] = []
    for case, after in zip(cases, expected, strict=True):
        before = call_repeatedly(
            Interpreter(module, wide=True), module, module.functions[case.entry], case.inputs, case.count
        )
        changed.append(Expected(before, after.wide, [np.ones(array.shape) for array in before]))
    outputs = [after.wide for after in expected]
    found = _rows(f"({', '.join(passes)})", meant, cases, changed, outputs, judge=False)
    return [replace(row, units=nan) for row in found]


def _itself(module: Module) -> str:
    """What the rows of the reference in the model's own dtypes are called."""
    kinds = {value.dtype for op in module.walk() for value in op.results if value.dtype.is_float}
    return f"({kinds.pop()} itself)" if len(kinds) == 1 else "(dtypes themselves)"


def _as_error(reply: Reply, name: str) -> GraphcError:
    from graphc.ir import errors

    kind = getattr(errors, reply.kind, GraphcError)
    error = GraphcError(reply.error) if kind is errors.ParseError else kind(reply.error)
    return error.at(f"the target {name!r}")


def _ask_worker(request: Request) -> Reply:
    with tempfile.TemporaryDirectory(prefix="graphc-verify-") as name:
        folder = Path(name)
        with open(folder / "request", "wb") as file:
            pickle.dump(request, file, protocol=5)
        # The worker finds modules where this process does, whatever changed `sys.path`.
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        command = [sys.executable, "-m", "graphc.tools.verification_worker", str(folder)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if not (folder / "reply").is_file():
            said = "\n".join(done.stderr.strip().splitlines()[-5:])
            return Reply(error=f"its process ended with status {done.returncode}: {said}", kind="crash")
        with open(folder / "reply", "rb") as file:
            return pickle.load(file)


# --- what to run ------------------------------------------------------------------------------------------------


def _cases(module: Module, inputs: Any, special_values: bool, seed: int) -> list[Case]:
    if inputs is not None:
        function = module.main
        given = inputs if isinstance(inputs, Mapping) else {}
        ordered = () if isinstance(inputs, Mapping) else tuple(inputs)
        found = prepare_inputs(function, ordered, given)
        return [Case(function.name, [found[p.name] for p in function.inputs], _count(function))]
    return [
        Case(function.name, arrays, _count(function))
        for function in module.entries.values()
        for arrays in _draws(function, special_values, seed)
    ]


def _count(function: Function) -> int:
    return 2 if any(result.updates is not None for result in function.results) else 1


def _draws(function: Function, special_values: bool, seed: int) -> list[list[Array]]:
    draws: list[list[Array]] = []
    for number, batch in enumerate(BATCHES):
        sizes = draw_sizes(function, random.Random(seed + number))
        leading = function.symbols[0].name if function.symbols else None
        if leading is not None and _fits(function, wanted := sizes | {leading: batch}):
            sizes = wanted
        for special in (False, True) if special_values else (False,):
            rng = np.random.default_rng(seed + number)
            draws.append([draw_array(p, sizes, rng, special) for p in function.inputs])
    return draws


def _fits(function: Function, sizes: Mapping[str, int]) -> bool:
    known = {symbol.name for symbol in function.symbols}
    shapes = [size for p in function.parameters for size in p.type.shape if isinstance(size, Dim)]
    guards = [
        guard
        for guard in function.guards
        if all(s.name in known for side in (guard.left, guard.right) for s in symbols(side))
    ]
    enough = all(sizes[symbol.name] >= symbol.minimum for symbol in function.symbols)
    return enough and all(guard.check(sizes) for guard in guards) and all(evaluate(size, sizes) >= 0 for size in shapes)


def _expected(module: Module, cases: list[Case]) -> list[Expected]:
    fine = primitives_only(module)
    out: list[Expected] = []
    for number, case in enumerate(cases):
        function = module.functions[case.entry]
        wide = call_repeatedly(Interpreter(module, wide=True), module, function, case.inputs, case.count)
        narrow = call_repeatedly(Interpreter(module), module, function, case.inputs, case.count)
        moved = [
            call_repeatedly(
                Perturbed(fine, np.random.default_rng((number, run))),
                fine,
                fine.functions[case.entry],
                case.inputs,
                case.count,
            )
            for run in range(RUNS)
        ]
        kinds = [dtype(array.dtype) for array in narrow]
        own = [
            _own_error(wide[i], [run[i] for run in moved], epsilon(kind) if kind.is_float or kind.is_complex else None)
            for i, kind in enumerate(kinds)
        ]
        out.append(Expected(wide, narrow, own))
    return out


def _own_error(wide: Array, moved: list[Array], eps: float | None) -> Array:
    """For floats the scatter of the perturbed runs and one unit in the last place; see `Expected` for others."""
    if eps is None:
        return np.where(np.any([run != wide for run in moved], axis=0), np.inf, 0.0)
    with np.errstate(all="ignore"):
        scatter = np.sqrt(np.mean([np.abs(run - wide) ** 2 for run in moved], axis=0))
        own = scatter + eps * np.abs(wide)
    return np.where(np.isfinite(own), own, 0.0)


# --- comparing --------------------------------------------------------------------------------------------------


def _rows(
    target: str,
    module: Module,
    cases: list[Case],
    expected: list[Expected],
    outputs: list[list[Array]],
    judge: bool = True,
) -> list[Row]:
    found: dict[tuple[str, str], list[tuple[float, float, float, str]]] = {}
    for case, want, got in zip(cases, expected, outputs, strict=True):
        function = module.functions[case.entry]
        names = [result.name or f"output_{i}" for i, result in enumerate(function.results) if result.updates is None]
        if len(got) != len(names):
            problem = f"@{case.entry} gives {number_of(len(got), 'output')}; it should give {len(names)}"
            return [Row(target, case.entry, "", False, note=problem)]
        for i, name in enumerate(names):
            errors = compare(got[i], want.wide[i], want.narrow[i], want.own[i])
            found.setdefault((case.entry, name), []).append(errors)
    rows: list[Row] = []
    for (entry, name), errors in found.items():
        absolute, relative, units = (float(np.max([e[i] for e in errors])) for i in range(3))
        note = "; ".join(dict.fromkeys(e[3] for e in errors if e[3]))
        ok = units <= FACTOR and not note if judge else None
        rows.append(
            Row(target, entry, name, ok, len(errors), absolute, relative, units, f"{name}: {note}" if note else "")
        )
    return rows


def compare(got: Array, wide: Array, narrow: Array, own: Array) -> tuple[float, float, float, str]:
    """The worst absolute and relative error, the worst in units of the own error, and what is wrong besides."""
    if got.shape != narrow.shape or got.dtype != narrow.dtype:
        problem = f"it is {got.dtype}{list(got.shape)}; it should be {narrow.dtype}{list(narrow.shape)}"
        return nan, nan, np.inf, problem
    if got.size == 0:
        return 0.0, 0.0, 0.0, ""
    kind = dtype(narrow.dtype)
    if not (kind.is_float or kind.is_complex):
        wrong = got != narrow
        error = np.where(wrong, np.abs(got.astype(np.float64) - narrow.astype(np.float64)), 0.0)
        return float(error.max()), nan, np.inf if np.any(wrong & (own == 0)) else 0.0, ""
    wider = np.complex128 if kind.is_complex else np.float64
    found, rounded = got.astype(wider), narrow.astype(wider)
    finite = np.isfinite(found) & np.isfinite(wide)
    with np.errstate(all="ignore"):
        # Where either is not finite they must be the same, or what the reference gives in the model's own dtypes
        # (which overflow before float64 does).
        same = _same(found, wide) | _same(found, rounded)
        error = np.where(finite, np.abs(found - wide), np.where(same, 0.0, np.inf))
        relative = np.where(error == 0, 0.0, error / np.abs(wide))
        smallest = float(np.finfo(np.float32).tiny)  # engines flush what is smaller
        units = np.where(error <= smallest, 0.0, error / np.maximum(own, smallest))
    return _worst(error), _worst(relative), _worst(units), ""


def _worst(errors: Array) -> float:
    return float(np.max(np.where(np.isnan(errors), np.inf, errors)))


def _same(a: Array, b: Array) -> Array:
    return (a == b) | (np.isnan(a) & np.isnan(b))
