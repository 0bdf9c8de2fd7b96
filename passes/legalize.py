"""Legalisation: from what a module has to what a target has.

A worklist from the top: an op that the target supports is kept, a composite that it does not support is replaced by its
decomposition, whose ops are looked at again, and a call by what it calls. What is left over is reported all at once.
"""

from __future__ import annotations

from collections.abc import Callable

from graphc.ir.errors import UnsupportedError
from graphc.ir.graph import Block, Op
from graphc.ir.module import Module
from graphc.ir.opdef import OPS, Composite
from graphc.ir.rewriter import Rewriter
from graphc.passes.calls import callees_first, references, remove_unreachable
from graphc.passes.inline import inline_call
from graphc.passes.registry import register_pass

_NATIVE = 'native_gradient: only torch and jax have a gradient of their own; leave `gradients="native"` out'
Supports = Callable[[Op], bool]

PLACES = 3
"""So many places are named for each op that is lacking."""


def legalize(module: Module, supports: Supports, target_name: str = "the target") -> bool:
    """Decompose, in place, what `supports` does not take; it is asked about every op but `return` and `yield`.

    Private functions that are reached no longer are removed. Raises `UnsupportedError` that lists everything that is
    neither supported nor decomposes, with types and places; the module is then half legal. Linear in the result.
    Returns whether a composite was decomposed.
    """
    callees_first(module)  # recursion would be inlined without end
    legalizer = _Legalizer(module, supports)
    legalizer.run()
    if legalizer.lacking:
        raise UnsupportedError(_report(legalizer.lacking, target_name))
    remove_unreachable(module)
    return legalizer.expanded


@register_pass("decompose")
def decompose(module: Module, only: str = "") -> None:
    """Replace composites by their decompositions, down to primitives; `only` keeps all but those of one name."""
    legalize(module, lambda op: not op.definition.is_composite or (only != "" and op.name != only))


class _Legalizer:
    def __init__(self, module: Module, supports: Supports) -> None:
        self.module = module
        self.supports = supports
        self.rewriter = Rewriter()
        self.lacking: dict[str, list[str]] = {}
        self.expanded = False
        self.made_from: dict[Op, str] = {}  # op of a decomposition → the composite it stands in

    def run(self) -> None:
        pending = [name for name, function in self.module.functions.items() if function.public]
        seen = set(pending)
        while pending:
            function = self.module.functions[pending.pop()]
            for name in self.block(function.block):
                if name not in seen and name in self.module.functions:
                    seen.add(name)
                    pending.append(name)
        self.rewriter.flush()

    def block(self, block: Block) -> dict[str, None]:
        """Legalise a block and the regions in it; returns the functions it still refers to."""
        named: dict[str, None] = {}
        inlined = (OPS["call"].op_class, OPS["custom_gradient"].op_class)
        supports = self.supports
        op = block.first
        while op is not None and op.next is not None:
            following = op.next
            if supports(op):
                named.update(dict.fromkeys(references(op)))
                for region in op.regions:
                    named.update(self.block(region.block))
            elif isinstance(op.definition, Composite):
                following = self.expand(op, op.definition)
            elif op.__class__ in inlined:
                self.expanded |= op.__class__ is inlined[1]  # nothing may read its residuals
                before = op.prev
                inline_call(op, self.module, self.rewriter)
                following = block.first if before is None else before.next
            else:
                self.report(op)
            op = following
        return named

    def expand(self, op: Op, definition: Composite[..., object]) -> Op | None:
        """Replace a composite by its decomposition; returns the first op to look at next."""
        self.expanded = True
        block, before, after = op.block, op.prev, op.next
        values = definition.expand(self.rewriter.before(op), op)
        name = self.made_from.pop(op, definition.name)
        self.rewriter.replace(op, *values)
        first = block.first if before is None else before.next
        new = first
        while new is not None and new is not after:
            self.made_from[new] = name
            new = new.next
        return first

    def report(self, op: Op) -> None:
        if op.name == "native_gradient":
            self.lacking.setdefault(_NATIVE, []).append("")
            return
        operands = ", ".join("_" if v is None else str(v.type) for v in op.operands)
        results = ", ".join(str(v.type) for v in op.results)
        place = f"at {op.location}" if str(op.location) else ""
        if op in self.made_from:
            place = f"in {self.made_from[op]} {place}".rstrip()
        self.lacking.setdefault(f"{op.name}({operands}) -> {results}", []).append(place)


def _report(lacking: dict[str, list[str]], target_name: str) -> str:
    lines = [f"{target_name} lacks these ops, which do not decompose; `graphc ops NAME` shows which targets have one:"]
    for signature, places in lacking.items():
        distinct = list(dict.fromkeys(place for place in places if place))
        shown = "; ".join(distinct[:PLACES])
        more = f" and {len(distinct) - PLACES} more places" if len(distinct) > PLACES else ""
        lines.append(f"  {signature}" + (f" {shown}{more}" if shown else ""))
    return "\n".join(lines)
