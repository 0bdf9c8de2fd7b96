"""Zeros around the image of a convolution as its own padding, which every target has for nothing."""

from __future__ import annotations

from typing import Any

from graphc.ir import ops
from graphc.ir.dims import Size
from graphc.ir.graph import Value
from graphc.ir.rewriter import Rewriter
from graphc.passes.driver import Rewritten, producer, rule


def _spatial(op: Any, ndim: int) -> range:
    return range(1, ndim - 1) if op.channels_last else range(2, ndim)


def _pairs(op: Any, ndim: int) -> list[tuple[Size, Size]] | None:
    """The padding of each spatial axis, where that is said by itself."""
    nothing: list[tuple[Size, Size]] = [(0, 0)] * (ndim - 2)
    if isinstance(op.padding, str):
        return nothing if op.padding == "valid" else None
    return list(op.padding)


def _is_zero(size: Size) -> bool:
    return isinstance(size, int) and size == 0


def _image_and_padding(op: Any, image: Value) -> tuple[Value, list[tuple[Size, Size]]] | None:
    """What stands in the zeros of `image`, and the padding of `op` with them."""
    pad: Any = producer(image, ops.pad)
    pairs = _pairs(op, image.ndim)
    if pad is None or pairs is None or pad.interior is not None or repr(pad.value) != "0.0":
        return None
    spatial = _spatial(op, image.ndim)
    around: list[tuple[Size, Size]] = list(pad.padding)
    if any(not _is_zero(size) for axis in range(image.ndim) if axis not in spatial for size in around[axis]):
        return None
    found = [(a + c, b + d) for (a, b), (c, d) in zip(pairs, (around[axis] for axis in spatial), strict=True)]
    return pad.x, found


@rule(ops.conv, ops.convolution)
def convolution_of_zeros_around(op: Any, rewriter: Rewriter) -> Rewritten:
    """convolution(pad(x, p), k, padding=q) = convolution(x, k, padding=p + q)"""
    found = _image_and_padding(op, op.x)
    if found is None:
        return None
    x, padding = found
    return op.definition(x, *op.operands[1:], **(op.attribute_dict | {"padding": padding}))


@rule(ops.convolution_kernel_gradient)
def kernel_gradient_of_zeros_around(op: Any, rewriter: Rewriter) -> Rewritten:
    """convolution_kernel_gradient(dy, pad(x, p), padding=q) = convolution_kernel_gradient(dy, x, padding=p + q)"""
    found = _image_and_padding(op, op.x)
    if found is None:
        return None
    x, padding = found
    return ops.convolution_kernel_gradient(op.dy, x, **(op.attribute_dict | {"padding": padding}))


@rule(ops.slice)
def cut_of_an_input_gradient(op: Any, rewriter: Rewriter) -> Rewritten:
    """A slice along the spatial axes of convolution_input_gradient(…, padding=q) is one with more padding"""
    inner: Any = producer(op.x, ops.convolution_input_gradient)
    if inner is None or op.x.use_count != 1 or (op.strides is not None and set(op.strides) != {1}):
        return None
    pairs, shape, spatial = _pairs(inner, op.x.ndim), op.x.shape, _spatial(inner, op.x.ndim)
    cut = [(start, size - limit) for start, limit, size in zip(op.starts, op.limits, shape, strict=True)]
    if pairs is None or any(not _is_zero(n) for axis, pair in enumerate(cut) if axis not in spatial for n in pair):
        return None
    padding = [(a + c, b + d) for (a, b), (c, d) in zip(pairs, (cut[axis] for axis in spatial), strict=True)]
    attributes = inner.attribute_dict | {"padding": padding, "shape": op.result.shape}
    return ops.convolution_input_gradient(inner.dy, inner.kernel, **attributes)
