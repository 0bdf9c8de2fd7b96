"""Integers: QDQ that ONNX Runtime fuses into its integer kernels, and `MatMulInteger`; `few_bits` has weights alone.

A dequantized kernel that meets floats is written out in plain operations: the runtime folds these once, when it loads,
and computes with floats from then on. `DequantizeLinear`, which it does not fold, is for what meets dequantized
activations: `DequantizeLinear → Conv → QuantizeLinear` becomes `QLinearConv`, and so on for sums and poolings.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from graphc.codegen.onnx.graph import GraphWriter, Tensor
from graphc.codegen.onnx.spelling import contraction
from graphc.ir.dtypes import f32, i8, i32, u8
from graphc.ir.formats import Int8, parse_format
from graphc.ir.graph import Op, Value
from graphc.ir.ops.casting import integer_limits


def _dequantized(value: Value | None) -> Op | None:
    """The `dequantize` of which a value is, moved or not."""
    op = None if value is None else value.op
    while op is not None and op.name in ("transpose", "reshape"):
        op = None if op.operands[0] is None else op.operands[0].op
    return op if op is not None and op.name == "dequantize" else None


# --- quantize and dequantize ------------------------------------------------------------------------------------------


def is_quantize_linear(op: Op) -> bool:
    """Whether `QuantizeLinear` does the same: bytes, with all of their range."""
    attributes = op.attribute_dict
    x, _, zero_point = op.operands
    assert x is not None
    low, high = integer_limits(attributes["dtype"])
    whole = attributes["low"] in (None, low) and attributes["high"] in (None, high)
    alike = zero_point is None or zero_point.dtype is attributes["dtype"]
    return x.dtype is f32 and attributes["dtype"] in (i8, u8) and whole and alike


def quantize(graph: GraphWriter, op: Op, x: Tensor, scale: Tensor, zero_point: Tensor | None = None) -> Tensor:
    dtype = op.attribute_dict["dtype"]
    zeros = zero_point or _zeros(graph, op.operands[1], scale, dtype)
    axis = {} if not op.operands[1].ndim else {"axis": op.attribute_dict["axis"]}  # type: ignore[union-attr]
    return graph.node("QuantizeLinear", [x.name, scale.name, zeros.name], dtype, **axis)


def _zeros(graph: GraphWriter, like: Value | None, scale: Tensor, dtype: Any) -> Tensor:
    assert like is not None
    if all(isinstance(size, int) for size in like.shape):
        return graph.constant(np.zeros(like.shape), dtype)
    return graph.cast(graph.compute("Sub", scale, scale), dtype)


def is_dequantize_linear(op: Op) -> bool:
    """Whether it is bytes that all of its readers take in an integer kernel, or that were made from floats here."""
    form = parse_format(op.attribute_dict["format"])
    values, scales, *_ = op.operands
    assert values is not None and scales is not None
    if not isinstance(form, Int8) or op.results[0].dtype is not f32 or scales.dtype is not f32:
        return False
    if values.op is not None and values.op.name == "quantize":
        return True
    users = list(op.results[0].uses or ())
    return bool(users) and all(
        user.name in ("conv", "convolution") and _dequantized(user.operands[0]) is not None for user in users
    )


def dequantize(graph: GraphWriter, op: Op, *parts: Tensor) -> Tensor:
    form = parse_format(op.attribute_dict["format"])
    assert isinstance(form, Int8)
    axis = {} if form.tensor else {"axis": form.channel_axis(len(op.results[0].shape))}
    values, scales, *zero_points = parts
    zeros = zero_points[0] if zero_points else _zeros(graph, op.operands[1], scales, values.dtype)
    return graph.node("DequantizeLinear", [values.name, scales.name, zeros.name], f32, **axis)


# --- convolutions and products of integers ----------------------------------------------------------------------------


def with_integer_bias(spell: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A convolution whose bias is dequantized from i32 where the rest is: what the runtime fuses. Its scale is that of
    the products, so that rounding the bias is as fine as they are; the runtime folds that when it loads."""

    def convolution(graph: GraphWriter, op: Op, x: Tensor, kernel: Tensor, bias: Tensor | None = None) -> Tensor:
        left, right = _dequantized(op.operands[0]), _dequantized(op.operands[1])
        if bias is None or left is None or right is None or not _is_tensor(left) or op.operands[2].op is not None:  # type: ignore[union-attr]
            return spell(graph, op, x, kernel, bias)
        scales = [graph.values[parts.operands[1]] for parts in (left, right)]  # type: ignore[index]
        scale = graph.compute("Mul", *scales)
        whole = graph.node("Cast", [graph.compute("Round", graph.compute("Div", bias, scale)).name], i32, to=6)
        return spell(graph, op, x, kernel, graph.node("DequantizeLinear", [whole.name, scale.name], f32, axis=0))

    return convolution


def _is_tensor(op: Op) -> bool:
    form = parse_format(op.attribute_dict["format"])
    return isinstance(form, Int8) and form.tensor


def dynamic_quantize(graph: GraphWriter, op: Op, x: Tensor) -> list[Tensor]:
    return graph.several("DynamicQuantizeLinear", [x.name], [u8, f32, u8])


def integer_linear(
    graph: GraphWriter,
    op: Op,
    x: Tensor,
    x_scale: Tensor,
    values: Tensor,
    scales: Tensor,
    x_zero_point: Tensor | None = None,
    bias: Tensor | None = None,
) -> Tensor:
    zeros = [] if x_zero_point is None else [x_zero_point.name]
    whole = graph.cast(graph.node("MatMulInteger", [x.name, values.name, *zeros], i32), f32)
    rows = op.operands[1]
    assert rows is not None
    if rows.ndim:
        # Both scales in one product would be fused into `MatMulIntegerToFloat`, which reads the first row's for all.
        y = graph.compute("Mul", graph.compute("Mul", whole, scales), graph.reshape(x_scale, (*rows.shape, 1)))
    else:
        y = graph.compute("Mul", whole, graph.compute("Mul", x_scale, scales))
    return y if bias is None else graph.compute("Add", y, bias)


SPELLING = {
    "quantize": quantize,
    "dequantize": dequantize,
    "dynamic_quantize": dynamic_quantize,
    "integer_linear": integer_linear,
    "conv": with_integer_bias(contraction.convolution),
}

WHEN = {
    "quantize": is_quantize_linear,
    "dequantize": is_dequantize_linear,
    "dynamic_quantize": lambda op: op.operands[0].dtype is f32,
    "integer_linear": lambda op: op.results[0].dtype is f32,
}
