"""Sums and means over examples, weighted if asked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from graphc.frontends import ops
from graphc.ir.dtypes import DType
from graphc.ir.errors import ShapeError
from graphc.runtime.training.loss_functions import same_rank, widened
from graphc.runtime.training.losses import FUNCTIONS, Loss
from graphc.runtime.training.metrics.metric import Metric
from graphc.runtime.training.target_shapes import Fit, Shape, a_class_each, fit_for
from graphc.runtime.training.user_functions import check_returned, check_signature


def over_examples(values: Any, sample_weight: Any, reduce: Callable[..., Any], dtype: DType) -> tuple[Any, Any]:
    """A value for each example, times its weight, and the weights [examples] (None without): axes behind the first are
    reduced, those that the weights do not have before they are multiplied in."""
    values = ops.cast(values, dtype)
    if sample_weight is not None:
        values, sample_weight = same_rank(values, ops.cast(sample_weight, dtype))
        have, wanted = len(values.shape), len(sample_weight.shape)
        if wanted > have:
            raise ShapeError(f"sample weights of shape {sample_weight.shape} for values of shape {values.shape}")
        if have > wanted:
            values = reduce(values, axis=tuple(range(wanted, have)))
        sample_weight = ops.broadcast_to(sample_weight, values.shape)
        values = values * sample_weight
        if wanted > 1:
            sample_weight = reduce(sample_weight, axis=tuple(range(1, wanted)))
    if len(values.shape) > 1:
        values = reduce(values, axis=tuple(range(1, len(values.shape))))
    return values, sample_weight


def weights_by_value(weights: Any, values: Any) -> Any:
    """Weights of the shape of the values: those of the first axes are those of all that is below.

    Raises `ShapeError` for weights that have more axes, or other sizes.
    """
    if len(weights.shape) == len(values.shape) + 1 and weights.shape[-1] == 1:
        weights = ops.squeeze(weights, -1)
    missing = len(values.shape) - len(weights.shape)
    if missing < 0:
        raise ShapeError(f"sample weights of shape {weights.shape} for values of shape {values.shape}")
    if missing and weights.shape:
        weights = ops.expand_dims(weights, tuple(range(-missing, 0)))
    return ops.broadcast_to(weights, values.shape)


class Sum(Metric):
    """The sum of the values, each times its weight. One variable, `total`."""

    def __init__(self, name: str | None = "sum", dtype: Any = None) -> None:
        super().__init__(dtype, name)
        self.total = self.add_variable(name="total")

    def update_state(self, values: Any, sample_weight: Any = None) -> None:
        values, _ = over_examples(values, sample_weight, ops.sum, self.dtype)
        self.total.assign_add(ops.sum(values))

    def result(self) -> Any:
        return ops.cast(self.total, self.dtype)


class Mean(Metric):
    """The mean of the values, each counted by its weight; 0 of none. Two variables, `total` and `count`."""

    def __init__(self, name: str | None = "mean", dtype: Any = None) -> None:
        super().__init__(dtype, name)
        self.total = self.add_variable(name="total")
        self.count = self.add_variable(name="count")

    def update_state(self, values: Any, sample_weight: Any = None) -> None:
        values, sample_weight = over_examples(values, sample_weight, ops.mean, self.dtype)
        self.total.assign_add(ops.sum(values))
        if sample_weight is not None:
            count = ops.sum(sample_weight)
        else:
            count = values.shape[0] if len(values.shape) else 1
        self.count.assign_add(ops.cast(count, self.dtype))

    def result(self) -> Any:
        return ops.divide_no_nan(ops.convert_to_tensor(self.total), ops.convert_to_tensor(self.count))


class MeanMetricWrapper(Mean):
    """The mean over examples of `fn(y_true, y_pred, **kwargs)`, which gives a value for each.

    A last axis of size 1 that only targets or only predictions have is brought into line, as losses do. Less of a loss
    is better; of another function nothing is known (Keras's rule).
    """

    def __init__(self, fn: Callable[..., Any], name: str | None = None, dtype: Any = None, **kwargs: Any) -> None:
        super().__init__(name or getattr(fn, "__name__", None) or getattr(fn, "name", None) or type(fn).__name__, dtype)
        self._fn, self._kwargs = fn, kwargs
        check_signature(f"the metric {self.name!r}", fn, kwargs)
        if isinstance(fn, Loss) or fn in FUNCTIONS.values():
            self._direction = "down"

    def fit_of(self, target: Shape, prediction: Shape) -> Fit | None:
        fit = fit_for(getattr(self._fn, "fn", self._fn))  # a loss object's is that of its function
        if fit is None:
            return None
        axis = getattr(self._fn, "axis", self._kwargs.get("axis", -1))
        return fit(target, prediction, **({"axis": axis} if fit is a_class_each else {}))

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:  # type: ignore[override]
        if fit_for(getattr(self._fn, "fn", self._fn)) is not a_class_each:
            y_true, y_pred = same_rank(ops.convert_to_tensor(y_true), ops.convert_to_tensor(y_pred))
        if fit_for(self._fn) is None:
            y_true = widened(y_true)
        values = self._fn(y_true, y_pred, **self._kwargs)
        check_returned(f"the metric {self.name!r}", values, "a value for each example")
        super().update_state(values, sample_weight)

    def get_config(self) -> dict[str, Any]:
        own = type(self) is not MeanMetricWrapper
        return super().get_config() | ({} if own else {"fn": self._fn}) | self._kwargs

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Metric:
        from graphc.frontends.serialization import deserialize_nested

        return cls(**{key: deserialize_nested(value) for key, value in config.items()})
