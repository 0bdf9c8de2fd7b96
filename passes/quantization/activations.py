"""Activations as integers: which values are quantized (`points`), by ranges that were observed, or as they come.

A value of the graph is quantized and dequantized again where it stands (QDQ, the canonical form), and what reads it
reads that. Targets with integer kernels match `linear(dequantize(…), dequantize(…))` and the like.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import Any

import numpy as np

from graphc.ir import ops
from graphc.ir.dtypes import f32, u8
from graphc.ir.errors import GraphcError, UnsupportedError
from graphc.ir.formats.format import rounded_scales
from graphc.ir.formats.shapes import zero_points_of
from graphc.ir.graph import Function, Op, Value
from graphc.ir.module import Array, Module
from graphc.ir.rewriter import Rewriter
from graphc.ir.suggestions import nearest
from graphc.passes.dce import dce
from graphc.passes.quantization.matching import INT8

FORMAT = "uint8{tensor}"
"""Activations have one scale and one zero point, and go from 0 to 255: what x86's integer products take beside int8."""

Range = tuple[float, float]

_KERNELS = ("conv", "convolution", "linear", "matmul")
_ENDS = ("relu", "relu6")
_SAME_RANGE = ("max_pool", "reshape", "transpose")
"""Ops whose results are among their operand's elements, so that its scale is theirs."""


def points(function: Function) -> dict[str, Value]:
    """The values of a function to quantize, by name: what products and convolutions with an integer kernel read and
    give (after a rectifier), and sums of such values. Names are inputs', or the layer's path with the op's name."""
    found: dict[Value, None] = {}
    for op in function.block:
        if _has_integer_kernel(op):
            assert op.operands[0] is not None
            found[op.operands[0]] = None
            _add_end(found, op.results[0])
        elif op.definition is ops.add and all(v is not None and _ends(v) in found for v in op.operands):
            _add_end(found, op.results[0])
        elif op.name in _SAME_RANGE and _is_point(op.operands[0], found) and not _is_returned(op.results[0]):
            found[op.results[0]] = None
    named: dict[str, Value] = {}
    for value in found:
        if (value.dtype is f32 and value.ndim and value.op is not None) or value.op is None:
            named[_name(value, named)] = value
    return named


def _is_point(value: Value | None, found: Mapping[Value, None]) -> bool:
    return value is not None and value in found


def _has_integer_kernel(op: Op) -> bool:
    if op.name not in _KERNELS or op.operands[1] is None:
        return False
    kernel = op.operands[1].op
    return kernel is not None and kernel.definition is ops.dequantize and op.operands[0] is not op.operands[1]


def _ends(value: Value) -> Value:
    """The value, or the rectified one where nothing else reads it."""
    users = list(value.uses or ())
    return users[0].results[0] if len(users) == 1 and users[0].name in _ENDS else value


def _add_end(found: dict[Value, None], value: Value) -> None:
    end = _ends(value)
    if not _is_returned(end):
        found[end] = None


def _is_returned(value: Value) -> bool:
    return any(user.name in ("return", "yield") for user in value.uses or ())


def _name(value: Value, taken: Mapping[str, Value]) -> str:
    op = value.op
    base = str(value.name) if op is None else f"{op.location.scope.path}/{op.name}".lstrip("/")
    number, name = 1, base
    while name in taken:
        name, number = f"{base}#{number}", number + 1
    return name


# --- static ---------------------------------------------------------------------------------------------------------


def scale_of(low: float, high: float) -> tuple[Array, Array]:
    """Scale and zero point (f32[], u8[]) for values of this range, which is widened to have 0."""
    least, most = np.asarray(min(low, 0.0)), np.asarray(max(high, 0.0))
    scale = rounded_scales(most - least, 255, f32, "an activation")
    return scale, zero_points_of(least, scale.astype(np.float64), (0, 255), u8)


def quantize_activations(module: Module, ranges: Mapping[str, Range], entry: str | None = None) -> list[str]:
    """Quantize the values of `points` that have a range, in place; returns their names.

    Raises `GraphcError` for a range of a value that there is not, and for one that is none; `UnsupportedError` where
    there is no such value at all.
    """
    function = module.entry(entry)
    there = points(function)
    if not there:
        raise _nothing_read_in_integers()
    for name, (low, high) in ranges.items():
        if name not in there:
            raise GraphcError(f"a range is given for {name!r}, which is no value to quantize{nearest(name, there)}")
        if not (np.isfinite(low) and np.isfinite(high) and low <= high):
            raise GraphcError(f"the range of {name!r} is [{low}, {high}]: both are numbers, the lower one first")
    rewriter = Rewriter()
    for name in ranges:
        value = there[name]
        source = value.op
        shared = ranges.get(_name_of(source.operands[0], there)) if source is not None and _keeps(source) else None
        scale, zero_point = scale_of(*(shared or ranges[name]))
        _replace(function, value, scale, zero_point, rewriter)
    rewriter.flush()
    return list(ranges)


def _nothing_read_in_integers() -> UnsupportedError:
    return UnsupportedError(
        "no product or convolution reads float32 beside a kernel of int8, and activations of other floats are not "
        "quantized: leave `activations` and `data` out, which stores the weights alone"
    )


def _keeps(op: Op) -> bool:
    return op.name in _SAME_RANGE


def _name_of(value: Value | None, there: Mapping[str, Value]) -> str:
    if value is not None and value.op is not None and value.op.definition is ops.dequantize:
        quantized = value.op.operands[0]
        assert quantized is not None and quantized.op is not None
        value = quantized.op.operands[0]
    return next((name for name, each in there.items() if each is value), "")


def _replace(function: Function, value: Value, scale: Array, zero_point: Array, rewriter: Rewriter) -> None:
    """Let what reads the value read it quantized and dequantized."""
    users = [user for user in value.uses or () if user.name not in ("return", "yield")]
    first = users[0] if value.op is None else value.op.next
    for user in users:
        if value.op is None and first is not None and user.block is function.block and user.is_before(first):
            first = user
    assert first is not None
    builder = rewriter.before(first)
    if value.op is not None:
        builder.location = value.op.location
    with builder:
        values = ops.quantize(value, scale, zero_point, dtype=u8)
        back = ops.dequantize(values, scale, zero_point, format=FORMAT, shape=value.shape, dtype=value.dtype)
    for user in users:
        rewriter.set_operands(user, [back if operand is value else operand for operand in user.operands])  # type: ignore[misc]


# --- dynamic --------------------------------------------------------------------------------------------------------


def quantize_dynamically(module: Module, weights: Container[str | None] | None = None) -> int:
    """Quantize what products with an int8 kernel read, each row by its own largest magnitude, in place; returns how
    many products there are. They become `integer_linear`; examples of a batch do not depend on each other. With
    `weights`, names of kernels' integers, products with other kernels stay, and there may be none; otherwise that is an
    `UnsupportedError`."""
    count = 0
    rewriter = Rewriter()
    for function in module.functions.values():
        made: dict[Value, Any] = {}
        for op in list(function.block):
            if op.name not in ("linear", "matmul") or not _has_integer_kernel(op):
                continue
            x, kernel = op.operands[:2]
            assert x is not None and kernel is not None and kernel.op is not None
            if kernel.op.attribute_dict["format"] not in INT8 or kernel.ndim != 2 or x.dtype is not f32 or x.ndim < 2:
                continue
            values, scales = kernel.op.operands
            if weights is not None and _weight_of(function, values) not in weights:
                continue
            with rewriter.before(op):
                if x not in made:
                    made[x] = ops.quantize_rows(x)
                bias = op.operands[2] if op.name == "linear" else None
                whole, row_scales = made[x]
                found: Any = ops.integer_linear(whole, row_scales, values, scales, None, bias)
            rewriter.replace(op, found)
            count += 1
    rewriter.flush()
    if count:
        dce(module)
    elif weights is None:
        raise _nothing_read_in_integers()
    return count


def _weight_of(function: Function, value: Value | None) -> str | None:
    """The weight that a value is, or is moved from."""
    while value is not None and value.op is not None:
        value = value.op.operands[0]
    return next((p.weight for p in function.parameters if p.value is value), None)


__all__ = ["FORMAT", "Range", "points", "quantize_activations", "quantize_dynamically", "scale_of"]
