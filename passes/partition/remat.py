"""Plans for the functions of a module, chosen and carried out."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from fnmatch import fnmatchcase

from graphc.ir.analysis.liveness import PLAIN, Memory
from graphc.ir.errors import GraphcError
from graphc.ir.graph import Function
from graphc.ir.module import Module
from graphc.ir.suggestions import nearest
from graphc.passes.options import size_text
from graphc.passes.partition import policy as policies
from graphc.passes.partition.backward import is_backward
from graphc.passes.partition.joint_graph import JointGraph, joint_graph
from graphc.passes.partition.planner import Plan, Planner
from graphc.passes.partition.rewrite import apply_plan
from graphc.passes.partition.updates import settle_updates

_memory: ContextVar[Memory] = ContextVar("graphc_target_memory", default=PLAIN)


@contextmanager
def planning_for(memory: Memory) -> Generator[None]:
    """Let passes plan as a target holds values."""
    token = _memory.set(memory)
    try:
        yield
    finally:
        _memory.reset(token)


def has_backward(function: Function) -> bool:
    """Whether autodiff wrote part of the function."""
    return any(is_backward(op) for op in function.block)


def complete_sizes(function: Function, sizes: Mapping[str, int]) -> dict[str, int]:
    """A size for each symbol of the function: the one given, else the least there is."""
    made = [v.type for op in function.walk() if op.definition.introduces_symbols for v in op.results]
    every = [*function.symbols, *(symbol for type in made for symbol in type.symbols)]
    return {symbol.name: sizes.get(symbol.name, symbol.minimum) for symbol in every}


def within_budget(module: Module, budget: int, sizes: Mapping[str, int], memory: Memory | None = None) -> list[Plan]:
    """Plan and rewrite every function with a backward part so that its peak beside the parameters keeps `budget` bytes
    at these sizes; returns the plans. Raises `GraphcError` that says the least possible, and for unknown symbols."""
    functions = [function for function in module.functions.values() if has_backward(function)]
    known = {symbol.name for function in functions for p in function.parameters for symbol in p.type.symbols}
    for name in sizes:
        if functions and name not in known:
            there = f"the symbols are {', '.join(sorted(known))}" if known else "there is none"
            raise GraphcError(f"remat: no symbol is called {name!r}; {there}")
    plans: list[Plan] = []
    for function in functions:
        complete = complete_sizes(function, sizes)
        held = memory or _memory.get()
        if held.in_place:
            settle_updates(function)
        planner = Planner(function, complete, held)
        plan = planner.within(int(budget * (1 - held.slack)))
        if plan is None:
            least = planner.least()
            possible = int(least.peak / (1 - held.slack)) + 1
            at = ", ".join(f"{name} = {size}" for name, size in complete.items())
            raise GraphcError(
                f"@{function.name} cannot keep a peak of {size_text(budget)} beside its parameters"
                f"{f' (with {at})' if at else ''}; the least possible is {size_text(possible)}, {possible} bytes"
            )
        plans.append(plan)
    for plan in plans:
        apply_plan(plan.graph, plan.saved)
    return plans


def by_policy(module: Module, policy: str, names: Sequence[str] = (), layers: Sequence[str] = ()) -> None:
    """Rewrite every function with a backward part by a policy: `names` before `layers` before `policy`.

    Raises `GraphcError` for names that tag nothing, and patterns that match nothing.
    """
    functions = [function for function in module.functions.values() if has_backward(function)]
    if functions and names:
        tags = {op.attribute_dict["tag"] for function in functions for op in function.block if op.name == "name"}
        missing = [name for name in names if name not in tags]
        if missing:
            there = f"there are {', '.join(sorted(tags))}" if tags else "nothing is tagged"
            raise GraphcError(f"remat: no value is tagged {missing[0]!r}; {there}")
    if functions and not names:
        paths = {part.owner for f in functions for op in f.block for part in op.location.scope.parts}
        for pattern in layers:
            if not any(fnmatchcase(path, pattern) for path in paths):
                raise GraphcError(f"remat: no layer is called {pattern!r}{nearest(pattern, sorted(paths))}")
    for function in functions:
        complete = complete_sizes(function, {})
        graph = joint_graph(function, complete, _memory.get())
        apply_plan(graph, _choice(policy, names, layers)(graph))


def _choice(policy: str, names: Sequence[str], layers: Sequence[str]) -> Callable[[JointGraph], list[int]]:
    if names:
        return lambda graph: policies.by_tags(graph, names)
    if layers:
        return lambda graph: policies.by_layers(graph, layers)
    known = {
        "marked": policies.by_marks,
        "everything": policies.everything,
        "nothing": policies.nothing,
        "products": policies.products,
    }
    return known[policy]


__all__ = ["by_policy", "complete_sizes", "has_backward", "planning_for", "within_budget"]
