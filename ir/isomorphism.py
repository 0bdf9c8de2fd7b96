"""Whether two modules are the same graph: the same ops in order on corresponding values, types and attributes equal."""

from __future__ import annotations

from collections.abc import Mapping

from graphc.ir.attributes import attribute_text
from graphc.ir.graph import Block, Function, Op, Value
from graphc.ir.module import Module


def isomorphic(a: Module, b: Module, names: bool = True, locations: bool = True) -> bool:
    """Whether `a` and `b` are the same up to the identity of objects; see `first_difference`."""
    return first_difference(a, b, names, locations) is None


def first_difference(a: Module, b: Module, names: bool = True, locations: bool = True) -> str | None:
    """Where two modules first differ, or None: weights, signatures, guards, and ops with their operands, attributes
    (NaN equals NaN, 0 differs from −0), types, regions, and, if asked for, value names and locations. Linear."""
    return _Comparison(names, locations).modules(a, b)


class _Comparison:
    def __init__(self, names: bool, locations: bool) -> None:
        self.names = names
        self.locations = locations
        self.values: dict[Value, Value] = {}

    def modules(self, a: Module, b: Module) -> str | None:
        found = _mappings("weights", {w.name: 0 for w in a.weights.entries()}, {w.name: 0 for w in b.weights.entries()})
        found = found or _mappings("functions", a.functions, b.functions)
        if found is not None:
            return found
        for one, other in zip(a.weights.entries(), b.weights.entries(), strict=True):
            same = (one.type, one.trainable, one.alias, one.recipe) == (
                other.type,
                other.trainable,
                other.alias,
                other.recipe,
            )
            if not same or a.weights.digest(one.name) != b.weights.digest(other.name):
                return f"the weight {one.name!r} differs"
        for name, function in a.functions.items():
            found = self.functions(function, b.functions[name])
            if found is not None:
                return f"@{name}: {found}"
        return None

    def functions(self, a: Function, b: Function) -> str | None:
        if a.public != b.public or list(a.guards) != list(b.guards):
            return "visibility or guards differ"
        if len(a.parameters) != len(b.parameters) or len(a.results) != len(b.results):
            return "the numbers of parameters or results differ"
        for one, other in zip(a.parameters, b.parameters, strict=True):
            if (one.role, one.weight) != (other.role, other.weight):
                return f"the parameter {one.name!r} differs"
        for one, other in zip(a.results, b.results, strict=True):
            updates = [None if r.updates is None else r.updates.value.index for r in (one, other)]
            if one.name != other.name or updates[0] != updates[1]:
                return f"the result {one.name!r} differs"
        return self.blocks(a.block, b.block)

    def blocks(self, a: Block, b: Block) -> str | None:
        if len(a.parameters) != len(b.parameters):
            return "the numbers of block parameters differ"
        for one, other in zip(a.parameters, b.parameters, strict=True):
            found = self.results(one, other)
            if found is not None:
                return found
        first, second = a.first, b.first
        while first is not None and second is not None:
            found = self.ops(first, second)
            if found is not None:
                return f"{first.name} ({first!r} and {second!r}): {found}"
            first, second = first.next, second.next
        return None if first is second else "one block is longer"

    def ops(self, a: Op, b: Op) -> str | None:
        if a.definition is not b.definition:
            return "the ops differ"
        if a.attributes is not b.attributes and attribute_text(a.attributes) != attribute_text(b.attributes):
            return "the attributes differ"
        if self.locations and a.location is not b.location:
            return f"the locations {a.location} and {b.location} differ"
        if len(a.operands) != len(b.operands) or len(a.results) != len(b.results) or len(a.regions) != len(b.regions):
            return "the numbers of operands, results or regions differ"
        for one, other in zip(a.operands, b.operands, strict=True):
            if (None if one is None else self.values.get(one)) is not other:
                return "an operand differs"
        for one, other in zip(a.results, b.results, strict=True):
            found = self.results(one, other)
            if found is not None:
                return found
        for one, other in zip(a.regions, b.regions, strict=True):
            found = self.blocks(one.block, other.block)
            if found is not None:
                return found
        return None

    def results(self, a: Value, b: Value) -> str | None:
        self.values[a] = b
        if a.type is not b.type:
            return f"the types {a.type} and {b.type} differ"
        if self.names and a.name != b.name:
            return f"the names {a.name!r} and {b.name!r} differ"
        return None


def _mappings(what: str, a: Mapping[str, object], b: Mapping[str, object]) -> str | None:
    return None if list(a) == list(b) else f"the {what} differ: {', '.join(a)} and {', '.join(b)}"
