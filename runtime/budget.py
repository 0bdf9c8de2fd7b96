"""Memory budgets: a limit that the planned peak must keep, refused before anything is written when it cannot."""

from __future__ import annotations

import operator

from graphc.ir.analysis.liveness import live_bytes
from graphc.ir.dims import Dim
from graphc.ir.errors import GraphcError
from graphc.ir.graph import Function
from graphc.ir.module import Module
from graphc.passes.options import read_size, size_text


def check_budget(module: Module, budget: int | str) -> None:
    """Raise `GraphcError` when an entry holds more than `budget` (bytes, or text such as `"512MiB"`) at its peak.

    Weights, inputs and everything computed count. Where sizes are symbolic it is the least that any call needs.
    """
    limit = budget_bytes(budget)
    for function in module.entries.values():
        needed, sizes = least_bytes(function)
        if needed > limit:
            at = ", ".join(f"{name} = {size}" for name, size in sizes.items())
            raise GraphcError(
                f"@{function.name} needs at least {size_text(needed)}{f' (with {at})' if at else ''}; "
                f"the memory budget is {size_text(limit)}"
            )


def budget_bytes(budget: int | str) -> int:
    """The number of bytes of a budget. Raises `GraphcError` for what is no size."""
    try:
        limit = operator.index(budget) if not isinstance(budget, str) else read_size(budget.strip())
        if limit < 0:
            raise ValueError("a size is not negative")
        return limit
    except (ValueError, TypeError):
        raise GraphcError(f"{budget!r} is not a size; write bytes, or a size such as 512MiB or 2GB") from None


def least_bytes(function: Function) -> tuple[int, dict[str, int]]:
    """The bytes held at the peak, parameters included, with every symbol as small as it may be; and those sizes."""
    sizes = {symbol.name: symbol.minimum for symbol in all_symbols(function)}
    return live_bytes(function, sizes).total, sizes


def all_symbols(function: Function) -> list[Dim]:
    """The symbols that parameters bind, then those that ops introduce."""
    made = (s for op in function.walk() if op.definition.introduces_symbols for r in op.results for s in r.type.symbols)
    return list(dict.fromkeys((*function.symbols, *made)))


__all__ = ["all_symbols", "budget_bytes", "check_budget", "least_bytes", "size_text"]
