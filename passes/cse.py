"""`cse`: of ops that compute the same, keep the first.

Ops of one scope are merged. Across scopes, which are the classes of emitted code, only when it saves much: an op that
two layers share belongs to neither, so merging cheap ones would dissolve the classes.
"""

from __future__ import annotations

from typing import Any

from graphc.ir.analysis.cost import op_cost
from graphc.ir.dims import evaluate
from graphc.ir.dims import symbols as symbols_of
from graphc.ir.graph import Block, Op
from graphc.ir.location import Scope
from graphc.ir.module import Module
from graphc.ir.opdef import OPS
from graphc.ir.rewriter import Rewriter
from graphc.passes.patterns import COMMUTATIVE
from graphc.passes.registry import register_pass

_KEPT = ("return", "yield", "barrier", "assume_dim")


@register_pass("cse")
def cse(module: Module, across_scopes: int = 1_000_000) -> None:
    """Merge ops that compute the same in one scope; `across_scopes`: in different ones if this many FLOPs are saved."""
    merge_common(module, across_scopes)


def merge_common(module: Module, across_scopes: int) -> int:
    """Merge ops that compute the same; returns how many went. Linear."""
    rewriter = Rewriter()
    excluded = frozenset(OPS[name].op_class for name in _KEPT)
    swapped = frozenset(OPS[name].op_class for name in COMMUTATIVE)
    count = 0
    for function in module.functions.values():
        blocks = [function.block]
        for block in blocks:
            count += _merge_block(block, blocks, rewriter, excluded, swapped, across_scopes)
    rewriter.flush()
    return count


def _merge_block(
    block: Block,
    blocks: list[Block],
    rewriter: Rewriter,
    excluded: frozenset[type[Op]],
    swapped: frozenset[type[Op]],
    across: int,
) -> int:
    first: dict[tuple[Any, ...], Op] = {}
    in_scope: dict[tuple[Any, Scope], Op] = {}  # of ops that came first in another scope
    count = 0
    op = block.first
    while op is not None:
        following = op.next
        kind = op.__class__
        if op.regions:
            blocks.extend(region.block for region in op.regions)
        elif kind not in excluded:
            operands = op.operands
            if kind in swapped and id(operands[0]) > id(operands[1]):
                operands = (operands[1], operands[0])
            key = (kind, id(op.attributes), operands)
            earlier = first.setdefault(key, op)
            if earlier is not op:
                earlier = _mergeable(op, earlier, key, in_scope, across)
                if earlier is not None:
                    rewriter.replace(op, *earlier.results)
                    count += 1
        op = following
    return count


def _mergeable(
    op: Op, earlier: Op, key: tuple[Any, ...], in_scope: dict[tuple[Any, Scope], Op], across: int
) -> Op | None:
    """The op to take instead of `op`: an earlier one of the same scope, or of any if that saves much."""
    if op.definition.has_effect:
        return None
    scope = op.location.scope
    if earlier.location.scope is scope:
        return earlier
    if saved_flops(op) >= across:
        return earlier
    same = in_scope.setdefault((key, scope), op)
    return None if same is op else same


def saved_flops(op: Op) -> int:
    """What an op costs when every symbol is as small as it may be."""
    flops = op_cost(op).flops
    return flops if isinstance(flops, int) else evaluate(flops, {s.name: max(1, s.minimum) for s in symbols_of(flops)})
