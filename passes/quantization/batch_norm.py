"""A batch normalization behind a convolution or product becomes part of its kernel and bias.

Before activations are quantized this must be: the integers of a convolution are scaled once, at its end. Jacob et al.,
"Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference" (2018), section 3.2.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from graphc.ir import ops
from graphc.ir.graph import Function, Value
from graphc.ir.module import Array, Module
from graphc.ir.rewriter import Rewriter
from graphc.passes.dce import dce
from graphc.passes.weight_parameters import WeightParameters

_KERNELS = ("conv", "linear")


def fold_batch_norms(module: Module) -> dict[str, str]:
    """Fold what can be, in place; returns the new kernels by the names of those whose place they take. New weights
    are not the source's: what they are made of cannot be set any more."""
    found: dict[str, str] = {}
    parameters, rewriter = WeightParameters(module), Rewriter()
    for function in module.functions.values():
        weights = {p.value: p.weight for p in function.parameters if p.weight is not None}
        written = {result.updates.value for result in function.results if result.updates is not None}
        for op in list(function.block):
            if op.definition is ops.batch_norm:
                found |= _fold(module, function, op, weights, written, parameters, rewriter)
    rewriter.flush()
    if found:
        dce(module)
        _remove_unread(module, rewriter)
    return found


def _fold(
    module: Module,
    function: Function,
    op: Any,
    weights: dict[Value, str],
    written: set[Value],
    parameters: WeightParameters,
    rewriter: Rewriter,
) -> dict[str, str]:
    inner = op.x.op
    if inner is None or inner.name not in _KERNELS or len(op.x.uses or ()) != 1:
        return {}
    _, kernel, bias = inner.operands
    read = [value for value in (kernel, bias, *op.operands[1:]) if value is not None]
    if any(value not in weights or value in written for value in read):
        return {}
    channel = 1 if inner.name == "conv" and not inner.attribute_dict["channels_last"] else -1
    if op.axis % op.x.ndim != channel % op.x.ndim or (inner.name == "conv" and inner.attribute_dict["filters_first"]):
        return {}
    arrays = [None if value is None else module.weights[weights[value]].astype(np.float64) for value in (kernel, bias)]
    mean, variance, scale, offset = _statistics(module, op, weights)
    made = folded(arrays[0], arrays[1], mean, variance, scale, offset, op.epsilon)
    values: list[Value] = []
    for leaf, array in zip(("kernel", "bias"), made, strict=True):
        name = _free(f"{weights[kernel].rpartition('/')[0]}/folded_{leaf}".lstrip("/"), module)
        module.weights.add(name, array.astype(kernel.dtype.numpy))
        values.append(parameters.of(function, name))
        weights[values[-1]] = name
    with rewriter.before(op):
        found = inner.definition(inner.operands[0], *values, **inner.attribute_dict)
    found.op.location = inner.location
    rewriter.replace(op, found)
    return {weights[kernel]: weights[values[0]]}


def _statistics(module: Module, op: Any, weights: dict[Value, str]) -> list[Array | None]:
    return [None if v is None else module.weights[weights[v]].astype(np.float64) for v in op.operands[1:]]


def folded(
    kernel: Any, bias: Any, mean: Any, variance: Any, scale: Any, offset: Any, epsilon: float
) -> tuple[Array, Array]:
    """Kernel [..., out] and bias [out] that do what these do with the normalization behind them."""
    gain = 1 / np.sqrt(variance + epsilon)
    if scale is not None:
        gain = gain * scale
    moved = (0 if bias is None else bias) - mean
    return kernel * gain, moved * gain + (0 if offset is None else offset)


def _free(name: str, module: Module) -> str:
    number, found = 1, name
    while found in module.weights:
        found, number = f"{name}_{number}", number + 1
    return found


def _remove_unread(module: Module, rewriter: Rewriter) -> None:
    """Drop parameters that nothing reads any more, and their weights."""
    for function in module.functions.values():
        if not function.public:
            continue
        updated = {result.updates for result in function.results}
        unread = [
            index
            for index, parameter in enumerate(function.parameters)
            if parameter.weight is not None and not parameter.value.uses and parameter not in updated
        ]
        rewriter.remove_parameters(function, unread)
    read = {p.weight for function in module.functions.values() for p in function.parameters if p.weight}
    sources = {module.weights.source(name).name for name in read}
    kept = sources | {weight.alias for weight in module.weights.entries()}
    unread = [w.name for w in module.weights.entries() if w.alias is None and w.name not in kept]
    module.weights.remove(*unread)
