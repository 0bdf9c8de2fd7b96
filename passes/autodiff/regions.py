"""Gradients through `cond`, `scan`, `call` and functions with a gradient of their own.

The body is copied and differentiated in place, which gives a block of forward and then backward ops. It is cut in two:
the forward part also hands out its residuals, the forward values that the backward part reads, and the backward part
takes them in. `cond` hands out the union of its branches' residuals, `scan` stacks them and is run backwards over
them, `call` becomes calls of two functions.
"""

from __future__ import annotations

from collections.abc import Sequence

from graphc.ir import ops
from graphc.ir.binding import bind_symbols
from graphc.ir.builder import Builder
from graphc.ir.cloning import inline_function
from graphc.ir.dims import Dim
from graphc.ir.graph import Function, Op, Region, Result, Value
from graphc.ir.ops.control import call_function, cond_op, scan_op
from graphc.ir.types import TensorType
from graphc.passes.autodiff.activity import is_inexact, loop_activity
from graphc.passes.autodiff.body import Body
from graphc.passes.autodiff.joint import Differentiator, Pair, zeros

Received = Sequence[Value | None]
Passed = list[Value | None]


def differentiate_region_op(
    differentiator: Differentiator, builder: Builder, op: Op, received: Received, active: set[Value]
) -> Passed:
    """The cotangents of the operands of a region op or call. The forward op gives way to one that hands out residuals.

    `differentiator.prepare` has made scans of loops.
    """
    if op.name == "cond":
        return _cond(differentiator, builder, op, received, active)
    if op.name == "scan":
        return _scan(differentiator, builder, op, received, active)
    if op.name == "custom_gradient":
        return _custom(differentiator, builder, op, received)
    return _call(differentiator, builder, op, received, active)


def _seed(cotangent: Value | None, like: Value) -> Value:
    return zeros(like) if cotangent is None else cotangent


def _indices(flags: Sequence[object]) -> list[int]:
    return [i for i, flag in enumerate(flags) if flag]


def _replaced(differentiator: Differentiator, op: Op, new: Op, after: Op | None) -> tuple[Value, ...]:
    """Let `new`, which stands after `after`, give the results of `op`; returns what it gives besides, residuals."""
    count = len(op.results)
    differentiator.rewriter.hand_over(op, new.results[:count], after)
    return new.results[count:]


# --- cond -------------------------------------------------------------------------------------------------------


def _cond(differentiator: Differentiator, builder: Builder, op: Op, received: Received, active: set[Value]) -> Passed:
    index, *captures = [v for v in op.operands if v is not None]
    seeded = _indices([cotangent is not None for cotangent in received])
    wanted = _indices([value in active for value in captures])
    function = builder.function
    bodies = [Body.of(differentiator, region.block, seeded, wanted, function) for region in op.regions]
    residuals = [body.residuals(set(body.parameters)) for body in bodies]
    slots, places = _slots([[value.type for value in branch] for branch in residuals])

    forward: list[Region] = []
    for body, branch, place in zip(bodies, residuals, places, strict=True):
        filled = dict(zip(place, branch, strict=True))

        def hand_out(values: dict[Value, Value], filled: dict[int, Value] = filled) -> list[Value]:
            return [values[filled[i]] if i in filled else zeros(type) for i, type in enumerate(slots)]

        forward.append(body.forward_region(function, hand_out))
    after = op.prev
    new = cond_op.build(
        differentiator.rewriter.before(op), (index, *captures), op.attributes, tuple(forward), op.location
    )
    kept = _replaced(differentiator, op, new, after)

    backward: list[Region] = []
    for body, branch, place in zip(bodies, residuals, places, strict=True):
        region = Region()
        values = {old: region.block.add_parameter(old.type, old.name) for old in body.parameters}
        taken = [region.block.add_parameter(type) for type in slots]
        values |= {old: taken[i] for old, i in zip(branch, place, strict=True)}
        values |= {seed: region.block.add_parameter(seed.type) for seed in body.seeds}
        body.backward_into(region.block, values, function, lambda found: found)
        backward.append(region)
    seeds = [cotangent for cotangent in received if cotangent is not None]
    found = cond_op.build(builder, (index, *captures, *kept, *seeds), None, tuple(backward)).results
    passed: Passed = [None] * len(op.operands)
    for i, value in zip(wanted, found, strict=True):
        passed[1 + i] = value
    return passed


def _slots(branches: Sequence[Sequence[TensorType]]) -> tuple[list[TensorType], list[list[int]]]:
    """The least list of types with room for the residuals of any one branch, and the place of each residual in it."""
    slots: list[TensorType] = []
    places: list[list[int]] = []
    for branch in branches:
        free = list(range(len(slots)))
        place: list[int] = []
        for type in branch:
            fitting = next((i for i in free if slots[i] is type), None)
            if fitting is None:
                fitting = len(slots)
                slots.append(type)
            else:
                free.remove(fitting)
            place.append(fitting)
        places.append(place)
    return slots, places


# --- scan -------------------------------------------------------------------------------------------------------


def _scan(differentiator: Differentiator, builder: Builder, op: Op, received: Received, active: set[Value]) -> Passed:
    """The reverse scan carries the cotangents of the carries and sums those of the captures."""
    attributes = op.attribute_dict
    carried: int = attributes["carried"]
    sliced: int = attributes["sliced"]
    operands = [v for v in op.operands if v is not None]
    captures = operands[carried + sliced :]
    live = loop_activity(differentiator.module, op, active)
    carries = _indices(live)
    stacks = [i for i in range(carried, len(received)) if received[i] is not None]
    slices = [carried + i for i in range(sliced) if operands[carried + i] in active]
    caught = [carried + sliced + i for i, value in enumerate(captures) if value in active]
    wanted = [*carries, *slices, *caught]
    body = Body.of(differentiator, op.regions[0].block, [*carries, *stacks], wanted, builder.function)
    at_hand = set(body.parameters[carried:])
    residuals = body.residuals(at_hand)
    read = body.read_parameters() & at_hand

    region = body.forward_region(builder.function, lambda values: [values[value] for value in residuals])
    after = op.prev
    new = scan_op.build(differentiator.rewriter.before(op), operands, op.attributes, (region,), op.location)
    kept = _replaced(differentiator, op, new, after)

    # Operands of the reverse scan: cotangents carried, sums carried; residuals, cotangents and slices cut; captures.
    xs = [i for i in range(carried, carried + sliced) if body.parameters[i] in read]
    outer = [i for i in range(carried + sliced, len(operands)) if body.parameters[i] in read]
    block = Region().block
    region = block.owner
    assert isinstance(region, Region)
    values: dict[Value, Value] = {}
    for seed in body.seeds[: len(carries)]:
        values[seed] = block.add_parameter(seed.type)
    sums = [block.add_parameter(body.parameters[i].type) for i in caught]
    for value in (*residuals, *body.seeds[len(carries) :], *(body.parameters[i] for i in (*xs, *outer))):
        values[value] = block.add_parameter(value.type, value.name)

    def yielded(found: list[Value]) -> list[Value]:
        first, last = len(carries), len(carries) + len(slices)
        totals: list[Value] = [ops.add(total, part) for total, part in zip(sums, found[last:], strict=True)]
        return [*found[:first], *totals, *found[first:last]]

    body.backward_into(block, values, builder.function, yielded)
    start = [*(_seed(received[i], operands[i]) for i in carries), *(zeros(operands[i]) for i in caught)]
    cut = [*kept, *(received[i] for i in stacks), *(operands[i] for i in xs)]
    reverse = scan_op.make_attributes(
        carried=len(start), sliced=len(cut), length=attributes["length"], reverse=not attributes["reverse"]
    )
    results = scan_op.build(builder, (*start, *cut, *(operands[i] for i in outer)), reverse, (region,)).results
    passed: Passed = [None] * len(operands)
    for i, value in zip([*carries, *caught, *slices], results, strict=True):
        passed[i] = value
    return passed


# --- call -------------------------------------------------------------------------------------------------------


def _call(differentiator: Differentiator, builder: Builder, op: Op, received: Received, active: set[Value]) -> Passed:
    """Call a forward function, and a backward one later; both are made once for each way a function is called."""
    operands = [v for v in op.operands if v is not None]
    callee = differentiator.module.functions[op.attributes[0]]
    seeded = _indices([cotangent is not None for cotangent in received])
    wanted = _indices([value in active for value in operands])
    forward, backward, read = differentiator.pair(callee, tuple(seeded), tuple(wanted), _make_pair)
    after = op.prev
    results = call_function(differentiator.rewriter.before(op), forward, operands, op.location)
    owner = results[0].op
    assert owner is not None
    kept = _replaced(differentiator, op, owner, after)
    seeds = [cotangent for cotangent in received if cotangent is not None]
    found = call_function(builder, backward, [*(operands[i] for i in read), *kept, *seeds])
    passed: Passed = [None] * len(operands)
    for i, value in zip(wanted, found, strict=True):
        passed[i] = value
    return passed


def _make_pair(differentiator: Differentiator, callee: Function, seeded: Sequence[int], wanted: Sequence[int]) -> Pair:
    """The forward and backward function of a callee, and which of its parameters the backward one takes."""
    module = differentiator.module
    forward = module.add_function(module.free_name(f"{callee.name}_forward"), public=False)
    body = Body.of(differentiator, callee.block, seeded, wanted, forward)
    at_hand = set(body.parameters)
    residuals = body.residuals(at_hand)
    read = _read_parameters(body, residuals)
    for parameter in callee.parameters:
        forward.add_parameter(parameter.type, parameter.value.name, parameter.role)
    forward.guards.update(callee.guards)
    body.forward_into(forward.block, forward, lambda values: [values[value] for value in residuals])
    forward.results = [Result() for _ in forward.outputs]

    backward = module.add_function(module.free_name(f"{callee.name}_backward"), public=False)
    taken = [*(body.parameters[i] for i in read), *residuals, *body.seeds]
    values = dict(zip(taken, backward.add_arguments(taken), strict=True))
    body.backward_into(backward.block, values, backward, lambda found: found)
    backward.results = [Result() for _ in backward.outputs]
    backward.guards.update(forward.guards)
    return forward, backward, read


def _read_parameters(body: Body, residuals: Sequence[Value]) -> list[int]:
    """The parameters that the backward part takes: those it reads, and those it needs for the symbols they bind."""
    reading = body.read_parameters()
    bound = {size for value in (*reading, *residuals, *body.seeds) for size in value.shape}
    for value in body.parameters:
        if any(size not in bound for size in value.shape if isinstance(size, Dim)):
            reading.add(value)
            bound.update(value.shape)
    return [i for i, value in enumerate(body.parameters) if value in reading]


# --- custom gradients -------------------------------------------------------------------------------------------


def _custom(differentiator: Differentiator, builder: Builder, op: Op, received: Received) -> Passed:
    """What the function that the op names as its gradient computes, written out."""
    attributes = op.attribute_dict
    function = differentiator.module.functions[attributes["gradient"]]
    outputs = zip(op.results[: attributes["outputs"]], received, strict=False)
    cotangents = [zeros(value) if seed is None else seed for value, seed in outputs if is_inexact(value)]
    arguments = [*(value for value in op.operands if value is not None), *op.results, *cotangents]
    bindings = bind_symbols(function, [value.shape for value in arguments])
    found = inline_function(builder, function, arguments, bindings)
    passed: Passed = [None] * len(op.operands)
    for i, value in zip(attributes["wrt"], found, strict=True):
        passed[i] = value
    return passed
