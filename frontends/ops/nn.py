"""Functions of neural networks: products, activations, convolutions, pooling, normalization."""

from __future__ import annotations

from typing import Any

from graphc.frontends.ops.dispatch import axes_of, cast_back, function, inexact, tensor
from graphc.ir import ops as ir
from graphc.ir.dtypes import dtype as dtype_of
from graphc.ir.errors import GraphcError, ShapeError, UnsupportedError
from graphc.ir.suggestions import number_of

# --- products -----------------------------------------------------------------------------------------------------


@function
def matmul(x1: Any, x2: Any) -> Any:
    """Matrix products over the last two axes; the others broadcast."""
    return ir.matmul(tensor(x1), tensor(x2))


@function
def dot(x1: Any, x2: Any) -> Any:
    """Sum over the last axis of `x1` and the last but one (or only) of `x2`; product with a scalar."""
    x1, x2 = tensor(x1), tensor(x2)
    if not len(x1.shape) or not len(x2.shape):
        return ir.mul(x1, x2)
    return ir.dot_general(x1, x2, contract=((len(x1.shape) - 1, max(len(x2.shape) - 2, 0)),))


@function
def tensordot(x1: Any, x2: Any, axes: Any = 2) -> Any:
    """Sum over pairs of axes: the last and first `axes` many, or two lists of axes."""
    x1, x2 = tensor(x1), tensor(x2)
    if isinstance(axes, int):
        left: Any = range(len(x1.shape) - axes, len(x1.shape))
        right: Any = range(axes)
    else:
        left, right = axes
    pairs = tuple(zip(axes_of(x1, left), axes_of(x2, right), strict=True))
    return ir.dot_general(x1, x2, contract=pairs)


@function
def outer(x1: Any, x2: Any) -> Any:
    """All products of an element of `x1` and one of `x2`."""
    return ir.mul(ir.reshape(tensor(x1), shape=(-1, 1)), ir.reshape(tensor(x2), shape=(1, -1)))


@function
def einsum(subscripts: str, *operands: Any) -> Any:
    """Einstein's summation."""
    return ir.einsum(*[tensor(x) for x in operands], equation=subscripts)


# --- activations --------------------------------------------------------------------------------------------------


@function
def relu(x: Any) -> Any:
    """max(x, 0)."""
    return ir.relu(tensor(x))


@function
def relu6(x: Any) -> Any:
    """`x` between 0 and 6."""
    return ir.relu6(tensor(x))


@function
def leaky_relu(x: Any, negative_slope: float = 0.2) -> Any:
    """`x`, times `negative_slope` below 0."""
    return ir.leaky_relu(inexact(x), negative_slope=negative_slope)


@function
def elu(x: Any, alpha: float = 1.0) -> Any:
    """`x`, and alpha · (exp(x) − 1) below 0."""
    return ir.elu(inexact(x), alpha=alpha)


@function
def selu(x: Any) -> Any:
    """`elu`, scaled so that mean and variance keep themselves."""
    return ir.elu(inexact(x), alpha=1.6732632423543772) * 1.0507009873554805


@function
def gelu(x: Any, approximate: bool = True) -> Any:
    """`x` times the normal distribution function, by tanh unless `approximate` is False."""
    return ir.gelu(inexact(x), approximate=approximate)


@function
def silu(x: Any) -> Any:
    """x · sigmoid(x)."""
    return ir.silu(inexact(x))


swish = silu


@function
def softplus(x: Any) -> Any:
    """log(1 + exp(x))."""
    return ir.softplus(inexact(x))


@function
def softsign(x: Any) -> Any:
    """x / (1 + |x|)."""
    x = inexact(x)
    return x / (ir.abs(x) + 1.0)


@function
def log_sigmoid(x: Any) -> Any:
    """log(sigmoid(x))."""
    return -ir.softplus(-inexact(x))


@function
def hard_sigmoid(x: Any) -> Any:
    """x / 6 + ½, between 0 and 1."""
    return ir.relu6(inexact(x) + 3.0) * (1.0 / 6.0)


@function
def hard_silu(x: Any) -> Any:
    """x · hard_sigmoid(x)."""
    x = inexact(x)
    return x * (ir.relu6(x + 3.0) * (1.0 / 6.0))


hard_swish = hard_silu


@function
def softmax(x: Any, axis: Any = -1) -> Any:
    """Exponentials normalised along `axis` (over all elements, if None)."""
    return _over(ir.softmax, inexact(x), axis)


@function
def log_softmax(x: Any, axis: Any = -1) -> Any:
    """The logarithm of `softmax`."""
    return _over(ir.log_softmax, inexact(x), axis)


def _over(op: Any, x: Any, axis: Any) -> Any:
    if isinstance(axis, int):
        return op(x, axis=axis)
    axes = axes_of(x, axis)
    rest = [i for i in range(len(x.shape)) if i not in axes]
    order = [*rest, *axes]
    moved = ir.transpose(x, permutation=tuple(order))
    flat = ir.reshape(moved, shape=[*[x.shape[i] for i in rest], -1])
    back = [order.index(i) for i in range(len(order))]
    return ir.transpose(ir.reshape(op(flat, axis=-1), shape=moved.shape), permutation=tuple(back))


@function
def one_hot(x: Any, num_classes: int, axis: int = -1, dtype: Any = None, sparse: bool = False) -> Any:
    """1 at the index that `x` gives along a new axis, 0 elsewhere."""
    if sparse:
        raise UnsupportedError("tensors are dense")
    return ir.one_hot(tensor(x), size=num_classes, axis=axis, dtype=dtype_of(dtype or "float32"))


# --- convolution and pooling --------------------------------------------------------------------------------------


def per_axis(value: Any, rank: int, name: str) -> tuple[int, ...]:
    """An integer for each spatial axis, from one for all or a sequence."""
    found = (value,) * rank if isinstance(value, int) else tuple(value)
    if len(found) != rank or not all(isinstance(each, int) and each > 0 for each in found):
        raise ShapeError(f"{name} is a positive integer or {rank} of them, not {value!r}")
    return found


def is_channels_last(data_format: str | None) -> bool:
    """What a `data_format` says; None means channels_last."""
    if data_format not in (None, "channels_last", "channels_first"):
        raise GraphcError(f"data_format is 'channels_last' or 'channels_first', not {data_format!r}")
    return data_format != "channels_first"


@function
def conv(
    inputs: Any,
    kernel: Any,
    strides: Any = 1,
    padding: str = "valid",
    data_format: str | None = None,
    dilation_rate: Any = 1,
) -> Any:
    """Convolution in as many dimensions as the input has spatial axes; the kernel is [*window, in / groups, out]."""
    x, kernel = tensor(inputs), tensor(kernel)
    rank = len(x.shape) - 2
    last = is_channels_last(data_format)
    channels, depth = x.shape[-1 if last else 1], kernel.shape[-2]
    if not isinstance(channels, int) or channels % depth:
        raise ShapeError(
            f"a kernel {tuple(kernel.shape)} for {number_of(depth, 'channel')} does not fit an input of {channels}"
        )
    return ir.conv(
        x,
        kernel,
        None,
        strides=per_axis(strides, rank, "strides"),
        padding=padding.lower(),
        dilation=per_axis(dilation_rate, rank, "dilation_rate"),
        groups=channels // depth,
        channels_last=last,
    )


@function
def depthwise_conv(
    inputs: Any,
    kernel: Any,
    strides: Any = 1,
    padding: str = "valid",
    data_format: str | None = None,
    dilation_rate: Any = 1,
) -> Any:
    """Convolution of each channel by itself; the kernel is [*window, in, multiplier]."""
    x, kernel = tensor(inputs), tensor(kernel)
    rank = len(x.shape) - 2
    *window, channels, multiplier = kernel.shape
    return ir.conv(
        x,
        ir.reshape(kernel, shape=(*window, 1, channels * multiplier)),
        None,
        strides=per_axis(strides, rank, "strides"),
        padding=padding.lower(),
        dilation=per_axis(dilation_rate, rank, "dilation_rate"),
        groups=channels,
        channels_last=is_channels_last(data_format),
    )


@function
def max_pool(
    inputs: Any, pool_size: Any, strides: Any = None, padding: str = "valid", data_format: str | None = None
) -> Any:
    """The largest element of each window."""
    x = tensor(inputs)
    rank = len(x.shape) - 2
    window = per_axis(pool_size, rank, "pool_size")
    steps = window if strides is None else per_axis(strides, rank, "strides")
    return ir.max_pool(
        x, window=window, strides=steps, padding=padding.lower(), channels_last=is_channels_last(data_format)
    )


@function
def average_pool(
    inputs: Any, pool_size: Any, strides: Any = None, padding: str = "valid", data_format: str | None = None
) -> Any:
    """The mean of each window, in which padding does not count."""
    x = inexact(inputs)
    rank = len(x.shape) - 2
    window = per_axis(pool_size, rank, "pool_size")
    steps = window if strides is None else per_axis(strides, rank, "strides")
    return ir.avg_pool(
        x, window=window, strides=steps, padding=padding.lower(), channels_last=is_channels_last(data_format)
    )


# --- normalization ------------------------------------------------------------------------------------------------


@function
def batch_normalization(
    x: Any, mean: Any, variance: Any, axis: int, offset: Any = None, scale: Any = None, epsilon: float = 1e-3
) -> Any:
    """(x − mean) / √(variance + epsilon) · scale + offset, vectors along `axis`."""
    return ir.batch_norm(inexact(x), mean, variance, scale, offset, axis=axis, epsilon=epsilon)


@function
def layer_normalization(
    x: Any, gamma: Any = None, beta: Any = None, axis: Any = -1, epsilon: float | None = None
) -> Any:
    """(x − mean) / √(variance + epsilon) · gamma + beta, with mean and variance over `axis`."""
    x = inexact(x)
    return ir.layer_norm(x, gamma, beta, axes=axes_of(x, axis), epsilon=1e-7 if epsilon is None else epsilon)


@function
def rms_normalization(x: Any, scale: Any = None, axis: Any = -1, epsilon: float | None = None) -> Any:
    """x / √(mean of squares + epsilon) · scale."""
    x = inexact(x)
    axes = axes_of(x, axis)
    epsilon = 1e-7 if epsilon is None else epsilon
    if scale is None or isinstance(scale, (int, float)):
        y = ir.rms_norm(x, None, axes=axes, epsilon=epsilon)
        return y if scale in (None, 1) else y * float(scale)
    return ir.rms_norm(x, scale, axes=axes, epsilon=epsilon)


@function
def normalize(x: Any, axis: Any = -1, order: int = 2, epsilon: float | None = None) -> Any:
    """`x` divided by its norm of this order over `axis`."""
    if order not in (1, 2):
        raise UnsupportedError(f"normalize takes order 1 or 2, not {order!r}")
    x = inexact(x)
    axes = axes_of(x, axis)
    epsilon = 1e-7 if epsilon is None else epsilon
    if order == 1:
        return x / ir.maximum(ir.reduce_sum(ir.abs(x), axes=axes, keepdims=True), epsilon)
    squares = ir.reduce_sum(ir.square(x), axes=axes, keepdims=True)
    return cast_back(x * ir.rsqrt(ir.maximum(squares, epsilon * epsilon)), x)


__all__ = [
    "average_pool",
    "batch_normalization",
    "conv",
    "depthwise_conv",
    "dot",
    "einsum",
    "elu",
    "gelu",
    "hard_sigmoid",
    "hard_silu",
    "hard_swish",
    "layer_normalization",
    "leaky_relu",
    "log_sigmoid",
    "log_softmax",
    "matmul",
    "max_pool",
    "normalize",
    "one_hot",
    "outer",
    "relu",
    "relu6",
    "rms_normalization",
    "selu",
    "silu",
    "softmax",
    "softplus",
    "softsign",
    "swish",
    "tensordot",
]
