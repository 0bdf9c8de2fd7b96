"""A format for each weight within a budget of bytes, by how much the loss grows with each.

The growth is measured: one weight at a time is quantized to the coarsest format, all others being floats, and the model
is run on calibration data; of its other formats it follows from the error of the layer's outputs. Growths are taken to
add up, which holds while they are small; the choice with the least sum within the budget is an integer program, which
`scipy.optimize.milp` solves. At last the choice is run as a whole, beside every single format within the budget.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any

import numpy as np

from graphc.ir.errors import GraphcError
from graphc.ir.formats import Format, parse_format
from graphc.ir.formats.shapes import as_rows
from graphc.ir.module import Module
from graphc.passes import run_passes
from graphc.passes.quantization.shapes import store_as_read
from graphc.passes.quantization.targets import channel_axes, chosen_weights, patterns
from graphc.runtime import config
from graphc.runtime.budget import budget_bytes
from graphc.runtime.compilation import compile
from graphc.runtime.quantization.gptq import GPTQ, gptq
from graphc.runtime.quantization.layerwise import in_place, options_of
from graphc.runtime.quantization.moments import Moments, measured
from graphc.runtime.quantization.observing import BATCH, Batch, batches
from graphc.runtime.quantization.rounding import Grid, Rounded, output_error
from graphc.runtime.sources import module_of

Array = np.ndarray[Any, Any]
Loss = Callable[[Array, Array], float]

FORMATS = ("int3", "uint3{block=64}", "int4", "uint4{block=64}", "int8")


@dataclass(frozen=True)
class Sensitivity:
    """What one format of one weight costs: bytes, scales and zero points counted, and by how much the loss grows."""

    name: str
    format: str
    bytes: int
    growth: float


@dataclass(frozen=True)
class Plan:
    """A format for each weight, as `graphc.quantize` takes them, what they take, and the growth of the loss with all of
    them: measured, or of another budget's plan expected."""

    formats: dict[str, str]
    bytes: int
    elements: int
    growth: float
    sensitivities: tuple[Sensitivity, ...]

    @property
    def bits(self) -> float:
        """Bits a weight, scales and zero points counted."""
        return 8 * self.bytes / self.elements

    def within(self, budget: float | str) -> Plan:
        """The plan for another budget of bytes, or of bits a weight where that is below 64, without measuring again."""
        return chosen_plan(self.sensitivities, self.elements, budget)


def quantization_plan(
    source: Any,
    data: Any,
    budget: float | str,
    *,
    formats: Sequence[str] = FORMATS,
    targets: str | Sequence[str] = "*",
    exclude: str | Sequence[str] = (),
    loss: Loss | str = "kl",
    batch_size: int = BATCH,
    options: Mapping[str, Any] | None = None,
) -> Plan:
    """The formats with the least growth of the loss whose arrays take at most `budget` bytes in all (a number, or a
    size such as "20MiB"); a number below 64 is of bits a weight.

    `loss` compares the first output of the quantized model with that of the float one, both float32: `"kl"`, the
    divergence of the distributions that their last axis has as logits; `"mse"`; or a function of both, wanted ones
    last. Weights are rounded by GPTQ, whose `options` these are, with inputs as the float model has them.
    Raises `GraphcError` for a budget that no choice keeps, with the least that is possible, and for what `quantize`
    raises it for.
    """
    module = run_passes(module_of(source), "inline,canonicalize")
    store_as_read(module, channel_axes(module))
    axes = channel_axes(module)
    names = chosen_weights(module, patterns(targets), patterns(exclude))
    forms = [parse_format(text) for text in formats]
    if not forms:
        raise GraphcError("there are no formats to choose from")
    elements = sum(int(np.prod(module.weights[name].shape)) for name in names)
    _check_budget(_sizes(module, names, forms, axes), elements, budget)
    probe = Probe(
        module, names, axes, batches(module.main, data, batch_size), _loss(loss), options_of("gptq", options or {})
    )
    plan = chosen_plan(sensitivities(probe, names, forms), elements, budget)
    return _checked(plan, probe, forms, elements, budget)


class Probe:
    """A model on calibration data: by how much its loss grows with some of its weights quantized."""

    def __init__(
        self,
        module: Module,
        names: Sequence[str],
        axes: Mapping[str, int],
        calls: Sequence[Batch],
        loss: Loss,
        options: GPTQ,
    ) -> None:
        target = config.target()
        self._module, self._axes, self._calls, self._loss, self._options = module, axes, calls, loss, options
        self._moments = measured(module, names, axes, calls, target)
        self._executable = compile(module, target=target)
        self._wanted = [_first(self._executable(*call)) for call in calls]
        self._sizes = [len(call[0]) for call in calls]
        self._floor = self._mean([loss(w, w) for w in self._wanted])

    def _mean(self, losses: Sequence[float]) -> float:
        return float(np.average(losses, weights=self._sizes))

    def own(self, name: str, form: Format) -> Format:
        """The format for a weight, its channels in place."""
        return in_place(form, self._axes[name], self._module.weights[name].ndim)

    def quantized(self, name: str, form: Format) -> tuple[Array, float]:
        """What a weight becomes, and the squared error of what it gives."""
        array, axis = self._module.weights[name], self._axes[name]
        made = _quantized(array, self.own(name, form), self._moments[name], axis, self._options)
        change = np.split(as_rows(made.astype(np.float64) - array, axis), len(self._moments[name].second))
        return made, sum(output_error(d, h) for d, h in zip(change, self._moments[name].second, strict=True))

    def bytes(self, name: str, form: Format) -> int:
        """What a weight takes in a format."""
        return self.own(name, form).storage_bytes(self._module.weights[name].shape)

    def growth(self, arrays: Mapping[str, Array]) -> float:
        """By how much the loss is greater with these weights."""
        weights = self._executable.weights
        before = {name: weights[name] for name in arrays}
        for name, array in arrays.items():
            weights[name] = array.reshape(before[name].shape)
        losses = [self._loss(_first(self._executable(*c)), w) for c, w in zip(self._calls, self._wanted, strict=True)]
        for name, array in before.items():
            weights[name] = array
        return max(self._mean(losses) - self._floor, 0.0)


def sensitivities(probe: Probe, names: Sequence[str], forms: Sequence[Format]) -> tuple[Sensitivity, ...]:
    """What each format costs for each weight, in order.

    The growth is measured with the format whose outputs are wrong most. Near its minimum a loss grows as the square of
    what its weights change by does, and so with the squared error of a layer's outputs: of the other formats it is that
    share.
    """
    found: list[Sensitivity] = []
    for name in names:
        made = [probe.quantized(name, form) for form in forms]
        array, largest = max(made, key=lambda each: each[1])
        growth = probe.growth({name: array})
        for form, (_, error) in zip(forms, made, strict=True):
            share = error / largest if largest else 0.0
            found.append(Sensitivity(name, str(form), probe.bytes(name, form), growth * share))
    return tuple(found)


def _checked(plan: Plan, probe: Probe, forms: Sequence[Format], elements: int, budget: float | str) -> Plan:
    """The plan with the growth that it really has, or one of a single format if that loses less."""
    limit = budget_in_bytes(elements, budget)
    best = replace(plan, growth=_growth(probe, plan.formats))
    for form in forms:
        each = [one for one in plan.sensitivities if one.format == str(form)]
        alone = {one.name: one.format for one in each}
        size = sum(one.bytes for one in each)
        if size <= limit and alone != plan.formats:
            growth = _growth(probe, alone)
            if growth < best.growth:
                best = replace(plan, formats=alone, bytes=size, growth=growth)
    return best


def _growth(probe: Probe, formats: Mapping[str, str]) -> float:
    return probe.growth({name: probe.quantized(name, parse_format(form))[0] for name, form in formats.items()})


def _quantized(array: Array, form: Format, moments: Moments, axis: int, options: GPTQ) -> Array:
    rows = as_rows(array.astype(np.float64), axis)
    grid = Grid.of(form, rows.shape[1])
    parts = [
        gptq(part, second, grid, options)
        for part, second in zip(np.split(rows, len(moments.second)), moments.second, strict=True)
    ]
    whole = Rounded(*(np.concatenate([getattr(p, key) for p in parts]) for key in ("values", "scales", "zeros")))
    found = form.dequantize(*whole.arrays(form, array.shape), shape=array.shape)
    return found.astype(array.dtype)


def _first(outputs: Any) -> Array:
    return outputs[0] if isinstance(outputs, tuple) else outputs


# --- the choice -------------------------------------------------------------------------------------------------------


def chosen_plan(found: Sequence[Sensitivity], elements: int, budget: float | str) -> Plan:
    """The choice with the least growth within the budget. Raises `GraphcError` where there is none."""
    from scipy.optimize import Bounds, LinearConstraint
    from scipy.sparse import csr_array

    from graphc.passes.integer_programs import milp

    names = list(dict.fromkeys(each.name for each in found))
    sizes = np.array([each.bytes for each in found], np.float64)
    limit = _check_budget(_by_name(found), elements, budget)
    rows = np.array([names.index(each.name) for each in found])
    one_each = csr_array((np.ones(len(found)), (rows, np.arange(len(found)))), shape=(len(names), len(found)))
    growth = np.array([each.growth for each in found])
    scale = float(growth.max()) or 1.0
    # Of choices that cost the same growth, the smaller one; the solver's tolerance is far above that.
    solved = milp(
        growth / scale + 1e-9 * sizes / sizes.sum(),
        integrality=np.ones(len(found)),
        bounds=Bounds(0, 1),
        constraints=[LinearConstraint(one_each, 1, 1), LinearConstraint(sizes[None], -np.inf, limit)],
        options={"mip_rel_gap": 0.0},
    )
    if solved.x is None:
        raise GraphcError(f"no formats were found for a budget of {limit:,} bytes: {solved.message}")
    taken = [each for each, share in zip(found, solved.x, strict=True) if share > 0.5]
    return Plan(
        {each.name: each.format for each in taken},
        sum(each.bytes for each in taken),
        elements,
        sum(each.growth for each in taken),
        tuple(found),
    )


def _by_name(found: Sequence[Sensitivity]) -> dict[str, list[int]]:
    sizes: dict[str, list[int]] = {}
    for each in found:
        sizes.setdefault(each.name, []).append(each.bytes)
    return sizes


def _sizes(
    module: Module, names: Sequence[str], forms: Sequence[Format], axes: Mapping[str, int]
) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for name in names:
        shape = module.weights[name].shape
        found[name] = [in_place(form, axes[name], len(shape)).storage_bytes(shape) for form in forms]
    return found


def budget_in_bytes(elements: int, budget: float | str) -> int:
    """A number below 64 is of bits a weight. Raises `GraphcError` for what is no budget."""
    if isinstance(budget, str):
        return budget_bytes(budget)
    if isinstance(budget, bool) or not isinstance(budget, Real) or not math.isfinite(budget) or budget <= 0:
        raise GraphcError(
            "a budget is a number of bits a weight below 64, of bytes otherwise, or a size such as '20MiB', "
            f"not {budget!r}"
        )
    return int(budget * elements / 8) if budget < 64 else int(budget)


def _check_budget(sizes: Mapping[str, Sequence[int]], elements: int, budget: float | str) -> int:
    """The budget in bytes. Raises `GraphcError` for one that is less than the smallest choice."""
    limit = budget_in_bytes(elements, budget)
    least = sum(min(each) for each in sizes.values())
    if least > limit:
        raise GraphcError(
            f"a budget of {limit:,} bytes ({8 * limit / elements:.2f} bits a weight) cannot be kept: with these "
            f"formats {len(sizes)} weights take at least {least:,} bytes ({8 * least / elements:.2f} bits)"
        )
    return limit


# --- losses -----------------------------------------------------------------------------------------------------------


def _loss(loss: Loss | str) -> Loss:
    if callable(loss):
        return loss
    known: dict[str, Loss] = {"kl": divergence, "mse": squared_error}
    if loss not in known:
        raise GraphcError(f"a loss is 'kl', 'mse' or a function of what is found and what is wanted, not {loss!r}")
    return known[loss]


def divergence(found: Array, wanted: Array) -> float:
    """Σ p·log(p / q) along the last axis, which has logits, in the mean."""
    p, q = _log_softmax(wanted), _log_softmax(found)
    return float(np.mean(np.sum(np.exp(p) * (p - q), -1)))


def squared_error(found: Array, wanted: Array) -> float:
    return float(np.mean(np.square(found.astype(np.float64) - wanted)))


def _log_softmax(x: Array) -> Array:
    moved = x.astype(np.float64) - x.max(-1, keepdims=True)
    return moved - np.log(np.sum(np.exp(moved), -1, keepdims=True))


__all__ = ["Plan", "Sensitivity", "chosen_plan", "quantization_plan", "sensitivities"]
