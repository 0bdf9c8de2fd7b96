"""Geometry of convolutions and pools as native graphs want it: numbers for each spatial axis, kernels filters first."""

from __future__ import annotations

from typing import Any

from graphc.ir.dims import Size
from graphc.ir.sliding import padding_pairs
from graphc.ir.types import Shape


class Geometry:
    """The attributes of a convolution or pool of `x`, a shape with batch and channels, along its spatial axes."""

    def __init__(self, x: Shape, window: Shape, attributes: dict[str, Any]) -> None:
        self.channels_last: bool = attributes["channels_last"]
        self.window = window
        self.padding: Any = attributes["padding"]
        self.strides: tuple[int, ...] = attributes["strides"]
        self.dilation: tuple[int, ...] = attributes.get("dilation") or (1,) * len(window)
        self.spatial = range(1, len(x) - 1) if self.channels_last else range(2, len(x))
        self.sizes: Shape = tuple(x[axis] for axis in self.spatial)
        self.pairs = padding_pairs(self.sizes, window, self.strides, self.padding, self.dilation)

    @property
    def is_known(self) -> bool:
        """Whether the padding is numbers."""
        return all(isinstance(size, int) for pair in self.pairs for size in pair)

    @property
    def before(self) -> tuple[Size, ...]:
        """The padding before each axis."""
        return tuple(low for low, _ in self.pairs)

    @property
    def after(self) -> tuple[Size, ...]:
        return tuple(high for _, high in self.pairs)


def filters_first(ndim: int) -> tuple[int, ...]:
    """The permutation of a kernel from [*window, in / groups, out] to [out, in / groups, *window]."""
    return (ndim - 1, ndim - 2, *range(ndim - 2))


def channels_first(ndim: int) -> tuple[int, ...]:
    """The permutation of an image from channels last."""
    return (0, ndim - 1, *range(1, ndim - 1))


def channels_last(ndim: int) -> tuple[int, ...]:
    """The permutation of an image from channels first."""
    return (0, *range(2, ndim), 1)
