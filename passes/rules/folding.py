"""Constant folding: what depends on constants only is evaluated by the reference. Part of `canonicalize`."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from graphc.ir import ops
from graphc.ir.builder import INLINE_CONSTANT
from graphc.ir.dims import Dim
from graphc.ir.graph import Function, Op, Value
from graphc.ir.interpreter import evaluate, round_to
from graphc.ir.module import Array
from graphc.ir.rewriter import Rewriter
from graphc.passes.driver import Rewritten, Rule, rule

_KEPT = frozenset({"barrier", "name", "stop_gradient", "assume_dim", "return", "yield"})
"""Ops that say something beyond their value."""

_DIVISIONS = frozenset({"div", "rem", "floor_div", "mod"})


def folding(limit: int) -> Rule:
    """The rule that folds results of up to `limit` elements: into a `constant` if small, else into the weight table."""
    constant = ops.constant.op_class

    def fold(op: Any, rewriter: Rewriter) -> Rewritten:
        """f(constants) = constant"""
        if not op.operands:
            return None
        for value in op.operands:
            if value is not None and value.owner.__class__ is not constant:
                return None
        return _evaluated(op, rewriter) if _folds(op, limit) else None

    return rule(of=[ops.constant])(fold)


def _folds(op: Op, limit: int) -> bool:
    definition = op.definition
    if (
        op.regions
        or definition.call_rule is not None
        or definition.name in _KEPT
        or definition.introduces_symbols
        or definition.has_effect
        or definition is ops.broadcast  # it is cheap, and its readers can often do without
    ):
        return False
    in_region = not isinstance(op.block.owner, Function)
    most = min(limit, INLINE_CONSTANT) if in_region else limit
    for result in op.results:
        if any(isinstance(size, Dim) for size in result.shape):
            return False
        count = prod(size for size in result.shape if isinstance(size, int))
        if count > most or (count == 0 and result.ndim != 1):
            return False
    if definition.name in _DIVISIONS and op.results[0].dtype.is_integer:
        divisor = op.operands[1]
        return divisor is not None and bool(np.all(constant_array(divisor.owner)))  # x / 0 is unspecified
    return True


def _evaluated(op: Op, rewriter: Rewriter) -> list[Value]:
    arrays = [None if v is None else constant_array(v.owner) for v in op.operands]
    dtypes = [None if v is None else v.dtype for v in op.operands]
    found = evaluate(op.definition, op.attribute_dict, arrays, dtypes)
    builder = rewriter.before(op)
    return [builder.constant(round_to(array, value.dtype)) for array, value in zip(found, op.results, strict=True)]


def constant_array(op: Any) -> Array:
    """The value of a `constant` op in its dtype."""
    (found,) = evaluate(ops.constant, op.attribute_dict, [], [])
    return round_to(found, op.dtype)
