"""FLOPs and bytes moved, of an op or of a function, as symbolic sizes.

FLOPs are what an op's own rule says (`@op.flops`), for a composite without one the sum over its decomposition, else one
for each element of the results. Bytes are those of the operands read and of the results written, each once, as a
perfectly fused kernel would move them: a lower bound for each op, and nothing for ops that only rename.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from graphc.ir.analysis.liveness import VIEWS, type_bytes
from graphc.ir.binding import bind_symbols
from graphc.ir.dims import Dim, Size, maximum, product, substitute, sum_of
from graphc.ir.graph import Block, Function, Op, operand_values
from graphc.ir.opdef import Composite


@dataclass(frozen=True, slots=True)
class Cost:
    """`flops`, and `bytes` read and written. Not `exact` where a `while` counts for one pass."""

    flops: Size = 0
    bytes: Size = 0
    exact: bool = True

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.flops + other.flops, self.bytes + other.bytes, self.exact and other.exact)

    def times(self, count: Size) -> Cost:
        return Cost(self.flops * count, self.bytes * count, self.exact)

    def substitute(self, bindings: dict[Dim, Size]) -> Cost:
        return Cost(substitute(self.flops, bindings), substitute(self.bytes, bindings), self.exact)


def total(costs: Iterable[Cost]) -> Cost:
    """The sum of costs."""
    listed = list(costs)
    return Cost(
        sum_of(cost.flops for cost in listed), sum_of(cost.bytes for cost in listed), all(cost.exact for cost in listed)
    )


def function_cost(function: Function) -> Cost:
    """The cost of running `function` once. Functions that it calls are costed once for each set of sizes."""
    return _block_cost(function.block, {})


def op_cost(op: Op) -> Cost:
    """The cost of one op, regions and called functions included.

    A `scan` costs its body for each of its steps, a `cond` as much as its dearest branch in each measure, a `while` one
    pass of its condition and its body (`Cost.exact` is then False).
    """
    return _op_cost(op, {})


_Known = dict[Function, Cost]


def _block_cost(block: Block, known: _Known) -> Cost:
    return total(_op_cost(op, known) for op in block if op.next is not None)


def _op_cost(op: Op, known: _Known) -> Cost:
    name = op.name
    if op.regions:
        bodies = [_block_cost(region.block, known) for region in op.regions]
        if name == "scan":
            return bodies[0].times(op.attribute_dict["length"])
        if name == "cond":
            return Cost(
                maximum(*(body.flops for body in bodies)),
                maximum(*(body.bytes for body in bodies)),
                all(body.exact for body in bodies),
            )
        return Cost(total(bodies).flops, total(bodies).bytes, exact=False)
    if op.definition.call_rule is not None:
        return _call_cost(op, known)
    if name in VIEWS or name == "constant":
        return Cost()
    moved = sum_of(type_bytes(value.type) for value in (*dict.fromkeys(operand_values(op)), *op.results))
    return Cost(_flops(op, known), moved)


def _flops(op: Op, known: _Known) -> Size:
    definition = op.definition
    types = tuple(None if value is None else value.type for value in op.operands)
    if definition.flops_rule is not None:
        return definition.flops_rule(*types, **op.attribute_dict)
    if isinstance(definition, Composite):
        body = definition.decomposition(types, op.attributes)  # memoised, so `known` meets the same function again
        if body not in known:
            known[body] = _block_cost(body.block, known)
        return known[body].flops
    return sum_of(product(value.type.shape) for value in op.results)


def _call_cost(op: Op, known: _Known) -> Cost:
    function = op.block.function
    assert function is not None and function.module is not None
    callee = function.module.functions[op.attributes[0]]
    if callee not in known:
        known[callee] = _block_cost(callee.block, known)
    found = known[callee].substitute(bind_symbols(callee, [value.type.shape for value in operand_values(op)]))
    if op.name == "native_gradient":  # about twice as much again for the backward part
        return Cost(sum_of([found.flops] * 3), sum_of([found.bytes] * 3), exact=False)
    return found
