"""Training that knows of quantization: kernels, and what they are multiplied with, are rounded in the forward part.

Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference" (2018);
gradients go straight through the rounding (Bengio et al., 2013). Ranges of activations are those of the model before,
and go with the batches of training.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from graphc.frontends.rounding import InputRange, RunningRange, VariableRounding
from graphc.frontends.storage import Storage
from graphc.frontends.variable import Variable
from graphc.ir import ops
from graphc.ir.dtypes import f32, u8
from graphc.ir.errors import GraphcError, UnsupportedError
from graphc.ir.formats.format import rounded_scales
from graphc.ir.formats.shapes import zero_points_of
from graphc.ir.formats.trained import stored
from graphc.ir.graph import Function, Value
from graphc.ir.module import Module
from graphc.ir.rewriter import Rewriter
from graphc.passes.quantization.activations import FORMAT, Range
from graphc.runtime.quantization.calibration import Method, calibrated
from graphc.runtime.quantization.moments import readers
from graphc.runtime.quantization.observing import BATCH, batches

BITS = (4, 8)


def input_ranges(
    module: Module,
    variables: Mapping[str, Variable],
    axes: Mapping[str, int],
    data: Any,
    bits: int,
    method: Method,
    momentum: float | None,
    batch_size: int = BATCH,
) -> dict[str, InputRange | RunningRange]:
    """The range of what each of these weights is multiplied with, on calibration data; with a momentum, training goes
    on from there. Raises `UnsupportedError` for one that reads other floats than float32."""
    if momentum is not None and not 0 <= momentum < 1:
        raise GraphcError(f"the momentum of ranges is from 0 to 1, or None for ranges that stay, not {momentum}")
    if bits not in BITS:
        raise GraphcError(f"activations are rounded to 8 or 4 bits, not {bits}")

    def choose(function: Function) -> dict[str, Value]:
        found = {name: each[0].x for name, each in readers(module, function, axes).items() if each}
        for name, x in found.items():
            if x.dtype is not f32:
                raise UnsupportedError(
                    f"{name!r} reads {x.dtype}, and activations are rounded in float32 only: leave `activations` out, "
                    "or choose other layers by `filters`"
                )
        return found

    calls = batches(module.main, data, batch_size)
    high = (1 << bits) - 1
    found = calibrated(module, choose, calls, method)
    if momentum is None:
        return {name: input_range(each, high) for name, each in found.items()}
    return {name: RunningRange.of(variables[name], *each, high, momentum) for name, each in found.items()}


def input_range(found: Range, high: int) -> InputRange:
    """Scale and zero point for a range, which is widened to have 0."""
    least, most = np.asarray(min(found[0], 0.0)), np.asarray(max(found[1], 0.0))
    scale = rounded_scales(most - least, high, f32, "an activation")
    return InputRange(scale, zero_points_of(least, scale.astype(np.float64), (0, high), u8), high)


def rounded_variables(variables: Mapping[str, Variable]) -> dict[str, Variable]:
    """The variables whose values are rounded while they are trained, by name."""
    return {name: v for name, v in variables.items() if v.rounding is not None and v.rounding.format is not None}


def converted(variable: Variable) -> Storage:
    """How a variable that was trained rounded is stored: as what it was rounded to."""
    rounding = variable.rounding
    assert rounding is not None and rounding.format is not None
    array = variable.numpy()
    form, shape = rounding.format, rounding.shape or array.shape
    return Storage.of(form, array, arrays=stored(array.reshape(shape), form), shape=shape)


def keep_input_range(variable: Variable) -> None:
    """Let a variable be read as it is, what it is multiplied with being rounded as before."""
    inputs = None if variable.rounding is None else variable.rounding.inputs
    variable.rounding = None if inputs is None else VariableRounding(None, inputs.frozen())


def freeze_ranges(variables: Mapping[str, Variable]) -> int:
    """Let the ranges of what variables are multiplied with stay as they are; returns how many went with the batches."""
    count = 0
    for variable in variables.values():
        rounding = variable.rounding
        if rounding is not None and isinstance(rounding.inputs, RunningRange):
            variable.rounding = replace(rounding, inputs=rounding.inputs.frozen())
            count += 1
    return count


def store_activations(module: Module) -> None:
    """Let activations that are rounded be integers that are dequantized, in place: the form that targets match."""
    with Rewriter() as rewriter:
        for function in module.functions.values():
            for op in list(function.block):
                if op.definition is not ops.fake_quantize or op.attribute_dict["dtype"] is not u8:
                    continue
                x, scale, zero = op.operands
                assert x is not None and scale is not None
                if zero is None or scale.ndim:
                    continue
                with rewriter.before(op):
                    values = ops.quantize(x, scale, zero, dtype=u8, high=op.attribute_dict["high"])
                    back: Any = ops.dequantize(values, scale, zero, format=FORMAT, shape=x.shape, dtype=x.dtype)
                rewriter.replace(op, back)


__all__ = [
    "converted",
    "freeze_ranges",
    "input_range",
    "input_ranges",
    "keep_input_range",
    "rounded_variables",
    "store_activations",
]
