"""Elementwise functions: arithmetic, comparisons, logic, exponentials, trigonometry, rounding, choices, casts."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from graphc.frontends.ops.dispatch import FUNCTIONS, counted, function, inexact, kind, tensor, truth
from graphc.ir import ops as ir
from graphc.ir.dtypes import dtype as dtype_of
from graphc.ir.errors import DTypeError
from graphc.ir.graph import Value


def _declare(name: str, body: Callable[..., Any], doc: str | None) -> Any:
    body.__name__ = body.__qualname__ = name
    body.__doc__ = doc
    return function(body)


def _unary(name: str, op: Any, prepare: Callable[[Any], Any] = tensor) -> Any:
    def body(x: Any) -> Any:
        # While tracing, a float goes straight to the op: what takes longest on this path is taken most.
        return op(x if type(x) is Value and x.type.dtype.kind == "f" else prepare(x))

    return _declare(name, body, op.__doc__)


def _binary(name: str, op: Any) -> Any:
    def body(x1: Any, x2: Any) -> Any:
        return op(x1, x2)

    return _declare(name, body, op.__doc__)


add = _binary("add", ir.add)
subtract = _binary("subtract", ir.sub)
multiply = _binary("multiply", ir.mul)
maximum = _binary("maximum", ir.maximum)
minimum = _binary("minimum", ir.minimum)
equal = _binary("equal", ir.eq)
not_equal = _binary("not_equal", ir.ne)
less = _binary("less", ir.lt)
less_equal = _binary("less_equal", ir.le)
greater = _binary("greater", ir.gt)
greater_equal = _binary("greater_equal", ir.ge)
bitwise_and = _binary("bitwise_and", ir.and_)
bitwise_or = _binary("bitwise_or", ir.or_)
bitwise_xor = _binary("bitwise_xor", ir.xor)
bitwise_left_shift = left_shift = _binary("bitwise_left_shift", ir.shift_left)
bitwise_right_shift = right_shift = _binary("bitwise_right_shift", ir.shift_right)

negative = _unary("negative", ir.neg)
absolute = _unary("absolute", ir.abs)
sign = _unary("sign", ir.sign)
square = _unary("square", ir.square)
bitwise_invert = bitwise_not = _unary("bitwise_not", ir.not_)
exp = _unary("exp", ir.exp, inexact)
expm1 = _unary("expm1", ir.expm1, inexact)
log = _unary("log", ir.log, inexact)
log1p = _unary("log1p", ir.log1p, inexact)
sqrt = _unary("sqrt", ir.sqrt, inexact)
rsqrt = _unary("rsqrt", ir.rsqrt, inexact)
sin = _unary("sin", ir.sin, inexact)
cos = _unary("cos", ir.cos, inexact)
tan = _unary("tan", ir.tan, inexact)
arcsin = _unary("arcsin", ir.asin, inexact)
arccos = _unary("arccos", ir.acos, inexact)
arctan = _unary("arctan", ir.atan, inexact)
sinh = _unary("sinh", ir.sinh, inexact)
cosh = _unary("cosh", ir.cosh, inexact)
tanh = _unary("tanh", ir.tanh, inexact)
arcsinh = _unary("arcsinh", ir.asinh, inexact)
arccosh = _unary("arccosh", ir.acosh, inexact)
arctanh = _unary("arctanh", ir.atanh, inexact)
sigmoid = _unary("sigmoid", ir.sigmoid, inexact)
erf = _unary("erf", ir.erf, inexact)
erfinv = _unary("erfinv", ir.erf_inv, inexact)
floor = _unary("floor", ir.floor, inexact)
ceil = _unary("ceil", ir.ceil, inexact)
isnan = _unary("isnan", ir.is_nan, inexact)
isfinite = _unary("isfinite", ir.is_finite, inexact)
real = _declare("real", lambda x: ir.real(x) if kind(x := tensor(x)).is_complex else x, ir.real.__doc__)
imag = _declare("imag", lambda x: ir.imag(x) if kind(x := tensor(x)).is_complex else x * 0, ir.imag.__doc__)
conjugate = conj = _declare(
    "conjugate", lambda x: ir.conj(x) if kind(x := tensor(x)).is_complex else x, ir.conj.__doc__
)
logical_not = _declare("logical_not", lambda x: ir.not_(truth(x)), "Whether elements are false.")
logical_and = _declare("logical_and", lambda x1, x2: ir.and_(truth(x1), truth(x2)), "Whether both are true.")
logical_or = _declare("logical_or", lambda x1, x2: ir.or_(truth(x1), truth(x2)), "Whether either is true.")
logical_xor = _declare("logical_xor", lambda x1, x2: ir.xor(truth(x1), truth(x2)), "Whether one of the two is true.")
abs = absolute
FUNCTIONS["abs"] = absolute


def _paired(x1: Any, x2: Any) -> tuple[Any, Any]:
    """Operands of a division: tensors of floats, a Python number as it is beside a tensor."""
    scalars = (bool, int, float, complex)
    if type(x1) in scalars and type(x2) in scalars:
        return inexact(x1), inexact(x2)
    return (x1 if type(x1) in scalars else inexact(x1)), (x2 if type(x2) in scalars else inexact(x2))


@function
def divide(x1: Any, x2: Any) -> Any:
    """`x1 / x2`; integers are divided as float32."""
    return ir.div(*_paired(x1, x2))


true_divide = divide


@function
def divide_no_nan(x1: Any, x2: Any) -> Any:
    """`x1 / x2`, and 0 where `x2` is 0."""
    x1, x2 = _paired(x1, x2)
    none = ir.eq(x2, 0)
    return ir.select(none, 0.0, ir.div(x1, ir.select(none, 1.0, x2)))


@function
def floor_divide(x1: Any, x2: Any) -> Any:
    """The greatest integer at most `x1 / x2`."""
    return ir.floor_div(x1, x2)


@function
def mod(x1: Any, x2: Any) -> Any:
    """The rest of `floor_divide`, with the sign of the divisor."""
    return ir.mod(x1, x2)


remainder = mod


@function
def power(x1: Any, x2: Any) -> Any:
    """`x1` to the power `x2`."""
    return ir.square(tensor(x1)) if type(x2) is int and x2 == 2 else ir.pow(x1, x2)


@function
def arctan2(x1: Any, x2: Any) -> Any:
    """The angle of the point (`x2`, `x1`)."""
    return ir.atan2(*_paired(x1, x2))


@function
def reciprocal(x: Any) -> Any:
    """1 / `x`."""
    return ir.div(1, inexact(x))


@function
def log2(x: Any) -> Any:
    """Logarithm to base 2."""
    return ir.log(inexact(x)) * (1 / math.log(2))


@function
def log10(x: Any) -> Any:
    """Logarithm to base 10."""
    return ir.log(inexact(x)) * (1 / math.log(10))


@function
def exp2(x: Any) -> Any:
    """2 to the power `x`."""
    return ir.exp(inexact(x) * math.log(2))


@function
def logaddexp(x1: Any, x2: Any) -> Any:
    """log(exp(x1) + exp(x2)), without overflow."""
    x1, x2 = _paired(x1, x2)
    larger = ir.maximum(x1, x2)
    difference = ir.sub(x1, x2)
    # Where both are the same infinity their difference is NaN and the answer is that infinity.
    return ir.select(ir.is_nan(difference), ir.add(x1, x2), larger + ir.log1p(ir.exp(-ir.abs(difference))))


@function
def isinf(x: Any) -> Any:
    """Whether elements are infinite."""
    x = inexact(x)
    return ir.not_(ir.or_(ir.is_finite(x), ir.is_nan(x)))


@function
def round(x: Any, decimals: int = 0) -> Any:
    """The nearest number with so many decimals, the even one of two."""
    x = tensor(x)
    if not kind(x).is_float:
        if decimals < 0:
            raise DTypeError(f"round to {decimals} decimals takes floats, not {x.dtype}")
        return x
    return ir.round_even(x) if decimals == 0 else ir.round_even(x * 10.0**decimals) * 10.0**-decimals


@function
def trunc(x: Any) -> Any:
    """Rounded towards 0."""
    x = tensor(x)
    return ir.select(ir.lt(x, 0), ir.ceil(x), ir.floor(x)) if kind(x).is_float else x


@function
def clip(x: Any, x_min: Any, x_max: Any) -> Any:
    """`x` between `x_min` and `x_max`."""
    return ir.clip(counted(x), x_min, x_max)


@function
def where(condition: Any, x1: Any = None, x2: Any = None) -> Any:
    """`x1` where the condition holds, else `x2`."""
    if x1 is None or x2 is None:
        raise DTypeError("where needs a value for both cases; the places where a condition holds have no fixed shape")
    return ir.select(truth(condition), x1, x2)


@function
def nan_to_num(x: Any, nan: float = 0.0, posinf: float | None = None, neginf: float | None = None) -> Any:
    """NaN and infinities replaced, infinities by the greatest and least number of the dtype unless given."""
    x = tensor(x)
    if not kind(x).is_float:
        return x
    limit = float(_float_limit(kind(x)))
    x = ir.select(ir.is_nan(x), nan, x)
    x = ir.select(ir.eq(x, math.inf), limit if posinf is None else posinf, x)
    return ir.select(ir.eq(x, -math.inf), -limit if neginf is None else neginf, x)


def _float_limit(of: Any) -> Any:
    import ml_dtypes

    return ml_dtypes.finfo(of.numpy).max


@function
def cast(x: Any, dtype: Any) -> Any:
    """`x` in another dtype."""
    x = tensor(x)
    wanted = dtype_of(dtype)
    return x if kind(x) is wanted else ir.convert(x, dtype=wanted)


@function
def convert_to_tensor(x: Any, dtype: Any = None, sparse: bool | None = None, ragged: bool | None = None) -> Any:
    """`x` as a tensor. Python numbers become float32 and int32."""
    if sparse or ragged:
        raise DTypeError("tensors are dense: neither sparse nor ragged ones exist")
    x = tensor(x)
    return x if dtype is None or kind(x) is dtype_of(dtype) else ir.convert(x, dtype=dtype_of(dtype))


def convert_to_numpy(x: Any) -> Any:
    """`x` as a NumPy array."""
    return np.asarray(x)


@function
def stop_gradient(x: Any) -> Any:
    """`x`, through which no gradient flows."""
    return ir.stop_gradient(tensor(x))


__all__ = [
    "abs",
    "absolute",
    "add",
    "arccos",
    "arccosh",
    "arcsin",
    "arcsinh",
    "arctan",
    "arctan2",
    "arctanh",
    "bitwise_and",
    "bitwise_invert",
    "bitwise_left_shift",
    "bitwise_not",
    "bitwise_or",
    "bitwise_right_shift",
    "bitwise_xor",
    "cast",
    "ceil",
    "clip",
    "conj",
    "conjugate",
    "convert_to_numpy",
    "convert_to_tensor",
    "cos",
    "cosh",
    "divide",
    "divide_no_nan",
    "equal",
    "erf",
    "erfinv",
    "exp",
    "exp2",
    "expm1",
    "floor",
    "floor_divide",
    "greater",
    "greater_equal",
    "imag",
    "isfinite",
    "isinf",
    "isnan",
    "left_shift",
    "less",
    "less_equal",
    "log",
    "log10",
    "log1p",
    "log2",
    "logaddexp",
    "logical_and",
    "logical_not",
    "logical_or",
    "logical_xor",
    "maximum",
    "minimum",
    "mod",
    "multiply",
    "nan_to_num",
    "negative",
    "not_equal",
    "power",
    "real",
    "reciprocal",
    "remainder",
    "right_shift",
    "round",
    "rsqrt",
    "sigmoid",
    "sign",
    "sin",
    "sinh",
    "sqrt",
    "square",
    "stop_gradient",
    "subtract",
    "tan",
    "tanh",
    "true_divide",
    "trunc",
    "where",
]
