"""Moving a part of a block into a private function: what a gradient that the framework takes is taken of.

    gradients = outline_gradient(module, block, loss, weights)

moves the ops by which `loss` depends on `weights` into a function and records a `native_gradient` of it at the end of
the block, which may still be recorded. What the moved ops gave stays valid for code that holds it: it is given by the
`native_gradient`, of whose results `dce` drops those that nothing reads (`trim_outlined`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from graphc.ir.builder import Builder
from graphc.ir.cloning import clone_op
from graphc.ir.errors import ShapeError, UnsupportedError
from graphc.ir.graph import Block, Function, Op, Result, Value
from graphc.ir.module import Module
from graphc.ir.opdef import OPS
from graphc.ir.ops.functions import native_gradient
from graphc.ir.outlining import size_arguments, take_guards
from graphc.ir.rewriter import Rewriter

_TERMINATORS = (OPS["return"].op_class, OPS["yield"].op_class)


def outline_gradient(
    module: Module,
    block: Block,
    loss: Value,
    wrt: Sequence[Value],
    function: Function | None = None,
    name: str = "loss",
) -> list[Value | None]:
    """The gradients of `loss`, a real scalar, by other values of the block, as the target's framework takes them.

    What depends on `wrt` and is part of `loss` becomes the private function `name`; other ops that read its values
    stand after the `native_gradient` from then on. None where the loss does not depend on a value. `function` holds
    the block, if that does not say. Raises `ShapeError` for a loss that is no scalar, `UnsupportedError` where one of
    `wrt` depends on another, or a size is found out inside. Linear.
    """
    if loss.shape != () or not loss.dtype.is_float:
        raise ShapeError(f"a gradient is of a real scalar, not of {loss.type}")
    moved = _between(block, loss, wrt)
    if not moved:
        return [None] * len(wrt)
    _check(moved, wrt)
    owner = function or block.function
    inner = _with_constants(block, moved)
    arguments = _arguments(inner, owner)
    outlined = module.add_function(module.free_name(name), public=False)
    values = dict(zip(arguments, outlined.add_arguments(arguments, _roles(inner)), strict=True))
    for op in inner:
        outlined.block.append(clone_op(op, values))
    results = [loss, *(value for op in moved for value in op.results if value is not loss)]
    with Builder(outlined.block) as builder:
        builder.finish([values[value] for value in results])
    outlined.results = [Result() for _ in results]
    take_guards(outlined, owner)
    places = {value: i for i, value in enumerate(arguments)}
    reached = [value for value in dict.fromkeys(wrt) if value in places]
    attributes = native_gradient.make_attributes(function=outlined.name, wrt=[places[value] for value in reached])
    new = _record(module, Builder(block, _end(block), moved[-1].location, function=owner), arguments, attributes)
    _replace(block, moved, results, new)
    gradients = dict(zip(reached, new.results[len(results) :], strict=True))
    return [gradients.get(value) for value in wrt]


def _end(block: Block) -> Op | None:
    return block.last if isinstance(block.last, _TERMINATORS) else None


def _record(module: Module, builder: Builder, arguments: Sequence[Value], attributes: tuple[object, ...]) -> Op:
    assert native_gradient.call_rule is not None
    inferred = native_gradient.call_rule(module.functions, tuple(value.type for value in arguments), attributes)
    return builder.insert(native_gradient.op_class, tuple(arguments), inferred)


def _between(block: Block, loss: Value, wrt: Iterable[Value]) -> list[Op]:
    """The ops on paths from `wrt` to `loss`, in order."""
    dependent = set(wrt)
    for op in block:
        if any(value in dependent for value in op.operands):
            dependent.update(op.results)
    found: list[Op] = []
    needed = {loss}
    for op in reversed(block):
        if any(value in needed and value in dependent for value in op.results) and any(
            value in dependent for value in op.operands
        ):
            found.append(op)
            needed.update(value for value in op.operands if value is not None)
    return found[::-1]


def _check(moved: Sequence[Op], wrt: Sequence[Value]) -> None:
    chosen = set(wrt)
    for op in moved:
        if not chosen.isdisjoint(op.results):
            raise UnsupportedError(
                "gradients='native' differentiates by values of which none depends on another, and one does"
            ).at(str(op.location))
        if op.definition.introduces_symbols:
            raise UnsupportedError(
                f"{op.name} finds out a size inside of what is differentiated, which gradients='native' cannot have"
            ).at(str(op.location))


def _with_constants(block: Block, moved: Sequence[Op]) -> list[Op]:
    """The ops, with those that they read and that read nothing but constants; in order."""
    closed: set[Value] = set()
    for op in block:
        if all(value in closed for value in op.operands if value is not None) and not op.definition.has_effect:
            closed.update(op.results)
    inner = set(moved)
    pending = list(moved)
    while pending:
        for value in pending.pop().operands:
            if value in closed and value is not None and value.op is not None and value.op not in inner:
                inner.add(value.op)
                pending.append(value.op)
    return [op for op in block if op in inner]


def _arguments(inner: Sequence[Op], owner: Function | None) -> list[Value]:
    """What the ops read from outside, and parameters of `owner` for sizes that none of these binds."""
    made = {value for op in inner for value in op.results}
    found = dict.fromkeys(v for op in inner for v in op.operands if v is not None and v not in made)
    return [*found, *size_arguments(inner, list(found), owner)]


def _roles(ops: Sequence[Op]) -> dict[Value, str]:
    """What the first reader of each value calls the operand that it is."""
    found: dict[Value, str] = {}
    for op in ops:
        if op.definition.operands and not op.definition.variadic:
            for value, declared in zip(op.operands, op.definition.operands, strict=False):
                if value is not None:
                    found.setdefault(value, declared.name)
    return found


def _replace(block: Block, moved: Sequence[Op], results: Sequence[Value], new: Op) -> None:
    """Let `new` give the results of the moved ops, and whatever else depends on these stand after it."""
    gone = set(moved)
    after: set[Value] = set(results)
    readers: list[Op] = []
    for op in block:
        if op not in gone and op is not new and any(value in after for value in op.operands):
            after.update(op.results)
            readers.append(op)
    rewriter = Rewriter()
    rewriter.give(new, results, moved)
    end = _end(block)
    for op in readers:
        if op is not end:
            rewriter.move_before(op, end)


# --- after recording --------------------------------------------------------------------------------------------


def trim_outlined(module: Module, rewriter: Rewriter) -> list[Function]:
    """Drop results of `native_gradient` ops that nothing reads, and arguments that their functions do not read.

    Returns the functions that hand out less now.
    """
    users: dict[str, list[Op]] = {}
    for op in module.walk():
        if op.__class__ is native_gradient.op_class:
            users.setdefault(op.attributes[0], []).append(op)
    changed: list[Function] = []
    for name, ops in users.items():
        function = module.functions[name]
        count = len(function.results)
        kept = [i for i in range(count) if i == 0 or any(op.results[i].uses for op in ops)]
        if len(kept) < count:
            changed.append(function)
            terminator = function.block.terminator
            rewriter.set_operands(terminator, [terminator.operands[i] for i in kept])
            function.results = [function.results[i] for i in kept]
        for op in ops:
            wrt = op.attributes[1]
            read = [i for i in range(len(wrt)) if op.results[count + i].uses]
            if len(kept) < count or len(read) < len(wrt):
                attributes = native_gradient.make_attributes(function=name, wrt=[wrt[i] for i in read])
                rewriter.retain(op, op.operands, attributes, [*kept, *(count + i for i in read)])
    return changed
