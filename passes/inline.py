"""`inline`: replace calls of private functions by the functions' bodies."""

from __future__ import annotations

from graphc.ir.binding import bind_symbols
from graphc.ir.cloning import inline_function
from graphc.ir.graph import Op, Value
from graphc.ir.module import Module
from graphc.ir.opdef import OPS
from graphc.ir.rewriter import Rewriter
from graphc.passes.calls import callees_first, remove_unreachable
from graphc.passes.registry import register_pass


@register_pass("inline")
def inline(module: Module) -> None:
    """Replace calls of private functions by the functions' bodies; what nothing calls any more is removed."""
    call = OPS["call"].op_class
    rewriter = Rewriter()
    for function in callees_first(module):  # what is inlined has nothing left to inline
        calls = [op for op in function.walk() if op.__class__ is call]
        for op in calls:
            if not module.functions[op.attributes[0]].public:
                inline_call(op, module, rewriter)
    rewriter.flush()
    remove_unreachable(module)


def inline_call(op: Op, module: Module, rewriter: Rewriter) -> None:
    """Replace one call by a copy of what it calls. Locations of the copy go below the call's scope."""
    callee = module.functions[op.attributes[0]]
    arguments = [v for v in op.operands if v is not None]
    bindings = bind_symbols(callee, [v.type.shape for v in arguments])
    values: list[Value] = inline_function(rewriter.before(op), callee, arguments, bindings)
    rewriter.replace(op, *values)
