"""Ops of the IR itself: terminators, constants, calls, sizes, names and fences."""

from __future__ import annotations

import numpy as np

from graphc.ir.attributes import Axis, FunctionRef, Scalars
from graphc.ir.dims import Size
from graphc.ir.dtypes import DType, f32, i64
from graphc.ir.errors import ShapeError
from graphc.ir.literals import literal_array
from graphc.ir.opdef import AnyTensor, IndexTensor, Tensor, primitive
from graphc.ir.types import TensorType


@primitive(name="return")
def return_(*values: AnyTensor) -> tuple[TensorType, ...]:
    """End of a function: its results."""
    return ()


@primitive(name="yield")
def yield_(*values: AnyTensor) -> tuple[TensorType, ...]:
    """End of a region: what it hands to the op that holds it."""
    return ()


@primitive
def constant(*, value: Scalars, dtype: DType = f32) -> TensorType:
    """A number, or a small array written as nested lists. Larger arrays are weights."""
    return TensorType.of(dtype, literal_array(value, dtype).shape)


@constant.reference
def _(*, value, dtype):
    return literal_array(value, dtype)  # floats unrounded: the interpreter rounds to the dtype, or keeps float64


constant.sample(value=1.5)
constant.sample(value=((1, 2), (3, -4)), dtype="int32")


@primitive
def call(*arguments: AnyTensor, callee: FunctionRef) -> tuple[TensorType, ...]:
    """Run another function of the module. Its symbols are formal: they are bound by the arguments' shapes.

    Build it with `call_function`, which looks the callee up.
    """
    raise ShapeError(f"call @{callee} must be built with call_function")


@primitive
def barrier(*values: AnyTensor) -> tuple[TensorType, ...]:
    """The values themselves; nothing may be moved or merged across."""
    return values


@barrier.reference
def _(*values):
    return values


@barrier.vjp
def _(dy, y, *values):
    return dy


barrier.sample((2, 3), (4,))


@primitive
def name(x: AnyTensor, *, tag: str) -> TensorType:
    """`x`, tagged so that a policy of what to save can name it."""
    return x


@name.reference
def _(x, *, tag):
    return x


@name.vjp
def _(dy, y, x, *, tag):
    return dy


name.sample((2, 3), tag="hidden")


@primitive
def stop_gradient(x: AnyTensor) -> TensorType:
    """`x`, through which no gradient flows."""
    return x


@stop_gradient.reference
def _(x):
    return x


@stop_gradient.vjp
def _(dy, y, x):
    return None


stop_gradient.sample((2, 3))


@primitive
def dim_size(*, size: Size) -> TensorType:
    """The value of a symbolic size, as an int64 scalar."""
    return TensorType.of(i64)


@dim_size.reference
def _(*, size):
    return np.int64(size)


dim_size.sample(size=7)


@primitive
def assume_dim(x: AnyTensor, count: IndexTensor, *, axis: Axis, size: Size) -> TensorType:
    """The first `count` slices of `x` along `axis`; the result's size there is the symbol `size`, bound by `count`.

    `count` is an integer scalar with 0 <= count <= the size of `x` along `axis`.
    """
    if count.shape != ():
        raise ShapeError(f"assume_dim: the count must be a scalar, not {count}")
    return x.with_shape((*x.shape[:axis], size, *x.shape[axis + 1 :]))


assume_dim.introduces_symbols = True


@assume_dim.reference
def _(x, count, *, axis, size):
    return np.take(x, np.arange(int(count)), axis)


@barrier.flops
@name.flops
@stop_gradient.flops
def _(*values, **attributes):
    return 0


__all__ = [
    "Tensor",
    "assume_dim",
    "barrier",
    "call",
    "constant",
    "dim_size",
    "name",
    "return_",
    "stop_gradient",
    "yield_",
]
