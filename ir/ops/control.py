"""Ops with regions: branches, loops and scans; and calls of other functions.

The functions here are how users and passes make them. Regions see only their parameters: values of the surrounding
code that a body mentions become captures, which are operands of the op and parameters of every region, in one order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from graphc.ir.attributes import FunctionRef
from graphc.ir.binding import bind_symbols
from graphc.ir.builder import Builder
from graphc.ir.dims import Guard, Size
from graphc.ir.dtypes import INTEGERS, bool_
from graphc.ir.errors import DTypeError, GraphcError, ShapeError
from graphc.ir.graph import Function, Op, Region, Value
from graphc.ir.inference import require_equal
from graphc.ir.opdef import AnyTensor, IndexTensor, Inferred, ambient, primitive
from graphc.ir.ops.structure import call, yield_
from graphc.ir.suggestions import number_of
from graphc.ir.types import TensorType

Body = Callable[..., Any]


@primitive(name="cond")
def cond_op(index: AnyTensor, *captures: AnyTensor) -> tuple[TensorType, ...]:
    """Run one of the regions: by a bool scalar the first when it holds, else the second; by an integer scalar the one
    of that index, clamped to those there are. Every region takes the captures and yields the results."""
    raise GraphcError("cond has regions; build it with graphc.ops.cond")


@primitive(name="while")
def while_op(*values: AnyTensor, carried: int, bound: Size | None = None) -> tuple[TensorType, ...]:
    """Repeat the second region while the first yields true. The first `carried` operands are the loop's values, the
    rest captures; both regions take all of them. The second yields the next values. `bound` promises that the loop
    runs no more often, and gives it a gradient."""
    raise GraphcError("while has regions; build it with graphc.ops.while_loop")


@primitive(name="scan")
def scan_op(
    *values: AnyTensor,
    carried: int,
    sliced: int,
    length: Size,
    reverse: bool = False,
) -> tuple[TensorType, ...]:
    """Run the region `length` times. The first `carried` operands are the initial carries, the next `sliced` are cut
    along their first axis, the rest are captures. The region takes (carries, slices, captures) and yields the next
    carries and a slice of each stacked result. Results: the last carries, then the stacks. `reverse` runs from the end
    (and stacks keep their place)."""
    raise GraphcError("scan has regions; build it with graphc.ops.scan")


def _yielded(region: Region) -> tuple[TensorType, ...]:
    return tuple(value.type for value in region.block.outputs)


def _check_parameters(region: Region, wanted: Sequence[TensorType], what: str) -> None:
    got = [value.type for value in region.block.parameters]
    if len(got) != len(wanted):
        raise ShapeError(f"{what} has {number_of(len(got), 'parameter')}, {number_of(len(wanted), 'is', 'are')} passed")
    for have, want in zip(got, wanted, strict=True):
        _same(have, want, f"a parameter of {what}")


def _same(have: TensorType, want: TensorType, what: str) -> None:
    if have.dtype is not want.dtype:
        raise DTypeError(f"{what} is {have}, but {want} is needed")
    if have.ndim != want.ndim:
        raise ShapeError(f"{what} is {have}, but {want} is needed")
    for a, b in zip(have.shape, want.shape, strict=True):
        require_equal(a, b, f"{what} is {have}, but {want} is needed")


def _cond_types(types: Sequence[TensorType], regions: Sequence[Region]) -> tuple[TensorType, ...]:
    index, *captures = types
    if index.shape != () or not (index.dtype is bool_ or index.dtype in INTEGERS):
        raise ShapeError(f"cond chooses by a bool or integer scalar, not {index}")
    if not regions or (index.dtype is bool_ and len(regions) != 2):
        raise ShapeError(f"cond by {index} has {len(regions)} branches")
    first = _yielded(regions[0])
    for number, region in enumerate(regions):
        _check_parameters(region, captures, f"branch {number}")
        results = _yielded(region)
        if len(results) != len(first):
            raise ShapeError(f"branch {number} yields {number_of(len(results), 'value')}, branch 0 yields {len(first)}")
        for have, want in zip(results, first, strict=True):
            _same(have, want, f"a result of branch {number}")
    return first


def _while_types(
    types: Sequence[TensorType], regions: Sequence[Region], *, carried: int, bound: Any
) -> tuple[TensorType, ...]:
    if isinstance(bound, int) and bound < 0:
        raise ShapeError(f"the bound of while is negative: {bound}")
    if len(regions) != 2:
        raise ShapeError(f"while has a condition and a body, not {len(regions)} regions")
    if not 0 <= carried <= len(types):
        raise ShapeError(f"while carries {carried} of {number_of(len(types), 'operand')}")
    condition, body = regions
    _check_parameters(condition, types, "the condition")
    _check_parameters(body, types, "the body")
    conditions = _yielded(condition)
    if len(conditions) != 1:
        raise ShapeError(f"the condition of while yields {number_of(len(conditions), 'value')}, not one")
    (holds,) = conditions
    if holds.dtype is not bool_ or holds.shape != ():
        raise ShapeError(f"the condition of while must yield a bool scalar, not {holds}")
    results = _yielded(body)
    if len(results) != carried:
        raise ShapeError(f"the body of while yields {number_of(len(results), 'value')} for {carried} carried ones")
    for have, want in zip(results, types[:carried], strict=True):
        _same(have, want, "a value the body yields")
    return tuple(types[:carried])


def _scan_types(
    types: Sequence[TensorType], regions: Sequence[Region], *, carried: int, sliced: int, length: Any, reverse: bool
) -> tuple[TensorType, ...]:
    if len(regions) != 1:
        raise ShapeError(f"scan has one region, its body, not {len(regions)}")
    if carried < 0 or sliced < 0 or carried + sliced > len(types):
        raise ShapeError(f"scan carries {carried} and cuts {sliced} of {number_of(len(types), 'operand')}")
    if isinstance(length, int) and length < 0:
        raise ShapeError(f"the length of scan is negative: {length}")
    (body,) = regions
    slices: list[TensorType] = []
    for type in types[carried : carried + sliced]:
        if type.ndim == 0:
            raise ShapeError("scan cuts its sliced operands along their first axis; a scalar has none")
        require_equal(type.shape[0], length, "the sliced operands of scan must have its length")
        slices.append(type.with_shape(type.shape[1:]))
    _check_parameters(body, [*types[:carried], *slices, *types[carried + sliced :]], "the body of scan")
    results = _yielded(body)
    if len(results) < carried:
        raise ShapeError(f"the body of scan yields {number_of(len(results), 'value')} for {carried} carried ones")
    for have, want in zip(results, types[:carried], strict=False):
        _same(have, want, "a value the body of scan carries on")
    return (*types[:carried], *(r.with_shape((length, *r.shape)) for r in results[carried:]))


cond_op.region_rule = lambda types, regions: _cond_types(types, regions)
while_op.region_rule = lambda types, regions, **attributes: _while_types(types, regions, **attributes)
scan_op.region_rule = lambda types, regions, **attributes: _scan_types(types, regions, **attributes)


def _builder() -> Builder:
    builder = ambient.get()
    if builder is None:
        raise GraphcError("regions are recorded while tracing; on arrays use Python's own control flow")
    return builder


def _region(outer: Builder, body: Body, types: Sequence[TensorType], what: str) -> tuple[Region, Any]:
    """A region with `body` recorded in it, and the structure of what it returned."""
    region = Region()
    parameters = [region.block.add_parameter(type) for type in types]
    inner = Builder(region.block, None, outer.location, outer.trace_lines, outer.function)
    with inner:
        found = body(*parameters)
        values = found if isinstance(found, (tuple, list)) else (found,)
        if any(value is None for value in values):
            raise GraphcError(f"{what} returned None")
        yield_.build(inner, inner.values(tuple(values), None, yield_))
    return region, found


def _capture(regions: Sequence[Region]) -> list[Value]:
    """Make what the regions read from outside into parameters of all of them; returns the outside values."""
    captured: dict[Value, int] = {}
    for region in regions:
        for op in region.block:
            for operand in op.operands:
                if operand is not None and operand.block is not region.block:
                    captured.setdefault(operand, len(captured))
    for region in regions:
        inner = {value: region.block.add_parameter(value.type, value.name) for value in captured}
        for op in region.block:
            if any(operand in inner for operand in op.operands if operand is not None):
                replace_operands(op, inner)
    return list(captured)


def replace_operands(op: Op, mapping: dict[Value, Value]) -> None:
    """Exchange operands of an op that is being built, with their uses."""
    new: list[Value | None] = []
    for old in op.operands:
        value = old if old is None else mapping.get(old, old)
        if old is not None and value is not None and value is not old:
            assert old.uses is not None
            if old.uses[op] == 1:
                del old.uses[op]
            else:
                old.uses[op] -= 1
            value.uses = value.uses or {}
            value.uses[op] = value.uses.get(op, 0) + 1
        new.append(value)
    op.operands = tuple(new)


def _unpack(op: Op, like: Any) -> Any:
    return op.results if isinstance(like, (tuple, list)) or len(op.results) != 1 else op.results[0]


def cond(index: Any, *branches: Body) -> Any:
    """The results of one of the branches, functions without arguments that all return the same types.

    `index` is a bool scalar (the first branch when true, else the second) or an integer scalar (clamped).
    """
    builder = _builder()
    choice = builder.value(index)
    built = [_region(builder, branch, [], f"branch {i}") for i, branch in enumerate(branches)]
    regions = tuple(region for region, _ in built)
    captures = _capture(regions)
    return _unpack(cond_op.build(builder, (choice, *captures), regions=regions), built[0][1])


def while_loop(condition: Body, body: Body, initial: Sequence[Any], bound: Any = None) -> tuple[Value, ...]:
    """Repeat `values = body(*values)` while `condition(*values)`, which holds at most `bound` times; returns the last
    values."""
    builder = _builder()
    values = [value for value in builder.values(tuple(initial), None, while_op) if value is not None]
    types = [value.type for value in values]
    regions = (_region(builder, condition, types, "the condition")[0], _region(builder, body, types, "the body")[0])
    captures = _capture(regions)
    attributes = while_op.make_attributes(carried=len(values), bound=bound)
    return while_op.build(builder, (*values, *captures), attributes, regions).results


def scan(
    body: Body, initial: Sequence[Any], xs: Sequence[Any] = (), *, length: Any = None, reverse: bool = False
) -> tuple[tuple[Value, ...], tuple[Value, ...]]:
    """Run `carries, stacked = body(carries, slices)` over the first axis of `xs`, all tuples of values.

    Returns the last carries and the stacked results. `length` is needed when there are no `xs`.
    """
    builder = _builder()
    carries = [value for value in builder.values(tuple(initial), None, scan_op) if value is not None]
    sliced = [value for value in builder.values(tuple(xs), None, scan_op) if value is not None]
    if length is None:
        if not sliced:
            raise ShapeError("scan without xs needs a length")
        length = sliced[0].shape[0]
    types = [value.type for value in carries] + [x.type.with_shape(x.shape[1:]) for x in sliced]

    def flat(*values: Value) -> Any:
        next_carries, stacked = body(tuple(values[: len(carries)]), tuple(values[len(carries) :]))
        if len(next_carries) != len(carries):
            on = number_of(len(next_carries), "value")
            raise ShapeError(f"the body of scan carries {on} on, {len(carries)} came in")
        return (*next_carries, *stacked)

    region, _ = _region(builder, flat, types, "the body")
    captures = _capture((region,))
    attributes = scan_op.make_attributes(carried=len(carries), sliced=len(sliced), length=length, reverse=reverse)
    results = scan_op.build(builder, (*carries, *sliced, *captures), attributes, (region,)).results
    return results[: len(carries)], results[len(carries) :]


def call_function(
    builder: Builder, function: Function, arguments: Sequence[Value], location: Any = None
) -> tuple[Value, ...]:
    """Record a call. The callee's symbols are bound by the arguments' shapes and its guards become the caller's."""
    inferred = infer_call(function, tuple(value.type for value in arguments))
    return builder.insert(call.op_class, tuple(arguments), inferred, (), location).results


def infer_call(function: Function, types: tuple[TensorType, ...]) -> Inferred:
    """Result types of a call with arguments of these types. Raises `ShapeError` or `DTypeError`."""
    results, guards = infer_function(function, types)
    return Inferred(call.make_attributes(callee=FunctionRef(function.name)), results, guards)


def infer_function(
    function: Function, types: tuple[TensorType, ...]
) -> tuple[tuple[TensorType, ...], tuple[Guard, ...]]:
    """Result types of a function for arguments of these types, and the guards that are left to the caller."""
    if len(types) != len(function.parameters):
        takes = number_of(len(function.parameters), "argument")
        raise ShapeError(f"@{function.name} takes {takes}, {number_of(len(types), 'was', 'were')} passed")
    for parameter, type in zip(function.parameters, types, strict=True):
        if type.dtype is not parameter.type.dtype:
            raise DTypeError(f"@{function.name} takes {parameter.type} for {parameter.name!r}, not {type}")
    bindings = bind_symbols(function, [type.shape for type in types])
    guards = [guard.substitute(bindings) for guard in function.guards]
    results = tuple(type.substitute(bindings) for type in function.result_types)
    return results, tuple(guard for guard in guards if guard.holds is None)


__all__ = ["IndexTensor", "call_function", "cond", "infer_call", "infer_function", "scan", "while_loop"]
