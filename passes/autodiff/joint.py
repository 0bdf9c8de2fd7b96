"""Reverse-mode differentiation: appends the backward ops to the block that holds the forward ones.

A reverse walk over the block keeps the cotangent of each value that has one; a cotangent of zero is None, never an
array. Gradient rules refer freely to forward values; what is saved and what is computed again is decided afterwards
(`passes/partition.py`). See Griewank and Walther, "Evaluating Derivatives", chapter 3.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from graphc.ir import ops
from graphc.ir.builder import Builder
from graphc.ir.errors import UnsupportedError
from graphc.ir.graph import Block, Function, Op, Value
from graphc.ir.location import ROOT, Location, Scope
from graphc.ir.module import Module
from graphc.ir.opdef import Composite
from graphc.ir.rewriter import Rewriter
from graphc.passes.autodiff.activity import active_values, is_inexact

Pair = tuple[Function, Function, list[int]]
"""Forward and backward function of a callee, and the indices of its parameters that the backward one takes."""
MakePair = Callable[["Differentiator", Function, Sequence[int], Sequence[int]], Pair]

MARK = "gradient"
"""The scope below which backward ops stand, under the scope of the forward op."""


class Differentiator:
    """Differentiates blocks of `module`, whose calls it may need to look up."""

    def __init__(self, module: Module) -> None:
        self.module = module
        self.rewriter = Rewriter()
        self._pairs: dict[tuple[str, tuple[int, ...], tuple[int, ...]], Pair] = {}

    def pair(self, callee: Function, seeded: tuple[int, ...], wanted: tuple[int, ...], make: MakePair) -> Pair:
        """The forward and backward function for calls of `callee` of this kind, made by `make` when first asked for."""
        key = (callee.name, seeded, wanted)
        if key not in self._pairs:
            self._pairs[key] = make(self, callee, seeded, wanted)
        return self._pairs[key]

    def fresh(self, name: str) -> str:
        """A function name that is not taken."""
        number, found = 1, name
        while found in self.module.functions:
            found = f"{name}_{number}"
            number += 1
        return found

    def backward(
        self,
        block: Block,
        seeds: Sequence[tuple[Value, Value]],
        wanted: Sequence[Value],
        function: Function | None = None,
    ) -> list[Value | None]:
        """Append the backward ops before the terminator; returns the cotangent of each wanted value.

        `seeds` pairs outputs with their cotangents. Composites without a gradient of their own are inlined first.
        Raises `UnsupportedError`, with its place, for an op without a gradient that the result depends on.
        """
        self.inline_composites(block, wanted)
        active = active_values(self.module, block, wanted)
        forward = [op for op in block if op.next is not None]
        builder = Builder(block, block.last, function=function or block.function)
        cotangents: dict[Value, Value | None] = {}
        with builder:
            for value, seed in seeds:
                self.accumulate(cotangents, value, seed, active)
            for op in reversed(forward):
                self.op(builder, op, cotangents, active)
        return [cotangents.get(value) for value in wanted]

    def inline_composites(self, block: Block, wanted: Sequence[Value]) -> None:
        """Replace active composites that declare no gradient by their decompositions, until none is left."""
        found = True
        while found:
            active = active_values(self.module, block, wanted)
            found = False
            for op in list(block):
                definition = op.definition
                if isinstance(definition, Composite) and definition.vjp_rule is None and _is_active(op, active):
                    self.rewriter.replace(op, *definition.expand(self.rewriter.before(op), op))
                    found = True

    def op(self, builder: Builder, op: Op, cotangents: dict[Value, Value | None], active: set[Value]) -> None:
        """Pass the cotangents of the results of one op on to its operands."""
        received = [cotangents.pop(value, None) for value in op.results]
        if all(cotangent is None for cotangent in received) or not any(value in active for value in op.operands):
            return
        builder.location = marked(op.location)
        if op.regions or op.name == "call":
            from graphc.passes.autodiff.regions import differentiate_region_op

            passed = differentiate_region_op(self, builder, op, received, active)
        else:
            passed = self.by_rule(op, received)
        for operand, cotangent in zip(op.operands, passed, strict=True):
            if operand is not None and cotangent is not None:
                self.accumulate(cotangents, operand, cotangent, active)

    def by_rule(self, op: Op, received: list[Value | None]) -> Sequence[Value | None]:
        definition = op.definition
        if definition.vjp_rule is None:
            raise UnsupportedError(f"{op.name} has no gradient, and the result depends on it").at(str(op.location))
        several = len(op.results) != 1
        dy: Any = tuple(received) if several else received[0]
        y: Any = op.results if several else op.results[0]
        found: Any = definition.vjp_rule(dy, y, *op.operands, **op.attribute_dict)
        if isinstance(found, (tuple, list)):
            return list(found) if len(op.operands) != 1 or len(found) == 1 else [found]  # type: ignore[list-item]
        return [found] if len(op.operands) == 1 else [found, *[None] * (len(op.operands) - 1)]

    def accumulate(
        self, cotangents: dict[Value, Value | None], value: Value, cotangent: Value, active: set[Value]
    ) -> None:
        """Add to the cotangent of a value, if it is one that matters."""
        if value not in active:
            return
        before = cotangents.get(value)
        cotangents[value] = cotangent if before is None else ops.add(before, cotangent)


def marked(location: Location) -> Location:
    """The location of the backward ops of a forward op: its scope under the mark, once however often marked."""
    parts = location.scope.parts
    if parts and parts[0].name == MARK:
        return location
    scope = ROOT.child(MARK)
    for part in parts:
        scope = Scope.of(scope, part.name, part.call)
    return Location.of(scope, location.file, location.line, location.origins)


def zeros(value: Value) -> Value:
    """Zeros of the type of `value`, where a cotangent must be a value."""
    return ops.full(value.shape, 0, value.dtype)


def _is_active(op: Op, active: set[Value]) -> bool:
    return any(value in active for value in op.operands) and any(is_inexact(value) for value in op.results)
