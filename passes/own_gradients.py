"""`own_gradients`: gradients that a framework was to take, taken by the IR, so that they run anywhere."""

from __future__ import annotations

from graphc.ir.builder import Builder
from graphc.ir.cloning import clone_function
from graphc.ir.graph import Function, Result
from graphc.ir.module import Module
from graphc.ir.ops.control import call_function
from graphc.ir.ops.functions import native_gradient
from graphc.ir.rewriter import Rewriter
from graphc.passes.autodiff.joint import Differentiator, zeros
from graphc.passes.registry import register_pass


@register_pass("own_gradients")
def own_gradients(module: Module) -> None:
    """Replace `native_gradient` by a call of the function with the IR's own gradient appended."""
    rewriter = Rewriter()
    made: dict[object, Function] = {}
    for op in [op for op in module.walk() if op.__class__ is native_gradient.op_class]:
        name, wrt = op.attributes
        if op.attributes not in made:
            made[op.attributes] = _with_gradient(module, module.functions[name], wrt)
        arguments = [value for value in op.operands if value is not None]
        results = call_function(rewriter.before(op), made[op.attributes], arguments, op.location)
        rewriter.replace(op, *results)
    rewriter.flush()


def _with_gradient(module: Module, function: Function, wrt: tuple[int, ...]) -> Function:
    found = clone_function(function, module, module.free_name(f"{function.name}_and_gradient"))
    wanted = [found.block.parameters[i] for i in wrt]
    differentiator = Differentiator(module)
    loss = found.outputs[0]
    gradients = differentiator.gradients(found.block, loss, wanted)
    terminator = found.block.terminator
    with Builder(found.block, terminator):
        values = [zeros(value) if each is None else each for value, each in zip(wanted, gradients, strict=True)]
    differentiator.rewriter.set_operands(terminator, [*terminator.operands, *values])
    found.results += [Result() for _ in values]
    return found
