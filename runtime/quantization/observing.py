"""Data as calls of a model, and what values inside are on it; see `stages` for how it is run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from graphc.ir.dtypes import dtype as dtype_of
from graphc.ir.errors import GraphcError, ShapeError
from graphc.ir.graph import Function, Value
from graphc.ir.module import Module
from graphc.runtime.quantization.stages import Batch, Stages
from graphc.runtime.signature import checked_inputs

Array = np.ndarray[Any, Any]

BATCH = 64
"""Examples that are run at once where data is given as arrays of all of them."""


def batches(function: Function, data: Any, batch_size: int = BATCH) -> list[Batch]:
    """Calibration data as calls of `function`: an array or a dict of arrays of all examples, or an iterable of batches,
    each of which is an array, a tuple or a dict.

    Raises `GraphcError` for data that is empty or holds NaN or infinities, `ShapeError` or `DTypeError` for arrays that
    the inputs do not take; the message names the input and the batch.
    """
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
        raise GraphcError(f"batch_size is a positive integer, not {batch_size!r}")
    several = not hasattr(data, "shape") and not isinstance(data, Mapping)
    if several and (isinstance(data, (str, bytes)) or not isinstance(data, Iterable)):
        raise GraphcError(f"calibration data is arrays or batches of them, not {type(data).__name__}")
    given = list(data) if several else [_examples(data, start, batch_size) for start in _starts(data, batch_size)]
    if several and given and not isinstance(given[0], (Mapping, tuple, list)) and not hasattr(given[0], "shape"):
        raise GraphcError(f"calibration data is arrays or batches of them, not {type(given[0]).__name__}")
    inputs_only = _signature(function)
    found: list[Batch] = []
    for number, batch in enumerate(given):
        arrays, named = _arguments(batch)
        try:
            inputs = checked_inputs(inputs_only, arrays, named)
        except GraphcError as error:
            raise error.at(f"batch {number} of the calibration data") from None
        for parameter, array in zip(function.inputs, inputs, strict=True):
            _check(array, parameter.name, number)
        if all(array.size for array in inputs):
            found.append(inputs)
    if not found:
        raise GraphcError("the calibration data is empty: ranges come from examples, of which some dozens are enough")
    return found


def _signature(function: Function) -> Function:
    """A function without a body that has the inputs and guards."""
    found = Function(function.name)
    for parameter in function.inputs:
        found.add_parameter(parameter.type, parameter.name)
    for guard in function.guards:
        found.add_guard(guard)
    return found


def _starts(data: Any, size: int) -> range:
    lengths = {len(array) for array in data.values()} if isinstance(data, Mapping) else {len(data)}
    if len(lengths) > 1:
        raise ShapeError(f"the arrays of the calibration data have {sorted(lengths)} examples: as many each are wanted")
    return range(0, max(lengths, default=0), size)


def _examples(data: Any, start: int, size: int) -> Any:
    if isinstance(data, Mapping):
        return {name: array[start : start + size] for name, array in data.items()}
    return np.asarray(data)[start : start + size]


def _arguments(batch: Any) -> tuple[list[Any], dict[str, Any]]:
    if isinstance(batch, Mapping):
        return [], {str(name): np.asarray(array) for name, array in batch.items()}
    return [np.asarray(array) for array in (batch if isinstance(batch, (tuple, list)) else [batch])], {}


def _check(array: Array, name: str, number: int) -> None:
    if dtype_of(array.dtype).is_float and not np.isfinite(array.astype(np.float32)).all():
        count = int(np.count_nonzero(~np.isfinite(array.astype(np.float32))))
        raise GraphcError(
            f"the calibration data is not finite: {count} of {array.size} elements of {name!r} in batch {number} are "
            "NaN or infinite"
        )


def observed(
    module: Module,
    choose: Callable[[Function], Mapping[str, Value]],
    data: Sequence[Batch],
    target: str = "numpy",
) -> Iterator[dict[str, Array]]:
    """The values that `choose` names in the main function, for each batch; what has no name is not computed.

    This is where statistics for ranges come from, and those of a layer's inputs. Raises `GraphcError` for a value that
    is not finite.
    """
    yield from Stages(module, data, target).observed(choose(module.main))


def observe(
    module: Module, choose: Callable[[Function], Mapping[str, Value]], data: Iterable[Any], batch_size: int = BATCH
) -> Iterator[dict[str, Array]]:
    """`observed` on data as users give it; see `batches`."""
    return observed(module, choose, batches(module.main, data, batch_size))


__all__ = ["BATCH", "Batch", "batches", "observe", "observed"]
