"""How well predicted numbers follow the targets: the coefficient of determination, and correlations."""

from __future__ import annotations

from typing import Any

from graphc.frontends import ops
from graphc.ir.errors import GraphcError, ShapeError
from graphc.runtime.training.loss_functions import EPSILON, same_rank
from graphc.runtime.training.metrics.metric import ElementwiseMetric
from graphc.runtime.training.metrics.reductions import MeanMetricWrapper, weights_by_value
from graphc.runtime.training.target_shapes import one_each, wants


class R2Score(ElementwiseMetric):
    """1 − Σ (y_true − y_pred)² / Σ (y_true − mean)², for targets and predictions [examples, outputs].

    `class_aggregation` is over outputs: "uniform_average", "variance_weighted_average", or None for a vector. With
    `num_regressors`, the score is adjusted for so many variables, if there are enough numbers.
    """

    _direction = "up"

    def __init__(
        self,
        class_aggregation: str | None = "uniform_average",
        num_regressors: int = 0,
        name: str | None = "r2_score",
        dtype: Any = None,
    ) -> None:
        super().__init__(dtype, name)
        if class_aggregation not in (None, "uniform_average", "variance_weighted_average"):
            raise GraphcError(
                "R2Score: class_aggregation is None, 'uniform_average' or 'variance_weighted_average', not "
                f"{class_aggregation!r}"
            )
        if num_regressors < 0:
            raise GraphcError(f"R2Score: num_regressors is a number of 0 or more, not {num_regressors!r}")
        self.class_aggregation, self.num_regressors = class_aggregation, num_regressors
        self.num_samples = self.add_variable(name="num_samples")
        self._built = False

    def build_for(self, y_true: Any, y_pred: Any) -> None:
        if self._built:
            return
        shape, _ = one_each(tuple(y_true.shape), tuple(y_pred.shape))
        if len(shape) != 2 or not isinstance(shape[1], int):
            raise ShapeError(
                f"the metric {self.name!r} wants targets and predictions of shape (examples, outputs); they are "
                f"{tuple(y_true.shape)} and {tuple(y_pred.shape)}"
            )
        self.squared_sum = self.add_variable(shape=shape[1:], name="squared_sum")
        self.sum = self.add_variable(shape=shape[1:], name="sum")
        self.total_mse = self.add_variable(shape=shape[1:], name="residual")
        self.count = self.add_variable(shape=shape[1:], name="count")
        self._built = True

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        y_true, y_pred = (ops.cast(ops.convert_to_tensor(each), self.dtype) for each in (y_true, y_pred))
        self.build_for(y_true, y_pred)
        y_true, y_pred = same_rank(y_true, y_pred)
        weights = weights_by_value(ops.cast(1.0 if sample_weight is None else sample_weight, self.dtype), y_true)
        self.sum.assign_add(ops.sum(y_true * weights, axis=0))
        self.squared_sum.assign_add(ops.sum(y_true * (y_true * weights), axis=0))
        self.total_mse.assign_add(ops.sum(ops.square(y_true - y_pred) * weights, axis=0))
        self.count.assign_add(ops.sum(weights, axis=0))
        self.num_samples.assign_add(ops.cast(ops.size(y_true), self.dtype))

    def result(self) -> Any:
        if not self._built:
            raise GraphcError(f"the metric {self.name!r} has seen no predictions yet, so it knows no outputs")
        each, squares, residual, count = (
            ops.convert_to_tensor(variable) for variable in (self.sum, self.squared_sum, self.total_mse, self.count)
        )
        total = squares - each * (each / count)
        scores = 1.0 - residual / total
        scores = ops.where(ops.isinf(scores), 0.0, scores)
        if self.class_aggregation == "uniform_average":
            scores = ops.mean(scores)
        elif self.class_aggregation == "variance_weighted_average":
            scores = ops.sum(total * scores) / ops.sum(total)
        if not self.num_regressors:
            return scores
        numbers = ops.convert_to_tensor(self.num_samples)
        free = numbers - float(self.num_regressors + 1)
        enough = free > 0.0
        adjusted = 1.0 - (1.0 - scores) * (numbers - 1.0) / ops.where(enough, free, 1.0)
        return ops.where(enough, adjusted, scores)

    def get_config(self) -> dict[str, Any]:
        options = {"class_aggregation": self.class_aggregation, "num_regressors": self.num_regressors}
        return {**super().get_config(), **options}


@wants(one_each)
def pearson_correlation(y_true: Any, y_pred: Any, axis: int = -1) -> Any:
    """The correlation of targets and predictions along `axis`."""
    y_true, y_pred = _alike(y_true, y_pred)
    y_true, y_pred = (each - ops.mean(each, axis=axis, keepdims=True) for each in (y_true, y_pred))
    y_true, y_pred = (each / ops.std(each, axis=axis, keepdims=True) for each in (y_true, y_pred))
    return ops.mean(y_true * y_pred, axis=axis)


@wants(one_each)
def concordance_correlation(y_true: Any, y_pred: Any, axis: int = -1) -> Any:
    """Lin's concordance along `axis`: 2 · covariance / (both variances + the squared distance of the means)."""
    y_true, y_pred = _alike(y_true, y_pred)
    means = [ops.mean(each, axis=axis, keepdims=True) for each in (y_true, y_pred)]
    spread = ops.var(y_true, axis=axis, keepdims=True) + ops.var(y_pred, axis=axis, keepdims=True)
    covariance = (y_true - means[1]) * (y_pred - means[1])
    return ops.mean(2.0 * covariance / (spread + ops.square(means[0] - means[1]) + EPSILON), axis=axis)


def _alike(y_true: Any, y_pred: Any) -> tuple[Any, Any]:
    y_pred = ops.convert_to_tensor(y_pred)
    return same_rank(ops.cast(ops.convert_to_tensor(y_true), y_pred.dtype), y_pred)


class PearsonCorrelation(MeanMetricWrapper):
    """The mean correlation of targets and predictions along `axis`."""

    _direction = "up"

    def __init__(self, name: str | None = "pearson_correlation", dtype: Any = None, axis: int = -1) -> None:
        super().__init__(pearson_correlation, name, dtype, axis=axis)


class ConcordanceCorrelation(MeanMetricWrapper):
    """The mean concordance of targets and predictions along `axis`."""

    _direction = "up"

    def __init__(self, name: str | None = "concordance_correlation", dtype: Any = None, axis: int = -1) -> None:
        super().__init__(concordance_correlation, name, dtype, axis=axis)
