"""`Model` and `Sequential` as users see them: the DSL's, with what needs a target."""

from __future__ import annotations

from typing import Any

from graphc import frontends
from graphc.frontends import serialization
from graphc.frontends.arguments import suggests_arguments
from graphc.frontends.random import SeedGenerator
from graphc.frontends.structures import pack
from graphc.runtime import predicting
from graphc.runtime.executable import Executable
from graphc.runtime.lora.model import Adapted
from graphc.runtime.quantization.model import Quantizable
from graphc.runtime.training import constraints, losses, metrics, optimizers, schedules
from graphc.runtime.training.program import Program
from graphc.runtime.training.step import record_training
from graphc.runtime.training.trainer import Trainer, batch_length


class Model(Quantizable, Adapted, Trainer):
    """A model that can be compiled for a target, trained and run on arrays there."""

    def executable(self) -> Executable:
        """The model compiled as `compile` said. It holds the values of the weights from then on."""
        return self.inference_program().executable

    def inference_program(self) -> Program:
        """The program of that executable."""
        programs = [] if self._compiled is None else list(self._compiled.programs.values())
        known = programs[-1] if programs else self._forward
        if known is None or known.graph is not self._graph or not known.has_adapters():
            settings = {} if self._compiled is None else self._compiled.settings
            known = Program(record_training(self, None, None), settings)
            object.__setattr__(self, "_forward", known)
        known.take_over()
        return known

    @suggests_arguments
    def predict(
        self,
        x: Any,
        batch_size: int | None = None,
        verbose: int | str = "auto",
        steps: int | None = None,
        callbacks: Any = None,
    ) -> Any:
        """The outputs for `x`, computed `batch_size` examples at a time (32 by default), in the model's structure.

        `x` is an array, or a list or dict of arrays for a model of several inputs, or what gives batches: a
        `PyDataset`, a generator or another iterable, of which `steps` are taken; targets in them are left alone. Raises
        `ShapeError` when inputs differ in length or an output has no axis of examples.
        """
        flat = predicting.predict(self, x, batch_size, verbose, steps, callbacks)
        if self.is_functional:
            return pack(self.output, flat)
        return flat[0] if len(flat) == 1 else flat

    def predict_on_batch(self, x: Any) -> Any:
        """The outputs for this batch, all at once."""
        return self.predict(x, batch_size=batch_length(x), verbose=0)


class Sequential(frontends.Sequential, Model):
    """Layers one after another, as a model that can be compiled and run."""


serialization.MODELS.update({"Functional": Model, "Model": Model, "Sequential": Sequential})
serialization.CLASSES.update(constraints.CLASSES)
serialization.CLASSES["SeedGenerator"] = SeedGenerator
serialization.CLASSES.update(schedules.CLASSES)
serialization.CLASSES.update({cls.__name__: cls for cls in optimizers.CLASSES.values()})
serialization.MODULES["graphc.losses"] = {**losses.FUNCTIONS, **losses.CLASSES}
serialization.MODULES["graphc.metrics"] = {
    name: found for name, found in vars(metrics).items() if isinstance(found, type) or name.endswith("accuracy")
}
