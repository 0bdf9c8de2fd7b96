"""Intersection over union of classes, from a confusion matrix."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

from graphc.frontends import ops
from graphc.ir import ops as ir
from graphc.ir.dtypes import dtype as dtype_of
from graphc.ir.errors import GraphcError
from graphc.runtime.training.loss_functions import EPSILON
from graphc.runtime.training.metrics.metric import Metric
from graphc.runtime.training.metrics.reductions import weights_by_value
from graphc.runtime.training.target_shapes import Fit, Shape, one_each


class IoU(Metric):
    """The mean over `target_class_ids` of true positives / (true positives + false positives + false negatives).

    Targets and predictions are classes, or scores along `axis` with `sparse_y_true=False`, `sparse_y_pred=False`, of
    which the greatest counts. What is `ignore_class` or no class is left out, as are classes that do not occur. Sums
    are integers, and weights are cut off to these, as in Keras: pass `dtype="float32"` for others.
    """

    _direction = "up"

    def __init__(
        self,
        num_classes: int,
        target_class_ids: Sequence[int],
        name: str | None = None,
        dtype: Any = None,
        ignore_class: int | None = None,
        sparse_y_true: bool = True,
        sparse_y_pred: bool = True,
        axis: int = -1,
    ) -> None:
        super().__init__(dtype or "int32", name)
        ids = [int(each) for each in target_class_ids]
        if not ids or min(ids) < 0 or max(ids) >= num_classes:
            raise GraphcError(
                f"{type(self).__name__}: target_class_ids are classes from 0 to {num_classes - 1}, not {ids}"
            )
        self.num_classes, self.target_class_ids = num_classes, ids
        self.ignore_class, self.axis = ignore_class, axis
        self.sparse_y_true, self.sparse_y_pred = sparse_y_true, sparse_y_pred
        self.total_cm = self.add_variable(shape=(num_classes, num_classes), name="total_confusion_matrix")

    def fit_of(self, target: Shape, prediction: Shape) -> Fit | None:
        shapes = [
            shape if sparse else _without(shape, self.axis)
            for shape, sparse in ((target, self.sparse_y_true), (prediction, self.sparse_y_pred))
        ]
        return one_each(*shapes)

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        y_true, y_pred = (
            ops.cast(each if sparse else ops.argmax(each, axis=self.axis), "int32")
            for each, sparse in (
                (ops.convert_to_tensor(y_true), self.sparse_y_true),
                (ops.convert_to_tensor(y_pred), self.sparse_y_pred),
            )
        )
        weights: Any = ops.convert_to_tensor(1 if sample_weight is None else sample_weight)
        if dtype_of(weights.dtype).is_float and not self.dtype.is_float:
            warnings.warn(
                f"the metric {self.name!r} sums integers, and cuts sample weights off to these: pass dtype='float32'",
                stacklevel=2,
            )
        weights = weights_by_value(ops.cast(weights, self.dtype), y_true)
        y_true, y_pred, weights = (ops.reshape(each, (-1,)) for each in (y_true, y_pred, weights))
        counted = [ops.logical_and(each >= 0, each < self.num_classes) for each in (y_true, y_pred)]
        if self.ignore_class is not None:
            counted.append(ops.not_equal(y_true, self.ignore_class))
        place = ops.where(_all(counted), y_true * self.num_classes + y_pred, -1)  # where nothing is added
        sums = ir.scatter(ops.zeros((self.num_classes**2,), dtype=self.dtype), place, weights, axis=0)
        self.total_cm.assign_add(ops.reshape(sums, (self.num_classes, self.num_classes)))

    def result(self) -> Any:
        matrix = ops.convert_to_tensor(self.total_cm)
        ids = self.target_class_ids
        right = ops.stack([matrix[i, i] for i in ids])
        union = ops.stack([ops.sum(matrix[:, i]) + ops.sum(matrix[i]) for i in ids]) - right
        right, union = ops.cast(right, "float32"), ops.cast(union, "float32")
        occurs = union > 1e-9
        shares = ops.where(occurs, right / (union + EPSILON), 0.0)
        return ops.sum(shares) / (ops.sum(ops.cast(occurs, "float32")) + EPSILON)

    def get_config(self) -> dict[str, Any]:
        names = ("num_classes", "target_class_ids", "ignore_class", "sparse_y_true", "sparse_y_pred", "axis")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


class BinaryIoU(IoU):
    """`IoU` of two classes: predictions of at least `threshold` are of class 1."""

    def __init__(
        self,
        target_class_ids: Sequence[int] = (0, 1),
        threshold: float = 0.5,
        name: str | None = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(2, target_class_ids, name, dtype)
        self.threshold = threshold

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        above = ops.greater_equal(ops.cast(ops.convert_to_tensor(y_pred), "float32"), self.threshold)
        super().update_state(y_true, ops.cast(above, "int32"), sample_weight)

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        return {key: config[key] for key in ("name", "dtype", "target_class_ids")} | {"threshold": self.threshold}


class MeanIoU(IoU):
    """`IoU` of all classes."""

    def __init__(
        self,
        num_classes: int,
        name: str | None = None,
        dtype: Any = None,
        ignore_class: int | None = None,
        sparse_y_true: bool = True,
        sparse_y_pred: bool = True,
        axis: int = -1,
    ) -> None:
        ids = range(num_classes)
        super().__init__(num_classes, ids, name, dtype, ignore_class, sparse_y_true, sparse_y_pred, axis)

    def get_config(self) -> dict[str, Any]:
        return _less(super().get_config(), "target_class_ids")


class OneHotIoU(IoU):
    """`IoU` for one-hot targets and scores."""

    def __init__(
        self,
        num_classes: int,
        target_class_ids: Sequence[int],
        name: str | None = None,
        dtype: Any = None,
        ignore_class: int | None = None,
        sparse_y_pred: bool = False,
        axis: int = -1,
    ) -> None:
        super().__init__(num_classes, target_class_ids, name, dtype, ignore_class, False, sparse_y_pred, axis)

    def get_config(self) -> dict[str, Any]:
        return _less(super().get_config(), "sparse_y_true")


class OneHotMeanIoU(MeanIoU):
    """`IoU` of all classes for one-hot targets and scores."""

    def __init__(
        self,
        num_classes: int,
        name: str | None = None,
        dtype: Any = None,
        ignore_class: int | None = None,
        sparse_y_pred: bool = False,
        axis: int = -1,
    ) -> None:
        super().__init__(num_classes, name, dtype, ignore_class, False, sparse_y_pred, axis)

    def get_config(self) -> dict[str, Any]:
        return _less(super().get_config(), "sparse_y_true")


def _without(shape: Shape, axis: int) -> Shape:
    axis %= max(len(shape), 1)
    return tuple(size for i, size in enumerate(shape) if i != axis)


def _all(conditions: Sequence[Any]) -> Any:
    found, *rest = conditions
    for condition in rest:
        found = ops.logical_and(found, condition)
    return found


def _less(config: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in config.items() if name != key}
