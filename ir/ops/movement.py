"""Ops that move elements by fixed rules: shapes, axes, parts, joins. None of them calculates.

Sizes may be symbolic wherever a shape, a start or a limit stands. What a rule cannot decide leaves a guard.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from graphc.ir import ops
from graphc.ir.attributes import Axes, Axis, Pairs, Shape
from graphc.ir.dims import Size, ceil_div, exact_div, floor_div, maximum, product, sum_of
from graphc.ir.dtypes import REAL, DType, i32
from graphc.ir.errors import DTypeError, ShapeError
from graphc.ir.inference import is_literal, permuted, require_at_most, require_equal, require_rank, shape_text
from graphc.ir.opdef import AnyTensor, Tensor, composite, primitive
from graphc.ir.ops.cotangents import unbroadcast, zeros_like
from graphc.ir.suggestions import number_of
from graphc.ir.types import TensorType

# --- shapes and axes ---------------------------------------------------------------------------------------------


@primitive
def reshape(x: AnyTensor, *, shape: Shape) -> TensorType:
    """The elements of `x` in row-major order under another shape of as many elements; one size may be -1."""
    require_equal(product(shape), product(x.shape), f"reshape of {x} to {shape_text(shape)} changes the element count")
    return x.with_shape(shape)


@reshape.canonical
def _(x, *, shape):
    if not any(is_literal(size, -1) for size in shape):
        return {}
    known = product(size for size in shape if not is_literal(size, -1))
    if sum(is_literal(size, -1) for size in shape) > 1 or known == 0:
        raise ShapeError(f"reshape of {x} to {shape_text(shape)}: only one size can be found")
    count = product(x.shape)
    rest = exact_div(count, known)  # where not known to divide, the type rule leaves a guard on the counts
    return {"shape": tuple((floor_div(count, known) if rest is None else rest) if s == -1 else s for s in shape)}


@reshape.reference
def _(x, *, shape):
    return np.reshape(x, shape)


@reshape.vjp
def _(dy, y, x, *, shape):
    return reshape(dy, shape=x.shape)


reshape.sample((2, 6), shape=(3, 4))
reshape.sample((2, 3, 4), shape=(2, -1))
reshape.sample((1,), shape=())
reshape.sample((0, 4), shape=(2, 0))


def squeeze(x: Any, axes: Sequence[int]) -> Any:
    """`x` without these axes, whose sizes are 1."""
    gone = {axis % len(x.shape) for axis in axes}
    return reshape(x, shape=[size for i, size in enumerate(x.shape) if i not in gone])


def expand_dims(x: Any, axes: Sequence[int]) -> Any:
    """`x` with axes of size 1 at these places of the result."""
    ndim = len(x.shape) + len(axes)
    new = {axis % ndim for axis in axes}
    sizes = iter(x.shape)
    return reshape(x, shape=[1 if i in new else next(sizes) for i in range(ndim)])


@primitive
def transpose(x: AnyTensor, *, permutation: tuple[int, ...]) -> TensorType:
    """`x` with its axes in another order: axis i of the result is axis `permutation[i]` of `x`."""
    return permuted(x, permutation)


@transpose.canonical
def _(x, *, permutation):
    return {"permutation": tuple(axis + x.ndim if axis < 0 else axis for axis in permutation)}


@transpose.reference
def _(x, *, permutation):
    return np.transpose(x, permutation)


@transpose.vjp
def _(dy, y, x, *, permutation):
    return transpose(dy, permutation=inverse(permutation))


def inverse(permutation: Sequence[int]) -> tuple[int, ...]:
    """The permutation that undoes this one."""
    return tuple(sorted(range(len(permutation)), key=[axis % len(permutation) for axis in permutation].__getitem__))


transpose.sample((2, 3, 4), permutation=(2, 0, 1))
transpose.sample((3, 0), permutation=(1, 0))
transpose.sample((), permutation=())


@primitive
def broadcast(x: AnyTensor, *, shape: Shape) -> TensorType:
    """`x` repeated to `shape`, as in NumPy: axes are added in front, and those of size 1 stretch."""
    lead = len(shape) - x.ndim
    if lead < 0:
        raise ShapeError(f"{x} has more axes than {shape_text(shape)}")
    for have, want in zip(x.shape, shape[lead:], strict=True):
        if not is_literal(have, 1):
            require_equal(have, want, f"broadcast of {x} to {shape_text(shape)}")
    return x.with_shape(shape)


@broadcast.reference
def _(x, *, shape):
    return np.broadcast_to(x, shape)


@broadcast.vjp
def _(dy, y, x, *, shape):
    return unbroadcast(dy, x)


broadcast.sample((3, 1), shape=(2, 3, 4))
broadcast.sample((), shape=(2, 0))
broadcast.sample((2, 3), shape=(2, 3))


def full(shape: Sequence[Size], value: Any, dtype: DType) -> Any:
    """A tensor that holds one number everywhere."""
    scalar = ops.constant(value=value, dtype=dtype)
    return broadcast(scalar, shape=shape) if shape else scalar


@primitive(dtypes=REAL)
def iota(*, shape: Shape, axis: int = 0, dtype: DType = i32) -> TensorType:
    """The index of each element along `axis`."""
    if dtype not in REAL:
        raise DTypeError(f"iota counts in integers or floats, not in {dtype}")
    if not 0 <= axis < len(shape):
        raise ShapeError(f"iota: axis {axis} is out of range for {shape_text(shape)}")
    return TensorType.of(dtype, shape)


@iota.canonical
def _(*, shape, axis, dtype):
    return {"axis": axis + len(shape) if axis < 0 else axis}


@iota.reference
def _(*, shape, axis, dtype):
    along = np.arange(shape[axis]).reshape([-1 if i == axis else 1 for i in range(len(shape))])
    return np.broadcast_to(along, shape)


iota.sample(shape=(4,))
iota.sample(shape=(2, 3), axis=1, dtype="float32")
iota.sample(shape=(3, 0), axis=-1, dtype="int64")


@primitive
def reverse(x: AnyTensor, *, axes: Axes) -> TensorType:
    """`x` read from the end along `axes`."""
    return x


@reverse.reference
def _(x, *, axes):
    return np.flip(x, axes)


@reverse.vjp
def _(dy, y, x, *, axes):
    return reverse(dy, axes=axes)


reverse.sample((2, 3), axes=(1,))
reverse.sample((2, 3, 2), axes=(0, -1))

# --- parts at fixed places ---------------------------------------------------------------------------------------


@primitive
def slice(
    x: AnyTensor,
    *,
    starts: Shape,
    limits: Shape,
    strides: tuple[int, ...] | None = None,
) -> TensorType:
    """Every `strides`-th element from `starts` up to but without `limits`, for each axis; 0 ≤ start ≤ limit ≤ size."""
    steps = strides or (1,) * x.ndim
    if not len(starts) == len(limits) == len(steps) == x.ndim:
        raise ShapeError(f"slice needs a start, a limit and a stride for each axis of {x}")
    sizes: list[Size] = []
    for size, start, limit, step in zip(x.shape, starts, limits, steps, strict=True):
        what = f"slice of {x} from {shape_text(starts)} to {shape_text(limits)}"
        if step < 1:
            raise ShapeError(f"{what}: the stride {step} is not positive; use reverse")
        require_at_most(0, start, what)
        require_at_most(start, limit, what)
        require_at_most(limit, size, what)
        sizes.append(ceil_div(limit - start, step))
    return x.with_shape(sizes)


@slice.canonical
def _(x, *, starts, limits, strides):
    return {"strides": None if strides is None or all(step == 1 for step in strides) else strides}


@slice.reference
def _(x, *, starts, limits, strides):
    return x[windows(starts, limits, strides)]


def windows(starts: Sequence[int], limits: Sequence[int], strides: Sequence[int] | None) -> tuple[Any, ...]:
    """The index of a slice in NumPy."""
    return tuple(np.s_[a:b:c] for a, b, c in zip(starts, limits, strides or [1] * len(starts), strict=True))


@slice.vjp
def _(dy, y, x, *, starts, limits, strides):
    steps = strides or (1,) * len(starts)
    spans = [spread_size(size, step - 1) for size, step in zip(dy.shape, steps, strict=True)]
    after = [size - start - span for size, start, span in zip(x.shape, starts, spans, strict=True)]
    return pad(dy, padding=list(zip(starts, after, strict=True)), interior=tuple(step - 1 for step in steps))


def spread_size(size: Size, gap: int) -> Size:
    """How many places `size` elements take with `gap` places between neighbours."""
    return size + maximum(size - 1, 0) * gap if gap else size


slice.sample((4, 5), starts=(1, 0), limits=(3, 5))
slice.sample((7, 4), starts=(1, 0), limits=(7, 3), strides=(3, 2))
slice.sample((3,), starts=(2,), limits=(2,))


@primitive
def pad(
    x: Tensor,
    *,
    padding: Pairs,
    interior: tuple[int, ...] | None = None,
    value: float = 0.0,
) -> TensorType:
    """`x` with `value` around it (`padding`: how many before and after, for each axis), and `interior` many of it
    between neighbouring elements."""
    gaps = interior or (0,) * x.ndim
    if len(padding) != x.ndim or len(gaps) != x.ndim or any(len(pair) != 2 for pair in padding):
        raise ShapeError(f"pad needs a pair of sizes for each axis of {x}")
    for before, after in padding:
        require_at_most(0, before, "pad adds elements; slice takes them away")
        require_at_most(0, after, "pad adds elements; slice takes them away")
    if any(gap < 0 for gap in gaps):
        raise ShapeError(f"pad: interior = {list(gaps)} is negative")
    if not (x.dtype.is_float or x.dtype.is_complex) and not holds(x.dtype, value):
        raise DTypeError(f"pad: the value {value!r} is not a {x.dtype}")
    return x.with_shape(
        sum_of((before, spread_size(size, gap), after))
        for size, gap, (before, after) in zip(x.shape, gaps, padding, strict=True)
    )


def holds(dtype: DType, value: float) -> bool:
    """Whether a number is one of an integer dtype or bool."""
    low, high = (0, 1) if dtype.is_bool else ops.integer_limits(dtype)
    return low <= value <= high and value == int(value)


@pad.canonical
def _(x, *, padding, interior, value):
    return {"interior": None if interior is None or not any(interior) else interior}


@pad.reference
def _(x, *, padding, interior, value):
    gaps = interior or (0,) * x.ndim
    spans = [spread_size(size, gap) for size, gap in zip(x.shape, gaps, strict=True)]
    shape = [before + span + after for span, (before, after) in zip(spans, padding, strict=True)]
    out = np.full(shape, x.dtype.type(value))
    starts = [before for before, _ in padding]
    limits = [start + span for start, span in zip(starts, spans, strict=True)]
    out[windows(starts, limits, [gap + 1 for gap in gaps])] = x
    return out


@pad.vjp
def _(dy, y, x, *, padding, interior, value):
    gaps = interior or (0,) * len(padding)
    starts = [before for before, _ in padding]
    limits = [start + spread_size(n, gap) for start, n, gap in zip(starts, x.shape, gaps, strict=True)]
    return slice(dy, starts=starts, limits=limits, strides=tuple(gap + 1 for gap in gaps))


pad.sample((2, 3), padding=((1, 0), (2, 1)))
pad.sample((3, 2), padding=((0, 1), (0, 0)), interior=(2, 0), value=3.0)
pad.sample((0,), padding=((1, 2),), value=-1.0)

# --- joins and splits --------------------------------------------------------------------------------------------


@primitive
def concat(*xs: Tensor, axis: Axis) -> TensorType:
    """The operands one after another along `axis`; their other sizes agree."""
    if not xs:
        raise ShapeError("concat needs at least one operand")
    first = xs[0]
    sizes = list(first.shape)
    for other in xs[1:]:
        require_rank(other, first.ndim, "the operands of concat")
        for i, size in enumerate(other.shape):
            if i != axis:
                sizes[i] = require_equal(sizes[i], size, f"concat along axis {axis} of {first} and {other}")
    sizes[axis] = sum_of(x.shape[axis] for x in xs)
    return first.with_shape(sizes)


@concat.reference
def _(*xs, axis):
    return np.concatenate(xs, axis)


@concat.vjp
def _(dy, y, *xs, axis):
    return list(cut(dy, [x.shape[axis] for x in xs], axis))


def cut(x: Any, sizes: Sequence[Size], axis: int) -> tuple[Any, ...]:
    """Consecutive parts of `x` of these sizes along `axis`."""
    axis %= len(x.shape)
    parts: list[Any] = []
    start: Size = 0
    for size in sizes:
        starts: list[Size] = [0] * len(x.shape)
        limits: list[Size] = list(x.shape)
        starts[axis], limits[axis] = start, start + size
        parts.append(slice(x, starts=starts, limits=limits))
        start = start + size
    return tuple(parts)


concat.sample((2, 3), (1, 3), axis=0)
concat.sample((2, 3), (2, 0), (2, 2), axis=-1)
concat.sample((2,), axis=0)


@composite
def split(x: AnyTensor, *, sizes: Shape, axis: int = 0) -> tuple[AnyTensor, ...]:
    """Consecutive parts of `x` of these sizes along `axis`; together they are all of it."""
    if not -x.ndim <= axis < x.ndim:
        has = number_of(x.ndim, "axis", "axes")
        raise ShapeError(f"split: axis {axis} is out of range for {x.type}, which has {has}")
    total = sum_of(sizes)
    parts = cut(x, sizes, axis)
    require_equal(total, x.shape[axis], f"split of {x.type} along axis {axis} into {shape_text(sizes)}")
    return parts


@split.reference
def _(x, *, sizes, axis):
    return tuple(np.split(x, np.cumsum(sizes)[:-1], axis))


@split.vjp
def _(dy, y, x, *, sizes, axis):
    present = [zeros_like(part) if d is None else d for d, part in zip(dy, y, strict=True)]
    return concat(*present, axis=axis)


split.sample((5, 2), sizes=(2, 0, 3))
split.sample((2, 4), sizes=(1, 3), axis=-1)


def movement_flops(*operands: Any, **attributes: Any) -> int:
    return 0


for _op in (
    reshape,
    transpose,
    broadcast,
    iota,
    reverse,
    slice,
    pad,
    concat,
    split,
):
    _op.flops(movement_flops)
