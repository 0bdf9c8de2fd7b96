"""What torch's autograd can take the gradient of: ops are spelled so that it does, where it is asked to."""

from __future__ import annotations

from collections.abc import Callable

from graphc.ir.graph import Op
from graphc.ir.module import Module
from graphc.ir.opdef import OPS, Composite
from graphc.ir.rewriter import Rewriter


def make_differentiable(module: Module, supports: Callable[[Op], bool]) -> None:
    """Decompose, in functions that `native_gradient` names, what torch has no gradient of: batch normalization by
    statistics that are computed there, as `F.batch_norm` has none by these, and gradients that are composites."""
    native = OPS["native_gradient"].op_class
    rewriter = Rewriter()
    for name in dict.fromkeys(str(op.attributes[0]) for op in module.walk() if op.__class__ is native):
        pending = True
        while pending:
            pending = False
            for op in list(module.functions[name].walk()):
                definition = op.definition
                if isinstance(definition, Composite) and (_lacks_gradient(op) or not supports(op)):
                    rewriter.replace(op, *definition.expand(rewriter.before(op), op))
                    pending = True
    rewriter.flush()


def _lacks_gradient(op: Op) -> bool:
    if op.name == "batch_norm":
        return any(value is not None and value.op is not None for value in op.operands[1:3])
    return "_gradient" in op.name  # those of attention, SiLU, batch normalization


__all__ = ["make_differentiable"]
