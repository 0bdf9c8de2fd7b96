"""Convolutions of channels-first data in `torch.nn.functional`, and their gradients by PyTorch's own."""

from __future__ import annotations

import re

from graphc.codegen.source.dialect import Spelled
from graphc.codegen.source.geometry import kernel_shape, tuple_text, window_steps
from graphc.ir.dims import Dim, Size
from graphc.ir.formats import Int8, parse_format
from graphc.ir.graph import Op
from graphc.ir.sliding import covered, padding_pairs
from graphc.ir.types import Shape


def is_copied(op: Op) -> bool:
    """Whether a transpose is of images to channels first, which is then copied.

    By the strides alone oneDNN takes them for channels last, and all that follows becomes so, while kernels are not: at
    64 × 64 pixels that takes ResNet-18 twice the time.
    """
    return op.name == "transpose" and op.attribute_dict["permutation"] in ((0, 3, 1, 2), (0, 4, 1, 2, 3))


def known_pairs(op: Op, x: Shape, window: Shape) -> list[tuple[int, int]] | None:
    """The padding of a convolution or pool of `x` along each spatial axis of channels-first data, where it is known."""
    padding = op.attribute_dict["padding"]
    strides, dilation = window_steps(op)
    if padding == "same" and set(strides) == {1}:
        totals = [covered(k, d) - 1 for k, d in zip(window, dilation, strict=True)]
        return [(total // 2, total - total // 2) for total in totals]  # type: ignore[operator]
    pairs = padding_pairs(x[2:], window, strides, padding, dilation)
    known = all(isinstance(size, int) for pair in pairs for size in pair)
    return list(pairs) if known else None  # type: ignore[arg-type]


def shown(values: tuple[int, ...]) -> str:
    """One number where all are equal."""
    return str(values[0]) if len(set(values)) == 1 else tuple_text(values)


def padded_input(op: Op, x: Shape, window: Shape, source: str = "{0}", value: str = "") -> tuple[str, str]:
    """The template of the image `source`, padded where the function's own padding cannot, and that padding."""
    pairs = known_pairs(op, x, window)
    strides, dilation = window_steps(op)
    fill = f", value={value}" if value else ""
    if pairs is None:
        if op.attribute_dict["padding"] == "same":
            texts = ", ".join(tuple_text(each) for each in (tuple(window), strides, dilation))  # type: ignore[arg-type]
            return f"pad_windows({source}, {texts}{f', {value}' if value else ''})", "0"
        slots = [f"{{padding.{i}.{side}}}" for i in reversed(range(len(strides))) for side in (0, 1)]
        return f"F.pad({source}, ({', '.join(slots)}){fill})", "0"
    if all(low == high for low, high in pairs):
        return source, shown(tuple(low for low, _ in pairs))
    if (
        op.attribute_dict["padding"] == "same"
        and set(strides) == {1}
        and op.name in ("conv", "convolution", "quantized_conv")
    ):
        return source, '"same"'
    flat = ", ".join(f"{low}, {high}" for low, high in reversed(pairs))
    return f"F.pad({source}, ({flat}){fill})", "0"


def _fits(op: Op) -> bool:
    """Whether PyTorch has it: floats with their channels first."""
    return not op.attribute_dict["channels_last"] and op.results[0].dtype.is_float


def conv_options(op: Op, padding: str) -> list[str]:
    """Stride, padding, dilation and groups where they are not as usual."""
    strides, dilation = window_steps(op)
    groups = op.attribute_dict["groups"]
    return [
        *([f"stride={shown(strides)}"] if set(strides) != {1} else []),
        *([f"padding={padding}"] if padding != "0" else []),
        *([f"dilation={shown(dilation)}"] if set(dilation) != {1} else []),
        *([f"groups={groups}"] if groups != 1 else []),
    ]


def _kernel(op: Op) -> str:
    """The kernel as [out, in / groups, *window]."""
    if op.attribute_dict["filters_first"]:
        return "{1}"
    rank = len(kernel_shape(op)) - 2
    return f"{{1}}.permute({', '.join(map(str, (rank + 1, rank, *range(rank))))})"


def quantized_conv(op: Op) -> Spelled | None:
    """The convolution, where no layer holds the arrays."""
    if not holds_filters(op):
        return None
    shape = kernel_shape(op)
    source, padding = padded_input(op, op.operands[0].type.shape, shape[:-2])  # type: ignore[union-attr]
    ones = ", 1" * (len(shape) - 1)
    bias = ["{3}"] if op.operands[3] is not None else []
    arguments = [source, f"{{1}}.float() * {{2}}.reshape(-1{ones})", *bias, *conv_options(op, padding)]
    return f"F.conv{len(shape) - 2}d({', '.join(arguments)})"


def holds_filters(op: Op) -> bool:
    """Whether a `quantized_conv` is as PyTorch has it, its kernel of integers with a scale for each filter."""
    form, rank = parse_format(op.attribute_dict["format"]), len(op.attribute_dict["shape"])
    return rank in (3, 4, 5) and isinstance(form, Int8) and not form.tensor and form.channel_axis(rank) == 0


def conv(op: Op) -> Spelled | None:
    if not _fits(op):
        return None
    shape = kernel_shape(op)
    source, padding = padded_input(op, op.operands[0].type.shape, shape[:-2])  # type: ignore[union-attr]
    bias = ["{2}"] if len(op.operands) > 2 and op.operands[2] is not None else []
    return f"F.conv{len(shape) - 2}d({', '.join([source, _kernel(op), *bias, *conv_options(op, padding)])})"


def input_gradient(op: Op) -> Spelled | None:
    """For an input with its padding where that is not the same before as after; it is then cut."""
    if not _fits(op):
        return None
    shape, sizes = kernel_shape(op), op.attribute_dict["shape"]
    pairs = known_pairs(op, sizes, shape[:-2])
    if pairs is None and op.attribute_dict["padding"] == "same":
        strides, dilation = window_steps(op)
        arguments = ["{0}", _kernel(op), "{shape}", tuple_text(strides), tuple_text(dilation), "{groups}"]
        return f"same_input_gradient({', '.join(arguments)})"
    if pairs is not None and all(low == high for low, high in pairs):
        padding = shown(tuple(low for low, _ in pairs))
        return f"convolution_input_gradient({', '.join(['{0}', _kernel(op), '{shape}', *conv_options(op, padding)])})"
    around = op.attribute_dict["padding"] if pairs is None else pairs
    padded = [_slot_plus(axis + 2, sizes[axis + 2], axis, pair) for axis, pair in enumerate(around)]
    sizes_text = f"({', '.join(['{shape.0}', '{shape.1}', *padded])})"
    arguments = ["{0}", _kernel(op), sizes_text, *conv_options(op, "0")]
    cut = ", ".join(
        f"{_minus(pair[side], axis, side)}" for axis, pair in reversed(list(enumerate(around))) for side in (0, 1)
    )
    return f"F.pad(convolution_input_gradient({', '.join(arguments)}), ({cut}))"


def _slot_plus(index: int, size: Size, axis: int, pair: tuple[Size, Size]) -> str:
    """A size and the padding around it."""
    if all(isinstance(each, int) for each in (size, *pair)):
        return str(size + sum(pair))  # type: ignore[operator]
    known = [str(each) if isinstance(each, int) else f"{{padding.{axis}.{side}}}" for side, each in enumerate(pair)]
    return " + ".join([f"{{shape.{index}}}", *(text for text in known if text != "0")])


def _minus(size: Size, axis: int, side: int) -> str:
    return f"-{{padding.{axis}.{side}}}" if isinstance(size, Dim) else str(-size)


def kernel_gradient(op: Op) -> Spelled | None:
    if not _fits(op):
        return None
    shape = kernel_shape(op)
    rank = len(shape) - 2
    source, padding = padded_input(op, op.operands[1].type.shape, shape[:-2], "{1}")  # type: ignore[union-attr]
    last = "" if op.attribute_dict["filters_first"] else f".permute({', '.join(map(str, (*range(2, rank + 2), 1, 0)))})"
    order = "{shape}" if not last else f"({', '.join(f'{{shape.{i}}}' for i in (rank + 1, rank, *range(rank)))})"
    return f"convolution_kernel_gradient({', '.join(['{0}', source, order, *conv_options(op, padding)])}){last}"


# --- kernels in the file --------------------------------------------------------------------------------------------

_DETOUR = re.compile(r"\.permute\(([\d, ]+)\)\.permute\(([\d, ]+)\)")


def without_detours(text: str) -> str:
    """The source without permutations of a stored kernel to the IR's order and straight back."""

    def kept(match: re.Match[str]) -> str:
        first, second = ([int(axis) for axis in group.split(",")] for group in match.groups())
        return "" if [first[axis] for axis in second] == list(range(len(first))) else match[0]

    return _DETOUR.sub(kept, text).replace(".T.T", "")
