"""Unary primitives: one line each, by the factory `elementwise`.

A line gives the name, the meaning in NumPy or SciPy (on float64), the dtypes, what the op is, and its gradient. The
result has the operand's dtype unless `result` says otherwise. Samples are drawn from `domain`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import special

from graphc.ir import ops
from graphc.ir.dtypes import BOOL, COMPLEX, FLOATS, INTEGERS, NUMERIC, REAL, DType, bool_, c64, c128, dtype, f32, f64
from graphc.ir.graph import Value
from graphc.ir.opdef import Draw, Primitive, Tensor, primitive
from graphc.ir.ops.cotangents import holomorphic
from graphc.ir.types import TensorType

Unary = Primitive[[Any], Value]


def elementwise(
    name: str,
    reference: Callable[..., Any],
    dtypes: frozenset[DType],
    doc: str,
    *,
    vjp: Callable[..., Any] | None = None,
    result: DType | Callable[[DType], DType] | None = None,
    domain: tuple[float, float] = (-2.0, 2.0),
) -> Unary:
    """Declare a unary primitive that maps each element by itself."""

    def rule(x: Tensor) -> TensorType:
        if result is None:
            return x
        return x.with_dtype(result if isinstance(result, DType) else result(x.dtype))

    rule.__name__, rule.__doc__, rule.__module__ = name, doc, __name__
    op = primitive(dtypes=dtypes, name=name)(rule)
    op.reference(reference)
    if vjp is not None:
        op.vjp(holomorphic(vjp))
    op.sample(Draw((2, 3), *domain))
    op.sample(Draw((), *domain))
    op.sample(Draw((4, 0), *domain))
    return op


INEXACT = FLOATS | COMPLEX


def flat(dy: Any, y: Any, x: Any) -> None:
    """The gradient of a piecewise constant function: none."""
    return None


def real_part(of: DType) -> DType:
    return {c64: f32, c128: f64}.get(of, of)


# --- sign and size -----------------------------------------------------------------------------------------------

neg = elementwise("neg", np.negative, NUMERIC, "−x.", vjp=lambda dy, y, x: -dy)
sign = elementwise("sign", np.sign, REAL, "−1, 0 or 1 by the sign of x; NaN for NaN.", vjp=flat)
abs = elementwise("abs", np.abs, NUMERIC, "|x|. The gradient at 0 is 0.", result=real_part)


@abs.vjp
def _(dy, y, x):
    if not dtype(x.dtype).is_complex:
        return dy * sign(x)
    return dy * ops.select(y == 0, 0, x / y)


# --- exponentials and logarithms ---------------------------------------------------------------------------------

exp = elementwise("exp", np.exp, INEXACT, "e to the power x.", vjp=lambda dy, y, x: dy * y)
expm1 = elementwise("expm1", np.expm1, FLOATS, "exp(x) − 1, accurate near 0.", vjp=lambda dy, y, x: dy * (y + 1))
log = elementwise("log", np.log, INEXACT, "Natural logarithm.", vjp=lambda dy, y, x: dy / x, domain=(0.1, 4))
log1p = elementwise(
    "log1p", np.log1p, FLOATS, "log(1 + x), accurate near 0.", vjp=lambda dy, y, x: dy / (x + 1), domain=(-0.9, 4)
)
sqrt = elementwise("sqrt", np.sqrt, INEXACT, "Square root.", vjp=lambda dy, y, x: dy * 0.5 / y, domain=(0.1, 4))
rsqrt = elementwise(
    "rsqrt",
    lambda x: 1 / np.sqrt(x),
    INEXACT,
    "1 / sqrt(x).",
    vjp=lambda dy, y, x: dy * -0.5 * y / x,
    domain=(0.1, 4),
)
sigmoid = elementwise(
    "sigmoid", special.expit, FLOATS, "1 / (1 + exp(−x)).", vjp=lambda dy, y, x: dy * y * (1 - y), domain=(-6, 6)
)

# --- trigonometry ------------------------------------------------------------------------------------------------

sin = elementwise("sin", np.sin, INEXACT, "Sine of an angle in radians.", vjp=lambda dy, y, x: dy * cos(x))
cos = elementwise("cos", np.cos, INEXACT, "Cosine of an angle in radians.", vjp=lambda dy, y, x: -dy * sin(x))
tan = elementwise(
    "tan", np.tan, INEXACT, "Tangent of an angle in radians.", vjp=lambda dy, y, x: dy * (1 + y * y), domain=(-1, 1)
)
asin = elementwise(
    "asin", np.arcsin, FLOATS, "Angle whose sine is x.", vjp=lambda dy, y, x: dy * rsqrt(1 - x * x), domain=(-0.9, 0.9)
)
acos = elementwise(
    "acos",
    np.arccos,
    FLOATS,
    "Angle whose cosine is x.",
    vjp=lambda dy, y, x: -dy * rsqrt(1 - x * x),
    domain=(-0.9, 0.9),
)
atan = elementwise("atan", np.arctan, FLOATS, "Angle whose tangent is x.", vjp=lambda dy, y, x: dy / (1 + x * x))
sinh = elementwise("sinh", np.sinh, INEXACT, "Hyperbolic sine.", vjp=lambda dy, y, x: dy * cosh(x))
cosh = elementwise("cosh", np.cosh, INEXACT, "Hyperbolic cosine.", vjp=lambda dy, y, x: dy * sinh(x))
tanh = elementwise("tanh", np.tanh, INEXACT, "Hyperbolic tangent.", vjp=lambda dy, y, x: dy * (1 - y * y))
asinh = elementwise("asinh", np.arcsinh, FLOATS, "Inverse hyperbolic sine.", vjp=lambda dy, y, x: dy * rsqrt(x * x + 1))
acosh = elementwise(
    "acosh",
    np.arccosh,
    FLOATS,
    "Inverse hyperbolic cosine.",
    vjp=lambda dy, y, x: dy * rsqrt(x * x - 1),
    domain=(1.1, 4),
)
atanh = elementwise(
    "atanh",
    np.arctanh,
    FLOATS,
    "Inverse hyperbolic tangent.",
    vjp=lambda dy, y, x: dy / (1 - x * x),
    domain=(-0.9, 0.9),
)

# --- special functions -------------------------------------------------------------------------------------------

erf = elementwise(
    "erf", special.erf, FLOATS, "Error function.", vjp=lambda dy, y, x: dy * (2 / math.sqrt(math.pi)) * exp(-x * x)
)
erf_inv = elementwise(
    "erf_inv",
    special.erfinv,
    FLOATS,
    "Inverse of the error function.",
    vjp=lambda dy, y, x: dy * (math.sqrt(math.pi) / 2) * exp(y * y),
    domain=(-0.9, 0.9),
)
lgamma = elementwise(
    "lgamma",
    special.gammaln,
    FLOATS,
    "Logarithm of the absolute value of the gamma function.",
    vjp=lambda dy, y, x: dy * digamma(x),
    domain=(0.2, 5),
)
digamma = elementwise(
    "digamma",
    special.digamma,
    FLOATS,
    "Derivative of lgamma.",
    vjp=lambda dy, y, x: dy * ops.trigamma(x),
    domain=(0.2, 5),
)

# --- rounding and tests ------------------------------------------------------------------------------------------

floor = elementwise("floor", np.floor, FLOATS, "The greatest integer that is at most x.", vjp=flat)
ceil = elementwise("ceil", np.ceil, FLOATS, "The least integer that is at least x.", vjp=flat)
round_even = elementwise("round_even", np.rint, FLOATS, "The nearest integer, the even one of two.", vjp=flat)
is_finite = elementwise("is_finite", np.isfinite, INEXACT, "Whether x is neither infinite nor NaN.", result=bool_)
is_nan = elementwise("is_nan", np.isnan, INEXACT, "Whether x is NaN.", result=bool_)
not_ = elementwise("not", np.invert, BOOL | INTEGERS, "The bits of x inverted; logical not for bool.")

# --- complex numbers ---------------------------------------------------------------------------------------------

real = elementwise("real", np.real, COMPLEX, "Real part.", result=real_part)
imag = elementwise("imag", np.imag, COMPLEX, "Imaginary part.", result=real_part)
conj = elementwise("conj", np.conj, COMPLEX, "Complex conjugate.")


@real.vjp
def _(dy, y, x):
    return ops.complex(dy, ops.zeros_like(dy))


@imag.vjp
def _(dy, y, x):
    return ops.complex(ops.zeros_like(dy), dy)


@conj.vjp
def _(dy, y, x):
    return conj(dy)
