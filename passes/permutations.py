"""Algebra of axis orders: axis i of `transpose(x, permutation=p)` is axis `p[i]` of `x`."""

from __future__ import annotations

from collections.abc import Sequence

from graphc.ir.dims import Size

Permutation = tuple[int, ...]


def is_identity(permutation: Sequence[int]) -> bool:
    return all(i == axis for i, axis in enumerate(permutation))


def identity(ndim: int) -> Permutation:
    return tuple(range(ndim))


def compose(first: Sequence[int], second: Sequence[int]) -> Permutation:
    """transpose(transpose(x, first), second) = transpose(x, compose(first, second))"""
    return tuple(first[axis] for axis in second)


def inverse(permutation: Sequence[int]) -> Permutation:
    """The permutation that undoes this one."""
    out = [0] * len(permutation)
    for i, axis in enumerate(permutation):
        out[axis] = i
    return tuple(out)


def without(permutation: Sequence[int], axes: Sequence[int]) -> Permutation:
    """The order in which the other axes stand when `axes` (of the original) are gone from both sides."""
    kept = [axis for axis in permutation if axis not in axes]
    rank = {axis: i for i, axis in enumerate(sorted(kept))}
    return tuple(rank[axis] for axis in kept)


def moves_only_ones(shape: Sequence[Size], permutation: Sequence[int]) -> bool:
    """Whether the axes longer than 1 keep their order, so that the transpose is a reshape."""
    long = [axis for axis in permutation if not _is_one(shape[axis])]
    return long == sorted(long)


def _is_one(size: Size) -> bool:
    return isinstance(size, int) and size == 1


def channels_first(ndim: int) -> Permutation:
    """From [B, *spatial, C] to [B, C, *spatial]."""
    return (0, ndim - 1, *range(1, ndim - 1))


def channels_last(ndim: int) -> Permutation:
    """From [B, C, *spatial] to [B, *spatial, C]."""
    return (0, *range(2, ndim), 1)


def filters_first(ndim: int) -> Permutation:
    """Of kernels, from [*window, C / groups, F] to [F, C / groups, *window]."""
    return (ndim - 1, ndim - 2, *range(ndim - 2))
