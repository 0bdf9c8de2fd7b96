"""A format for each weight within a budget of bytes, by how much the loss grows with each.

The growth is measured: one weight at a time is quantized, all others being floats, and the model is run on calibration
data. Growths are taken to add up, which holds while they are small; the choice with the least sum within the budget is
an integer program, which `scipy.optimize.milp` solves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphc.ir.errors import GraphcError
from graphc.ir.formats import Format, parse_format
from graphc.ir.formats.shapes import as_rows
from graphc.ir.module import Module
from graphc.passes import run_passes
from graphc.passes.quantization.shapes import store_as_read
from graphc.passes.quantization.targets import channel_axes, chosen_weights
from graphc.runtime import config
from graphc.runtime.compilation import compile
from graphc.runtime.quantization.gptq import GPTQ, gptq
from graphc.runtime.quantization.layerwise import in_place
from graphc.runtime.quantization.moments import Moments, measured
from graphc.runtime.quantization.observing import BATCH, Batch, batches
from graphc.runtime.quantization.rounding import Grid, Rounded
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
    """A format for each weight, as `graphc.quantize` takes them, what they take, and the growth that is expected."""

    formats: dict[str, str]
    bytes: int
    elements: int
    growth: float
    sensitivities: tuple[Sensitivity, ...]

    @property
    def bits(self) -> float:
        """Bits a weight, scales and zero points counted."""
        return 8 * self.bytes / self.elements

    def within(self, budget: float) -> Plan:
        """The plan for another budget of bytes, or of bits a weight where that is below 64, without measuring again."""
        return chosen_plan(self.sensitivities, self.elements, budget)


def quantization_plan(
    source: Any,
    data: Any,
    budget: float,
    *,
    formats: Sequence[str] = FORMATS,
    targets: str | Sequence[str] = "*",
    exclude: str | Sequence[str] = (),
    loss: Loss | str = "kl",
    batch_size: int = BATCH,
    options: Mapping[str, Any] | None = None,
) -> Plan:
    """The formats with the least expected growth of the loss whose arrays take at most `budget` bytes in all; a budget
    below 64 is of bits a weight.

    `loss` compares the first output of the quantized model with that of the float one, both float32: `"kl"`, the
    divergence of the distributions that their last axis has as logits; `"mse"`; or a function of both, wanted ones
    last. Weights are rounded by GPTQ, whose `options` these are, with inputs as the float model has them.
    Raises `GraphcError` for a budget that no choice keeps, with the least that is possible, and for what `quantize`
    raises it for.
    """
    module = run_passes(module_of(source), "inline,canonicalize")
    store_as_read(module, channel_axes(module))
    given = [[each] if isinstance(each, str) else list(each) for each in (targets, exclude)]
    axes = channel_axes(module)
    names = chosen_weights(module, *given)
    forms = [parse_format(text) for text in formats]
    if not forms:
        raise GraphcError("there are no formats to choose from")
    elements = sum(int(np.prod(module.weights[name].shape)) for name in names)
    _check_budget(_sizes(module, names, forms, axes), elements, budget)
    calls = batches(module.main, data, batch_size)
    found = sensitivities(module, names, forms, axes, calls, _loss(loss), GPTQ(**(options or {})))
    return chosen_plan(found, elements, budget)


def sensitivities(
    module: Module,
    names: Sequence[str],
    forms: Sequence[Format],
    axes: Mapping[str, int],
    calls: Sequence[Batch],
    loss: Loss,
    options: GPTQ,
) -> tuple[Sensitivity, ...]:
    """What each format costs for each weight, in order."""
    target = config.target()
    moments = measured(module, names, {name: axes[name] for name in names}, calls, target)
    executable = compile(module, target=target)
    wanted = [_first(executable(*call)) for call in calls]
    weights = [len(call[0]) for call in calls]
    floor = float(np.average([loss(w, w) for w in wanted], weights=weights))
    found: list[Sensitivity] = []
    for name in names:
        array, source = module.weights[name], executable.weights[name]
        for form in forms:
            own = in_place(form, axes[name], array.ndim)
            made = _quantized(array, own, moments[name], axes[name], options)
            executable.weights[name] = made.reshape(source.shape)
            losses = [loss(_first(executable(*call)), w) for call, w in zip(calls, wanted, strict=True)]
            growth = max(float(np.average(losses, weights=weights)) - floor, 0.0)
            found.append(Sensitivity(name, str(form), own.storage_bytes(array.shape), growth))
        executable.weights[name] = source
    return tuple(found)


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


def chosen_plan(found: Sequence[Sensitivity], elements: int, budget: float) -> Plan:
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


def _check_budget(sizes: Mapping[str, Sequence[int]], elements: int, budget: float) -> int:
    """The budget in bytes. Raises `GraphcError` for one that is less than the smallest choice."""
    limit = int(budget * elements / 8) if budget < 64 else int(budget)
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
