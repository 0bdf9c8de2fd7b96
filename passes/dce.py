"""`dce`: remove ops that nothing reads, and what regions and private functions have in excess.

Signatures and weights stay: they are how users and checkpoints name things.
"""

from __future__ import annotations

from graphc.ir.graph import Block
from graphc.ir.module import Module
from graphc.ir.rewriter import Rewriter
from graphc.passes.calls import remove_unreachable
from graphc.passes.outline import trim_outlined
from graphc.passes.region_dce import trim_captures, trim_results
from graphc.passes.registry import register_pass


@register_pass("dce")
def dce(module: Module) -> None:
    """Remove ops, results of regions and private functions that nothing reads."""
    rewriter = Rewriter()
    for function in module.functions.values():
        sweep(function.block, rewriter)
    rewriter.flush()
    remove_unreachable(module)
    for function in trim_outlined(module, rewriter):
        sweep(function.block, rewriter)


def sweep(block: Block, rewriter: Rewriter) -> None:
    """Remove dead ops of a block and of the regions in it, from the end: readers go before what they read. Linear."""
    op = block.last
    if op is not None:
        op = op.prev  # the terminator stays
    while op is not None:
        before = op.prev
        for value in op.results:
            if value.uses:
                if op.regions:
                    op = trim_results(op, rewriter)
                    for region in op.regions:
                        sweep(region.block, rewriter)
                    trim_captures(op, rewriter)
                break
        else:
            if not op.definition.has_effect:
                rewriter.erase(op)
        op = before
