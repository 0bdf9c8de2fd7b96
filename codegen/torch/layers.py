"""Modules of `torch.nn` that stand for ops with their weights, and how these are stored in them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from graphc.codegen.source.dialect import Layer
from graphc.codegen.source.geometry import kernel_shape, window_steps
from graphc.codegen.torch.convolution import conv_options, holds_filters, padded_input
from graphc.codegen.torch.dtypes import dtype_text
from graphc.codegen.torch.quantization import linear_layer
from graphc.ir.dtypes import f32
from graphc.ir.graph import Op
from graphc.ir.recipes import Permute, Step


def layer(op: Op) -> Layer | None:
    """The module for an op, if there is one that does the same."""
    make = _LAYERS.get(op.name)
    return None if make is None else make(op)


def with_trainable(layer: Layer, trainable: Mapping[str, bool]) -> Layer:
    """The module with its parameters frozen that are not trained; those of a `LoRALinear` that it adapts are so."""
    given = {name: kept for name, kept in trainable.items() if name in ("weight", "bias", "lora_a", "lora_b")}
    if given and not any(given.values()):
        return replace(layer, constructor=f"{layer.constructor}.requires_grad_(False)")
    if layer.constructor.startswith("LoRALinear("):
        adapted = [name for name in ("weight", "bias") if given.get(name)]
        return replace(layer, settings=tuple(f"{{layer}}.{name}.requires_grad_()" for name in adapted))
    frozen = [name for name, kept in given.items() if not kept]
    return replace(layer, settings=tuple(f"{{layer}}.{name}.requires_grad_(False)" for name in frozen))


def _arguments(op: Op, *arguments: str) -> str:
    given = [argument for argument in arguments if argument]
    dtype = op.results[0].dtype
    if dtype is not f32:
        given.append(f"dtype={dtype_text(dtype)}")
    return ", ".join(given)


def _same(values: tuple[Any, ...]) -> str:
    """A number for equal entries, else a tuple."""
    return str(values[0]) if len(set(values)) == 1 else str(tuple(values))


def linear(op: Op) -> Layer | None:
    kernel, bias = op.operands[1], op.operands[2]
    assert kernel is not None
    if not op.results[0].dtype.is_float:
        return None
    inputs, outputs = kernel.shape
    weights: dict[str, tuple[int, tuple[Step, ...]]] = {"weight": (1, (Permute((1, 0)),))}
    if bias is not None:
        weights["bias"] = (2, ())
    arguments = _arguments(op, str(inputs), str(outputs), "" if bias is not None else "bias=False")
    return Layer(f"nn.Linear({arguments})", weights)


def lora_linear(op: Op) -> Layer | None:
    _, kernel, a, _, bias, gain, dropped = op.operands
    assert kernel is not None and a is not None
    if gain is not None or dropped is not None:
        return None
    inputs, outputs = kernel.shape
    swapped: tuple[Step, ...] = (Permute((1, 0)),)
    weights: dict[str, tuple[int, tuple[Step, ...]]] = {
        "weight": (1, swapped),
        "lora_a": (2, swapped),
        "lora_b": (3, swapped),
    }
    if bias is not None:
        weights["bias"] = (4, ())
    scaling = repr(op.attribute_dict["scaling"])
    sizes = (str(inputs), str(outputs), str(a.shape[1]), scaling)
    return Layer(f"LoRALinear({_arguments(op, *sizes, '' if bias is not None else 'bias=False')})", weights)


def conv(op: Op) -> Layer | None:
    attributes = op.attribute_dict
    x, kernel, bias = op.operands
    assert x is not None and kernel is not None
    rank = x.ndim - 2
    if attributes["channels_last"] or rank not in (1, 2, 3) or not op.results[0].dtype.is_float:
        return None
    *window, inputs, outputs = kernel_shape(op)
    source, padding = padded_input(op, x.shape, tuple(window))
    strides, dilation = window_steps(op)
    groups = attributes["groups"]
    to_torch = () if attributes["filters_first"] else (Permute((rank + 1, rank, *range(rank))),)
    weights: dict[str, tuple[int, tuple[Step, ...]]] = {"weight": (1, to_torch)}
    if bias is not None:
        weights["bias"] = (2, ())
    arguments = _arguments(
        op,
        str(inputs * groups),
        str(outputs),
        _same(tuple(window)),
        f"stride={_same(strides)}" if set(strides) != {1} else "",
        f"padding={padding}" if padding != "0" else "",
        f"dilation={_same(dilation)}" if set(dilation) != {1} else "",
        f"groups={groups}" if groups != 1 else "",
        "" if bias is not None else "bias=False",
    )
    return Layer(f"nn.Conv{rank}d({arguments})", weights, f"{{layer}}({source})")


def quantized_conv(op: Op) -> Layer | None:
    if not holds_filters(op) or len(op.attribute_dict["shape"]) != 4:
        return None
    outputs, inputs, *window = op.attribute_dict["shape"]
    source, padding = padded_input(op, op.operands[0].type.shape, tuple(window))  # type: ignore[union-attr]
    weights: dict[str, tuple[int, tuple[Step, ...]]] = {"values": (1, ()), "scales": (2, ())}
    if op.operands[3] is not None:
        weights["bias"] = (3, ())
    sizes = [str(inputs * op.attribute_dict["groups"]), str(outputs), _same(tuple(window))]
    arguments = [*sizes, *([] if op.operands[3] is not None else ["bias=False"]), *conv_options(op, padding)]
    return Layer(f"QuantizedConv2d({', '.join(arguments)})", weights, f"{{layer}}({source})")


def batch_norm(op: Op) -> Layer | None:
    x, _, _, scale, offset = op.operands
    assert x is not None
    if op.attribute_dict["axis"] % x.ndim != 1 or not 2 <= x.ndim <= 5 or (scale is None) != (offset is None):
        return None
    rank = {2: 1, 3: 1, 4: 2, 5: 3}[x.ndim]
    weights: dict[str, tuple[int, tuple[Any, ...]]] = {"running_mean": (1, ()), "running_var": (2, ())}
    if scale is not None:
        weights = {"weight": (3, ()), "bias": (4, ()), **weights}
    arguments = _arguments(op, str(x.shape[1]), _epsilon(op, 1e-5), "" if scale is not None else "affine=False")
    return Layer(f"nn.BatchNorm{rank}d({arguments})", weights)


def _epsilon(op: Op, default: float | None) -> str:
    epsilon = op.attribute_dict["epsilon"]
    return "" if epsilon == default else f"eps={epsilon!r}"


def _trailing(op: Op) -> str | None:
    """The sizes of the axes a norm runs over, when they are the last ones."""
    x, axes = op.operands[0], op.attribute_dict["axes"]
    assert x is not None
    found = sorted(axis % x.ndim for axis in axes)
    sizes = x.shape[x.ndim - len(found) :]
    if found != list(range(x.ndim - len(found), x.ndim)) or not all(isinstance(size, int) for size in sizes):
        return None
    return str(sizes[0]) if len(sizes) == 1 else str(tuple(sizes))


def layer_norm(op: Op) -> Layer | None:
    _, scale, offset = op.operands
    sizes = _trailing(op)
    if sizes is None or scale is None:
        return None
    weights: dict[str, tuple[int, tuple[Any, ...]]] = {"weight": (1, ())}
    if offset is not None:
        weights["bias"] = (2, ())
    arguments = _arguments(op, sizes, _epsilon(op, 1e-5), "" if offset is not None else "bias=False")
    return Layer(f"nn.LayerNorm({arguments})", weights)


def rms_norm(op: Op) -> Layer | None:
    sizes = _trailing(op)
    if sizes is None or op.operands[1] is None:
        return None
    return Layer(f"nn.RMSNorm({_arguments(op, sizes, _epsilon(op, None))})", {"weight": (1, ())})


def group_norm(op: Op) -> Layer | None:
    x, scale, offset = op.operands
    assert x is not None
    if op.attribute_dict["axis"] % x.ndim != 1 or scale is None or offset is None:
        return None
    arguments = _arguments(op, str(op.attribute_dict["groups"]), str(x.shape[1]), _epsilon(op, 1e-5))
    return Layer(f"nn.GroupNorm({arguments})", {"weight": (1, ()), "bias": (2, ())})


_LAYERS = {
    "linear": linear,
    "lora_linear": lora_linear,
    "quantized_linear": linear_layer,
    "conv": conv,
    "quantized_conv": quantized_conv,
    "batch_norm": batch_norm,
    "layer_norm": layer_norm,
    "rms_norm": rms_norm,
    "group_norm": group_norm,
}
