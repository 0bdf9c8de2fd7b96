"""Losses of each example, not averaged: what is done with them (mean, weights) is said with other ops.

Classes lie along the last axis. Cross-entropies take logits, whose softmax is never formed on the way to the loss; the
gradients are the known differences of probabilities, which do not overflow either.
"""

from __future__ import annotations

import math

import numpy as np
from scipy import special

from graphc.ir import ops
from graphc.ir.attributes import Axes
from graphc.ir.dims import product
from graphc.ir.dtypes import FLOATS, dtype, f32, i32
from graphc.ir.errors import GraphcError, ShapeError
from graphc.ir.inference import require_equal, shape_text
from graphc.ir.opdef import Draw, IndexTensor, Tensor, composite
from graphc.ir.ops.cotangents import unbroadcast


def _wide(x):
    """Narrow floats as float32, others as they are."""
    kind = dtype(x.dtype)
    return ops.convert(x, dtype=f32) if kind.is_float and kind.bits < 32 else x


def _like(y, x):
    """`y` in the dtype of `x`."""
    return y if dtype(y.dtype) is dtype(x.dtype) else ops.convert(y, dtype=x.dtype)


def _check_smoothing(label_smoothing: float) -> None:
    if not 0 <= label_smoothing <= 1:
        raise GraphcError(f"label_smoothing is a number from 0 to 1, not {label_smoothing}")


def _last(x) -> tuple[int, ...]:
    return (len(x.shape) - 1,)


def _dot(x, y):
    """Σ x·y over the last axis."""
    return ops.reduce_sum(x * y, axes=_last(x))


# --- cross-entropy ------------------------------------------------------------------------------------------------


@composite(dtypes=FLOATS)
def sparse_cross_entropy(
    logits: Tensor, labels: IndexTensor, *, ignore_index: int | None = None, label_smoothing: float = 0.0
) -> Tensor:
    """−log softmax(logits) at the label, for logits [..., classes] and integer labels [...].

    With `label_smoothing` the target is the label's class, mixed with this share of all classes alike. Where the label
    is `ignore_index` the loss and its gradient are 0, whatever the logits. A label that is no class gives NaN.
    """
    _check_labels(logits, labels, label_smoothing)
    _check_smoothing(label_smoothing)
    chances = ops.log_softmax(_wide(logits), axis=-1)
    at_label = ops.select(_is_label(logits, labels), chances, 0)
    loss = -ops.reduce_sum(at_label, axes=_last(logits))
    if label_smoothing:
        spread = -ops.reduce_mean(chances, axes=_last(logits))
        loss = loss * (1 - label_smoothing) + spread * label_smoothing
    loss = ops.select(_outside(logits, labels), math.nan, loss)
    if ignore_index is not None:
        loss = ops.select(ops.eq(labels, ignore_index), 0, loss)
    return _like(loss, logits)


def _check_labels(logits, labels, label_smoothing: float) -> None:
    what = f"logits {shape_text(logits.shape)} and labels {shape_text(labels.shape)} must agree but for the classes"
    if logits.ndim != labels.ndim + 1:
        raise ShapeError(what)
    for a, b in zip(logits.shape, labels.shape, strict=False):
        require_equal(a, b, what)


def _is_label(logits, labels):
    """Which class of each example is its label."""
    kind = dtype(labels.dtype)
    counting = kind if kind.bits >= 32 else i32
    classes = ops.iota(shape=(logits.shape[-1],), dtype=counting)
    return ops.eq(ops.expand_dims(ops.convert(labels, dtype=counting), (-1,)), classes)


def _outside(logits, labels):
    kind = dtype(labels.dtype)
    wide = labels if kind.bits >= 32 else ops.convert(labels, dtype=i32)
    return ops.or_(wide < 0, wide >= ops.size_of(logits.shape[-1], wide))


@sparse_cross_entropy.reference
def _(logits, labels, *, ignore_index, label_smoothing):
    count = logits.shape[-1]
    outside = (labels < 0) | (labels >= count)
    chances = special.log_softmax(logits, -1) if logits.size else logits
    places = np.where(outside, 0, labels).astype(np.int64)[..., None]
    at_label = np.take_along_axis(chances, places, -1)[..., 0] if count else np.zeros(labels.shape)
    loss = -at_label
    if label_smoothing:
        loss = (1 - label_smoothing) * loss - label_smoothing * chances.mean(-1)
    loss = np.where(outside, np.nan, loss)
    return loss if ignore_index is None else np.where(labels == ignore_index, 0, loss)


@sparse_cross_entropy.vjp
def _(dy, y, logits, labels, *, ignore_index, label_smoothing):
    options = {"ignore_index": ignore_index, "label_smoothing": label_smoothing}
    return sparse_cross_entropy_gradient(dy, logits, labels, **options), None


@composite(dtypes=FLOATS)
def sparse_cross_entropy_gradient(
    dy: Tensor, logits: Tensor, labels: IndexTensor, *, ignore_index: int | None = None, label_smoothing: float = 0.0
) -> Tensor:
    """The cotangent of the logits of `sparse_cross_entropy`: softmax less target, times `dy` [...] of the losses."""
    wide = _wide(logits)
    chances = ops.softmax(wide, axis=-1)
    if label_smoothing:
        chances = chances - label_smoothing * _uniform(wide)
    g = ops.select(_is_label(logits, labels), chances - (1 - label_smoothing), chances)
    g = g * ops.expand_dims(_wide(dy), (-1,))
    g = ops.select(ops.expand_dims(_outside(logits, labels), (-1,)), math.nan, g)
    if ignore_index is not None:
        g = ops.select(ops.expand_dims(ops.eq(labels, ignore_index), (-1,)), 0, g)
    return _like(g, logits)


@sparse_cross_entropy_gradient.reference
def _(dy, logits, labels, *, ignore_index, label_smoothing):
    count = logits.shape[-1]
    target = (np.arange(count) == labels[..., None]) * (1 - label_smoothing) + label_smoothing / max(count, 1)
    g = (special.softmax(logits, -1) - target if logits.size else logits) * dy[..., None]
    g = np.where(((labels < 0) | (labels >= count))[..., None], np.nan, g)
    return g if ignore_index is None else np.where((labels == ignore_index)[..., None], 0, g)


def _uniform(x):
    """1 / the number of classes of `x`."""
    count = x.shape[-1]
    return 1 / count if isinstance(count, int) else 1 / ops.size_of(count, x)


sparse_cross_entropy.sample((3, 4), np.array([0, 3, 1], np.int32))
sparse_cross_entropy.sample((2, 3, 5), np.array([[0, 4, -100], [2, -100, 1]], np.int64), ignore_index=-100)
sparse_cross_entropy.sample((3, 4), np.array([0, 3, 1], np.uint8), label_smoothing=0.1)
sparse_cross_entropy.sample((4,), np.int32(2), label_smoothing=0.2, ignore_index=2)
sparse_cross_entropy.sample((0, 4), np.zeros(0, np.int32))
sparse_cross_entropy_gradient.sample((3,), (3, 4), np.array([0, 3, 1], np.int32))
sparse_cross_entropy_gradient.sample(
    (2, 3), (2, 3, 5), np.array([[0, 4, -100], [2, -100, 1]], np.int64), ignore_index=-100
)
sparse_cross_entropy_gradient.sample((3,), (3, 4), np.array([0, 3, 1], np.uint8), label_smoothing=0.1)
sparse_cross_entropy_gradient.sample((), (4,), np.int32(2), label_smoothing=0.2, ignore_index=2)
sparse_cross_entropy_gradient.sample((0,), (0, 4), np.zeros(0, np.int32))


@composite(dtypes=FLOATS)
def cross_entropy(logits: Tensor, targets: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
    """−Σ targets · log softmax(logits) over the classes, the last axis of both.

    With `label_smoothing` the targets are mixed with this share of all classes alike. A target of 0 counts nothing,
    also where the logit is −∞.
    """
    _check_targets(logits, targets)
    _check_smoothing(label_smoothing)
    wanted = _smoothed(_wide(targets), label_smoothing)
    chances = ops.log_softmax(_wide(logits), axis=-1)
    return _like(-ops.reduce_sum(_weighted(wanted, chances), axes=_last(logits)), logits)


def _check_targets(logits, targets) -> None:
    what = f"logits {shape_text(logits.shape)} and targets {shape_text(targets.shape)} must be of one shape"
    if logits.ndim != targets.ndim or not logits.ndim:
        raise ShapeError(what)
    for a, b in zip(logits.shape, targets.shape, strict=True):
        require_equal(a, b, what)


def _smoothed(targets, share: float):
    return targets * (1 - share) + share * _uniform(targets) if share else targets


def _weighted(weights, x):
    """weights · x, 0 where the weight is."""
    return ops.select(ops.eq(weights, 0), 0, weights * x)


@cross_entropy.reference
def _(logits, targets, *, label_smoothing):
    if label_smoothing:
        targets = targets * (1 - label_smoothing) + label_smoothing / targets.shape[-1]
    chances = special.log_softmax(logits, -1) if logits.size else logits
    return -np.where(targets == 0, 0, targets * chances).sum(-1)


@cross_entropy.vjp
def _(dy, y, logits, targets, *, label_smoothing):
    wanted = _smoothed(_wide(targets), label_smoothing)
    chances = ops.log_softmax(_wide(logits), axis=-1)
    each = ops.expand_dims(_wide(dy), (-1,))
    total = ops.reduce_sum(wanted, axes=_last(wanted), keepdims=True)
    d_logits = each * (ops.exp(chances) * total - wanted)
    d_targets = each * chances * (label_smoothing - 1)
    return _like(d_logits, logits), _like(d_targets, targets)


cross_entropy.sample((3, 4), Draw((3, 4), 0.1, 1))
cross_entropy.sample((2, 3, 5), Draw((2, 3, 5), 0.1, 1), label_smoothing=0.1)
cross_entropy.sample((0, 3), (0, 3))


@composite(dtypes=FLOATS)
def binary_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """−t·log σ(x) − (1 − t)·log(1 − σ(x)) of finite logits x and targets t, which broadcast."""
    return ops.softplus(logits) - logits * targets


@binary_cross_entropy.reference
def _(logits, targets):
    return np.logaddexp(logits, 0) - logits * targets


@binary_cross_entropy.vjp
def _(dy, y, logits, targets):
    d_logits = dy * (ops.sigmoid(logits) - targets)
    return unbroadcast(d_logits, logits), unbroadcast(-dy * logits, targets)


binary_cross_entropy.sample(Draw((3, 4), -8, 8), Draw((3, 4), 0, 1))
binary_cross_entropy.sample((2, 3), Draw((3,), 0, 1))


# --- distances ----------------------------------------------------------------------------------------------------


@composite(dtypes=FLOATS)
def mean_squared_error(x: Tensor, target: Tensor, *, axes: Axes = (-1,)) -> Tensor:
    """Mean of (x − target)² over `axes`, of tensors of one shape."""
    what = f"{shape_text(x.shape)} and its target {shape_text(target.shape)} must be of one shape"
    if x.ndim != target.ndim:
        raise ShapeError(what)
    for a, b in zip(x.shape, target.shape, strict=True):
        require_equal(a, b, what)
    return ops.reduce_mean(ops.square(x - target), axes=axes)


@mean_squared_error.reference
def _(x, target, *, axes):
    return np.sum((x - target) ** 2, axes) / product(x.shape[axis] for axis in axes)


@mean_squared_error.vjp
def _(dy, y, x, target, *, axes):
    counted = {axis % len(x.shape) for axis in axes}
    kept = ops.reshape(dy, shape=[1 if i in counted else size for i, size in enumerate(x.shape)])
    count = ops.size_of(product(x.shape[axis] for axis in counted), x)
    dx = kept * 2 / count * (x - target)
    return dx, -dx


mean_squared_error.sample((3, 4), (3, 4))
mean_squared_error.sample((2, 3, 4), (2, 3, 4), axes=(0, 2))
mean_squared_error.sample((0, 4), (0, 4), axes=(0,))


__all__ = [
    "binary_cross_entropy",
    "cross_entropy",
    "mean_squared_error",
    "sparse_cross_entropy",
    "sparse_cross_entropy_gradient",
]
