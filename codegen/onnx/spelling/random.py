"""Random words, and the inverse of the error function, which makes normal numbers of them."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphc.codegen.onnx.graph import GraphWriter, Tensor
from graphc.codegen.onnx.spelling.elementwise import less, log1p, number, widened
from graphc.ir.dtypes import bool_, i64, u32
from graphc.ir.graph import Op
from graphc.ir.ops.random import PARITY, ROTATIONS


def threefry(graph: GraphWriter, op: Op, key: Tensor, high: Tensor, low: Tensor) -> list[Tensor]:
    """Threefry-2x32 in uint32. A rotation is a product plus a shift: ONNX Runtime multiplies and adds faster than it
    shifts and joins."""

    def add(x: Tensor, y: Tensor) -> Tensor:
        return graph.compute("Add", x, y)

    def xor(x: Tensor, y: Tensor) -> Tensor:
        return graph.compute("BitwiseXor", x, y)

    def constant(value: int) -> Tensor:
        return graph.constant(value, u32)

    first, second = (graph.compute("Gather", key, graph.constant(i, i64).name, axis=0) for i in range(2))
    keys = (first, second, xor(xor(first, second), constant(PARITY)))
    x, y = add(high, keys[0]), add(low, keys[1])
    for i in range(5):
        for count in ROTATIONS[i % 2]:
            x = add(x, y)
            shifted = graph.compute("BitShift", y, constant(32 - count), direction="RIGHT")
            y = xor(add(graph.compute("Mul", y, constant(1 << count)), shifted), x)
        x = add(x, keys[(i + 1) % 3])
        y = add(y, add(keys[(i + 2) % 3], constant(i + 1)))
    return [x, y]


# Giles, "Approximating the erfinv function", 2010: a polynomial in w = −log(1 − x²) for w < 5, one in √w beyond.
_CENTRE = (2.81022636e-08, 3.43273939e-07, -3.5233877e-06, -4.39150654e-06, 0.00021858087, -0.00125372503,
           -0.00417768164, 0.246640727, 1.50140941)  # fmt: skip
_TAIL = (-0.000200214257, 0.000100950558, 0.00134934322, -0.00367342844, 0.00573950773, -0.0076224613,
         0.00943887047, 1.00167406, 2.83297682)  # fmt: skip


def erf_inv(graph: GraphWriter, op: Op, x: Tensor) -> Tensor:
    """In float32."""
    dtype, x = x.dtype, widened(graph, x)
    w = graph.compute("Neg", log1p(graph, graph.compute("Neg", graph.compute("Mul", x, x))))
    central = less(graph, w, number(graph, 5, x))
    root = graph.compute("Sqrt", w)
    near = _polynomial(graph, graph.compute("Sub", w, number(graph, 2.5, x)), _CENTRE)
    far = _polynomial(graph, graph.compute("Sub", root, number(graph, 3, x)), _TAIL)
    y = graph.compute("Mul", graph.where(central, near, far), x)
    ends = graph.compute("Equal", graph.compute("Abs", x), number(graph, 1, x), result=bool_)
    y = graph.where(ends, graph.compute("Mul", x, number(graph, np.inf, x)), y)
    return graph.cast(y, dtype)


def _polynomial(graph: GraphWriter, x: Tensor, coefficients: tuple[float, ...]) -> Tensor:
    """By Horner's rule, the highest power's coefficient first."""
    found = number(graph, coefficients[0], x)
    for coefficient in coefficients[1:]:
        found = graph.compute("Add", graph.compute("Mul", found, x), number(graph, coefficient, x))
    return found


SPELLING: dict[str, Any] = {"threefry": threefry, "erf_inv": erf_inv}

WHEN: dict[str, Any] = {"erf_inv": lambda op: op.results[0].type.dtype.bits <= 32}
