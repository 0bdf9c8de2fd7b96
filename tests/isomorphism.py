"""Whether two modules are the same graph: names, types, attributes, locations, weights, guards and all edges."""

from __future__ import annotations

from graphc.ir.graph import Block, Function, Value
from graphc.ir.module import Module


def assert_isomorphic(a: Module, b: Module) -> None:
    """Raise `AssertionError` where `a` and `b` differ in anything but identity."""
    assert list(a.functions) == list(b.functions)
    assert list(a.weights) == list(b.weights)
    for one, other in zip(a.weights.entries(), b.weights.entries(), strict=True):
        assert (one.name, one.type, one.trainable) == (other.name, other.type, other.trainable)
        assert (one.alias, one.recipe) == (other.alias, other.recipe)
        assert a.weights.digest(one.name) == b.weights.digest(other.name)
    for f, g in zip(a.functions.values(), b.functions.values(), strict=True):
        _functions(f, g)


def _functions(f: Function, g: Function) -> None:
    assert (f.name, f.public, list(f.guards)) == (g.name, g.public, list(g.guards))
    assert [(p.name, p.role, p.weight) for p in f.parameters] == [(p.name, p.role, p.weight) for p in g.parameters]
    assert [r.name for r in f.results] == [r.name for r in g.results]
    for one, other in zip(f.results, g.results, strict=True):
        assert (one.updates is None) == (other.updates is None)
        if one.updates is not None and other.updates is not None:
            assert one.updates.value.index == other.updates.value.index
    _blocks(f.block, g.block)


def _blocks(a: Block, b: Block) -> None:
    same: dict[Value | None, Value | None] = {None: None}

    def pair(values: tuple[Value, ...] | list[Value], others: tuple[Value, ...] | list[Value]) -> None:
        for value, other in zip(values, others, strict=True):
            assert (value.name, value.type, value.index) == (other.name, other.type, other.index)
            same[value] = other

    pair(a.parameters, b.parameters)
    for one, other in zip(a, b, strict=True):
        assert one.definition is other.definition
        assert one.attributes is other.attributes  # interned: the same types and bits
        assert one.location is other.location
        assert [same[value] for value in one.operands] == list(other.operands)
        pair(one.results, other.results)
        for region, twin in zip(one.regions, other.regions, strict=True):
            _blocks(region.block, twin.block)
