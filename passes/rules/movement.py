"""Reshapes, transposes, slices and joins that cancel or meet. Part of `canonicalize`."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from graphc.ir import ops
from graphc.ir.dims import Size, equal, less_equal
from graphc.ir.graph import Value
from graphc.ir.rewriter import Rewriter
from graphc.passes.driver import Rewritten, producer, rule
from graphc.passes.elementwise import is_elementwise
from graphc.passes.permutations import compose, is_identity

# --- reshape, transpose, broadcast, reverse -------------------------------------------------------------------------


@rule(ops.reshape, ops.broadcast)
def to_the_same_shape(op: Any, rewriter: Rewriter) -> Rewritten:
    """reshape(x, its shape) = broadcast(x, its shape) = x"""
    return op.x if op.x.type is op.results[0].type else None


@rule(ops.reshape)
def reshapes_compose(op: Any, rewriter: Rewriter) -> Rewritten:
    """reshape(reshape(x, s), t) = reshape(x, t)"""
    inner = producer(op.x, ops.reshape)
    return None if inner is None else ops.reshape(inner.x, shape=op.shape)


@rule(ops.transpose)
def transpose_of_nothing(op: Any, rewriter: Rewriter) -> Rewritten:
    """transpose(x, identity) = x"""
    return op.x if is_identity(op.permutation) else None


@rule(ops.transpose)
def transposes_compose(op: Any, rewriter: Rewriter) -> Rewritten:
    """transpose(transpose(x, p), q) = transpose(x, p∘q)"""
    inner = producer(op.x, ops.transpose)
    return None if inner is None else ops.transpose(inner.x, permutation=compose(inner.permutation, op.permutation))


@rule(ops.broadcast)
def broadcasts_compose(op: Any, rewriter: Rewriter) -> Rewritten:
    """broadcast(broadcast(x, s), t) = broadcast(x, t)"""
    inner = producer(op.x, ops.broadcast)
    return None if inner is None else ops.broadcast(inner.x, shape=op.shape)


@rule(ops.broadcast)
def first_axes_come_by_themselves(op: Any, rewriter: Rewriter) -> Rewritten:
    """broadcast(reshape(x, [1, …, *its shape]), s) = broadcast(x, s)"""
    inner = producer(op.x, ops.reshape)
    if inner is None:
        return None
    shape, kept = inner.results[0].type.shape, inner.x.type.shape
    more = len(shape) - len(kept)
    if more < 1 or shape[more:] != kept or any(size != 1 for size in shape[:more]):
        return None
    return ops.broadcast(inner.x, shape=op.shape)


@rule(ops.reshape)
def scalars_in_any_shape(op: Any, rewriter: Rewriter) -> Rewritten:
    """reshape(broadcast(x, s), t) = broadcast(x, t) for a scalar x"""
    inner = producer(op.x, ops.broadcast)
    return None if inner is None or inner.x.ndim else ops.broadcast(inner.x, shape=op.shape)


@rule(ops.broadcast)
def readers_broadcast_themselves(op: Any, rewriter: Rewriter) -> Rewritten:
    """f(broadcast(x), y) = f(x, y) for an elementwise f whose result stays as it is"""
    result: Value = op.results[0]
    x: Value = op.x
    changed: Rewritten = None
    for user in list(result.uses or ()):
        # A composite may look at the shapes of its operands, as norms do.
        if len(user.operands) < 2 or user.definition.is_composite or not is_elementwise(user):
            continue
        operands = [x if v is result else v for v in user.operands]
        inferred = user.definition.infer(tuple([None if v is None else v.type for v in operands]), user.attributes)
        if inferred.types[0] is user.results[0].type and not inferred.guards:
            rewriter.set_operands(user, operands)
            changed = True
    return changed


@rule(of=[ops.broadcast])
def broadcasts_sink(op: Any, rewriter: Rewriter) -> Rewritten:
    """f(broadcast(x), number) = broadcast(f(x, number)) for an elementwise f"""
    if op.definition.is_composite or not is_elementwise(op):
        return None
    inner = [producer(value, ops.broadcast) for value in op.operands]
    rest = [value for value, made in zip(op.operands, inner, strict=True) if made is None]
    if len(op.operands) - len(rest) != 1 or any(value is not None and value.shape != () for value in rest):
        return None
    operands = tuple([v if made is None else made.x for v, made in zip(op.operands, inner, strict=True)])
    small = op.definition.build(rewriter.before(op), operands, op.attributes)
    return ops.broadcast(small.results[0], shape=op.results[0].shape)


@rule(ops.reverse)
def reverse_of_nothing(op: Any, rewriter: Rewriter) -> Rewritten:
    """reverse(x) along axes of size 1 = x"""
    return op.x if all(_is(op.x.shape[axis], 1) for axis in op.axes) else None


@rule(ops.reverse)
def reverses_compose(op: Any, rewriter: Rewriter) -> Rewritten:
    """reverse(reverse(x, a), b) = reverse(x, a xor b)"""
    inner = producer(op.x, ops.reverse)
    return None if inner is None else ops.reverse(inner.x, axes=tuple(sorted({*inner.axes} ^ {*op.axes})))


# --- slice, concat, pad ---------------------------------------------------------------------------------------------


def _is(size: Size, value: int) -> bool:
    return isinstance(size, int) and size == value


def _same(a: Size, b: Size) -> bool:
    return a is b or equal(a, b) is True


@rule(ops.slice)
def slice_of_all(op: Any, rewriter: Rewriter) -> Rewritten:
    """x from its start to its end = x"""
    return op.x if op.strides is None and op.results[0].type is op.x.type and _all_zero(op.starts) else None


def _all_zero(sizes: Sequence[Size]) -> bool:
    return all(_is(size, 0) for size in sizes)


@rule(ops.slice)
def slices_compose(op: Any, rewriter: Rewriter) -> Rewritten:
    """x[a:b][c:d:s] = x[a + c:a + d:s]"""
    inner = producer(op.x, ops.slice)
    if inner is None or inner.strides is not None:
        return None
    starts = [a + c for a, c in zip(inner.starts, op.starts, strict=True)]
    limits = [a + d for a, d in zip(inner.starts, op.limits, strict=True)]
    return ops.slice(inner.x, starts=starts, limits=limits, strides=op.strides)


@rule(ops.slice)
def slice_of_concat(op: Any, rewriter: Rewriter) -> Rewritten:
    """A slice that lies in one of the parts is a slice of that part."""
    inner = producer(op.x, ops.concat)
    if inner is None:
        return None
    axis: int = inner.axis
    start, limit = op.starts[axis], op.limits[axis]
    begin: Size = 0
    for part in inner.operands:
        end = begin + part.shape[axis]
        if less_equal(begin, start) is not True:
            return None
        if less_equal(limit, end) is True:
            starts, limits = list(op.starts), list(op.limits)
            starts[axis], limits[axis] = start - begin, limit - begin
            return ops.slice(part, starts=starts, limits=limits, strides=op.strides)
        begin = end
    return None


@rule(ops.concat)
def concat_of_one(op: Any, rewriter: Rewriter) -> Rewritten:
    """concat(x) = x"""
    return op.operands[0] if len(op.operands) == 1 else None


@rule(ops.concat)
def concat_with_nothing(op: Any, rewriter: Rewriter) -> Rewritten:
    """Parts of size 0 are left out."""
    kept = [x for x in op.operands if not _is(x.shape[op.axis], 0)]
    if len(kept) == len(op.operands) or not kept:
        return None
    return ops.concat(*kept, axis=op.axis)


@rule(ops.concat)
def concats_compose(op: Any, rewriter: Rewriter) -> Rewritten:
    """concat(concat(x, y), z) = concat(x, y, z), if nothing else reads the inner one"""
    parts: list[Value] = []
    for x in op.operands:
        inner = producer(x, ops.concat)
        if inner is not None and inner.axis == op.axis and x.use_count == 1:
            parts.extend(inner.operands)
        else:
            parts.append(x)
    return ops.concat(*parts, axis=op.axis) if len(parts) > len(op.operands) else None


@rule(ops.concat)
def concat_of_consecutive_slices(op: Any, rewriter: Rewriter) -> Rewritten:
    """concat(x[a:b], x[b:c]) = x[a:c]"""
    parts: list[Any] = [producer(x, ops.slice) for x in op.operands]
    first = parts[0]
    if len(parts) < 2 or any(p is None or p.x is not first.x or p.strides is not None for p in parts):
        return None
    axis = op.axis
    for before, after in pairwise(parts):
        if not _same(before.limits[axis], after.starts[axis]):
            return None
        others = (i for i in range(first.x.ndim) if i != axis)
        if not all(
            _same(before.starts[i], after.starts[i]) and _same(before.limits[i], after.limits[i]) for i in others
        ):
            return None
    return ops.slice(first.x, starts=first.starts, limits=parts[-1].limits)


@rule(ops.pad)
def pad_with_nothing(op: Any, rewriter: Rewriter) -> Rewritten:
    """pad(x) by nothing = x"""
    return op.x if op.interior is None and all(_all_zero(pair) for pair in op.padding) else None


@rule(ops.pad)
def pads_compose(op: Any, rewriter: Rewriter) -> Rewritten:
    """pad(pad(x, p), q) = pad(x, p + q) with one value"""
    inner = producer(op.x, ops.pad)
    if inner is None or op.interior is not None or inner.interior is not None or repr(op.value) != repr(inner.value):
        return None
    padding = [(a + c, b + d) for (a, b), (c, d) in zip(inner.padding, op.padding, strict=True)]
    return ops.pad(inner.x, padding=padding, value=op.value)


# --- reductions -----------------------------------------------------------------------------------------------------


@rule(ops.reduce_max, ops.reduce_min, ops.reduce_all, ops.reduce_any)
def reduction_of_nothing(op: Any, rewriter: Rewriter) -> Rewritten:
    """A maximum over no axes is the operand itself; so are the others."""
    return op.x if not op.axes else None


@rule(ops.reduce_max, ops.reduce_min, ops.reduce_all, ops.reduce_any)
def reductions_compose(op: Any, rewriter: Rewriter) -> Rewritten:
    """max over b of max over a of x = max over a and b of x, if both keep the axes or both drop them; not of floats,
    where it can be another zero"""
    inner = producer(op.x, op.definition)
    if inner is None or inner.keepdims is not op.keepdims or op.x.dtype.is_float:
        return None
    axes = {*inner.axes}
    left = [axis for axis in range(inner.x.ndim) if op.keepdims or axis not in axes]
    axes |= {left[axis] for axis in op.axes}
    return op.definition(inner.x, axes=tuple(sorted(axes)), keepdims=op.keepdims)
