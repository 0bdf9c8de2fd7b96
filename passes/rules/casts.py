"""Conversions between dtypes that cancel or meet. Part of `canonicalize`."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np

from graphc.ir import ops
from graphc.ir.dtypes import DType
from graphc.ir.rewriter import Rewriter
from graphc.passes.driver import Rewritten, producer, rule


def holds_all(wide: DType, narrow: DType) -> bool:
    """Whether every value of `narrow`, NaN, infinities and −0 included, is one of `wide`."""
    if wide is narrow or narrow.is_bool:
        return True
    if wide.is_bool:
        return False
    if narrow.is_complex or wide.is_complex:
        parts = {"complex64": np.float32, "complex128": np.float64}
        if not narrow.is_complex:
            return _floats(np.dtype(parts[wide]), narrow)
        return wide.is_complex and wide.bits >= narrow.bits
    if narrow.is_integer and wide.is_integer:
        if narrow.kind == wide.kind:
            return wide.bits >= narrow.bits
        return narrow.kind == "u" and wide.bits > narrow.bits
    return wide.is_float and _floats(wide.numpy, narrow)


def _floats(wide: Any, narrow: DType) -> bool:
    finfo: Any = ml_dtypes.finfo
    outer = finfo(wide)
    if narrow.is_integer:
        magnitude = narrow.bits - (narrow.kind == "i")
        return outer.nmant + 1 >= magnitude and float(outer.max) >= 2.0 ** (narrow.bits - 1)
    inner = finfo(narrow.numpy)
    return (
        outer.nmant >= inner.nmant
        and float(outer.max) >= float(inner.max)
        and float(outer.smallest_subnormal) <= float(inner.smallest_subnormal)
        and (has_infinities(wide) or not has_infinities(narrow.numpy))
    )


def has_infinities(kind: Any) -> bool:
    """float8_e4m3fn has none."""
    return bool(np.isinf(np.asarray(np.inf).astype(kind)))


@rule(ops.convert)
def convert_to_the_same(op: Any, rewriter: Rewriter) -> Rewritten:
    """convert(x: T, T) = x"""
    return op.x if op.x.dtype is op.dtype else None


@rule(ops.convert)
def converts_meet(op: Any, rewriter: Rewriter) -> Rewritten:
    """convert(convert(x: A, B), C) = convert(x: A, C) where B holds all of A, so that only the last one rounds"""
    inner = producer(op.x, ops.convert)
    if inner is None:
        return None
    first, between, last = inner.x.dtype, inner.dtype, op.dtype
    if not holds_all(between, first):
        return None
    # Integers wrap into integers, floats saturate into them: the way through a float is another where C is too narrow.
    if last.is_integer and between.is_float and not first.is_float and not holds_all(last, first):
        return None
    return inner.x if first is last else ops.convert(inner.x, dtype=last)


@rule(ops.bitcast)
def bitcasts_meet(op: Any, rewriter: Rewriter) -> Rewritten:
    """bitcast(x: T, T) = x; bitcast(bitcast(x, A), B) = bitcast(x, B)"""
    if op.x.dtype is op.dtype:
        return op.x
    inner = producer(op.x, ops.bitcast)
    return None if inner is None else ops.bitcast(inner.x, dtype=op.dtype)
