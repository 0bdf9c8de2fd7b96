"""What a private function that is made of ops of another one needs besides them: values for its sizes, and guards."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from graphc.ir.dims import symbols
from graphc.ir.errors import UnsupportedError
from graphc.ir.graph import Function, Op, Value


def size_arguments(ops: Iterable[Op], arguments: Sequence[Value], owner: Function | None) -> list[Value]:
    """Parameters of `owner` that bind the sizes which the ops and arguments have, but none of the arguments binds.

    Raises `UnsupportedError` for a size that no parameter has.
    """
    bound = {size for value in arguments for size in value.shape}
    used = {symbol for op in ops for value in op.results for symbol in value.type.symbols}
    used.update(symbol for value in arguments for symbol in value.type.symbols)
    found: dict[Value, None] = {}
    for symbol in sorted((each for each in used if each not in bound), key=str):
        binding = next((p.value for p in owner.parameters if symbol in p.type.shape), None) if owner else None
        if binding is None:
            raise UnsupportedError(f"a function is made here that needs a value with the size {symbol}; there is none")
        found[binding] = None
    return list(found)


def take_guards(function: Function, owner: Function | None) -> None:
    """Give a private function those guards of `owner` whose symbols its parameters bind."""
    if owner is not None:
        bound = set(function.symbols)
        function.guards.update((g, None) for g in owner.guards if {*symbols(g.left), *symbols(g.right)} <= bound)
