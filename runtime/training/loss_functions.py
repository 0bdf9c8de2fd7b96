"""The losses of each example, as functions of targets and predictions: Keras's names, arguments and numerics."""

from __future__ import annotations

from typing import Any

from graphc.frontends import ops
from graphc.frontends.ops.dispatch import kind, tensor

EPSILON = 1e-7
"""What keeps logarithms and quotients from 0, as in Keras."""


def mean_squared_error(y_true: Any, y_pred: Any) -> Any:
    """The mean of (y_true − y_pred)² over the last axis."""
    y_true, y_pred = _alike(y_true, y_pred)
    return ops.mean(ops.square(y_true - y_pred), axis=-1)


def mean_absolute_error(y_true: Any, y_pred: Any) -> Any:
    """The mean of |y_true − y_pred| over the last axis."""
    y_true, y_pred = _alike(y_true, y_pred)
    return ops.mean(ops.absolute(y_true - y_pred), axis=-1)


def mean_absolute_percentage_error(y_true: Any, y_pred: Any) -> Any:
    """100 times the mean of |y_true − y_pred| / |y_true| over the last axis."""
    y_true, y_pred = _alike(y_true, y_pred)
    share = ops.absolute((y_true - y_pred) / ops.maximum(ops.absolute(y_true), EPSILON))
    return 100.0 * ops.mean(share, axis=-1)


def mean_squared_logarithmic_error(y_true: Any, y_pred: Any) -> Any:
    """The mean of (log(1 + y_true) − log(1 + y_pred))² over the last axis."""
    y_true, y_pred = _alike(y_true, y_pred)
    logarithms = [ops.log(ops.maximum(each, EPSILON) + 1.0) for each in (y_pred, y_true)]
    return ops.mean(ops.square(logarithms[0] - logarithms[1]), axis=-1)


def cosine_similarity(y_true: Any, y_pred: Any, axis: int = -1) -> Any:
    """−1 for vectors of one direction, 1 for opposite ones."""
    y_true, y_pred = _alike(y_true, y_pred)
    return -ops.sum(ops.normalize(y_true, axis=axis) * ops.normalize(y_pred, axis=axis), axis=axis)


def huber(y_true: Any, y_pred: Any, delta: float = 1.0) -> Any:
    """Half the squared error where it is small, linear beyond `delta`; the mean over the last axis."""
    y_true, y_pred = _alike(y_true, y_pred)
    error = y_pred - y_true
    size = ops.absolute(error)
    return ops.mean(ops.where(size <= delta, 0.5 * ops.square(error), delta * size - 0.5 * delta * delta), axis=-1)


def log_cosh(y_true: Any, y_pred: Any) -> Any:
    """The mean of log(cosh(y_pred − y_true)) over the last axis."""
    y_true, y_pred = _alike(y_true, y_pred)
    error = y_pred - y_true
    return ops.mean(error + ops.softplus(error * -2.0) - 0.6931471805599453, axis=-1)


def hinge(y_true: Any, y_pred: Any) -> Any:
    """The mean of max(1 − y_true · y_pred, 0), for targets of −1 or 1, or 0 or 1."""
    y_true, y_pred = _cast(y_true, y_pred)
    return ops.mean(ops.maximum(1.0 - _signs(y_true) * y_pred, 0.0), axis=-1)


def squared_hinge(y_true: Any, y_pred: Any) -> Any:
    """The mean of max(1 − y_true · y_pred, 0)², for targets of −1 or 1, or 0 or 1."""
    y_true, y_pred = _cast(y_true, y_pred)
    return ops.mean(ops.square(ops.maximum(1.0 - _signs(y_true) * y_pred, 0.0)), axis=-1)


def categorical_hinge(y_true: Any, y_pred: Any) -> Any:
    """max(best wrong score − score of the class + 1, 0), for one-hot targets."""
    y_true, y_pred = _cast(y_true, y_pred)
    wrong = ops.max((1.0 - y_true) * y_pred, axis=-1)
    return ops.maximum(wrong - ops.sum(y_true * y_pred, axis=-1) + 1.0, 0.0)


def kl_divergence(y_true: Any, y_pred: Any) -> Any:
    """Σ y_true · log(y_true / y_pred) over the last axis."""
    y_true, y_pred = (ops.clip(each, EPSILON, 1.0) for each in _cast(y_true, y_pred))
    return ops.sum(y_true * ops.log(y_true / y_pred), axis=-1)


def poisson(y_true: Any, y_pred: Any) -> Any:
    """The mean of y_pred − y_true · log(y_pred) over the last axis."""
    y_true, y_pred = _cast(y_true, y_pred)
    return ops.mean(y_pred - y_true * ops.log(y_pred + EPSILON), axis=-1)


def binary_crossentropy(
    y_true: Any, y_pred: Any, from_logits: bool = False, label_smoothing: float = 0.0, axis: int = -1
) -> Any:
    """The mean of −y_true · log p − (1 − y_true) · log(1 − p) over `axis`."""
    y_true, y_pred = _cast(y_true, y_pred)
    if label_smoothing:
        y_true = y_true * (1.0 - label_smoothing) + 0.5 * label_smoothing
    return ops.mean(ops.binary_crossentropy(y_true, y_pred, from_logits), axis=axis)


def categorical_crossentropy(
    y_true: Any, y_pred: Any, from_logits: bool = False, label_smoothing: float = 0.0, axis: int = -1
) -> Any:
    """−Σ y_true · log p over the classes, for targets that are probabilities."""
    y_true, y_pred = _cast(y_true, y_pred)
    if label_smoothing:
        y_true = y_true * (1.0 - label_smoothing) + label_smoothing / y_true.shape[-1]
    return ops.categorical_crossentropy(y_true, y_pred, from_logits, axis)


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


# --- shapes -------------------------------------------------------------------------------------------------------


def _cast(y_true: Any, y_pred: Any) -> tuple[Any, Any]:
    y_pred = tensor(y_pred)
    return ops.cast(y_true, y_pred.dtype), y_pred


def _alike(y_true: Any, y_pred: Any) -> tuple[Any, Any]:
    return same_rank(*_cast(y_true, y_pred))


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
