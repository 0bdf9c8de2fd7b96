"""`Model` and `Sequential` as users see them: the DSL's, with what needs a target."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from graphc import frontends
from graphc.frontends import serialization
from graphc.frontends.structures import flatten, map_structure, pack
from graphc.ir.dims import Dim
from graphc.ir.errors import GraphcError, ShapeError, UnsupportedError
from graphc.runtime.executable import Executable
from graphc.runtime.training import constraints, optimizers, schedules
from graphc.runtime.training.program import Program
from graphc.runtime.training.step import record_training
from graphc.runtime.training.trainer import Trainer

Array = np.ndarray[Any, Any]

BATCH_SIZE = 32
"""What `predict` takes at a time when it is not told, as in Keras."""


class Model(Trainer, frontends.Model):
    """A model that can be compiled for a target, trained and run on arrays there."""

    def executable(self) -> Executable:
        """The model compiled as `compile` said. It holds the values of the weights from then on."""
        programs = [] if self._compiled is None else list(self._compiled.programs.values())
        known = programs[-1] if programs else self._forward
        if known is None or known.graph is not self._graph:
            settings = {} if self._compiled is None else self._compiled.settings
            known = Program(record_training(self, None, None), settings)
            object.__setattr__(self, "_forward", known)
        known.take_over()
        return known.executable

    def predict(
        self,
        x: Any,
        batch_size: int | None = None,
        verbose: int | str = "auto",
        steps: int | None = None,
        callbacks: Any = None,
    ) -> Any:
        """The outputs for `x`, computed `batch_size` examples at a time (32 by default), in the model's structure.

        `x` is an array, or a list or dict of arrays for a model of several inputs. Raises `ShapeError` when inputs
        differ in length or an output has no axis of examples. `verbose` is taken as in Keras, but nothing is printed;
        `steps` and `callbacks` are not supported.
        """
        if verbose not in ("auto", 0, 1, 2):
            raise GraphcError(f"verbose is 'auto', 0, 1 or 2, not {verbose!r}")
        if steps is not None:
            raise UnsupportedError("predict does not take `steps` yet; pass as many examples as are wanted")
        if callbacks:
            raise UnsupportedError("predict does not take `callbacks` yet")
        if not self.built:
            self(map_structure(lambda array: np.asarray(array)[:1], x))
        executable = self.executable()
        inputs = executable.entry().signature.inputs
        arrays = _by_name(x, [p.name for p in inputs])
        if any(not p.type.shape or not isinstance(p.type.shape[0], Dim) for p in inputs):
            return self._structured(executable(**arrays))
        count = _length(arrays)
        step = BATCH_SIZE if batch_size is None else batch_size
        if step < 1:
            raise GraphcError(f"the batch size must be 1 or more, not {step}")
        starts = range(0, max(count, 1), step)
        parts = [executable(**{name: a[start : start + step] for name, a in arrays.items()}) for start in starts]
        if len(parts) == 1:
            return self._structured(parts[0])
        if not isinstance(parts[0], tuple):
            return self._structured(_joined([np.asarray(part) for part in parts], count))
        return self._structured(tuple(_joined(list(column), count) for column in zip(*parts, strict=True)))

    def _structured(self, results: Array | tuple[Array, ...]) -> Any:
        flat = list(results) if isinstance(results, tuple) else [results]
        if self.is_functional:
            return pack(self.output, flat)
        return flat[0] if len(flat) == 1 else flat


class Sequential(frontends.Sequential, Model):
    """Layers one after another, as a model that can be compiled and run."""


serialization.MODELS.update({"Functional": Model, "Model": Model, "Sequential": Sequential})
serialization.CLASSES.update(constraints.CLASSES)
serialization.CLASSES.update(schedules.CLASSES)
serialization.CLASSES.update({cls.__name__: cls for cls in optimizers.CLASSES.values()})


def _by_name(x: Any, names: list[str]) -> dict[str, Array]:
    if isinstance(x, Mapping) and set(x) == set(names):
        return {name: np.asarray(x[name]) for name in names}
    flat = flatten(x) if not isinstance(x, np.ndarray) else [x]
    if len(flat) != len(names):
        raise GraphcError(f"the model takes {len(names)} inputs ({', '.join(names)}), {len(flat)} were given")
    return {name: np.asarray(array) for name, array in zip(names, flat, strict=True)}


def _length(arrays: Mapping[str, Array]) -> int:
    lengths = {name: array.shape[0] if array.ndim else 0 for name, array in arrays.items()}
    if len(set(lengths.values())) != 1:
        raise ShapeError("inputs differ in length: " + ", ".join(f"{name} has {n}" for name, n in lengths.items()))
    return next(iter(lengths.values()))


def _joined(parts: list[Array], count: int) -> Array:
    if any(part.ndim == 0 for part in parts) or sum(part.shape[0] for part in parts) != count:
        raise ShapeError("an output does not have an entry for each example; pass all of them as one batch")
    return np.concatenate(parts)
