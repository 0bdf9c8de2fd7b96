"""The inputs of an artifact's entry, checked as the reference checks them: by name, dtype, shape and guards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from graphc.codegen.artifact import Entry
from graphc.ir.binding import bind_symbols, prepare_inputs
from graphc.ir.dims import Size, parse_guard, parse_size
from graphc.ir.errors import FormatError, GraphcError
from graphc.ir.graph import Function
from graphc.ir.types import TensorType

Array = np.ndarray[Any, Any]


def signature(name: str, entry: Entry) -> Function:
    """A function without a body that has the inputs and guards of `entry`. Raises `FormatError` for what is no size."""
    function = Function(name)
    try:
        for port in entry.inputs:
            if any(parameter.name == port.name for parameter in function.parameters):
                raise GraphcError(f"two inputs are named {port.name!r}")
            shape = [_size(size, entry) for size in port.shape]
            function.add_parameter(TensorType.of(port.dtype, shape), port.name)
        for guard in entry.guards:
            function.add_guard(parse_guard(guard, entry.minimums))
    except (GraphcError, ValueError) as error:
        raise FormatError(f"the manifest does not describe the entry {name!r}: {error}") from None
    return function


def _size(size: int | str, entry: Entry) -> Size:
    return size if isinstance(size, int) else parse_size(size, entry.minimums)


class Binder:
    """Checks the inputs of an entry's calls; shapes and dtypes that it has met before are not checked again."""

    LIMIT = 1024
    """Kinds of calls that are remembered."""

    def __init__(self, function: Function) -> None:
        self.function = function
        self._met: set[tuple[object, ...]] = set()

    def inputs(self, arrays: Sequence[Any], named: Mapping[str, Any]) -> Sequence[Array]:
        """The inputs of a call in order, in the dtypes the entry wants; raises as `checked_inputs` does."""
        if named:
            return checked_inputs(self.function, arrays, named)
        found: list[Array] = []
        key: list[object] = []
        for array in arrays:
            if type(array) is not np.ndarray:
                if not isinstance(array, np.generic):
                    return checked_inputs(self.function, arrays, named)
                array = np.asarray(array)
            found.append(array)
            key += array.shape, array.dtype
        met = tuple(key)
        if met not in self._met:
            checked = checked_inputs(self.function, arrays, named)
            if any(before.dtype != after.dtype for before, after in zip(found, checked, strict=True)):
                return checked
            if len(self._met) < self.LIMIT:
                self._met.add(met)
        return found


def checked_inputs(function: Function, arrays: Sequence[Any], named: Mapping[str, Any]) -> list[Array]:
    """The inputs of a call in order, in the dtypes the entry wants.

    Raises `GraphcError`, `DTypeError` or `ShapeError`: an input that is missing, unknown or given twice, one of a dtype
    that does not convert, of a wrong rank or size, and sizes that break a guard (the message names it).
    """
    found = prepare_inputs(function, arrays, named)
    inputs = [found[parameter.name] for parameter in function.inputs]
    bind_symbols(function, [array.shape for array in inputs])
    return inputs
