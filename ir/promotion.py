"""The promotion lattice: JAX's, with 64-bit types kept. Python scalars are weak: they take the other's dtype."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

from graphc.ir import dtypes as dt
from graphc.ir.dtypes import DType

# Each dtype's next wider ones; the join of two dtypes is the least dtype above both.
_ABOVE: dict[DType, tuple[DType, ...]] = {
    dt.bool_: (dt.u4, dt.i4),
    dt.u4: (dt.u8, dt.i8),
    dt.i4: (dt.i8,),
    dt.u8: (dt.u16, dt.i16),
    dt.u16: (dt.u32, dt.i32),
    dt.u32: (dt.u64, dt.i64),
    dt.u64: (dt.f8e4m3fn, dt.f8e5m2, dt.bf16, dt.f16),
    dt.i8: (dt.i16,),
    dt.i16: (dt.i32,),
    dt.i32: (dt.i64,),
    dt.i64: (dt.f8e4m3fn, dt.f8e5m2, dt.bf16, dt.f16),
    dt.f8e4m3fn: (dt.f32,),
    dt.f8e5m2: (dt.f32,),
    dt.bf16: (dt.f32,),
    dt.f16: (dt.f32,),
    dt.f32: (dt.f64, dt.c64),
    dt.f64: (dt.c128,),
    dt.c64: (dt.c128,),
    dt.c128: (),
}


@cache
def _upper(of: DType) -> frozenset[DType]:
    return frozenset({of}).union(*(_upper(above) for above in _ABOVE[of]))


@cache
def join(a: DType, b: DType) -> DType:
    """The dtype that `a` and `b` promote to."""
    common = _upper(a) & _upper(b)
    for dtype in common:
        if common <= _upper(dtype):
            return dtype
    # Unsigned 64-bit with signed integers: no integer holds both, so the default float does.
    return dt.f32


def common_dtype(dtypes: Iterable[DType]) -> DType:
    """The dtype that all of these promote to."""
    first, *rest = dtypes
    for other in rest:
        first = join(first, other)
    return first


_RANK = {"b": 0, "u": 1, "i": 1, "f": 2, "c": 3}
_DEFAULT = {bool: dt.bool_, int: dt.i32, float: dt.f32, complex: dt.c64}


def weak_dtype(scalar: bool | int | float | complex, others: Iterable[DType]) -> DType:
    """The dtype of a Python scalar beside tensors of these dtypes: theirs, unless its kind is a wider one."""
    return _weak(type(scalar), tuple(others))


@cache
def _weak(kind: type, others: tuple[DType, ...]) -> DType:
    default = next(dtype for base, dtype in _DEFAULT.items() if issubclass(kind, base))
    if not others:
        return default
    common = common_dtype(others)
    if _RANK[default.kind] <= _RANK[common.kind]:
        return common
    return dt.c128 if default.is_complex and common is dt.f64 else default
