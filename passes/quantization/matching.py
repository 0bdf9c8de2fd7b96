"""From `linear(x, dequantize(…))` to `quantized_linear`, and transposes into what is dequantized.

`absorb_transposes` runs where weights are quantized; `match_linear` late, so that passes before it see a product.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from graphc.ir import ops
from graphc.ir.dtypes import f32, f64
from graphc.ir.formats import AWQ, Int8, parse_format
from graphc.ir.module import Module
from graphc.ir.rewriter import Rewriter
from graphc.passes.driver import Rewritten, apply_rules, producer, rule
from graphc.passes.fold_weights import fold_weights
from graphc.passes.permutations import filters_first

INT8 = ("int8", "int8{reduced}")


@rule(ops.transpose)
def transpose_of_dequantized(op: Any, rewriter: Rewriter) -> Rewritten:
    """transpose(dequantize(values, …), p) = dequantize(transpose(values, p), …), its channels along the moved axis;
    formats of rows need not be moved where their matrix is"""
    inner = producer(op.x, ops.dequantize)
    if inner is None:
        return None
    form, rank = parse_format(inner.format), len(inner.shape)
    shape = tuple(inner.shape[axis] for axis in op.permutation)
    axis = op.permutation.index(form.channel_axis(rank))
    if isinstance(form, Int8):
        values, *rest = inner.operands
        parts = [ops.transpose(values, permutation=op.permutation), *rest]
    elif rank == 2:
        parts = inner.operands
    else:
        return None
    moved = replace(form, axis=None if axis == rank - 1 else axis)
    return ops.dequantize(*parts, format=str(moved), shape=shape, dtype=inner.dtype)  # type: ignore[return-value]


@rule(ops.linear, ops.matmul)
def linear_of_dequantized(op: Any, rewriter: Rewriter) -> Rewritten:
    """linear(x, dequantize(parts), bias) = quantized_linear(x, parts, bias), where nothing else reads the kernel"""
    x, kernel = op.operands[:2]
    inner = producer(kernel, ops.dequantize)
    if inner is None or x.dtype not in (f32, f64) or kernel.ndim != 2 or len(kernel.uses or ()) != 1:
        return None
    if inner.dtype is not x.dtype or x is kernel:
        return None
    bias = op.operands[2] if op.name == "linear" else None
    return ops.quantized_linear(x, bias, *inner.operands, format=inner.format, shape=inner.shape)  # type: ignore[return-value]


@rule(ops.linear, ops.matmul)
def linear_of_factors(op: Any, rewriter: Rewriter) -> Rewritten:
    """linear(x, dequantize(parts, factors), bias) = linear(x · factors, dequantize(parts), bias)"""
    x, kernel = op.operands[:2]
    inner = producer(kernel, ops.dequantize)
    if inner is None or x.dtype is not inner.dtype or kernel.ndim != 2 or x is kernel:
        return None
    form = parse_format(inner.format)
    if not isinstance(form, AWQ) or form.channel_axis(2) != 1:
        return None
    *parts, factors = inner.operands
    base = ops.dequantize(*parts, format=str(form.base), shape=inner.shape, dtype=inner.dtype)
    scaled = x * (factors if factors.dtype is x.dtype else ops.convert(factors, dtype=x.dtype))
    return op.definition(scaled, base, *op.operands[2:])


@rule(ops.linear, ops.matmul)
def linear_of_integers(op: Any, rewriter: Rewriter) -> Rewritten:
    """linear(dequantize(x, s, z), dequantize(w, t), bias) = integer_linear(x, s, w, t, z, bias), both of them bytes"""
    left, right = producer(op.operands[0], ops.dequantize), producer(op.operands[1], ops.dequantize)
    if left is None or right is None or left.format != "uint8{tensor}" or right.format not in INT8:
        return None
    if op.operands[1].ndim != 2 or right.dtype is not f32 or left.dtype is not f32:
        return None
    x, x_scale, zero_point = left.operands
    bias = op.operands[2] if op.name == "linear" else None
    return ops.integer_linear(x, x_scale, *right.operands, zero_point, bias)  # type: ignore[return-value]


@rule(ops.conv, ops.convolution)
def filters_first_of_dequantized(op: Any, rewriter: Rewriter) -> Rewritten:
    """conv(x, dequantize(values)) = conv(x, dequantize(transpose(values)), filters first), as torch and ONNX have it"""
    inner = producer(op.kernel, ops.dequantize)
    if inner is None or op.filters_first or not isinstance(parse_format(inner.format), Int8):
        return None
    kernel = ops.transpose(op.kernel, permutation=filters_first(op.kernel.ndim))
    operands = [op.x, kernel, *op.operands[2:]]
    return op.definition(*operands, **(op.attribute_dict | {"filters_first": True}))


@rule(ops.conv, ops.convolution)
def conv_of_dequantized(op: Any, rewriter: Rewriter) -> Rewritten:
    """conv(x, dequantize(parts), bias) = quantized_conv(x, parts, bias), channels and filters first, where nothing else
    reads the kernel"""
    x, kernel, *bias = op.operands
    inner = producer(kernel, ops.dequantize)
    if inner is None or x is kernel or len(kernel.uses or ()) != 1 or x.dtype is not f32 or inner.dtype is not f32:
        return None
    form = parse_format(inner.format)
    if not isinstance(form, Int8) or form.tensor or len(inner.operands) != 2:
        return None
    attributes = dict(op.attribute_dict)
    if attributes.pop("channels_last") or not attributes.pop("filters_first"):
        return None
    given = {"format": inner.format, "shape": inner.shape, **attributes}
    return ops.quantized_conv(x, *inner.operands, *bias, **given)  # type: ignore[return-value]


def store_filters_first(module: Module) -> None:
    """Store the integers of kernels of convolutions filters first."""
    if any(op.definition is ops.dequantize for op in module.walk()):
        apply_rules(module, [filters_first_of_dequantized, transpose_of_dequantized])
        fold_weights(module)


def absorb_transposes(module: Module) -> None:
    """Let weights be dequantized in the order in which they are read."""
    apply_rules(module, [transpose_of_dequantized])


def match_conv(module: Module) -> None:
    """Make `quantized_conv` of convolutions with a kernel of 8 bits."""
    if any(op.definition is ops.dequantize for op in module.walk()):
        apply_rules(module, [conv_of_dequantized])


def match_linear(module: Module) -> None:
    """Make `integer_linear` of products of dequantized activations, `quantized_linear` of others with such a kernel."""
    if any(op.definition is ops.dequantize for op in module.walk()):
        apply_rules(module, [linear_of_integers, linear_of_factors, linear_of_dequantized])
