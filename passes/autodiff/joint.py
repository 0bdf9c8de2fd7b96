"""Reverse-mode differentiation: appends the backward ops to the block that holds the forward ones.

A reverse walk over the block keeps the cotangent of each value that has one; a cotangent of zero is None, never an
array. Gradient rules refer freely to forward values; what is saved and what is computed again is decided afterwards
(`passes/partition`). See Griewank and Walther, "Evaluating Derivatives", chapter 3.

The block may still be recorded, that is, lack its terminator. Forward ops may be replaced by others (composites by
their decompositions, loops by scans, branches by ones that hand out residuals), but the values that they gave stay the
values that they are, so that code which is recording may use them afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from graphc.ir import ops
from graphc.ir.builder import Builder
from graphc.ir.errors import ShapeError, UnsupportedError
from graphc.ir.graph import Block, Function, Op, Value
from graphc.ir.location import ROOT, Location, Scope
from graphc.ir.module import Module
from graphc.ir.opdef import OPS, Composite
from graphc.ir.ops.control import call_function
from graphc.ir.rewriter import Rewriter
from graphc.ir.types import TensorType
from graphc.passes.autodiff.activity import STOPS, active_results

Pair = tuple[Function, Function, list[int]]
"""Forward and backward function of a callee, and the indices of its parameters that the backward one takes."""
MakePair = Callable[["Differentiator", Function, Sequence[int], Sequence[int]], Pair]

MARK = "gradient"
"""The scope below which backward ops stand, under the scope of the forward op."""

REFERRING = frozenset({"call", "custom_gradient"})
"""Ops without regions whose meaning is that of functions they name."""

_TERMINATORS = (OPS["return"].op_class, OPS["yield"].op_class)


class Differentiator:
    """Differentiates blocks of `module`, whose calls it may need to look up."""

    def __init__(self, module: Module) -> None:
        self.module = module
        self.rewriter = Rewriter()
        self._pairs: dict[tuple[str, tuple[int, ...], tuple[int, ...]], Pair] = {}
        self._marked: dict[Location, Location] = {}

    def pair(self, callee: Function, seeded: tuple[int, ...], wanted: tuple[int, ...], make: MakePair) -> Pair:
        """The forward and backward function for calls of `callee` of this kind, made by `make` when first asked for."""
        key = (callee.name, seeded, wanted)
        if key not in self._pairs:
            self._pairs[key] = make(self, callee, seeded, wanted)
        return self._pairs[key]

    def gradients(
        self, block: Block, loss: Value, wanted: Sequence[Value], function: Function | None = None
    ) -> list[Value | None]:
        """Append the gradients of `loss`, a real scalar of the block, by values of the block; None where it is zero.

        Raises `ShapeError` for a loss that is none, otherwise as `backward`.
        """
        if loss.shape != () or not loss.dtype.is_float:
            raise ShapeError(f"a gradient is of a real scalar, not of {loss.type}")
        with Builder(block, end_of(block), function=function or block.function) as builder:
            builder.location = Location.of(ROOT.child(MARK))
            seed = ops.constant(value=1.0, dtype=loss.dtype)
        return self.backward(block, [(loss, seed)], wanted, function)

    def backward(
        self,
        block: Block,
        seeds: Sequence[tuple[Value, Value]],
        wanted: Sequence[Value],
        function: Function | None = None,
    ) -> list[Value | None]:
        """Append the backward ops, before the terminator if there is one; returns the cotangent of each wanted value.

        `seeds` pairs values with their cotangents. Composites without a gradient of their own are inlined first.
        Raises `UnsupportedError`, with its place, for an op without a gradient that the result depends on.
        """
        active = self.prepare(block, wanted)
        end = end_of(block)
        forward = [op for op in block if op is not end]
        builder = Builder(block, end, function=function or block.function)
        made = {value for value in wanted if value.op is not None}
        found: dict[Value, Value | None] = {}
        cotangents: dict[Value, Value | None] = {}
        with builder:
            for value, seed in seeds:
                self.accumulate(cotangents, value, seed, active)
            for op in reversed(forward):
                if made and not made.isdisjoint(op.results):
                    found.update((value, cotangents.get(value)) for value in op.results)
                self.op(builder, op, cotangents, active)
        self.rewriter.flush()
        found.update(cotangents)
        return [found.get(value) for value in wanted]

    def prepare(self, block: Block, wanted: Sequence[Value]) -> set[Value]:
        """Replace active composites that declare no gradient by their decompositions, and loops by scans.

        Returns the values whose derivative by `wanted` may not be zero, these included. One walk.
        """
        from graphc.passes.autodiff.loops import as_scan

        active = {value for value in wanted if value.dtype.is_float or value.dtype.is_complex}
        replaced: set[Op] = set()
        end = end_of(block)
        op = block.first
        while op is not None and op is not end:
            following = op.next
            if op.name not in STOPS and op not in replaced and any(value in active for value in op.operands):
                results = active_results(self.module, op, active)
                values: Sequence[Value] | None = None
                before = op.prev
                if results and op.name == "custom_gradient" and self.split_residuals(op):
                    following = block.first if before is None else before.next
                    op = following
                    continue
                if results and op.name == "while":
                    values = as_scan(self.rewriter.before(op), op)
                elif results and isinstance(op.definition, Composite) and op.definition.vjp_rule is None:
                    values = op.definition.expand(self.rewriter.before(op), op)
                if values is None:
                    active.update(results)
                else:
                    replaced.add(op)
                    self.rewriter.hand_over(op, values, before)
                    following = block.first if before is None else before.next
            op = following
        self.rewriter.flush()
        return active

    def split_residuals(self, op: Op) -> bool:
        """Let residuals that a gradient recorded before reads come from a plain call: they have ordinary derivatives.

        Returns whether there were any.
        """
        residuals = op.results[op.attribute_dict["outputs"] :]
        if not any(value.uses for value in residuals):
            return False
        arguments = [value for value in op.operands if value is not None]
        plain = call_function(self.rewriter.before(op), self.module.functions[op.attributes[0]], arguments, op.location)
        for old, new in zip(residuals, plain[-len(residuals) :], strict=True):
            self.rewriter.replace_value(old, new)
        return True

    def op(self, builder: Builder, op: Op, cotangents: dict[Value, Value | None], active: set[Value]) -> None:
        """Pass the cotangents of the results of one op on to its operands."""
        received = [cotangents.pop(value, None) for value in op.results]
        if all(cotangent is None for cotangent in received) or not any(value in active for value in op.operands):
            return
        builder.location = self.marked(op.location)
        if op.regions or op.name in REFERRING:
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

    def marked(self, location: Location) -> Location:
        """The location of the backward ops of a forward op; see `marked`."""
        found = self._marked.get(location)
        if found is None:
            found = self._marked[location] = marked(location)
        return found


def marked(location: Location) -> Location:
    """The location of the backward ops of a forward op: its scope under the mark, once however often marked."""
    parts = location.scope.parts
    if parts and parts[0].name == MARK:
        return location
    scope = ROOT.child(MARK)
    for part in parts:
        scope = Scope.of(scope, part.name, part.call)
    return Location.of(scope, location.file, location.line, location.origins)


def zeros(like: Value | TensorType) -> Value:
    """Zeros of this type, where there must be a value."""
    return ops.full(like.shape, False if like.dtype.is_bool else 0, like.dtype)


def end_of(block: Block) -> Op | None:
    """The terminator of the block, None while it is being recorded."""
    return block.last if isinstance(block.last, _TERMINATORS) else None
