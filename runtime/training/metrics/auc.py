"""The area under the curve of a classifier, by sums over thresholds."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphc.frontends import ops
from graphc.ir.errors import GraphcError, ShapeError
from graphc.runtime.training.loss_functions import EPSILON
from graphc.runtime.training.metrics.confusion import checked_thresholds, count_above
from graphc.runtime.training.metrics.metric import ElementwiseMetric
from graphc.runtime.training.metrics.thresholds import COUNTS


class AUC(ElementwiseMetric):
    """The area under the ROC curve, or that of precision over recall (`curve="PR"`), or of their gains ("PRGAIN").

    Scores are probabilities, or logits with `from_logits`; counts are kept at `num_thresholds` even thresholds, or at
    `thresholds` with one at either end. `summation_method` is "interpolation" (for precision over recall that of Davis
    and Goadrich 2006), or "minoring" and "majoring", which take the lesser or greater end of each step. With
    `multi_label` every label, of which there may be `num_labels`, has a curve, and the result is the mean of their
    areas, weighted by `label_weights`; without, `label_weights` weigh the predictions.
    """

    _direction = "up"

    def __init__(
        self,
        num_thresholds: int = 200,
        curve: str = "ROC",
        summation_method: str = "interpolation",
        name: str | None = None,
        dtype: Any = None,
        thresholds: Any = None,
        multi_label: bool = False,
        num_labels: int | None = None,
        label_weights: Any = None,
        from_logits: bool = False,
    ) -> None:
        super().__init__(dtype, name)
        self.curve = _one_of("curve", str(curve).upper(), ("ROC", "PR", "PRGAIN"))
        methods = ("interpolation", "minoring", "majoring")
        self.summation_method = _one_of("summation_method", str(summation_method).lower(), methods)
        if num_labels is not None and not multi_label:
            raise GraphcError("AUC: num_labels goes with multi_label=True")
        if thresholds is not None:
            inner = sorted(checked_thresholds("AUC", thresholds, 0.5))
        elif isinstance(num_thresholds, bool) or not isinstance(num_thresholds, int) or num_thresholds < 2:
            raise GraphcError(f"AUC: num_thresholds is an integer of 2 or more, not {num_thresholds!r}")
        else:
            inner = [(i + 1) / (num_thresholds - 1) for i in range(num_thresholds - 2)]
        self.thresholds = [-EPSILON, *inner, 1.0 + EPSILON]
        self.num_thresholds = len(self.thresholds)
        self._are_given = thresholds is not None
        self.multi_label, self.num_labels, self.from_logits = multi_label, num_labels, from_logits
        self.label_weights = None if label_weights is None else [float(each) for each in np.ravel(label_weights)]
        self._built = False
        if not multi_label or num_labels is not None:
            self._make(num_labels)

    def _make(self, labels: int | None) -> None:
        shape = (self.num_thresholds,) if labels is None else (self.num_thresholds, labels)
        for count in COUNTS:
            setattr(self, count, self.add_variable(shape=shape, name=count))
        self._built = True

    def build_for(self, y_true: Any, y_pred: Any) -> None:
        if self._built:
            return
        if len(y_pred.shape) != 2 or not isinstance(y_pred.shape[1], int):
            raise ShapeError(
                f"the metric {self.name!r} with multi_label=True wants predictions of shape (examples, labels), not "
                f"{tuple(y_pred.shape)}"
            )
        self._make(y_pred.shape[1])

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        y_pred = ops.convert_to_tensor(y_pred)
        self.build_for(y_true, y_pred)
        if self.from_logits:
            y_pred = ops.sigmoid(y_pred)
        found = count_above(
            y_true,
            y_pred,
            sample_weight,
            self.thresholds,
            self.dtype,
            label_weights=None if self.multi_label or self.label_weights is None else np.asarray(self.label_weights),
            by_label=self.multi_label,
        )
        for count in COUNTS:
            getattr(self, count).assign_add(getattr(found, count))

    def result(self) -> Any:
        steps = self._steps()
        if not self.multi_label:
            return ops.sum(steps)
        areas = ops.sum(steps, axis=0)
        if self.label_weights is None:
            return ops.mean(areas)
        weights = ops.cast(np.asarray(self.label_weights), self.dtype)
        return ops.divide_no_nan(ops.sum(areas * weights), ops.sum(weights))

    def _steps(self) -> Any:
        """The area between each two neighbouring thresholds, [thresholds − 1, (labels)]."""
        tp, fp, tn, fn = (ops.convert_to_tensor(getattr(self, count)) for count in COUNTS)
        if self.curve == "PR" and self.summation_method == "interpolation":
            return _interpolated(tp, fp, fn)
        recall = ops.divide_no_nan(tp, tp + fn)
        if self.curve == "ROC":
            x, y = ops.divide_no_nan(fp, fp + tn), recall
        elif self.curve == "PR":
            x, y = recall, ops.divide_no_nan(tp, tp + fp)
        else:  # gains over the classifier that says yes to all: Flach and Kull 2015
            odds = ops.divide_no_nan(tp + fn, tn + fp)
            none = ops.equal(tp, 0.0)
            x = ops.maximum(ops.where(none, 0.0, 1.0 - odds * ops.divide_no_nan(fn, tp)), 0.0)
            y = ops.where(none, 1.0, 1.0 - odds * ops.divide_no_nan(fp, tp))
        one, other = y[:-1], y[1:]
        if self.summation_method == "interpolation":
            heights = (one + other) / 2.0
        elif self.summation_method == "minoring":
            heights = ops.minimum(one, other)
        else:
            heights = ops.maximum(one, other)
        return (x[:-1] - x[1:]) * heights

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_thresholds": self.num_thresholds,
            "curve": self.curve,
            "summation_method": self.summation_method,
            "multi_label": self.multi_label,
            "num_labels": self.num_labels,
            "label_weights": self.label_weights,
            "from_logits": self.from_logits,
            **({"thresholds": self.thresholds[1:-1]} if self._are_given else {}),
        }


def _interpolated(tp: Any, fp: Any, fn: Any) -> Any:
    """∫ precision d recall where true positives are linear in positives between thresholds: Davis and Goadrich 2006."""
    p = tp + fp
    d_tp, d_p = tp[:-1] - tp[1:], p[:-1] - p[1:]
    slope = ops.divide_no_nan(d_tp, ops.maximum(d_p, 0.0))
    intercept = tp[1:] - slope * p[1:]
    both = ops.logical_and(p[:-1] > 0.0, p[1:] > 0.0)
    ratio = ops.where(both, ops.divide_no_nan(p[:-1], ops.maximum(p[1:], 0.0)), 1.0)
    true = ops.maximum(tp[1:] + fn[1:], 0.0)
    return ops.divide_no_nan(slope * (d_tp + intercept * ops.log(ratio)), true)


def _one_of(argument: str, value: str, known: tuple[str, ...]) -> str:
    if value not in known:
        raise GraphcError(f"AUC: {argument} is one of {', '.join(map(repr, known))}, not {value!r}")
    return value
