"""`fast`: identities of real numbers that do not hold for NaN, infinities, −0, or to the last bit."""

from __future__ import annotations

import sys
from typing import Any

from graphc.ir import ops
from graphc.ir.graph import Value
from graphc.ir.module import Module
from graphc.ir.rewriter import Rewriter
from graphc.passes.canonicalize import RULES, simplify
from graphc.passes.driver import Rewritten, producer, rule, rules_in
from graphc.passes.registry import register_pass
from graphc.passes.rules.arithmetic import number, unless_it_broadcasts
from graphc.passes.rules.folding import folding


@register_pass("fast", finite=True)
def fast(module: Module, fold_limit: int = 1024) -> None:
    """Simplify by identities that hold for finite values only, and up to rounding."""
    simplify(module, [*RULES, *rules_in(sys.modules[__name__]), folding(fold_limit)])


def everywhere(value: int, op: Any, rewriter: Rewriter) -> Value:
    """One number in place of the result of `op`."""
    result: Value = op.results[0]
    scalar = rewriter.before(op).scalar(value, result.dtype)
    return ops.broadcast(scalar, shape=result.shape) if result.ndim else scalar


@rule(ops.mul)
def times_zero(op: Any, rewriter: Rewriter) -> Rewritten:
    """x·0 = 0: not for NaN and infinities, and −x·0 = −0"""
    return everywhere(0, op, rewriter) if producer(op.y, ops.constant) and number(op.y) == 0 else None


@rule(ops.sub)
def minus_itself(op: Any, rewriter: Rewriter) -> Rewritten:
    """x − x = 0: not for NaN and infinities"""
    return everywhere(0, op, rewriter) if op.x is op.y else None


@rule(ops.add)
def plus_zero(op: Any, rewriter: Rewriter) -> Rewritten:
    """x + 0 = x: not for −0"""
    return unless_it_broadcasts(op, op.x) if producer(op.y, ops.constant) and number(op.y) == 0 else None


@rule(ops.div)
def over_itself(op: Any, rewriter: Rewriter) -> Rewritten:
    """x/x = 1: not for NaN, infinities and 0"""
    if op.x is not op.y or not op.x.dtype.is_float:
        return None
    return everywhere(1, op, rewriter)


@rule(ops.add, ops.mul)
def constants_meet(op: Any, rewriter: Rewriter) -> Rewritten:
    """(x ∘ a) ∘ b = x ∘ (a ∘ b): floats round differently"""
    inner = producer(op.x, op.definition)
    if inner is None or not producer(op.y, ops.constant) or not producer(inner.y, ops.constant):
        return None
    return op.definition(inner.x, op.definition(inner.y, op.y))


@rule(ops.div)
def division_by_constant(op: Any, rewriter: Rewriter) -> Rewritten:
    """x/c = x·(1/c): 1/c is rounded"""
    if not op.x.dtype.is_float or not producer(op.y, ops.constant) or producer(op.x, ops.constant):
        return None
    return ops.mul(op.x, ops.div(ops.constant(value=1.0, dtype=op.x.dtype), op.y))


@rule(ops.neg)
def negated_difference(op: Any, rewriter: Rewriter) -> Rewritten:
    """−(x − y) = y − x: not for the sign of a zero"""
    inner = producer(op.x, ops.sub)
    return None if inner is None else ops.sub(inner.y, inner.x)


@rule(ops.log)
def log_of_exp(op: Any, rewriter: Rewriter) -> Rewritten:
    """log(exp(x)) = x: not where exp overflows"""
    inner = producer(op.x, ops.exp)
    return inner.x if inner is not None and op.x.dtype.is_float else None
