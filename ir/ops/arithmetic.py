"""Elementwise ops of several operands, which broadcast: arithmetic, logic, shifts, comparisons, choices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from graphc.ir import ops
from graphc.ir.dtypes import ALL, BOOL, FLOATS, INTEGERS, NUMERIC, ORDERED, DType, bool_, c64, c128, dtype, f32, f64
from graphc.ir.graph import Value
from graphc.ir.inference import broadcast_shapes
from graphc.ir.opdef import BoolTensor, Draw, Primitive, Tensor, composite, primitive
from graphc.ir.ops.cotangents import holomorphic, unbroadcast
from graphc.ir.types import TensorType

Binary = Primitive[[Any, Any], Value]


def binary(
    name: str,
    reference: Callable[..., Any],
    dtypes: frozenset[DType],
    doc: str,
    *,
    vjp: Callable[..., Any] | None = None,
    result: DType | None = None,
    domains: tuple[tuple[float, float], tuple[float, float]] = ((-2.0, 2.0), (-2.0, 2.0)),
) -> Binary:
    """Declare a primitive of two operands that broadcast. `vjp` gives cotangents of the broadcast operands."""

    def rule(x: Tensor, y: Tensor) -> TensorType:
        return TensorType.of(result or x.dtype, broadcast_shapes(x.shape, y.shape))

    rule.__name__, rule.__doc__, rule.__module__ = name, doc, __name__
    op = primitive(dtypes=dtypes, name=name)(rule)
    op.reference(reference)
    if vjp is not None:
        op.vjp(holomorphic(summed(vjp)))
    first, second = domains
    op.sample(Draw((2, 3), *first), Draw((2, 3), *second))
    op.sample(Draw((2, 1, 3), *first), Draw((4, 1), *second))
    op.sample(Draw((), *first), Draw((3,), *second))
    op.sample(Draw((0, 3), *first), Draw((1, 3), *second))
    return op


def summed(vjp: Callable[..., Any]) -> Callable[..., Any]:
    """A gradient rule whose cotangents are summed down to the shapes of their operands."""

    def rule(dy: Any, out: Any, *operands: Any) -> tuple[Any, ...]:
        found = vjp(dy, out, *operands)
        return tuple(None if dx is None else unbroadcast(dx, x) for dx, x in zip(found, operands, strict=True))

    return rule


# --- arithmetic --------------------------------------------------------------------------------------------------


def truncated_quotient(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    if x.dtype.kind not in "iu":
        return x / y
    quotient, rest = np.floor_divide(x, y), np.remainder(x, y)
    return quotient + ((rest != 0) & ((x < 0) != (y < 0))).astype(x.dtype)


def integer_power(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    if x.dtype.kind not in "iu":
        return np.power(x, y)
    odd = np.where(y % 2 != 0, x, np.abs(x))
    return np.where(y >= 0, np.power(x, np.maximum(y, 0)), np.where(np.abs(x) == 1, odd, 0).astype(x.dtype))


def power_cotangents(dy: Any, out: Any, x: Any, y: Any) -> tuple[Any, Any]:
    """Where the exponent is 0 the power does not depend on the base; where the base is 0, not on the exponent."""
    lower = ops.select(ops.eq(y, 0), 1, y - 1)
    return dy * y * pow(x, lower), dy * out * ops.log(ops.select(ops.eq(x, 0), 1, x))


add = binary("add", np.add, NUMERIC, "x + y; integers wrap.", vjp=lambda dy, out, x, y: (dy, dy))
sub = binary("sub", np.subtract, NUMERIC, "x − y; integers wrap.", vjp=lambda dy, out, x, y: (dy, -dy))
mul = binary("mul", np.multiply, NUMERIC, "x · y; integers wrap.", vjp=lambda dy, out, x, y: (dy * y, dy * x))
div = binary(
    "div",
    truncated_quotient,
    NUMERIC,
    "x / y; the quotient of integers is truncated, and unspecified for y = 0.",
    vjp=lambda dy, out, x, y: (dy / y, -dy * out / y),
    domains=((-9, 9), (1, 4)),
)
rem = binary(
    "rem",
    np.fmod,
    FLOATS | INTEGERS,
    "What a truncating division leaves: x − trunc(x / y)·y, with the sign of x. Unspecified for integers and y = 0.",
    vjp=lambda dy, out, x, y: (dy, dy * (out - x) / y),
    domains=((-9, 9), (1, 4)),
)
pow = binary(
    "pow",
    integer_power,
    NUMERIC,
    "x to the power y; integers wrap, and negative powers of integers are truncated.",
    vjp=power_cotangents,
    domains=((0.2, 3), (-2, 3)),
)
atan2 = binary(
    "atan2",
    np.arctan2,
    FLOATS,
    "Angle of the point (y, x): atan(x / y) in the right quadrant, x being the ordinate.",
    vjp=lambda dy, out, x, y: (dy * y / (x * x + y * y), -dy * x / (x * x + y * y)),
    domains=((0.5, 2), (-2, 2)),
)


def tie_shares(dy: Any, wins: Any, ties: Any) -> Any:
    """The whole cotangent where an operand wins, half of it where it ties."""
    return ops.select(ties, dy * 0.5, ops.select(wins, dy, 0))


maximum = binary(
    "maximum",
    np.maximum,
    ORDERED,
    "The larger one; NaN if either is. The gradient of a tie is shared.",
    vjp=lambda dy, out, x, y: (tie_shares(dy, x > y, eq(x, y)), tie_shares(dy, y > x, eq(x, y))),
)
minimum = binary(
    "minimum",
    np.minimum,
    ORDERED,
    "The smaller one; NaN if either is. The gradient of a tie is shared.",
    vjp=lambda dy, out, x, y: (tie_shares(dy, x < y, eq(x, y)), tie_shares(dy, y < x, eq(x, y))),
)


@primitive(dtypes=frozenset({f32, f64}), name="complex")
def complex(re: Tensor, im: Tensor) -> TensorType:
    """The complex number of these parts."""
    return TensorType.of(c128 if re.dtype is f64 else c64, broadcast_shapes(re.shape, im.shape))


@complex.reference
def _(re, im):
    out = np.empty(np.broadcast_shapes(re.shape, im.shape), np.complex128)
    out.real, out.imag = re, im  # not re + 1j*im, which makes NaN of an infinite part
    return out


@complex.vjp
def _(dy, y, re, im):
    return unbroadcast(ops.real(dy), re), unbroadcast(ops.imag(dy), im)


complex.sample((2, 3), (3,))

# --- bits and logic ----------------------------------------------------------------------------------------------


def shifted(shift: Callable[..., Any], arithmetic: bool) -> Callable[..., Any]:
    """A shift in which a count of the width or more, or a negative one, moves all bits out."""

    def reference(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        width = 8 * x.dtype.itemsize
        inside = (y >= 0) & (y < width)
        beyond = np.where(x < 0, -1, 0).astype(x.dtype) if arithmetic else x.dtype.type(0)
        return np.where(inside, shift(x, np.where(inside, y, 0)), beyond)

    return reference


BITS = BOOL | INTEGERS
and_ = binary("and", np.bitwise_and, BITS, "Bits that are set in both; logical for bool.")
or_ = binary("or", np.bitwise_or, BITS, "Bits that are set in either; logical for bool.")
xor = binary("xor", np.bitwise_xor, BITS, "Bits that are set in one of the two; logical for bool.")
shift_left = binary(
    "shift_left",
    shifted(np.left_shift, False),
    INTEGERS,
    "x · 2^y, wrapped; 0 where y is negative or at least the width.",
    domains=((-9, 9), (0, 12)),
)
shift_right = binary(
    "shift_right",
    shifted(np.right_shift, True),
    INTEGERS,
    "floor(x / 2^y): signed dtypes fill with the sign, unsigned ones with 0, also where y is negative or at least the "
    "width.",
    domains=((-99, 99), (0, 12)),
)

# --- comparisons -------------------------------------------------------------------------------------------------

eq = binary("eq", np.equal, ALL, "Whether x = y; false for NaN.", result=bool_)
ne = binary("ne", np.not_equal, ALL, "Whether x ≠ y; true for NaN.", result=bool_)
lt = binary("lt", np.less, ORDERED, "Whether x < y; false for NaN.", result=bool_)
le = binary("le", np.less_equal, ORDERED, "Whether x ≤ y; false for NaN.", result=bool_)
gt = binary("gt", np.greater, ORDERED, "Whether x > y; false for NaN.", result=bool_)
ge = binary("ge", np.greater_equal, ORDERED, "Whether x ≥ y; false for NaN.", result=bool_)

# --- choices -----------------------------------------------------------------------------------------------------


@primitive
def select(condition: BoolTensor, on_true: Tensor, on_false: Tensor) -> TensorType:
    """`on_true` where the condition holds, `on_false` elsewhere; all three broadcast."""
    return TensorType.of(on_true.dtype, broadcast_shapes(condition.shape, on_true.shape, on_false.shape))


@select.reference
def _(condition, on_true, on_false):
    return np.where(condition, on_true, on_false)


@select.vjp
def _(dy, y, condition, on_true, on_false):
    return None, unbroadcast(select(condition, dy, 0), on_true), unbroadcast(select(condition, 0, dy), on_false)


select.sample(Draw((2, 3), dtype=bool_), (2, 3), (2, 3))
select.sample(Draw((2, 1), dtype=bool_), (3,), ())
select.sample(Draw((), dtype=bool_), (0, 2), (1, 2))


@composite(dtypes=ORDERED)
def clip(x: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """`x` limited to [low, high]; NaN stays NaN. The gradient is 1 on the closed interval."""
    return minimum(maximum(x, low), high)


@clip.reference
def _(x, low, high):
    return np.minimum(np.maximum(x, low), high)


@clip.vjp
def _(dy, y, x, low, high):
    inside = and_(x >= low, x <= high)
    below = and_(x < low, low <= high)
    above = maximum(x, low) > high
    return (
        unbroadcast(select(inside, dy, 0), x),
        unbroadcast(select(below, dy, 0), low),
        unbroadcast(select(above, dy, 0), high),
    )


clip.sample((3, 4), np.float32(-1), np.float32(1))
clip.sample((2, 3), Draw((3,), -1.5, -0.5), Draw((2, 1), 0.5, 1.5))


@composite(dtypes=FLOATS)
def lerp(x: Tensor, y: Tensor, *, weight: float) -> Tensor:
    """x + (y − x) · weight: `x` and `y` mixed, as a moving average is by its next value."""
    return x + (y - x) * weight


@lerp.reference
def _(x, y, *, weight):
    return x + (y - x) * weight


@lerp.vjp
def _(dz, z, x, y, *, weight):
    return unbroadcast(dz * (1 - weight), x), unbroadcast(dz * weight, y)


lerp.sample((3, 4), (3, 4), weight=0.1)
lerp.sample((3, 4), (4,), weight=0.75)


# --- composites --------------------------------------------------------------------------------------------------


@composite(dtypes=NUMERIC)
def square(x: Tensor) -> Tensor:
    """x · x."""
    return x * x


@square.reference
def _(x):
    return x * x


square.vjp(holomorphic(lambda dy, y, x: dy * 2 * x))
square.sample((2, 3))
square.sample(())


@composite(dtypes=FLOATS | INTEGERS)
def floor_div(x: Tensor, y: Tensor) -> Tensor:
    """The greatest integer that is at most x / y, as Python's `//`. Unspecified for integers and y = 0."""
    rest = rem(x, y)
    crossed = and_(ne(rest, 0), ne(rest < 0, y < 0))
    if not dtype(x.dtype).is_float:
        return div(x, y) - ops.convert(crossed, dtype=x.dtype)
    whole = ops.round_even((x - rest) / y)
    return select(eq(y, 0), x / y, select(crossed, whole - 1, whole))


@floor_div.reference
def _(x, y):
    return np.floor_divide(x, y)


@floor_div.vjp
def _(dy, out, x, y):
    return None, None


floor_div.sample(Draw((2, 3), -9, 9), Draw((3,), 1, 4))


@composite(dtypes=FLOATS | INTEGERS)
def mod(x: Tensor, y: Tensor) -> Tensor:
    """What `floor_div` leaves, with the sign of y, as Python's `%`. Unspecified for integers and y = 0."""
    rest = rem(x, y)
    return select(and_(ne(rest, 0), ne(rest < 0, y < 0)), rest + y, rest)


@mod.reference
def _(x, y):
    return np.mod(x, y)


mod.vjp(summed(lambda dy, out, x, y: (dy, dy * (out - x) / y)))
mod.sample(Draw((2, 3), -9, 9), Draw((3,), 1, 4))
