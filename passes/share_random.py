"""`share_random`: numbers that a function draws twice from one key are drawn once and kept.

So it is with dropout, whose gradient needs the same mask: a bool for each element, where drawing it takes more than a
hundred operations. What runs again by a plan of memory (`partition`) draws again.
"""

from __future__ import annotations

from graphc.ir.graph import Block, Op, Value
from graphc.ir.module import Module
from graphc.ir.opdef import OPS, Composite
from graphc.ir.rewriter import Rewriter
from graphc.passes.partition.rewrite import group_of
from graphc.passes.registry import register_pass

DRAWS = frozenset({"random_bernoulli", "random_bits", "random_normal", "random_uniform"})
"""Ops whose only operand is a key."""


@register_pass("share_random")
def share_random(module: Module) -> None:
    """Draw what a function draws twice from one key once, such as dropout's mask for its gradient."""
    rewriter = Rewriter()
    for function in module.functions.values():
        _expand_dropout(function.block, rewriter)
        _merge(function.block, rewriter)
    rewriter.flush()


def _expand_dropout(block: Block, rewriter: Rewriter) -> None:
    """Show the masks of those dropouts whose keys others draw from."""
    for op in list(block):
        if op.definition is OPS["dropout"] and isinstance(op.definition, Composite) and group_of(op) is None:
            key = op.operands[1]
            assert key is not None
            if any(user is not op and user.block is block for user in key.uses or ()):
                rewriter.replace(op, *op.definition.expand(rewriter.before(op), op))


def _merge(block: Block, rewriter: Rewriter) -> None:
    first: dict[tuple[str, int, Value | None], Op] = {}
    for op in list(block):
        if op.name in DRAWS and group_of(op) is None:
            earlier = first.setdefault((op.name, id(op.attributes), op.operands[0]), op)  # attributes are interned
            if earlier is not op:
                rewriter.replace(op, *earlier.results)
