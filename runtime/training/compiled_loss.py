"""The loss that `compile` was given: one for each output of the model, put together to one scalar."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from graphc.frontends.recording import current_recording
from graphc.frontends.structures import flatten, paths
from graphc.ir.errors import GraphcError, ShapeError
from graphc.ir.graph import Value
from graphc.ir.suggestions import nearest, number_of
from graphc.runtime.training import losses
from graphc.runtime.training.accumulation import Term
from graphc.runtime.training.target_shapes import a_class_each, fit_for, require
from graphc.runtime.training.user_functions import check_signature


class CompiledLoss:
    """`loss`: one for all outputs, or a list or dict with one for each (None: that output has none); `loss_weights` in
    the same way. `output_names` are those of the model, where it knows them."""

    def __init__(self, loss: Any, loss_weights: Any = None, output_names: list[str] | None = None) -> None:
        for each in flatten(loss):  # mistakes are told at once
            found = as_loss(each)
            if found is not None and not isinstance(found, losses.LossFunctionWrapper):
                check_signature(f"`call` of the loss {found.name!r}", found.call, {})
        for factor in flatten(loss_weights):
            if factor is not None and (isinstance(factor, bool) or not isinstance(factor, (int, float, np.number))):
                raise GraphcError(f"loss_weights are numbers, not {factor!r}")
        self.loss, self.loss_weights, self.output_names = loss, loss_weights, output_names
        if output_names is not None:
            chosen(loss, output_names, "loss", every=True)
            chosen(loss_weights, output_names, "loss_weights", every=True)

    def names(self, y_pred: Any) -> list[str]:
        """A name for each output."""
        given = self.output_names
        if given is not None and len(given) == len(flatten(y_pred)):
            return given
        return [path or "output" for path in paths(y_pred)]

    def __call__(self, y: Any, y_pred: Any, sample_weight: Any = None) -> tuple[dict[str, Any], list[Term]]:
        """The loss of each output by name, and the weighted ones, with what each counts for, whose sum is the loss.

        Raises `GraphcError` for outputs that are not there,
        `ShapeError` for targets that do not fit a prediction.
        """
        names, predictions = self.names(y_pred), flatten(y_pred)
        found = chosen(self.loss, names, "loss", every=True)
        targets = chosen(y, names, "y")
        weights = chosen(sample_weight, names, "sample_weight", every=True)
        factors = chosen(self.loss_weights, names, "loss_weights", every=True)
        parts: dict[str, Any] = {}
        terms: list[Term] = []
        for name, loss, prediction, target, weight, factor in zip(
            names, found, predictions, targets, weights, factors, strict=True
        ):
            loss = as_loss(loss)
            if loss is None:
                continue
            if target is None:
                raise GraphcError(f"there are no targets for the output {name!r}, whose loss is {loss.name!r}")
            check_shapes(loss, name, target, prediction)
            note_labels(loss, target, prediction)
            term = loss.term(target, prediction, weight)
            value = term.value
            if value.shape != ():
                raise ShapeError(
                    f"the loss {loss.name!r} of the output {name!r} is {value.type}, not a scalar: its reduction is "
                    f"{loss.reduction!r}"
                )
            parts[name] = value
            terms.append(term if factor is None else replace(term, value=value * factor))
        return parts, terms


def as_loss(loss: Any) -> Any:
    """The loss of a name, function, config or object as a `Loss`; None stays None."""
    found = losses.get(loss)
    return found if found is None or isinstance(found, losses.Loss) else losses.LossFunctionWrapper(found)


def chosen(given: Any, names: list[str], what: str, every: bool = False) -> list[Any]:
    """What is given for each output, by name or in order; with `every`, what stands alone is for all of them."""
    if isinstance(given, Mapping):
        unknown = [key for key in given if key not in names]
        if unknown:
            meant = nearest(str(unknown[0]), names)
            raise GraphcError(f"{what} names the output {unknown[0]!r}, which the model does not have{meant}")
        return [given.get(name) for name in names]
    if given is None or (every and not isinstance(given, (list, tuple))):
        return [given] * len(names)
    flat = flatten(given)
    if len(flat) != len(names):
        raise GraphcError(
            f"{what} has {number_of(len(flat), 'entry', 'entries')}; the model has "
            f"{number_of(len(names), 'output')}: {', '.join(names)}"
        )
    return flat


def check_shapes(loss: losses.Loss, name: str, target: Any, prediction: Any) -> None:
    """Raise `ShapeError` for targets that the loss would only meet by broadcasting them."""
    fit = fit_for(loss.fn) if isinstance(loss, losses.LossFunctionWrapper) else None
    if fit is not None:
        options = {"axis": getattr(loss, "axis", -1)} if fit is a_class_each else {}
        shapes = tuple(target.shape), tuple(prediction.shape)
        require(fit(*shapes, **options), f"the loss {loss.name!r}", name, *shapes)


def note_labels(loss: losses.Loss, target: Any, prediction: Any) -> None:
    """Let targets that are classes be checked before each step: an op can only make NaN of one that is out of range."""
    recording = current_recording()
    if recording is None or not isinstance(target, Value) or not is_sparse(loss):
        return
    classes = prediction.shape[getattr(loss, "axis", -1)]
    if isinstance(classes, int):
        recording.labels.append((target, classes, getattr(loss, "ignore_class", None)))


def is_sparse(loss: losses.Loss) -> bool:
    """Whether the loss takes the numbers of classes that the predictions have scores for."""
    return isinstance(loss, losses.LossFunctionWrapper) and loss.fn in (
        losses.sparse_categorical_crossentropy,
        losses.categorical_generalized_cross_entropy,
    )


__all__ = ["CompiledLoss", "as_loss", "check_shapes", "chosen"]
