"""Geometry of sliding windows: sizes and padding, shared by convolution, pooling and the targets that spell them.

Along one axis of size S, a window of k elements that lie `dilation` apart covers `dilation*(k - 1) + 1` places and
moves by `stride`. Padding is explicit pairs (low, high), "valid" (none), or "same": the result has ceil(S / stride)
elements and the padding that this takes is split evenly, the odd element on the high side, as TensorFlow and Keras do.
Under "same" the padding depends on S, so it stays "same" where S is symbolic.
"""

from __future__ import annotations

from collections.abc import Sequence

from graphc.ir.attributes import Padding
from graphc.ir.dims import Size, ceil_div, less_equal, maximum
from graphc.ir.errors import ShapeError
from graphc.ir.inference import is_literal, require_at_most
from graphc.ir.suggestions import number_of
from graphc.ir.types import Shape


def check_lengths(what: str, rank: int, **attributes: Sequence[object] | str | None) -> None:
    """Demand that each attribute has one entry for each of `rank` axes, which are `what`."""
    for name, value in attributes.items():
        if value is not None and not isinstance(value, str) and len(value) != rank:
            has = number_of(len(value), "entry", "entries")
            raise ShapeError(f"{name} = {_text(value)} has {has}, but there are {rank} {what}")


def check_positive(**attributes: Sequence[Size]) -> None:
    """Demand that strides, dilations and windows are at least 1."""
    for name, value in attributes.items():
        if any(isinstance(entry, int) and entry < 1 for entry in value):
            raise ShapeError(f"{name} = {_text(value)} must be at least 1 everywhere")


def covered(window: Size, dilation: int) -> Size:
    """How many places a window reaches over."""
    return dilation * (window - 1) + 1


def padding_pairs(
    sizes: Shape, window: Shape, strides: Sequence[int], padding: Padding, dilation: Sequence[int]
) -> tuple[tuple[Size, Size], ...]:
    """The padding of each axis as (low, high), which for "same" depends on the sizes."""
    if padding == "valid":
        return ((0, 0),) * len(sizes)
    if not isinstance(padding, str):
        return tuple(padding)
    pairs: list[tuple[Size, Size]] = []
    for size, k, stride, d in zip(sizes, window, strides, dilation, strict=True):
        total = maximum((ceil_div(size, stride) - 1) * stride + covered(k, d) - size, 0)
        low = total // 2
        pairs.append((low, total - low))
    return tuple(pairs)


def window_counts(
    sizes: Shape, window: Shape, strides: Sequence[int], padding: Padding, dilation: Sequence[int]
) -> Shape:
    """How many windows there are along each axis: the spatial sizes of the result.

    Raises `ShapeError` where a window is known not to fit the padded axis; a guard is left where that is not known.
    """
    if padding == "same":
        return tuple(ceil_div(size, stride) for size, stride in zip(sizes, strides, strict=True))
    counts: list[Size] = []
    pairs = padding_pairs(sizes, window, strides, padding, dilation)
    for size, k, stride, (low, high), d in zip(sizes, window, strides, pairs, dilation, strict=True):
        if (isinstance(low, int) and low < 0) or (isinstance(high, int) and high < 0):
            raise ShapeError(f"padding ({low}, {high}) is negative; use slice to cut elements off")
        padded, reach = size + low + high, covered(k, d)
        if not is_literal(reach, 1):  # a window of one element fits an axis of none: no times
            what = f"a window that covers {reach} elements does not fit an axis of {padded}"
            if less_equal(reach, padded) is False:
                raise ShapeError(what)
            require_at_most(reach - low - high, size, what)
        counts.append((padded - reach) // stride + 1)
    return tuple(counts)


def _text(value: Sequence[object]) -> str:
    return "[" + ", ".join(map(str, value)) + "]"
