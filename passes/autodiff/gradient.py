"""`grad` and `value_and_grad` of an entry: its joint graph as a new function of the module."""

from __future__ import annotations

from collections.abc import Sequence

from graphc.ir.builder import Builder
from graphc.ir.cloning import clone_function
from graphc.ir.errors import DTypeError, GraphcError, ShapeError
from graphc.ir.graph import Block, Function, Result, Value
from graphc.ir.module import Module
from graphc.ir.rewriter import Rewriter
from graphc.passes.autodiff.activity import is_inexact
from graphc.passes.autodiff.joint import Differentiator, end_of, zeros
from graphc.passes.outline import outline_gradient


def differentiate(
    module: Module,
    entry: str | None = None,
    wrt: Sequence[str] | None = None,
    name: str = "value_and_grad",
    gradients: str = "ir",
) -> Function:
    """Add a function that returns the first result of `entry`, a real scalar, and its gradient by parameters.

    `wrt` names parameters or weights (None: all parameters of role `param` with an inexact dtype); gradients come in
    that order, zeros where the result does not depend on one. Other results of the entry follow the gradients. With
    `gradients="native"` the target's framework takes them, which only torch and jax can.
    Raises `GraphcError` for an unknown name, `ShapeError` for a result that is no scalar.
    """
    check_gradients(gradients)
    source = module.entry(entry)
    chosen = _chosen(source, wrt)
    loss = source.outputs[0]
    if loss.shape != () or not loss.dtype.is_float:
        raise ShapeError(f"@{source.name} returns {loss.type} first; a gradient is of a real scalar")
    function = clone_function(source, module, name)
    values = [function.block.parameters[i] for i in chosen]
    found = gradients_in(module, function.block, function.outputs[0], values, gradients=gradients)
    terminator = function.block.terminator
    outputs = [v for v in terminator.operands if v is not None]
    Rewriter().set_operands(terminator, [outputs[0], *found, *outputs[1:]])
    results = list(function.results)
    named = [Result(f"{value.name}_gradient") for value in values]
    function.results = [results[0], *named, *results[1:]]
    return function


def gradients_in(
    module: Module,
    block: Block,
    loss: Value,
    wrt: Sequence[Value],
    function: Function | None = None,
    gradients: str = "ir",
) -> list[Value]:
    """Append to a block, which may still be recorded, the gradients of `loss` by `wrt`, zeros where there is none.

    Values of the block that code holds stay valid. Raises as `Differentiator.gradients` and `outline_gradient`.
    """
    if gradients == "native":
        found = outline_gradient(module, block, loss, wrt, function)
    else:
        found = Differentiator(module).gradients(block, loss, wrt, function)
    with Builder(block, end_of(block), function=function or block.function):
        return [zeros(value) if each is None else each for value, each in zip(wrt, found, strict=True)]


def check_gradients(gradients: str) -> None:
    """Raise `GraphcError` for what is no way to take gradients."""
    if gradients not in ("ir", "native"):
        raise GraphcError(f"gradients are taken by 'ir' or by 'native', the framework's own, not by {gradients!r}")


def _chosen(function: Function, wrt: Sequence[str] | None) -> list[int]:
    parameters = function.parameters
    if wrt is None:
        return [i for i, p in enumerate(parameters) if p.role == "param" and is_inexact(p.value)]
    chosen: list[int] = []
    numbers = {p.weight: i for i, p in enumerate(parameters) if p.weight is not None}
    numbers |= {p.name: i for i, p in enumerate(parameters)}
    for name in wrt:
        found = numbers.get(name)
        if found is None:
            known = ", ".join(p.weight or p.name for p in parameters)
            raise GraphcError(f"@{function.name} has no parameter {name!r}; it has {known}")
        if not is_inexact(parameters[found].value):
            raise DTypeError(f"{name!r} is {parameters[found].type}; a gradient is by floating-point parameters")
        chosen.append(found)
    return chosen
