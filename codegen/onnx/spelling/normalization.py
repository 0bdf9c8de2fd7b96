"""Normalizations. Group norm decomposes: ONNX Runtime's loses all digits where the mean is large beside the variance.

ONNX keeps epsilon in float32, so float64 decomposes too.
"""

from __future__ import annotations

from typing import Any

from graphc.codegen.onnx.graph import GraphWriter, Tensor
from graphc.codegen.onnx.kernels import carrier
from graphc.ir.graph import Op
from graphc.ir.types import TensorType


def _type(op: Op) -> TensorType:
    return op.operands[0].type  # type: ignore[union-attr]


def batch_norm(
    graph: GraphWriter, op: Op, x: Tensor, mean: Tensor, variance: Tensor, scale: Tensor | None, offset: Tensor | None
) -> Tensor:
    channels = op.operands[1].type.shape  # type: ignore[union-attr]
    scale = scale or graph.constant([1] * channels[0], x.dtype)  # type: ignore[operator]
    offset = offset or graph.constant([0] * channels[0], x.dtype)  # type: ignore[operator]
    return graph.compute("BatchNormalization", x, scale, offset, mean, variance, epsilon=op.attributes[1])


def _has_channels_first(op: Op) -> bool:
    type, channels = _type(op), op.operands[1].type.shape[0]  # type: ignore[union-attr]
    known = isinstance(channels, int) or None not in op.operands
    return op.attributes[0] % type.ndim == 1 and known and carrier("BatchNormalization", type.dtype) is not None


def layer_norm(graph: GraphWriter, op: Op, x: Tensor, scale: Tensor | None, offset: Tensor | None) -> Tensor:
    axes, epsilon = op.attributes
    type = _type(op)
    first = min(axis % type.ndim for axis in axes)
    scale = scale or graph.full(type.shape[first:], 1, x.dtype)
    operands = [t for t in (x, scale, offset) if t is not None]
    return graph.compute("LayerNormalization", *operands, axis=first, epsilon=epsilon)


def _is_over_last_axes(op: Op) -> bool:
    type = _type(op)
    axes = sorted(axis % type.ndim for axis in op.attributes[0])
    return axes == list(range(axes[0], type.ndim)) and carrier("LayerNormalization", type.dtype) is not None


SPELLING: dict[str, Any] = {"batch_norm": batch_norm, "layer_norm": layer_norm}

WHEN: dict[str, Any] = {"batch_norm": _has_channels_first, "layer_norm": _is_over_last_axes}
