"""The groups of ops that run again, in the form that a target's own optimizer leaves alone.

Targets that run statement by statement need no barrier: `without_barriers`. What XLA needs is in `ties.py`.
"""

from __future__ import annotations

from graphc.ir.graph import operand_values
from graphc.ir.module import Module
from graphc.ir.rewriter import Rewriter
from graphc.passes.partition.rewrite import group_of


def without_barriers(module: Module) -> None:
    """Take the barriers of groups away, in place; what the groups read and when they run stays. Linear."""
    with Rewriter() as rewriter:
        for function in module.functions.values():
            for op in function.block:
                if op.name == "barrier" and group_of(op) is not None:
                    rewriter.replace(op, *operand_values(op))
