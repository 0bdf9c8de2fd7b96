"""Sorting."""

from __future__ import annotations

import numpy as np

from graphc.ir import ops
from graphc.ir.attributes import Axis
from graphc.ir.dims import product
from graphc.ir.dtypes import ORDERED, i32
from graphc.ir.errors import DTypeError, ShapeError
from graphc.ir.inference import require_equal, require_rank
from graphc.ir.opdef import AnyTensor, primitive
from graphc.ir.types import TensorType


@primitive
def sort(*xs: AnyTensor, axis: Axis = -1) -> tuple[TensorType, ...]:
    """The operands, all of one shape, in the order that makes the first one ascend along `axis`.

    Equal elements keep their order (−0 and 0 are equal), NaN comes last.
    """
    if not xs:
        raise ShapeError("sort needs at least one operand")
    first = xs[0]
    if first.dtype not in ORDERED:
        raise DTypeError(f"{first.dtype} has no order to sort by")
    for other in xs[1:]:
        require_rank(other, first.ndim, f"what is sorted with {first}")
        for size, wanted in zip(other.shape, first.shape, strict=True):
            require_equal(size, wanted, f"sort of {first} and {other}, which must be of one shape")
    return xs


@sort.reference
def _(*xs, axis):
    order = np.argsort(xs[0], axis, kind="stable")
    return tuple(np.take_along_axis(x, order, axis) for x in xs)


@sort.vjp
def _(dy, y, *xs, axis):
    """Where each element came from, found by sorting the indices too; sorting by that brings cotangents back."""
    received = dy if isinstance(dy, tuple) else (dy,)
    sources = sort(xs[0], ops.iota(shape=xs[0].shape, axis=axis, dtype=i32), axis=axis)[1]
    return [
        None if d is None or x is None else sort(sources, d, axis=axis)[1] for d, x in zip(received, xs, strict=True)
    ]


@sort.flops
def _(*xs, axis):
    return product(xs[0].shape)


sort.sample((2, 5))
sort.sample((4, 3), (4, 3), axis=0)
sort.sample(np.array([3, 1, 3, 1, 2], np.uint32), np.arange(5, dtype=np.int32))
sort.sample((0, 3), axis=1)
