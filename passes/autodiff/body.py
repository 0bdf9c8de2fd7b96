"""A body (of a region or a function) that is differentiated and cut into a forward and a backward part."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from graphc.ir.builder import Builder
from graphc.ir.cloning import clone_op, clone_ops
from graphc.ir.graph import Block, Function, Op, Region, Value
from graphc.ir.ops.structure import barrier
from graphc.passes.autodiff.joint import Differentiator, zeros


@dataclass(slots=True)
class Body:
    """A copy of a body with backward ops behind its forward ones.

    `parameters` are the copies of the original's, `outputs` what it handed out; `seeds` are further parameters, the
    cotangents it takes in; `gradients` are the cotangents of the wanted parameters (None: zero).
    """

    parameters: list[Value]
    outputs: list[Value]
    seeds: list[Value]
    wanted: list[Value]
    gradients: list[Value | None]
    forward: list[Op]
    backward: list[Op]

    @staticmethod
    def of(
        differentiator: Differentiator,
        source: Block,
        seeded: Sequence[int],
        wanted: Sequence[int],
        function: Function | None,
    ) -> Body:
        """Differentiate a copy of `source` for the outputs and parameters of these indices."""
        block = Region().block
        values = {old: block.add_parameter(old.type, old.name) for old in source.parameters}
        parameters = list(block.parameters)
        clone_ops(source, block, values)
        chosen = [parameters[i] for i in wanted]
        differentiator.prepare(block, chosen)
        # Stands between the parts: forward ops that are replaced meanwhile stay before it.
        fence = barrier.build(Builder(block, block.last, function=function), ())
        seeds = [block.add_parameter(block.outputs[i].type) for i in seeded]
        pairs = [(block.outputs[i], seed) for i, seed in zip(seeded, seeds, strict=True)]
        gradients = differentiator.backward(block, pairs, chosen, function)
        everything = list(block)[:-1]
        cut = everything.index(fence)
        return Body(parameters, list(block.outputs), seeds, chosen, gradients, everything[:cut], everything[cut + 1 :])

    def residuals(self, at_hand: set[Value]) -> list[Value]:
        """What the backward part reads of the forward one, without the parameters that are `at_hand` there anyway."""
        made = {value for op in self.backward for value in op.results} | set(self.seeds)
        return [value for value in self._read() if value not in made and value not in at_hand]

    def read_parameters(self) -> set[Value]:
        """The original parameters that the backward part reads."""
        return set(self.parameters) & set(self._read())

    def _read(self) -> dict[Value, None]:
        read = [value for op in self.backward for value in op.operands if value is not None]
        return dict.fromkeys([*read, *(value for value in self.gradients if value is not None)])

    def forward_region(
        self, function: Function | None, residuals: Callable[[dict[Value, Value]], list[Value]]
    ) -> Region:
        """A region of the forward part; see `forward_into`."""
        region = Region()
        for value in self.parameters:
            region.block.add_parameter(value.type, value.name)
        self.forward_into(region.block, function, residuals)
        return region

    def forward_into(
        self,
        block: Block,
        function: Function | None,
        residuals: Callable[[dict[Value, Value]], list[Value]],
    ) -> None:
        """Write the forward part into a block that has its parameters. It hands out the outputs and `residuals`."""
        values = dict(zip(self.parameters, block.parameters, strict=True))
        for op in self.forward:
            block.append(clone_op(op, values))
        with Builder(block, function=function) as builder:
            builder.finish([*(values[value] for value in self.outputs), *residuals(values)])

    def backward_into(
        self,
        block: Block,
        values: dict[Value, Value],
        function: Function | None,
        results: Callable[[list[Value]], list[Value]],
    ) -> None:
        """Write the backward part into `block`, where `values` stand for what it reads.

        It hands out what `results` makes of the cotangents of the wanted parameters, zeros among them.
        """
        for op in self.backward:
            block.append(clone_op(op, values))
        with Builder(block, function=function) as builder:
            found = [
                zeros(wanted) if value is None else values[value]
                for wanted, value in zip(self.wanted, self.gradients, strict=True)
            ]
            builder.finish(results(found))
