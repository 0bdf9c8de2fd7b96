"""Metrics of predictions above thresholds: counts, precision, recall, and the best of one where another is enough."""

from __future__ import annotations

from typing import Any

from graphc.frontends import ops
from graphc.ir.errors import GraphcError
from graphc.runtime.training.metrics.confusion import BELOW_ALL, checked_thresholds, count_above
from graphc.runtime.training.metrics.metric import ElementwiseMetric

COUNTS = ("true_positives", "false_positives", "true_negatives", "false_negatives")


class ThresholdMetric(ElementwiseMetric):
    """A metric of some of the counts, which are variables [thresholds] by the names in `counts`."""

    counts: tuple[str, ...] = COUNTS

    def __init__(
        self,
        thresholds: list[float],
        name: str | None,
        dtype: Any,
        top_k: int | None = None,
        class_id: int | None = None,
    ) -> None:
        super().__init__(dtype, name)
        for argument, value, least in (("top_k", top_k, 1), ("class_id", class_id, 0)):
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < least):
                raise GraphcError(f"{type(self).__name__}: {argument} is an integer of {least} or more, not {value!r}")
        self.thresholds, self.top_k, self.class_id = thresholds, top_k, class_id
        for count in self.counts:
            setattr(self, count, self.add_variable(shape=(len(thresholds),), name=count))

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        found = count_above(
            y_true, y_pred, sample_weight, self.thresholds, self.dtype, top_k=self.top_k, class_id=self.class_id
        )
        for count in self.counts:
            getattr(self, count).assign_add(getattr(found, count))

    def share(self, part: str, rest: str) -> Any:
        """part / (part + rest) of two counts; 0 of none."""
        part, rest = (ops.convert_to_tensor(getattr(self, count)) for count in (part, rest))
        return ops.divide_no_nan(part, part + rest)


class _Count(ThresholdMetric):
    """One of the counts: the sum of the weights. Neither more nor less of it is better by itself."""

    def __init__(self, thresholds: Any = None, name: str | None = None, dtype: Any = None) -> None:
        super().__init__(checked_thresholds(type(self).__name__, thresholds, 0.5), name, dtype)
        self._given = thresholds

    def result(self) -> Any:
        counts = ops.convert_to_tensor(getattr(self, self.counts[0]))
        return counts[0] if len(self.thresholds) == 1 else counts

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "thresholds": self._given}


class TruePositives(_Count):
    """How many predictions are above the threshold, and rightly."""

    counts = ("true_positives",)


class FalsePositives(_Count):
    """How many predictions are above the threshold, and wrongly."""

    counts = ("false_positives",)


class TrueNegatives(_Count):
    """How many predictions are not above the threshold, and rightly."""

    counts = ("true_negatives",)


class FalseNegatives(_Count):
    """How many predictions are not above the threshold, and wrongly."""

    counts = ("false_negatives",)


class _Share(ThresholdMetric):
    """The share of the true positives in the sum of the two counts."""

    _direction = "up"

    def __init__(
        self,
        thresholds: Any = None,
        top_k: int | None = None,
        class_id: int | None = None,
        name: str | None = None,
        dtype: Any = None,
    ) -> None:
        limits = checked_thresholds(type(self).__name__, thresholds, 0.5 if top_k is None else BELOW_ALL)
        super().__init__(limits, name, dtype, top_k, class_id)
        self._given = thresholds

    def result(self) -> Any:
        shares = self.share(*self.counts)
        return shares[0] if len(self.thresholds) == 1 else shares

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "thresholds": self._given,
            "top_k": self.top_k,
            "class_id": self.class_id,
        }


class Precision(_Share):
    """How many of the predictions above the threshold are right.

    With `top_k`, only an example's k greatest scores are taken for positive (above any threshold, if none is given);
    with `class_id`, only that class is looked at. Several thresholds give a vector.
    """

    counts = ("true_positives", "false_positives")


class Recall(_Share):
    """How many of the true labels have a prediction above the threshold; arguments as those of `Precision`."""

    counts = ("true_positives", "false_negatives")


class _Best(ThresholdMetric):
    """The greatest share of one kind over the thresholds at which a share of the other kind is at least `value`."""

    _direction = "up"
    argument: str
    """What `value` is called."""
    shares: dict[str, tuple[str, str]] = {
        "sensitivity": ("true_positives", "false_negatives"),
        "recall": ("true_positives", "false_negatives"),
        "specificity": ("true_negatives", "false_positives"),
        "precision": ("true_positives", "false_positives"),
    }
    wanted: str
    """The share whose greatest value is the result."""

    def __init__(self, value: float, num_thresholds: int, class_id: int | None, name: str | None, dtype: Any) -> None:
        owner = type(self).__name__
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
            raise GraphcError(f"{owner}: {self.argument} is a number from 0 to 1, not {value!r}")
        if isinstance(num_thresholds, bool) or not isinstance(num_thresholds, int) or num_thresholds < 1:
            raise GraphcError(f"{owner}: num_thresholds is an integer of 1 or more, not {num_thresholds!r}")
        steps = num_thresholds - 1
        limits = [i / steps for i in range(num_thresholds)] if steps else [0.5]
        super().__init__(limits, name, dtype, class_id=class_id)
        self.value, self.num_thresholds = value, num_thresholds

    def result(self) -> Any:
        enough = ops.greater_equal(self.share(*self.shares[self.argument]), self.value)
        return ops.max(ops.where(enough, self.share(*self.shares[self.wanted]), 0.0))

    def get_config(self) -> dict[str, Any]:
        options = {"num_thresholds": self.num_thresholds, "class_id": self.class_id}
        return {**super().get_config(), self.argument: self.value, **options}


class SensitivityAtSpecificity(_Best):
    """The best sensitivity (recall) among `num_thresholds` thresholds with at least this specificity."""

    argument, wanted = "specificity", "sensitivity"

    def __init__(
        self,
        specificity: float,
        num_thresholds: int = 200,
        class_id: int | None = None,
        name: str | None = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(specificity, num_thresholds, class_id, name, dtype)


class SpecificityAtSensitivity(_Best):
    """The best specificity among `num_thresholds` thresholds with at least this sensitivity (recall)."""

    argument, wanted = "sensitivity", "specificity"

    def __init__(
        self,
        sensitivity: float,
        num_thresholds: int = 200,
        class_id: int | None = None,
        name: str | None = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(sensitivity, num_thresholds, class_id, name, dtype)


class PrecisionAtRecall(_Best):
    """The best precision among `num_thresholds` thresholds with at least this recall."""

    argument, wanted = "recall", "precision"

    def __init__(
        self,
        recall: float,
        num_thresholds: int = 200,
        class_id: int | None = None,
        name: str | None = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(recall, num_thresholds, class_id, name, dtype)


class RecallAtPrecision(_Best):
    """The best recall among `num_thresholds` thresholds with at least this precision."""

    argument, wanted = "precision", "recall"

    def __init__(
        self,
        precision: float,
        num_thresholds: int = 200,
        class_id: int | None = None,
        name: str | None = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(precision, num_thresholds, class_id, name, dtype)
