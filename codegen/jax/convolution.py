"""Convolutions and their gradients in JAX: a gradient is the transpose of the convolution as a linear function."""

from __future__ import annotations

import math

from graphc.codegen.numpy.spelling import identity
from graphc.codegen.source.dialect import Spelled, Spelling
from graphc.codegen.source.geometry import geometry, kernel_shape, tuple_text, window_steps
from graphc.ir.dims import Size
from graphc.ir.dtypes import DType
from graphc.ir.graph import Op


def is_small(op: Op) -> bool:
    """Whether the window hardly fits into the image, for which XLA's own convolution takes a hundred times as long."""
    attributes = op.attribute_dict
    y = op.results[0] if op.name in ("conv", "convolution") else op.operands[0]
    assert y is not None
    counts: tuple[Size, ...] = y.type.shape[1:-1] if attributes["channels_last"] else y.type.shape[2:]
    *window, _, _ = kernel_shape(op)
    known = all(isinstance(size, int) for size in (*counts, *window))
    plain = known and attributes["groups"] == 1 and attributes["channels_last"] and y.dtype.is_float
    return plain and math.prod(counts) < math.prod(window)  # type: ignore[type-var]


def _function(op: Op) -> str:
    """The helper that convolves."""
    if is_small(op):
        return "convolution_of_small"
    return "convolution" if op.attribute_dict["channels_last"] else "convolution_channels_first"


def _kernel(op: Op) -> str:
    """The kernel as [*window, in / groups, out]."""
    if not op.attribute_dict["filters_first"]:
        return "{1}"
    return f"{{1}}.transpose({tuple_text((*range(2, len(kernel_shape(op))), 1, 0))})"


def convolution(op: Op) -> Spelled:
    return f"{_function(op)}({', '.join(['{0}', _kernel(op), *geometry(op)])})"


def conv(op: Op) -> Spelled | None:
    bias, x = op.operands[2], op.operands[0]
    assert x is not None
    if bias is None:
        return convolution(op)
    if op.attribute_dict["channels_last"]:
        return f"{convolution(op)} + {{2}}"
    return f"{convolution(op)} + {{2}}[:, {', '.join(['None'] * (x.ndim - 2))}]"


def input_gradient(op: Op) -> Spelled | None:
    """Of floats: nothing of integers has a transpose in JAX."""
    if not op.results[0].dtype.is_float:
        return None
    return f"input_gradient({', '.join([_function(op), '{0}', _kernel(op), '{shape}', *geometry(op)])})"


def kernel_gradient(op: Op) -> Spelled | None:
    if not op.results[0].dtype.is_float:
        return None
    first, ndim = op.attribute_dict["filters_first"], len(kernel_shape(op))
    order = (*range(2, ndim), 1, 0) if first else tuple(range(ndim))
    shape = f"({', '.join(f'{{shape.{axis}}}' for axis in order)})"
    text = f"kernel_gradient({', '.join([_function(op), '{0}', '{1}', shape, *geometry(op)])})"
    return f"{text}.transpose({tuple_text((ndim - 1, ndim - 2, *range(ndim - 2)))})" if first else text


# --- windows --------------------------------------------------------------------------------------------------------


def _identity(kind: str, dtype: DType) -> str:
    if kind == "sum" and dtype.is_float:
        return "0.0"
    start = identity(kind, dtype).replace("np.", "jnp.")
    if start.endswith("inf"):
        return start  # Python's number takes the array's dtype, and JAX knows the gradient
    return f"jnp.array({start}, jnp.{dtype})"


def reduce_window(op: Op) -> Spelled:
    attributes = op.attribute_dict
    strides, dilation = window_steps(op)
    function = {"max": "lax.max", "min": "lax.min", "sum": "lax.add"}[attributes["kind"]]
    start = _identity(attributes["kind"], op.results[0].dtype)
    padding = f'"{attributes["padding"].upper()}"' if isinstance(attributes["padding"], str) else "{padding}"
    steps = f", window_dilation={tuple_text(dilation)}" if set(dilation) != {1} else ""
    return f"lax.reduce_window({{0}}, {start}, {function}, {{window}}, {tuple_text(strides)}, {padding}{steps})"


def select(name: str) -> Spelling:
    """`select_and_scatter` and `select_and_gather`, place by place of the window: XLA's own takes five times as long,
    has no dilation, forgets NaN and lets padding win."""

    def spell(op: Op) -> Spelled:
        kind = op.attribute_dict["kind"]
        strides, dilation = window_steps(op)
        padding = op.attribute_dict["padding"]
        padding = f'"{padding}"' if isinstance(padding, str) else "{padding}"
        least = _identity(kind, op.results[0].dtype)
        steps = f"{{window}}, {tuple_text(strides)}, {padding}, {tuple_text(dilation)}"
        return f"select_and_{name}({{0}}, {{1}}, jnp.{kind}imum, {least}, {steps})"

    return spell
