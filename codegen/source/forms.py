"""What decides how scopes and blocks are written: those of one form have one text, which is then written once."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING

from graphc.codegen.source.items import Hint, UpdateCall
from graphc.codegen.source.scopes import Node
from graphc.codegen.source.sections import value_name
from graphc.codegen.source.segments import Segment
from graphc.ir.graph import Op, Value
from graphc.ir.location import Scope
from graphc.passes.autodiff.joint import MARK
from graphc.passes.partition.backward import is_backward
from graphc.passes.partition.rewrite import AGAIN

if TYPE_CHECKING:
    from graphc.codegen.source.writer import ModuleWriter


def node_form(writer: ModuleWriter, node: Node) -> tuple[object, ...]:
    """What decides how a scope is written: scopes of one form have one text, which is then written once.

    Ops with their attributes, types and names, weights by their paths below the scope, other values by number.
    """
    numbers: dict[Value, object] = {value: i for i, value in enumerate(node.inputs)}
    skip = len(node.owner) + 1
    layers, resolved = writer.layers, writer.layers.resolved
    form: list[object] = [(value.type, value.name, value.op is None) for value in node.inputs]
    for weight in writer.held_weights.get(node.owner, ()):
        form.append((writer.below(weight, node.owner)[skip:], writer.layers.stored_shape(weight)))

    def refer(value: Value | None) -> object:
        if value is None:
            return None
        found = numbers.get(value)
        if found is None:
            producer = value.op
            if producer is None:
                weight = resolved(value)
                below = weight[skip:] if weight.startswith(node.owner) else weight
                found = below, value.type, writer.module.weights.info(weight).trainable
            else:
                found = id(producer.attributes), value.type  # a constant
            numbers[value] = found
        return found

    for item in node.items:
        if isinstance(item, Op):
            owner = layers.owner_of_op.get(item)
            layer = layers.by_owner[owner] if owner is not None else None
            made = None if layer is None else (layer.constructor, layer.settings)
            form.append((item.__class__, id(item.attributes), made, *map(refer, item.operands)))
            if item.regions:
                form.append(id(item))
            results = item.results
        else:
            form.append((writer.codes[item.owner], item.owner[skip:], *map(refer, item.inputs)))
            results = tuple(item.outputs)
        for value in results:
            form.append((value.type, value.name))
            numbers[value] = len(numbers)
    form.append(tuple(map(refer, node.outputs)))
    return tuple(form)


def segment_form(writer: ModuleWriter, segment: Segment, hints: Mapping[Value, Hint]) -> tuple[object, ...]:
    """What decides how a segment is written: its ops with what they read, what goes in and what comes out."""
    layers = writer.layers
    skip = len(segment.owner) + 1
    numbers: dict[Value, object] = {}
    form: list[object] = [writer.codes[segment.owner], segment.backward]
    for value in segment.taken:
        form.append((value.type, value.name))
        numbers[value] = len(numbers)
    for value in segment.arguments:
        form.append((value.type, value_name(value)))
        numbers[value] = len(numbers)

    @cache
    def below(scope: Scope) -> str:
        names = [part.name for part in scope.parts if part.name not in (MARK, AGAIN)]
        return "/".join(names).removeprefix(segment.owner)

    def refer(value: Value | None) -> object:
        if value is None:
            return None
        found = numbers.get(value)
        if found is None:
            if value.op is None:
                weight = layers.resolved(value)
                found = weight[skip:], value.type, layers.steps.get(weight)
            else:
                found = id(value.op.attributes), value.type  # a constant
            numbers[value] = found
        return found

    def argument(value: Value) -> object:
        """What an update is given: a weight by its name below the block, or what is kept for one."""
        weight = layers.weight_of.get(value)
        return refer(value) if weight is None else writer.below(weight, segment.owner)[skip:]

    for op in segment.items:
        if isinstance(op, UpdateCall):
            form.append((op.code, op.form.weight[skip:], op.form.steps, *map(argument, op.form.arguments)))
            continue
        owner = layers.owner_of_op.get(op)
        layer = layers.by_owner[owner].call if owner is not None else None
        form.append((op.__class__, id(op.attributes), layer, below(op.location.scope)))
        form.append(tuple(map(refer, op.operands)))
        if op.regions:
            form.append(id(op))
        for value in op.results:
            form.append((value.name, not segment.backward and any(map(is_backward, value.uses or ()))))
            numbers[value] = len(numbers)
    for values in (segment.results, segment.left, segment.gradients):
        form.append(tuple(map(refer, values)))
    form.append(tuple((key, hints[value]) for value, key in segment.gradients.items()))
    return tuple(form)


__all__ = ["node_form", "segment_form"]
