"""From floats to integers and back: weights in a format (`dequantize`), activations (`quantize`, `fake_quantize`)."""

from __future__ import annotations

import numpy as np

from graphc.ir import ops
from graphc.ir.attributes import Padding, Shape
from graphc.ir.dims import product
from graphc.ir.dtypes import DType, f32, f64, i8, u8
from graphc.ir.dtypes import dtype as dtype_of
from graphc.ir.errors import DTypeError, ShapeError
from graphc.ir.formats import parse_format, trained
from graphc.ir.inference import require_equal
from graphc.ir.opdef import AnyTensor, Draw, Tensor, composite
from graphc.ir.ops.casting import integer_limits
from graphc.ir.suggestions import number_of


@composite
def dequantize(storage: AnyTensor, *parameters: AnyTensor, format: str, shape: Shape, dtype: DType) -> Tensor:
    """The tensor of `shape` that integers and their scales stand for in `format` (`graphc.ir.formats`): the integers
    first, then the scales and what else the format has, in its order. Scales have a gradient, save those that are
    quantized themselves."""
    if not dtype.is_float:
        raise DTypeError(f"dequantize gives floats, not {dtype}")
    chosen = parse_format(format)
    chosen.check([getattr(x, "type", x) for x in (storage, *parameters)], shape)
    return chosen.decompose(storage, *parameters, shape=shape, dtype=dtype)


@dequantize.canonical
def _(storage, *parameters, format, shape, dtype):
    return {"format": str(parse_format(format))}


@dequantize.reference
def _(storage, *parameters, format, shape, dtype):
    return parse_format(format).dequantize(storage, *parameters, shape=shape)


@dequantize.vjp
def _(dy, y, storage, *parameters, format, shape, dtype):
    return list(parse_format(format).cotangents(dy, storage, *parameters, shape=shape))


@composite(dtypes=frozenset({f32, f64}))
def quantize(
    x: Tensor,
    scale: Tensor,
    zero_point: AnyTensor | None = None,
    *,
    dtype: DType = i8,
    axis: int = -1,
    low: int | None = None,
    high: int | None = None,
) -> Tensor:
    """`x` / `scale` rounded to the nearest integer (the even one of two), moved by `zero_point` and clipped to what
    `dtype` holds or to [`low`, `high`]. A scale is a scalar, or there is one for each index along `axis`; the zero
    point is as the scale is. NaN is 0. There is no gradient: `fake_quantize` has one."""
    whole, _, _ = whole_numbers(x, scale, zero_point, axis)
    return ops.convert(ops.clip(whole, *limits(dtype, low, high)), dtype=dtype)


@quantize.reference
def _(x, scale, zero_point, *, dtype, axis, low, high):
    least, most = limits(dtype, low, high)
    spread = (-1, *(1,) * (x.ndim - 1 - axis % max(x.ndim, 1))) if scale.ndim else ()
    whole = np.rint(x / scale.reshape(spread))
    if zero_point is not None:
        whole = whole + zero_point.reshape(spread).astype(x.dtype)
    return np.where(np.isnan(whole), 0, np.clip(whole, least, most)).astype(np.int64)


@quantize.vjp
def _(dy, y, x, scale, zero_point, *, dtype, axis, low, high):
    return None, None, None


@composite(dtypes=frozenset({f32, f64}))
def fake_quantize(
    x: Tensor,
    scale: Tensor,
    zero_point: AnyTensor | None = None,
    *,
    dtype: DType = i8,
    axis: int = -1,
    low: int | None = None,
    high: int | None = None,
) -> Tensor:
    """What is left of `x` when it is quantized and dequantized: (`quantize(x, …)` − zero point) · scale, to the bit.

    The gradient of `x` goes straight through where nothing is clipped and is 0 elsewhere; that of the scale is that of
    Esser et al., "Learned Step Size Quantization" (2020): the value less x / scale inside, the value where clipped.
    """
    whole, scale, offset = whole_numbers(x, scale, zero_point, axis)
    kept = ops.clip(whole, *limits(dtype, low, high))
    return (kept if offset is None else kept - offset) * scale


@fake_quantize.reference
def _(x, scale, zero_point, *, dtype, axis, low, high):
    least, most = limits(dtype, low, high)
    spread = (-1, *(1,) * (x.ndim - 1 - axis % max(x.ndim, 1))) if scale.ndim else ()
    offset = 0 if zero_point is None else zero_point.reshape(spread).astype(x.dtype)
    kept = np.clip(np.rint(x / scale.reshape(spread)) + offset, least, most) - offset
    return kept.astype(np.float64) * scale.reshape(spread)


@fake_quantize.vjp
def _(dy, y, x, scale, zero_point, *, dtype, axis, low, high):
    least, most = limits(dtype, low, high)
    whole, spread, offset = whole_numbers(x, scale, zero_point, axis)
    inside = ops.and_(whole >= least, whole <= most)
    kept = ops.clip(whole, least, most)
    value = kept if offset is None else kept - offset
    slope = dy * (value - ops.select(inside, x / spread, 0))
    return ops.select(inside, dy, 0), ops.reshape(ops.unbroadcast(slope, spread), shape=scale.shape), None


for op in (quantize, fake_quantize):
    op.widens = False  # where x / scale is near a half, it matters in which precision it is computed
    op.sample((3, 4), np.float32(0.1))
    op.sample((3, 4), Draw((4,), 0.01, 0.1), Draw((4,), -20, 20, i8))
    op.sample((3, 4, 2), Draw((4,), 0.01, 0.1), Draw((4,), 0, 9, u8), axis=1, dtype="uint8", low=0, high=15)
    op.sample((0, 2), Draw((), 0.1, 1), axis=0, low=-7, high=7)


@composite(dtypes=frozenset({f32, f64}))
def fake_quantize_weight(x: Tensor, *, format: str) -> Tensor:
    """What is left of a weight that is stored in `format` (int8, int4, int3 and theirs with zero points) and read
    again, its scales being those of `x` as it is. The gradient goes straight through."""
    return trained.rounded(x, parse_format(format))


@fake_quantize_weight.canonical
def _(x, *, format):
    return {"format": str(parse_format(format))}


@fake_quantize_weight.reference
def _(x, *, format):
    return trained.reference(x, parse_format(format))


@fake_quantize_weight.vjp
def _(dy, y, x, *, format):
    return dy


fake_quantize_weight.widens = False
for _text in ("int8", "int8{asymmetric}", "int8{axis=0}", "int8{tensor}", "int4", "uint4{axis=0,block=16}", "int3"):
    fake_quantize_weight.sample((5, 7, 6), format=_text)
fake_quantize_weight.sample(np.zeros((4, 3), np.float32), format="int4")


@composite(dtypes=frozenset({f32}))
def dynamic_quantize(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """`x` in uint8 with the scale and the zero point (f32[], u8[]) that its own range gives, widened to have 0: ONNX's
    `DynamicQuantizeLinear`. Of a tensor of zeros the scale is 1."""
    axes = tuple(range(x.ndim))
    least, most = ops.minimum(ops.reduce_min(x, axes=axes), 0), ops.maximum(ops.reduce_max(x, axes=axes), 0)
    spread = (most - least) / 255
    scale = ops.select(ops.eq(spread, 0), 1, spread)
    zero_point = ops.convert(ops.clip(ops.round_even(-least / scale), 0, 255), dtype=u8)
    return quantize(x, scale, zero_point, dtype=u8), scale, zero_point


@dynamic_quantize.reference
def _(x):
    least, most = np.min(x, initial=0), np.max(x, initial=0)
    scale = (most - least) / 255 or np.float64(1)
    zero_point = np.clip(np.rint(-least / scale), 0, 255)
    whole = np.clip(np.rint(x / scale) + zero_point, 0, 255)
    return np.where(np.isnan(whole), 0, whole).astype(np.uint8), scale, np.nan_to_num(zero_point).astype(np.uint8)


@dynamic_quantize.vjp
def _(dy, y, x):
    return None


dynamic_quantize.sample((3, 4))
dynamic_quantize.sample(Draw((2, 5), 1, 2))


@composite(dtypes=frozenset({f32}))
def quantize_rows(x: Tensor) -> tuple[Tensor, Tensor]:
    """`x` in int8, from −127 to 127, with a scale for each row of its last axis, f32[...]: the largest magnitude of the
    row by 127. Of a row of zeros it is 1."""
    largest = ops.reduce_max(ops.abs(x), axes=(x.ndim - 1,)) / 127
    scales = ops.select(ops.eq(largest, 0), 1, largest)
    whole = ops.round_even(x / ops.reshape(scales, shape=(*scales.shape, 1)))
    return ops.convert(ops.clip(whole, -127, 127), dtype=i8), scales


@quantize_rows.reference
def _(x):
    largest = np.max(np.abs(x), -1, initial=0) / 127
    scales = np.where(largest == 0, 1, largest)
    whole = np.clip(np.rint(x / scales[..., None]), -127, 127)
    return np.where(np.isnan(whole), 0, whole).astype(np.int8), scales


@quantize_rows.vjp
def _(dy, y, x):
    return None


quantize_rows.sample((3, 4))
quantize_rows.sample((2, 3, 5))
quantize_rows.sample(np.zeros((2, 3), np.float32))


@composite(dtypes=frozenset({f32}))
def integer_linear(
    x: AnyTensor,
    x_scale: Tensor,
    values: AnyTensor,
    scales: Tensor,
    x_zero_point: AnyTensor | None = None,
    bias: Tensor | None = None,
) -> Tensor:
    """`linear` of integers: ((x − its zero point) @ values) · x_scale · scales + bias, with x [..., in] and values
    [in, out] of 8 bits; scales are [out], x_scale is a scalar or has an element for each row of x."""
    if not {x.dtype, values.dtype} <= {i8, u8} or values.ndim != 2 or scales.ndim != 1:
        raise DTypeError("integer_linear takes x [..., in] and values [in, out] of 8 bits, and scales [out]")
    if x_scale.ndim not in (0, x.ndim - 1):
        raise ShapeError("integer_linear takes a scale for x, or one for each of its rows")
    left = ops.convert(x, dtype=scales.dtype)
    if x_zero_point is not None:
        left = left - ops.convert(x_zero_point, dtype=scales.dtype)
    if x_scale.ndim:
        x_scale = ops.reshape(x_scale, shape=(*x_scale.shape, 1))
    return ops.linear(left * x_scale, ops.convert(values, dtype=scales.dtype) * scales, bias)


@integer_linear.reference
def _(x, x_scale, values, scales, x_zero_point, bias):
    zero = 0 if x_zero_point is None else x_zero_point.astype(np.float64)
    product = (x.astype(np.float64) - zero) @ values.astype(np.float64)
    return product * x_scale[..., None] * scales + (0 if bias is None else bias)


@integer_linear.vjp
def _(dy, y, x, x_scale, values, scales, x_zero_point, bias):
    lead = tuple(range(dy.ndim - 1))
    whole = ops.convert(x, dtype=dy.dtype)
    if x_zero_point is not None:
        whole = whole - ops.convert(x_zero_point, dtype=dy.dtype)
    through = dy * ops.linear(whole, ops.convert(values, dtype=dy.dtype))
    rows = ops.reduce_sum(through * scales, axes=(dy.ndim - 1,))
    spread = ops.reshape(x_scale, shape=(*x_scale.shape, 1)) if x_scale.ndim else x_scale
    return (
        None,
        rows if x_scale.ndim else ops.reduce_sum(rows, axes=lead),
        None,
        ops.reduce_sum(through * spread, axes=lead),
        None,
        None if bias is None else ops.reduce_sum(dy, axes=lead),
    )


@integer_linear.flops
def _(x, x_scale, values, scales, x_zero_point, bias):
    return 2 * product(x.shape) * values.shape[1]


_WORDS = np.random.default_rng(0)
_BYTES = _WORDS.integers(0, 256, (3, 8)).astype(np.uint8), _WORDS.integers(-127, 128, (8, 5)).astype(np.int8)
_ROWS = _WORDS.integers(-127, 128, (2, 3, 8)).astype(np.int8)
integer_linear.sample(_BYTES[0], Draw((), 0.1, 1), _BYTES[1], Draw((5,), 0.1, 1), np.uint8(100))
integer_linear.sample(_BYTES[0], Draw((), 0.1, 1), _BYTES[1], Draw((5,), 0.1, 1), None, (5,))
integer_linear.sample(_ROWS, Draw((2, 3), 0.1, 1), _BYTES[1], Draw((5,), 0.1, 1), None, (5,))


def whole_numbers(x, scale, zero_point, axis: int):
    """x / scale rounded to even and moved by the zero point, as a float; the scale and the zero point (None: there is
    none) so that they broadcast with `x`."""
    if scale.ndim > 1 or (zero_point is not None and tuple(zero_point.shape) != tuple(scale.shape)):
        raise ShapeError("a scale is a scalar or has one axis, and a zero point is as the scale is")
    if zero_point is not None and not dtype_of(zero_point.dtype).is_integer:
        raise DTypeError(f"a zero point is an integer, not {zero_point.dtype}")
    if scale.ndim:
        if not -x.ndim <= axis < x.ndim:
            raise ShapeError(f"axis {axis} is out of range for {number_of(x.ndim, 'axis', 'axes')}")
        require_equal(scale.shape[0], x.shape[axis], "there is a scale for each index along the axis")
        after = x.ndim - 1 - axis % x.ndim
        if after:
            shape = (scale.shape[0], *(1,) * after)
            scale = ops.reshape(scale, shape=shape)
            zero_point = None if zero_point is None else ops.reshape(zero_point, shape=shape)
    whole = ops.round_even(x / scale)
    if zero_point is None:
        return whole, scale, None
    offset = ops.convert(zero_point, dtype=x.dtype)
    return whole + offset, scale, offset


def limits(dtype: DType, low: int | None, high: int | None) -> tuple[int, int]:
    """The least and the greatest integer that are used. Raises `DTypeError` for those that the dtype does not hold."""
    if not (dtype.is_integer and dtype.bits <= 16):
        raise DTypeError(f"quantize gives integers of up to 16 bits, not {dtype}")
    least, most = integer_limits(dtype)
    found = least if low is None else low, most if high is None else high
    if not least <= found[0] < found[1] <= most:
        raise DTypeError(f"the range {list(found)} is not one of {dtype}")
    return found


def _sample(text: str, shape: tuple[int, ...], dtype: str = "float32") -> None:
    """A call of `dequantize` on arrays that the format makes of numbers."""
    chosen = parse_format(text)
    drawn = np.random.default_rng(len(dequantize.samples)).standard_normal(shape).astype(np.float32)
    dequantize.sample(*chosen.quantize(drawn), format=text, shape=shape, dtype=dtype)


for _text in ("int8", "int8{axis=0}", "uint8{axis=1}", "int8{tensor}"):
    _sample(_text, (3, 4, 5))
_sample("int8{axis=0,asymmetric}", (4, 3), "bfloat16")
for _text in (
    "int4",
    "int4{block=16,scales=f32}",
    "uint4{axis=0,block=none}",
    "uint4{axis=0,block=16}",
    "int3",
    "uint3{axis=0,block=16}",
    "nf4{axis=0}",
):
    _sample(_text, (3, 7, 5))
_sample("nf4{block=16,double=16}", (9, 31))
for _text in ("q4_0", "q8_0{axis=0}"):
    _sample(_text, (64, 64))


@composite(dtypes=frozenset({f32, f64}))
def quantized_linear(x: Tensor, bias: Tensor | None = None, *arrays: AnyTensor, format: str, shape: Shape) -> Tensor:
    """`linear` of `x` with the kernel [in, out] that these arrays of `format` are: what targets have a form for."""
    return ops.linear(x, dequantize(*arrays, format=format, shape=shape, dtype=dtype_of(x.dtype)), bias)


@quantized_linear.canonical
def _(x, bias, *arrays, format, shape):
    return {"format": str(parse_format(format))}


@quantized_linear.reference
def _(x, bias, *arrays, format, shape):
    y = x @ parse_format(format).dequantize(*arrays, shape=shape)
    return y if bias is None else y + bias


@quantized_linear.flops
def _(x, bias, *arrays, format, shape):
    return 2 * product(x.shape) * shape[1]


def _linear_sample(text: str, bias: bool, shape: tuple[int, int] = (64, 6)) -> None:
    """A call of `quantized_linear` with a kernel of this shape."""
    drawn = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    arrays = parse_format(text).quantize(drawn)
    quantized_linear.sample((2, shape[0]), (shape[1],) if bias else None, *arrays, format=text, shape=shape)


_linear_sample("int8", bias=True)
_linear_sample("int8{asymmetric}", bias=False)
_linear_sample("int4", bias=True)
_linear_sample("uint4{block=16}", bias=False, shape=(40, 6))
_linear_sample("int4{block=none}", bias=False, shape=(37, 6))
_linear_sample("nf4", bias=True)
_linear_sample("nf4{block=16,double=16}", bias=False, shape=(9, 31))
_linear_sample("q4_0", bias=False)
_linear_sample("q8_0", bias=True)


@composite(dtypes=frozenset({f32}))
def quantized_conv(
    x: Tensor,
    values: AnyTensor,
    scales: AnyTensor,
    bias: Tensor | None = None,
    *,
    format: str,
    shape: Shape,
    strides: tuple[int, ...] | None = None,
    padding: Padding = "valid",
    dilation: tuple[int, ...] | None = None,
    groups: int = 1,
) -> Tensor:
    """`conv` of `x` with its channels first, with the kernel [F, C / groups, *window] that these arrays of `format`
    are: what targets have a form for."""
    kernel = dequantize(values, scales, format=format, shape=shape, dtype=dtype_of(x.dtype))
    given = {"strides": strides, "padding": padding, "dilation": dilation, "groups": groups}
    return ops.conv(x, kernel, bias, **given, channels_last=False, filters_first=True)


@quantized_conv.canonical
def _(x, values, scales, bias, *, format, strides, dilation, **attributes):
    ones = (1,) * (x.ndim - 2)
    return {"format": str(parse_format(format)), "strides": strides or ones, "dilation": dilation or ones}


@quantized_conv.reference
def _(x, values, scales, bias, *, format, shape, **attributes):
    kernel = parse_format(format).dequantize(values, scales, shape=shape)
    convolved = ops.conv.reference_rule
    assert convolved is not None
    return convolved(x, kernel, bias, **attributes, channels_last=False, filters_first=True)


def _conv_sample(x: tuple[int, ...], shape: tuple[int, ...], bias: bool = False, **attributes) -> None:
    """A call of `quantized_conv` with a kernel of this shape."""
    drawn = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    arrays = parse_format("int8{axis=0}").quantize(drawn)
    biases = [(shape[0],)] if bias else []
    quantized_conv.sample(x, *arrays, *biases, format="int8{axis=0}", shape=shape, **attributes)


_conv_sample((2, 4, 6, 5), (6, 2, 3, 2), bias=True, groups=2, padding="same")
_conv_sample((2, 3, 7, 5), (4, 3, 3, 3), strides=(2, 1), padding=((1, 0), (2, 2)))
_conv_sample((1, 3, 5), (2, 3, 3), bias=True, strides=(2,))
