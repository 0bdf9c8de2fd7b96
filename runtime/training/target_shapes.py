"""Which shapes targets have for a loss or metric, so that none is met by broadcasting in silence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from graphc.ir.dims import equal
from graphc.ir.errors import ShapeError

Shape = tuple[Any, ...]
Fit = tuple[Shape, Shape]
"""The shape that targets have to have, and the one they have, both without or with a last axis of size 1."""
F = TypeVar("F", bound=Callable[..., Any])

_wanted: dict[Any, Callable[..., Fit]] = {}


def wants(fit: Callable[..., Fit]) -> Callable[[F], F]:
    """Decorator: the targets of this function of targets and predictions have shapes that fit so."""

    def declare(fn: F) -> F:
        _wanted[fn] = fit
        return fn

    return declare


def fit_for(fn: Any) -> Callable[..., Fit] | None:
    """How the targets of a function fit its predictions, where that is declared."""
    return _wanted.get(fn) if callable(fn) and fn.__hash__ is not None else None


def one_each(target: Shape, prediction: Shape) -> Fit:
    """A target for each number of the predictions; a last axis of size 1 may be missing on either side."""
    for short, long in ((target, prediction), (prediction, target)):
        if len(long) == len(short) + 1 and _is_one(long[-1]):
            short_is_target = short is target
            short, long = ((*short, 1), long) if len(short) == 1 else (short, long[:-1])
            return (long, short) if short_is_target else (short, long)
    return prediction, target


def a_class_each(target: Shape, prediction: Shape, axis: int = -1) -> Fit:
    """A class in place of the scores along `axis`, which may have size 1 in the targets."""
    axis %= max(len(prediction), 1)
    wanted = tuple(size for i, size in enumerate(prediction) if i != axis)
    same = len(target) == len(prediction) and axis < len(target) and _is_one(target[axis])
    return wanted, tuple(size for i, size in enumerate(target) if i != axis) if same else target


def require(fit: Fit, what: str, output: str, target: Shape, prediction: Shape) -> None:
    """Raise `ShapeError` for targets whose shape cannot be the one that `what` wants."""
    wanted, have = fit
    if len(wanted) != len(have) or any(equal(a, b) is False for a, b in zip(wanted, have, strict=True)):
        raise ShapeError(
            f"{what} of the output {output!r} wants targets of shape {shown(wanted)}, for predictions of shape "
            f"{shown(prediction)}; y has the shape {shown(target)}"
        )


def shown(shape: Shape) -> str:
    """The shape as Python writes it, with names for open sizes."""
    return f"({', '.join(map(str, shape))}{',' if len(shape) == 1 else ''})"


def _is_one(size: Any) -> bool:
    return isinstance(size, int) and size == 1
