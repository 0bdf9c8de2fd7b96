"""How XLA holds values on the CPU, for plans of memory; its buffer assignment says so."""

from __future__ import annotations

import math
from collections.abc import Callable

from graphc.codegen.jax.convolution import is_small
from graphc.codegen.source.geometry import kernel_shape
from graphc.ir.analysis.liveness import VIEWS, Memory
from graphc.ir.dims import Size
from graphc.ir.graph import Op
from graphc.ir.types import TensorType
from graphc.passes.elementwise import is_elementwise

MOVED = frozenset({"broadcast", "iota", "pad", "reshape", "slice", "transpose"})
"""Ops besides elementwise ones that become part of the loop that reads them."""


def workspace(op: Op, size: Callable[[TensorType], int]) -> int:
    """Bytes beside operands and results.

    Where a convolution is a product (`convolution_of_small`), a row of channels for each element of each window, for
    the gradient of the input also as many padded images as the window has elements. Other gradients have their operands
    in another order.
    """
    if op.name not in ("conv", "convolution", "convolution_input_gradient", "convolution_kernel_gradient"):
        return 0
    operands = [value.type for value in op.operands if value is not None]
    if not is_small(op):
        if op.name == "convolution_kernel_gradient":
            return size(operands[0]) + size(operands[1])
        return size(operands[1]) if op.name == "convolution_input_gradient" else 0
    *window, depth, filters = kernel_shape(op)
    y = op.results[0].type if op.name in ("conv", "convolution") else operands[0]
    places = math.prod(_literal(n) for n in window)
    rows = size(y) // _literal(filters) * _literal(depth) * places
    if op.name != "convolution_input_gradient":
        return rows
    x = op.results[0].type
    padded = math.prod(
        (_literal(n) + _literal(k) - 1) / _literal(n) for n, k in zip(x.shape[1:-1], window, strict=True)
    )
    return rows + int(places * padded * size(x))


def _literal(size: Size) -> int:
    """A size of a kernel, none of which is 0 here; symbolic ones are not planned for."""
    return size if isinstance(size, int) and size > 0 else 1


def _is_view(op: Op) -> bool:
    return op.name in VIEWS


def _is_free(op: Op) -> bool:
    return op.name in MOVED or is_elementwise(op)


SLACK = 0.15
"""XLA's temporaries are up to 13 % more than the plan: room between its buffers (5 %), and the operands of what
it makes part of the loops that read it, held in its place."""

MEMORY = Memory(_is_view, workspace, slack=SLACK, is_free=_is_free, in_place=True)
