"""Ops that name functions of the module besides `call`: functions with a gradient of their own, and gradients that the
target's framework takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from graphc.ir.attributes import Attributes, FunctionRef
from graphc.ir.errors import DTypeError, GraphcError, ShapeError
from graphc.ir.graph import Function, Value
from graphc.ir.inference import require_equal
from graphc.ir.opdef import AnyTensor, Inferred, primitive
from graphc.ir.ops.control import infer_function
from graphc.ir.ops.structure import call
from graphc.ir.suggestions import number_of
from graphc.ir.types import TensorType

Functions = Mapping[str, Function]
Types = tuple[TensorType, ...]


@primitive
def custom_gradient(
    *arguments: AnyTensor, function: FunctionRef, gradient: FunctionRef, outputs: int, wrt: tuple[int, ...]
) -> tuple[TensorType, ...]:
    """Run `function`, whose gradient is what the function `gradient` computes.

    The first `outputs` results are what it is about, the rest residuals, through which no gradient flows. `gradient`
    takes the arguments, all results, and the cotangents of the outputs that are floats or complex, and returns the
    cotangents of the arguments that `wrt` counts.
    """
    raise GraphcError("custom_gradient refers to functions; build it with graphc.custom_gradient")


@primitive
def native_gradient(*arguments: AnyTensor, function: FunctionRef, wrt: tuple[int, ...]) -> tuple[TensorType, ...]:
    """Run `function`, and differentiate its first result, a real scalar, by the arguments that `wrt` counts, by what
    the target's framework has for that. Results: those of the function, then the gradients.

    Only torch and jax have it; the pass `own_gradients` replaces it by the IR's own gradient.
    """
    raise GraphcError("native_gradient refers to a function; graphc.passes.outline makes it")


def _call_types(functions: Functions, types: Types, attributes: Attributes) -> Inferred:
    found, guards = infer_function(functions[attributes[0]], types)
    return Inferred(attributes, found, guards)


def _custom_types(functions: Functions, types: Types, attributes: Attributes) -> Inferred:
    function, gradient, outputs, wrt = attributes
    found, guards = infer_function(functions[function], types)
    if not 0 < outputs <= len(found):
        raise GraphcError(f"@{function} has {number_of(len(found), 'result')}, {outputs} of them cannot be its outputs")
    _check_wrt(function, types, wrt)
    cotangents = tuple(type for type in found[:outputs] if _is_inexact(type))
    given, more = infer_function(functions[gradient], (*types, *found, *cotangents))
    if len(given) != len(wrt):
        found = number_of(len(given), "cotangent")
        raise GraphcError(f"the gradient @{gradient} returns {found} for {number_of(len(wrt), 'argument')}")
    for have, index in zip(given, wrt, strict=True):
        want = types[index]
        problem = f"the gradient @{gradient} returns {have} for an argument that is {want}"
        if have.dtype is not want.dtype:
            raise DTypeError(problem)
        if have.ndim != want.ndim:
            raise ShapeError(problem)
        for a, b in zip(have.shape, want.shape, strict=True):
            require_equal(a, b, problem)
    return Inferred(attributes, found, (*guards, *more))


def _native_types(functions: Functions, types: Types, attributes: Attributes) -> Inferred:
    function, wrt = attributes
    found, guards = infer_function(functions[function], types)
    if not found or found[0].shape != () or not found[0].dtype.is_float:
        raise ShapeError(f"a gradient is of a real scalar, @{function} returns {found[0] if found else 'nothing'}")
    _check_wrt(function, types, wrt)
    return Inferred(attributes, (*found, *(types[index] for index in wrt)), guards)


def _check_wrt(function: str, types: Types, wrt: Sequence[int]) -> None:
    for index in wrt:
        if not 0 <= index < len(types):
            has = number_of(len(types), "argument")
            raise GraphcError(f"@{function} has {has}; there is no number {index} to differentiate by")
        if not _is_inexact(types[index]):
            raise DTypeError(f"argument {index} of @{function} is {types[index]}; a gradient is by floats")


def _is_inexact(type: TensorType) -> bool:
    return type.dtype.is_float or type.dtype.is_complex


call.call_rule = _call_types
custom_gradient.call_rule = _custom_types
native_gradient.call_rule = _native_types


def inexact(values: Sequence[Value]) -> list[Value]:
    """Those of the values that are floats or complex."""
    return [value for value in values if _is_inexact(value.type)]


__all__ = ["custom_gradient", "inexact", "native_gradient"]
