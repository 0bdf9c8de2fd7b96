"""F scores: precision and recall in one number."""

from __future__ import annotations

from typing import Any

from graphc.frontends import ops
from graphc.ir.errors import GraphcError, ShapeError
from graphc.runtime.training.loss_functions import EPSILON
from graphc.runtime.training.metrics.metric import ElementwiseMetric
from graphc.runtime.training.metrics.reductions import weights_by_value

COUNTS = ("true_positives", "false_positives", "false_negatives", "intermediate_weights")


class FBetaScore(ElementwiseMetric):
    """(1 + β²) · precision · recall / (β² · precision + recall), for targets and scores [examples, classes].

    Scores above `threshold` count as positive; without one, the greatest of each example. `average` is over classes:
    None gives a vector of them, "micro" counts all classes together, "macro" is their mean, "weighted" the mean that
    weighs a class by its true labels.
    """

    _direction = "up"

    def __init__(
        self,
        average: str | None = None,
        beta: float = 1.0,
        threshold: float | None = None,
        name: str | None = "fbeta_score",
        dtype: Any = None,
    ) -> None:
        super().__init__(dtype, name)
        owner = type(self).__name__
        if average not in (None, "micro", "macro", "weighted"):
            raise GraphcError(f"{owner}: average is None, 'micro', 'macro' or 'weighted', not {average!r}")
        if not isinstance(beta, float) or beta <= 0:
            raise GraphcError(f"{owner}: beta is a float above 0, not {beta!r}")
        if threshold is not None and (not isinstance(threshold, float) or not 0 < threshold <= 1):
            raise GraphcError(f"{owner}: threshold is a float above 0, at most 1, not {threshold!r}")
        self.average, self.beta, self.threshold = average, beta, threshold
        self._built = False

    def build_for(self, y_true: Any, y_pred: Any) -> None:
        if self._built:
            return
        shapes = tuple(y_true.shape), tuple(y_pred.shape)
        if any(len(shape) != 2 or not isinstance(shape[1], int) for shape in shapes):
            raise ShapeError(
                f"the metric {self.name!r} wants targets and predictions of shape (examples, classes); they are "
                f"{shapes[0]} and {shapes[1]}"
            )
        shape = () if self.average == "micro" else (y_pred.shape[1],)
        for count in COUNTS:
            setattr(self, count, self.add_variable(shape=shape, name=count))
        self._built = True

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        y_true, y_pred = (ops.cast(ops.convert_to_tensor(each), self.dtype) for each in (y_true, y_pred))
        self.build_for(y_true, y_pred)
        if self.threshold is None:
            greatest = ops.greater_equal(y_pred, ops.max(y_pred, axis=-1, keepdims=True))
            positive = ops.logical_and(greatest, ops.absolute(y_pred) > 1e-9)
        else:
            positive = ops.greater(y_pred, self.threshold)
        positive = ops.cast(positive, self.dtype)
        weights = None if sample_weight is None else weights_by_value(ops.cast(sample_weight, self.dtype), y_pred)
        axis = None if self.average == "micro" else 0
        parts = (positive * y_true, positive * (1.0 - y_true), (1.0 - positive) * y_true, y_true)
        for count, part in zip(COUNTS, parts, strict=True):
            getattr(self, count).assign_add(ops.sum(part if weights is None else part * weights, axis=axis))

    def result(self) -> Any:
        if not self._built:
            raise GraphcError(f"the metric {self.name!r} has seen no predictions yet, so it knows no classes")
        tp, fp, fn, weights = (ops.convert_to_tensor(getattr(self, count)) for count in COUNTS)
        precision, recall = tp / (tp + fp + EPSILON), tp / (tp + fn + EPSILON)
        square = self.beta**2
        scores = precision * recall / (square * precision + recall + EPSILON) * (1.0 + square)
        if self.average == "weighted":
            return ops.sum(scores * (weights / (ops.sum(weights) + EPSILON)))
        return scores if self.average is None else ops.mean(scores)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "average": self.average, "beta": self.beta, "threshold": self.threshold}


class F1Score(FBetaScore):
    """2 · precision · recall / (precision + recall); see `FBetaScore`."""

    def __init__(
        self,
        average: str | None = None,
        threshold: float | None = None,
        name: str | None = "f1_score",
        dtype: Any = None,
    ) -> None:
        super().__init__(average, 1.0, threshold, name, dtype)

    def get_config(self) -> dict[str, Any]:
        return {key: value for key, value in super().get_config().items() if key != "beta"}
