"""What torch's autograd can take the gradient of: ops are spelled so that it does, where it is asked to."""

from __future__ import annotations

from graphc.ir.module import Module
from graphc.ir.opdef import OPS, Composite
from graphc.ir.rewriter import Rewriter


def make_differentiable(module: Module) -> None:
    """Decompose, in functions that `native_gradient` names, batch normalization by statistics that are computed there:
    `F.batch_norm` has no gradient by its mean and variance."""
    native, norm = OPS["native_gradient"].op_class, OPS["batch_norm"]
    assert isinstance(norm, Composite)
    rewriter = Rewriter()
    names = dict.fromkeys(str(op.attributes[0]) for op in module.walk() if op.__class__ is native)
    for name in names:
        for op in list(module.functions[name].walk()):
            statistics = op.operands[1:3]
            if op.definition is norm and any(value is not None and value.op is not None for value in statistics):
                rewriter.replace(op, *norm.expand(rewriter.before(op), op))
    rewriter.flush()


__all__ = ["make_differentiable"]
