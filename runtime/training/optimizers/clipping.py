"""Gradients made smaller where they are too large."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphc.frontends import ops


def by_norm(gradient: Any, limit: float) -> Any:
    """The gradient, scaled so that its Euclidean norm is `limit` at most."""
    return gradient * limit / ops.maximum(ops.sqrt(ops.sum(ops.square(gradient))), limit)


def by_global_norm(gradients: Sequence[Any], limit: float) -> list[Any]:
    """The gradients, scaled by one factor so that their norm as one vector is `limit` at most."""
    squares = [ops.cast(ops.sum(ops.square(gradient)), "float32") for gradient in gradients]
    total = squares[0]
    for square in squares[1:]:
        total = total + square
    norm = ops.sqrt(total)
    # Not limit / max(norm, limit): an infinite norm must spoil the gradients, which a factor of 0 would hide.
    scale = limit * ops.minimum(1.0 / norm, 1.0 / limit)
    scale = scale + (norm - norm)
    return [gradient * ops.cast(scale, gradient.dtype) for gradient in gradients]


__all__ = ["by_global_norm", "by_norm"]
