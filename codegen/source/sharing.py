"""Which values may share memory with others, and so change with them where these are written in place."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from graphc.ir.graph import Op, Value

VIEWS = frozenset(
    ["barrier", "broadcast", "convert", "dynamic_slice", "imag", "name", "real", "reshape", "slice", "split"]
    + ["stop_gradient", "transpose"]
)
"""Ops whose results may share memory with their first operand."""

CALLS = frozenset({"call", "custom_gradient", "native_gradient"})
"""Ops whose results may share memory with any operand, as those of region ops may."""


def operands_shared(op: Op) -> Sequence[Value]:
    """The operands that the results of an op may share memory with."""
    if op.name in VIEWS:
        return [operand for operand in op.operands[:1] if operand is not None]
    if op.regions or op.name in CALLS:
        return [operand for operand in op.operands if operand is not None]
    return ()


class Sharing:
    """For the values of a body, those among `roots` whose memory they may share. Ops are told in order; linear."""

    def __init__(self, roots: Iterable[Value]) -> None:
        self._of: dict[Value, frozenset[Value]] = {value: frozenset([value]) for value in roots}

    def add(self, op: Op) -> None:
        """Tell of an op, whose operands were told of before."""
        shared = [self._of[value] for value in operands_shared(op) if value in self._of]
        if shared:
            union = frozenset[Value]().union(*shared)
            for value in op.results:
                self._of[value] = self._of.get(value, frozenset()) | union

    def of(self, value: Value) -> frozenset[Value]:
        return self._of.get(value, frozenset())


__all__ = ["CALLS", "VIEWS", "Sharing", "operands_shared"]
