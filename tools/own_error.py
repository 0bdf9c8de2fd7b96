"""How far a run in a model's own dtypes is off when every step rounds as well as it can: the yardstick of `verify`.

The reference is run in float64 with the result of each primitive moved at random by up to one rounding of its dtype,
as a machine would that computes it right and rounds it (Monte Carlo arithmetic: D. S. Parker, 1997). Where an op adds
terms up, the rounding is that of Σ|terms|, which cancellation makes larger than the sum. What such runs scatter by at
an output is the error that the model makes of itself in these dtypes, whatever engine runs it: each engine orders its
sums in its own way. That covers deep and ill-conditioned models, for which no number of units in the last place of the
output would be right.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np

from graphc.ir.graph import Function, Op
from graphc.ir.interpreter import Interpreter, concrete, evaluate
from graphc.ir.module import Module
from graphc.passes.checking import epsilon
from graphc.passes.legalize import legalize

Array = np.ndarray[Any, Any]
Arrays = list[Array]

SUMS = frozenset(
    {
        "dot_general",
        "convolution",
        "convolution_input_gradient",
        "convolution_kernel_gradient",
        "reduce_sum",
        "reduce_window",
        "cumulative_sum",
        "scatter",
        "select_and_scatter",
    }
)
"""Primitives whose results are sums of terms, with Σ|terms| the op itself on magnitudes."""


EXACT = frozenset(
    {
        *("constant", "barrier", "name", "stop_gradient", "dim_size", "assume_dim", "iota"),
        *("reshape", "transpose", "broadcast", "slice", "dynamic_slice", "dynamic_update_slice", "pad", "concat"),
        *("reverse", "gather", "select_and_gather", "bitcast", "real", "imag"),
        *("neg", "abs", "sign", "floor", "ceil", "round_even", "maximum", "minimum", "select"),
        *("reduce_max", "reduce_min"),
    }
)
"""Primitives that round nothing."""


class Perturbed(Interpreter):
    """The reference in float64, each result of a primitive moved by up to one rounding of its dtype."""

    def __init__(self, module: Module, rng: np.random.Generator) -> None:
        super().__init__(module, wide=True)
        self.rng = rng

    def run_op(self, op: Op, operands: Sequence[Array | None], bindings: dict[Any, Any]) -> Arrays:
        results = super().run_op(op, operands, bindings)
        if op.regions or op.definition.call_rule is not None:  # the ops inside were moved
            return results
        return [
            self.moved(op, operands, array, bindings) if value.dtype.is_float and op.name not in EXACT else array
            for array, value in zip(results, op.results, strict=True)
        ]

    def moved(self, op: Op, operands: Sequence[Array | None], array: Array, bindings: Mapping[Any, Any]) -> Array:
        """`array` with the noise of one rounding."""
        scale = np.abs(array)
        if op.name in SUMS:
            scale = np.maximum(scale, self.magnitude(op, operands, bindings))
        with np.errstate(all="ignore"):
            noise = self.rng.uniform(-0.5, 0.5, array.shape) * epsilon(op.results[0].dtype) * scale
            return np.where(np.isfinite(noise), array + noise, array)

    def magnitude(self, op: Op, operands: Sequence[Array | None], bindings: Mapping[Any, Any]) -> Array:
        attributes = {k: concrete(v, bindings) for k, v in op.attribute_dict.items()}
        types = [None if v is None else v.type.dtype for v in op.operands]
        positive = [np.abs(a) if a is not None and a.dtype.kind == "f" else a for a in operands]
        return np.abs(evaluate(op.definition, attributes, positive, types)[0])


def primitives_only(module: Module) -> Module:
    """A copy with every composite decomposed, so that each rounding has its place."""
    copy = module.clone()
    legalize(copy, lambda op: not op.definition.is_composite)
    return copy


def call_repeatedly(interpreter: Interpreter, module: Module, function: Function, inputs: Arrays, count: int) -> Arrays:
    """Outputs of the last of `count` calls, each of which sees the weights that the one before updated."""
    table = module.weights
    weights: dict[str, Array] = {}
    outputs: Arrays = []
    for _ in range(count):
        given = iter(inputs)
        arguments = [
            next(given) if p.weight is None else weights.get(table.source(p.weight).name, table[p.weight])
            for p in function.parameters
        ]
        results = interpreter.run(function, arguments)
        outputs = [array for array, result in zip(results, function.results, strict=True) if result.updates is None]
        for array, result in zip(results, function.results, strict=True):
            if result.updates is not None:
                weights[table.source(cast(str, result.updates.weight)).name] = array
    return outputs
