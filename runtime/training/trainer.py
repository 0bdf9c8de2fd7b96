"""`Trainer`: what a model has for training. `compile` says how, `fit` does it; `train_step` is what one step is."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from graphc.frontends import ops
from graphc.frontends.recording import current_recording
from graphc.frontends.structures import map_structure
from graphc.ir.errors import GraphcError
from graphc.runtime.training import optimizers
from graphc.runtime.training.compiled_loss import CompiledLoss
from graphc.runtime.training.gradients import gradients
from graphc.runtime.training.optimizers import Optimizer
from graphc.runtime.training.program import Logs, Program
from graphc.runtime.training.step import Batch, batch_types, record_training

Array = np.ndarray[Any, Any]


@dataclass
class Compiled:
    """What `compile` was given, and the programs that came of it."""

    optimizer: Optimizer | None = None
    loss: CompiledLoss | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    programs: dict[Any, Program] = field(default_factory=dict)


class Trainer:
    """Compiling and fitting, for a class of models to inherit beside `frontends.Model`."""

    _compiled: Compiled | None = None

    # --- what a step is ------------------------------------------------------------------------------------------

    def train_step(self, data: Any) -> dict[str, Any]:
        """One step on a batch `(x, y, sample_weight)`, written with `graphc.ops`; returns the logs, scalars by name.

        It is run once, while it is recorded. Override it for a step of your own; it then runs on every target.
        """
        x, y, sample_weight = data
        y_pred = self(x, training=True)
        loss = self.compute_loss(x, y, y_pred, sample_weight)
        found = gradients(self.optimizer.scale_loss(loss), self.trainable_variables)
        self.optimizer.apply(found, self.trainable_variables)
        return self.compute_metrics(x, y, y_pred, sample_weight)

    def test_step(self, data: Any) -> dict[str, Any]:
        """What `evaluate` does with a batch; see `train_step`."""
        x, y, sample_weight = data
        y_pred = self(x, training=False)
        self.compute_loss(x, y, y_pred, sample_weight, training=False)
        return self.compute_metrics(x, y, y_pred, sample_weight)

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        """The loss that `compile` was given, plus what layers and regularizers add, as a scalar."""
        compiled = self._require_compiled()
        total, _, normaliser = (None, {}, None) if compiled.loss is None else compiled.loss(y, y_pred, sample_weight)
        for added in self.losses:
            total = added if total is None else total + ops.cast(added, total.dtype)
        if total is None:
            raise GraphcError(f"model {self.name!r} has no loss: give one to `compile`, or add one by `add_loss`")
        recording = current_recording()
        if recording is not None:
            recording.loss_weight = recording.batch_size if normaliser is None else normaliser
            recording.loss = total
        return total

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> dict[str, Any]:
        """Update the metrics, and give the logs: each metric's value by its name, the loss among them."""
        recording = current_recording()
        return {"loss": recording.loss}

    # --- compile -------------------------------------------------------------------------------------------------

    @property
    def optimizer(self) -> Any:
        """The optimizer that `compile` was given."""
        return None if self._compiled is None else self._compiled.optimizer

    @optimizer.setter
    def optimizer(self, value: Any) -> None:
        compiled = self._require_compiled()
        compiled.optimizer = optimizers.get(value)
        compiled.programs.clear()

    def compile(
        self,
        optimizer: Any = "rmsprop",
        loss: Any = None,
        loss_weights: Any = None,
        metrics: Any = None,
        weighted_metrics: Any = None,
        *,
        target: str | None = None,
        passes: str | None = None,
        memory_budget: int | str | None = None,
    ) -> None:
        """Say how the model is trained and what it runs on."""
        names = self.output_names if self.is_functional else None
        compiled = Compiled(
            None if optimizer is None else optimizers.get(optimizer),
            None if loss is None else CompiledLoss(loss, loss_weights, names),
            {"target": target, "passes": passes, "memory_budget": memory_budget},
        )
        object.__setattr__(self, "_compiled", compiled)

    def _require_compiled(self) -> Compiled:
        if self._compiled is None:
            raise GraphcError(f"model {self.name!r} is not compiled: call compile(optimizer=..., loss=...) first")
        return self._compiled

    def _program(self, train: Batch | None, test: Batch | None) -> Program:
        """The compiled entries for batches of these types, made when first asked for."""
        compiled = self._require_compiled()
        key = (train and train.key, test and test.key)
        program = compiled.programs.get(key)
        if program is None:
            program = compiled.programs[key] = Program(record_training(self, train, test), compiled.settings)
        return program

    # --- fit -----------------------------------------------------------------------------------------------------

    def fit(self, x: Any, y: Any = None, batch_size: int = 32, epochs: int = 1, shuffle: bool = True) -> Any:
        """Train on batches of the data, `epochs` times through."""
        if not self.built:
            self(map_structure(lambda array: np.asarray(array)[:1], x))
        types = batch_types(self, x, y)
        run = self._program(types, types).runner("train_step")
        history: dict[str, list[float]] = {}
        for epoch in range(epochs):
            order = np.random.default_rng(epoch).permutation(len(x))
            logs: Logs = {}
            for start in range(0, len(x), batch_size):
                rows = order[start : start + batch_size]
                logs = run(x[rows], y[rows], None, np.array([epoch, start], np.uint32))
            for name, value in logs.items():
                history.setdefault(name, []).append(float(value))
        return history


__all__ = ["Trainer"]
