"""Running a model on data in stages: what is live where one stage ends is kept, so that the next begins there.

Layer by layer each quantized layer changes what follows. With stages each op runs once more for every time that it is
asked for, not once for every layer behind it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from graphc.ir.builder import Builder
from graphc.ir.cloning import clone_function, clone_op
from graphc.ir.errors import GraphcError
from graphc.ir.graph import Op, Result, Value
from graphc.ir.module import Module
from graphc.ir.outlining import take_guards
from graphc.passes.calls import remove_unreachable
from graphc.runtime.compilation import compile

Array = np.ndarray[Any, Any]
Batch = list[Array]
"""The inputs of one call, in order."""


class Stages:
    """The main function of a module on data. The module's weights may change between stages; what a stage reads of them
    are their values then."""

    def __init__(self, module: Module, data: Sequence[Batch], target: str = "numpy") -> None:
        self.module, self.data, self.target = module, data, target
        self._kept: dict[Value, list[Array]] = {}
        """The live values where the last stage ended, with what they are on each batch."""
        self._of_weights = _of_weights(module)

    def observed(self, chosen: Mapping[str, Value]) -> Iterator[dict[str, Array]]:
        """The values that have these names, for each batch; nothing else is computed. Raises `GraphcError` for a value
        that is not finite."""
        for number, found in enumerate(self._run(list(chosen.values()))):
            values = dict(zip(chosen, found, strict=True))
            for name, value in values.items():
                if not np.isfinite(value).all():
                    raise GraphcError(f"{name!r} is not finite on batch {number} of the calibration data")
            yield values

    def advance(self, op: Op) -> None:
        """End a stage before an op of the main function: keep what is read from there on, forget what is not."""
        live: dict[Value, None] = {}
        later: Op | None = op
        while later is not None:
            live.update((v, None) for v in later.operands if v is not None and self._is_kept(v) and _is_before(v, op))
            later = later.next
        new = [value for value in live if value not in self._kept]
        found = list(self._run(new)) if new else [()] * len(self.data)
        old = {value: arrays for value, arrays in self._kept.items() if value in live}
        self._kept = old | {value: [arrays[i] for arrays in found] for i, value in enumerate(new)}

    def _is_kept(self, value: Value) -> bool:
        """Not inputs, which are there anyway, nor what changes with the weights."""
        return value.op is not None and value not in self._of_weights

    def _run(self, values: Sequence[Value]) -> Iterator[tuple[Array, ...]]:
        piece, reads = self._piece(values)
        executable = compile(piece, target=self.target)
        for number, batch in enumerate(self.data):
            found = executable(*batch, *(self._kept[value][number] for value in reads))
            yield found if isinstance(found, tuple) else (found,)

    def _piece(self, values: Sequence[Value]) -> tuple[Module, list[Value]]:
        """A module that computes values from the inputs and from kept values, and these in order."""
        source = self.module.main
        needed, reads = self._needed(values)
        piece = Module()
        piece.weights = self.module.weights.copy()
        for function in self.module.functions.values():
            if function is not source:
                clone_function(function, piece).public = False
        made = piece.add_function(source.name)
        read = {value for op in needed for value in op.operands} | set(values)
        copies: dict[Value, Value] = {}
        for parameter in source.parameters:
            if parameter.weight is None or parameter.value in read:
                old = parameter.value
                copies[old] = made.add_parameter(old.type, old.name, parameter.role, parameter.weight)
        for number, value in enumerate(reads):
            copies[value] = made.add_parameter(value.type, f"kept_{number}")
        for op in needed:
            made.block.append(clone_op(op, copies))
        with Builder(made.block) as builder:
            builder.finish([copies[value] for value in values])
        made.results = [Result() for _ in values]
        take_guards(made, source)
        remove_unreachable(piece)
        return piece, reads

    def _needed(self, values: Sequence[Value]) -> tuple[list[Op], list[Value]]:
        """The ops that values are computed by, in order, and the kept values that these read."""
        ops: set[Op] = set()
        reads: dict[Value, None] = {}
        pending = list(values)
        while pending:
            value = pending.pop()
            if value in self._kept:
                reads[value] = None
            elif value.op is not None and value.op not in ops:
                ops.add(value.op)
                pending += [operand for operand in value.op.operands if operand is not None]
        return sorted(ops, key=lambda op: op.order), list(reads)


def _is_before(value: Value, op: Op) -> bool:
    assert value.op is not None
    return value.op.is_before(op)


def _of_weights(module: Module) -> set[Value]:
    """The values that depend on weights alone, or on nothing."""
    found = {p.value for p in module.main.parameters if p.weight is not None}
    for op in module.main.block:
        if not op.definition.has_effect and all(v in found for v in op.operands if v is not None):
            found.update(op.results)
    return found


__all__ = ["Batch", "Stages"]
