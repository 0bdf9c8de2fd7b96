"""Products of tensors summed over shared axes: `dot_general`, and matmul, linear and einsum over it."""

from __future__ import annotations

import string
from collections.abc import Sequence

import numpy as np

from graphc.ir.dims import product
from graphc.ir.dtypes import NUMERIC
from graphc.ir.errors import ShapeError, UnsupportedError
from graphc.ir.inference import broadcast_sizes, is_literal, require_equal, shape_text
from graphc.ir.opdef import Tensor, composite, primitive
from graphc.ir.ops.movement import reshape, transpose
from graphc.ir.ops.reduction import reduce_sum
from graphc.ir.types import TensorType


def _free_axes(ndim: int, pairs: Sequence[tuple[int, int]], side: int) -> list[int]:
    """The axes of one operand that are in no pair."""
    taken = {pair[side] for pair in pairs}
    return [axis for axis in range(ndim) if axis not in taken]


def _require_real(x, what: str) -> None:
    if x.dtype.kind == "c":
        raise UnsupportedError(f"the gradient of {what} for complex operands is not written yet")


@primitive(dtypes=NUMERIC)
def dot_general(x: Tensor, y: Tensor, *, contract: Pairs, batch: Pairs = ()) -> TensorType:  # noqa: F821
    """Products summed over the axes in `contract`, for each index of the axes in `batch`.

    Both are lists of pairs (axis of `x`, axis of `y`), counted from the front. The result has the batch axes in the
    order given, then the remaining axes of `x`, then those of `y`.
    """
    pairs = (*batch, *contract)
    for pair in pairs:
        if len(pair) != 2 or not (0 <= pair[0] < x.ndim and 0 <= pair[1] < y.ndim):
            raise ShapeError(f"{list(pair)} is not a pair of an axis of {x} and one of {y}, counted from the front")
    for side, operand in enumerate((x, y)):
        if len({pair[side] for pair in pairs}) != len(pairs):
            raise ShapeError(f"an axis of {operand} is named twice in batch = {list(batch)}, contract = {list(contract)}")
    for i, j in pairs:
        require_equal(x.shape[i], y.shape[j], f"axis {i} of {x} and axis {j} of {y} must be of one size")
    together = tuple(x.shape[i] for i, _ in batch)
    rows = tuple(x.shape[i] for i in _free_axes(x.ndim, pairs, 0))
    columns = tuple(y.shape[j] for j in _free_axes(y.ndim, pairs, 1))
    return x.with_shape(together + rows + columns)


@dot_general.reference
def _(x, y, *, contract, batch):
    labels = iter(string.ascii_letters)
    left, right = [next(labels) for _ in range(x.ndim)], [next(labels) for _ in range(y.ndim)]
    for i, j in (*batch, *contract):
        right[j] = left[i]
    pairs = (*batch, *contract)
    out = [left[i] for i, _ in batch]
    out += [left[i] for i in _free_axes(x.ndim, pairs, 0)] + [right[j] for j in _free_axes(y.ndim, pairs, 1)]
    if x.ndim + y.ndim > len(string.ascii_letters):
        raise UnsupportedError("the reference of dot_general takes 52 axes in all")
    return _matrix_product(x, y, left, right, out, batch, contract)


def _matrix_product(x, y, left, right, out, batch, contract):
    raise NotImplementedError
