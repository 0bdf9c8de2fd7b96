"""Who calls whom: the functions that ops of a module refer to."""

from __future__ import annotations

from collections.abc import Iterator

from graphc.ir.attributes import FunctionRef
from graphc.ir.errors import GraphcError
from graphc.ir.graph import Function, Op
from graphc.ir.module import Module
from graphc.ir.opdef import OpDef


def referring(definition: OpDef[..., object]) -> bool:
    """Whether ops of this kind name a function in an attribute."""
    return any(a.annotation.removesuffix("| None").strip() == "FunctionRef" for a in definition.attributes)


def references(op: Op) -> Iterator[str]:
    """The functions an op names in its attributes."""
    for value in op.attributes:
        if isinstance(value, FunctionRef):
            yield str(value)


def referred(function: Function, known: dict[type[Op], bool] | None = None) -> list[str]:
    """The functions that ops of `function` name, each once. `known` remembers which kinds of op do."""
    kinds: dict[type[Op], bool] = {} if known is None else known
    names: dict[str, None] = {}
    for op in function.walk():
        kind = op.__class__
        refers = kinds.get(kind)
        if refers is None:
            refers = kinds[kind] = referring(op.definition)
        if refers:
            names.update(dict.fromkeys(references(op)))
    return list(names)


def callees_first(module: Module) -> list[Function]:
    """All functions, each after those it refers to. Raises `GraphcError` for a recursion, which the IR has not."""
    kinds: dict[type[Op], bool] = {}
    state: dict[str, int] = {}
    order: list[Function] = []
    for root in module.functions:
        stack = [(root, iter(_known(module, root, kinds)))] if root not in state else []
        state.setdefault(root, 1)
        while stack:
            name, rest = stack[-1]
            following = next(rest, None)
            if following is None:
                stack.pop()
                state[name] = 2
                order.append(module.functions[name])
            elif state.get(following) == 1:
                cycle = [entry for entry, _ in stack]
                path = " → ".join(f"@{entry}" for entry in [*cycle[cycle.index(following) :], following])
                raise GraphcError(f"functions call each other in a circle: {path}")
            elif following not in state:
                state[following] = 1
                stack.append((following, iter(_known(module, following, kinds))))
    return order


def _known(module: Module, name: str, kinds: dict[type[Op], bool]) -> list[str]:
    return [callee for callee in referred(module.functions[name], kinds) if callee in module.functions]


def remove_unreachable(module: Module) -> int:
    """Remove private functions that no entry reaches; returns how many."""
    kinds: dict[type[Op], bool] = {}
    seen = {name for name, function in module.functions.items() if function.public}
    pending = list(seen)
    while pending:
        for name in _known(module, pending.pop(), kinds):
            if name not in seen:
                seen.add(name)
                pending.append(name)
    gone = [name for name in module.functions if name not in seen]
    for name in gone:
        del module.functions[name]
    return len(gone)
