"""`Trainer`: what a model has for training. `compile` says how, `fit` does it; `train_step` is what one step is."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import numpy as np

from graphc import codegen, frontends
from graphc.frontends import ops, serialization
from graphc.frontends.arguments import suggests_arguments
from graphc.frontends.random import key_of
from graphc.frontends.recording import current_recording
from graphc.frontends.structures import flatten
from graphc.frontends.variable import arrangement
from graphc.frontends.warning import warn
from graphc.ir.errors import FormatError, GraphcError
from graphc.ir.module import Module
from graphc.passes import run_passes
from graphc.passes.autodiff import check_gradients
from graphc.runtime import config
from graphc.runtime.budget import budget_bytes
from graphc.runtime.training import compile_config, fitting, optimizers
from graphc.runtime.training.accumulation import CONSTANT, Term, joined
from graphc.runtime.training.batches import BatchStep, kind_of
from graphc.runtime.training.callbacks import CallbackList
from graphc.runtime.training.callbacks.progress import verbosity
from graphc.runtime.training.checkpoint import Position
from graphc.runtime.training.compiled_loss import CompiledLoss
from graphc.runtime.training.data import adapter, split_off, unpacked
from graphc.runtime.training.gradients import gradients
from graphc.runtime.training.inputs import fitted_inputs, nothing_to_train
from graphc.runtime.training.keys import StepKeys
from graphc.runtime.training.metrics.compiled import CompiledMetrics
from graphc.runtime.training.metrics.metric import metrics_of
from graphc.runtime.training.metrics.reductions import Mean
from graphc.runtime.training.optimizers import LossScaleOptimizer, Optimizer
from graphc.runtime.training.program import Compiling, Program
from graphc.runtime.training.step import Batch, batch_types, record_training

Array = np.ndarray[Any, Any]


@dataclass
class Compiled:
    """What `compile` was given, and the programs that came of it."""

    optimizer: Optimizer | None
    loss: CompiledLoss | None
    metrics: CompiledMetrics
    settings: dict[str, Any]
    check_finite: bool = False
    gradients: Literal["ir", "native"] = "ir"
    given: dict[str, Any] = field(default_factory=dict[str, Any])
    """The arguments of `compile` by name."""
    losses: dict[str, Mean] = field(default_factory=dict[str, Mean])
    """The means of the loss, and of those of each output where there are several, by the names of their logs."""
    programs: dict[Any, Program] = field(default_factory=dict)
    steps: dict[Any, BatchStep] = field(default_factory=dict)
    """Those on single batches, by their names and the kinds of the batches."""


class Trainer(frontends.Model):
    """A model that is compiled for a target, and fitted there."""

    _compiled: Compiled | None = None
    _forward: Program | None = None
    """The program that serves `predict` until there is one that trains."""

    _metrics_at: tuple[int, list[Any]] | None = None
    """The metrics of layers, and the `arrangement` in which they were looked for."""

    _not_copied = (*frontends.Model._not_copied, "_compiled", "_forward", "_metrics_at")

    stop_training = False

    # --- what a step is ------------------------------------------------------------------------------------------

    def train_step(self, data: Any) -> dict[str, Any]:
        """One step on a batch, written with `graphc.ops`; returns the logs, scalars by name.

        `data` is `(x, y)`, `(x, y, sample_weight)` where there are weights, and x alone without y, as in Keras;
        `graphc.utils.unpack_x_y_sample_weight` gives all three, None for what there is not. The method is run once,
        while it is recorded. Override it for a step of your own; it then runs on every target.
        """
        x, y, sample_weight = unpacked(data)
        if not self.trainable_variables:
            raise nothing_to_train(self)
        y_pred = self(x, training=True)
        loss = self.compute_loss(x, y, y_pred, sample_weight)
        variables = self.trainable_variables
        self.optimizer.apply(gradients(self.optimizer.scale_loss(loss), variables), variables)
        return self.compute_metrics(x, y, y_pred, sample_weight)

    def test_step(self, data: Any) -> dict[str, Any]:
        """What `evaluate` does with a batch; see `train_step`."""
        x, y, sample_weight = unpacked(data)
        y_pred = self(x, training=False)
        if self._require_compiled().loss is not None:
            self.compute_loss(x, y, y_pred, sample_weight, training=False)
        return self.compute_metrics(x, y, y_pred, sample_weight)

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        """The loss that `compile` was given, plus what layers and regularizers add, as a scalar."""
        compiled, recording = self._require_compiled(), current_recording()
        parts: dict[str, Any] = {}
        with optimizers.scope("loss"):
            terms: list[Term] = []
            if compiled.loss is not None:
                parts, terms = compiled.loss(y, y_pred, sample_weight)
            dtype = terms[0].value.dtype if terms else "float32"
            terms += [Term(ops.cast(penalty, dtype), CONSTANT, even=False) for penalty in self._penalties()]
            terms += [Term(ops.cast(added, dtype)) for added in self._added_losses()]
            terms = joined(terms)
            total: Any = None
            for term in terms:
                total = term.value if total is None else total + term.value
        if total is None:
            raise GraphcError(f"model {self.name!r} has no loss: give one to `compile`, or add one by `add_loss`")
        if recording is not None:
            recording.loss_terms = terms
            recording.loss_parts = {"loss": total}
            if len(parts) > 1:
                recording.loss_parts |= {f"{name}_loss": part for name, part in parts.items()}
        return total

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> dict[str, Any]:
        """Update the metrics, and give the logs: each metric's value by its name.

        Among them are the means of the loss that `compute_loss` gave last, over examples.
        """
        compiled, recording = self._require_compiled(), current_recording()
        with optimizers.scope("metrics"):
            for name, value in ({} if recording is None else recording.loss_parts).items():
                tracker = compiled.losses.setdefault(name, Mean(name))
                tracker.update_state(value, None if recording is None else recording.batch_size)
            compiled.metrics.build(y, y_pred, self.output_names if self.is_functional else None)
            compiled.metrics.update_state(y, y_pred, sample_weight)
            return self.get_metrics_result()

    def get_metrics_result(self) -> dict[str, Any]:
        """The results of all metrics by their names, of which some may give several: the logs of a step."""
        logs: dict[str, Any] = {}
        for metric in self.metrics:
            result = metric.result()
            logs.update(result if isinstance(result, dict) else {metric.name: result})
        return logs

    def _copy_into(self, copied: Any, memo: dict[int, Any]) -> None:
        """A copy is compiled as this one is, and its optimizer goes on where this one's is; nothing is running yet."""
        super()._copy_into(copied, memo)
        if self._compiled is not None:
            compile_config.copy_training(self, copied, memo)

    # --- compile -------------------------------------------------------------------------------------------------

    @suggests_arguments
    def compile(
        self,
        optimizer: Any = "rmsprop",
        loss: Any = None,
        loss_weights: Any = None,
        metrics: Any = None,
        weighted_metrics: Any = None,
        run_eagerly: bool = False,
        steps_per_execution: int = 1,
        jit_compile: bool | str = "auto",
        auto_scale_loss: bool = True,
        *,
        target: str | None = None,
        passes: str | None = None,
        memory_budget: int | str | None = None,
        check_finite: bool = False,
        gradients: Literal["ir", "native"] = "ir",
    ) -> None:
        """Say how the model is trained, and what it runs on. Recording and compiling wait for the first use.

        The first arguments are Keras's: an optimizer, a loss (for several outputs a list or dict), the factors of
        outputs' losses, metrics that do not look at sample weights and such that do. How a step runs is the target's,
        so that `run_eagerly`, `steps_per_execution` and `jit_compile` change nothing. In mixed_float16 the optimizer is
        wrapped in a `LossScaleOptimizer`, unless `auto_scale_loss` is off.

        `target`, `passes` and `memory_budget` are those of `graphc.compile`. With `check_finite`, `fit` raises where a
        layer, the loss or a gradient is not finite, and says which: it costs about a pass over all of them.
        `gradients="native"` leaves gradients to the target's framework, which only torch and jax can.
        """
        check_gradients(gradients)
        if target is not None:
            codegen.target(target)
        if passes is not None:
            run_passes(Module(), passes)
        if memory_budget is not None:
            budget_bytes(memory_budget)
        found = None if optimizer is None else optimizers.get(optimizer)
        names = self.output_names if self.is_functional else None
        in_float16 = any(layer.dtype_policy.name == "mixed_float16" for layer in self.all_layers())
        if auto_scale_loss and in_float16 and found is not None and not isinstance(found, LossScaleOptimizer):
            found = LossScaleOptimizer(found)
        compiled = Compiled(
            found,
            None if loss is None else CompiledLoss(loss, loss_weights, names),
            CompiledMetrics(metrics, weighted_metrics, names),
            {"target": target, "passes": passes, "memory_budget": memory_budget},
            check_finite,
            gradients,
            given={
                "optimizer": optimizer,
                "loss": loss,
                "loss_weights": loss_weights,
                "metrics": metrics,
                "weighted_metrics": weighted_metrics,
                "run_eagerly": run_eagerly,
                "steps_per_execution": steps_per_execution,
                "jit_compile": jit_compile,
                "auto_scale_loss": auto_scale_loss,
                "target": target,
                "passes": passes,
                "memory_budget": memory_budget,
                "check_finite": check_finite,
                "gradients": gradients,
            },
            losses={} if loss is None else {"loss": Mean("loss")},
        )
        object.__setattr__(self, "_compiled", compiled)
        object.__setattr__(self, "loss", loss)  # as given, which scripts for Keras look at
        object.__setattr__(self, "_forward", None)

    def get_compile_config(self) -> dict[str, Any]:
        """The arguments of `compile` as JSON, which `compile_from_config` takes; `{}` before `compile`.

        A model with a `compile` of its own overrides both; what it returns may have objects with `get_config` in it.
        """
        compiled = self._compiled
        if compiled is None:
            return {}
        return compile_config.serialized(compiled.given | compiled.settings | {"optimizer": compiled.optimizer})

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compile the model as `get_compile_config` said. Raises `FormatError` for a config that `compile` refuses."""
        if type(self).compile is not Trainer.compile:
            warn(
                f"{self.name!r} is loaded without being compiled, since {type(self).__name__} has a `compile` of its "
                "own: call it, or let the class override get_compile_config and compile_from_config too"
            )
            return
        try:
            self.compile(**serialization.deserialize(config))
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            raise FormatError(f"the config of `compile` cannot be used: {error!r}") from error

    def training_state(self) -> tuple[Any, dict[str, Array]]:
        return compile_config.training_state(self)

    def restore_training(self, config: Any, arrays: Mapping[str, Array]) -> None:
        compile_config.restore_training(self, config, arrays)

    @property
    def compiled(self) -> bool:
        """Whether `compile` was called."""
        return self._compiled is not None

    @property
    def optimizer(self) -> Any:
        """The optimizer that `compile` was given."""
        return None if self._compiled is None else self._compiled.optimizer

    @optimizer.setter
    def optimizer(self, value: Any) -> None:
        compiled = self._require_compiled()
        compiled.optimizer = optimizers.get(value)
        compiled.programs.clear()
        compiled.steps.clear()

    @property
    def metrics(self) -> list[Any]:
        """The means of the losses, `compile_metrics`, which has those that `compile` was given, and those among the
        attributes of the model and its layers, as in Keras."""
        found = [*metrics_of(self), *self._layers_metrics()]
        if self._compiled is not None:
            given = [self._compiled.metrics] if self._compiled.metrics.is_asked else []
            found = [*self._compiled.losses.values(), *given, *found]
        return list({id(metric): metric for metric in found}.values())

    def _layers_metrics(self) -> list[Any]:
        """Those of layers; a model among these has metrics for its own training."""
        known = self._metrics_at
        if known is None or known[0] != arrangement():
            layers = [layer for layer in self.all_layers() if not isinstance(layer, Trainer)]
            known = arrangement(), [metric for layer in layers for metric in metrics_of(layer)]
            object.__setattr__(self, "_metrics_at", known)
        return known[1]

    @property
    def metrics_names(self) -> list[str]:
        """The names of their logs, as far as they are known: metrics are made when the first step is recorded."""
        names: list[str] = []
        for metric in self.metrics:
            names += [use.name for use in metric.uses] if isinstance(metric, CompiledMetrics) else [metric.name]
        return names

    def reset_metrics(self) -> None:
        """Let all metrics start anew."""
        for metric in self.metrics:
            metric.reset_state()

    def _require_compiled(self) -> Compiled:
        if self._compiled is None:
            raise GraphcError(f"model {self.name!r} is not compiled: call compile(optimizer=..., loss=...) first")
        return self._compiled

    def _program(
        self, train: Batch | None, test: Batch | None, compiling: Compiling = lambda target: nullcontext()
    ) -> Program:
        """The compiled entries for batches of these types, made when first asked for."""
        compiled = self._require_compiled()
        trained = tuple(id(variable) for variable in self.trainable_variables)
        for (known_train, known_test, known_trained), program in compiled.programs.items():
            fits = (train is None or (known_train, known_trained) == (train.key, trained)) and (
                test is None or known_test == test.key
            )
            if (
                fits
                and program.graph is self._graph
                and program.has_adapters()
                and (train is None or program.is_planned_for(train.sizes))
            ):
                program.take_over()
                return program
        key = (train and train.key, test and test.key, trained)
        sizes = train.sizes if train is not None else {}
        with compiling(codegen.target(compiled.settings["target"] or config.target()).name):
            program = Program(record_training(self, train, test, compiled.check_finite), compiled.settings, sizes)
        compiled.programs[key] = program
        return program

    def training_module(self, x: Any, y: Any = None, sample_weight: Any = None) -> Module:
        """The module that `fit` compiles, for batches like this one, of arrays or of `Spec`s: entries `forward`,
        `train_step` and `test_step` over one weight table. `graphc.compile` takes it; its artifact trains without
        graphc."""
        fitting.ensure_built(self, x)
        types = batch_types(self, fitted_inputs(self, x), y, sample_weight)
        return record_training(self, types, types, self._require_compiled().check_finite).module

    # --- fit -----------------------------------------------------------------------------------------------------

    @suggests_arguments
    def fit(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        epochs: int = 1,
        verbose: int | str = "auto",
        callbacks: Any = None,
        validation_split: float = 0.0,
        validation_data: Any = None,
        shuffle: bool | str = True,
        class_weight: Mapping[int, float] | None = None,
        sample_weight: Any = None,
        initial_epoch: int = 0,
        steps_per_epoch: int | None = None,
        validation_steps: int | None = None,
        validation_batch_size: int | None = None,
        validation_freq: int | list[int] = 1,
    ) -> Any:
        """Train on batches of the data for `epochs` passes; returns the `History`. Arguments are those of Keras.

        Raises `GraphcError` that names epoch and step for data and labels that do not fit.
        """
        compiled = self._require_compiled()
        if validation_split != 0 and validation_data is None:
            (x, y, sample_weight), validation_data = split_off((x, y, sample_weight), validation_split)
        key = np.asarray(key_of(None), np.uint32)
        data = adapter(
            x,
            y,
            sample_weight,
            batch_size=batch_size,
            shuffle=shuffle,
            class_weight=class_weight,
            steps_per_epoch=steps_per_epoch,
            key=key,
            initial_epoch=initial_epoch,
            check_finite=compiled.check_finite,
            inputs=partial(fitted_inputs, self),
        )
        validation = None
        if validation_data is not None:
            size = batch_size if validation_batch_size is None else validation_batch_size
            validation = fitting.validation_adapter(self, validation_data, size, validation_steps)
        listed = CallbackList(
            callbacks,
            add_history=True,
            add_progbar=verbosity(verbose) != 0,
            model=self,
            verbose=verbosity(verbose),
            epochs=epochs,
            steps=data.steps,
            validation=validation is not None,
        )
        position = Position([int(word) for word in key], initial_epoch, 0, initial_epoch, data.steps, batch_size)
        fitting.Fit(self, data, validation, listed, position, epochs, validation_freq).run()
        return listed.history

    @suggests_arguments
    def evaluate(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        verbose: int | str = "auto",
        sample_weight: Any = None,
        steps: int | None = None,
        callbacks: Any = None,
        return_dict: bool = False,
    ) -> Any:
        """The loss and the metrics over the data: a list in the order of the logs (one number alone), or a dict."""
        data = adapter(
            x,
            y,
            sample_weight,
            batch_size=batch_size,
            steps_per_epoch=steps,
            repeat=False,
            inputs=partial(fitted_inputs, self),
            steps_name="steps",
        )
        listed = CallbackList(
            callbacks,
            add_progbar=verbosity(verbose, True) != 0,
            model=self,
            verbose=verbosity(verbose, True),
            epochs=1,
            steps=data.steps,
        )
        program = self._program(None, fitting.types_of(self, data), listed.compiling)
        keys = StepKeys(np.asarray(key_of(None), np.uint32), 0)
        logs = fitting.evaluate(self, program, data, listed, keys)
        return logs if return_dict else _listed(logs)

    # --- single batches ------------------------------------------------------------------------------------------

    def train_on_batch(
        self,
        x: Any,
        y: Any = None,
        sample_weight: Any = None,
        class_weight: Mapping[int, float] | None = None,
        return_dict: bool = False,
    ) -> Any:
        """One step on this batch, and its logs; metrics start anew, as in Keras."""
        return self._on_batch("train_step", x, y, sample_weight, class_weight, return_dict)

    def test_on_batch(self, x: Any, y: Any = None, sample_weight: Any = None, return_dict: bool = False) -> Any:
        """The loss and metrics on this batch; metrics start anew."""
        return self._on_batch("test_step", x, y, sample_weight, None, return_dict)

    def _on_batch(
        self,
        name: str,
        x: Any,
        y: Any,
        sample_weight: Any,
        class_weight: Mapping[int, float] | None,
        return_dict: bool,
    ) -> Any:
        steps = self._require_compiled().steps
        kind = kind_of(x, y, sample_weight) if class_weight is None else None
        step = steps.get((name, kind)) if kind is not None else None
        batch = (x, y, sample_weight)
        if step is None or not step.serves(self):
            batch = adapter(
                *batch,
                batch_size=batch_length(x),
                class_weight=class_weight,
                inputs=partial(fitted_inputs, self),
            ).example()
            step = BatchStep(self, name, batch)
            if kind is not None and kind == kind_of(*batch):  # taken as it is
                steps[name, kind] = step
        logs = step(self, batch)
        return logs if return_dict else _listed(logs)


def batch_length(x: Any) -> int:
    """How many examples a batch has."""
    shape = np.shape(flatten(x)[0])
    return max(*shape[:1], 1, 1)  # what has no axis of examples is refused with the rest of the batch


def _listed(logs: dict[str, float]) -> Any:
    values = list(logs.values())
    return values[0] if len(values) == 1 else values


__all__ = ["Trainer", "batch_length"]
