"""Attributes of shapes and windows as the source targets write them."""

from __future__ import annotations

from graphc.codegen.source.dialect import Spelled
from graphc.ir.dims import Dim, Size, bounds
from graphc.ir.graph import Op
from graphc.ir.ops.convolution import plain_kernel
from graphc.ir.types import Shape, TensorType


def full_geometry(op: Op) -> tuple[str, str]:
    """Strides and dilation of a convolution or window, as source, where they are not given as well."""
    strides, dilation = window_steps(op)
    return tuple_text(strides), tuple_text(dilation)


def geometry(op: Op) -> list[str]:
    """The arguments of a convolution that are not at their defaults."""
    attributes = op.attribute_dict
    strides, dilation = window_steps(op)
    out: list[str] = []
    if set(strides) != {1}:
        out.append(f"strides={tuple_text(strides)}")
    if attributes["padding"] != "valid":
        out.append(f'padding="{attributes["padding"]}"' if attributes["padding"] == "same" else "padding={padding}")
    if set(dilation) != {1}:
        out.append(f"dilation={tuple_text(dilation)}")
    if attributes["groups"] != 1:
        out.append(f"groups={attributes['groups']}")
    return out


def kernel_shape(op: Op) -> Shape:
    """The shape of the kernel of a convolution or one of its gradients, as [*window, in / groups, out]."""
    kernel = op.operands[1]
    assert kernel is not None
    shape = op.attribute_dict["shape"] if op.name == "convolution_kernel_gradient" else kernel.type.shape
    return plain_kernel(shape, op.name == "quantized_conv" or op.attribute_dict["filters_first"])


def window_steps(op: Op) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Strides and dilation, 1 where not given (for pools, the window)."""
    attributes = op.attribute_dict
    value = op.operands[0]
    assert value is not None
    window: tuple[int, ...] | None = attributes.get("window")
    ones = (1,) * (value.ndim - 2 if window is None else len(window))
    default = window if window is not None and op.name in ("max_pool", "avg_pool") else ones
    return attributes["strides"] or default, attributes.get("dilation") or ones


def tuple_text(items: tuple[int, ...]) -> str:
    return f"({', '.join(map(str, items))}{',' if len(items) == 1 else ''})"


def may_be_empty(type: TensorType, axes: tuple[int, ...]) -> bool:
    """Whether one of the axes has no elements, or could."""
    return any(least(type.shape[axis]) < 1 for axis in axes)


def least(size: Size) -> int:
    """A lower bound of a size."""
    if isinstance(size, int):
        return size
    low = bounds(size)[0]
    return 0 if low is None else int(low)


def reshaped(op: Op, template: str) -> Spelled:
    """A reshape; `{sizes}` in the template is the new shape, with -1 where that spares reading a symbol."""
    shape = op.attribute_dict["shape"]
    symbolic = [i for i, size in enumerate(shape) if isinstance(size, Dim)]
    slots = [f"{{shape.{i}}}" for i in range(len(shape))]
    if len(symbolic) == 1 and all(isinstance(size, Dim) or size > 0 for size in shape):
        slots[symbolic[0]] = "-1"
    inner = ", ".join(slots)
    if len(shape) != 1:
        inner = f"({inner})" if "({sizes})" not in template or not shape else inner
    return template.replace("{sizes}", inner)


def index_text(op: Op) -> str:
    """The index of a slice: `:, 1:3, ::2`. Sizes are slots of the template."""
    value, attributes = op.operands[0], op.attribute_dict
    assert value is not None
    parts: list[str] = []
    strides = attributes["strides"] or (1,) * value.ndim
    for i, (start, limit, stride) in enumerate(zip(attributes["starts"], attributes["limits"], strides, strict=True)):
        from_start = isinstance(start, int) and start == 0
        to_end = limit == value.type.shape[i] or limit is value.type.shape[i]
        text = f"{'' if from_start else f'{{starts.{i}}}'}:{'' if to_end else f'{{limits.{i}}}'}"
        parts.append(text if stride == 1 else f"{text}:{stride}")
    while len(parts) > 1 and parts[-1] == ":":
        parts.pop()
    return ", ".join(parts) or "()"


__all__ = [
    "full_geometry",
    "geometry",
    "index_text",
    "kernel_shape",
    "least",
    "may_be_empty",
    "reshaped",
    "tuple_text",
    "window_steps",
]
