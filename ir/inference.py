"""What type rules are written with: broadcasting, reductions, and demands on sizes.

A demand that holds for every size passes, one that never holds raises `ShapeError`, and one that depends on the sizes
leaves a guard on the function, to be checked once at entry.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import reduce

from graphc.ir.dims import Dim, Guard, Size, equal, less_equal
from graphc.ir.errors import ShapeError
from graphc.ir.opdef import ambient, recorded_guards
from graphc.ir.types import Shape, TensorType


def require_equal(a: Size, b: Size, what: str) -> Size:
    """Demand `a == b`; returns the one to go on with (an int where either is). `what` says what the sizes are."""
    if a is b:
        return a
    answer = equal(a, b)
    if answer is False:
        raise ShapeError(f"{what}: {a} is not {b}")
    if answer is None:
        _leave(Guard("==", a, b))
    return b if isinstance(b, int) and not isinstance(a, int) else a


def require_at_most(a: Size, b: Size, what: str) -> None:
    """Demand `a <= b`."""
    answer = less_equal(a, b)
    if answer is False:
        raise ShapeError(f"{what}: {a} is more than {b}")
    if answer is None:
        _leave(Guard("<=", a, b))


def require_rank(x: TensorType, rank: int, what: str) -> None:
    if x.ndim != rank:
        raise ShapeError(f"{what} must have {rank} axes, not {x.ndim} ({x})")


def _leave(guard: Guard) -> None:
    """Leave a guard with the type rule that is run, else (in a composite's body) with the function that is built."""
    guards = recorded_guards.get()
    if guards is not None:
        guards.append(guard)
        return
    builder = ambient.get()
    if builder is None:
        raise ShapeError(f"whether {guard} holds is not known")
    builder.add_guards((guard,))


def broadcast_sizes(a: Size, b: Size) -> Size:
    """The size of two axes that meet in a broadcast; only a literal 1 stretches."""
    if a is b or b == 1:
        return a
    if a == 1:
        return b
    return require_equal(a, b, "sizes that meet in a broadcast must be equal, or one of them 1")


def broadcast_shapes(*shapes: Shape) -> Shape:
    """NumPy's broadcast of shapes. Raises `ShapeError` where two sizes are known to differ."""
    return reduce(_broadcast_two, shapes)


def _broadcast_two(a: Shape, b: Shape) -> Shape:
    if a is b or a == b:
        return a
    if len(a) < len(b):
        a, b = b, a
    lead = len(a) - len(b)
    try:
        return a[:lead] + tuple(broadcast_sizes(p, q) for p, q in zip(a[lead:], b, strict=True))
    except ShapeError:
        raise ShapeError(f"shapes {shape_text(a)} and {shape_text(b)} do not broadcast") from None


def reduced(x: TensorType, axes: Sequence[int], keepdims: bool) -> TensorType:
    """The type after reducing `axes` (counted from the front)."""
    if keepdims:
        return x.with_shape(1 if i in axes else size for i, size in enumerate(x.shape))
    return x.with_shape(size for i, size in enumerate(x.shape) if i not in axes)


def permuted(x: TensorType, permutation: Sequence[int]) -> TensorType:
    if sorted(permutation) != list(range(x.ndim)):
        raise ShapeError(f"{list(permutation)} is not a permutation of the axes of {x}")
    return x.with_shape(x.shape[i] for i in permutation)


def shape_text(shape: Iterable[Size]) -> str:
    return f"[{', '.join(map(str, shape))}]"


def is_literal(size: Size, value: int) -> bool:
    return not isinstance(size, Dim) and size == value
