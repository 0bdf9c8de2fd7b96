"""How PyTorch holds values on the CPU, for plans of memory; its profiler's allocation events say so."""

from __future__ import annotations

from collections.abc import Callable

from graphc.codegen.source.strided import is_view
from graphc.codegen.torch.convolution import is_copied
from graphc.codegen.torch.windows import is_reordered
from graphc.ir.analysis.liveness import Memory
from graphc.ir.graph import Op
from graphc.ir.types import TensorType

KERNELS = {"conv": 2, "convolution": 2, "convolution_input_gradient": 2}
"""Copies of the kernel that an op holds: in the order of axes torch wants, and in oneDNN's blocks; only the latter of a
kernel with its filters first."""

KERNEL_GRADIENTS = 4
"""Copies of a kernel's gradient that are held besides; half as many with its filters first, as oneDNN has it."""

ATTENTION = {"attention_with_logsumexp": (0.3, 1.2), "attention_gradient_with_logsumexp": (0.5, 2.3)}
"""Copies of the (first) result that attention holds besides; the second number for causal attention, which goes by
blocks of queries, each with its mask, and puts their results together."""

LABELS = 6
"""Bytes for each of a label's that the gradient of a cross-entropy holds: where it is a class, which, what is taken."""

POOLS = {"max_pool": 8, "reduce_window": 8, "select_and_gather": 16, "select_and_scatter": 16}
"""Bytes for each window, of which there are as many as elements of the smallest tensor: a 64-bit place, which the
gradients also have in another order."""


def workspace(op: Op, size: Callable[[TensorType], int]) -> int:
    """Bytes beside operands and results."""
    if op.name in KERNELS and (kernel := op.operands[1]) is not None:
        copies = KERNELS[op.name]
        return (copies // 2 if op.attribute_dict["filters_first"] else copies) * size(kernel.type)
    if op.name in POOLS:
        smallest = min((v.type for v in (*op.operands, *op.results) if v is not None and v.ndim), key=size)
        places = POOLS[op.name] * 8 * size(smallest) // smallest.dtype.bits
        reordered = [v for v in (*op.operands, *op.results) if v is not None] if is_reordered(op) else []
        return places + sum(size(v.type) for v in reordered)
    if op.name == "lora_mlp" and (kernel := op.operands[2]) is not None:
        return size(op.results[1].type.with_shape([*op.results[1].shape[:-1], kernel.shape[0]]))
    if op.name == "rope" and (cos := op.operands[1]) is not None:
        return 2 * size(cos.type)
    if op.name == "sparse_cross_entropy_gradient" and (labels := op.operands[2]) is not None:
        return LABELS * size(labels.type)
    if op.name in ATTENTION:
        whole, by_blocks = ATTENTION[op.name]
        return int((by_blocks if op.attribute_dict["causal"] else whole) * size(op.results[0].type))
    if op.name == "convolution_kernel_gradient":
        copies = KERNEL_GRADIENTS // 2 if op.attribute_dict["filters_first"] else KERNEL_GRADIENTS
        return copies * size(op.results[0].type)
    return 0


def is_shared(op: Op) -> bool:
    """Whether the result is a view of the operand."""
    return is_view(op) and not is_copied(op)


MEMORY = Memory(is_shared, workspace, slack=0.02)
