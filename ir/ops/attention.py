"""Attention, and the rotation of its queries and keys by their positions.

Heads come last but one: queries are [B, T, H, D], keys [B, S, K, D] and values [B, S, K, E], where K divides H: in
grouped attention H / K neighbouring heads of queries share one of keys and values. Scores are [B, H, T, S].
"""

from __future__ import annotations

import math

import numpy as np
from scipy import special

from graphc.ir import ops
from graphc.ir.dims import product
from graphc.ir.dtypes import FLOATS, bool_, dtype, f32, i32
from graphc.ir.errors import GraphcError, ShapeError
from graphc.ir.inference import is_literal, require_equal, require_rank, shape_text
from graphc.ir.opdef import BoolTensor, Draw, IndexTensor, Tensor, composite
from graphc.ir.ops.cotangents import unbroadcast
from graphc.ir.types import TensorType


def _wide(x):
    """Narrow floats as float32, others as they are."""
    kind = dtype(x.dtype)
    return ops.convert(x, dtype=f32) if kind.is_float and kind.bits < 32 else x


def _like(y, x):
    """`y` in the dtype of `x`."""
    return y if dtype(y.dtype) is dtype(x.dtype) else ops.convert(y, dtype=x.dtype)


# --- attention ----------------------------------------------------------------------------------------------------


@composite(dtypes=FLOATS)
def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bias: Tensor | None = None,
    mask: BoolTensor | None = None,
    *,
    causal: bool = False,
    scale: float | None = None,
    softcap: float | None = None,
    window: int | None = None,
) -> Tensor:
    """Means of the values [B, S, K, E], weighted by the softmax over S of the scores of query [B, T, H, D] and key
    [B, S, K, D]: [B, T, H, E].

    Scores are `scale` (1 / √D) times the products of query and key; `softcap`·tanh(score / `softcap`) of them; plus
    `bias`. Place t sees place s where the `mask` holds, if `causal` where s ≤ t (both counted from the first one), and
    with a `window` where |t − s| < `window`. Bias and mask broadcast to [B, H, T, S]. A query that sees nothing, or
    of which the bias makes all scores −∞, gives zeros. The softmax of narrow floats is computed in float32.
    """
    _check(query, key, value, bias, mask, softcap, window)
    weights, _ = _weights(query, key, bias, mask, causal, scale, softcap, window)
    return _joined(ops.dot_general(_like(weights, value), value, contract=((3, 1),), batch=_BATCH), query)


_BATCH = ((0, 0), (1, 2))
"""Axes in common of what is grouped [B, K, G·T, …] and what is by place [B, S, K, …]."""


def _check(query, key, value, bias, mask, softcap, window) -> None:
    for name, operand in (("query", query), ("key", key), ("value", value)):
        require_rank(TensorType.of(dtype(operand.dtype), operand.shape), 4, f"the {name} of attention")
    text = f"query {shape_text(query.shape)}, key {shape_text(key.shape)} and value {shape_text(value.shape)}"
    require_equal(query.shape[0], key.shape[0], f"{text} must have one batch size")
    require_equal(key.shape[0], value.shape[0], f"{text} must have one batch size")
    require_equal(key.shape[1], value.shape[1], f"{text}: there must be as many keys as values")
    require_equal(query.shape[3], key.shape[3], f"{text}: query and key must have as many features")
    heads, groups = query.shape[2], key.shape[2]
    if not isinstance(heads, int) or not isinstance(groups, int) or groups < 1 or heads % groups:
        raise ShapeError(f"{text}: the heads of keys must divide those of queries")
    if value.shape[2] != groups:
        raise ShapeError(f"{text}: keys and values must have as many heads")
    scores = (query.shape[0], heads, query.shape[1], key.shape[1])
    for name, operand in (("bias", bias), ("mask", mask)):
        if operand is not None:
            what = f"the {name} {shape_text(operand.shape)} of attention does not broadcast to {shape_text(scores)}"
            if operand.ndim > 4:
                raise ShapeError(what)
            for size, wanted in zip(operand.shape, scores[4 - operand.ndim :], strict=True):
                if not is_literal(size, 1):
                    require_equal(size, wanted, what)
    if softcap is not None and not softcap > 0:
        raise GraphcError(f"the softcap of attention is a positive number, not {softcap}")
    if window is not None and window < 1:
        raise GraphcError(f"the window of attention is a positive number of places, not {window}")


def _grouped(x, groups: int):
    """[B, T, H, D] as [B, K, G·T, D], the heads of each group one after another."""
    batch, places, heads, features = x.shape
    by_head = ops.transpose(x, permutation=(0, 2, 1, 3))
    if heads == groups:
        return by_head
    return ops.reshape(by_head, shape=(batch, groups, heads // groups * places, features))


def _joined(x, like):
    """[B, K, G·T, E] as [B, T, H, E], with the sizes of `like`."""
    batch, places, heads, _ = like.shape
    by_head = ops.reshape(x, shape=(batch, heads, places, x.shape[-1]))
    return ops.transpose(by_head, permutation=(0, 2, 1, 3))


def _weights(query, key, bias, mask, causal, scale, softcap, window):
    """The weights [B, K, G·T, S] in float32 or wider, and the slope of the softcap [B, H, T, S], None without one."""
    groups = key.shape[2]
    batch, places, heads, features = query.shape
    factor = 1 / math.sqrt(features) if scale is None else scale
    scores = ops.dot_general(_grouped(query, groups), key, contract=((3, 3),), batch=_BATCH)
    shape = (batch, heads, places, key.shape[1])
    scores = ops.reshape(_wide(scores), shape=shape) * factor
    slope = None
    if softcap is not None:
        bent = ops.tanh(scores * (1 / softcap))
        scores, slope = bent * softcap, 1 - bent * bent
    if bias is not None:
        scores = scores + _wide(bias)
    seen = visible(places, key.shape[1], causal, window)
    if mask is not None:
        seen = mask if seen is None else ops.and_(mask, seen)
    if seen is not None:
        scores = ops.select(seen, scores, -math.inf)
    rows = (batch, groups, heads // groups * places, key.shape[1])
    if bias is None and mask is None and window is None:  # every query sees the first key
        return ops.reshape(ops.softmax(scores, axis=3), shape=rows), slope
    top = ops.stop_gradient(ops.reduce_max(scores, axes=(3,), keepdims=True))
    e = ops.exp(scores - ops.select(ops.eq(top, -math.inf), 0, top))
    total = ops.reduce_sum(e, axes=(3,), keepdims=True)
    weights = e / ops.select(ops.eq(total, 0), 1, total)
    return ops.reshape(weights, shape=rows), slope


def visible(places, others, causal: bool, window: int | None):
    """Which of the places [T, 1] see which of the others [1, S] by causality and window; None for all."""
    if not causal and window is None:
        return None
    t = ops.iota(shape=(places, 1), axis=0, dtype=i32)
    s = ops.iota(shape=(1, others), axis=1, dtype=i32)
    seen = ops.le(s, t) if causal else None
    if window is not None:
        near = ops.lt(t - s, window)
        seen = near if seen is None else ops.and_(seen, near)
        if not causal:
            seen = ops.and_(seen, ops.lt(s - t, window))
    return seen


def attention_weights(query, key, bias=None, mask=None, *, causal=False, scale=None, softcap=None, window=None):
    """The weights [B, H, T, S] of `attention`, in the dtype of the query: for what wants them before the values."""
    _check(query, key, key, bias, mask, softcap, window)
    weights, _ = _weights(query, key, bias, mask, causal, scale, softcap, window)
    batch, places, heads, _ = query.shape
    return _like(ops.reshape(weights, shape=(batch, heads, places, key.shape[1])), query)


def weighted_values(weights, value):
    """Means [B, T, H, E] of values [B, S, K, E] by weights [B, H, T, S]."""
    batch, heads, places, others = weights.shape
    groups = value.shape[2]
    grouped = ops.reshape(weights, shape=(batch, groups, heads // groups * places, others))
    means = ops.dot_general(grouped, value, contract=((3, 1),), batch=_BATCH)
    by_head = ops.reshape(means, shape=(batch, heads, places, value.shape[3]))
    return ops.transpose(by_head, permutation=(0, 2, 1, 3))


def _reference_weights(query, key, bias, mask, causal, scale, softcap, window):
    """The weights [B, H, T, S] and the slope of the softcap, for as many heads of keys as of queries."""
    scores = np.einsum("bthd,bshd->bhts", query, key) * (1 / np.sqrt(query.shape[3]) if scale is None else scale)
    slope = 1.0
    if softcap is not None:
        bent = np.tanh(scores / softcap)
        scores, slope = bent * softcap, 1 - bent**2
    if bias is not None:
        scores = scores + bias
    distance = np.arange(scores.shape[2])[:, None] - np.arange(scores.shape[3])
    seen = np.ones_like(distance, bool) if mask is None else mask
    if causal:
        seen = seen & (distance >= 0)
    if window is not None:
        seen = seen & (np.abs(distance) < window)
    scores = np.where(seen, scores, -np.inf)
    top = np.max(scores, -1, keepdims=True, initial=-np.inf)
    e = np.exp(scores - np.where(top == -np.inf, 0, top))
    total = e.sum(-1, keepdims=True)
    return e / np.where(total == 0, 1, total), slope


def _repeated(x, heads: int):
    return np.repeat(x, heads // max(x.shape[2], 1), 2)


@attention.reference
def _(query, key, value, bias, mask, *, causal, scale, softcap, window):
    heads = query.shape[2]
    weights, _ = _reference_weights(query, _repeated(key, heads), bias, mask, causal, scale, softcap, window)
    return np.einsum("bhts,bshe->bthe", weights, _repeated(value, heads))


@attention.vjp
def _(dy, y, query, key, value, bias, mask, *, causal, scale, softcap, window):
    options = {"causal": causal, "scale": scale, "softcap": softcap, "window": window}
    d_query, d_key, d_value, *d_bias = attention_gradient(dy, y, query, key, value, bias, mask, **options)
    return d_query, d_key, d_value, d_bias[0] if d_bias else None, None


@composite(dtypes=FLOATS)
def attention_gradient(
    dy: Tensor,
    y: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bias: Tensor | None = None,
    mask: BoolTensor | None = None,
    *,
    causal: bool = False,
    scale: float | None = None,
    softcap: float | None = None,
    window: int | None = None,
) -> tuple[Tensor, ...]:
    """The cotangents of query, key, value, and of the bias if there is one, for the cotangent `dy` of the result `y` of
    `attention`. The weights are computed again; Σ dweights·weights over S is Σ dy·y over E."""
    groups = key.shape[2]
    batch, places, heads, features = query.shape
    weights, slope = _weights(query, key, bias, mask, causal, scale, softcap, window)
    g = _grouped(dy, groups)
    d_value = _by_place(ops.dot_general(_like(weights, dy), g, contract=((2, 2),), batch=((0, 0), (1, 1))))
    d_weights = _wide(ops.dot_general(g, value, contract=((3, 3),), batch=_BATCH))
    mean = ops.reduce_sum(_wide(dy) * _wide(y), axes=(3,), keepdims=True)
    d_scores = weights * (d_weights - _grouped(mean, groups))
    d_bias = ()
    if bias is not None:
        by_head = ops.reshape(d_scores, shape=(batch, heads, places, key.shape[1]))
        d_bias = (_like(unbroadcast(by_head, bias), bias),)
    if slope is not None:
        d_scores = d_scores * ops.reshape(slope, shape=d_scores.shape)
    d_scores = _like(d_scores * (1 / math.sqrt(features) if scale is None else scale), query)
    d_query = _joined(ops.dot_general(d_scores, key, contract=((3, 1),), batch=_BATCH), query)
    grouped = _grouped(query, groups)
    d_key = _by_place(ops.dot_general(d_scores, grouped, contract=((2, 2),), batch=((0, 0), (1, 1))))
    return d_query, d_key, d_value, *d_bias


def _by_place(x):
    """[B, K, S, D] as [B, S, K, D]."""
    return ops.transpose(x, permutation=(0, 2, 1, 3))


@attention_gradient.reference
def _(dy, y, query, key, value, bias, mask, *, causal, scale, softcap, window):
    heads, groups = query.shape[2], key.shape[2]
    k, v = _repeated(key, heads), _repeated(value, heads)
    weights, slope = _reference_weights(query, k, bias, mask, causal, scale, softcap, window)
    d_weights = np.einsum("bthe,bshe->bhts", dy, v)
    d_biased = weights * (d_weights - (dy * y).sum(-1).swapaxes(1, 2)[..., None])
    d_scores = d_biased * slope * (1 / np.sqrt(query.shape[3]) if scale is None else scale)
    d_bias = () if bias is None else (unbroadcast(d_biased, bias),)

    def summed(x):
        return x.reshape(*x.shape[:2], groups, heads // groups, x.shape[3]).sum(3)

    return (
        np.einsum("bhts,bshd->bthd", d_scores, k),
        summed(np.einsum("bhts,bthd->bshd", d_scores, query)),
        summed(np.einsum("bhts,bthe->bshe", weights, dy)),
        *d_bias,
    )


@attention_gradient.flops
def _(dy, y, query, key, value, bias, mask, *, causal, scale, softcap, window):
    batch, places, heads, features = query.shape
    return 2 * product((batch, heads, places, key.shape[1])) * (3 * features + 2 * value.shape[3])


@attention.flops
def _(query, key, value, bias, mask, *, causal, scale, softcap, window):
    batch, places, heads, features = query.shape
    return 2 * product((batch, heads, places, key.shape[1])) * (features + value.shape[3])


attention.sample((2, 3, 2, 4), (2, 5, 2, 4), (2, 5, 2, 3))
attention.sample((2, 4, 4, 2), (2, 4, 2, 2), (2, 4, 2, 2), causal=True)
attention.sample((2, 3, 2, 2), (2, 4, 1, 2), (2, 4, 1, 2), (2, 1, 3, 4), Draw((3, 4), dtype=bool_), scale=0.3)
attention.sample((1, 5, 2, 2), (1, 5, 2, 2), (1, 5, 2, 2), None, None, causal=True, window=2, softcap=3.0)
attention.sample((1, 3, 2, 2), (1, 5, 1, 2), (1, 5, 1, 2), (2, 1, 1), softcap=2.0, window=2)
attention.sample((2, 2, 1, 2), (2, 0, 1, 2), (2, 0, 1, 3))


def _sample_gradient(query, key, size: int, bias=None, mask=None, **attributes) -> None:
    """A call with a result that fits its operands, for keys of this shape and values of this size."""
    rng = np.random.default_rng(0)
    shapes = (query, key, (*key[:3], size), bias)
    operands = [None if shape is None else rng.standard_normal(shape) for shape in shapes]
    defaults = {"causal": False, "scale": None, "softcap": None, "window": None}
    y = attention.reference_rule(*operands, mask, **defaults | attributes) if attention.reference_rule else None
    attention_gradient.sample(rng.standard_normal((*query[:3], size)), y, *operands, mask, **attributes)


_sample_gradient((2, 3, 2, 4), (2, 5, 2, 4), 3)
_sample_gradient((2, 4, 4, 2), (2, 4, 2, 2), 2, causal=True, scale=0.4)
_sample_gradient((2, 3, 2, 2), (2, 4, 1, 2), 2, (2, 1, 3, 4), np.arange(12).reshape(3, 4) % 4 > 0)
_sample_gradient((1, 4, 2, 2), (1, 4, 2, 2), 2, None, np.arange(16).reshape(4, 4) % 6 > 3, window=3)
_sample_gradient((1, 3, 2, 2), (1, 5, 1, 2), 2, softcap=2.0)


# --- attention for training -----------------------------------------------------------------------------------------


@composite(dtypes=FLOATS)
def attention_with_logsumexp(
    query: Tensor, key: Tensor, value: Tensor, *, causal: bool = False, scale: float | None = None
) -> tuple[Tensor, Tensor]:
    """`attention`, and the logarithm of the sum of the exponentials of the scores [B, H, T], in float32 or wider: all
    that its gradient needs of the weights. Dao et al., "FlashAttention", 2022. Each query must see a key."""
    _check(query, key, value, None, None, None, None)
    scores = _wide_scores(query, key, causal, scale)
    peaks = ops.reduce_max(scores, axes=(3,), keepdims=True)
    sums = ops.reduce_sum(ops.exp(scores - peaks), axes=(3,), keepdims=True)
    logsumexp = ops.reshape(peaks + ops.log(sums), shape=scores.shape[:3])
    return attention(query, key, value, causal=causal, scale=scale), logsumexp


def _wide_scores(query, key, causal: bool, scale: float | None):
    """[B, H, T, S], −∞ where a key is not seen."""
    batch, places, heads, features = query.shape
    scores = _wide(ops.dot_general(_grouped(query, key.shape[2]), key, contract=((3, 3),), batch=_BATCH))
    scores = ops.reshape(scores, shape=(batch, heads, places, key.shape[1]))
    scores = scores * (1 / math.sqrt(features) if scale is None else scale)
    return ops.select(visible(places, key.shape[1], True, None), scores, -math.inf) if causal else scores


@attention_with_logsumexp.reference
def _(query, key, value, *, causal, scale):
    scores = _reference_scores(query, key, causal, scale)
    y = np.einsum("bhts,bshe->bthe", special.softmax(scores, -1), _repeated(value, query.shape[2]))
    return y, special.logsumexp(scores, -1)


def _reference_scores(query, key, causal: bool, scale: float | None):
    scores = np.einsum("bthd,bshd->bhts", query, _repeated(key, query.shape[2]))
    scores = scores * (1 / np.sqrt(query.shape[3]) if scale is None else scale)
    return np.where(np.tri(*scores.shape[2:], dtype=bool), scores, -np.inf) if causal else scores


@composite(dtypes=FLOATS)
def attention_gradient_with_logsumexp(
    dy: Tensor,
    y: Tensor,
    logsumexp: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    causal: bool = False,
    scale: float | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """`attention_gradient` by what `attention_with_logsumexp` gave."""
    scores = _wide_scores(query, key, causal, scale)
    weights = ops.exp(scores - ops.expand_dims(_wide(logsumexp), (3,)))
    groups = key.shape[2]
    batch, places, heads, features = query.shape
    rows = (batch, groups, heads // groups * places, key.shape[1])
    weights, g = ops.reshape(weights, shape=rows), _grouped(dy, groups)
    d_value = _by_place(ops.dot_general(_like(weights, dy), g, contract=((2, 2),), batch=((0, 0), (1, 1))))
    d_weights = _wide(ops.dot_general(g, value, contract=((3, 3),), batch=_BATCH))
    mean = ops.reduce_sum(_wide(dy) * _wide(y), axes=(3,), keepdims=True)
    d_scores = weights * (d_weights - _grouped(mean, groups))
    d_scores = _like(d_scores * (1 / math.sqrt(features) if scale is None else scale), query)
    d_query = _joined(ops.dot_general(d_scores, key, contract=((3, 1),), batch=_BATCH), query)
    grouped = _grouped(query, groups)
    return d_query, _by_place(ops.dot_general(d_scores, grouped, contract=((2, 2),), batch=((0, 0), (1, 1)))), d_value


@attention_gradient_with_logsumexp.reference
def _(dy, y, logsumexp, query, key, value, *, causal, scale):
    heads, groups = query.shape[2], key.shape[2]
    weights = np.exp(_reference_scores(query, key, causal, scale) - logsumexp[..., None])
    d_weights = np.einsum("bthe,bshe->bhts", dy, _repeated(value, heads))
    d_scores = weights * (d_weights - (dy * y).sum(-1).swapaxes(1, 2)[..., None])
    d_scores = d_scores * (1 / np.sqrt(query.shape[3]) if scale is None else scale)
    d_key, d_value = (
        x.reshape(*x.shape[:2], groups, heads // groups, x.shape[3]).sum(3)
        for x in (np.einsum("bhts,bthd->bshd", d_scores, query), np.einsum("bhts,bthe->bshe", weights, dy))
    )
    return np.einsum("bhts,bshd->bthd", d_scores, _repeated(key, heads)), d_key, d_value


@attention_with_logsumexp.flops
def _(query, key, value, *, causal, scale):
    batch, places, heads, features = query.shape
    return 2 * product((batch, heads, places, key.shape[1])) * (features + value.shape[3])


@attention_gradient_with_logsumexp.flops
def _(dy, y, logsumexp, query, key, value, *, causal, scale):
    batch, places, heads, features = query.shape
    return 2 * product((batch, heads, places, key.shape[1])) * (3 * features + 2 * value.shape[3])


attention_with_logsumexp.sample((2, 3, 2, 4), (2, 5, 2, 4), (2, 5, 2, 3))
attention_with_logsumexp.sample((2, 4, 4, 2), (2, 4, 2, 2), (2, 4, 2, 2), causal=True, scale=0.4)


def _sample_logsumexp(query, key, **attributes) -> None:
    rng = np.random.default_rng(0)
    operands = [rng.standard_normal(shape) for shape in (query, key, key)]
    rule = attention_with_logsumexp.reference_rule
    assert rule is not None
    y, logsumexp = rule(*operands, **{"causal": False, "scale": None} | attributes)
    dy = rng.standard_normal(query)
    attention_gradient_with_logsumexp.sample(dy, y, logsumexp, *operands, **attributes)


_sample_logsumexp((2, 3, 2, 4), (2, 5, 2, 4))
_sample_logsumexp((2, 4, 4, 2), (2, 4, 2, 2), causal=True, scale=0.4)


# --- rotary positions ---------------------------------------------------------------------------------------------


@composite(dtypes=FLOATS)
def rope(x: Tensor, cos: Tensor, sin: Tensor, *, interleaved: bool = False) -> Tensor:
    """Pairs of features of `x` [B, T, H, D] turned by angles whose cosines and sines are [T, R / 2] or [B, T, R / 2].

    Pairs are the features i and i + R / 2, or if `interleaved` 2·i and 2·i + 1, of the first R; the others stay. See Su
    et al., "RoFormer", 2021; `rope_tables` gives the angles of positions.
    """
    return _turned(x, cos, sin, interleaved)


def _check_tables(x, cos, sin) -> int:
    """How many features are turned."""
    what = f"rope of {shape_text(x.shape)} by cosines {shape_text(cos.shape)} and sines {shape_text(sin.shape)}"
    if len(x.shape) != 4 or len(cos.shape) not in (2, 3) or len(sin.shape) != len(cos.shape):
        raise ShapeError(f"{what}: they are [B, T, H, D] and [T, R / 2] or [B, T, R / 2]")
    for a, b in zip(cos.shape, sin.shape, strict=True):
        require_equal(a, b, what)
    require_equal(cos.shape[-2], x.shape[1], f"{what}: there must be angles for each place")
    if len(cos.shape) == 3 and not is_literal(cos.shape[0], 1):
        require_equal(cos.shape[0], x.shape[0], f"{what}: there must be angles for each sequence")
    half, size = cos.shape[-1], x.shape[3]
    if not isinstance(half, int) or not isinstance(size, int) or 2 * half > size:
        raise ShapeError(f"{what}: there are more angles than pairs of features")
    return 2 * half


def _turned(x, cos, sin, interleaved: bool):
    turned = _check_tables(x, cos, sin)
    kept = x.shape[3] - turned
    first, second, rest = _pairs(x, turned, interleaved)
    first, second, c, s = _wide(first), _wide(second), _per_head(_wide(cos)), _per_head(_wide(sin))
    parts = _like(first * c - second * s, x), _like(second * c + first * s, x)
    y = _unpaired(*parts, interleaved)
    return ops.concat(y, rest, axis=3) if kept else y


def _pairs(x, turned: int, interleaved: bool):
    """The first and second features of the pairs [B, T, H, R / 2], and the features that stay."""
    half, kept = turned // 2, x.shape[3] - turned
    if not interleaved:
        first, second, *rest = ops.split(x, sizes=(half, half, *((kept,) if kept else ())), axis=3)
        return first, second, rest[0] if rest else None
    x, rest = ops.split(x, sizes=(turned, kept), axis=3) if kept else (x, None)
    pairs = ops.reshape(x, shape=(*x.shape[:3], half, 2))
    first, second = (ops.reshape(part, shape=part.shape[:4]) for part in ops.split(pairs, sizes=(1, 1), axis=4))
    return first, second, rest


def _unpaired(first, second, interleaved: bool):
    if not interleaved:
        return ops.concat(first, second, axis=3)
    pairs = ops.concat(ops.expand_dims(first, (4,)), ops.expand_dims(second, (4,)), axis=4)
    return ops.reshape(pairs, shape=(*first.shape[:3], first.shape[3] * 2))


def _per_head(table):
    """[…, T, R / 2] as […, T, 1, R / 2]."""
    return ops.expand_dims(table, (-2,))


@rope.reference
def _(x, cos, sin, *, interleaved):
    half = cos.shape[-1]
    c, s = cos[..., None, :], sin[..., None, :]
    places = (
        (np.s_[0 : 2 * half : 2], np.s_[1 : 2 * half : 2]) if interleaved else (np.s_[:half], np.s_[half : 2 * half])
    )
    first, second = (x[..., place] for place in places)
    out = x.copy()
    out[..., places[0]], out[..., places[1]] = first * c - second * s, first * s + second * c
    return out


@rope.vjp
def _(dy, y, x, cos, sin, *, interleaved):
    """A rotation is undone by the negative angle."""
    turned = 2 * cos.shape[-1]
    a, b = map(_wide, _pairs(x, turned, interleaved)[:2])
    da, db = map(_wide, _pairs(dy, turned, interleaved)[:2])
    d_cos, d_sin = da * a + db * b, db * a - da * b
    return (
        rope(dy, cos, -sin, interleaved=interleaved),
        _like(unbroadcast(ops.reduce_sum(d_cos, axes=(2,)), cos), cos),
        _like(unbroadcast(ops.reduce_sum(d_sin, axes=(2,)), sin), sin),
    )


rope.sample((2, 3, 2, 4), (3, 2), (3, 2))
rope.sample((2, 3, 2, 4), (2, 3, 2), (2, 3, 2), interleaved=True)
rope.sample((2, 3, 1, 5), (1, 3, 2), (1, 3, 2))
rope.sample((2, 3, 1, 5), (3, 1), (3, 1), interleaved=True)


@composite
def rope_tables(positions: IndexTensor, *, size: int, base: float = 10000.0) -> tuple[Tensor, Tensor]:
    """Cosines and sines […, size / 2] in float32 of the angles p · base^(−2·i / size) of positions p […]."""
    if size < 2 or size % 2:
        raise ShapeError(f"rope turns pairs of features: size is a positive even number, not {size}")
    rates = ops.constant(value=_rates(size, base), dtype=f32)
    angles = ops.expand_dims(ops.convert(positions, dtype=f32), (-1,)) * rates
    return ops.cos(angles), ops.sin(angles)


def _rates(size: int, base: float) -> tuple[float, ...]:
    return tuple(float(base) ** (-2 * i / size) for i in range(size // 2))


@rope_tables.reference
def _(positions, *, size, base):
    angles = positions[..., None] * np.array(_rates(size, base))
    return np.cos(angles), np.sin(angles)


rope_tables.sample(np.arange(5, dtype=np.int32), size=4)
rope_tables.sample(np.array([[0, 7], [3, 1]], np.int64), size=2, base=500.0)


__all__ = [
    "attention",
    "attention_gradient",
    "attention_gradient_with_logsumexp",
    "attention_weights",
    "attention_with_logsumexp",
    "rope",
    "rope_tables",
    "weighted_values",
]
