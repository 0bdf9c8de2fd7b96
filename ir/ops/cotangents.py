"""What gradient rules share: undoing a broadcast or a reduction, zeros, complex conjugates."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from graphc.ir import ops
from graphc.ir.dims import Size
from graphc.ir.dtypes import dtype
from graphc.ir.inference import is_literal


def unbroadcast(dy: Any, x: Any) -> Any:
    """A cotangent summed down to the shape of `x`, which was broadcast to that of `dy`."""
    lead = len(dy.shape) - len(x.shape)
    if lead:
        dy = ops.reduce_sum(dy, axes=range(lead))
    pairs = zip(dy.shape, x.shape, strict=True)
    stretched = [i for i, (wide, size) in enumerate(pairs) if is_literal(size, 1) and not is_literal(wide, 1)]
    return ops.reduce_sum(dy, axes=stretched, keepdims=True) if stretched else dy


def spread(dy: Any, x: Any, axes: Sequence[int], keepdims: bool = False) -> Any:
    """A cotangent of the reduction of `x` over `axes`, broadcast back to the shape of `x`."""
    return ops.broadcast(kept(dy, x, axes, keepdims), shape=x.shape)


def kept(dy: Any, x: Any, axes: Sequence[int], keepdims: bool = False) -> Any:
    """The result or cotangent of a reduction with the reduced `axes` of `x` kept, as sizes of 1."""
    return dy if keepdims else ops.reshape(dy, shape=[1 if i in axes else size for i, size in enumerate(x.shape)])


def zeros_like(x: Any) -> Any:
    """Zeros of the shape and dtype of `x`."""
    return ops.full(x.shape, 0, x.dtype)


def size_of(count: Size, x: Any) -> Any:
    """A size as a number to calculate with beside `x`: itself when known, else a scalar of the dtype of `x`."""
    return count if isinstance(count, int) else ops.convert(ops.dim_size(size=count), dtype=x.dtype)


def conjugate(x: Any) -> Any:
    """The complex conjugate; real tensors are their own."""
    return ops.conj(x) if x is not None and dtype(x.dtype).is_complex else x


def holomorphic(rule: Callable[..., Any]) -> Callable[..., Any]:
    """A gradient rule linear in `dy`, made right for complex operands: conj(rule(conj(dy))) is torch's convention."""

    def with_conjugates(dy: Any, y: Any, *operands: Any, **attributes: Any) -> Any:
        if not dtype(y.dtype).is_complex:
            return rule(dy, y, *operands, **attributes)
        found = rule(conjugate(dy), y, *operands, **attributes)
        return tuple(map(conjugate, found)) if isinstance(found, tuple) else conjugate(found)

    return with_conjugates


__all__ = ["conjugate", "holomorphic", "kept", "size_of", "spread", "unbroadcast", "zeros_like"]
