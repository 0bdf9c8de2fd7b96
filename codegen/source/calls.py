"""Statements that call what else a file defines: classes of scopes, loops over them, updates of weights, functions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from graphc.codegen.source.expressions import POSTFIX, Expression
from graphc.codegen.source.items import Call, Loop, UpdateCall
from graphc.ir.graph import Op, Value

if TYPE_CHECKING:
    from graphc.codegen.source.body import BodyWriter
    from graphc.codegen.source.updates import Form


def write_call(body: BodyWriter, item: Call | Loop | UpdateCall) -> None:
    """Write an item that is no op."""
    if isinstance(item, Call):
        _call(body, item)
    elif isinstance(item, Loop):
        _loop(body, item)
    else:
        _update(body, item)


def argument_texts(body: BodyWriter, values: Sequence[Value]) -> list[str]:
    """Values as arguments of a call that stands on its own line."""
    for value in values:
        waiting = body.pending.get(value)
        if waiting is not None and (waiting.ops > 2 or waiting.stands_alone):
            body.materialise(value)
    return [body.operand(value).text for value in values]


def _call(body: BodyWriter, item: Call) -> None:
    arguments = argument_texts(body, item.node.inputs)
    text = body.dialect.call(item.code, item.path, arguments)
    outputs = item.node.outputs
    if outputs:
        body.define(outputs, Expression(text, POSTFIX), body.consume(item.node.inputs), 3, 1, False, len(outputs) == 1)


def _update(body: BodyWriter, item: UpdateCall) -> None:
    """Call the function that updates a weight; its new values are in the weights' places then."""
    form = item.form
    write_readers(body, form.arguments)
    argument_texts(body, form.arguments)
    arguments = [passed(body, value, form) for value in form.arguments]
    call = f"{item.code.name}({', '.join(arguments)})"
    reads = body.consume(form.arguments)
    body.settle()
    body.release(reads)
    places = [body.members.place_of(old) for _, old in form.targets]
    body.emit(body.dialect.update_call(call, [body.dialect.member(place) for place in places if place is not None]))
    updated(body, form)


def write_readers(body: BodyWriter, but: Sequence[Value]) -> None:
    """Write what is pending, which may read values that are written over next."""
    for value in list(body.pending):
        if value in body.pending and value not in but:
            body.materialise(value)


def updated(body: BodyWriter, form: Form) -> None:
    """From here on the new values of weights are in the places of the old ones."""
    for new, old in form.targets:
        body.known[new] = body.members.weight(old)
        body.kept.add(new)
        body.written.add(new)


def passed(body: BodyWriter, value: Value, form: Form) -> str:
    """An argument of an update."""
    if form.steps is None or not value.ndim or value in body.stored:
        return body.operand(value).text
    place = body.members.place_of(value)
    if place is not None:
        return body.dialect.member(place)
    return body.dialect.stored(body.operand(value), form.steps).text


def write_function_call(body: BodyWriter, op: Op) -> None:
    """The call of another function of the module."""
    values = [value for value in op.operands if value is not None]
    arguments = argument_texts(body, values)
    name = body.members.function_name(op.attributes[0])
    if op.name == "native_gradient":
        text = body.dialect.native_gradient(name, arguments, op.attribute_dict["wrt"])
    else:
        text = body.dialect.function_call(name, arguments)
    body.define(op.results, Expression(text, POSTFIX), body.consume(values), 3, 1, False, len(op.results) == 1)


def _loop(body: BodyWriter, item: Loop) -> None:
    arguments = argument_texts(body, item.inputs)
    stream = item.inputs[item.position]
    if stream in body.pending:
        body.materialise(stream)
    source = body.operand(stream).text
    freed = body.release(body.consume([stream]))
    name = body.name_result(item.output, freed)
    if name != source:
        body.emit(f"{name} = {source}")
    arguments[item.position] = name
    body.dialect.loop(body, item.code, item.path, arguments, item.position)
    body.release(body.consume([value for i, value in enumerate(item.inputs) if i != item.position]))


__all__ = ["argument_texts", "passed", "updated", "write_call", "write_function_call", "write_readers"]
