"""Attention, losses of each example, sorting."""

from __future__ import annotations

from typing import Any

from graphc.frontends.ops.dispatch import cast_back, counted_axis, function, inexact, kind, tensor, truth
from graphc.ir import ops as ir
from graphc.ir.dtypes import i32
from graphc.ir.errors import ShapeError


@function
def dot_product_attention(
    query: Any,
    key: Any,
    value: Any,
    bias: Any = None,
    mask: Any = None,
    scale: float | None = None,
    is_causal: bool = False,
    flash_attention: bool | None = None,
    attn_logits_soft_cap: float | None = None,
) -> Any:
    """Attention of query [B, T, H, D] to key and value [B, S, K, D]; see `attention`. Which kernel runs the target
    chooses, whatever `flash_attention` says."""
    mask = None if mask is None else truth(mask)
    return ir.attention(
        inexact(query), key, value, bias, mask, causal=is_causal, scale=scale, softcap=attn_logits_soft_cap
    )


# --- losses -------------------------------------------------------------------------------------------------------

EPSILON = 1e-7
"""How near to 0 and 1 probabilities are taken."""


def _logarithms(probabilities: Any) -> Any:
    """The logarithms of probabilities, which are first made to sum to 1."""
    shares = probabilities / ir.reduce_sum(probabilities, axes=(-1,), keepdims=True)
    return ir.log(ir.clip(shares, EPSILON, 1 - EPSILON))


def _classes_last(x: Any, axis: int) -> Any:
    """`x` with this axis as the last one."""
    ndim = len(x.shape)
    at = counted_axis(axis, ndim)
    return x if at == ndim - 1 else ir.transpose(x, permutation=(*(i for i in range(ndim) if i != at), at))


@function
def sparse_categorical_crossentropy(target: Any, output: Any, from_logits: bool = False, axis: int = -1) -> Any:
    """−log of the probability (softmax of the logits) that `output` gives to the class `target`. A target that is no
    class gives NaN."""
    output = _classes_last(inexact(output), axis)
    labels = tensor(target)
    if len(labels.shape) == len(output.shape):
        labels = _classes_last(labels, axis)
        if labels.shape[-1] != 1:
            raise ShapeError(f"a label for each example of {tuple(output.shape)}, not {tuple(labels.shape)}")
        labels = ir.reshape(labels, shape=labels.shape[:-1])
    if not kind(labels).is_integer:
        labels = ir.convert(labels, dtype=i32)
    return ir.sparse_cross_entropy(output if from_logits else _logarithms(output), labels)


@function
def categorical_crossentropy(target: Any, output: Any, from_logits: bool = False, axis: int = -1) -> Any:
    """−Σ target · log of the probabilities (softmax of the logits) that `output` gives."""
    output = _classes_last(inexact(output), axis)
    target = cast_back(_classes_last(tensor(target), axis), output)
    if from_logits:
        return ir.cross_entropy(output, target)
    return -ir.reduce_sum(target * _logarithms(output), axes=(-1,))


@function
def binary_crossentropy(target: Any, output: Any, from_logits: bool = False) -> Any:
    """−target · log p − (1 − target) · log(1 − p) for probabilities (sigmoids of the logits) `output`."""
    output = inexact(output)
    target = cast_back(tensor(target), output)
    if from_logits:
        return ir.binary_cross_entropy(output, target)
    output = ir.clip(output, EPSILON, 1 - EPSILON)
    return -(target * ir.log(output) + (1.0 - target) * ir.log(1.0 - output))


# --- sorting ------------------------------------------------------------------------------------------------------


def _flat(x: Any, axis: int | None) -> tuple[Any, int]:
    """The tensor and axis to sort along; all elements in a row without an axis."""
    return (ir.reshape(x, shape=(-1,)), 0) if axis is None else (x, counted_axis(axis, len(x.shape)))


@function
def sort(x: Any, axis: int | None = -1) -> Any:
    """`x` ascending along `axis` (all elements, if None); equal ones keep their order, NaN comes last."""
    x, at = _flat(tensor(x), axis)
    return ir.sort(x, axis=at)


@function
def argsort(x: Any, axis: int | None = -1) -> Any:
    """The indices that sort `x`."""
    x, at = _flat(tensor(x), axis)
    return ir.sort(x, ir.iota(shape=x.shape, axis=at, dtype=i32), axis=at)[1]


__all__ = [
    "argsort",
    "binary_crossentropy",
    "categorical_crossentropy",
    "dot_product_attention",
    "sort",
    "sparse_categorical_crossentropy",
]
