"""Steps on single batches: what a call on a batch needed is kept for the next one that is alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphc.frontends.random import key_of
from graphc.frontends.variable import Variable, arrangement
from graphc.frontends.weights import WeightOwner
from graphc.runtime.training import fitting
from graphc.runtime.training.metrics import Metric
from graphc.runtime.training.metrics.compiled import CompiledMetrics
from graphc.runtime.training.program import Program
from graphc.runtime.training.step import batch_types

Array = np.ndarray[Any, Any]


def kind_of(*parts: Any) -> tuple[Any, ...] | None:
    """What batches have in common that one step takes: shapes and dtypes; None for what is not plain arrays."""
    found: list[Any] = []
    for part in parts:
        if type(part) is np.ndarray:
            found += part.shape, part.dtype
        elif part is None:
            found.append(None)
        else:
            return None
    return tuple(found)


class BatchStep:
    """A step, ready to run on batches like one, on metrics that start anew."""

    def __init__(self, model: Any, name: str, batch: Sequence[Any]) -> None:
        fitting.ensure_built(model, batch[0])
        types = batch_types(model, *batch)
        training = name == "train_step"
        # A step of one's own may have no test step beside it.
        test = None if training and fitting.overrides(model, "train_step") else types
        self.program: Program = model._program(types if training else None, test)
        self._run = self.program.runner(name)
        self._arrangement = arrangement() if _is_plain(model) else None
        self._metrics: list[Any] | None = None
        self._reset: Callable[[], None] = model.reset_metrics

    def serves(self, model: Any) -> bool:
        """Whether the model is still as it was: its graph, its layers, and what of them is trained."""
        return self._arrangement == arrangement() and self.program.graph is model._graph

    def __call__(self, model: Any, batch: Sequence[Any]) -> dict[str, float]:
        """The logs of the step on this batch."""
        program = self.program
        program.take_over()
        metrics: list[Any] = model.metrics
        if metrics != self._metrics:
            self._reset = resetter(program, model, metrics)
            self._metrics = metrics
        self._reset()
        logs = self._run(*batch, np.asarray(key_of(None), np.uint32))
        return {name: float(value) for name, value in logs.items()}


def _is_plain(model: Any) -> bool:
    """Whether `arrangement` tells all that decides what is trained, in the model and in all its layers."""
    from graphc.runtime.training.trainer import Trainer

    ours: dict[str, tuple[Any, ...]] = {
        name: (getattr(WeightOwner, name), getattr(Trainer, name))
        for name in ("trainable", "trainable_weights", "trainable_variables", "own_variables")
    }
    return all(getattr(type(layer), name) in known for layer in model.all_layers() for name, known in ours.items())


def resetter(program: Program, model: Any, metrics: Sequence[Metric]) -> Callable[[], None]:
    """A function that does what `model.reset_metrics()` does.

    Where that is to set to 0 what the program holds, it is done in the target's memory at once.
    """
    ours = Metric.reset_state, CompiledMetrics.reset_state
    if fitting.overrides(model, "reset_metrics") or any(
        type(metric).reset_state not in ours for each in metrics for metric in each.parts()
    ):
        return model.reset_metrics
    variables: dict[int, Variable] = {id(v): v for metric in metrics for v in metric.variables}
    names = [name for name, variable in program.recorded.variables.items() if id(variable) in variables]
    weights = program.executable.weights
    held = [name for name in names if name in weights]
    stored = weights.stored_apart(held)
    if stored is None or len(held) < len(variables):
        return model.reset_metrics
    return lambda: program.executable.loaded.clear(stored)


__all__ = ["BatchStep", "kind_of"]
