"""`fuse`: from what was spelled out to the composite that targets have something better for."""

from __future__ import annotations

from typing import Any

from graphc.ir import ops
from graphc.ir.graph import Value
from graphc.ir.module import Module
from graphc.passes.driver import apply_rules
from graphc.passes.patterns import fusion
from graphc.passes.registry import register_pass


def silu(x: Any) -> Any:
    return x * ops.sigmoid(x)


def softmax(x: Any, *, axis: Any) -> Any:
    e = ops.exp(x - ops.reduce_max(x, axes=(axis,), keepdims=True))
    return e / ops.reduce_sum(e, axes=(axis,), keepdims=True)


def log_softmax(x: Any, *, axis: Any) -> Any:
    centred = x - ops.reduce_max(x, axes=(axis,), keepdims=True)
    return centred - ops.log(ops.reduce_sum(ops.exp(centred), axes=(axis,), keepdims=True))


def linear(x: Any, kernel: Any, bias: Any) -> Any:
    return ops.matmul(x, kernel) + bias


def is_linear(x: Value, kernel: Value, bias: Value) -> bool:
    """Whether the bias is a vector of a number for each column of the kernel."""
    return kernel.ndim == 2 and bias.ndim == 1 and bias.shape[0] is kernel.shape[1]


FUSIONS = [
    fusion(silu, ops.silu),
    fusion(softmax, ops.softmax),
    fusion(log_softmax, ops.log_softmax),
    fusion(linear, ops.linear, guard=is_linear),
]
"""What is spelled out, and the op that is the same."""


@register_pass("fuse")
def fuse(module: Module) -> None:
    """Recognise activations, softmax and linear layers that are spelled out in smaller ops."""
    while apply_rules(module, FUSIONS):
        pass
