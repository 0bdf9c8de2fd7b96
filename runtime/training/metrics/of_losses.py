"""Losses as metrics: their means over all examples, not only over a batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from graphc.frontends import ops
from graphc.runtime.training import loss_functions as losses
from graphc.runtime.training.metrics.reductions import Mean, MeanMetricWrapper
from graphc.runtime.training.target_shapes import Fit, Shape, one_each, wants


def _mean_of(fn: Callable[..., Any], title: str, name: str) -> type[MeanMetricWrapper]:
    """The class of a loss function that takes nothing but targets and predictions."""

    def __init__(self: Any, name: str | None = name, dtype: Any = None) -> None:
        MeanMetricWrapper.__init__(self, fn, name, dtype)

    methods = {"__init__": __init__, "__doc__": fn.__doc__, "__module__": __name__}
    return type(title, (MeanMetricWrapper,), methods)


MeanSquaredError = _mean_of(losses.mean_squared_error, "MeanSquaredError", "mean_squared_error")
MeanAbsoluteError = _mean_of(losses.mean_absolute_error, "MeanAbsoluteError", "mean_absolute_error")
MeanAbsolutePercentageError = _mean_of(
    losses.mean_absolute_percentage_error, "MeanAbsolutePercentageError", "mean_absolute_percentage_error"
)
MeanSquaredLogarithmicError = _mean_of(
    losses.mean_squared_logarithmic_error, "MeanSquaredLogarithmicError", "mean_squared_logarithmic_error"
)
LogCoshError = _mean_of(losses.log_cosh, "LogCoshError", "logcosh")
Hinge = _mean_of(losses.hinge, "Hinge", "hinge")
SquaredHinge = _mean_of(losses.squared_hinge, "SquaredHinge", "squared_hinge")
CategoricalHinge = _mean_of(losses.categorical_hinge, "CategoricalHinge", "categorical_hinge")
KLDivergence = _mean_of(losses.kl_divergence, "KLDivergence", "kl_divergence")
Poisson = _mean_of(losses.poisson, "Poisson", "poisson")


class RootMeanSquaredError(Mean):
    """The root of the mean of (y_true − y_pred)²."""

    _direction = "down"

    def fit_of(self, target: Shape, prediction: Shape) -> Fit | None:
        return one_each(target, prediction)

    def __init__(self, name: str | None = "root_mean_squared_error", dtype: Any = None) -> None:
        super().__init__(name, dtype)

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:  # type: ignore[override]
        y_true, y_pred = (ops.cast(ops.convert_to_tensor(each), self.dtype) for each in (y_true, y_pred))
        y_true, y_pred = losses.same_rank(y_true, y_pred)
        super().update_state(ops.square(y_true - y_pred), sample_weight)

    def result(self) -> Any:
        return ops.sqrt(super().result())


@wants(one_each)
def cosine_similarity(y_true: Any, y_pred: Any, axis: int = -1) -> Any:
    """1 for vectors of one direction, −1 for opposite ones: the loss of this name with the other sign."""
    return -losses.cosine_similarity(y_true, y_pred, axis)


class CosineSimilarity(MeanMetricWrapper):
    """The mean of the cosine between targets and predictions."""

    _direction = "up"

    def __init__(self, name: str | None = "cosine_similarity", dtype: Any = None, axis: int = -1) -> None:
        super().__init__(cosine_similarity, name, dtype, axis=axis)


class BinaryCrossentropy(MeanMetricWrapper):
    """Cross-entropy of targets of 0 or 1 and probabilities, or logits with `from_logits`."""

    def __init__(
        self,
        name: str | None = "binary_crossentropy",
        dtype: Any = None,
        from_logits: bool = False,
        label_smoothing: float = 0,
    ) -> None:
        options = {"from_logits": from_logits, "label_smoothing": label_smoothing}
        super().__init__(losses.binary_crossentropy, name, dtype, **options)


class CategoricalCrossentropy(MeanMetricWrapper):
    """Cross-entropy of targets that are probabilities of classes and predicted ones, or logits with `from_logits`."""

    def __init__(
        self,
        name: str | None = "categorical_crossentropy",
        dtype: Any = None,
        from_logits: bool = False,
        label_smoothing: float = 0,
        axis: int = -1,
    ) -> None:
        options = {"from_logits": from_logits, "label_smoothing": label_smoothing, "axis": axis}
        super().__init__(losses.categorical_crossentropy, name, dtype, **options)


class SparseCategoricalCrossentropy(MeanMetricWrapper):
    """Cross-entropy of classes and predicted probabilities, or logits with `from_logits`. Targets of `ignore_class` do
    not count."""

    def __init__(
        self,
        name: str | None = "sparse_categorical_crossentropy",
        dtype: Any = None,
        from_logits: bool = False,
        ignore_class: int | None = None,
        axis: int = -1,
    ) -> None:
        options = {"from_logits": from_logits, "ignore_class": ignore_class, "axis": axis}
        super().__init__(losses.sparse_categorical_crossentropy, name, dtype, **options)
        self.ignore_class, self.axis = ignore_class, axis

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        if self.ignore_class is not None:
            y_pred = ops.convert_to_tensor(y_pred)
            labels = losses.class_labels(y_true, y_pred, self.axis)
            counted = ops.cast(ops.not_equal(labels, self.ignore_class), self.dtype)
            if sample_weight is None:
                sample_weight = counted
            else:
                weights = ops.cast(ops.convert_to_tensor(sample_weight), self.dtype)
                missing = len(counted.shape) - len(weights.shape)
                sample_weight = (
                    counted * ops.expand_dims(weights, tuple(range(-missing, 0)))
                    if missing > 0
                    else (counted * weights)
                )
        super().update_state(y_true, y_pred, sample_weight)
