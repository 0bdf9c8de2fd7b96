"""Copying graphs: modules, functions, and bodies into other bodies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from graphc.ir.builder import Builder
from graphc.ir.dims import Dim, Size, substitute
from graphc.ir.graph import Block, Function, Op, Parameter, Region, Result, Value
from graphc.ir.location import Location
from graphc.ir.module import Module
from graphc.ir.opdef import OpDef

Bindings = Mapping[Dim, Size]


def clone_module(module: Module) -> Module:
    """A deep copy of the graph over a weight table of its own; the arrays are shared."""
    copy = Module()
    copy.weights = module.weights.copy()
    for function in module.functions.values():
        clone_function(function, copy)
    return copy


def clone_function(function: Function, module: Module | None = None, name: str | None = None) -> Function:
    """A copy of the function, in `module` if one is given."""
    copy = (
        module.add_function(name or function.name, function.public)
        if module is not None
        else Function(name or function.name, function.public)
    )
    values: dict[Value, Value] = {}
    parameters: dict[int, Parameter] = {}
    for parameter in function.parameters:
        old = parameter.value
        values[old] = copy.add_parameter(old.type, old.name, parameter.role, parameter.weight)
        parameters[id(parameter)] = copy.parameters[-1]
    copy.results = [Result(r.name, None if r.updates is None else parameters[id(r.updates)]) for r in function.results]
    copy.guards = dict(function.guards)
    clone_ops(function.block, copy.block, values)
    return copy


def clone_ops(source: Block, target: Block, values: dict[Value, Value], bindings: Bindings | None = None) -> None:
    """Append copies of all ops of `source` to `target`. `values` maps what they read, and gets their results."""
    for op in source:
        target.append(_copy(op, values, bindings, None))


def clone_op(op: Op, values: dict[Value, Value]) -> Op:
    """A copy of one op, in no block yet. `values` maps what it reads, and gets its results."""
    return _copy(op, values, None, None)


def inline_function(builder: Builder, function: Function, arguments: list[Value], bindings: Bindings) -> list[Value]:
    """Record a copy of the body at `builder`, its symbols replaced by `bindings`; returns what it would return.

    Locations go below the builder's scope.
    """
    return _inline(builder, function.block, arguments, bindings, builder.location)


def inline_block(builder: Builder, block: Block, arguments: Sequence[Value]) -> list[Value]:
    """Record a copy of the ops of `block` at `builder`, at their own locations; returns what it hands out."""
    return _inline(builder, block, arguments, None, None)


def _inline(
    builder: Builder, block: Block, arguments: Sequence[Value], bindings: Bindings | None, below: Location | None
) -> list[Value]:
    values = dict(zip(block.parameters, arguments, strict=True))
    for op in block:
        if op.next is None:
            return [values[v] for v in cast(tuple[Value, ...], op.operands)]
        new = _copy(op, values, bindings, below)
        if builder.before is None:
            builder.block.append(new)
        else:
            builder.block.insert_before(builder.before, new)
    return []


def _copy(op: Op, values: dict[Value, Value], bindings: Bindings | None, below: Location | None) -> Op:
    operands = tuple([v if v is None else values[v] for v in op.operands])
    regions = tuple([_copy_region(region, bindings, below) for region in op.regions])
    types = tuple([r.type for r in op.results])
    attributes = op.attributes
    if bindings:
        types = tuple([t.substitute(bindings) for t in types])
        attributes = substituted(attributes, bindings, op.definition)
    location = op.location if below is None else _below(below, op.location)
    new = op.__class__(operands, attributes, types, regions, location)
    for old, result in zip(op.results, new.results, strict=True):
        result.name = old.name
        values[old] = result
    return new


def _copy_region(region: Region, bindings: Bindings | None, below: Location | None) -> Region:
    copy = Region()
    values: dict[Value, Value] = {}
    for old in region.block.parameters:
        type = old.type.substitute(bindings) if bindings else old.type
        values[old] = copy.block.add_parameter(type, old.name)
    for op in region.block:
        copy.block.append(_copy(op, values, bindings, below))
    return copy


def substituted(attributes: tuple[Any, ...], bindings: Bindings, definition: OpDef[..., Any]) -> tuple[Any, ...]:
    """Interned attributes with symbols replaced."""
    new = tuple([_substituted(value, bindings) for value in attributes])
    return attributes if new == attributes else definition.intern(new)


def _substituted(value: Any, bindings: Bindings) -> Any:
    if isinstance(value, Dim):
        return substitute(value, bindings)
    if isinstance(value, tuple):
        return tuple(_substituted(item, bindings) for item in cast(tuple[Any, ...], value))
    return value


def _below(outer: Location, inner: Location) -> Location:
    scope = outer.scope
    for part in inner.scope.parts:
        scope = scope.child(part.name, part.call)
    return Location.of(scope, inner.file or outer.file, inner.line or outer.line, inner.origins)
