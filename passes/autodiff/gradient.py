"""`grad` and `value_and_grad` of an entry: its joint graph as a new function of the module."""

from __future__ import annotations

from collections.abc import Sequence

from graphc.ir import ops
from graphc.ir.builder import Builder
from graphc.ir.cloning import clone_function
from graphc.ir.errors import GraphcError, ShapeError
from graphc.ir.graph import Function, Result
from graphc.ir.module import Module
from graphc.passes.autodiff.activity import is_inexact
from graphc.passes.autodiff.joint import Differentiator, zeros


def differentiate(
    module: Module, entry: str | None = None, wrt: Sequence[str] | None = None, name: str = "value_and_grad"
) -> Function:
    """Add a function that returns the first result of `entry`, a real scalar, and its gradient by parameters.

    `wrt` names parameters or weights (None: all parameters of role `param` with an inexact dtype); gradients come in
    that order, zeros where the result does not depend on one. Other results of the entry follow the gradients.
    Raises `GraphcError` for an unknown name, `ShapeError` for a result that is no scalar.
    """
    source = module.entry(entry)
    chosen = _chosen(module, source, wrt)
    function = clone_function(source, module, name)
    loss = function.outputs[0]
    if loss.shape != () or not loss.dtype.is_float:
        raise ShapeError(f"@{source.name} returns {loss.type} first; a gradient is of a real scalar")
    values = [function.block.parameters[i] for i in chosen]
    differentiator = Differentiator(module)
    terminator = function.block.terminator
    with Builder(function.block, terminator):
        seed = ops.constant(value=1.0, dtype=loss.dtype)
    found = differentiator.backward(function.block, [(loss, seed)], values)
    with Builder(function.block, terminator):
        gradients = [zeros(value) if each is None else each for value, each in zip(values, found, strict=True)]
    outputs = [v for v in terminator.operands if v is not None]
    differentiator.rewriter.set_operands(terminator, [outputs[0], *gradients, *outputs[1:]])
    results = list(function.results)
    named = [Result(f"{value.name}_gradient") for value in values]
    function.results = [results[0], *named, *results[1:]]
    return function


def _chosen(module: Module, function: Function, wrt: Sequence[str] | None) -> list[int]:
    parameters = function.parameters
    if wrt is None:
        return [i for i, p in enumerate(parameters) if p.role == "param" and is_inexact(p.value)]
    chosen: list[int] = []
    for name in wrt:
        found = [i for i, p in enumerate(parameters) if name in (p.name, p.weight)]
        if not found:
            known = ", ".join(p.weight or p.name for p in parameters)
            raise GraphcError(f"@{function.name} has no parameter {name!r}; it has {known}")
        if not is_inexact(parameters[found[0]].value):
            raise GraphcError(f"{name!r} is {parameters[found[0]].type}; a gradient is by floating-point parameters")
        chosen.append(found[0])
    return chosen
