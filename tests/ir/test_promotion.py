"""The promotion lattice: JAX's with 64-bit types kept, Python scalars weak."""

import itertools

import numpy as np
import pytest

from graphc.ir import dtypes as dt
from graphc.ir import ops
from graphc.ir.builder import Builder
from graphc.ir.dtypes import DTYPES, DType
from graphc.ir.errors import DTypeError
from graphc.ir.module import Module
from graphc.ir.promotion import join, weak_dtype
from graphc.ir.types import TensorType

# JAX's lattice, written out: what each dtype of a row gives beside those of the column heads.
HEADS = [
    dt.bool_,
    dt.u8,
    dt.u16,
    dt.u32,
    dt.u64,
    dt.i8,
    dt.i16,
    dt.i32,
    dt.i64,
    dt.bf16,
    dt.f16,
    dt.f32,
    dt.f64,
    dt.c64,
]
TABLE = """
bool  bool u8  u16 u32 u64 i8  i16 i32 i64 bf16 f16 f32 f64 c64
u8    u8   u8  u16 u32 u64 i16 i16 i32 i64 bf16 f16 f32 f64 c64
u16   u16  u16 u16 u32 u64 i32 i32 i32 i64 bf16 f16 f32 f64 c64
u32   u32  u32 u32 u32 u64 i64 i64 i64 i64 bf16 f16 f32 f64 c64
u64   u64  u64 u64 u64 u64 f32 f32 f32 f32 bf16 f16 f32 f64 c64
i8    i8   i16 i32 i64 f32 i8  i16 i32 i64 bf16 f16 f32 f64 c64
i16   i16  i16 i32 i64 f32 i16 i16 i32 i64 bf16 f16 f32 f64 c64
i32   i32  i32 i32 i64 f32 i32 i32 i32 i64 bf16 f16 f32 f64 c64
i64   i64  i64 i64 i64 f32 i64 i64 i64 i64 bf16 f16 f32 f64 c64
bf16  bf16 bf16 bf16 bf16 bf16 bf16 bf16 bf16 bf16 bf16 f32 f32 f64 c64
f16   f16  f16 f16 f16 f16 f16 f16 f16 f16 f32 f16 f32 f64 c64
f32   f32  f32 f32 f32 f32 f32 f32 f32 f32 f32 f32 f32 f64 c64
f64   f64  f64 f64 f64 f64 f64 f64 f64 f64 f64 f64 f64 f64 c128
c64   c64  c64 c64 c64 c64 c64 c64 c64 c64 c64 c64 c64 c128 c64
"""


def test_the_table() -> None:
    for line in TABLE.strip().splitlines():
        first, *row = line.split()
        for head, want in zip(HEADS, row, strict=True):
            assert join(dt.dtype(first), head) is dt.dtype(want), (first, head)


def test_promotion_is_symmetric_and_keeps_a_dtype_with_itself() -> None:
    for a, b in itertools.product(DTYPES, DTYPES):
        assert join(a, b) is join(b, a)
        assert join(a, a) is a


def test_narrow_dtypes_promote_where_jax_refuses() -> None:
    assert join(dt.f8e4m3fn, dt.bf16) is join(dt.f8e4m3fn, dt.f8e5m2) is dt.f32
    assert join(dt.f8e4m3fn, dt.i64) is dt.f8e4m3fn
    assert join(dt.i4, dt.i8) is join(dt.i4, dt.u4) is dt.i8
    assert join(dt.u4, dt.bf16) is dt.bf16


@pytest.mark.parametrize(
    ("scalar", "beside", "want"),
    [
        (1, dt.u8, dt.u8),
        (1, dt.bf16, dt.bf16),
        (1, dt.bool_, dt.i32),
        (True, dt.i8, dt.i8),
        (1.5, dt.f16, dt.f16),
        (1.5, dt.i64, dt.f32),
        (1.5, dt.bool_, dt.f32),
        (1j, dt.f32, dt.c64),
        (1j, dt.f64, dt.c128),
        (1j, dt.i32, dt.c64),
    ],
)
def test_python_scalars_are_weak(scalar: complex, beside: DType, want: DType) -> None:
    assert weak_dtype(scalar, [beside]) is want
    array = np.ones(2).astype(beside.numpy)
    with np.errstate(all="ignore"):
        assert dt.dtype(ops.eq(array, scalar).dtype) is dt.bool_
    if want is not dt.bool_ and not (beside.is_bool and want.is_bool):
        assert dt.dtype(ops.mul(array, scalar).dtype) is want
        assert traced(lambda x: ops.mul(x, scalar), beside).dtype is want


def traced(function, *of: DType):
    module = Module()
    main = module.add_function("main")
    values = [main.add_parameter(TensorType.of(d, (2,)), f"x{i}") for i, d in enumerate(of)]
    with Builder(main.block):
        return function(*values)


def test_python_scalars_alone_have_default_dtypes() -> None:
    assert weak_dtype(True, []) is dt.bool_
    assert weak_dtype(1, []) is dt.i32
    assert weak_dtype(1.0, []) is dt.f32
    assert weak_dtype(1j, []) is dt.c64


@pytest.mark.parametrize(("a", "b"), [(dt.i32, dt.f32), (dt.bf16, dt.f16), (dt.u8, dt.i8), (dt.f32, dt.c64)])
def test_operands_of_unlike_dtypes_are_converted(a: DType, b: DType) -> None:
    want = join(a, b)
    y = traced(ops.add, a, b)
    assert y.dtype is want
    assert all(x.dtype is want for x in y.op.operands)
    assert all(x.op is None or x.op.name == "convert" for x in y.op.operands)
    on_arrays = ops.add(np.ones(2).astype(a.numpy), np.ones(2).astype(b.numpy))
    assert dt.dtype(on_arrays.dtype) is want


def test_arrays_are_not_weak() -> None:
    assert ops.add(np.ones(2, np.float32), np.ones(2, np.float64)).dtype == np.float64
    assert ops.add(np.ones(2, np.float32), np.float64(1)).dtype == np.float64


def test_lists_have_the_default_dtypes() -> None:
    assert ops.neg([1, 2]).dtype == np.int32
    assert ops.neg([1.0, 2]).dtype == np.float32
    assert traced(lambda x: ops.add(x, [1, 2]), dt.f32).dtype is dt.f32


def test_operands_of_other_kinds_take_no_part() -> None:
    x = np.ones((3, 2), np.float16)
    assert ops.gather(x, np.int64([0, 1])).dtype == np.float16
    assert ops.select(np.array([True, False]), np.float32(1), np.int32(2)).dtype == np.float32
    with pytest.raises(DTypeError, match="select does not take float32 for condition; it takes bool"):
        ops.select(np.float32(1), 1, 2)
    with pytest.raises(DTypeError, match="gather does not take float32 for indices"):
        ops.gather(x, np.float32([0]))


def test_dtypes_an_op_does_not_take_are_named() -> None:
    with pytest.raises(DTypeError, match="sin does not take int32 for x; it takes bfloat16"):
        ops.sin(np.int32([1]))
