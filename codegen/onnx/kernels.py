"""Which element types ONNX Runtime's CPU kernels take, measured (tests/codegen/test_onnx_kernels.py measures again).

An op whose dtype has no kernel is computed in a *carrier*: a wider dtype into which the operands are cast and from
which the result is cast back. Narrow floats go through float32, which rounds each op once more, as SEMANTICS asks;
narrow integers through int32, where addition, subtraction and multiplication wrap to the same bits.
"""

from __future__ import annotations

from functools import cache

from graphc.ir import dtypes as dt
from graphc.ir.dtypes import DType

ELEMENT_TYPES: dict[DType, int] = {
    dt.f32: 1, dt.u8: 2, dt.i8: 3, dt.u16: 4, dt.i16: 5, dt.i32: 6, dt.i64: 7, dt.bool_: 9, dt.f16: 10, dt.f64: 11,
    dt.u32: 12, dt.u64: 13, dt.bf16: 16, dt.f8e4m3fn: 17, dt.f8e5m2: 19, dt.u4: 21, dt.i4: 22,
}  # fmt: skip
"""`TensorProto.DataType` of each dtype ONNX has; complex ones it has too, but no kernel takes them."""


def _types(text: str) -> frozenset[DType]:
    return frozenset(dt.dtype(name) for name in text.split())


_FLOATS = "f16 f32 f64"
_INTEGERS = "i8 i16 i32 i64 u8 u16 u32 u64"
_STORED = f"bool {_INTEGERS} bf16 {_FLOATS}"

_KERNELS: dict[str, str] = {
    "Neg": f"i8 i16 i32 i64 {_FLOATS}",
    "Abs": f"{_INTEGERS} {_FLOATS}",
    "Sign": f"{_INTEGERS} f32 f64",  # float16's takes NaN to 0
    **dict.fromkeys(["Exp", "Log", "Sqrt", "Reciprocal", "Sin", "Cos", "Tanh", "Floor", "Ceil", "Round"], _FLOATS),
    "Sigmoid": "f16",  # float32's is 0 below -18, float64's has 3 digits there
    **dict.fromkeys(
        ["Tan", "Asin", "Acos", "Atan", "Sinh", "Cosh", "Asinh", "Acosh", "Atanh", "Erf", "LeakyRelu", "Softplus"],
        "f16 f32",
    ),
    "Gelu": "f16 f32",
    "Relu": f"i8 i32 {_FLOATS}",
    "Softmax": _FLOATS,
    "LogSoftmax": "f16 f32",  # float64's forgets NaN
    "Not": "bool",
    "And": "bool",
    "Or": "bool",
    "Xor": "bool",
    **dict.fromkeys(["BitwiseNot", "BitwiseAnd", "BitwiseOr", "BitwiseXor"], _INTEGERS),
    "BitShift": "u8 u16 u32 u64",
    "IsNaN": f"f8e4m3fn f8e5m2 bf16 {_FLOATS}",
    **dict.fromkeys(["Add", "Sub", "Mul", "Div", "Mod"], f"{_INTEGERS} {_FLOATS}"),
    "Pow": _FLOATS,  # integers go through float64 there
    **dict.fromkeys(["Max", "Min", "Clip"], f"i8 i32 i64 u8 u32 u64 {_FLOATS}"),
    "Equal": f"bool {_INTEGERS} {_FLOATS}",
    **dict.fromkeys(["Less", "LessOrEqual", "Greater", "GreaterOrEqual"], f"{_INTEGERS} {_FLOATS}"),
    "Where": f"i8 i32 i64 u8 u32 {_FLOATS}",
    "ReduceSum": _FLOATS,  # integers saturate there
    "ReduceProd": _FLOATS,  # integers saturate there
    "ReduceMean": _FLOATS,
    **dict.fromkeys(["ReduceMax", "ReduceMin"], f"bool i8 i32 i64 u8 {_FLOATS}"),
    **dict.fromkeys(["ArgMax", "ArgMin"], f"i8 i32 i64 u8 {_FLOATS}"),
    "CumSum": f"i32 i64 {_FLOATS}",
    "Reshape": f"f8e4m3fn f8e5m2 {_STORED}",
    "Transpose": f"i4 u4 f8e4m3fn f8e5m2 {_STORED}",
    "Identity": f"f8e4m3fn f8e5m2 {_STORED}",
    "Expand": f"bool {_INTEGERS} {_FLOATS}",
    **dict.fromkeys(["Concat", "Slice", "Split", "Gather"], _STORED),
    "Pad": f"bool i8 i32 i64 u8 u32 u64 bf16 {_FLOATS}",
    "ScatterND": f"bool {_INTEGERS} f32 f64",  # float16 has no addition there
    "MatMul": f"i32 i64 {_FLOATS}",  # unsigned ones fail on a sum of nothing
    "Gemm": _FLOATS,
    **dict.fromkeys(["Conv", "ConvTranspose", "AveragePool"], "f16 f32"),
    "MaxPool": f"i8 u8 {_FLOATS}",
    **dict.fromkeys(["BatchNormalization", "LayerNormalization"], "f16 f32"),  # float64 would round epsilon to float32
}

KERNELS: dict[str, frozenset[DType]] = {kind: _types(text) for kind, text in _KERNELS.items()}

_CARRIERS: dict[DType, tuple[DType, ...]] = {
    dt.bool_: (dt.u8, dt.i32),
    dt.i4: (dt.i8, dt.i32, dt.i64),
    dt.u4: (dt.u8, dt.i32, dt.i64),
    dt.i8: (dt.i32, dt.i64),
    dt.u8: (dt.i32, dt.i64),
    dt.i16: (dt.i32, dt.i64),
    dt.u16: (dt.i32, dt.i64),
    dt.u32: (dt.i64,),
    dt.f8e4m3fn: (dt.f32,),
    dt.f8e5m2: (dt.f32,),
    dt.bf16: (dt.f32,),
    dt.f16: (dt.f32,),
}
_SAME_BITS_IN_I64 = frozenset({"Where", "CumSum", "MatMul"})
"""Ops whose result on uint64 has the bits of the result on int64."""


@cache
def carrier(kind: str, dtype: DType) -> DType | None:
    """The dtype to compute `kind` in for operands of `dtype`: itself, a wider one, or None where there is none."""
    kernels = KERNELS[kind]
    if dtype in kernels:
        return dtype
    for wider in _CARRIERS.get(dtype, ()):
        if wider in kernels:
            return wider
    return dt.i64 if dtype is dt.u64 and kind in _SAME_BITS_IN_I64 else None
