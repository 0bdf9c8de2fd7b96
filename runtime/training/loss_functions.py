"""The losses of each example, as functions of targets and predictions: Keras's names, arguments and numerics."""

from __future__ import annotations

from typing import Any

from graphc.frontends import ops
from graphc.frontends.ops.dispatch import kind, tensor
from graphc.runtime.training.target_shapes import a_class_each, one_each, wants

EPSILON = 1e-7
"""What keeps logarithms and quotients from 0, as in Keras."""


@wants(one_each)
def mean_squared_error(y_true: Any, y_pred: Any) -> Any:
    """The mean of (y_true − y_pred)² over the last axis."""
    y_true, y_pred = _alike(y_true, y_pred)
    return ops.mean(ops.square(y_true - y_pred), axis=-1)


@wants(one_each)
def mean_absolute_error(y_true: Any, y_pred: Any) -> Any:
    """The mean of |y_true − y_pred| over the last axis."""
    y_true, y_pred = _alike(y_true, y_pred)
    return ops.mean(ops.absolute(y_true - y_pred), axis=-1)


@wants(one_each)
def mean_absolute_percentage_error(y_true: Any, y_pred: Any) -> Any:
    """100 times the mean of |y_true − y_pred| / |y_true| over the last axis."""
    y_true, y_pred = _alike(y_true, y_pred)
    share = ops.absolute((y_true - y_pred) / ops.maximum(ops.absolute(y_true), EPSILON))
    return 100.0 * ops.mean(share, axis=-1)


@wants(one_each)
def mean_squared_logarithmic_error(y_true: Any, y_pred: Any) -> Any:
    """The mean of (log(1 + y_true) − log(1 + y_pred))² over the last axis."""
    y_true, y_pred = _alike(y_true, y_pred)
    logarithms = [ops.log(ops.maximum(each, EPSILON) + 1.0) for each in (y_pred, y_true)]
    return ops.mean(ops.square(logarithms[0] - logarithms[1]), axis=-1)


@wants(one_each)
def cosine_similarity(y_true: Any, y_pred: Any, axis: int = -1) -> Any:
    """−1 for vectors of one direction, 1 for opposite ones."""
    y_true, y_pred = _alike(y_true, y_pred)
    return -ops.sum(ops.normalize(y_true, axis=axis) * ops.normalize(y_pred, axis=axis), axis=axis)


@wants(one_each)
def huber(y_true: Any, y_pred: Any, delta: float = 1.0) -> Any:
    """Half the squared error where it is small, linear beyond `delta`; the mean over the last axis."""
    y_true, y_pred = _alike(y_true, y_pred)
    error = y_pred - y_true
    size = ops.absolute(error)
    return ops.mean(ops.where(size <= delta, 0.5 * ops.square(error), delta * size - 0.5 * delta * delta), axis=-1)


@wants(one_each)
def log_cosh(y_true: Any, y_pred: Any) -> Any:
    """The mean of log(cosh(y_pred − y_true)) over the last axis."""
    y_true, y_pred = _alike(y_true, y_pred)
    error = y_pred - y_true
    return ops.mean(error + ops.softplus(error * -2.0) - 0.6931471805599453, axis=-1)


@wants(one_each)
def hinge(y_true: Any, y_pred: Any) -> Any:
    """The mean of max(1 − y_true · y_pred, 0), for targets of −1 or 1, or 0 or 1."""
    y_true, y_pred = _alike(y_true, y_pred)
    return ops.mean(ops.maximum(1.0 - _signs(y_true) * y_pred, 0.0), axis=-1)


@wants(one_each)
def squared_hinge(y_true: Any, y_pred: Any) -> Any:
    """The mean of max(1 − y_true · y_pred, 0)², for targets of −1 or 1, or 0 or 1."""
    y_true, y_pred = _alike(y_true, y_pred)
    return ops.mean(ops.square(ops.maximum(1.0 - _signs(y_true) * y_pred, 0.0)), axis=-1)


@wants(one_each)
def categorical_hinge(y_true: Any, y_pred: Any) -> Any:
    """max(best wrong score − score of the class + 1, 0), for one-hot targets."""
    y_true, y_pred = _alike(y_true, y_pred)
    wrong = ops.max((1.0 - y_true) * y_pred, axis=-1)
    return ops.maximum(wrong - ops.sum(y_true * y_pred, axis=-1) + 1.0, 0.0)


@wants(one_each)
def kl_divergence(y_true: Any, y_pred: Any) -> Any:
    """Σ y_true · log(y_true / y_pred) over the last axis."""
    y_true, y_pred = (ops.clip(each, EPSILON, 1.0) for each in _alike(y_true, y_pred))
    return ops.sum(y_true * ops.log(y_true / y_pred), axis=-1)


@wants(one_each)
def poisson(y_true: Any, y_pred: Any) -> Any:
    """The mean of y_pred − y_true · log(y_pred) over the last axis."""
    y_true, y_pred = _alike(y_true, y_pred)
    return ops.mean(y_pred - y_true * ops.log(y_pred + EPSILON), axis=-1)


@wants(one_each)
def binary_crossentropy(
    y_true: Any, y_pred: Any, from_logits: bool = False, label_smoothing: float = 0.0, axis: int = -1
) -> Any:
    """The mean of −y_true · log p − (1 − y_true) · log(1 − p) over `axis`."""
    y_true, y_pred = _alike(y_true, y_pred)
    if label_smoothing:
        y_true = y_true * (1.0 - label_smoothing) + 0.5 * label_smoothing
    return ops.mean(ops.binary_crossentropy(y_true, y_pred, from_logits), axis=axis)


@wants(one_each)
def categorical_crossentropy(
    y_true: Any, y_pred: Any, from_logits: bool = False, label_smoothing: float = 0.0, axis: int = -1
) -> Any:
    """−Σ y_true · log p over the classes, for targets that are probabilities."""
    y_true, y_pred = _alike(y_true, y_pred)
    if label_smoothing:
        y_true = y_true * (1.0 - label_smoothing) + label_smoothing / y_true.shape[-1]
    return ops.categorical_crossentropy(y_true, y_pred, from_logits, axis)


@wants(one_each)
def binary_focal_crossentropy(
    y_true: Any,
    y_pred: Any,
    apply_class_balancing: bool = False,
    alpha: float = 0.25,
    gamma: float = 2.0,
    from_logits: bool = False,
    label_smoothing: float = 0.0,
    axis: int = -1,
) -> Any:
    """Binary cross-entropy times (1 − p of the right side)^gamma, so that easy examples count less; the mean over
    `axis`. With `apply_class_balancing`, times alpha for targets of 1 and 1 − alpha for those of 0."""
    y_true, y_pred = _alike(y_true, y_pred)
    if label_smoothing:
        y_true = y_true * (1.0 - label_smoothing) + 0.5 * label_smoothing
    if from_logits:
        y_pred = ops.sigmoid(y_pred)
    right = y_true * y_pred + (1.0 - y_true) * (1.0 - y_pred)
    found = ops.power(1.0 - right, gamma) * ops.binary_crossentropy(y_true, y_pred, False)
    if apply_class_balancing:
        found = (y_true * alpha + (1.0 - y_true) * (1.0 - alpha)) * found
    return ops.mean(found, axis=axis)


@wants(one_each)
def categorical_focal_crossentropy(
    y_true: Any,
    y_pred: Any,
    alpha: Any = 0.25,
    gamma: float = 2.0,
    from_logits: bool = False,
    label_smoothing: float = 0.0,
    axis: int = -1,
) -> Any:
    """−Σ alpha · (1 − p)^gamma · y_true · log p over the classes; `alpha` is a number, or one for each class."""
    y_true, y_pred = _alike(y_true, y_pred)
    if label_smoothing:
        y_true = y_true * (1.0 - label_smoothing) + label_smoothing / y_true.shape[-1]
    if from_logits:
        y_pred = ops.softmax(y_pred, axis=axis)
    share = ops.clip(y_pred / ops.sum(y_pred, axis=axis, keepdims=True), EPSILON, 1.0 - EPSILON)
    alpha = ops.cast(alpha, share.dtype) if isinstance(alpha, (list, tuple)) else alpha
    weight = ops.power(1.0 - share, gamma) * alpha
    return ops.sum(weight * (-y_true * ops.log(share)), axis=axis)


@wants(a_class_each)
def categorical_generalized_cross_entropy(y_true: Any, y_pred: Any, q: float) -> Any:
    """(1 − p^q) / q for the probability p of the class `y_true`."""
    y_pred, labels = tensor(y_pred), class_labels(y_true, y_pred)
    chance = ops.sum(y_pred * ops.one_hot(labels, y_pred.shape[-1], dtype=y_pred.dtype), axis=-1)
    return (1.0 - ops.power(chance, q)) / q


@wants(one_each)
def dice(y_true: Any, y_pred: Any, axis: Any = None) -> Any:
    """1 − 2 · Σ y_true · y_pred / (Σ y_true + Σ y_pred), over `axis` (all of the batch without)."""
    y_true, y_pred = _alike(y_true, y_pred)
    common = ops.sum(y_true * y_pred, axis=axis)
    return 1.0 - 2.0 * common / (ops.sum(y_true, axis=axis) + ops.sum(y_pred, axis=axis) + EPSILON)


@wants(one_each)
def tversky(y_true: Any, y_pred: Any, alpha: float = 0.5, beta: float = 0.5, axis: Any = None) -> Any:
    """1 − common / (common + alpha · what is only true + beta · what is only predicted), over `axis` as `dice`."""
    y_true, y_pred = _alike(y_true, y_pred)
    common = ops.sum(y_true * y_pred, axis=axis)
    missed = ops.sum((1.0 - y_pred) * y_true, axis=axis)
    invented = ops.sum(y_pred * (1.0 - y_true), axis=axis)
    return 1.0 - common / (common + missed * alpha + invented * beta + EPSILON)


@wants(a_class_each)
def circle(
    y_true: Any,
    y_pred: Any,
    ref_labels: Any = None,
    ref_embeddings: Any = None,
    remove_diagonal: bool = True,
    gamma: float = 80,
    margin: float = 0.4,
) -> Any:
    """log(1 + Σ exp … over pairs of one label · Σ exp … over the others), for embeddings of length 1 and their labels:
    Sun et al., 2020. Compares with the batch itself, without each example's pair with itself (`remove_diagonal`), or
    with `ref_embeddings` of `ref_labels`."""
    y_pred = tensor(y_pred)
    labels = class_labels(y_true, y_pred)
    others = y_pred if ref_embeddings is None else ops.cast(ref_embeddings, y_pred.dtype)
    other_labels = labels if ref_labels is None else ops.reshape(ops.cast(ref_labels, labels.dtype), (-1,))
    distance = ops.maximum(1.0 - ops.matmul(y_pred, ops.transpose(others)), 0.0)
    same = ops.equal(ops.expand_dims(labels, 1), ops.expand_dims(other_labels, 0))
    positive = same
    if remove_diagonal:
        rows, columns = (ops.arange(each.shape[0], dtype="int32") for each in (labels, other_labels))
        positive = ops.logical_and(same, ops.not_equal(ops.expand_dims(rows, 1), ops.expand_dims(columns, 0)))
    near = -gamma * (margin + distance) * (margin - distance)
    far = gamma * ops.maximum(1.0 + margin - distance, 0.0) * (1.0 - margin - distance)
    # Far below what can occur, in place of −∞: where there are no pairs its gradient would not be a number.
    sums = [
        ops.logsumexp(ops.where(pairs, terms, -1e9), axis=1)
        for pairs, terms in ((positive, near), (ops.logical_not(same), far))
    ]
    return ops.softplus(sums[0] + sums[1])


@wants(a_class_each)
def sparse_categorical_crossentropy(
    y_true: Any, y_pred: Any, from_logits: bool = False, ignore_class: int | None = None, axis: int = -1
) -> Any:
    """−log p of the class `y_true`; 0 where that is `ignore_class`."""
    y_pred, y_true = tensor(y_pred), class_labels(y_true, y_pred, axis)
    if ignore_class is None:
        return ops.sparse_categorical_crossentropy(y_true, y_pred, from_logits, axis)
    counts = ops.not_equal(y_true, ignore_class)
    found = ops.sparse_categorical_crossentropy(
        ops.where(counts, y_true, 0), ops.where(ops.expand_dims(counts, axis), y_pred, 1.0), from_logits, axis
    )
    return ops.where(counts, found, 0.0)


def class_labels(y_true: Any, y_pred: Any, axis: int = -1) -> Any:
    """The labels as integers, without the axis of size 1 that they may have in place of the classes."""
    labels = tensor(y_true)
    if len(labels.shape) == len(y_pred.shape) and labels.shape[axis] == 1:
        labels = ops.squeeze(labels, axis=axis)
    return labels if kind(labels).is_integer else ops.cast(labels, "int32")


def widened(y_true: Any) -> Any:
    """Targets as a user's function gets them: bools and narrow integers as int32, so that 2 · y − 1 is what it says."""
    y_true = tensor(y_true)
    narrow = kind(y_true).is_bool or (kind(y_true).is_integer and kind(y_true).bits < 32)
    return ops.cast(y_true, "int32") if narrow else y_true


# --- shapes -------------------------------------------------------------------------------------------------------


def _alike(y_true: Any, y_pred: Any) -> tuple[Any, Any]:
    y_pred = tensor(y_pred)
    return same_rank(ops.cast(y_true, y_pred.dtype), y_pred)


def same_rank(x: Any, y: Any) -> tuple[Any, Any]:
    """The two with an axis of size 1 at the end of one dropped, or added to one of rank 1, so that ranks agree."""
    if len(x.shape) == len(y.shape) + 1 and x.shape[-1] == 1:
        return (x, ops.expand_dims(y, -1)) if len(y.shape) == 1 else (ops.squeeze(x, axis=-1), y)
    if len(y.shape) == len(x.shape) + 1 and y.shape[-1] == 1:
        return (ops.expand_dims(x, -1), y) if len(x.shape) == 1 else (x, ops.squeeze(y, axis=-1))
    return x, y


def _signs(y_true: Any) -> Any:
    """Targets of 0 and 1 as −1 and 1; others as they are."""
    binary = ops.all(ops.logical_or(ops.equal(y_true, 0), ops.equal(y_true, 1)))
    return ops.where(binary, 2.0 * y_true - 1.0, y_true)
