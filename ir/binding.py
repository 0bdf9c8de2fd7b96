"""What a call brings to a function: its symbols bound by sizes, its inputs as arrays of the right dtypes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np

from graphc.ir.dims import Dim, Size, solve
from graphc.ir.dtypes import dtype
from graphc.ir.errors import DTypeError, GraphcError, ShapeError
from graphc.ir.graph import Function, Parameter
from graphc.ir.inference import shape_text
from graphc.ir.suggestions import number_of
from graphc.ir.types import Shape

Array = np.ndarray[Any, Any]


def bind_symbols(function: Function, shapes: Sequence[Shape]) -> dict[Dim, Size]:
    """The size of each symbol, given the shape of each parameter in order.

    Plain sizes are bound first, so that `f32[2*S]` may stand before the `f32[S]` that binds it. Raises `ShapeError`
    that names the parameter with the shape it wants, or the guard that does not hold.
    """
    bindings: dict[Dim, Size] = {}
    later: list[tuple[int, Size, Size]] = []
    for index, (parameter, shape) in enumerate(zip(function.parameters, shapes, strict=True)):
        formal = parameter.type.shape
        if len(formal) != len(shape):
            raise _mismatch(function, index, shape)
        for want, got in zip(formal, shape, strict=True):
            if isinstance(want, int) or want.is_symbol:
                if isinstance(want, Dim) and isinstance(got, int) and got < want.minimum:
                    raise ShapeError(f"{_name(function, index)}: {want} must be at least {want.minimum}, not {got}")
                if solve(want, got, bindings) is False:
                    raise _mismatch(function, index, shape, bindings)
            else:
                later.append((index, want, got))
    for index, want, got in later:
        if solve(want, got, bindings) is False:
            raise _mismatch(function, index, shapes[index], bindings)
    for guard in function.guards:
        if guard.substitute(bindings).holds is False:
            sizes = ", ".join(f"{symbol} = {size}" for symbol, size in bindings.items())
            raise ShapeError(f"@{function.name} needs {guard}, but it was called with {sizes}")
    return bindings


def _name(function: Function, index: int) -> str:
    parameter = function.parameters[index]
    return f"{parameter.role} {parameter.name!r} of @{function.name}"


def _mismatch(function: Function, index: int, shape: Shape, bindings: dict[Dim, Size] | None = None) -> ShapeError:
    wanted = function.parameters[index].type
    symbols = [s for s in wanted.symbols if bindings and s in bindings]
    where = f" with {', '.join(f'{s} = {cast(dict[Dim, Size], bindings)[s]}' for s in symbols)}" if symbols else ""
    return ShapeError(
        f"{_name(function, index)} has shape {shape_text(shape)}; it must be {shape_text(wanted.shape)}{where}"
    )


def prepare_inputs(function: Function, arrays: Sequence[Any], named: Mapping[str, Any]) -> dict[str, Array]:
    """The inputs of a call by name, as arrays of the dtypes the function wants.

    Raises `GraphcError` for a missing, unknown or doubled input, `DTypeError` for one whose kind does not convert.
    """
    inputs = function.inputs
    if len(arrays) > len(inputs):
        raise GraphcError(
            f"@{function.name} takes {number_of(len(inputs), 'input')} ({_listed(function)}), "
            f"{number_of(len(arrays), 'was', 'were')} given"
        )
    found: dict[str, Any] = {p.name: array for p, array in zip(inputs, arrays, strict=False)}
    for name, array in named.items():
        if name in found:
            raise GraphcError(f"input {name!r} of @{function.name} was given twice")
        if all(p.name != name for p in inputs):
            raise GraphcError(f"@{function.name} has no input {name!r}; it has {_listed(function)}")
        found[name] = array
    missing = [p for p in inputs if p.name not in found]
    if missing:
        wanted = ", ".join(f"{p.name!r} ({p.type})" for p in missing)
        raise GraphcError(f"@{function.name} misses the input {wanted}")
    return {p.name: _as_dtype(function, p, found[p.name]) for p in inputs}


def _listed(function: Function) -> str:
    return ", ".join(f"{p.name!r} ({p.type})" for p in function.inputs) or "none"


_KIND_RANK = {"b": 0, "u": 1, "i": 1, "f": 2, "c": 3}


def _as_dtype(function: Function, parameter: Parameter, value: Any) -> Array:
    want = parameter.type.dtype
    try:
        array = np.asarray(value)
    except (ValueError, TypeError):  # lists of unequal lengths
        raise ShapeError(f"input {parameter.name!r} of @{function.name} is no array of one shape") from None
    try:
        have = dtype(array.dtype)
    except DTypeError:
        raise DTypeError(
            f"input {parameter.name!r} of @{function.name} is {want}; NumPy's {array.dtype} is not a dtype of the IR"
        ) from None
    if have is want:
        return array
    if _KIND_RANK[have.kind] > _KIND_RANK[want.kind]:
        raise DTypeError(
            f"input {parameter.name!r} of @{function.name} is {want}; a {have} array does not convert to it"
        )
    return array.astype(want.numpy)
