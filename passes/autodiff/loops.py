"""A `while` that runs at most so many times, as a `scan` that has a gradient: the rounds after its end pass on."""

from __future__ import annotations

from graphc.ir import ops
from graphc.ir.builder import Builder
from graphc.ir.cloning import inline_block
from graphc.ir.errors import UnsupportedError
from graphc.ir.graph import Op, Value
from graphc.ir.ops import control


def as_scan(builder: Builder, op: Op) -> tuple[Value, ...]:
    """Record at `builder` what has the results of the `while` `op`, as long as its bound holds.

    Raises `UnsupportedError`, with its place, for one without a bound.
    """
    carried, bound = op.attribute_dict["carried"], op.attribute_dict["bound"]
    if bound is None:
        raise UnsupportedError(
            "while has no gradient without a bound on how often it runs: give `maximum_iterations`, or use scan"
        ).at(str(op.location))
    operands = [value for value in op.operands if value is not None]
    captures = operands[carried:]
    condition, body = (region.block for region in op.regions)

    def step(carries: tuple[Value, ...], _: tuple[Value, ...]) -> tuple[tuple[Value, ...], tuple[Value, ...]]:
        inner = Builder.current()
        assert inner is not None
        (holds,) = inline_block(inner, condition, [*carries, *captures])

        def run() -> tuple[Value, ...]:
            branch = Builder.current()
            assert branch is not None
            return tuple(inline_block(branch, body, [*carries, *captures]))

        return control.cond(holds, run, lambda: carries), ()

    with builder:
        last, _ = ops.scan(step, operands[:carried], length=bound)
    return last
