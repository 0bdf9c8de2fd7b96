"""Linear layers with adapters that belong together, as blocks with gradients of their own: all that read one input
(queries, keys and values), and a gated MLP.

Their frozen kernels stand side by side in one matrix, `kernel` [in, Σ outputs], and so do what the factors A give; the
factors come in turn, a [in, r], b [r, outputs] for each layer. What a block keeps for its gradient is its input, and in
an MLP what gate and up give: the products of rank r, the activation and its product with `up` are computed again, in
one pass over gate and up. Compare Hsu et al., "Liger Kernel", 2024, and Unsloth.

A gradient goes in three steps, so that what nobody asks for is not computed: `lora_small_gradient`, then
`lora_input_gradient` and `lora_factor_gradients`, which read it.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from scipy import special

from graphc.ir import ops
from graphc.ir.dims import product, sum_of
from graphc.ir.dtypes import FLOATS
from graphc.ir.errors import ShapeError
from graphc.ir.inference import require_equal, shape_text
from graphc.ir.opdef import Tensor, composite
from graphc.ir.ops.contraction import dot_general, linear


def _swapped(x):
    return ops.transpose(x, permutation=(1, 0))


def _joined(xs, axis: int):
    return xs[0] if len(xs) == 1 else ops.concat(*xs, axis=axis)


def _product(x, matrix):
    return dot_general(x, matrix, contract=((x.ndim - 1, 0),))


def _parts(x, sizes):
    """`x` cut along its last axis."""
    return (x,) if len(sizes) == 1 else ops.split(x, sizes=tuple(sizes), axis=x.ndim - 1)


def _check(name: str, x, kernel, factors, scaling) -> None:
    """Raise `ShapeError` where the factors do not fit the kernel."""
    if x.ndim == 0 or kernel.ndim != 2 or not scaling or len(factors) != 2 * len(scaling):
        raise ShapeError(
            f"{name} takes x [..., in], a kernel [in, outputs] and factors a [in, r] and b [r, outputs] in turn, with "
            f"a scaling for each two; not x {shape_text(x.shape)}, a kernel {shape_text(kernel.shape)} and "
            f"{len(factors)} factors with {len(scaling)} scalings"
        )
    for a, b in zip(factors[::2], factors[1::2], strict=True):
        what = f"{name}: kernel {shape_text(kernel.shape)}, a {shape_text(a.shape)} and b {shape_text(b.shape)}"
        if a.ndim != 2 or b.ndim != 2:
            raise ShapeError(f"{what}: factors are [in, r] and [r, outputs]")
        require_equal(a.shape[0], kernel.shape[0], f"{what} do not agree in inputs")
        require_equal(a.shape[1], b.shape[0], f"{what} do not agree in rank")
    outputs = sum_of([b.shape[1] for b in factors[1::2]])
    require_equal(outputs, kernel.shape[1], f"{name}: the outputs of all b together are those of the kernel")


# --- linear layers of one input -------------------------------------------------------------------------------------


@composite(dtypes=FLOATS)
def lora_linears(x: Tensor, kernel: Tensor, *factors: Tensor, scaling: tuple[float, ...]) -> Tensor:
    """`x @ kernel` of [..., in] by [in, Σ outputs]; to the outputs of each layer `x @ a @ b · scaling` is added."""
    _check("lora_linears", x, kernel, factors, scaling)
    ranks = [a.shape[1] for a in factors[::2]]
    small = _parts(linear(x, _joined(factors[::2], 1)), ranks)
    updates = [linear(s * factor, b) for s, factor, b in zip(small, scaling, factors[1::2], strict=True)]
    return linear(x, kernel) + _joined(updates, x.ndim - 1)


@lora_linears.reference
def _(x, kernel, *factors, scaling):
    updates = [s * (x @ a @ b) for s, a, b in zip(scaling, factors[::2], factors[1::2], strict=True)]
    return x @ kernel + np.concatenate(updates, -1)


@lora_linears.vjp
def _(dy, y, x, kernel, *factors, scaling):
    small = lora_small_gradient(dy, *factors[1::2], scaling=scaling)
    lead = tuple((axis, axis) for axis in range(x.ndim - 1))
    return (
        lora_input_gradient(dy, small, kernel, *factors[::2]),
        dot_general(x, dy, contract=lead),
        *lora_factor_gradients(dy, small, x, *factors, scaling=scaling),
    )


@lora_linears.flops
def _(x, kernel, *factors, scaling):
    rows, outputs = product(x.shape[:-1]), kernel.shape[1]
    return rows * (2 * product(kernel.shape) + 2 * sum_of([product(f.shape) for f in factors]) + outputs)


@composite(dtypes=FLOATS)
def lora_small_gradient(dy: Tensor, *b: Tensor, scaling: tuple[float, ...]) -> Tensor:
    """`dy @ bᵀ · scaling` [..., Σ r]: the cotangents of `x @ a` of all layers for that of their outputs."""
    given = _parts(dy, [each.shape[1] for each in b])
    found = [_product(d, _swapped(each)) * factor for d, each, factor in zip(given, b, scaling, strict=True)]
    return _joined(found, dy.ndim - 1)


@lora_small_gradient.reference
def _(dy, *b, scaling):
    given = np.split(dy, np.cumsum([each.shape[1] for each in b])[:-1], -1)
    return np.concatenate([s * (d @ each.T) for s, d, each in zip(scaling, given, b, strict=True)], -1)


@lora_small_gradient.flops
def _(dy, *b, scaling):
    return product(dy.shape[:-1]) * sum_of([2 * product(each.shape) + each.shape[0] for each in b])


@composite(dtypes=FLOATS)
def lora_input_gradient(dy: Tensor, small: Tensor, kernel: Tensor, *a: Tensor) -> Tensor:
    """`dy @ kernelᵀ` of [..., Σ outputs] by [in, Σ outputs], plus `small @ aᵀ` of [..., Σ r] by all a [in, r]."""
    return _product(dy, _swapped(kernel)) + _product(small, _swapped(_joined(a, 1)))


@lora_input_gradient.reference
def _(dy, small, kernel, *a):
    return dy @ kernel.T + small @ np.concatenate(a, 1).T


@lora_input_gradient.flops
def _(dy, small, kernel, *a):
    inputs, ranks = kernel.shape[0], sum_of([each.shape[1] for each in a])
    return product(dy.shape[:-1]) * (2 * product(kernel.shape) + 2 * ranks * inputs + inputs)


@composite(dtypes=FLOATS)
def lora_factor_gradients(
    dy: Tensor, small: Tensor, x: Tensor, *factors: Tensor, scaling: tuple[float, ...]
) -> tuple[Tensor, ...]:
    """The cotangents of all factors in turn: `xᵀ @ small` of each a, and `(x @ a · scaling)ᵀ @ dy` of each b."""
    lead = tuple((axis, axis) for axis in range(x.ndim - 1))
    ranks = [a.shape[1] for a in factors[::2]]
    inputs = _parts(dot_general(x, small, contract=lead), ranks)
    given = _parts(dy, [b.shape[1] for b in factors[1::2]])
    again = _parts(_product(x, _joined(factors[::2], 1)), ranks)
    found: list[Any] = []
    for d_a, small_again, d, factor in zip(inputs, again, given, scaling, strict=True):
        found += [d_a, dot_general(small_again * factor, d, contract=lead)]
    return tuple(found)


@lora_factor_gradients.reference
def _(dy, small, x, *factors, scaling):
    rows, dy, small = (each.reshape(-1, each.shape[-1]) for each in (x, dy, small))
    found, row, column = [], 0, 0
    for a, b, s in zip(factors[::2], factors[1::2], scaling, strict=True):
        (rank, outputs) = b.shape
        found.append(rows.T @ small[:, row : row + rank])
        found.append(s * (rows @ a).T @ dy[:, column : column + outputs])
        row, column = row + rank, column + outputs
    return tuple(found)


@lora_factor_gradients.flops
def _(dy, small, x, *factors, scaling):
    each = [4 * product(a.shape) + 2 * product(b.shape) for a, b in zip(factors[::2], factors[1::2], strict=True)]
    return product(x.shape[:-1]) * sum_of(each)


# --- gated activations ----------------------------------------------------------------------------------------------


def _activated(gate, activation: str):
    return ops.silu(gate) if activation == "silu" else ops.gelu(gate, approximate=activation == "gelu_tanh")


def _halves(x):
    size = x.shape[-1]
    if not isinstance(size, int) or size % 2:
        raise ShapeError(f"a gated activation takes gate and up side by side, not {shape_text(x.shape)}")
    return ops.split(x, sizes=(size // 2, size // 2), axis=x.ndim - 1)


@composite(dtypes=FLOATS)
def glu(x: Tensor, *, activation: Literal["silu", "gelu", "gelu_tanh"] = "silu") -> Tensor:
    """`activation(gate) · up` of gate and up side by side [..., 2 · size]: [..., size]."""
    gate, up = _halves(x)
    return _activated(gate, activation) * up


def _activated_array(gate, activation: str):
    """The activation and its slope."""
    if activation == "silu":
        s = special.expit(gate)
        return gate * s, s * (1 + gate * (1 - s))
    if activation == "gelu":
        below = special.ndtr(gate)
        return gate * below, below + gate * np.exp(-gate * gate / 2) / np.sqrt(2 * np.pi)
    factor = np.sqrt(2 / np.pi)
    bent = np.tanh(factor * (gate + 0.044715 * gate**3))
    slope = factor * (1 + 3 * 0.044715 * gate**2)
    return gate * (1 + bent) / 2, (1 + bent) / 2 + gate * (1 - bent**2) * slope / 2


@glu.reference
def _(x, *, activation):
    gate, up = np.split(x, 2, -1)
    return _activated_array(gate, activation)[0] * up


@glu.vjp
def _(dy, y, x, *, activation):
    return glu_gradient(dy, x, activation=activation)


@glu.flops
def _(x, *, activation):
    return 5 * product(x.shape)


@composite(dtypes=FLOATS)
def glu_gradient(dy: Tensor, x: Tensor, *, activation: Literal["silu", "gelu", "gelu_tanh"] = "silu") -> Tensor:
    """The cotangents of gate and up side by side [..., 2 · size] for that of `glu` [..., size]."""
    gate, up = _halves(x)
    rule: Any = (ops.silu if activation == "silu" else ops.gelu).vjp_rule
    options = {} if activation == "silu" else {"approximate": activation == "gelu_tanh"}
    activated = _activated(gate, activation)
    return ops.concat(rule(dy * up, activated, gate, **options), dy * activated, axis=x.ndim - 1)


@glu_gradient.reference
def _(dy, x, *, activation):
    gate, up = np.split(x, 2, -1)
    activated, slope = _activated_array(gate, activation)
    return np.concatenate([dy * up * slope, dy * activated], -1)


@glu_gradient.flops
def _(dy, x, *, activation):
    return 9 * product(x.shape)


# --- a gated MLP ----------------------------------------------------------------------------------------------------


@composite(dtypes=FLOATS)
def lora_mlp(
    x: Tensor,
    gate_up: Tensor,
    down: Tensor,
    *factors: Tensor,
    scaling: tuple[float, ...],
    activation: Literal["silu", "gelu", "gelu_tanh"] = "silu",
) -> tuple[Tensor, Tensor]:
    """`down(activation(gate(x)) · up(x))` of three layers with adapters, and for the gradient what gate and up gave.

    x is [..., in], `gate_up` [in, 2 · size], `down` [size, outputs]; the factors are those of gate, up and down.
    """
    if len(factors) != 6 or len(scaling) != 3:
        raise ShapeError(f"lora_mlp takes the factors of three layers, not {len(factors)} with {len(scaling)} scalings")
    wide = lora_linears(x, gate_up, *factors[:4], scaling=scaling[:2])
    return lora_linears(glu(wide, activation=activation), down, *factors[4:], scaling=scaling[2:]), wide


@lora_mlp.reference
def _(x, gate_up, down, *factors, scaling, activation):
    rule: Any = lora_linears.reference_rule
    wide = rule(x, gate_up, *factors[:4], scaling=scaling[:2])
    gate, up = np.split(wide, 2, -1)
    return rule(_activated_array(gate, activation)[0] * up, down, *factors[4:], scaling=scaling[2:]), wide


@lora_mlp.vjp
def _(dy, y, x, gate_up, down, *factors, scaling, activation):
    d_y, beside = dy
    wide = y[1]
    lead = tuple((axis, axis) for axis in range(x.ndim - 1))
    d_down = of_down = None
    d_wide = beside
    if d_y is not None:
        small = lora_small_gradient(d_y, factors[5], scaling=scaling[2:])
        d_hidden = lora_input_gradient(d_y, small, down, factors[4])
        hidden = glu(wide, activation=activation)  # which is of no more use when there is `d_wide`
        of_down = lora_factor_gradients(d_y, small, hidden, *factors[4:], scaling=scaling[2:])
        d_down = dot_general(hidden, d_y, contract=lead)
        d_wide = glu_gradient(d_hidden, wide, activation=activation)
        d_wide = d_wide if beside is None else d_wide + beside
    small = lora_small_gradient(d_wide, factors[1], factors[3], scaling=scaling[:2])
    return (
        lora_input_gradient(d_wide, small, gate_up, factors[0], factors[2]),
        dot_general(x, d_wide, contract=lead),
        d_down,
        *lora_factor_gradients(d_wide, small, x, *factors[:4], scaling=scaling[:2]),
        *((None, None) if of_down is None else of_down),
    )


@lora_mlp.flops
def _(x, gate_up, down, *factors, scaling, activation):
    rows, size = product(x.shape[:-1]), down.shape[0]
    products = 2 * product(gate_up.shape) + 2 * product(down.shape) + sum_of([2 * product(f.shape) for f in factors])
    return rows * (products + 12 * size + down.shape[1])


# --- samples --------------------------------------------------------------------------------------------------------


lora_linears.sample((2, 3), (3, 4), (3, 2), (2, 4), scaling=(0.5,))
lora_linears.sample((2, 2, 3), (3, 6), (3, 2), (2, 4), (3, 1), (1, 2), scaling=(0.5, 2.0))
lora_small_gradient.sample((2, 2, 6), (2, 4), (1, 2), scaling=(0.5, 2.0))
lora_input_gradient.sample((2, 2, 6), (2, 2, 3), (3, 6), (3, 2), (3, 1))
lora_factor_gradients.sample((2, 2, 6), (2, 2, 3), (2, 2, 3), (3, 2), (2, 4), (3, 1), (1, 2), scaling=(0.5, 2.0))
for _activation in ("silu", "gelu", "gelu_tanh"):
    glu.sample((2, 3, 4), activation=_activation)
    glu_gradient.sample((2, 3, 2), (2, 3, 4), activation=_activation)
    lora_mlp.sample((2, 2, 3), (3, 8), (4, 3), (3, 2), (2, 4), (3, 1), (1, 4), (4, 2), (2, 3), scaling=(0.5, 2.0, 1.0),
                    activation=_activation)  # fmt: skip


__all__ = [
    "glu",
    "glu_gradient",
    "lora_factor_gradients",
    "lora_input_gradient",
    "lora_linears",
    "lora_mlp",
    "lora_small_gradient",
]
