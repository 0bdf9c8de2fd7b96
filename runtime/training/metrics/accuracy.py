"""How often predictions are right. The functions give 1.0 or 0.0 for each example; the classes are their means."""

from __future__ import annotations

import math
from typing import Any

from graphc.frontends import ops
from graphc.ir.dtypes import dtype as dtype_of
from graphc.ir.errors import GraphcError
from graphc.runtime.training.loss_functions import same_rank
from graphc.runtime.training.metrics.reductions import MeanMetricWrapper
from graphc.runtime.training.target_shapes import a_class_each, one_each, wants


@wants(one_each)
def accuracy(y_true: Any, y_pred: Any) -> Any:
    """Where `y_pred` equals `y_true`."""
    y_true, y_pred = same_rank(ops.convert_to_tensor(y_true), ops.convert_to_tensor(y_pred))
    return ops.cast(ops.equal(ops.cast(y_true, y_pred.dtype), y_pred), "float32")


@wants(one_each)
def binary_accuracy(y_true: Any, y_pred: Any, threshold: float = 0.5) -> Any:
    """Where `y_pred` is above the threshold and `y_true` 1, or neither."""
    y_true, y_pred = same_rank(ops.convert_to_tensor(y_true), ops.convert_to_tensor(y_pred))
    above = ops.cast(ops.greater(y_pred, threshold), y_true.dtype)
    return ops.cast(ops.equal(y_true, above), "float32")


@wants(one_each)
def categorical_accuracy(y_true: Any, y_pred: Any) -> Any:
    """Where the greatest score stands at the 1 of a one-hot `y_true`."""
    return ops.cast(ops.equal(ops.argmax(y_true, axis=-1), ops.argmax(y_pred, axis=-1)), "float32")


@wants(a_class_each)
def sparse_categorical_accuracy(y_true: Any, y_pred: Any) -> Any:
    """Where the greatest score stands at the class `y_true`."""
    y_true = _labels(y_true, y_pred)
    found = ops.argmax(y_pred, axis=-1)
    if dtype_of(y_true.dtype).is_float:  # labels that came as floats, among them ones that are no class
        found = ops.cast(found, y_true.dtype)
    else:
        y_true = ops.cast(y_true, found.dtype)
    return ops.cast(ops.equal(y_true, found), "float32")


@wants(one_each)
def top_k_categorical_accuracy(y_true: Any, y_pred: Any, k: int = 5) -> Any:
    """Where the 1 of a one-hot `y_true` is among the k greatest scores."""
    return sparse_top_k_categorical_accuracy(ops.argmax(y_true, axis=-1), y_pred, k)


@wants(a_class_each)
def sparse_top_k_categorical_accuracy(y_true: Any, y_pred: Any, k: int = 5, from_sorted_ids: bool = False) -> Any:
    """Where the class `y_true` is among the k greatest scores: fewer than k are greater, so that those equal to the kth
    count too. With `from_sorted_ids`, `y_pred` has classes, the best ones first."""
    y_pred = ops.convert_to_tensor(y_pred)
    y_true = _labels(y_true, y_pred)
    if from_sorted_ids:
        first = y_pred[..., :k]
        same = ops.equal(ops.expand_dims(ops.cast(y_true, first.dtype), -1), first)
        return ops.cast(ops.any(same, axis=-1), "float32")
    at = ops.one_hot(ops.cast(y_true, "int32"), y_pred.shape[-1], dtype="bool")
    score = ops.max(ops.where(at, y_pred, -math.inf), axis=-1, keepdims=True)
    greater = ops.sum(ops.cast(ops.greater(y_pred, score), "int32"), axis=-1)
    # A label that is no class has the score -inf, which is never right, as one of NaN.
    right = ops.logical_and(ops.less(greater, k), ops.isfinite(ops.squeeze(score, -1)))
    return ops.cast(right, "float32")


def _labels(y_true: Any, y_pred: Any) -> Any:
    """Labels without a last axis of size 1, when they have as many axes as the scores."""
    y_true = ops.convert_to_tensor(y_true)
    last = y_true.shape[-1] if len(y_true.shape) else None
    same = len(y_true.shape) == len(ops.convert_to_tensor(y_pred).shape)
    return ops.squeeze(y_true, -1) if same and isinstance(last, int) and last == 1 else y_true


class Accuracy(MeanMetricWrapper):
    """How often predictions equal the labels."""

    _direction = "up"

    def __init__(self, name: str | None = "accuracy", dtype: Any = None) -> None:
        super().__init__(accuracy, name, dtype)


class BinaryAccuracy(MeanMetricWrapper):
    """How often predictions on the right side of `threshold` are right."""

    _direction = "up"

    def __init__(self, name: str | None = "binary_accuracy", dtype: Any = None, threshold: float = 0.5) -> None:
        if threshold is not None and not 0 < threshold < 1:
            raise GraphcError(f"BinaryAccuracy: the threshold is a number between 0 and 1, not {threshold!r}")
        super().__init__(binary_accuracy, name, dtype, threshold=threshold)


class CategoricalAccuracy(MeanMetricWrapper):
    """How often the greatest score is that of the one-hot label."""

    _direction = "up"

    def __init__(self, name: str | None = "categorical_accuracy", dtype: Any = None) -> None:
        super().__init__(categorical_accuracy, name, dtype)


class SparseCategoricalAccuracy(MeanMetricWrapper):
    """How often the greatest score is that of the label."""

    _direction = "up"

    def __init__(self, name: str | None = "sparse_categorical_accuracy", dtype: Any = None) -> None:
        super().__init__(sparse_categorical_accuracy, name, dtype)


class TopKCategoricalAccuracy(MeanMetricWrapper):
    """How often the one-hot label is among the k greatest scores."""

    _direction = "up"

    def __init__(self, k: int = 5, name: str | None = "top_k_categorical_accuracy", dtype: Any = None) -> None:
        super().__init__(top_k_categorical_accuracy, name, dtype, k=_at_least_one(k))


class SparseTopKCategoricalAccuracy(MeanMetricWrapper):
    """How often the label is among the k greatest scores."""

    _direction = "up"

    def __init__(
        self,
        k: int = 5,
        name: str | None = "sparse_top_k_categorical_accuracy",
        dtype: Any = None,
        from_sorted_ids: bool = False,
    ) -> None:
        super().__init__(
            sparse_top_k_categorical_accuracy, name, dtype, k=_at_least_one(k), from_sorted_ids=from_sorted_ids
        )


def _at_least_one(k: int) -> int:
    if isinstance(k, bool) or not isinstance(k, int) or k < 1:
        raise GraphcError(f"k is an integer of 1 or more, not {k!r}")
    return k
