"""Identities of elementwise arithmetic that hold for NaN, infinities and −0. Part of `canonicalize`.

`x + 0` is not one of them for floats (−0 + 0 = 0), nor is `x * 0`, nor `x − x`; those are in `fast.py`.
"""

from __future__ import annotations

import math
from typing import Any

from graphc.ir import ops
from graphc.ir.graph import Value
from graphc.ir.rewriter import Rewriter
from graphc.passes.driver import Rewritten, producer, rule


def number(value: Value) -> Any:
    """The Python number of a scalar constant, else None."""
    op = producer(value, ops.constant)
    return op.value if op is not None and not isinstance(op.value, tuple) else None


def is_number(value: Value, wanted: float) -> bool:
    """Whether `value` is a scalar constant equal to `wanted`, sign of zero included."""
    found = number(value)
    if found is None or found != wanted:
        return False
    return isinstance(found, complex) or math.copysign(1, found) == math.copysign(1, wanted)


def unless_it_broadcasts(op: Any, value: Value) -> Value | None:
    """`value`, if it has the type of the op's result."""
    return value if value.type is op.results[0].type else None


EXTREMA = (ops.maximum, ops.minimum)


@rule(ops.add, ops.mul, ops.maximum, ops.minimum, ops.and_, ops.or_, ops.xor, ops.eq, ops.ne, of=[ops.constant])
def constants_stand_right(op: Any, rewriter: Rewriter) -> Rewritten:
    """c ∘ x = x ∘ c for a commutative ∘"""
    if not producer(op.x, ops.constant) or producer(op.y, ops.constant):
        return None
    # Of 0 and −0 a maximum is the one that the order decides.
    if op.definition in EXTREMA and op.x.dtype.is_float and not number(op.x):
        return None
    return op.definition(op.y, op.x)


MIRRORED = {ops.lt: ops.gt, ops.gt: ops.lt, ops.le: ops.ge, ops.ge: ops.le}


@rule(*MIRRORED, of=[ops.constant])
def compared_constants_stand_right(op: Any, rewriter: Rewriter) -> Rewritten:
    """c < x = x > c, and so on"""
    if producer(op.x, ops.constant) and not producer(op.y, ops.constant):
        return MIRRORED[op.definition](op.y, op.x)
    return None


@rule(ops.mul, ops.div, ops.pow, of=[ops.constant])
def neutral_one(op: Any, rewriter: Rewriter) -> Rewritten:
    """x·1 = x/1 = x¹ = x; not of complex numbers, where ∞·(1 + 0i) = ∞ + NaN·i"""
    if producer(op.y, ops.constant) and number(op.y) == 1 and not op.x.dtype.is_complex:
        return unless_it_broadcasts(op, op.x)
    return None


@rule(ops.add, of=[ops.constant])
def adding_nothing(op: Any, rewriter: Rewriter) -> Rewritten:
    """x + (−0) = x for floats, x + 0 = x for integers"""
    if not producer(op.y, ops.constant):
        return None
    kind = op.y.dtype
    if is_number(op.y, -0.0) if kind.is_float else kind.is_integer and number(op.y) == 0:
        return unless_it_broadcasts(op, op.x)
    return None


@rule(ops.sub, of=[ops.constant])
def subtracting_nothing(op: Any, rewriter: Rewriter) -> Rewritten:
    """x − 0 = x"""
    if producer(op.y, ops.constant) and not op.y.dtype.is_complex and is_number(op.y, 0.0):
        return unless_it_broadcasts(op, op.x)
    return None


@rule(ops.or_, ops.xor, of=[ops.constant])
def no_bits(op: Any, rewriter: Rewriter) -> Rewritten:
    """x or 0 = x xor 0 = x"""
    if producer(op.y, ops.constant) and number(op.y) == 0:
        return unless_it_broadcasts(op, op.x)
    return None


@rule(ops.and_, of=[ops.constant])
def all_bits(op: Any, rewriter: Rewriter) -> Rewritten:
    """x and true = x, x and −1 = x"""
    if not producer(op.y, ops.constant):
        return None
    kind = op.y.dtype
    full = True if kind.is_bool else -1 if kind.kind == "i" else 2**kind.bits - 1
    return unless_it_broadcasts(op, op.x) if number(op.y) == full else None


@rule(ops.shift_left, ops.shift_right, of=[ops.constant])
def shift_by_nothing(op: Any, rewriter: Rewriter) -> Rewritten:
    """x << 0 = x >> 0 = x"""
    if producer(op.y, ops.constant) and number(op.y) == 0:
        return unless_it_broadcasts(op, op.x)
    return None


@rule(ops.maximum, ops.minimum, ops.and_, ops.or_)
def of_one_operand(op: Any, rewriter: Rewriter) -> Rewritten:
    """max(x, x) = min(x, x) = x and x = x or x = x"""
    return op.x if op.x is op.y else None


INVOLUTIONS = (ops.neg, ops.not_, ops.conj)
IDEMPOTENT = (ops.abs, ops.relu, ops.relu6, ops.floor, ops.ceil, ops.round_even, ops.sign)


@rule(*INVOLUTIONS, of=INVOLUTIONS)
def involution(op: Any, rewriter: Rewriter) -> Rewritten:
    """−(−x) = x, and the same of not and conj"""
    inner = producer(op.x, op.definition)
    return None if inner is None else inner.x


@rule(
    ops.abs,
    ops.relu,
    ops.relu6,
    ops.floor,
    ops.ceil,
    ops.round_even,
    ops.sign,
    of=[ops.abs, ops.relu, ops.relu6, ops.floor, ops.ceil, ops.round_even, ops.sign],
)
def idempotent(op: Any, rewriter: Rewriter) -> Rewritten:
    """f(f(x)) = f(x)"""
    return None if producer(op.x, op.definition) is None else op.x


@rule(ops.abs, of=[ops.neg])
def sign_before_abs(op: Any, rewriter: Rewriter) -> Rewritten:
    """|−x| = |x|; not of unsigned integers, whose negation wraps"""
    inner = producer(op.x, ops.neg)
    return None if inner is None or op.x.dtype.kind == "u" else ops.abs(inner.x)


@rule(ops.add, of=[ops.neg])
def sum_with_negated(op: Any, rewriter: Rewriter) -> Rewritten:
    """x + (−y) = x − y and (−x) + y = y − x: exact, signs of zero included"""
    if inner := producer(op.y, ops.neg):
        return ops.sub(op.x, inner.x)
    if inner := producer(op.x, ops.neg):
        return ops.sub(op.y, inner.x)
    return None


@rule(ops.sub, of=[ops.neg])
def difference_with_negated(op: Any, rewriter: Rewriter) -> Rewritten:
    """x − (−y) = x + y"""
    inner = producer(op.y, ops.neg)
    return None if inner is None else ops.add(op.x, inner.x)


@rule(ops.mul, ops.div, of=[ops.neg])
def signs_cancel(op: Any, rewriter: Rewriter) -> Rewritten:
    """(−x)·(−y) = x·y, and the same of division"""
    first, second = producer(op.x, ops.neg), producer(op.y, ops.neg)
    # The quotient of the least integer by −1 wraps, that of its negation by 1 does not.
    if first is None or second is None or (op.definition is ops.div and not op.x.dtype.is_float):
        return None
    return op.definition(first.x, second.x)


@rule(ops.add, ops.mul, ops.and_, ops.or_, ops.xor, of=[ops.constant])
def integer_constants_meet(op: Any, rewriter: Rewriter) -> Rewritten:
    """(x ∘ a) ∘ b = x ∘ (a ∘ b) for wrapping integers and bits; floats would round differently"""
    kind = op.results[0].dtype
    if not (kind.is_integer or kind.is_bool) or not producer(op.y, ops.constant):
        return None
    inner = producer(op.x, op.definition)
    if inner is None or not producer(inner.y, ops.constant):
        return None
    return op.definition(inner.x, op.definition(inner.y, op.y))


NEGATED = {ops.eq: ops.ne, ops.ne: ops.eq}
NEGATED_ORDER = {ops.lt: ops.ge, ops.ge: ops.lt, ops.gt: ops.le, ops.le: ops.gt}


@rule(ops.eq, ops.ne, of=[ops.constant])
def compared_with_a_bool(op: Any, rewriter: Rewriter) -> Rewritten:
    """(x ≠ false) = (x = true) = x, (x = false) = (x ≠ true) = not x"""
    wanted = number(op.y) if op.x.dtype.is_bool else None
    value = unless_it_broadcasts(op, op.x) if wanted is not None else None
    if value is None:
        return None
    return value if bool(wanted) is (op.definition is ops.eq) else ops.not_(value)


@rule(ops.not_, of=[ops.eq, ops.ne, ops.lt, ops.le, ops.gt, ops.ge])
def not_of_comparison(op: Any, rewriter: Rewriter) -> Rewritten:
    """not (x = y) = (x ≠ y); not (x < y) = (x ≥ y) where there is no NaN"""
    inner = op.x.owner
    for negated in (NEGATED, NEGATED_ORDER):
        for definition, opposite in negated.items():
            if producer(op.x, definition) and (negated is NEGATED or not inner.x.dtype.is_float):
                return opposite(inner.x, inner.y)
    return None


@rule(ops.select)
def select_of_the_same(op: Any, rewriter: Rewriter) -> Rewritten:
    """select(c, x, x) = x"""
    return unless_it_broadcasts(op, op.on_true) if op.on_true is op.on_false else None


@rule(ops.select, of=[ops.constant])
def select_by_constant(op: Any, rewriter: Rewriter) -> Rewritten:
    """select(true, x, y) = x, select(false, x, y) = y"""
    if not producer(op.condition, ops.constant):
        return None
    choice = number(op.condition)
    if choice is None:
        return None
    chosen = op.on_true if choice else op.on_false
    shape = op.results[0].shape
    return chosen if chosen.shape == shape else ops.broadcast(chosen, shape=shape)


@rule(ops.select, of=[ops.not_])
def select_by_negated(op: Any, rewriter: Rewriter) -> Rewritten:
    """select(not c, x, y) = select(c, y, x)"""
    inner = producer(op.condition, ops.not_)
    return None if inner is None else ops.select(inner.x, op.on_false, op.on_true)
