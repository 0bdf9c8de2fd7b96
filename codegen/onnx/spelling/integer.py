"""Integer arithmetic as graphc means it, and the ops that share its names on floats.

ONNX Runtime's own deviates: `Div` ends the process for the least integer by −1, `Pow` goes through float64, `BitShift`
is for unsigned ones, sums and products over axes saturate.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from graphc.codegen.onnx.graph import GraphWriter, Tensor
from graphc.codegen.onnx.spelling.elementwise import either, equal, less, number
from graphc.ir import dtypes as dt
from graphc.ir.dtypes import DType
from graphc.ir.graph import Op

_UNSIGNED = {dt.i8: dt.u8, dt.i16: dt.u16, dt.i32: dt.u32, dt.i64: dt.u64}


def _divides_plainly(divisor: Any) -> bool:
    """Whether a divisor is a constant that neither is 0 nor turns the least integer around."""
    op = divisor.op
    if op is None or op.name != "constant":
        return False
    values = np.asarray(op.attributes[0])
    return bool(np.all(values != 0) and np.all(values != -1))


def div(graph: GraphWriter, op: Op, x: Tensor, y: Tensor) -> Tensor:
    """x / −1 is −x; x / 0 is unspecified, but must not end the run: a choice may drop it."""
    if x.dtype.is_float or _divides_plainly(op.operands[1]):
        return graph.compute("Div", x, y)
    one, zero = number(graph, 1, y), equal(graph, y, number(graph, 0, y))
    if x.dtype.kind == "i":
        minus = equal(graph, y, number(graph, -1, y))
        x = graph.where(minus, graph.compute("Neg", x), x)
        zero = either(graph, zero, minus)
    return graph.compute("Div", x, graph.where(zero, one, y))


def rem(graph: GraphWriter, op: Op, x: Tensor, y: Tensor) -> Tensor:
    if not x.dtype.is_float and not _divides_plainly(op.operands[1]):
        y = graph.where(equal(graph, y, number(graph, 0, y)), number(graph, 1, y), y)
    return graph.compute("Mod", x, y, fmod=1)


def power(graph: GraphWriter, op: Op, x: Tensor, y: Tensor) -> Tensor:
    if x.dtype.is_float:
        return graph.compute("Pow", x, y)
    exponent = op.operands[1].op  # type: ignore[union-attr]
    if exponent is not None and exponent.name == "constant" and isinstance(exponent.attributes[0], int):
        known = exponent.attributes[0]
        if known > 0:
            return _known_power(graph, x, known)
    return _power(graph, x, y)


def _known_power(graph: GraphWriter, x: Tensor, exponent: int) -> Tensor:
    found: Tensor | None = None
    while exponent:
        if exponent & 1:
            found = x if found is None else graph.compute("Mul", found, x)
        exponent >>= 1
        if exponent:
            x = graph.compute("Mul", x, x)
    assert found is not None
    return found


def _power(graph: GraphWriter, x: Tensor, y: Tensor) -> Tensor:
    """By squaring, a step for each bit of the exponent; negative powers are 0 but for 1 and −1."""
    one, zero, two = (number(graph, value, x) for value in (1, 0, 2))
    bits, square, found = y, x, one
    for _ in range(y.dtype.bits - (y.dtype.kind == "i")):
        odd = equal(graph, graph.compute("BitwiseAnd", bits, one), one)
        found = graph.where(odd, graph.compute("Mul", found, square), found)
        square, bits = graph.compute("Mul", square, square), graph.compute("Div", bits, two)
    if y.dtype.kind == "u":
        return found
    minus = number(graph, -1, x)
    odd = equal(graph, graph.compute("BitwiseAnd", y, one), one)
    sign = graph.where(equal(graph, x, minus), graph.where(odd, minus, one), zero)
    sign = graph.where(equal(graph, x, one), one, sign)
    return graph.where(less(graph, y, zero), sign, found)


def shift_left(graph: GraphWriter, op: Op, x: Tensor, y: Tensor) -> Tensor:
    bits, count = _unsigned(graph, x), _count(graph, y)
    moved = graph.compute("BitShift", bits, count, direction="LEFT")
    return graph.cast(_or_all_out(graph, y, moved, number(graph, 0, moved)), x.dtype)


def shift_right(graph: GraphWriter, op: Op, x: Tensor, y: Tensor) -> Tensor:
    """A negative x is shifted with its bits inverted, so that ones come in."""
    count = _count(graph, y)
    if x.dtype.kind == "u":
        moved = graph.compute("BitShift", x, count, direction="RIGHT")
        return _or_all_out(graph, y, moved, number(graph, 0, x))
    below = less(graph, x, number(graph, 0, x))
    bits = _unsigned(graph, graph.where(below, graph.compute("BitwiseNot", x), x))
    moved = graph.compute("BitShift", bits, count, direction="RIGHT")
    moved = graph.cast(_or_all_out(graph, y, moved, number(graph, 0, moved)), x.dtype)
    return graph.where(below, graph.compute("BitwiseNot", moved), moved)


def _unsigned(graph: GraphWriter, x: Tensor) -> Tensor:
    return graph.cast(x, _UNSIGNED.get(x.dtype, x.dtype))


def _count(graph: GraphWriter, y: Tensor) -> Tensor:
    """The count in the unsigned dtype: a negative one has become a huge one; it is limited to the width."""
    count = _unsigned(graph, y)
    return graph.compute("Min", count, graph.constant(y.dtype.bits - 1, count.dtype))


def _or_all_out(graph: GraphWriter, y: Tensor, moved: Tensor, none: Tensor) -> Tensor:
    count = _unsigned(graph, y)
    inside = less(graph, count, graph.constant(y.dtype.bits, count.dtype))
    return graph.where(inside, moved, none)


def comparable(graph: GraphWriter, x: Tensor) -> Tensor:
    """uint64, which few kernels compare, as int64 in the same order; `comparable_back` undoes it."""
    if x.dtype is not dt.u64:
        return x
    return graph.compute("BitwiseXor", graph.cast(x, dt.i64), graph.constant(-(2**63), dt.i64))


def comparable_back(graph: GraphWriter, x: Tensor, dtype: DType) -> Tensor:
    if dtype is not dt.u64:
        return x
    return graph.cast(graph.compute("BitwiseXor", x, graph.constant(-(2**63), dt.i64)), dt.u64)


SPELLING: dict[str, Any] = {
    "div": div,
    "rem": rem,
    "pow": power,
    "shift_left": shift_left,
    "shift_right": shift_right,
}


def _has_bytes(op: Op) -> bool:
    return op.results[0].dtype.bits >= 8


WHEN: dict[str, Any] = {"shift_left": _has_bytes, "shift_right": _has_bytes}
