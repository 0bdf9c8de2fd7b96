"""Products of tensors summed over shared axes: `dot_general`, and matmul, linear and einsum over it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from graphc.ir import ops
from graphc.ir.attributes import Pairs
from graphc.ir.dims import product
from graphc.ir.dtypes import NUMERIC
from graphc.ir.errors import ShapeError
from graphc.ir.inference import is_literal, require_equal, shape_text
from graphc.ir.opdef import Tensor, composite, primitive
from graphc.ir.ops.cotangents import holomorphic
from graphc.ir.suggestions import number_of
from graphc.ir.types import TensorType


def _free_axes(ndim: int, pairs: Pairs, side: int) -> list[int]:
    """The axes of one operand that are in no pair."""
    taken = {pair[side] for pair in pairs}
    return [axis for axis in range(ndim) if axis not in taken]


@primitive(dtypes=NUMERIC)
def dot_general(x: Tensor, y: Tensor, *, contract: Pairs, batch: Pairs = ()) -> TensorType:
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
            raise ShapeError(
                f"an axis of {operand} is named twice in batch = {list(batch)}, contract = {list(contract)}"
            )
    for i, j in pairs:
        require_equal(x.shape[i], y.shape[j], f"axis {i} of {x} and axis {j} of {y} must be of one size")
    together = tuple(x.shape[i] for i, _ in batch)
    rows = tuple(x.shape[i] for i in _free_axes(x.ndim, pairs, 0))
    columns = tuple(y.shape[j] for j in _free_axes(y.ndim, pairs, 1))
    return x.with_shape(together + rows + columns)


@dot_general.reference
def _(x, y, *, contract, batch):
    pairs = (*batch, *contract)
    rows, columns = _free_axes(x.ndim, pairs, 0), _free_axes(y.ndim, pairs, 1)
    left = x.transpose([i for i, _ in batch] + rows + [i for i, _ in contract])
    right = y.transpose([j for _, j in batch] + [j for _, j in contract] + columns)
    together, m = left.shape[: len(batch)], left.shape[len(batch) : len(batch) + len(rows)]
    n, depth = right.shape[len(pairs) :], math.prod(right.shape[len(batch) : len(pairs)])
    z = left.reshape(*together, math.prod(m), depth) @ right.reshape(*together, depth, math.prod(n))
    return z.reshape(together + m + n)


@dot_general.vjp
@holomorphic
def _(dz, z, x, y, *, contract, batch):
    pairs = (*batch, *contract)
    rows, columns = _free_axes(x.ndim, pairs, 0), _free_axes(y.ndim, pairs, 1)
    first_row, first_column = len(batch), len(batch) + len(rows)
    dx = dot_general(
        dz,
        y,
        contract=tuple((first_column + n, j) for n, j in enumerate(columns)),
        batch=tuple((n, j) for n, (_, j) in enumerate(batch)),
    )
    dy = dot_general(
        x,
        dz,
        contract=tuple((i, first_row + n) for n, i in enumerate(rows)),
        batch=tuple((i, n) for n, (i, _) in enumerate(batch)),
    )
    # The contracted axes of `y` come out in its order, those of `x` in the order of `x`.
    dx_axes = [i for i, _ in batch] + rows + [i for i, _ in sorted(contract, key=lambda pair: pair[1])]
    dy_axes = [j for _, j in batch] + [j for _, j in sorted(contract)] + columns
    return _arranged(dx, dx_axes), _arranged(dy, dy_axes)


@dot_general.flops
def _(x, y, *, contract, batch):
    free = [y.shape[j] for j in _free_axes(y.ndim, (*batch, *contract), 1)]
    return 2 * product(x.shape) * product(free)


dot_general.sample((2, 3), (3, 4), contract=((1, 0),))
dot_general.sample((2, 3, 4), (4, 2, 5), contract=((2, 0),), batch=((0, 1),))
dot_general.sample((2, 3, 4, 2), (4, 3, 2, 2), contract=((1, 1), (2, 0)), batch=((3, 2), (0, 3)))
dot_general.sample((2,), (3,), contract=())


# --- products by labels, what matmul, linear, einsum and their gradients are made of ----------------------------------


def labelled_product(x, x_labels: Sequence[object], y, y_labels: Sequence[object], labels: Sequence[object]):
    """The product of `x` and `y` summed over the labels that are not in `labels`, its axes in that order.

    A label stands for an axis; one that both operands have is one axis of both.
    """
    x, x_labels = _summed(x, x_labels, (*y_labels, *labels))
    y, y_labels = _summed(y, y_labels, (*x_labels, *labels))
    shared = [label for label in x_labels if label in y_labels]
    together = [label for label in labels if label in shared]
    z = dot_general(
        x,
        y,
        contract=tuple((x_labels.index(each), y_labels.index(each)) for each in shared if each not in labels),
        batch=tuple((x_labels.index(each), y_labels.index(each)) for each in together),
    )
    found = (
        together + [each for each in x_labels if each not in shared] + [each for each in y_labels if each not in shared]
    )
    return _arranged(z, [list(labels).index(each) for each in found])


def _summed(x, labels: Sequence[object], wanted: Sequence[object]):
    """`x` summed over the labels that are not wanted, and the labels that are left."""
    axes = tuple(axis for axis, label in enumerate(labels) if label not in wanted)
    left = [label for label in labels if label in wanted]
    return (ops.reduce_sum(x, axes=axes) if axes else x), left


def _arranged(x, order: Sequence[int]):
    """`x` with its axes sorted by `order`, a number for each of them."""
    permutation = tuple(sorted(range(len(order)), key=order.__getitem__))
    return x if permutation == tuple(range(len(order))) else ops.transpose(x, permutation=permutation)


def _reshaped(x, shape):
    return x if tuple(x.shape) == tuple(shape) else ops.reshape(x, shape=shape)


# --- matmul ---------------------------------------------------------------------------------------------------------


@composite(dtypes=NUMERIC)
def matmul(x: Tensor, y: Tensor) -> Tensor:
    """NumPy's `x @ y`: the last axis of `x` with the last but one of `y` (its only one, if it has one axis), the axes
    before as a batch that broadcasts."""
    if x.ndim == 0 or y.ndim == 0:
        raise ShapeError(
            f"matmul takes tensors of one axis or more, not {shape_text(x.shape)} and {shape_text(y.shape)}"
        )
    depth, height = x.shape[-1], y.shape[-2 if y.ndim > 1 else 0]
    shapes = f"{shape_text(x.shape)} @ {shape_text(y.shape)}"
    require_equal(depth, height, f"{shapes}: the columns on the left must be as many as the rows on the right")
    return labelled_product(*_matmul_labels(x, y))


def _matmul_labels(x, y):
    """`x` and `y` without the axes of 1 that broadcast, each with its labels, and the labels of the result.

    Batch axes are numbered from the right, as broadcasting aligns them.
    """
    x_labels = [*range(2 - x.ndim, 0), "row", "depth"][-x.ndim :]
    y_labels = [*range(2 - y.ndim, 0), "depth", "column"] if y.ndim > 1 else ["depth"]
    batch = range(min(2 - x.ndim, 2 - y.ndim, 0), 0)
    labels = [*batch, *(each for each in ("row", "column") if each in x_labels or each in y_labels)]
    x_kept, y_kept = _without_ones(x, x_labels, y, y_labels), _without_ones(y, y_labels, x, x_labels)
    return *x_kept, *y_kept, labels


def _without_ones(x, labels, other, other_labels):
    """`x` without its batch axes of 1 that meet a longer one, and its remaining labels."""
    stretched = [
        label
        for label, size in zip(labels, x.shape, strict=True)
        if isinstance(label, int)
        and label in other_labels
        and is_literal(size, 1)
        and not is_literal(other.shape[other_labels.index(label)], 1)
    ]
    kept = [label for label in labels if label not in stretched]
    return _reshaped(x, tuple(x.shape[labels.index(label)] for label in kept)), kept


@matmul.reference
def _(x, y):
    return np.matmul(x, y)


@matmul.vjp
@holomorphic
def _(dz, z, x, y):
    x_kept, x_labels, y_kept, y_labels, labels = _matmul_labels(x, y)
    dx = labelled_product(dz, labels, y_kept, y_labels, x_labels)
    dy = labelled_product(x_kept, x_labels, dz, labels, y_labels)
    return _reshaped(dx, x.shape), _reshaped(dy, y.shape)


@matmul.flops
def _(x, y):
    z = matmul.infer((x, y), matmul.make_attributes()).types[0]
    return 2 * product(z.shape) * x.shape[-1]


matmul.sample((2, 3), (3, 4))
matmul.sample((3,), (3,))
matmul.sample((3,), (2, 3, 4))
matmul.sample((2, 1, 4, 3), (5, 3, 2))
matmul.sample((2, 4, 3), (3,))
matmul.sample((1, 4, 3), (5, 3, 2))


# --- linear ---------------------------------------------------------------------------------------------------------


@composite(dtypes=NUMERIC)
def linear(x: Tensor, kernel: Tensor, bias: Tensor | None = None) -> Tensor:
    """`x @ kernel + bias` along the last axis of `x`: [..., in] by [in, out] plus [out]."""
    if x.ndim == 0 or kernel.ndim != 2:
        raise ShapeError(
            f"linear takes x [..., in] and kernel [in, out], not {shape_text(x.shape)} and {shape_text(kernel.shape)}"
        )
    shapes = f"x {shape_text(x.shape)} and kernel {shape_text(kernel.shape)}"
    require_equal(x.shape[-1], kernel.shape[0], f"{shapes} do not agree in features")
    y = dot_general(x, kernel, contract=((x.ndim - 1, 0),))
    if bias is None:
        return y
    shapes = f"bias {shape_text(bias.shape)} and kernel {shape_text(kernel.shape)}"
    if bias.ndim != 1:
        raise ShapeError(f"{shapes} do not fit: the bias must have one axis")
    require_equal(bias.shape[0], kernel.shape[1], f"{shapes} do not agree in features")
    return y + bias


@linear.reference
def _(x, kernel, bias):
    return x @ kernel if bias is None else x @ kernel + bias


@linear.vjp
@holomorphic
def _(dy, y, x, kernel, bias):
    lead = tuple(range(x.ndim - 1))
    return (
        linear(dy, ops.transpose(kernel, permutation=(1, 0))),
        dot_general(x, dy, contract=tuple((axis, axis) for axis in lead)),
        None if bias is None else (ops.reduce_sum(dy, axes=lead) if lead else dy),
    )


@linear.flops
def _(x, kernel, bias):
    return 2 * product(x.shape) * kernel.shape[1] + (0 if bias is None else product(x.shape[:-1]) * kernel.shape[1])


linear.sample((2, 3), (3, 4))
linear.sample((2, 3, 4), (4, 5), (5,))
linear.sample((3,), (3, 2), (2,))


# --- einsum ---------------------------------------------------------------------------------------------------------


@composite(dtypes=NUMERIC)
def einsum(*xs: Tensor, equation: str) -> Tensor:
    """Einstein's summation: `"bij,bjk->bik"`. Operands are multiplied from left to right.

    `...` stands for axes that broadcast like a batch of `matmul` but must agree where several operands have them.
    Without `->` the result has the labels that occur once, sorted. A label may not occur twice in one operand.
    """
    inputs, labels = _parsed(equation, xs)
    result, found = xs[0], inputs[0]
    for n, operand in enumerate(xs[1:], 1):
        later = [label for each in inputs[n + 1 :] for label in each]
        kept = [label for label in dict.fromkeys((*found, *inputs[n])) if label in labels or label in later]
        result, found = labelled_product(result, found, operand, inputs[n], kept), kept
    result, found = _summed(result, found, labels)
    return _arranged(result, [labels.index(label) for label in found])


def _parsed(equation: str, tensors) -> tuple[list[list[object]], list[object]]:
    """The labels of each operand and of the result; the axes of `...` are numbered from the right."""
    text = equation.replace(" ", "")
    left, arrow, right = text.partition("->")
    terms = left.split(",")
    if len(terms) != len(tensors):
        raise ShapeError(f"einsum {equation!r} has {len(terms)} terms for {number_of(len(tensors), 'operand')}")
    inputs = [_labels(equation, term, x.ndim) for term, x in zip(terms, tensors, strict=True)]
    batch = sorted({label for each in inputs for label in each if isinstance(label, int)})
    named = [label for each in inputs for label in each if isinstance(label, str)]
    if not arrow:
        return inputs, [*batch, *sorted(label for label in set(named) if named.count(label) == 1)]
    before, dots, after = right.partition("...")
    if batch and not dots:
        raise ShapeError(f"einsum {equation!r}: the result must have the axes of '...' too")
    labels = [*before, *(batch if dots else ()), *after]
    for label in (*before, *after):
        if label not in named or labels.count(label) > 1:
            raise ShapeError(f"einsum {equation!r}: the result's {label!r} is not one axis of the operands")
    return inputs, labels


def _labels(equation: str, term: str, ndim: int) -> list[object]:
    before, dots, after = term.partition("...")
    if any(not label.isalpha() for label in before + after):
        raise ShapeError(f"einsum {equation!r}: {term!r} is not made of letters and '...'")
    extra = ndim - len(before) - len(after)
    if extra < 0 or (extra and not dots):
        raise ShapeError(f"einsum {equation!r}: {term!r} does not fit an operand of {number_of(ndim, 'axis', 'axes')}")
    labels: list[object] = [*before, *range(-extra, 0), *after]
    if len(set(labels)) != len(labels):
        raise ShapeError(f"einsum {equation!r}: {term!r} takes a diagonal, which einsum here does not")
    return labels


einsum.sample((2, 3), (3, 4), equation="ij,jk->ki")
einsum.sample((2, 3, 4), (2, 4, 5), (5,), equation="bij,bjk,k->bi")
einsum.sample((2, 3, 4), equation="...ij->...ji")
einsum.sample((2, 3), (3, 2), equation="ij,ji")


__all__ = ["dot_general", "einsum", "linear", "matmul"]
