"""Which ops of a training step become the functions of blocks."""

from graphc.codegen.source.segments import LEAST, Blocks, Segment, segmented
from graphc.ir import ops
from graphc.ir.builder import Builder
from graphc.ir.dtypes import f32
from graphc.ir.graph import Function, Op, Value
from graphc.ir.location import Location, Scope
from graphc.ir.types import TensorType

PATHS = {f"blocks_{i}": ("blocks", str(i)) for i in range(2)}


class Recording:
    """A step of two blocks, op by op."""

    def __init__(self) -> None:
        self.function = Function("train_step")
        self.value: Value = self.function.add_parameter(TensorType.of(f32, (2,)), "x")
        self.builder = Builder(self.function.block)

    def chain(self, scope: str, count: int) -> list[Op]:
        """Ops in a scope, each of what the one before gave."""
        made: list[Op] = []
        with self.builder:
            for _ in range(count):
                self.builder.location = Location.of(Scope.parse(scope))
                self.value = ops.tanh(self.value)
                assert self.value.op is not None
                made.append(self.value.op)
        return made


def test_what_runs_again_of_another_block_is_in_no_function_of_a_block() -> None:
    """Between two ops of a block's backward part a plan may put a layer of the other block, whose weights are its."""
    step = Recording()
    for i in range(2):
        step.chain(f"blocks_{i}/layer", LEAST)
    step.chain("gradient/blocks_1/layer", LEAST)
    again = step.chain("gradient/recompute/blocks_0/layer", 2)
    own = step.chain("gradient/recompute#1/blocks_1/layer", 1)
    step.chain("gradient/blocks_1/layer", LEAST)
    step.chain("gradient/blocks_0/layer", LEAST)
    parts, _ = segmented(list(step.function.block), Blocks(PATHS))
    inside = {op: part.owner for part in parts if isinstance(part, Segment) for op in part.ops}
    assert all(inside.get(op) in (None, "blocks_0") for op in again)
    assert all(inside.get(op) in (None, "blocks_1") for op in own)
    assert sum(part in again for part in parts) == 2


def test_what_runs_again_of_a_block_is_in_its_function() -> None:
    step = Recording()
    step.chain("blocks_0/layer", LEAST)
    step.chain("gradient/blocks_0/layer", 2)
    again = step.chain("gradient/recompute/blocks_0/layer", 2)
    step.chain("gradient/blocks_0/layer", LEAST)
    parts, _ = segmented(list(step.function.block), Blocks(PATHS))
    forward, backward = (part for part in parts if isinstance(part, Segment))
    assert backward.backward and set(again) < set(backward.ops) and not forward.backward
