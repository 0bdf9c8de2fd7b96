"""`cse`: of ops that compute the same, keep the first.

An op one of whose operands nothing else reads has no twin; only others are looked up. Ops of one scope are merged.
Across scopes, which are the classes of emitted code, only when it saves much: an op that two layers share belongs to
neither, so merging cheap ones would dissolve the classes.
"""

from __future__ import annotations

from graphc.ir.analysis.cost import op_cost
from graphc.ir.dims import evaluate
from graphc.ir.dims import symbols as symbols_of
from graphc.ir.graph import Block, Op, Value
from graphc.ir.location import Scope
from graphc.ir.module import Module
from graphc.ir.opdef import OPS
from graphc.ir.rewriter import Rewriter
from graphc.passes.patterns import COMMUTATIVE
from graphc.passes.registry import register_pass

_Key = tuple[type[Op], int, tuple[Value | None, ...]]
"""Kind, identity of the interned attributes, operands."""

ACROSS_SCOPES = 1_000_000
"""FLOPs that merging two ops of different scopes has to save."""

_KEPT = ("return", "yield", "barrier", "assume_dim")


@register_pass("cse")
def cse(module: Module, across_scopes: int = ACROSS_SCOPES) -> None:
    """Merge ops that compute the same in one scope; `across_scopes`: in different ones if this many FLOPs are saved."""
    merge_common(module, across_scopes)


def merge_common(module: Module, across_scopes: int) -> int:
    """Merge ops that compute the same; returns how many went. Linear."""
    merger = _Merger(across_scopes)
    for function in module.functions.values():
        blocks = [function.block]
        for block in blocks:
            merger.block(block, blocks)
    merger.rewriter.flush()
    return merger.count


class _Merger:
    def __init__(self, across_scopes: int) -> None:
        self.rewriter = Rewriter()
        self.across_scopes = across_scopes
        self.kept = frozenset(OPS[name].op_class for name in _KEPT)
        # Of 0 and −0 a maximum is the one that the order decides.
        self.swapped = frozenset(OPS[name].op_class for name in COMMUTATIVE - {"maximum", "minimum"})
        self.count = 0

    def block(self, block: Block, blocks: list[Block]) -> None:
        """Merge within a block; regions met are added to `blocks`."""
        first: dict[_Key, Op] = {}
        in_scope: dict[tuple[_Key, Scope], Op] = {}  # of ops that came first in another scope
        kept = self.kept
        op = block.first
        while op is not None:
            following = op.next
            if op.regions:
                blocks.extend(region.block for region in op.regions)
            elif op.__class__ not in kept:
                for value in op.operands:
                    if value is not None and len(value.uses or ()) == 1:
                        break
                else:
                    self.look_up(op, first, in_scope)
            op = following

    def look_up(self, op: Op, first: dict[_Key, Op], in_scope: dict[tuple[_Key, Scope], Op]) -> None:
        key = self.key(op)
        earlier = first.setdefault(key, op)
        if earlier is op or op.definition.has_effect:
            return
        scope = op.location.scope
        if earlier.location.scope is not scope and saved_flops(op) < self.across_scopes:
            earlier = in_scope.setdefault((key, scope), op)
            if earlier is op:
                return
        for result in earlier.results:
            # The only reader of a value was passed over; now the value gets more, and the reader may have a twin.
            if result.uses is not None and len(result.uses) == 1:
                (reader,) = result.uses
                if reader.order < op.order and not reader.regions and reader.__class__ not in self.kept:
                    twin = first.setdefault(self.key(reader), reader)
                    if twin is not reader:
                        in_scope.setdefault((self.key(reader), reader.location.scope), reader)
        self.rewriter.replace(op, *earlier.results)
        self.count += 1

    def key(self, op: Op) -> _Key:
        operands = op.operands
        if op.__class__ in self.swapped and id(operands[0]) > id(operands[1]):
            operands = (operands[1], operands[0])
        return op.__class__, id(op.attributes), operands


def saved_flops(op: Op) -> int:
    """What an op costs when every symbol is as small as it may be."""
    flops = op_cost(op).flops
    return flops if isinstance(flops, int) else evaluate(flops, {s.name: max(1, s.minimum) for s in symbols_of(flops)})
