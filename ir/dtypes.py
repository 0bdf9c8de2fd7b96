"""The closed set of element types.

A `DType` is a string (`str(dtype) == "float32"`), so it compares with the names that NumPy and Keras use, and it is
one object per type, so it also compares by identity. The IR's text uses the short form (`f32`).
"""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np

from graphc.ir.errors import DTypeError
from graphc.ir.suggestions import nearest


class DType(str):
    """An element type: `short` is its name in IR text, `kind` one of `b i u f c`, `bits` its width."""

    __slots__ = ("bits", "kind", "numpy", "short")

    short: str
    kind: str
    bits: int
    numpy: np.dtype[Any]

    def __new__(cls, name: str, short: str, kind: str, bits: int, numpy: Any) -> DType:
        self = super().__new__(cls, name)
        self.short, self.kind, self.bits, self.numpy = short, kind, bits, np.dtype(numpy)
        return self

    def __repr__(self) -> str:
        return f"graphc.{self.short}"

    __hash__ = str.__hash__

    def __reduce__(self) -> Any:
        return dtype, (str(self),)  # a copy is the same object

    @property
    def is_float(self) -> bool:
        return self.kind == "f"

    @property
    def is_integer(self) -> bool:
        return self.kind in "iu"

    @property
    def is_complex(self) -> bool:
        return self.kind == "c"

    @property
    def is_bool(self) -> bool:
        return self.kind == "b"

    @property
    def size(self) -> float:
        """Bytes an element takes in storage; half a byte for the 4-bit integers."""
        return 1 if self.kind == "b" else self.bits / 8


bool_ = DType("bool", "bool", "b", 1, np.bool_)
i4 = DType("int4", "i4", "i", 4, ml_dtypes.int4)
i8 = DType("int8", "i8", "i", 8, np.int8)
i16 = DType("int16", "i16", "i", 16, np.int16)
i32 = DType("int32", "i32", "i", 32, np.int32)
i64 = DType("int64", "i64", "i", 64, np.int64)
u4 = DType("uint4", "u4", "u", 4, ml_dtypes.uint4)
u8 = DType("uint8", "u8", "u", 8, np.uint8)
u16 = DType("uint16", "u16", "u", 16, np.uint16)
u32 = DType("uint32", "u32", "u", 32, np.uint32)
u64 = DType("uint64", "u64", "u", 64, np.uint64)
f8e4m3fn = DType("float8_e4m3fn", "f8e4m3fn", "f", 8, ml_dtypes.float8_e4m3fn)
f8e5m2 = DType("float8_e5m2", "f8e5m2", "f", 8, ml_dtypes.float8_e5m2)
bf16 = DType("bfloat16", "bf16", "f", 16, ml_dtypes.bfloat16)
f16 = DType("float16", "f16", "f", 16, np.float16)
f32 = DType("float32", "f32", "f", 32, np.float32)
f64 = DType("float64", "f64", "f", 64, np.float64)
c64 = DType("complex64", "c64", "c", 64, np.complex64)
c128 = DType("complex128", "c128", "c", 128, np.complex128)

DTYPES: tuple[DType, ...] = (
    bool_, i4, i8, i16, i32, i64, u4, u8, u16, u32, u64,
    f8e4m3fn, f8e5m2, bf16, f16, f32, f64, c64, c128,
)  # fmt: skip

FLOATS = frozenset(d for d in DTYPES if d.is_float)
SIGNED = frozenset(d for d in DTYPES if d.kind == "i")
UNSIGNED = frozenset(d for d in DTYPES if d.kind == "u")
INTEGERS = SIGNED | UNSIGNED
COMPLEX = frozenset(d for d in DTYPES if d.is_complex)
BOOL = frozenset({bool_})
NUMERIC = FLOATS | INTEGERS | COMPLEX
REAL = FLOATS | INTEGERS
ORDERED = REAL | BOOL
ALL = frozenset(DTYPES)

_BY_NAME: dict[str, DType] = {str(d): d for d in DTYPES} | {d.short: d for d in DTYPES}
_BY_NUMPY: dict[np.dtype[Any], DType] = {d.numpy: d for d in DTYPES}


def dtype(of: Any) -> DType:
    """The `DType` of a name (`"float32"` or `"f32"`), a NumPy dtype or scalar type, or a Python type.

    Python's `float`, `int` and `bool` mean float32, int32 and bool. Raises `DTypeError` for anything else.
    """
    if type(of) is DType:
        return of
    if isinstance(of, str) and of in _BY_NAME:
        return _BY_NAME[of]
    if of is float:
        return f32
    if of is int:
        return i32
    if of is bool:
        return bool_
    try:
        return _BY_NUMPY[np.dtype(of)]
    except (TypeError, KeyError):
        raise DTypeError(f"no such dtype: {of!r}{nearest(str(of), DTYPES)}") from None
