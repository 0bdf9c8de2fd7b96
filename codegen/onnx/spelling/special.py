"""Trigonometric and hyperbolic functions, and erf. ONNX Runtime's kernels of most are float32's; in float64 they are
written with those that it has (exp, log, sqrt, sin, cos), such that nothing cancels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphc.codegen.onnx.graph import GraphWriter, Tensor
from graphc.codegen.onnx.kernels import carrier
from graphc.codegen.onnx.spelling.elementwise import either, equal, expm1, less, log1p, number, widened
from graphc.codegen.onnx.spelling.native import native
from graphc.ir.dtypes import f32, f64
from graphc.ir.graph import Op


class Formula:
    """Arithmetic on tensors, so that a formula reads as one."""

    def __init__(self, graph: GraphWriter, x: Tensor) -> None:
        self.graph = graph
        self.x = x

    def of(self, x: Tensor) -> Formula:
        return Formula(self.graph, x)

    def _with(self, kind: str, other: Formula | float, swapped: bool = False) -> Formula:
        y = other.x if isinstance(other, Formula) else number(self.graph, other, self.x)
        operands = (y, self.x) if swapped else (self.x, y)
        return self.of(self.graph.compute(kind, *operands))

    def __add__(self, other: Formula | float) -> Formula:
        return self._with("Add", other)

    def __sub__(self, other: Formula | float) -> Formula:
        return self._with("Sub", other)

    def __mul__(self, other: Formula | float) -> Formula:
        return self._with("Mul", other)

    def __truediv__(self, other: Formula | float) -> Formula:
        return self._with("Div", other)

    def __radd__(self, other: float) -> Formula:
        return self._with("Add", other)

    def __rsub__(self, other: float) -> Formula:
        return self._with("Sub", other, swapped=True)

    def __rmul__(self, other: float) -> Formula:
        return self._with("Mul", other)

    def __rtruediv__(self, other: float) -> Formula:
        return self._with("Div", other, swapped=True)

    def __abs__(self) -> Formula:
        return self.map("Abs")

    def map(self, kind: str) -> Formula:
        return self.of(self.graph.compute(kind, self.x))

    def below(self, limit: float, then: Formula, otherwise: Formula | float) -> Formula:
        """`then` where this is below `limit`, else `otherwise`, NaN included."""
        other = otherwise.x if isinstance(otherwise, Formula) else number(self.graph, otherwise, self.x)
        return self.of(self.graph.where(less(self.graph, self.x, number(self.graph, limit, self.x)), then.x, other))

    def signed(self, size: Formula) -> Formula:
        """`size` with the sign of this; this itself where it is 0."""
        return self.map("Sign") * size


def tan(x: Formula) -> Formula:
    return x.map("Sin") / x.map("Cos")


def sinh(x: Formula) -> Formula:
    a = abs(x)
    t = a.of(expm1(a.graph, a.x))
    half = (a * 0.5).map("Exp")
    return x.signed(a.below(22, (t + t / (t + 1)) * 0.5, half * 0.5 * half))


def cosh(x: Formula) -> Formula:
    a = abs(x)
    e, half = a.map("Exp"), (a * 0.5).map("Exp")
    return a.below(22, (e + 1 / e) * 0.5, half * 0.5 * half)


def atan(x: Formula) -> Formula:
    """The float32 angle, and what is missing: the angle between x and its tangent, which is as good as its own
    tangent."""
    graph = x.graph
    near = x.of(graph.cast(graph.compute("Atan", graph.cast(x.x, f32)), f64))
    sin, cos = near.map("Sin"), near.map("Cos")
    angle = near + (x * cos - sin) / (cos + x * sin)
    return abs(x).below(np.inf, angle, x.map("Sign") * (math.pi / 2))


def asin(x: Formula) -> Formula:
    return 2 * atan(x / (1 + ((1 - x) * (1 + x)).map("Sqrt")))


def acos(x: Formula) -> Formula:
    return 2 * atan(((1 - x) / (1 + x)).map("Sqrt"))


def asinh(x: Formula) -> Formula:
    a = abs(x)
    square = a * a
    near = a.of(log1p(a.graph, (a + square / (1 + (square + 1).map("Sqrt"))).x))
    return x.signed(a.below(1e8, near, a.map("Log") + math.log(2)))


def acosh(x: Formula) -> Formula:
    t = x - 1
    near = x.of(log1p(x.graph, (t + (t * (t + 2)).map("Sqrt")).x))
    found = x.below(1e8, near, x.map("Log") + math.log(2))
    return x.below(1, x * np.nan, found)


def atanh(x: Formula) -> Formula:
    a = abs(x)
    return x.signed(0.5 * a.of(log1p(a.graph, (2 * a / (1 - a)).x)))


# W. J. Cody, "Rational Chebyshev approximations for the error function", Mathematics of Computation 23 (1969).
# Highest powers first.
NEAR = (
    (1.85777706184603153e-1, 3.16112374387056560, 1.13864154151050156e2, 3.77485237685302021e2, 3.20937758913846947e3),
    (1, 2.36012909523441209e1, 2.44024637934444173e2, 1.28261652607737228e3, 2.84423683343917062e3),
)
MIDDLE = (
    (2.15311535474403846e-8, 5.64188496988670089e-1, 8.88314979438837594, 6.61191906371416295e1,
     2.98635138197400131e2, 8.81952221241769090e2, 1.71204761263407058e3, 2.05107837782607147e3,
     1.23033935479799725e3),
    (1, 1.57449261107098347e1, 1.17693950891312499e2, 5.37181101862009858e2, 1.62138957456669019e3,
     3.29079923573345963e3, 4.36261909014324716e3, 3.43936767414372164e3, 1.23033935480374942e3),
)  # fmt: skip
FAR = (
    (-1.63153871373020978e-2, -3.05326634961232344e-1, -3.60344899949804439e-1, -1.25781726111229246e-1,
     -1.60837851487422766e-2, -6.58749161529837803e-4),
    (1, 2.56852019228982242, 1.87295284992346725, 5.27905102951428412e-1, 6.05183413124413191e-2,
     2.33520497626869185e-3),
)  # fmt: skip


def _rational(x: Formula, coefficients: Sequence[Sequence[float]]) -> Formula:
    above, below = (_polynomial(x, each) for each in coefficients)
    return above / below


def _polynomial(x: Formula, coefficients: Sequence[float]) -> Formula:
    found: Formula | float = coefficients[0]
    for coefficient in coefficients[1:]:
        found = x * found + coefficient
    assert isinstance(found, Formula)
    return found


def erf(x: Formula) -> Formula:
    a = abs(x)
    square = a * a
    near = a * _rational(square, NEAR)
    gauss = (0 - square).map("Exp")
    middle = 1 - gauss * _rational(a, MIDDLE)
    inverse = 1 / square
    far = 1 - gauss / a * (1 / math.sqrt(math.pi) + inverse * _rational(inverse, FAR))
    return x.signed(a.below(0.46875, near, a.below(4, middle, a.below(6, far, 1))))


def in_float64(kind: str, formula: Callable[[Formula], Formula]) -> Any:
    """A spelling by the node of this kind, or in float64 by the formula."""

    def spell(graph: GraphWriter, op: Op, x: Tensor) -> Tensor:
        return graph.compute(kind, x) if carrier(kind, x.dtype) is not None else formula(Formula(graph, x)).x

    return spell


def negative(graph: GraphWriter, x: Tensor) -> Tensor:
    """Whether the sign bit is set, −0 included."""
    zero = number(graph, 0, x)
    return either(graph, less(graph, x, zero), less(graph, graph.compute("Reciprocal", x), zero))


def atan2(graph: GraphWriter, op: Op, y: Tensor, x: Tensor) -> Tensor:
    """The arctangent of the smaller by the larger of |y| and |x|, then unfolded octant by octant."""
    dtype, y, x = x.dtype, widened(graph, y), widened(graph, x)
    high, wide = graph.compute("Abs", y), graph.compute("Abs", x)
    small, large = graph.compute("Min", high, wide), graph.compute("Max", high, wide)
    zero, one, pi = (number(graph, value, x) for value in (0, 1, math.pi))
    ratio = graph.where(
        equal(graph, small, large),  # two infinities, or two zeros
        graph.where(equal(graph, large, zero), zero, one),
        graph.compute("Div", small, large),
    )
    angle = _angle(graph, ratio)
    steep = graph.compute("Sub", number(graph, math.pi / 2, x), angle)
    angle = graph.where(less(graph, wide, high), steep, angle)
    angle = graph.where(negative(graph, x), graph.compute("Sub", pi, angle), angle)
    return graph.cast(graph.where(negative(graph, y), graph.compute("Neg", angle), angle), dtype)


def _angle(graph: GraphWriter, x: Tensor) -> Tensor:
    return atan(Formula(graph, x)).x if x.dtype is f64 else graph.compute("Atan", x)


SPELLING: dict[str, Any] = {
    "sin": native("Sin"),
    "cos": native("Cos"),
    "tan": in_float64("Tan", tan),
    "asin": in_float64("Asin", asin),
    "acos": in_float64("Acos", acos),
    "atan": in_float64("Atan", atan),
    "atan2": atan2,
    "sinh": in_float64("Sinh", sinh),
    "cosh": in_float64("Cosh", cosh),
    "tanh": native("Tanh"),
    "asinh": in_float64("Asinh", asinh),
    "acosh": in_float64("Acosh", acosh),
    "atanh": in_float64("Atanh", atanh),
    "erf": in_float64("Erf", erf),
}

WHEN: dict[str, Any] = {}
