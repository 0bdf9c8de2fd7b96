"""Kernels stored in the shape in which they are read.

A kernel of heads [model, heads, place] is read as a matrix, that of a depthwise convolution [*window, in, multiplier]
as one of groups [*window, 1, in · multiplier]. Stored so, each of their outputs is a channel of a format.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from graphc.ir import ops
from graphc.ir.adapting import uses_of
from graphc.ir.graph import Op, Value
from graphc.ir.module import Module
from graphc.ir.recipes import Reshape
from graphc.ir.rewriter import Rewriter
from graphc.passes.fold_weights import WeightGroup, store, weight_groups

Shape = tuple[int, ...]


def read_shape(kernel: Value) -> Shape:
    """The shape in which a kernel is read: by the first embedding, else the first product or convolution; its own where
    there is none."""
    uses = [use for use in uses_of(kernel) if use.kind is not None]
    uses.sort(key=lambda use: use.kind != "embedding")
    value = uses[0].value if uses else kernel
    shape = tuple(size for size in value.shape if isinstance(size, int))
    return shape[::-1] if uses and uses[0].flipped else shape


def store_as_read(module: Module, names: Iterable[str]) -> None:
    """Store these weights in the shape in which they are read, in place; one that an entry updates stays."""
    chosen = set(names)
    shapes: dict[str, Shape] = {}
    for group in weight_groups(module):
        written = any(r.updates is p for function, p in group.parameters for r in function.results)
        if group.source.name in chosen and group.parameters and not written:
            shapes[group.source.name] = read_shape(group.parameters[0][1].value)
    store_in_shapes(module, shapes)


def store_in_shapes(module: Module, shapes: Mapping[str, Shape]) -> None:
    """Store weights in other shapes over the same elements, in place."""
    with Rewriter() as rewriter:
        for group in weight_groups(module):
            shape = shapes.get(group.source.name)
            if shape is not None and shape != group.source.type.shape:
                _reshape(group, shape, rewriter)


def _reshape(group: WeightGroup, shape: Shape, rewriter: Rewriter) -> None:
    before = tuple(size for size in group.source.type.shape if isinstance(size, int))
    type = group.source.type.with_shape(shape)
    store(group, Reshape(before, shape), type)
    for _, parameter in group.parameters:
        value = parameter.value
        readers: list[Op] = list(value.uses or ())
        rewriter.set_type(value, type)
        for op in readers:
            if op.definition is ops.reshape and op.result.shape == shape:
                rewriter.replace(op, value)
                continue
            with rewriter.before(op):
                back = ops.reshape(value, shape=before)
            rewriter.set_operands(op, [back if operand is value else operand for operand in op.operands])  # type: ignore[misc]


__all__ = ["read_shape", "store_as_read", "store_in_shapes"]
