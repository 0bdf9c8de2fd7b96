"""Statements that call what else a file defines: classes of scopes, loops over them, updates of weights, functions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from graphc.codegen.source.dialect import GRADIENTS, RESIDUALS, SLOTS_OF_BLOCK, Code, Dialect, Path
from graphc.codegen.source.expressions import POSTFIX, Expression
from graphc.codegen.source.items import BlockCall, BlockLoop, Call, Item, Loop, UpdateCall, UpdateLoop
from graphc.codegen.source.naming import identifier, stem
from graphc.codegen.source.scopes import UPDATES
from graphc.codegen.source.update_loops import BLOCK, SLOT, update_texts
from graphc.ir.graph import Op, Value

if TYPE_CHECKING:
    from graphc.codegen.source.body import BodyWriter
    from graphc.codegen.source.members import Members
    from graphc.codegen.source.segments import Segment
    from graphc.codegen.source.updates import Form


def write_call(body: BodyWriter, item: Item) -> None:
    """Write an item that is no op."""
    match item:
        case Call():
            _call(body, item)
        case Loop():
            _loop(body, item)
        case UpdateCall():
            _update(body, item)
        case UpdateLoop():
            _update_loop(body, item)
        case BlockCall():
            _block_call(body, item)
        case BlockLoop():
            _block_loop(body, item)
        case Op():
            raise TypeError(item)


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
    if body.block is not None:
        _update_of_block(body, item, *body.block)
        return
    argument_texts(body, form.arguments)
    arguments = [passed(body, value, form) for value in form.arguments]
    call = f"{item.code.name}({', '.join(arguments)})"
    reads = body.consume(form.arguments)
    body.settle()
    body.release(reads)
    places = [body.members.place_of(old) for _, old in form.targets]
    body.emit(body.dialect.update_call(call, [body.dialect.member(place) for place in places if place is not None]))
    updated(body, form)


def _update_of_block(body: BodyWriter, item: UpdateCall, members: Members, path: Path) -> None:
    """Call the function that updates a weight in what a block does in a step."""
    given = [value for value in item.form.arguments if members.place_of(value) is None]
    called = {value: body.named(value) for value in given}
    (text,) = update_texts(members, [item], {}, path, called, "", body.stored)
    body.settle()
    body.release(body.consume(given))
    body.emit(text.replace(BLOCK, body.dialect.member(())).replace(SLOT, SLOTS_OF_BLOCK))


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
    arguments = [body.named(value) for value in item.inputs]  # not computed again by each call
    stream = item.inputs[item.position]
    source = body.operand(stream).text
    freed = body.release(body.consume([stream]))
    name = body.name_result(item.output, freed)
    if name != source:
        body.emit(f"{name} = {source}")
    arguments[item.position] = name
    body.dialect.loop(body, item.code, item.path, arguments, item.position)
    body.release(body.consume([value for i, value in enumerate(item.inputs) if i != item.position]))


def _block_call(body: BodyWriter, item: BlockCall) -> None:
    """What a block does in a step; under its number is kept what it leaves."""
    segment = item.segment
    number = str(segment.path[-1])
    _begin(body, segment)
    if segment.updates:
        write_readers(body, segment.arguments)
    arguments = argument_texts(body, segment.arguments)
    freed = body.release(body.consume(segment.arguments))
    targets = [body.name_result(value, freed) for value in segment.results]
    block = body.dialect.member(segment.path)
    call = _block_text(body, item.code, segment, block, arguments, number)
    body.emit(_assigned(_targets(body, segment, targets, number), call))
    _done(body, [segment])


def _block_loop(body: BodyWriter, item: BlockLoop) -> None:
    """What blocks do in a step, one after another."""
    first, last = item.segments[0], item.segments[-1]
    _begin(body, first)
    if first.updates:
        write_readers(body, first.arguments)
    number = body.names.take("i")
    arguments = [body.named(value) for value in item.inputs]
    for i, (_, step, start) in item.passed.rows.items():
        arguments[i] = f"{arguments[i]}[{_index(number, step, start)}]"
    carried = item.passed.carried
    stream = [value for i, value in enumerate(first.arguments) if i in carried]
    freed = body.release(body.consume(stream))
    targets = [body.name_result(value, freed) for value in last.results]
    for i, at in carried.items():
        if targets[at] != arguments[i]:
            body.emit(f"{targets[at]} = {arguments[i]}")
            arguments[i] = targets[at]
    blocks = body.dialect.member(first.path[:-1])
    step = _block_text(body, item.code, first, f"{blocks}[{number}]", arguments, number)
    body.emit(f"for {number} in {indices([segment.path for segment in item.segments])}:")
    body.emit(f"    {_assigned(_targets(body, first, targets, number), step)}")
    body.names.release(number)
    body.release(body.consume([value for i, value in enumerate(item.inputs) if i not in carried]))
    _done(body, item.segments)


def _index(number: str, step: int, start: int) -> str:
    """The source of `step * number + start`."""
    text = f"{step} * {number}" if step not in (0, 1) else number if step else ""
    if not text or not start:
        return text or str(start)
    return f"{text} + {start}" if start > 0 else f"{text} - {-start}"


def has_slots(dialect: Dialect, segment: Segment) -> bool:
    """Whether a block's function is given what the optimizer keeps for its weights."""
    return bool(segment.updates) and not dialect.has_classes


def indices(paths: Sequence[Path]) -> str:
    """The numbers of blocks that follow one another, as an iterable."""
    numbers = [number for *_, number in paths if isinstance(number, int)]
    low, high = min(numbers), max(numbers)
    text = f"range({low}, {high + 1})" if low else f"range({high + 1})"
    return f"reversed({text})" if numbers[0] > numbers[-1] else text


def _begin(body: BodyWriter, segment: Segment) -> None:
    """Make the dicts that the blocks of a list keep things in, before the first of them."""
    for kept, name in ((segment.left, RESIDUALS), (segment.gradients, GRADIENTS)):
        if kept and (segment.path[:-1], name) not in body.kept_under:
            body.kept_under[segment.path[:-1], name] = body.names.take(name)
            body.emit(f"{body.kept_under[segment.path[:-1], name]} = {{}}")


def _targets(body: BodyWriter, segment: Segment, targets: Sequence[str], number: str) -> str:
    kept = [name for values, name in ((segment.left, RESIDUALS), (segment.gradients, GRADIENTS)) if values]
    dicts = [f"{body.kept_under[segment.path[:-1], name]}[{number}]" for name in kept]
    return ", ".join([*targets, *dicts])


def _assigned(targets: str, call: str) -> str:
    return f"{targets} = {call}" if targets else call


def _block_text(
    body: BodyWriter, code: Code, segment: Segment, block: str, arguments: Sequence[str], number: str
) -> str:
    texts = list(arguments)
    if segment.taken:
        texts.insert(1, f"{body.kept_under[segment.path[:-1], RESIDUALS]}.pop({number})")
    if has_slots(body.dialect, segment):
        texts.insert(0, f"{body.dialect.member((UPDATES, *segment.path[:-1]))}[{number}]")
    return body.dialect.block_call(code.name, block, texts)


def _done(body: BodyWriter, segments: Sequence[Segment]) -> None:
    """From here on the weights that blocks have updated are the new ones."""
    for segment in segments:
        for call in segment.updates:
            updated(body, call.form)


def _update_loop(body: BodyWriter, item: UpdateLoop) -> None:
    """Calls of the functions that update weights, in a loop over the blocks that have these."""
    write_readers(body, item.inputs)
    common = {value: body.named(value) for value in item.inputs}
    body.settle()
    list_, first = item.paths[0][:-1], item.paths[0]
    number, gradient = body.names.take("i"), body.names.take("gradient")
    base = identifier(stem(item.name))
    slots = f"{body.dialect.member((UPDATES, *list_))}[{number}]"
    texts = update_texts(body.members, item.calls[0], item.keys, first, common, gradient, body.stored)
    block = body.names.take(base if body.names.is_free(base) else "layer")
    aliases = {block: f"{body.dialect.member(list_)}[{number}]"}
    if any(SLOT in text for text in texts):
        aliases[SLOTS_OF_BLOCK] = slots
    aliases[gradient] = f"{body.kept_under[list_, GRADIENTS]}.pop({number})"
    body.emit(f"for {number} in {indices(item.paths)}:")
    body.emit(f"    {', '.join(aliases)} = {', '.join(aliases.values())}")
    for text in texts:
        body.emit(f"    {text.replace(BLOCK, block).replace(SLOT, SLOTS_OF_BLOCK)}")
    for name in (number, gradient, block):
        body.names.release(name)
    for calls in item.calls:
        for call in calls:
            updated(body, call.form)
    body.release(body.consume(item.inputs))


__all__ = ["argument_texts", "passed", "updated", "write_call", "write_function_call", "write_readers"]
