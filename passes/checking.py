"""`--check`: that a pass kept the meaning of a module, by interpreting it before and after on drawn inputs.

Evaluated in float64, so that only a change of meaning shows, not another order of rounding; constants that a pass
folded are rounded to their dtype, which is what the tolerance allows for.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np

from graphc.ir.dims import Dim, Guard, Size, evaluate
from graphc.ir.dims import symbols as symbols_in
from graphc.ir.dtypes import DType, f64
from graphc.ir.errors import GraphcError
from graphc.ir.graph import Function, Parameter
from graphc.ir.interpreter import Interpreter
from graphc.ir.module import Module
from graphc.ir.recipes import Cast, Recipe
from graphc.ir.types import TensorType

Array = np.ndarray[Any, Any]

LARGEST_SIZE = 8
"""Symbols are bound to sizes up to this (or a little above their minimum)."""

TRIES = 2000
SPECIALS = (float("nan"), float("inf"), float("-inf"), -0.0, 0.0)
ROUNDINGS = 32
"""A result may move by this many roundings of the narrowest dtype in the module."""


@dataclass(slots=True)
class Run:
    """The results of one entry on one draw of inputs."""

    entry: str
    inputs: list[Array]
    special: bool
    results: list[Array]


class Check:
    """Holds what a module's entries gave on drawn inputs, to be compared after each pass.

    Raises `GraphcError` when the module breaks a rule of the IR, when a weight has no array, or when no small sizes
    meet the guards of an entry.
    """

    def __init__(self, module: Module, seed: int = 0) -> None:
        module.verify()
        self.coarsest = _coarsest(module)
        self.runs: list[Run] = []
        for function in module.entries.values():
            sizes = draw_sizes(function, random.Random(seed))
            for special in (False, True):
                rng = np.random.default_rng(seed)
                inputs = [draw_array(p, sizes, rng, special) for p in function.inputs]
                self.runs.append(Run(function.name, inputs, special, _results(module, function, inputs)))

    def after(self, name: str, module: Module, finite: bool = False, approximate: bool = False) -> None:
        """Compare with what the entries give now; `name` is the pass that ran, `finite` what it holds for. After one
        that is `approximate`, what they give now is what later passes are compared with."""
        try:
            module.verify()
        except GraphcError as error:
            raise error.at(f"the check after the pass {name!r}") from error
        self.coarsest = max(self.coarsest, _coarsest(module))
        allowed = ROUNDINGS * self.coarsest
        for run in self.runs:
            if run.entry not in module.functions:
                raise GraphcError(f"the pass {name!r} removed the entry @{run.entry}")
            function = module.functions[run.entry]
            now = _results(module, function, run.inputs)
            if approximate or (run.special and finite):
                run.results = now
                continue
            if len(now) != len(run.results):
                raise GraphcError(f"the pass {name!r} changed the number of results of @{run.entry}")
            for index, (before, after) in enumerate(zip(run.results, now, strict=True)):
                problem = difference(before, after, allowed)
                if problem is not None:
                    output = function.results[index].name or f"number {index}"
                    raise GraphcError(f"the pass {name!r} changes the output {output} of @{run.entry}: {problem}")


def _results(module: Module, function: Function, inputs: Sequence[Array]) -> list[Array]:
    given = iter(inputs)
    arrays = [next(given) if p.weight is None else module.weights[p.weight] for p in function.parameters]
    found = list(Interpreter(module, wide=True).run(function, arrays))
    for i, result in enumerate(function.results):
        if result.updates is not None and result.updates.weight is not None:
            found[i] = _in_order_of_source(found[i], module.weights.source(result.updates.weight).recipe)
    return found


def _in_order_of_source(array: Array, recipe: Recipe | None) -> Array:
    """The new value of a weight as the source has it; a pass may store weights with their axes in another order."""
    for step in reversed(recipe.steps if recipe is not None else ()):
        if not isinstance(step, Cast):
            array = step.invert(array)
    return array


def _coarsest(module: Module) -> float:
    """The relative rounding of the narrowest float in the module."""
    kinds = {value.dtype for op in module.walk() for value in op.results}
    return max((epsilon(kind) for kind in kinds if kind.is_float or kind.is_complex), default=epsilon(f64))


def epsilon(kind: DType) -> float:
    """The distance from 1 to the next number of a floating or complex dtype."""
    finfo: Any = np.finfo if kind.is_complex else ml_dtypes.finfo
    return float(finfo(kind.numpy).eps)


def difference(before: Array, after: Array, allowed: float = 0.0) -> str | None:
    """How two results differ, worst element first, or None when they agree up to `allowed` (relative to the largest).

    NaN equals NaN; integers and bools must be equal.
    """
    if before.shape != after.shape or before.dtype != after.dtype:
        return f"it was {before.dtype}{list(before.shape)} and is {after.dtype}{list(after.shape)}"
    if before.size == 0:
        return None
    wide: Any = np.complex128 if before.dtype.kind == "c" else np.float64
    if before.dtype.kind in "biu":
        wrong = before != after
        error: Any = np.where(wrong, np.abs(before.astype(wide) - after.astype(wide)), 0)
        bound = 0.0
    else:
        old, new = before.astype(wide), after.astype(wide)
        with np.errstate(all="ignore"):
            same: Any = (old == new) | (np.isnan(old) & np.isnan(new))
            error = np.where(same, 0.0, np.abs(old - new))
        error = np.where(np.isnan(error), np.inf, error)
        finite = np.abs(old[np.isfinite(old)])
        bound = allowed * float(finite.max(initial=0.0))
        wrong = error > bound
    if not wrong.any():
        return None
    worst = tuple(int(i) for i in np.unravel_index(int(np.argmax(error)), before.shape))
    where = f" at {list(worst)}" if worst else ""
    return f"worst error {float(error[worst]):.3g}{where} ({before[worst]} before, {after[worst]} after)"


# --- drawing --------------------------------------------------------------------------------------------------------


def draw_sizes(function: Function, rng: random.Random) -> dict[str, int]:
    """Small sizes for the symbols of a function that meet its guards. Raises `GraphcError` when none are found."""
    symbols = function.symbols
    guards = [guard for guard in function.guards if _decidable(guard, symbols)]
    shapes = [size for p in function.parameters for size in p.type.shape if isinstance(size, Dim)]
    for attempt in range(TRIES):
        # The first tries are distinct sizes, which tell axes apart; guards may ask for equal ones.
        if attempt < TRIES // 2:
            pool = rng.sample(range(2, LARGEST_SIZE + 2 + len(symbols)), len(symbols))
        else:
            pool = [rng.choice((2, 3, 3, 4, 6, LARGEST_SIZE)) for _ in symbols]
        sizes = {s.name: max(n, s.minimum) for s, n in zip(symbols, pool, strict=True)}
        if all(guard.check(sizes) for guard in guards) and all(evaluate(size, sizes) >= 0 for size in shapes):
            return sizes
    listed = ", ".join(map(str, function.guards))
    raise GraphcError(f"found no small sizes for @{function.name} that meet {listed or 'its shapes'}")


def _decidable(guard: Guard, symbols: Sequence[Dim]) -> bool:
    """Whether the guard speaks of what the parameters bind; the rest depends on data and is checked while running."""
    known = set(symbols)
    return all(symbol in known for side in (guard.left, guard.right) for symbol in symbols_in(side))


def draw_array(parameter: Parameter, sizes: Mapping[str, int], rng: np.random.Generator, special: bool) -> Array:
    """Values for an input: spread around 0, or with `special` some NaN, infinities and signed zeros among them."""
    return draw(parameter.type, sizes, rng, special)


def draw(type: TensorType, sizes: Mapping[str, int], rng: np.random.Generator, special: bool) -> Array:
    """An array of this type with its symbols bound to `sizes`."""
    shape = tuple(concrete(size, sizes) for size in type.shape)
    kind = type.dtype
    if kind.is_bool:
        return rng.integers(0, 2, shape).astype(bool)
    if kind.is_integer:
        low = 0 if kind.kind == "u" else -3
        return rng.integers(low, 7, shape).astype(kind.numpy)
    values: Any = rng.normal(size=shape)
    if special:
        values = np.where(rng.random(shape) < 0.3, rng.choice(SPECIALS, shape), values)
    if kind.is_complex:
        values = values + 1j * rng.normal(size=shape)
    with np.errstate(all="ignore"):
        return np.asarray(values).astype(kind.numpy)


def concrete(size: Size, sizes: Mapping[str, int]) -> int:
    return size if isinstance(size, int) else evaluate(size, sizes)
