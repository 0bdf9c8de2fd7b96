"""Metrics by name, function, class or config."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from graphc.frontends import serialization
from graphc.frontends.naming import snake_case
from graphc.ir.errors import GraphcError
from graphc.ir.suggestions import nearest
from graphc.runtime.training import losses
from graphc.runtime.training.metrics import accuracy, auc, f_scores, iou, of_losses, reductions, regression, thresholds
from graphc.runtime.training.metrics.metric import Metric

CLASSES: dict[str, type[Metric]] = {
    cls.__name__: cls
    for cls in (
        reductions.Mean,
        reductions.MeanMetricWrapper,
        reductions.Sum,
        accuracy.Accuracy,
        accuracy.BinaryAccuracy,
        accuracy.CategoricalAccuracy,
        accuracy.SparseCategoricalAccuracy,
        accuracy.SparseTopKCategoricalAccuracy,
        accuracy.TopKCategoricalAccuracy,
        of_losses.BinaryCrossentropy,
        of_losses.CategoricalCrossentropy,
        of_losses.CategoricalHinge,
        of_losses.CosineSimilarity,
        of_losses.Hinge,
        of_losses.KLDivergence,
        of_losses.LogCoshError,
        of_losses.MeanAbsoluteError,
        of_losses.MeanAbsolutePercentageError,
        of_losses.MeanSquaredError,
        of_losses.MeanSquaredLogarithmicError,
        of_losses.Poisson,
        of_losses.RootMeanSquaredError,
        of_losses.SparseCategoricalCrossentropy,
        of_losses.SquaredHinge,
        auc.AUC,
        f_scores.F1Score,
        f_scores.FBetaScore,
        iou.BinaryIoU,
        iou.IoU,
        iou.MeanIoU,
        iou.OneHotIoU,
        iou.OneHotMeanIoU,
        regression.ConcordanceCorrelation,
        regression.PearsonCorrelation,
        regression.R2Score,
        thresholds.FalseNegatives,
        thresholds.FalsePositives,
        thresholds.Precision,
        thresholds.PrecisionAtRecall,
        thresholds.Recall,
        thresholds.RecallAtPrecision,
        thresholds.SensitivityAtSpecificity,
        thresholds.SpecificityAtSensitivity,
        thresholds.TrueNegatives,
        thresholds.TruePositives,
    )
}
NAMES: dict[str, type[Metric]] = {snake_case(name): cls for name, cls in CLASSES.items()} | {
    short: cls
    for name, cls in (
        ("bce", of_losses.BinaryCrossentropy),
        ("mse", of_losses.MeanSquaredError),
        ("mae", of_losses.MeanAbsoluteError),
        ("mape", of_losses.MeanAbsolutePercentageError),
        ("msle", of_losses.MeanSquaredLogarithmicError),
    )
    for short in (name, name.upper())
}


def get(identifier: Any) -> Any:
    """The metric of a name, class, config, function or object; None stays None. "accuracy" means the exact one here;
    which accuracy a model means depends on its output."""
    if identifier is None:
        return None
    if isinstance(identifier, dict):
        return deserialize(identifier)
    if isinstance(identifier, str):
        found = NAMES.get(identifier) or CLASSES.get(identifier) or serialization.registered_object(identifier)
        found = found or losses.FUNCTIONS.get(identifier)
        if found is None:
            raise GraphcError(f"no metric is called {identifier!r}{nearest(identifier, [*NAMES, *CLASSES])}")
        identifier = found
    if isinstance(identifier, type):
        needed = [
            name
            for name, p in inspect.signature(identifier).parameters.items()
            if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
        ]
        if needed:
            raise GraphcError(
                f"the metric {identifier.__name__} needs arguments: give {identifier.__name__}({'=…, '.join(needed)}=…)"
            )
        return identifier()
    if callable(identifier):
        return identifier
    raise GraphcError(f"a metric is a name, a function or a Metric, not {identifier!r}")


def serialize(metric: Any) -> Any:
    """The metric's class and config, or the name of a function, which `deserialize` takes."""
    return serialization.serialize(metric)


def deserialize(config: Any, custom_objects: Mapping[str, Any] | None = None) -> Any:
    """The metric of a config or name."""
    functions = {name: getattr(accuracy, name) for name in dir(accuracy) if name.endswith("accuracy")}
    with serialization.custom_object_scope({**functions, **losses.FUNCTIONS, **CLASSES, **(custom_objects or {})}):
        return serialization.deserialize(config) if isinstance(config, dict) else get(config)
