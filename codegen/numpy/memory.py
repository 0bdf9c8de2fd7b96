"""How NumPy and SciPy hold values, for plans of memory."""

from __future__ import annotations

from collections.abc import Callable

from graphc.codegen.source.strided import is_view
from graphc.ir.analysis.liveness import Memory
from graphc.ir.dims import Size
from graphc.ir.graph import Op
from graphc.ir.types import TensorType

COPIES = {
    "softmax": 1,
    "log_softmax": 2,
    "layer_norm": 1,
    "rms_norm": 1,
    "rope": 1,
    "silu": 1,
    "sparse_cross_entropy_gradient": 1,
}
"""Arrays as large as the result that an op holds besides: softmax has the shifted operand and its exponential."""

LOSS_COPIES = 3
"""Arrays as large as the scores that `sparse_cross_entropy` holds."""

PLACES = 6
"""Arrays as large as one number for each window, of 64-bit places and what is made of them."""


def workspace(op: Op, size: Callable[[TensorType], int]) -> int:
    """Bytes beside operands and results.

    A convolution has its padded input and a row of channels for each element of each window (im2col); its gradients
    have those of one element of the windows at a time, and that of the kernel as many elements of `dy`.
    """
    if op.name in COPIES:
        return COPIES[op.name] * size(op.results[0].type)
    if op.name in ("select_and_scatter", "select_and_gather"):
        return PLACES * min(size(_type(op, 0)), size(_type(op, 1)))
    if op.name == "linear" and op.operands[2] is not None:
        return size(op.results[0].type)  # the product, to which the bias is added
    if op.name == "sparse_cross_entropy":
        return LOSS_COPIES * size(_type(op, 0))
    if op.name in ("conv", "convolution"):
        windows = size(op.results[0].type) // _filters(op, _type(op, 1))  # bytes of one number for each window
        return size(_type(op, 0)) + windows * (_elements(_type(op, 1), size) // _filters(op, _type(op, 1)))
    if op.name == "convolution_kernel_gradient":
        kernel = op.results[0].type
        return size(_type(op, 0)) + size(_type(op, 0)) // _filters(op, kernel) * _depth(op, kernel)
    if op.name == "convolution_input_gradient":
        kernel = _type(op, 1)
        return size(_type(op, 0)) // _filters(op, kernel) * _depth(op, kernel)
    return 0


def _type(op: Op, index: int) -> TensorType:
    value = op.operands[index]
    assert value is not None
    return value.type


def _elements(type: TensorType, size: Callable[[TensorType], int]) -> int:
    return size(type) // max(int(type.dtype.size), 1)


def _filters(op: Op, kernel: TensorType) -> int:
    return _literal(kernel.shape[0 if op.attribute_dict["filters_first"] else -1])


def _depth(op: Op, kernel: TensorType) -> int:
    """Channels of the input, in each group."""
    return _literal(kernel.shape[1 if op.attribute_dict["filters_first"] else -2])


def _literal(size: Size) -> int:
    """A size of a kernel, none of which is 0 here; symbolic ones are not planned for."""
    return size if isinstance(size, int) and size > 0 else 1


MEMORY = Memory(is_view, workspace, slack=0.03)
