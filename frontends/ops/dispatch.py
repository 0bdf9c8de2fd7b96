"""How a function of `graphc.ops` meets what it is called on: arrays, traced values, variables or symbolic tensors."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import numpy as np

from graphc.frontends.nodes import record
from graphc.frontends.structures import flatten, map_structure
from graphc.frontends.symbolic import SymbolicTensor
from graphc.ir import ops as ir
from graphc.ir.builder import Builder
from graphc.ir.dims import Dim
from graphc.ir.dtypes import DType, bool_, f32, i32
from graphc.ir.dtypes import dtype as dtype_of
from graphc.ir.errors import ShapeError
from graphc.ir.graph import Value
from graphc.ir.promotion import weak_dtype

P = ParamSpec("P")
R = TypeVar("R")

FUNCTIONS: dict[str, Callable[..., Any]] = {}
"""The functions of `graphc.ops` that can be nodes of a functional model, by name: a saved model refers to them."""


def function(body: Callable[P, R]) -> Callable[P, R]:
    """Decorator: on symbolic tensors and sizes the call is a node of the functional model; else the body runs."""

    @wraps(body)
    def call(*args: P.args, **kwargs: P.kwargs) -> Any:
        if _any_symbolic(args) or (kwargs and _any_symbolic(kwargs.values())):
            builder = Builder.current()
            if builder is None:
                return record(call, args, kwargs, body)
            args, kwargs = map_structure(  # type: ignore[assignment]
                lambda leaf: leaf.__graphc_value__(builder) if isinstance(leaf, SymbolicTensor) else leaf,
                (args, kwargs),
            )
        return body(*args, **kwargs)

    FUNCTIONS[body.__name__] = call
    return call


def creating(body: Callable[P, R]) -> Callable[P, R]:
    """Decorator for functions that make tensors: with symbolic sizes, outside a trace, the call is a node."""

    @wraps(body)
    def call(*args: P.args, **kwargs: P.kwargs) -> Any:
        if Builder.current() is None and any(
            isinstance(leaf, (Dim, SymbolicTensor)) for leaf in flatten((args, kwargs))
        ):
            return record(call, args, kwargs, body)
        return body(*args, **kwargs)

    FUNCTIONS[body.__name__] = call
    return call


def _any_symbolic(values: Any) -> bool:
    for value in values:
        kind = type(value)
        if kind is SymbolicTensor or kind is Dim:
            return True
        if kind in (list, tuple, dict) and any(isinstance(leaf, (SymbolicTensor, Dim)) for leaf in flatten(value)):
            return True
    return False


def tensor(x: Any, like: Any = None) -> Any:
    """`x` as a traced value or an array. A Python number takes the dtype of `like`."""
    if isinstance(x, (Value, np.ndarray)):
        return x
    if like is not None and type(x) in (bool, int, float, complex):
        x = np.asarray(x, weak_dtype(x, [dtype_of(like.dtype)]).numpy)
    builder = Builder.current()
    if builder is not None:
        return builder.value(x)
    convert = getattr(x, "__graphc_array__", None)
    array = np.asarray(x if convert is None else convert())
    if not hasattr(x, "dtype") and array.dtype != bool:
        array = array.astype({"i": np.int32, "u": np.int32, "f": np.float32}.get(array.dtype.kind, array.dtype))
    dtype_of(array.dtype)  # refuses text and objects
    return array


def kind(x: Any) -> DType:
    """The dtype of a tensor."""
    return dtype_of(x.dtype)


def inexact(x: Any) -> Any:
    """`x` as a tensor of floats or complex numbers: integers and bools become float32."""
    x = tensor(x)
    return x if kind(x).is_float or kind(x).is_complex else ir.convert(x, dtype=f32)


def counted(x: Any) -> Any:
    """`x` as a tensor of numbers: bools become int32."""
    x = tensor(x)
    return ir.convert(x, dtype=i32) if kind(x).is_bool else x


def truth(x: Any) -> Any:
    """`x` as a bool tensor: whether elements are not 0."""
    x = tensor(x)
    return x if kind(x).is_bool else ir.convert(x, dtype=bool_)


def axes_of(x: Any, axis: Any) -> tuple[int, ...]:
    """The axes that `axis` (None: all) names, counted from the front."""
    ndim = len(x.shape)
    given = range(ndim) if axis is None else (axis,) if isinstance(axis, (int, np.integer)) else axis
    return tuple(counted_axis(each, ndim) for each in given)


def counted_axis(axis: Any, ndim: int) -> int:
    """The axis counted from the front. Raises `ShapeError` if there is none."""
    if isinstance(axis, bool) or not isinstance(axis, (int, np.integer)) or not -ndim <= axis < ndim:
        raise ShapeError(f"axis {axis!r} is out of range for {ndim} axes")
    return int(axis) % ndim


def cast_back(y: Any, x: Any) -> Any:
    """`y` in the dtype of `x`."""
    return y if kind(y) is kind(x) else ir.convert(y, dtype=kind(x))
