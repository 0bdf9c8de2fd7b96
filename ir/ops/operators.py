"""Python's operators and indexing, on values of the graph and on anything else that ops can record.

`Operators` is a mixin: its methods call the ops, which record the result or, for a symbolic tensor of the DSL, hand it
to that. Importing this module gives `Value` the same methods. They mean what NumPy's do: `/` divides truly, `//` and
`%` round down, comparisons compare elements. So while something is traced, `==` on values is no test of identity, nor
is `in` on a tuple of them: compare with `is`, and look values up in dicts and sets, which go by identity.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from graphc.ir import ops
from graphc.ir.dims import Dim, Size, as_size, less_equal, maximum, minimum
from graphc.ir.dtypes import BOOL, INTEGERS, dtype, f32
from graphc.ir.errors import ShapeError
from graphc.ir.graph import Value
from graphc.ir.inference import is_literal
from graphc.ir.opdef import ambient
from graphc.ir.suggestions import number_of


class Operators:
    """Operators by ops; the class that mixes it in has `shape` and `dtype`, and its objects can be operands."""

    __slots__ = ()

    # NumPy arrays on the left leave the operation to the value on the right.
    __array_priority__ = 1000

    def __neg__(self) -> Any:
        return ops.neg(self)

    def __pos__(self) -> Any:
        return self

    def __abs__(self) -> Any:
        return ops.abs(self)

    def __invert__(self) -> Any:
        return ops.not_(self)

    def __add__(self, other: Any) -> Any:
        return ops.add(self, other)

    def __radd__(self, other: Any) -> Any:
        return ops.add(other, self)

    def __sub__(self, other: Any) -> Any:
        return ops.sub(self, other)

    def __rsub__(self, other: Any) -> Any:
        return ops.sub(other, self)

    def __mul__(self, other: Any) -> Any:
        return ops.mul(self, other)

    def __rmul__(self, other: Any) -> Any:
        return ops.mul(other, self)

    def __truediv__(self, other: Any) -> Any:
        return ops.div(inexact(self), inexact(other))

    def __rtruediv__(self, other: Any) -> Any:
        return ops.div(inexact(other), inexact(self))

    def __floordiv__(self, other: Any) -> Any:
        return ops.floor_div(self, other)

    def __rfloordiv__(self, other: Any) -> Any:
        return ops.floor_div(other, self)

    def __mod__(self, other: Any) -> Any:
        return ops.mod(self, other)

    def __rmod__(self, other: Any) -> Any:
        return ops.mod(other, self)

    def __divmod__(self, other: Any) -> Any:
        return ops.floor_div(self, other), ops.mod(self, other)

    def __pow__(self, other: Any) -> Any:
        return ops.square(self) if type(other) is int and other == 2 else ops.pow(self, other)

    def __rpow__(self, other: Any) -> Any:
        return ops.pow(other, self)

    def __matmul__(self, other: Any) -> Any:
        return ops.matmul(self, other)

    def __rmatmul__(self, other: Any) -> Any:
        return ops.matmul(other, self)

    def __and__(self, other: Any) -> Any:
        return ops.and_(self, other)

    def __rand__(self, other: Any) -> Any:
        return ops.and_(other, self)

    def __or__(self, other: Any) -> Any:
        return ops.or_(self, other)

    def __ror__(self, other: Any) -> Any:
        return ops.or_(other, self)

    def __xor__(self, other: Any) -> Any:
        return ops.xor(self, other)

    def __rxor__(self, other: Any) -> Any:
        return ops.xor(other, self)

    def __lshift__(self, other: Any) -> Any:
        return ops.shift_left(self, other)

    def __rlshift__(self, other: Any) -> Any:
        return ops.shift_left(other, self)

    def __rshift__(self, other: Any) -> Any:
        return ops.shift_right(self, other)

    def __rrshift__(self, other: Any) -> Any:
        return ops.shift_right(other, self)

    def __lt__(self, other: Any) -> Any:
        return ops.lt(self, other)

    def __le__(self, other: Any) -> Any:
        return ops.le(self, other)

    def __gt__(self, other: Any) -> Any:
        return ops.gt(self, other)

    def __ge__(self, other: Any) -> Any:
        return ops.ge(self, other)

    def __eq__(self, other: Any) -> Any:
        return self is other if compares_identity(self, other) else ops.eq(self, other)

    def __ne__(self, other: Any) -> Any:
        return self is not other if compares_identity(self, other) else ops.ne(self, other)

    __hash__ = object.__hash__

    def __getitem__(self, index: Any) -> Any:
        return indexed(self, index)

    def __iter__(self) -> Iterator[Any]:
        return rows(self)

    @property
    def T(self) -> Any:
        """The axes in reverse order."""
        return reversed_axes(self)

    def reshape(self, *shape: Any) -> Any:
        """`ops.reshape`, with the sizes as arguments or as one sequence."""
        sizes = shape[0] if len(shape) == 1 and isinstance(shape[0], Sequence) else shape
        return ops.reshape(self, shape=sizes)

    def astype(self, dtype: Any) -> Any:
        """`ops.convert`."""
        return ops.convert(self, dtype=dtype)


def compares_identity(x: Any, other: Any) -> bool:
    """Whether `x == other` can only ask for identity: beside None, or between values where nothing is traced."""
    return other is None or (isinstance(x, Value) and isinstance(other, Value) and ambient.get() is None)


def rows(x: Any) -> Iterator[Any]:
    """The slices along the first axis, whose size must be known."""
    if not x.shape:
        raise TypeError("iteration over a scalar")
    if isinstance(x.shape[0], Dim):
        raise ShapeError(f"iteration over an axis of symbolic size {x.shape[0]}; use graphc.ops.scan")
    return (indexed(x, i) for i in range(x.shape[0]))


def reversed_axes(x: Any) -> Any:
    return ops.transpose(x, permutation=tuple(range(len(x.shape)))[::-1])


def inexact(x: Any) -> Any:
    """An operand of `/`: integers and bools as float32."""
    of = getattr(x, "dtype", None)
    return x if of is None or dtype(of) not in INTEGERS | BOOL else ops.convert(x, dtype=f32)


def indexed(x: Any, index: Any) -> Any:
    """`x[index]` with integers, slices, None and `...`, as in NumPy; sizes may be symbolic."""
    entries = list(index) if isinstance(index, tuple) else [index]
    taken = sum(entry is not None and entry is not ... for entry in entries)
    if taken > len(x.shape):
        raise ShapeError(f"{taken} indices for {number_of(len(x.shape), 'axis', 'axes')}")
    dots = [i for i, entry in enumerate(entries) if entry is ...] or [len(entries)]
    if len(dots) > 1:
        raise ShapeError("an index has at most one `...`")
    entries[dots[0] : dots[0] + 1] = [slice(None)] * (len(x.shape) - taken)
    starts: list[Size] = []
    limits: list[Size] = []
    strides: list[int] = []
    backward: list[int] = []
    shape: list[Size | None] = []  # None: as long as the slice is
    sizes = iter(x.shape)
    for entry in entries:
        if entry is None:
            shape.append(1)
            continue
        size = next(sizes)
        if isinstance(entry, slice):
            start, limit, step = bounded(entry, size)
            if step < 0:
                backward.append(len(starts))
            shape.append(None)
        else:
            start, step = position(entry, size), 1
            limit = start + 1
        starts.append(start)
        limits.append(limit)
        strides.append(abs(step))
    if backward:
        x = ops.reverse(x, axes=backward)
    whole = all(is_literal(a, 0) and b == n for a, b, n in zip(starts, limits, x.shape, strict=True))
    if not whole or any(stride > 1 for stride in strides):
        x = ops.slice(x, starts=starts, limits=limits, strides=tuple(strides))
    kept = [i for i, entry in enumerate(e for e in entries if e is not None) if isinstance(entry, slice)]
    lengths = iter([x.shape[i] for i in kept])
    wanted = [next(lengths) if size is None else size for size in shape]
    return x if len(kept) == len(wanted) == len(x.shape) else ops.reshape(x, shape=wanted)


def position(entry: Any, size: Size) -> Size:
    """An integer index counted from the front. Raises `ShapeError` where it is known to lie outside."""
    try:
        at = as_size(entry)
    except TypeError:
        raise ShapeError(
            f"indices are integers, slices, None or `...`, not {entry!r}; for indices that are data use graphc.ops.take"
        ) from None
    found = size + at if isinstance(at, int) and at < 0 else at
    if less_equal(0, found) is False or less_equal(size, found) is True:
        raise ShapeError(f"index {at} is out of range for an axis of size {size}")
    return found


def bounded(entry: Any, size: Size) -> tuple[Size, Size, int]:
    """Start, limit and step of a slice within `size`. With a negative step, start and limit count from the end."""
    step = 1 if entry.step is None else int(entry.step)
    if step == 0:
        raise ShapeError("the step of a slice is not 0")
    place = from_front if step > 0 else from_end
    start = 0 if entry.start is None else place(as_size(entry.start), size)
    limit = size if entry.stop is None else place(as_size(entry.stop), size)
    return start, maximum(start, limit), step


def from_front(end: Size, size: Size) -> Size:
    """An end of a slice with a positive step, as NumPy reads it: within the axis."""
    if isinstance(end, int) and end < 0:
        return maximum(size + end, 0)
    return minimum(maximum(end, 0), size)


def from_end(end: Size, size: Size) -> Size:
    """An end of a slice with a negative step, counted from the last element: place i is place size - 1 - i."""
    if isinstance(end, int) and end < 0:
        return minimum(-end - 1, size)
    return minimum(maximum(size - 1 - end, 0), size)


for _name, _method in vars(Operators).items():
    if _name not in ("__module__", "__doc__", "__slots__", "__annotations__", "__dict__", "__weakref__"):
        setattr(Value, _name, _method)

__all__ = ["Operators"]
