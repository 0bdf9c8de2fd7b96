"""`Model.predict`: a model's outputs for arrays or for what gives batches, put together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from graphc.frontends.random import key_of
from graphc.frontends.structures import flatten
from graphc.ir.dims import Dim
from graphc.ir.errors import GraphcError, ShapeError
from graphc.ir.graph import Parameter
from graphc.ir.suggestions import number_of
from graphc.runtime.training.callbacks import CallbackList
from graphc.runtime.training.callbacks.progress import verbosity
from graphc.runtime.training.data import Adapter, adapter
from graphc.runtime.training.data.arrays import as_arrays
from graphc.runtime.training.fitting import ensure_built
from graphc.runtime.training.inputs import fitted_inputs
from graphc.runtime.training.keys import StepKeys

Array = np.ndarray[Any, Any]


def predict(
    model: Any, x: Any, batch_size: int | None, verbose: int | str, steps: int | None, callbacks: Any
) -> list[Array]:
    """The model's outputs, flat; see `Model.predict`."""
    shown = verbosity(verbose, quiet_elsewhere=True)
    if isinstance(x, (list, tuple, dict)) or hasattr(x, "__array__"):
        x = as_arrays(x, "x")
        ensure_built(model, x)
        x = fitted_inputs(model, x)
        forward = Forward(model)
        named = by_name(x, forward.inputs)
        open_sizes = all(p.type.shape and isinstance(p.type.shape[0], Dim) for p in forward.inputs)
        count, fixed = length(named), fixed_batch(forward.inputs)
        if fixed is not None and count > fixed and count % fixed == 0:
            batch_size = fixed
        elif not open_sizes or count == 0:  # all at once
            return joined([forward(named, 0)], None)
        data = adapter(named, batch_size=batch_size, steps_per_epoch=steps, repeat=False, steps_name="steps")
    else:
        given = partial(fitted_inputs, model)
        data = adapter(x, batch_size=batch_size, steps_per_epoch=steps, repeat=False, inputs=given, steps_name="steps")
        ensure_built(model, data.example()[0])
    params = {"steps": data.steps, "verbose": shown}
    listening = CallbackList(callbacks, add_progbar=shown > 0, model=model, params=params)
    try:
        return _by_batches(model, data, listening)
    finally:
        listening.close()


def _by_batches(model: Any, data: Adapter, callbacks: CallbackList) -> list[Array]:
    forward = Forward(model)
    parts: list[Any] = []
    count = 0
    callbacks.begin("predict")
    for step, (x, _, _) in enumerate(data.start(0)):
        callbacks.batch_begin("predict", step)
        named = by_name(x, forward.inputs)
        count += length(named)
        with forward.program.starting("forward", callbacks.compiling):
            parts.append(forward(named, step))
        callbacks.batch_end("predict", step, {})
    callbacks.end("predict")
    if not parts:
        raise GraphcError("there is nothing to predict: the data gives no batches")
    return joined(parts, count)


class Forward:
    """A model's `forward`, which is given a key of its own for each batch where it draws random numbers."""

    def __init__(self, model: Any) -> None:
        self.program = program = model.inference_program()
        parameters = program.recorded.module.functions["forward"].inputs
        self.inputs = [parameter for parameter in parameters if parameter.role != "key"]
        self._call = program.executable
        self._key = next((parameter.name for parameter in parameters if parameter.role == "key"), None)
        self._keys = None if self._key is None else StepKeys(np.asarray(key_of(None), np.uint32), 0)

    def __call__(self, named: Mapping[str, Array], step: int) -> Any:
        keys = {} if self._key is None or self._keys is None else {self._key: self._keys[step]}
        return self._call(**named, **keys)


def fixed_batch(inputs: Sequence[Parameter]) -> int | None:
    """The size of the batches that a model is made for (`batch_shape`), None where any will do."""
    sizes = {parameter.type.shape[0] if parameter.type.shape else 0 for parameter in inputs}
    size = sizes.pop() if len(sizes) == 1 else 0
    return size if isinstance(size, int) and size else None


def by_name(x: Any, inputs: Sequence[Parameter]) -> dict[str, Array]:
    """The arrays of `x`, a structure, by the names of the inputs: by key from a dict of all, else by order."""
    names = [parameter.name for parameter in inputs]
    if isinstance(x, Mapping) and set(x) == set(names):
        return {name: np.asarray(x[name]) for name in names}
    flat = flatten(x)
    if len(flat) != len(names):
        raise GraphcError(
            f"the model takes {number_of(len(names), 'input')} ({', '.join(names)}), "
            f"{number_of(len(flat), 'was', 'were')} given"
        )
    return {name: np.asarray(array) for name, array in zip(names, flat, strict=True)}


def length(arrays: Mapping[str, Array]) -> int:
    """How many examples the inputs have. Raises `ShapeError` when they differ in it."""
    lengths = {name: array.shape[0] if array.ndim else 0 for name, array in arrays.items()}
    if len(set(lengths.values())) != 1:
        raise ShapeError("inputs differ in length: " + ", ".join(f"{name} has {n}" for name, n in lengths.items()))
    return next(iter(lengths.values()))


def joined(parts: list[Any], count: int | None) -> list[Array]:
    """The results of calls, each output in one array; `count` is how many entries it is to have.

    Raises `ShapeError` for an output of several calls that does not have an entry for each example.
    """
    columns = zip(*(part if isinstance(part, tuple) else (part,) for part in parts), strict=True)
    return [np.asarray(column[0]) if len(column) == 1 else _joined(column, count) for column in columns]


def _joined(column: tuple[Any, ...], count: int | None) -> Array:
    arrays = [np.asarray(part) for part in column]
    if any(array.ndim == 0 for array in arrays) or sum(array.shape[0] for array in arrays) != count:
        raise ShapeError("an output does not have an entry for each example; pass all of them as one batch")
    return np.concatenate(arrays)
