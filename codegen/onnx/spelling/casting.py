"""Casts. ONNX leaves open what a float out of range becomes as an integer; graphc saturates and takes NaN to 0."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphc.codegen.onnx.graph import GraphWriter, Tensor
from graphc.codegen.onnx.kernels import ELEMENT_TYPES
from graphc.codegen.onnx.spelling.elementwise import less, number, widened
from graphc.ir.dtypes import DType, f32, i8, i32, u8
from graphc.ir.graph import Op
from graphc.ir.ops.casting import integer_limits


def convert(graph: GraphWriter, op: Op, x: Tensor) -> Tensor:
    dtype: DType = op.attributes[0]
    if x.dtype is dtype:
        return x
    if x.dtype.is_float and dtype.is_integer:
        return saturated(graph, x, dtype)
    if dtype.is_bool and x.dtype.is_float:
        x = widened(graph, x)
    if dtype.is_integer and dtype.bits == 4 and x.dtype.is_integer:
        x = graph.cast(x, i8 if dtype.kind == "i" else u8)  # wraps; a cast to 4 bits keeps the low ones
    if x.dtype.bits == 4 and not x.dtype.is_bool:
        x = graph.cast(x, i32)
    return graph.cast(x, dtype)


def saturated(graph: GraphWriter, x: Tensor, dtype: DType) -> Tensor:
    x = widened(graph, x)
    low, high = integer_limits(dtype)
    x = graph.where(graph.is_nan(x), number(graph, 0, x), x)
    if dtype.bits <= (16 if x.dtype is f32 else 32):  # the limits are floats: clamp to them
        x = graph.compute("Clip", x, number(graph, low, x), number(graph, high, x))
        return graph.cast(graph.cast(x, i32) if dtype.bits == 4 else x, dtype)
    kind = np.float32 if x.dtype is f32 else np.float64
    below = float(np.nextafter(kind(high + 1), kind(0)))  # the greatest float the dtype can hold
    inside = graph.cast(graph.compute("Clip", x, number(graph, low, x), number(graph, below, x)), dtype)
    return graph.where(less(graph, number(graph, below, x), x), graph.constant(high, dtype), inside)


def bitcast(graph: GraphWriter, op: Op, x: Tensor) -> Tensor:
    dtype: DType = op.attributes[0]
    if x.dtype is dtype:
        return x
    if x.dtype.is_integer and dtype.is_integer:
        return graph.cast(x, dtype)  # wraps
    graph.needs_bitcast = True
    return graph.node("BitCast", [x.name], dtype, to=ELEMENT_TYPES[dtype])


def _bitcasts(op: Op) -> bool:
    return not any(v.dtype.is_bool and op.attributes[0] is not v.dtype for v in (op.operands[0], op.results[0]))  # type: ignore[union-attr]


SPELLING: dict[str, Any] = {"convert": convert, "bitcast": bitcast}

WHEN: dict[str, Any] = {"bitcast": _bitcasts}
