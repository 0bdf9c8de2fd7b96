"""Low-rank adapters: a kernel W beside which two small factors A and B are trained. Hu et al., "LoRA", 2021.

W + scaling · A·B is never made where it can be helped: `lora_linear`, `lora_conv` and `lora_embedding` add the product
with A and then with B to that with W. A kernel of any other use is replaced by `lora_weight`. Factors are as the kernel
is: W [..., out], A [..., r], B [r, out].

`dropped` is what the adapter reads in place of `x`: `x` with dropout. `gain` is a factor for each output, for DoRA (Liu
et al., "DoRA", 2024): `magnitude / dora_norm(W, A, B)`. As in the paper (section 4.3) and in PEFT no gradient flows
through the norm.

Gradients read `x` (or `dropped`) and the weights, and compute the small product with A again: it costs r / out of the
product with W, and r numbers a row would have to be kept for it. The gain's gradient does the product with W again.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from graphc.ir import ops
from graphc.ir.attributes import Padding
from graphc.ir.dims import product
from graphc.ir.dtypes import FLOATS, dtype, f32
from graphc.ir.errors import ShapeError
from graphc.ir.inference import require_equal, shape_text
from graphc.ir.opdef import IndexTensor, Tensor, composite
from graphc.ir.ops.contraction import dot_general, linear
from graphc.ir.ops.convolution import (
    channel_axis,
    conv,
    convolution_input_gradient,
    convolution_kernel_gradient,
    spatial_axes,
)


def _check_factors(kernel, a, b, transposed: bool = False) -> None:
    """Raise `ShapeError` where the factors do not fit the kernel."""
    what = f"kernel {shape_text(kernel.shape)}, a {shape_text(a.shape)} and b {shape_text(b.shape)}"
    shape = (kernel.shape[1], kernel.shape[0]) if transposed and kernel.ndim == 2 else kernel.shape
    if len(shape) < 2 or a.ndim != len(shape) or b.ndim != 2 or (transposed and kernel.ndim != 2):
        raise ShapeError(f"{what}: they are [..., out], [..., r] and [r, out]")
    for mine, others in zip(a.shape[:-1], shape[:-1], strict=True):
        require_equal(mine, others, f"{what} do not agree")
    require_equal(a.shape[-1], b.shape[0], f"{what} do not agree in rank")
    require_equal(b.shape[1], shape[-1], f"{what} do not agree in outputs")


def _check_outputs(name: str, x, count) -> None:
    if x is not None:
        what = f"{name} {shape_text(x.shape)} must have a number for each of the outputs"
        if x.ndim != 1:
            raise ShapeError(what)
        require_equal(x.shape[0], count, what)


def _swapped(x):
    return ops.transpose(x, permutation=(1, 0))


def _wide(x):
    """Narrow floats as float32, others as they are."""
    kind = dtype(x.dtype)
    return ops.convert(x, dtype=f32) if kind.is_float and kind.bits < 32 else x


def _like(y, x):
    return y if dtype(y.dtype) is dtype(x.dtype) else ops.convert(y, dtype=x.dtype)


def _sum_to_outputs(x, axis: int = -1):
    """`x` summed over all axes but one."""
    axes = tuple(i for i in range(x.ndim) if i != axis % x.ndim)
    return ops.reduce_sum(x, axes=axes) if axes else x


def _product(x, matrix):
    """`x @ matrix` in gradients: not `linear`, which would be a second layer of the framework around the weight."""
    return dot_general(x, matrix, contract=((x.ndim - 1, 0),))


# --- the weight itself ----------------------------------------------------------------------------------------------


def _merged(kernel, a, b, scaling: float, transposed: bool):
    change = dot_general(a, b, contract=((a.ndim - 1, 0),)) * scaling
    return kernel + (_swapped(change) if transposed else change)


@composite(dtypes=FLOATS)
def lora_weight(
    kernel: Tensor,
    a: Tensor,
    b: Tensor,
    gain: Tensor | None = None,
    *,
    scaling: float,
    transposed: bool = False,
) -> Tensor:
    """`(kernel + scaling · a·b) · gain`: what a kernel [..., out] is with its adapter a [..., r], b [r, out].

    `transposed`: the kernel is [out, in], and the factors are [in, r] and [r, out] nevertheless.
    """
    _check_factors(kernel, a, b, transposed)
    _check_outputs("gain", gain, b.shape[1])
    merged = _merged(kernel, a, b, scaling, transposed)
    return merged if gain is None else merged * _per_output(gain, transposed)


def _per_output(gain, transposed: bool):
    return ops.expand_dims(gain, (1,)) if transposed else gain


def _merged_array(kernel, a, b, scaling: float, transposed: bool):
    change = scaling * np.tensordot(a, b, 1)
    return kernel + (change.T if transposed else change)


@lora_weight.reference
def _(kernel, a, b, gain, *, scaling, transposed):
    merged = _merged_array(kernel, a, b, scaling, transposed)
    return merged if gain is None else merged * (gain[:, None] if transposed else gain)


@lora_weight.vjp
def _(dy, y, kernel, a, b, gain, *, scaling, transposed):
    d_gain = None
    if gain is not None:
        merged = _merged(kernel, a, b, scaling, transposed)
        d_gain = _sum_to_outputs(dy * merged, 0 if transposed else -1)
        dy = dy * _per_output(gain, transposed)
    change = _swapped(dy) if transposed else dy
    lead = tuple((axis, axis) for axis in range(a.ndim - 1))
    d_a = dot_general(change, b, contract=((change.ndim - 1, 1),)) * scaling
    return dy, d_a, dot_general(a, change, contract=lead) * scaling, d_gain


@lora_weight.flops
def _(kernel, a, b, gain, *, scaling, transposed):
    return (2 * b.shape[0] + 2 + (gain is not None)) * product(kernel.shape)


@composite(dtypes=FLOATS)
def dora_norm(kernel: Tensor, a: Tensor, b: Tensor, *, scaling: float, transposed: bool = False) -> Tensor:
    """The Euclidean norm [out] of `kernel + scaling · a·b` over all that leads to an output; see `lora_weight`.

    It counts as a constant for gradients. It is computed in float32 or wider.
    """
    _check_factors(kernel, a, b, transposed)
    weight = ops.stop_gradient(_wide(_merged(kernel, a, b, scaling, transposed)))
    squares = _sum_to_outputs(ops.square(weight), 0 if transposed else -1)
    return _like(ops.sqrt(squares), kernel)


@dora_norm.reference
def _(kernel, a, b, *, scaling, transposed):
    weight = _merged_array(kernel, a, b, scaling, transposed)
    weight = weight.T if transposed else weight
    return np.sqrt((weight * weight).sum(tuple(range(weight.ndim - 1))))


@dora_norm.vjp
def _(dy, y, kernel, a, b, *, scaling, transposed):
    return None, None, None


@dora_norm.flops
def _(kernel, a, b, *, scaling, transposed):
    return (2 * b.shape[0] + 4) * product(kernel.shape)


# --- linear ---------------------------------------------------------------------------------------------------------


@composite(dtypes=FLOATS)
def lora_linear(
    x: Tensor,
    kernel: Tensor,
    a: Tensor,
    b: Tensor,
    bias: Tensor | None = None,
    gain: Tensor | None = None,
    dropped: Tensor | None = None,
    *,
    scaling: float,
) -> Tensor:
    """`linear(x, kernel, bias)` of [..., in] by [in, out], plus `dropped @ a @ b · scaling` with a [in, r], b [r, out].

    `dropped` is `x` where it is not given. With a `gain` it is `(x @ kernel + x @ a @ b · scaling) · gain + bias`; if
    there is `dropped` too, `x @ kernel + bias` stays as it is and the rest reads `dropped`, as in PEFT.
    """
    if x.ndim == 0 or kernel.ndim != 2:
        raise ShapeError(
            f"lora_linear takes x [..., in] and kernel [in, out], not {shape_text(x.shape)} and "
            f"{shape_text(kernel.shape)}"
        )
    _check_factors(kernel, a, b)
    _check_outputs("gain", gain, b.shape[1])
    _check_dropped(x, dropped)
    source = x if dropped is None else dropped
    update = linear(linear(source, a) * scaling, b)
    if gain is None:
        return linear(x, kernel, bias) + update
    if dropped is None:
        y = (linear(x, kernel) + update) * gain
        return y if bias is None else y + bias
    return linear(x, kernel, bias) + linear(dropped, kernel) * (gain - 1) + update * gain


def _check_dropped(x, dropped) -> None:
    if dropped is not None:
        what = f"dropped {shape_text(dropped.shape)} must be like x {shape_text(x.shape)}"
        if dropped.ndim != x.ndim:
            raise ShapeError(what)
        for one, other in zip(dropped.shape, x.shape, strict=True):
            require_equal(one, other, what)


@lora_linear.reference
def _(x, kernel, a, b, bias, gain, dropped, *, scaling):
    source = x if dropped is None else dropped
    y = x @ kernel + scaling * (source @ a @ b)
    if gain is not None:
        y = x @ kernel + (gain - 1) * (source @ kernel) + gain * scaling * (source @ a @ b)
    return y if bias is None else y + bias


@lora_linear.vjp
def _(dy, y, x, kernel, a, b, bias, gain, dropped, *, scaling):
    source = x if dropped is None else dropped
    lead = tuple(range(x.ndim - 1))
    pairs = tuple((axis, axis) for axis in lead)
    if gain is None and dropped is None and lead:
        small = ops.lora_small_gradient(dy, b, scaling=(scaling,))
        return (
            ops.lora_input_gradient(dy, small, kernel, a),
            dot_general(x, dy, contract=pairs),
            *ops.lora_factor_gradients(dy, small, x, a, b, scaling=(scaling,)),
            None if bias is None else ops.reduce_sum(dy, axes=lead),
            None,
            None,
        )
    small = _product(source, a) * scaling
    d_gain = None
    through, around = dy, dy  # what the adapter's output gets, and that of the product of x with the kernel
    if gain is not None:
        d_gain = _sum_to_outputs(dy * (_product(source, kernel) + _product(small, b)))
        through = dy * gain
        around = through if dropped is None else dy
    d_small = linear(through, _swapped(b)) * scaling
    d_source = linear(d_small, _swapped(a))
    d_x = linear(around, _swapped(kernel))
    d_kernel = dot_general(x, around, contract=pairs)
    if dropped is None:
        d_x, d_dropped = d_x + d_source, None
    else:
        d_dropped = d_source
        if gain is not None:
            beside = through - dy
            d_dropped = d_dropped + linear(beside, _swapped(kernel))
            d_kernel = d_kernel + dot_general(dropped, beside, contract=pairs)
    return (
        d_x,
        d_kernel,
        dot_general(source, d_small, contract=pairs),
        dot_general(small, through, contract=pairs),
        None if bias is None else (ops.reduce_sum(dy, axes=lead) if lead else dy),
        d_gain,
        d_dropped,
    )


@lora_linear.flops
def _(x, kernel, a, b, bias, gain, dropped, *, scaling):
    rows, (inputs, outputs), rank = product(x.shape[:-1]), kernel.shape, b.shape[0]
    products = 2 * inputs * outputs * (2 if gain is not None and dropped is not None else 1)
    small = 2 * rank * (inputs + outputs) + rank
    return rows * (products + small + outputs * (1 + (bias is not None) + (gain is not None)))


# --- convolution ----------------------------------------------------------------------------------------------------


def _one_window(b, ndim: int):
    """[r, out] as the kernel of a convolution of single places."""
    return ops.reshape(b, shape=((1,) * (ndim - 2) + tuple(b.shape)))


def _for_groups(a, groups: int):
    """The kernel [*window, in / groups, r] for each of the groups, all of which it is for: [..., groups · r]."""
    return a if groups == 1 else ops.concat(*[a] * groups, axis=a.ndim - 1)


def _along_channels(gain, ndim: int, channels_last: bool):
    return gain if channels_last else ops.reshape(gain, shape=(gain.shape[0],) + (1,) * (ndim - 2))


def _single(attributes: dict[str, Any]) -> dict[str, Any]:
    """The attributes of the convolution with b, which has a window of one place."""
    ones = (1,) * len(attributes["strides"])
    return attributes | {"strides": ones, "dilation": ones, "padding": "valid"}


@composite(dtypes=FLOATS)
def lora_conv(
    x: Tensor,
    kernel: Tensor,
    a: Tensor,
    b: Tensor,
    bias: Tensor | None = None,
    gain: Tensor | None = None,
    dropped: Tensor | None = None,
    *,
    scaling: float,
    strides: tuple[int, ...] | None = None,
    padding: Padding = "valid",
    dilation: tuple[int, ...] | None = None,
    groups: int = 1,
    channels_last: bool = True,
) -> Tensor:
    """`conv(x, kernel, bias)`, plus the convolution with a [*window, in / groups, r], then with b [r, out] in each
    place, times `scaling`. `gain` and `dropped` are as in `lora_linear`."""
    _check_factors(kernel, a, b)
    _check_outputs("gain", gain, b.shape[1])
    _check_dropped(x, dropped)
    ones = (1,) * (x.ndim - 2)
    attributes: dict[str, Any] = {
        "strides": ones if strides is None else strides,
        "padding": padding,
        "dilation": ones if dilation is None else dilation,
        "groups": groups,
        "channels_last": channels_last,
    }
    source = x if dropped is None else dropped
    small = conv(source, _for_groups(a, groups), None, **attributes) * scaling
    update = conv(small, _one_window(b, x.ndim), None, **_single(attributes))
    if gain is None:
        return conv(x, kernel, bias, **attributes) + update
    factor = _along_channels(gain, x.ndim, channels_last)
    if dropped is None:
        y = (conv(x, kernel, None, **attributes) + update) * factor
        return y if bias is None else y + _along_channels(bias, x.ndim, channels_last)
    beside = conv(dropped, kernel, None, **attributes) * (factor - 1)
    return conv(x, kernel, bias, **attributes) + beside + update * factor


@lora_conv.canonical
def _(x, kernel, a, b, bias, gain, dropped, *, strides, dilation, **attributes):
    ones = (1,) * (x.ndim - 2)
    return {"strides": ones if strides is None else strides, "dilation": ones if dilation is None else dilation}


@lora_conv.reference
def _(x, kernel, a, b, bias, gain, dropped, *, scaling, **attributes):
    source = x if dropped is None else dropped
    rule: Any = conv.reference_rule
    plain = attributes | {"filters_first": False}
    y, change = rule(x, kernel, None, **plain), scaling * np.tensordot(a, b, 1)
    update = rule(source, change, None, **plain)
    shape = (-1,) + (() if attributes["channels_last"] else (1,) * (x.ndim - 2))
    if gain is not None:
        gain = gain.reshape(shape)
        y, update = y + (gain - 1) * rule(source, kernel, None, **plain), gain * update
    return y + update if bias is None else y + update + bias.reshape(shape)


@lora_conv.vjp
def _(dy, y, x, kernel, a, b, bias, gain, dropped, *, scaling, **attributes):
    source = x if dropped is None else dropped
    groups, single, last = attributes["groups"], _single(attributes), attributes["channels_last"]
    channels = channel_axis(x.ndim, last)
    wide_a, wide_b = _for_groups(a, groups), _one_window(b, x.ndim)
    small = conv(source, wide_a, None, **attributes) * scaling
    d_gain = None
    through, around = dy, dy
    if gain is not None:
        d_gain = _sum_to_outputs(
            dy * (conv(source, kernel, None, **attributes) + conv(small, wide_b, None, **single)), channels
        )
        through = dy * _along_channels(gain, x.ndim, last)
        around = through if dropped is None else dy
    d_small = convolution_input_gradient(through, wide_b, shape=small.shape, **single) * scaling
    d_source = convolution_input_gradient(d_small, wide_a, shape=x.shape, **attributes)
    d_x = convolution_input_gradient(around, kernel, shape=x.shape, **attributes)
    d_kernel = convolution_kernel_gradient(around, x, shape=kernel.shape, **attributes)
    d_dropped = None
    if dropped is None:
        d_x = d_x + d_source
    else:
        d_dropped = d_source
        if gain is not None:
            beside = through - dy
            d_dropped = d_dropped + convolution_input_gradient(beside, kernel, shape=x.shape, **attributes)
            d_kernel = d_kernel + convolution_kernel_gradient(beside, dropped, shape=kernel.shape, **attributes)
    d_a = convolution_kernel_gradient(d_small, source, shape=wide_a.shape, **attributes)
    if groups > 1:
        parts = ops.reshape(d_a, shape=(*a.shape[:-1], groups, a.shape[-1]))
        d_a = ops.reduce_sum(parts, axes=(a.ndim - 1,))
    d_b = convolution_kernel_gradient(through, small, shape=wide_b.shape, **single)
    return (
        d_x,
        d_kernel,
        d_a,
        ops.reshape(d_b, shape=b.shape),
        None if bias is None else _sum_to_outputs(dy, channels),
        d_gain,
        d_dropped,
    )


@lora_conv.flops
def _(x, kernel, a, b, bias, gain, dropped, *, scaling, **attributes):
    named = {"scaling": scaling, **attributes}
    y = lora_conv.infer((x, kernel, a, b, bias, gain, dropped), lora_conv.make_attributes(**named)).types[0]
    places = product([y.shape[axis] for axis in (0, *spatial_axes(y.ndim, attributes["channels_last"]))])
    rank, outputs = b.shape[0], b.shape[1]
    products = product(kernel.shape) * (2 if gain is not None and dropped is not None else 1)
    small = product(a.shape) * attributes["groups"] + rank * outputs
    return 2 * places * (products + small)


# --- embedding ------------------------------------------------------------------------------------------------------


@composite(dtypes=FLOATS)
def lora_embedding(
    table: Tensor, ids: IndexTensor, a: Tensor, b: Tensor, gain: Tensor | None = None, *, scaling: float
) -> Tensor:
    """`embedding(table, ids)`, plus rows of a [rows, r] at `ids` times b [r, size] · `scaling`; all times `gain`."""
    _check_table(table)
    _check_factors(table, a, b)
    _check_outputs("gain", gain, b.shape[1])
    y = ops.embedding(table, ids) + linear(ops.embedding(a, ids) * scaling, b)
    return y if gain is None else y * gain


def _check_table(table) -> None:
    if table.ndim != 2:
        raise ShapeError(f"lora_embedding takes a table [rows, size], not {shape_text(table.shape)}")


@lora_embedding.reference
def _(table, ids, a, b, gain, *, scaling):
    rows = np.clip(ids, 0, len(table) - 1).astype(np.int64)
    y = table[rows] + scaling * (a[rows] @ b)
    return y if gain is None else y * gain


@lora_embedding.vjp
def _(dy, y, table, ids, a, b, gain, *, scaling):
    places = ops.clip(ids, 0, ops.size_of(table.shape[0], ids) - 1)
    small = ops.embedding(a, ids) * scaling
    d_gain = None
    if gain is not None:
        d_gain = _sum_to_outputs(dy * (ops.embedding(table, ids) + _product(small, b)))
        dy = dy * gain
    d_small = linear(dy, _swapped(b)) * scaling
    pairs = tuple((axis, axis) for axis in range(dy.ndim - 1))
    return (
        ops.scatter(ops.zeros_like(table), places, dy),
        None,
        ops.scatter(ops.zeros_like(a), places, d_small),
        dot_general(small, dy, contract=pairs),
        d_gain,
    )


@lora_embedding.flops
def _(table, ids, a, b, gain, *, scaling):
    rank, size = b.shape
    return product(ids.shape) * (2 * rank * size + rank + size * (1 + (gain is not None)))


# --- samples --------------------------------------------------------------------------------------------------------


lora_weight.sample((3, 4), (3, 2), (2, 4), scaling=0.5)
lora_weight.sample((2, 3, 4), (2, 3, 1), (1, 4), (4,), scaling=2.0)
lora_weight.sample((4, 3), (3, 2), (2, 4), (4,), scaling=1.5, transposed=True)
dora_norm.sample((3, 4), (3, 2), (2, 4), scaling=0.5)
dora_norm.sample((2, 2, 3, 4), (2, 2, 3, 1), (1, 4), scaling=2.0)
dora_norm.sample((4, 3), (3, 2), (2, 4), scaling=0.5, transposed=True)
lora_linear.sample((2, 3), (3, 4), (3, 2), (2, 4), scaling=0.5)
lora_linear.sample((2, 3, 4), (4, 5), (4, 1), (1, 5), (5,), None, (2, 3, 4), scaling=2.0)
lora_linear.sample((3,), (3, 2), (3, 2), (2, 2), (2,), (2,), scaling=1.0)
lora_linear.sample((2, 3), (3, 4), (3, 2), (2, 4), (4,), (4,), (2, 3), scaling=1.5)
lora_conv.sample((2, 6, 3), (3, 3, 4), (3, 3, 2), (2, 4), (4,), scaling=0.5, padding="same")
lora_conv.sample((1, 5, 6, 2), (2, 3, 2, 3), (2, 3, 2, 1), (1, 3), scaling=2.0, strides=(2, 1), padding="same")
lora_conv.sample((2, 4, 5, 5), (2, 2, 2, 4), (2, 2, 2, 3), (3, 4), (4,), (4,), scaling=1.5, strides=(1, 2),
                 padding=((1, 0), (2, 1)), groups=2, channels_last=False)  # fmt: skip
lora_conv.sample((1, 4, 4, 2), (2, 2, 2, 3), (2, 2, 2, 2), (2, 3), (3,), (3,), (1, 4, 4, 2), scaling=0.5)
lora_embedding.sample((5, 3), np.array([[0, 4, 4], [2, 0, 0]], np.int32), (5, 2), (2, 3), scaling=0.5)
lora_embedding.sample((4, 2), np.array([-1, 7, 1], np.int64), (4, 1), (1, 2), (2,), scaling=2.0)


__all__ = ["dora_norm", "lora_conv", "lora_embedding", "lora_linear", "lora_weight"]
