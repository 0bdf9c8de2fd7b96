"""How NumPy and SciPy hold values, for plans of memory."""

from __future__ import annotations

from collections.abc import Callable

from graphc.codegen.source.strided import is_view
from graphc.ir.analysis.liveness import Memory
from graphc.ir.graph import Op
from graphc.ir.types import TensorType

COPIES = {"softmax": 1, "log_softmax": 2, "layer_norm": 1, "rms_norm": 1, "silu": 1}
"""Arrays as large as the result that an op holds besides: softmax has the shifted operand and its exponential."""

LOSS_COPIES = 3
"""Arrays as large as the scores that `sparse_cross_entropy` holds."""


def workspace(op: Op, size: Callable[[TensorType], int]) -> int:
    """Bytes beside operands and results; convolutions have the windows of the padded input one by one (im2col)."""
    if op.name in COPIES:
        return COPIES[op.name] * size(op.results[0].type)
    if op.name == "sparse_cross_entropy":
        return LOSS_COPIES * _of(op, 0, size)
    if op.name in ("conv", "convolution"):
        return _of(op, 0, size) + _windows(op.results[0].type, _type(op, 1), size)
    if op.name == "convolution_kernel_gradient":
        return _of(op, 1, size) + _windows(_type(op, 0), op.results[0].type, size)
    if op.name == "convolution_input_gradient":
        return size(op.results[0].type) + _windows(_type(op, 0), _type(op, 1), size)
    return 0


def _type(op: Op, index: int) -> TensorType:
    value = op.operands[index]
    assert value is not None
    return value.type


def _of(op: Op, index: int, size: Callable[[TensorType], int]) -> int:
    return size(_type(op, index))


def _windows(image: TensorType, kernel: TensorType, size: Callable[[TensorType], int]) -> int:
    """For each element of an image without its filters, one window of all channels."""
    filters = kernel.shape[-1]
    channels = image.dtype.size
    elements = size(image) // max(channels, 1)
    per_window = size(kernel) // max(channels, 1)
    assert isinstance(filters, int)
    return elements // max(filters, 1) * (per_window // max(filters, 1)) * channels


MEMORY = Memory(is_view, workspace, slack=0.03)
