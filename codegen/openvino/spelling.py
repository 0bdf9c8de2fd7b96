"""How each op is written in OpenVINO's op set.

`SPELLING`: op name → function of the builder, the op and the nodes of its operands. `TYPES` are the dtypes each is
spelled on, `WHEN` the conditions of some on shapes and attributes. What is refused is decomposed where it can be.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from graphc.codegen.openvino.graph import ELEMENT_TYPES, ModelBuilder, Node
from graphc.codegen.windows import Geometry, channels_first, channels_last, filters_first
from graphc.ir.dims import Size, bounds, product
from graphc.ir.dtypes import DType, bool_, f32, i8, i16, i32, i64, u8, u16
from graphc.ir.graph import Op, Value
from graphc.ir.ops.casting import integer_limits
from graphc.ir.recipes import Permute, Reshape, Step
from graphc.ir.types import TensorType

FLOAT = frozenset({f32})
NUMBERS = frozenset({f32, i32})
STORED = frozenset({f32, i32, i8, i16, u8, u16, bool_})


def _type(op: Op, index: int = 0) -> TensorType:
    return op.operands[index].type  # type: ignore[union-attr]


def native(kind: str) -> Any:
    return lambda graph, op, *operands: graph.add(kind, *operands)


def same(graph: ModelBuilder, op: Op, x: Node) -> Node:
    return x


def constant(graph: ModelBuilder, op: Op) -> Node:
    value, dtype = op.attributes
    return graph.constant(np.asarray(value), dtype)


def convert(graph: ModelBuilder, op: Op, x: Node) -> Node:
    """Of a float, clamped before: the plugin's own conversion wraps."""
    (dtype,) = op.attributes
    source = _type(op).dtype
    if source is dtype:
        return x
    if dtype.is_bool:
        return graph.add("not_equal", x, graph.constant(0, source))
    if source.is_float and dtype.is_integer:
        return _saturated(graph, x, dtype)
    return graph.add("convert", x, destination_type=ELEMENT_TYPES[dtype])


def _saturated(graph: ModelBuilder, x: Node, dtype: DType) -> Node:
    low, high = integer_limits(dtype)
    x = graph.add("select", graph.add("is_nan", x), graph.constant(0, f32), x)
    below = float(np.nextafter(np.float32(high + 1), np.float32(0)))  # the greatest float32 that fits
    inside = graph.add("clamp", x, float(low), below)
    found = graph.add("convert", inside, destination_type=ELEMENT_TYPES[dtype])
    if float(high) == np.trunc(below):
        return found
    return graph.add("select", graph.add("less", graph.constant(below, f32), x), graph.constant(high, dtype), found)


# --- shapes -------------------------------------------------------------------------------------------------------


def reshape(graph: ModelBuilder, op: Op, x: Node) -> Node:
    return graph.reshape(x, op.attributes[0])


def transpose(graph: ModelBuilder, op: Op, x: Node) -> Node:
    return graph.transpose(x, op.attributes[0])


# --- products -----------------------------------------------------------------------------------------------------


def matmul(graph: ModelBuilder, op: Op, x: Node, y: Node) -> Node:
    return graph.add("matmul", x, y, False, False)


def linear(graph: ModelBuilder, op: Op, x: Node, kernel: Node, bias: Node | None) -> Node:
    y = graph.add("matmul", x, kernel, False, False)
    return y if bias is None else graph.add("add", y, bias)


def wanted_layout(op: Op, index: int) -> tuple[Step, ...]:
    """How an op wants the weight stored that is its operand at `index`: filters first, groups before them."""
    kernel = op.operands[index]
    if index != 1 or op.name not in ("convolution", "conv") or kernel is None:
        return ()
    groups = op.attribute_dict["groups"]
    permute = Permute(filters_first(kernel.ndim))
    if groups == 1:
        return (permute,)
    before: tuple[Any, ...] = tuple(kernel.shape[axis] for axis in permute.axes)
    return permute, Reshape(before, (groups, before[0] // groups, *before[1:]))


def convolution(graph: ModelBuilder, op: Op, x: Node, kernel: Node, bias: Node | None = None) -> Node:
    type = _type(op)
    geometry = Geometry(type.shape, _type(op, 1).shape[:-2], op.attribute_dict)
    x = _image(graph, x, type.ndim, geometry)
    kernel = graph.rearranged(op.operands[1], kernel, wanted_layout(op, 1))
    kind = "convolution" if op.attribute_dict["groups"] == 1 else "group_convolution"
    y = graph.add(kind, x, kernel, geometry.strides, *_pads(geometry), geometry.dilation, _auto_pad(geometry))
    if bias is not None:
        y = graph.add("add", y, graph.reshape(bias, (_type(op, 2).shape[0], *[1] * (type.ndim - 2))))
    return _back(graph, y, type.ndim, geometry)


def _pads(geometry: Geometry) -> tuple[tuple[Size, ...], tuple[Size, ...]]:
    nothing = (0,) * len(geometry.window)
    return (geometry.before, geometry.after) if geometry.is_known else (nothing, nothing)


def _auto_pad(geometry: Geometry) -> str:
    """OpenVINO pads by itself where "same" depends on sizes it learns later."""
    return "explicit" if geometry.is_known else "same_upper"


def _image(graph: ModelBuilder, x: Node, ndim: int, geometry: Geometry) -> Node:
    return graph.transpose(x, channels_first(ndim)) if geometry.channels_last else x


def _back(graph: ModelBuilder, y: Node, ndim: int, geometry: Geometry) -> Node:
    return graph.transpose(y, channels_last(ndim)) if geometry.channels_last else y


def max_pool(graph: ModelBuilder, op: Op, x: Node) -> Node:
    type = _type(op)
    geometry = Geometry(type.shape, op.attributes[0], op.attribute_dict)
    y = graph.add(
        "max_pool",
        _image(graph, x, type.ndim, geometry),
        geometry.strides,
        geometry.dilation,
        *_pads(geometry),
        geometry.window,
        "floor",
        _auto_pad(geometry),
    )
    return _back(graph, y.output(0), type.ndim, geometry)


def avg_pool(graph: ModelBuilder, op: Op, x: Node) -> Node:
    type = _type(op)
    geometry = Geometry(type.shape, op.attributes[0], op.attribute_dict)
    y = graph.add(
        "avg_pool",
        _image(graph, x, type.ndim, geometry),
        geometry.strides,
        *_pads(geometry),
        geometry.window,
        True,
        "floor",
        _auto_pad(geometry),
    )
    return _back(graph, y, type.ndim, geometry)


def _slides(op: Op) -> bool:
    """Whether the padding is numbers, or one that OpenVINO finds: "same", without dilation. Kernels come to this
    target with their filters last."""
    if op.attribute_dict.get("filters_first"):
        return False
    window = _type(op, 1).shape[:-2] if op.name.startswith("conv") else op.attribute_dict["window"]
    type = _type(op)
    geometry = Geometry(type.shape, window, op.attribute_dict)
    static = all(isinstance(size, int) for size in (*window, *_kernel_shape(op)))
    plain = geometry.padding == "same" and set(geometry.dilation) == {1}
    return 3 <= type.ndim <= 5 and static and (geometry.is_known or plain)


def _kernel_shape(op: Op) -> tuple[Size, ...]:
    return _type(op, 1).shape if op.name.startswith("conv") else ()


# --- norms and reductions -----------------------------------------------------------------------------------------


def batch_norm(
    graph: ModelBuilder, op: Op, x: Node, mean: Node, variance: Node, scale: Node | None, offset: Node | None
) -> Node:
    channels = _type(op, 1).shape[0]
    scale = graph.constant([1] * channels, f32) if scale is None else scale  # type: ignore[operator]
    offset = graph.constant([0] * channels, f32) if offset is None else offset  # type: ignore[operator]
    return graph.add("batch_norm_inference", x, scale, offset, mean, variance, op.attributes[1])


def _has_channels_first(op: Op) -> bool:
    return op.attributes[0] % _type(op).ndim == 1 and isinstance(_type(op, 1).shape[0], int)


def reduction(kind: str) -> Any:
    def spell(graph: ModelBuilder, op: Op, x: Node) -> Node:
        axes, keepdims = op.attributes
        return graph.add(kind, x, graph.constant(axes, i64), keepdims)

    return spell


def _reduces(op: Op) -> bool:
    return bool(op.attributes[0])


def _reduces_something(op: Op) -> bool:
    type = _type(op)
    low = bounds(product(type.shape[axis] for axis in op.attributes[0]))[0]
    return bool(op.attributes[0]) and low is not None and low >= 1


def softmax(graph: ModelBuilder, op: Op, x: Node) -> Node:
    return graph.add("softmax", x, op.attributes[0] % _type(op).ndim)


SPELLING: dict[str, Any] = {
    "constant": constant,
    "name": same,
    "stop_gradient": same,
    "convert": convert,
    "add": native("add"),
    "sub": native("subtract"),
    "mul": native("multiply"),
    "div": native("divide"),
    "relu": native("relu"),
    "reshape": reshape,
    "transpose": transpose,
    "matmul": matmul,
    "linear": linear,
    "convolution": convolution,
    "conv": convolution,
    "max_pool": max_pool,
    "avg_pool": avg_pool,
    "batch_norm": batch_norm,
    "reduce_sum": reduction("reduce_sum"),
    "reduce_mean": reduction("reduce_mean"),
    "reduce_max": reduction("reduce_max"),
    "reduce_min": reduction("reduce_min"),
    "softmax": softmax,
}

TYPES: dict[str, frozenset[DType]] = {
    **dict.fromkeys(["constant", "name", "stop_gradient", "convert", "reshape", "transpose"], STORED),
    **dict.fromkeys(["add", "sub", "mul"], NUMBERS),
}
"""Those that are not float32 only."""

WHEN: dict[str, Callable[[Op], bool]] = {
    **dict.fromkeys(["convolution", "conv", "max_pool", "avg_pool"], _slides),
    "batch_norm": _has_channels_first,
    "reduce_sum": _reduces,
    **dict.fromkeys(["reduce_mean", "reduce_max", "reduce_min"], _reduces_something),
}


def supports(op: Op) -> bool:
    """Whether an op is spelled on its types and with its attributes."""
    if op.name not in SPELLING:
        return False
    types = TYPES.get(op.name, FLOAT)
    values: list[Value | None] = [*op.operands, *op.results]
    if any(value is not None and value.dtype not in types for value in values):
        return False
    return op.name not in WHEN or WHEN[op.name](op)
