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


# M. J. Wichura, "The percentage points of the normal distribution", Applied Statistics 37 (1988), algorithm AS 241.
QUANTILE_MIDDLE = (
    (2.5090809287301226727e3, 3.3430575583588128105e4, 6.7265770927008700853e4, 4.5921953931549871457e4,
     1.3731693765509461125e4, 1.9715909503065514427e3, 1.3314166789178437745e2, 3.3871328727963666080),
    (5.2264952788528545610e3, 2.8729085735721942674e4, 3.9307895800092710610e4, 2.1213794301586595867e4,
     5.3941960214247511077e3, 6.8718700749205790830e2, 4.2313330701600911252e1, 1),
)  # fmt: skip
QUANTILE_NEAR = (
    (7.74545014278341407640e-4, 2.27238449892691845833e-2, 2.41780725177450611770e-1, 1.27045825245236838258,
     3.64784832476320460504, 5.76949722146069140550, 4.63033784615654529590, 1.42343711074968357734),
    (1.05075007164441684324e-9, 5.47593808499534494600e-4, 1.51986665636164571966e-2, 1.48103976427480074590e-1,
     6.89767334985100004550e-1, 1.67638483018380384940, 2.05319162663775882187, 1),
)  # fmt: skip
QUANTILE_FAR = (
    (2.01033439929228813265e-7, 2.71155556874348757815e-5, 1.24266094738807843860e-3, 2.65321895265761230930e-2,
     2.96560571828504891230e-1, 1.78482653991729133580, 5.46378491116411436990, 6.65790464350110377720),
    (2.04426310338993978564e-15, 1.42151175831644588870e-7, 1.84631831751005468180e-5, 7.86869131145613259100e-4,
     1.48753612908506148525e-2, 1.36929880922735805310e-1, 5.99832206555887937690e-1, 1),
)  # fmt: skip


def erf_inv(x: Formula) -> Formula:
    a = abs(x)
    middle = x * 0.5 * _rational(0.180625 - x * x * 0.25, QUANTILE_MIDDLE)
    r = (0 - ((1 - a) * 0.5).map("Log")).map("Sqrt")
    tail = r.below(5, _rational(r - 1.6, QUANTILE_NEAR), _rational(r - 5, QUANTILE_FAR))
    tail = a.below(1, tail, a.below(1 + 2**-52, a * np.inf, np.nan))
    return a.below(0.85, middle, x.signed(tail)) * math.sqrt(0.5)


# C. Lanczos, "A precision approximation of the gamma function", SIAM J. Numerical Analysis 1 (1964), g = 7, n = 9.
LANCZOS = (
    676.5203681218851, -1259.1392167224028, 771.32342877765313, -176.61502916214059, 12.507343278686905,
    -0.13857109526572012, 9.9843695780195716e-6, 1.5056327351493116e-7,
)  # fmt: skip
BERNOULLI = (1 / 12, -1 / 120, 1 / 252, -1 / 240, 1 / 132, -691 / 32760, 1 / 12)
"""B(2k) / 2k for k = 1, 2, …"""


def _reflected(x: Formula) -> tuple[Formula, Formula]:
    """x where it is at least ½, else 1 − x, and how far x is from the nearest integer."""
    return x.below(0.5, 1 - x, x), x - x.map("Round")


def lgamma(x: Formula) -> Formula:
    z, rest = _reflected(x)
    z = z - 1
    series: Formula | float = 0.99999999999980993
    for i, coefficient in enumerate(LANCZOS, 1):
        series = coefficient / (z + i) + series
    t = z + 7.5
    found = (z + 0.5) * t.map("Log") - t + (series * math.sqrt(2 * math.pi)).map("Log")  # type: ignore[union-attr]
    found = abs(x).below(np.inf, found, abs(x))
    sine = abs((rest * math.pi).map("Sin"))
    reflected = math.log(math.pi) - sine.map("Log") - found
    return x.below(0.5, abs(x).below(np.inf, reflected, x), found)


def digamma(x: Formula) -> Formula:
    """The recurrence up to where the asymptotic series holds."""
    z, rest = _reflected(x)
    before = 1 / z
    for i in range(1, 10):
        before = before + 1 / (z + i)
    z = z + 10
    inverse = 1 / z
    square = inverse * inverse
    series = square * _polynomial(square, BERNOULLI[::-1])
    found = z.map("Log") - inverse * 0.5 - series - before
    angle = rest * math.pi
    reflected = found - math.pi * angle.map("Cos") / angle.map("Sin")
    pole = abs(rest).below(
        2**-1074, x.below(0, x * np.nan, x.of(x.graph.compute("Neg", x.x)).map("Reciprocal")), reflected
    )
    return x.below(0.5, pole, found)


def in_float64(kind: str, formula: Callable[[Formula], Formula]) -> Any:
    """A spelling by the node of this kind, or in float64 by the formula."""

    def spell(graph: GraphWriter, op: Op, x: Tensor) -> Tensor:
        return graph.compute(kind, x) if carrier(kind, x.dtype) is not None else formula(Formula(graph, x)).x

    return spell


def always_in_float64(formula: Callable[[Formula], Formula]) -> Any:
    """A spelling by the formula in float64, whose result is rounded."""

    def spell(graph: GraphWriter, op: Op, x: Tensor) -> Tensor:
        return graph.cast(formula(Formula(graph, graph.cast(x, f64))).x, x.dtype)

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
    "erf_inv": always_in_float64(erf_inv),
    "lgamma": always_in_float64(lgamma),
    "digamma": always_in_float64(digamma),
}

WHEN: dict[str, Any] = {}
