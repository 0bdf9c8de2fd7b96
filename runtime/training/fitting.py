"""The loops of `fit` and `evaluate`: batches of data through the steps that a model is compiled to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from graphc.frontends.structures import flatten, map_structure
from graphc.frontends.warning import warn
from graphc.ir.errors import GraphcError
from graphc.runtime.lora.adapters import base_digest
from graphc.runtime.training.callbacks import CallbackList
from graphc.runtime.training.callbacks.callback import as_numbers
from graphc.runtime.training.checkpoint import Position, Run, structure_of
from graphc.runtime.training.data import Adapter, adapter, unpacked
from graphc.runtime.training.data.adapters import ArrayAdapter
from graphc.runtime.training.inputs import fitted_inputs
from graphc.runtime.training.keys import VALIDATION, StepKeys
from graphc.runtime.training.program import Program
from graphc.runtime.training.step import Batch, LabelError, batch_types

Array = np.ndarray[Any, Any]


class Fit:
    """The epochs of one `fit`, from where `position` is; callbacks may put it elsewhere before the first one.

    `validated` is after how many epochs the model is evaluated on the validation data, or a list of these epochs.
    """

    def __init__(
        self,
        model: Any,
        data: Adapter,
        validation: Adapter | None,
        callbacks: CallbackList,
        position: Position,
        epochs: int,
        validated: Any = 1,
    ) -> None:
        for name, count in (("epochs", epochs), ("initial_epoch", position.initial_epoch)):
            if isinstance(count, bool) or not isinstance(count, (int, np.integer)) or count < 0:
                raise GraphcError(f"{name} is an integer of 0 or more, not {count!r}")
        if model.optimizer is None and not overrides(model, "train_step"):
            raise GraphcError(f"model {model.name!r} has no optimizer: give one to `compile` to train it")
        self.model, self.data, self.validation, self.callbacks = model, data, validation, callbacks
        self.position, self.epochs = position, int(epochs)
        self.is_validated = validated_epochs(validated)
        train = types_of(model, data)
        # `evaluate` on data like this, later, is spared a compilation; a step of one's own may have no test step.
        spare = None if overrides(model, "train_step") else train
        try:
            test = spare if validation is None else types_of(model, validation)
        except GraphcError as error:
            raise error.at("validation_data") from None
        self.program: Program = model._program(train, test, callbacks.compiling)
        if validation is not None:
            check_labels(self.program, validation)

    def run(self) -> None:
        """Train until the epochs are done, the data ends, or a callback stops it."""
        try:
            self._run()
        finally:
            self.callbacks.close()

    def _run(self) -> None:
        model, position = self.model, self.position
        self._warn_of_unreached()
        model.stop_training = False
        logs: dict[str, float] = {}
        self.callbacks.begin("train")
        self._hand_over()
        model.stop_training = model.stop_training or position.stop
        # An epoch that was interrupted is ended, also one whose last batch made a callback stop.
        while position.epoch < self.epochs and (position.step or not model.stop_training):
            found = self._epoch()
            if found is None:
                break
            logs = found
        # A run that is resumed after its last step still has to end.
        if model.optimizer is not None and (position.step or position.epoch > position.initial_epoch):
            model.optimizer.finalize_variable_values(model.trainable_variables)
        self.callbacks.end("train", logs)

    def _hand_over(self) -> None:
        """Show the run to callbacks that save or restore it."""
        recorded, position = self.program.recorded, self.position
        forward = recorded.module.functions.get("forward")
        structure = None if forward is None else structure_of(forward)
        frozen = {name: v for name, v in recorded.variables.items() if v.frozen}
        saved = {name: v for name, v in recorded.variables.items() if name not in frozen}
        base = base_digest(frozen) if frozen else None
        run = Run(position, saved, self.model.optimizer, self.callbacks.callbacks, structure, base)
        for callback in self.callbacks.callbacks:
            if hasattr(callback, "set_run"):
                callback.set_run(run)
        self.data.resume(np.array(position.key, np.uint32), position.initial_epoch)

    def _epoch(self) -> dict[str, float] | None:
        """The rest of the epoch at which the position is; its logs, None where there was no data."""
        model, position, epoch = self.model, self.position, self.position.epoch
        if position.step == 0:
            model.reset_metrics()
        self.callbacks.on_epoch_begin(epoch)
        step = self.program.runner("train_step")
        keys = StepKeys(np.array(position.key, np.uint32), epoch)
        logs: Mapping[str, Any] = position.logs
        batches = () if model.stop_training else self.data.start(epoch, position.step)
        for number, batch in enumerate(batches, position.step):
            self.callbacks.batch_begin("train", number)
            try:
                with self.program.starting("train_step", self.callbacks.compiling):
                    logs = step(*batch, keys[number])
            except GraphcError as error:
                error = located(error, self.data, epoch, number)
                raise error.at(f"epoch {epoch + 1}, step {number + 1}") from error.__cause__
            position.step, position.logs = number + 1, logs  # type: ignore[assignment]
            self.callbacks.batch_end("train", number, logs)
            if model.stop_training:
                break
        if position.step == 0:
            return None
        found = as_numbers(logs)
        if self.validation is not None and self.is_validated(epoch):
            test_keys = StepKeys(np.array(position.key, np.uint32), epoch, VALIDATION)
            test = evaluate(model, self.program, self.validation, self.callbacks, test_keys)
            found |= {f"val_{name}": value for name, value in test.items()}
        model.stop_training = model.stop_training or self.data.exhausted
        # What callbacks save after an epoch is a run that stands before the next one.
        position.epoch, position.step, position.logs = epoch + 1, 0, {}
        self.callbacks.on_epoch_end(epoch, found)
        return found

    def _warn_of_unreached(self) -> None:
        names = self.program.recorded.unreached
        if names and not self.program.warned:
            self.program.warned = True
            warn(f"the loss does not depend on these weights: {', '.join(names)}")
        if not self.program.recorded.trains and not self.program.warned:
            self.program.warned = True
            warn(
                f"train_step of {type(self.model).__name__} changes no trainable weight, so nothing is "
                "trained: it needs `gradients = graphc.gradients(loss, self.trainable_variables)` and "
                "`self.optimizer.apply(gradients, self.trainable_variables)`"
            )


def evaluate(model: Any, program: Program, data: Adapter, callbacks: CallbackList, keys: StepKeys) -> dict[str, float]:
    """The logs of the test step over all the data, or until a callback sets `model.stop_evaluating`; metrics start
    anew."""
    model.stop_evaluating = False
    callbacks.begin("test")
    model.reset_metrics()
    step = program.runner("test_step")
    logs: Mapping[str, Any] | None = None
    for number, batch in enumerate(data.start(0)):
        callbacks.batch_begin("test", number)
        try:
            with program.starting("test_step", callbacks.compiling):
                logs = step(*batch, keys[number])
        except GraphcError as error:
            raise located(error, data, 0, number).at(f"step {number + 1} of the evaluation") from error.__cause__
        callbacks.batch_end("test", number, logs)
        if model.stop_evaluating:
            break
    if logs is None:
        raise GraphcError(
            f"there is nothing to evaluate on: {data.what} gives no batches any more. A generator is read once: give "
            f"one that goes on, with the number of steps, or data that can be read again, such as arrays or a PyDataset"
        )
    found = as_numbers(logs)
    callbacks.end("test", found)
    return found


def located(error: GraphcError, data: Adapter, epoch: int, step: int) -> GraphcError:
    """The error; where it is of a label, with the row of the data that has it, if that is known."""
    if not isinstance(error, LabelError):
        return error
    origin = data.origin(epoch, step, error.at_index[0])
    return error if origin is None else error.in_row(*origin)


def overrides(model: Any, method: str) -> bool:
    """Whether the model's class has its own version of a method of `Trainer`'s."""
    from graphc.runtime.training.trainer import Trainer

    return getattr(type(model), method) is not getattr(Trainer, method)


def ensure_built(model: Any, x: Any) -> None:
    """Build a model that waits for its first input, by an example of the batch."""
    if not model.built:
        model(map_structure(lambda array: np.asarray(array)[:1], x))


def types_of(model: Any, data: Adapter) -> Batch:
    """The types of the batches of the data."""
    batch = data.example()
    ensure_built(model, batch[0])
    return batch_types(model, *batch)


def check_labels(program: Program, validation: Adapter) -> None:
    """Raise `GraphcError` for a label of the validation data that is no class, before the first epoch, where all of
    them are at hand."""
    if isinstance(validation, ArrayAdapter):
        leaves = [leaf for leaf in flatten(validation.arrays) if leaf is not None]
        for labels in program.recorded.entries["test_step"].labels:
            labels.check(np.asarray(leaves[labels.index]), "validation_data")


def validation_adapter(model: Any, validation: Any, batch_size: int | None, steps: int | None) -> Adapter:
    """The adapter of `validation_data`: `(x, y)`, `(x, y, sample_weight)`, or what gives batches."""
    x, y, sample_weight = unpacked(validation, "validation_data")
    try:
        made = adapter(
            x,
            y,
            sample_weight,
            batch_size=batch_size,
            steps_per_epoch=steps,
            repeat=False,
            inputs=partial(fitted_inputs, model),
            steps_name="validation_steps",
        )
    except GraphcError as error:
        raise error.at("validation_data") from None
    made.what = "validation_data" if isinstance(made, ArrayAdapter) else f"{made.what} of validation_data"
    return made


def validated_epochs(frequency: Any) -> Callable[[int], bool]:
    """Whether an epoch, counted from 0, is followed by validation: every so many epochs, or those in a list."""
    if isinstance(frequency, (list, tuple, set)):
        return lambda epoch: epoch + 1 in frequency
    if isinstance(frequency, bool) or not isinstance(frequency, int) or frequency < 1:
        raise GraphcError(f"validation_freq is a number of epochs or a list of epochs, not {frequency!r}")
    return lambda epoch: (epoch + 1) % frequency == 0
