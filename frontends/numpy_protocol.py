"""NumPy's functions on traced values, variables and symbolic tensors: each is the function of `graphc.ops` it means."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np

from graphc.frontends import ops
from graphc.ir import ops as ir
from graphc.ir.dtypes import dtype as dtype_of
from graphc.ir.errors import UnsupportedError
from graphc.ir.graph import Value

_UFUNCS: dict[np.ufunc, Callable[..., Any]] = {
    np.add: ops.add, np.subtract: ops.subtract, np.multiply: ops.multiply, np.divide: ops.divide,
    np.floor_divide: ops.floor_divide, np.remainder: ops.mod, np.power: ops.power, np.float_power: ops.power,
    np.matmul: ops.matmul, np.maximum: ops.maximum, np.minimum: ops.minimum, np.arctan2: ops.arctan2,
    np.fmod: ir.rem, np.logaddexp: ops.logaddexp,
    np.equal: ops.equal, np.not_equal: ops.not_equal, np.less: ops.less, np.less_equal: ops.less_equal,
    np.greater: ops.greater, np.greater_equal: ops.greater_equal,
    np.logical_and: ops.logical_and, np.logical_or: ops.logical_or, np.logical_xor: ops.logical_xor,
    np.logical_not: ops.logical_not, np.bitwise_and: ops.bitwise_and, np.bitwise_or: ops.bitwise_or,
    np.bitwise_xor: ops.bitwise_xor, np.invert: ops.bitwise_not, np.left_shift: ops.left_shift,
    np.right_shift: ops.right_shift,
    np.negative: ops.negative, np.positive: lambda x: x, np.absolute: ops.absolute, np.fabs: ops.absolute,
    np.sign: ops.sign, np.square: ops.square, np.sqrt: ops.sqrt, np.reciprocal: ops.reciprocal,
    np.exp: ops.exp, np.exp2: ops.exp2, np.expm1: ops.expm1, np.log: ops.log, np.log1p: ops.log1p,
    np.log2: ops.log2, np.log10: ops.log10,
    np.sin: ops.sin, np.cos: ops.cos, np.tan: ops.tan, np.arcsin: ops.arcsin, np.arccos: ops.arccos,
    np.arctan: ops.arctan, np.sinh: ops.sinh, np.cosh: ops.cosh, np.tanh: ops.tanh, np.arcsinh: ops.arcsinh,
    np.arccosh: ops.arccosh, np.arctanh: ops.arctanh,
    np.floor: ops.floor, np.ceil: ops.ceil, np.trunc: ops.trunc, np.rint: ops.round,
    np.isnan: ops.isnan, np.isinf: ops.isinf, np.isfinite: ops.isfinite, np.conjugate: ops.conjugate,
}  # fmt: skip

_REDUCTIONS: dict[np.ufunc, Callable[..., Any]] = {
    np.add: ops.sum, np.multiply: ops.prod, np.maximum: ops.max, np.minimum: ops.min,
    np.logical_and: ops.all, np.logical_or: ops.any,
}  # fmt: skip


def _clip(a: Any, a_min: Any = None, a_max: Any = None, *, min: Any = None, max: Any = None) -> Any:
    low, high = a_min if min is None else min, a_max if max is None else max
    a = a if low is None else ops.maximum(a, low)
    return a if high is None else ops.minimum(a, high)


def _averaging(function: Callable[..., Any]) -> Callable[..., Any]:
    def reduce(a: Any, axis: Any = None, dtype: Any = None, *, ddof: int = 0, keepdims: bool = False) -> Any:
        if ddof:
            raise UnsupportedError(f"ddof={ddof} is not supported: variances are divided by the count")
        return function(a if dtype is None else ops.cast(a, dtype), axis=axis, keepdims=keepdims)

    return reduce


def _summing(function: Callable[..., Any]) -> Callable[..., Any]:
    def reduce(a: Any, axis: Any = None, dtype: Any = None, *, keepdims: bool = False) -> Any:
        return function(a if dtype is None else ops.cast(a, dtype), axis=axis, keepdims=keepdims)

    return reduce


def _plain(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda a, axis=None, *, keepdims=False: function(a, axis=axis, keepdims=keepdims)


_FUNCTIONS: dict[Any, Callable[..., Any]] = {
    np.sum: _summing(ops.sum), np.prod: _summing(ops.prod), np.mean: _averaging(ops.mean), np.var: _averaging(ops.var),
    np.std: _averaging(ops.std), np.max: _plain(ops.max), np.min: _plain(ops.min), np.amax: _plain(ops.max),
    np.amin: _plain(ops.min), np.all: _plain(ops.all), np.any: _plain(ops.any),
    np.argmax: _plain(ops.argmax), np.argmin: _plain(ops.argmin), np.cumsum: ops.cumsum,
    np.count_nonzero: ops.count_nonzero,
    np.where: ops.where, np.clip: _clip, np.round: ops.round, np.around: ops.round, np.nan_to_num: ops.nan_to_num,
    np.real: ops.real, np.imag: ops.imag,
    np.reshape: lambda a, shape: ops.reshape(a, shape), np.ravel: ops.ravel, np.transpose: ops.transpose,
    np.swapaxes: ops.swapaxes, np.moveaxis: ops.moveaxis, np.squeeze: ops.squeeze, np.expand_dims: ops.expand_dims,
    np.broadcast_to: ops.broadcast_to, np.flip: ops.flip, np.pad: ops.pad, np.tile: ops.tile, np.repeat: ops.repeat,
    np.concatenate: lambda xs, axis=0: ops.concatenate(xs, axis=axis), np.stack: lambda xs, axis=0: ops.stack(xs, axis),
    np.hstack: ops.hstack, np.vstack: ops.vstack, np.split: ops.split, np.take: ops.take, np.tril: ops.tril,
    np.triu: ops.triu,
    np.dot: ops.dot, np.tensordot: ops.tensordot, np.outer: ops.outer, np.einsum: ops.einsum,
    np.linalg.norm: ops.norm, np.shape: ops.shape, np.ndim: ops.ndim, np.size: ops.size,
    np.zeros_like: ops.zeros_like, np.ones_like: ops.ones_like, np.full_like: ops.full_like,
    np.astype: lambda x, dtype, copy=True: ops.cast(x, dtype),
}  # fmt: skip


def _transposed(a: Any, *axes: Any) -> Any:
    return ops.transpose(a, axes[0] if len(axes) == 1 and not isinstance(axes[0], int) else axes or None)


_METHODS: dict[str, Callable[..., Any]] = {
    **{name: _FUNCTIONS[getattr(np, name)] for name in (
        "sum", "prod", "mean", "var", "std", "max", "min", "all", "any", "argmax", "argmin", "cumsum",
        "round", "clip", "ravel", "squeeze", "swapaxes", "repeat", "take", "dot",
    )},
    "flatten": ops.ravel, "transpose": _transposed, "conj": ops.conjugate, "copy": lambda a: a,
}  # fmt: skip
"""Methods of NumPy's arrays that traced values have too; `reshape`, `astype` and `T` come with the operators."""


def call_ufunc(ufunc: np.ufunc, method: str, inputs: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What a ufunc does to operands of which one is a tensor of graphc's."""
    if method == "__call__":
        return _called(_UFUNCS.get(ufunc), f"np.{ufunc.__name__}", inputs, kwargs)
    if method == "reduce":
        kwargs.setdefault("axis", 0)
        return _called(_REDUCTIONS.get(ufunc), f"np.{ufunc.__name__}.reduce", inputs, kwargs)
    raise UnsupportedError(f"np.{ufunc.__name__}.{method} is not supported on traced values")


def call_function(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What a NumPy function does to arguments of which one is a tensor of graphc's."""
    name = f"np.{function.__module__.removeprefix('numpy').strip('.')}.{function.__name__}".replace("..", ".")
    return _called(_FUNCTIONS.get(function), name, args, kwargs)


def _called(function: Callable[..., Any] | None, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if function is None:
        raise UnsupportedError(f"{name} is not supported on traced values; see graphc.ops for what is")
    dtype = kwargs.pop("dtype", None) if function in _UFUNC_FUNCTIONS else None
    given = {key: value for key, value in kwargs.items() if not _is_default(key, value)}
    try:
        found = function(*args, **given)
    except TypeError as error:
        problem = re.sub(r"^[\w.<>]+\(\) ", "", str(error))  # without the name of our function
        raise UnsupportedError(f"{name} on traced values: {problem}") from error
    return found if dtype is None else ops.cast(found, dtype_of(dtype))


_UFUNC_FUNCTIONS = set(_UFUNCS.values())


def _is_default(key: str, value: Any) -> bool:
    """Whether a keyword argument of NumPy's says what is so anyway."""
    return (
        (key in ("out", "initial") and (value is None or (isinstance(value, tuple) and value[0] is None)))
        or value is np._NoValue  # type: ignore[attr-defined]
        or (key == "where" and value is True)
        or (key in ("casting", "order", "subok", "copy"))
    )


def _array_ufunc(self: Value, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
    return call_ufunc(ufunc, method, inputs, kwargs)


def _array_function(self: Value, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
    return call_function(function, args, kwargs)


def _method(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    def method(self: Value, *args: Any, **kwargs: Any) -> Any:
        return _called(function, f"the method {name}", (self, *args), kwargs)

    method.__name__ = name
    method.__doc__ = f"What `numpy.ndarray.{name}` computes."
    return method


def install() -> None:
    """Give traced values NumPy's protocols and the methods of its arrays."""
    for name, function in _METHODS.items():
        setattr(Value, name, _method(name, function))
    Value.__array_ufunc__ = _array_ufunc  # type: ignore[attr-defined]
    Value.__array_function__ = _array_function  # type: ignore[attr-defined]
