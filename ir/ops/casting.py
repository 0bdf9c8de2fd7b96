"""From one dtype to another: by value (`convert`) or by bits (`bitcast`)."""

from __future__ import annotations

import numpy as np

from graphc.ir import ops
from graphc.ir.dtypes import DType
from graphc.ir.dtypes import dtype as dtype_of
from graphc.ir.errors import DTypeError
from graphc.ir.opdef import AnyTensor, primitive
from graphc.ir.types import TensorType


@primitive
def convert(x: AnyTensor, *, dtype: DType) -> TensorType:
    """The values of `x` in another dtype.

    Floats round to nearest even. Float to integer truncates, saturates, and takes NaN to 0; integer to integer wraps.
    Anything but zero is true. A complex operand converts to complex dtypes only: take its `real` part.
    """
    if x.dtype.is_complex and not dtype.is_complex:
        raise DTypeError(f"convert does not take {x} to {dtype}: take its real part, or its abs")
    return x.with_dtype(dtype)


@convert.reference
def _(x, *, dtype):
    if dtype.is_bool:
        return x != 0
    if x.dtype.kind == "f" and dtype.is_integer:
        return saturated(x, dtype)
    return x


def saturated(x: np.ndarray, dtype: DType) -> np.ndarray:
    """Floats truncated into an integer dtype, clamped to what it holds, NaN as 0."""
    low, high = integer_limits(dtype)
    whole = np.trunc(x)
    inside = (whole > low) & (whole < high)
    storage = np.uint64 if dtype.kind == "u" else np.int64
    found = np.where(inside, whole, 0).astype(storage)
    return np.where(whole >= high, storage(high), np.where(whole <= low, storage(low), found))


def integer_limits(dtype: DType) -> tuple[int, int]:
    """The least and the greatest integer of a dtype."""
    return (0, 2**dtype.bits - 1) if dtype.kind == "u" else (-(2 ** (dtype.bits - 1)), 2 ** (dtype.bits - 1) - 1)


@convert.vjp
def _(dy, y, x, *, dtype):
    if dtype.is_complex and not dtype_of(x.dtype).is_complex:
        dy = ops.real(dy)
    return convert(dy, dtype=x.dtype)


convert.sample((2, 3), dtype="float32")
convert.sample((2, 3), dtype="bfloat16")
convert.sample((2, 3), dtype="float64")
convert.sample((2, 3), dtype="complex128")
convert.sample((4,), dtype="int32")
convert.sample((4,), dtype="uint8")
convert.sample((2, 0), dtype="bool")


@primitive
def bitcast(x: AnyTensor, *, dtype: DType) -> TensorType:
    """The bits of `x` read as another dtype of the same width."""
    if x.dtype.bits != dtype.bits:
        raise DTypeError(f"bitcast keeps the width: {x} has {x.dtype.bits} bits an element, {dtype} has {dtype.bits}")
    return x.with_dtype(dtype)


bitcast.widens = False


@bitcast.reference
def _(x, *, dtype):
    return np.ascontiguousarray(x).view(dtype.numpy).reshape(x.shape)


bitcast.sample(np.array([[1.0, -0.0], [np.nan, np.inf]], np.float32), dtype="int32")
bitcast.sample(np.array([0, 127, 128, 255], np.uint8), dtype="int8")


@convert.flops
@bitcast.flops
def _(x, **attributes):
    return 0


__all__ = ["bitcast", "convert"]
