"""Which predictions above thresholds are right or wrong: weighted counts, what precision and AUC are made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphc.frontends import ops
from graphc.ir import ops as ir
from graphc.ir.dtypes import DType
from graphc.ir.errors import GraphcError, ShapeError
from graphc.runtime.training.loss_functions import EPSILON, same_rank
from graphc.runtime.training.metrics.reductions import weights_by_value
from graphc.runtime.training.target_shapes import shown

BELOW_ALL = -1e10
"""A threshold that every score is above; scores that are not among the top k become it."""


@dataclass
class Counts:
    """The weights of what is above thresholds (positives) and what is not (negatives), each true or false.

    Each has the shape [thresholds], with several labels [thresholds, labels].
    """

    true_positives: Any
    false_positives: Any
    true_negatives: Any
    false_negatives: Any


def checked_thresholds(owner: str, thresholds: Any, default: float) -> list[float]:
    """The thresholds as a list; `default` for None. Raises `GraphcError` for any that is not in [0, 1]."""
    if thresholds is None:
        return [default]
    found = [thresholds] if not isinstance(thresholds, (list, tuple, np.ndarray)) else list(thresholds)
    wrong = [each for each in found if each is None or not 0 <= each <= 1]
    if wrong or not found:
        raise GraphcError(f"{owner}: thresholds are numbers from 0 to 1, not {wrong[0] if wrong else thresholds!r}")
    return [float(each) for each in found]


def are_even(thresholds: Sequence[float]) -> bool:
    """Whether the thresholds part [0, 1] into equal steps, so that a score's step follows by arithmetic."""
    count = len(thresholds)
    return count > 2 and bool(np.allclose(thresholds, np.arange(count) / (count - 1), atol=EPSILON))


def count_above(
    y_true: Any,
    y_pred: Any,
    sample_weight: Any,
    thresholds: Sequence[float],
    dtype: DType,
    *,
    top_k: int | None = None,
    class_id: int | None = None,
    label_weights: Any = None,
    by_label: bool = False,
) -> Counts:
    """The counts of a batch. `y_true` counts as true where it is not 0; scores count as positive above a threshold.

    All labels of an example are counted together, weighted by `label_weights`, or apart with `by_label`. The cost is
    O(scores + thresholds) where thresholds are even, else O(scores · thresholds).
    """
    y_true, y_pred = (ops.cast(ops.convert_to_tensor(each), dtype) for each in (y_true, y_pred))
    y_true, y_pred = same_rank(y_true, y_pred)
    factors = [] if sample_weight is None else [weights_by_value(ops.cast(sample_weight, dtype), y_pred)]
    factors += [] if label_weights is None else [ops.cast(label_weights, dtype)]
    if top_k is not None:
        y_pred = _only_top(y_pred, top_k)
    if class_id is not None:
        classes = y_pred.shape[-1] if len(y_pred.shape) > 1 else 0
        if isinstance(classes, int) and class_id >= classes:
            raise ShapeError(
                f"class_id={class_id} is one of the classes, the last axis of the predictions, from 0 on; they have "
                f"the shape {shown(tuple(y_pred.shape))}"
            )
        y_true, y_pred, *factors = (each[..., class_id : class_id + 1] for each in (y_true, y_pred, *factors))
    truth = ops.cast(ops.not_equal(y_true, 0), dtype)
    true, false = truth, 1.0 - truth
    for factor in factors:
        factor = ops.broadcast_to(factor, y_pred.shape)
        true, false = true * factor, false * factor
    if not by_label:
        true, false, y_pred = (ops.reshape(each, (-1,)) for each in (true, false, y_pred))
    classes = ops.stack([true, false], axis=-1)
    above, below = (_by_steps if are_even(thresholds) else _by_comparison)(y_pred, classes, thresholds)
    return Counts(above[..., 0], above[..., 1], below[..., 1], below[..., 0])


def _by_comparison(scores: Any, classes: Any, thresholds: Sequence[float]) -> tuple[Any, Any]:
    """The sums of `classes` [examples, (labels,) 2] where scores are above each threshold, and where not."""
    limits = np.asarray(thresholds, np.float32).reshape((-1,) + (1,) * len(scores.shape))
    is_above = ops.greater(ops.expand_dims(scores, 0), ops.cast(limits, scores.dtype))
    above = ops.cast(is_above, scores.dtype)
    if len(scores.shape) == 1:
        return ops.matmul(above, classes), ops.matmul(1.0 - above, classes)
    above, classes = ops.expand_dims(above, -1), ops.expand_dims(classes, 0)
    return ops.sum(above * classes, axis=1), ops.sum((1.0 - above) * classes, axis=1)


def _by_steps(scores: Any, classes: Any, thresholds: Sequence[float]) -> tuple[Any, Any]:
    """The same for even thresholds: sums by the step in which a score lies, then sums over all steps above."""
    count = len(thresholds)
    step = ops.ceil(ops.clip(scores, 0.0, 1.0) * float(count - 1)) - 1.0
    if thresholds[0] < 0:
        step = ops.maximum(step, 0.0)  # a score of 0 is above a threshold that lies a little below 0
    step = ops.cast(step, "int32")
    shape: tuple[int, ...] = (count, 2)
    if len(scores.shape) == 2:
        labels = scores.shape[1]
        step = ops.where(step < 0, -1, step * labels + ops.expand_dims(ops.arange(labels, dtype="int32"), 0))
        shape = (count * labels, 2)
        step, classes = ops.reshape(step, (-1,)), ops.reshape(classes, (-1, 2))
    sums = ir.scatter(ops.zeros(shape, dtype=classes.dtype), step, classes, axis=0)
    if len(scores.shape) == 2:
        sums = ops.reshape(sums, (count, scores.shape[1], 2))
        total = ops.sum(ops.reshape(classes, (-1, scores.shape[1], 2)), axis=0)
    else:
        total = ops.sum(classes, axis=0)
    above = ops.flip(ops.cumsum(ops.flip(sums, 0), axis=0), 0)
    return above, ops.expand_dims(total, 0) - above


def _only_top(scores: Any, k: int) -> Any:
    """The k greatest scores of each example; the others become `BELOW_ALL`."""
    best = ops.argsort(-scores, axis=-1)[..., :k]
    kept = ops.sum(ops.one_hot(best, scores.shape[-1], dtype=scores.dtype), axis=-2)
    return scores * kept + BELOW_ALL * (1.0 - kept)
