"""The metrics of a compiled model: which belong to which output, and under which names their results are logged."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from graphc.frontends.naming import Names
from graphc.frontends.structures import flatten
from graphc.ir.errors import GraphcError, ShapeError
from graphc.ir.suggestions import nearest, number_of
from graphc.runtime.training.metrics.accuracy import (
    BinaryAccuracy,
    CategoricalAccuracy,
    SparseCategoricalAccuracy,
)
from graphc.runtime.training.metrics.lookup import get
from graphc.runtime.training.metrics.metric import Metric
from graphc.runtime.training.metrics.reductions import MeanMetricWrapper
from graphc.runtime.training.target_shapes import require, shown
from graphc.runtime.training.user_functions import check_returned, check_signature, explained


@dataclass
class Use:
    """A metric of one output."""

    metric: Metric
    output: int
    weighted: bool
    name: str
    """What its result is called in the logs."""


class CompiledMetrics(Metric):
    """What `compile(metrics=…, weighted_metrics=…)` asks for. What "accuracy" means is known once outputs are: `build`.

    `metrics` is a list for a model of one output; for several a list of a list for each, or a dict from output to
    metrics; `output_names` are those of the model, where it knows them. Results are called as in Keras: `accuracy`,
    with several outputs `digit_accuracy`; a second one of the same name is numbered, or has `weighted_` in front if it
    is a weighted one.

    It is a metric itself, `compile_metrics` among those of a model, as in Keras: the metrics it asks for are made by
    the first `update_state`.
    """

    def __init__(
        self, metrics: Any = None, weighted_metrics: Any = None, output_names: Sequence[str] | None = None
    ) -> None:
        for argument, given in (("metrics", metrics), ("weighted_metrics", weighted_metrics)):
            if given and not isinstance(given, (list, tuple, dict)):
                raise GraphcError(f"{argument} is a list, or a dict from output to metrics, not {given!r}")
            for identifier in flatten(given or []):  # mistakes are told at once
                if identifier is not None and not _is_accuracy(identifier):
                    found = as_metric(identifier)
                    options = {"sample_weight": None} if argument == "weighted_metrics" else {}
                    check_signature(f"`update_state` of the metric {found.name!r}", found.update_state, options)
            if output_names is not None:
                list(_for_outputs(argument, given, len(output_names), output_names))
        super().__init__(name="compile_metrics")
        self._given = {"metrics": metrics, "weighted_metrics": weighted_metrics}
        self._output_names = output_names
        self._names: Sequence[str] | None = None
        self.uses: list[Use] = []
        self.built = False

    @property
    def is_asked(self) -> bool:
        """Whether there are metrics at all."""
        return any(self._given.values())

    @property
    def metrics(self) -> list[Metric]:
        """The metrics, each once."""
        found = {id(use.metric): use.metric for use in self.uses}
        return list(found.values())

    def build(self, y_true: Any, y_pred: Any, output_names: Sequence[str] | None = None) -> None:
        """Make the metrics for targets and predictions like these, of which only the shapes are looked at.

        Raises `GraphcError` for metrics of outputs that there are not, or without targets.
        """
        if self.built:
            return
        self.built = True
        if not self.is_asked:
            return
        if y_true is None:
            raise GraphcError("metrics need targets to compare with: the data has no y")
        names = [*y_pred] if isinstance(y_pred, dict) else list(output_names or self._output_names or [])
        names = sorted(names) if isinstance(y_pred, dict) else names
        predictions = flatten(y_pred)
        self._names = names if len(names) == len(predictions) > 1 else None
        targets = self._flat(y_true)
        if len(targets) != len(predictions):
            raise GraphcError(f"the model has {number_of(len(predictions), 'output')}, y has {len(targets)}")
        taken: dict[str, int] = {}
        for argument, given in self._given.items():
            for output, identifiers in enumerate(_for_outputs(argument, given, len(predictions), names)):
                for identifier in identifiers:
                    metric = resolved(identifier, targets[output], predictions[output])
                    place = names[output] if len(names) == len(predictions) else "output"
                    _check_shapes(metric, place, targets[output], predictions[output])
                    metric.build_for(targets[output], predictions[output])
                    name = f"{names[output]}_{metric.name}" if self._names else metric.name
                    if name in taken and argument == "weighted_metrics":
                        name = f"{names[output]}_weighted_{metric.name}" if self._names else f"weighted_{metric.name}"
                    count = taken[name] = taken.get(name, 0) + 1
                    name = name if count == 1 else f"{name}_{count - 1}"
                    self.uses.append(Use(metric, output, argument == "weighted_metrics", name))
        self._metrics = self.metrics
        self._name_variables()

    def _name_variables(self) -> None:
        """Paths that tell the variables of all metrics apart."""
        taken = Names()
        seen: set[int] = set()
        for use in self.uses:
            for variable in use.metric.variables:
                if id(variable) not in seen:
                    seen.add(id(variable))
                    variable.path = taken.new(f"metrics/{use.name}/{variable.name}")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Take a batch into account; only weighted metrics look at the weights."""
        self.build(y_true, y_pred)
        if not self.uses:
            return
        targets, predictions, weights = self._flat(y_true), self._flat(y_pred), self._flat(sample_weight)
        if len(weights) == 1:
            weights = weights * len(predictions)
        for use in self.uses:
            pair = targets[use.output], predictions[use.output]
            with explained(f"the metric {use.name!r}"):
                if use.weighted:
                    use.metric.update_state(*pair, sample_weight=weights[use.output])
                else:
                    use.metric.update_state(*pair)

    def result(self) -> dict[str, Any]:
        """The results by name; a metric whose result is a dict gives several."""
        found: dict[str, Any] = {}
        for use in self.uses:
            with explained(f"the metric {use.name!r}"):
                result = use.metric.result()
            for name, value in (result if isinstance(result, dict) else {use.name: result}).items():
                check_returned(f"`result` of the metric {use.name!r}", value, "a scalar, or a dict of scalars")
                if len(getattr(value, "shape", ())):
                    raise ShapeError(
                        f"the metric {use.name!r} gives numbers of shape {shown(tuple(value.shape))}, and a log is "
                        "one: let it average them, or give one metric for each"
                    )
                found[name] = value
        return found

    def reset_state(self) -> None:
        for metric in self.metrics:
            metric.reset_state()

    def _flat(self, structure: Any) -> list[Any]:
        """The entries for each output, in order."""
        if isinstance(structure, dict) and self._names is not None:
            unknown = [key for key in self._names if key not in structure]
            if unknown:
                raise GraphcError(f"y has nothing for the output {unknown[0]!r}; it has {', '.join(structure)}")
            return [structure[name] for name in self._names]
        return flatten(structure)


def _check_shapes(metric: Metric, output: str, target: Any, prediction: Any) -> None:
    """Raise `ShapeError` for targets that the metric would only meet by broadcasting them."""
    if target is None:
        raise GraphcError(f"there are no targets for the output {output!r}, whose metric is {metric.name!r}")
    shapes = tuple(target.shape), tuple(prediction.shape)
    fit = metric.fit_of(*shapes)
    if fit is not None:
        require(fit, f"the metric {metric.name!r}", output, *shapes)


def _for_outputs(argument: str, given: Any, count: int, names: Sequence[str]) -> Iterator[list[Any]]:
    """The metrics of each output."""
    if not given:
        yield from ([] for _ in range(count))
        return
    if isinstance(given, dict) and names:
        unknown = [key for key in given if key not in names]
        if unknown:
            meant = nearest(str(unknown[0]), names)
            raise GraphcError(f"{argument} names the output {unknown[0]!r}, which the model does not have{meant}")
    if count == 1:
        yield [each for each in flatten(given) if each is not None]
    elif isinstance(given, dict):
        yield from (_as_list(given.get(name)) for name in names)
    elif len(given) == count:
        yield from map(_as_list, given)
    else:
        raise GraphcError(
            f"the model has {number_of(count, 'output')} ({', '.join(names)}); {argument} is a dict from output to "
            f"metrics, or a list with an entry for each output, not a list of {len(given)}: {given!r}"
        )


def _as_list(given: Any) -> list[Any]:
    if given is None:
        return []
    return [each for each in given if each is not None] if isinstance(given, (list, tuple)) else [given]


def _is_accuracy(identifier: Any) -> bool:
    return isinstance(identifier, str) and identifier.lower() in ("accuracy", "acc")


def resolved(identifier: Any, y_true: Any, y_pred: Any) -> Metric:
    """The metric of an identifier; "accuracy" is the binary one for outputs of size 1, the sparse one for targets that
    have one axis less or a last axis of size 1, else the categorical one."""
    if _is_accuracy(identifier):
        found: Any = accuracy_for(y_true, y_pred)(name=identifier)
    else:
        found = as_metric(identifier)
    if isinstance(identifier, str):
        found.name = identifier
    return found


def as_metric(identifier: Any) -> Metric:
    """The metric of a name, class, config, function or object; a function's is its mean over examples."""
    found = get(identifier)
    return found if isinstance(found, Metric) else MeanMetricWrapper(found)


def accuracy_for(y_true: Any, y_pred: Any) -> Callable[..., Metric]:
    """Which accuracy "accuracy" is for targets and predictions of these shapes."""
    of_true, of_pred = tuple(y_true.shape), tuple(y_pred.shape)
    if of_pred and _is(of_pred[-1], 1):
        return BinaryAccuracy
    if len(of_true) < len(of_pred) or (of_true and _is(of_true[-1], 1)):
        return SparseCategoricalAccuracy
    return CategoricalAccuracy


def _is(size: Any, number: int) -> bool:
    return isinstance(size, int) and size == number
