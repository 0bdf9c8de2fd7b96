"""Ops that map each element by itself, and those of several operands that broadcast; integers' oddities are in
`integer`."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from graphc.codegen.onnx.graph import GraphWriter, Tensor
from graphc.codegen.onnx.kernels import carrier
from graphc.codegen.onnx.spelling.native import native
from graphc.ir.dtypes import bool_, f16, f32
from graphc.ir.graph import Op


def widened(graph: GraphWriter, x: Tensor) -> Tensor:
    """Narrow floats as float32, for a formula whose steps must not be rounded to them."""
    return graph.cast(x, f32) if x.dtype.bits < 32 else x


def _wide(formula: Any) -> Any:
    """A spelling that computes in float32 at least and rounds once."""

    def spell(graph: GraphWriter, op: Op, *operands: Tensor) -> Tensor:
        return graph.cast(formula(graph, *[widened(graph, x) for x in operands]), op.results[0].dtype)

    return spell


def number(graph: GraphWriter, value: float, like: Tensor) -> Tensor:
    return graph.constant(value, like.dtype)


def neg(graph: GraphWriter, op: Op, x: Tensor) -> Tensor:
    if x.dtype.kind == "u":
        return graph.compute("Sub", number(graph, 0, x), x)
    return graph.compute("Neg", x)


def rsqrt(graph: GraphWriter, x: Tensor) -> Tensor:
    return graph.compute("Reciprocal", graph.compute("Sqrt", x))


def expm1(graph: GraphWriter, x: Tensor) -> Tensor:
    """Kahan: u = exp(x); (u − 1)·x / log(u), whose errors cancel."""
    one = number(graph, 1, x)
    u = graph.compute("Exp", x)
    d = graph.compute("Sub", u, one)
    y = graph.compute("Mul", d, graph.compute("Div", x, graph.compute("Log", u)))
    minus_one = number(graph, -1, x)
    y = graph.where(equal(graph, d, minus_one), minus_one, y)
    y = graph.where(equal(graph, u, number(graph, np.inf, x)), u, y)
    return graph.where(equal(graph, d, number(graph, 0, x)), x, y)


def log1p(graph: GraphWriter, x: Tensor) -> Tensor:
    """Kahan: u = 1 + x; log(u)·x / (u − 1), whose errors cancel."""
    one = number(graph, 1, x)
    u = graph.compute("Add", one, x)
    d = graph.compute("Sub", u, one)
    log = graph.compute("Log", u)
    y = graph.compute("Mul", log, graph.compute("Div", x, d))
    y = graph.where(equal(graph, d, x), log, y)
    return graph.where(equal(graph, d, number(graph, 0, x)), x, y)


def sigmoid(graph: GraphWriter, op: Op, x: Tensor) -> Tensor:
    """ONNX Runtime's own is 0 below −18 in float32, and in float64 has three digits there."""
    if x.dtype is f16:
        return graph.compute("Sigmoid", x)
    return graph.cast(logistic(graph, widened(graph, x), number(graph, 1, widened(graph, x))), x.dtype)


def logistic(graph: GraphWriter, x: Tensor, numerator: Tensor) -> Tensor:
    """numerator / (1 + exp(−x))"""
    below = graph.compute("Add", number(graph, 1, x), graph.compute("Exp", graph.compute("Neg", x)))
    return graph.compute("Div", numerator, below)


def equal(graph: GraphWriter, x: Tensor, y: Tensor) -> Tensor:
    return graph.compute("Equal", x, y, result=bool_)


def less(graph: GraphWriter, x: Tensor, y: Tensor) -> Tensor:
    return graph.compute("Less", x, y, result=bool_)


def either(graph: GraphWriter, x: Tensor, y: Tensor) -> Tensor:
    return graph.compute("Or", x, y)


def is_finite(graph: GraphWriter, op: Op, x: Tensor) -> Tensor:
    x = widened(graph, x)
    return less(graph, graph.compute("Abs", x), number(graph, np.inf, x))


def not_(graph: GraphWriter, op: Op, x: Tensor) -> Tensor:
    return graph.compute("Not" if x.dtype.is_bool else "BitwiseNot", x)


def logic(on_bool: str, on_integers: str) -> Any:
    return lambda graph, op, x, y: graph.compute(on_bool if x.dtype.is_bool else on_integers, x, y)


def extremum(kind: str, on_bool: str) -> Any:
    return lambda graph, op, x, y: graph.compute(on_bool if x.dtype.is_bool else kind, x, y)


def not_equal(graph: GraphWriter, op: Op, x: Tensor, y: Tensor) -> Tensor:
    return graph.compute("Not", equal(graph, x, y))


def select(graph: GraphWriter, op: Op, condition: Tensor, on_true: Tensor, on_false: Tensor) -> Tensor:
    return graph.where(condition, on_true, on_false)


def clip(graph: GraphWriter, op: Op, x: Tensor, low: Tensor, high: Tensor) -> Tensor:
    return graph.compute("Clip", x, low, high)


def _clips(op: Op) -> bool:
    """`Clip` takes scalars only and forgets a NaN among them."""
    bounds = [v.op for v in op.operands[1:]]  # type: ignore[union-attr]
    known = all(b is not None and b.name == "constant" and isinstance(b.attributes[0], (int, float)) for b in bounds)
    return (
        known
        and not any(math.isnan(b.attributes[0]) for b in bounds)  # type: ignore[union-attr]
        and carrier("Clip", op.results[0].dtype) is not None
    )


SPELLING: dict[str, Any] = {
    "neg": neg,
    "abs": native("Abs"),
    "sign": native("Sign"),
    "exp": native("Exp"),
    "expm1": _wide(expm1),
    "log": native("Log"),
    "log1p": _wide(log1p),
    "sqrt": native("Sqrt"),
    "rsqrt": _wide(rsqrt),
    "sigmoid": sigmoid,
    "floor": native("Floor"),
    "ceil": native("Ceil"),
    "round_even": native("Round"),
    "is_finite": is_finite,
    "is_nan": lambda graph, op, x: graph.is_nan(x),
    "not": not_,
    "add": native("Add"),
    "sub": native("Sub"),
    "mul": native("Mul"),
    "maximum": extremum("Max", "Or"),
    "minimum": extremum("Min", "And"),
    "and": logic("And", "BitwiseAnd"),
    "or": logic("Or", "BitwiseOr"),
    "xor": logic("Xor", "BitwiseXor"),
    "eq": native("Equal", bool_),
    "ne": not_equal,
    "lt": native("Less", bool_),
    "le": native("LessOrEqual", bool_),
    "gt": native("Greater", bool_),
    "ge": native("GreaterOrEqual", bool_),
    "select": select,
    "clip": clip,
}

WHEN: dict[str, Any] = {"clip": _clips}
