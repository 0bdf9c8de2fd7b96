"""Activations: composites, since every target has something better than the decomposition."""

from __future__ import annotations

import math

import numpy as np
from scipy import special

from graphc.ir import ops
from graphc.ir.dtypes import FLOATS, REAL
from graphc.ir.opdef import Draw, Tensor, composite


@composite(dtypes=REAL)
def relu(x: Tensor) -> Tensor:
    """max(x, 0). The gradient at 0 is 0."""
    return ops.maximum(x, 0)


@relu.reference
def _(x):
    return np.maximum(x, 0)


@relu.vjp
def _(dy, y, x):
    return relu_gradient(dy, y)


@composite(dtypes=REAL)
def relu_gradient(dy: Tensor, y: Tensor) -> Tensor:
    """The cotangent of `x` in `y = relu(x)`: 0 where y ≤ 0, else `dy`."""
    return ops.select(y <= 0, 0, dy)


@relu_gradient.reference
def _(dy, y):
    return np.where(y <= 0, 0, dy)


@relu_gradient.vjp
def _(g, dx, dy, y):
    return relu_gradient(g, y), None


relu_gradient.sample((2, 3), (2, 3))


@composite(dtypes=REAL)
def relu6(x: Tensor) -> Tensor:
    """min(max(x, 0), 6). The gradient at 0 and at 6 is 0."""
    return ops.minimum(ops.maximum(x, 0), 6)


@relu6.reference
def _(x):
    return np.minimum(np.maximum(x, 0), 6)


@relu6.vjp
def _(dy, y, x):
    return ops.select(ops.and_(x > 0, x < 6), dy, 0)


@composite(dtypes=FLOATS)
def leaky_relu(x: Tensor, *, negative_slope: float = 0.2) -> Tensor:
    """x where it is positive, `negative_slope`·x elsewhere."""
    return ops.select(x > 0, x, x * negative_slope)


@leaky_relu.reference
def _(x, *, negative_slope):
    return np.where(x > 0, x, x * negative_slope)


@leaky_relu.vjp
def _(dy, y, x, *, negative_slope):
    return ops.select(x > 0, dy, dy * negative_slope)


@composite(dtypes=FLOATS)
def elu(x: Tensor, *, alpha: float = 1.0) -> Tensor:
    """x where it is positive, `alpha`·(exp(x) − 1) elsewhere."""
    return ops.select(x > 0, x, ops.expm1(x) * alpha)


@elu.reference
def _(x, *, alpha):
    return np.where(x > 0, x, np.expm1(x) * alpha)


@elu.vjp
def _(dy, y, x, *, alpha):
    return ops.select(x > 0, dy, dy * (y + alpha))


@composite(dtypes=FLOATS)
def silu(x: Tensor) -> Tensor:
    """x · sigmoid(x), also called swish."""
    return x * ops.sigmoid(x)


@silu.reference
def _(x):
    return x * special.expit(x)


@silu.vjp
def _(dy, y, x):
    return silu_gradient(dy, x)


@composite(dtypes=FLOATS)
def silu_gradient(dy: Tensor, x: Tensor) -> Tensor:
    """The cotangent of `x` in `silu(x)`."""
    gate = ops.sigmoid(x)
    return dy * gate * (1 + x * (1 - gate))


@silu_gradient.reference
def _(dy, x):
    gate = special.expit(x)
    return dy * gate * (1 + x * (1 - gate))


silu_gradient.sample((2, 3), Draw((2, 3), -8, 8))


@composite(dtypes=FLOATS)
def gelu(x: Tensor, *, approximate: bool = False) -> Tensor:
    """x · Φ(x), with Φ the normal distribution function; `approximate` takes tanh in place of erf."""
    if approximate:
        return x * 0.5 * (ops.tanh(_tanh_argument(x)) + 1)
    return x * 0.5 * (ops.erf(x * math.sqrt(0.5)) + 1)


def _tanh_argument(x):
    return (x + x * x * x * 0.044715) * math.sqrt(2 / math.pi)


@gelu.reference
def _(x, *, approximate):
    if approximate:
        return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))
    return x * special.ndtr(x)


@gelu.vjp
def _(dy, y, x, *, approximate):
    if approximate:
        curve = ops.tanh(_tanh_argument(x))
        slope = (x * x * (3 * 0.044715) + 1) * math.sqrt(2 / math.pi)
        return dy * (0.5 * (1 + curve) + 0.5 * x * (1 - curve * curve) * slope)
    below = 0.5 * (1 + ops.erf(x * math.sqrt(0.5)))
    density = ops.exp(-0.5 * x * x) * (1 / math.sqrt(2 * math.pi))
    return dy * (below + x * density)


@composite(dtypes=FLOATS)
def softplus(x: Tensor) -> Tensor:
    """log(1 + exp(x)), without overflow."""
    return ops.maximum(x, 0) + ops.log1p(ops.exp(-ops.abs(x)))


@softplus.reference
def _(x):
    return np.logaddexp(x, 0)


@softplus.vjp
def _(dy, y, x):
    return dy * ops.sigmoid(x)


for _op in (relu, relu6, leaky_relu, elu, silu, gelu, softplus):
    _op.sample(Draw((3, 4), -8, 8))
    _op.sample(Draw((), -8, 8))
    _op.sample(Draw((0, 2), -8, 8))
leaky_relu.sample((2, 3), negative_slope=0.01)
elu.sample((2, 3), alpha=0.5)
gelu.sample(Draw((3, 4), -4, 4), approximate=True)


@composite(dtypes=FLOATS)
def softmax(x: Tensor, *, axis: int = -1) -> Tensor:
    """Exponentials normalised along `axis`, computed after subtracting the maximum."""
    e = ops.exp(x - ops.reduce_max(x, axes=(axis,), keepdims=True))
    return e / ops.reduce_sum(e, axes=(axis,), keepdims=True)


@softmax.reference
def _(x, *, axis):
    return special.softmax(x, axis) if x.size else x


@softmax.vjp
def _(dy, y, x, *, axis):
    return y * (dy - ops.reduce_sum(y * dy, axes=(axis,), keepdims=True))


@composite(dtypes=FLOATS)
def log_softmax(x: Tensor, *, axis: int = -1) -> Tensor:
    """Logarithm of the softmax along `axis`."""
    shifted = x - ops.reduce_max(x, axes=(axis,), keepdims=True)
    return shifted - ops.log(ops.reduce_sum(ops.exp(shifted), axes=(axis,), keepdims=True))


@log_softmax.reference
def _(x, *, axis):
    return special.log_softmax(x, axis) if x.size else x


@log_softmax.vjp
def _(dy, y, x, *, axis):
    return dy - ops.exp(y) * ops.reduce_sum(dy, axes=(axis,), keepdims=True)


for _op in (softmax, log_softmax):
    _op.sample((2, 5))
    _op.sample((3, 2, 2), axis=1)
    _op.sample((0, 3))
