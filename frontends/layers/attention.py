"""Attention layers: projections to heads, `attention`, and the projection back."""

from __future__ import annotations

from typing import Any

from graphc.frontends import initializers, ops, regularizers
from graphc.frontends.layer import Layer
from graphc.frontends.layers.core import described, known_size
from graphc.frontends.layers.einsum import EinsumDense
from graphc.frontends.layers.regularization import Dropout
from graphc.ir import ops as ir
from graphc.ir.errors import GraphcError, UnsupportedError
from graphc.ir.suggestions import number_of


class _Attention(Layer):
    """What the attention layers share: sizes of heads in, four dense layers, a mask, the call."""

    def __init__(
        self,
        heads: int,
        groups: int,
        key_size: int,
        value_size: int,
        dropout: float,
        use_bias: bool,
        output_shape: Any,
        kernel_initializer: Any,
        bias_initializer: Any,
        kernel_regularizer: Any,
        bias_regularizer: Any,
        kernel_constraint: Any,
        bias_constraint: Any,
        seed: int | None,
        **kwargs: Any,
    ) -> None:
        sizes = {"heads": heads, "heads of keys": groups, "key size": key_size, "value size": value_size}
        for name, size in sizes.items():
            if isinstance(size, bool) or not isinstance(size, int) or size <= 0:
                raise GraphcError(f"{type(self).__name__}: {name} is a positive integer, not {size!r}")
        if heads % groups:
            raise GraphcError(f"{type(self).__name__}: {groups} heads of keys do not divide {heads} heads of queries")
        super().__init__(**kwargs)
        self._heads, self._groups, self._key_size, self._value_size = heads, groups, key_size, value_size
        self._given_output_shape = (output_shape,) if isinstance(output_shape, int) else output_shape
        self.dropout, self.use_bias, self.seed = dropout, use_bias, seed
        self.kernel_initializer = initializers.get(kernel_initializer)
        self.bias_initializer = initializers.get(bias_initializer)
        self.kernel_regularizer = regularizers.get(kernel_regularizer)
        self.bias_regularizer = regularizers.get(bias_regularizer)
        self.kernel_constraint, self.bias_constraint = kernel_constraint, bias_constraint
        self.dropout_layer = Dropout(dropout, seed=seed, name="dropout")

    def _dense(self, equation: str, shape: Any, bias_axes: str, name: str) -> EinsumDense:
        return EinsumDense(
            equation,
            shape,
            bias_axes=bias_axes if self.use_bias else None,
            kernel_initializer=initializers.get(initializers.serialize(self.kernel_initializer)),
            bias_initializer=initializers.get(initializers.serialize(self.bias_initializer)),
            kernel_regularizer=self.kernel_regularizer,
            bias_regularizer=self.bias_regularizer,
            kernel_constraint=self.kernel_constraint,
            bias_constraint=self.bias_constraint,
            dtype=self.dtype_policy.name,
            name=name,
        )

    def build(self, query_shape: Any, value_shape: Any, key_shape: Any = None) -> None:
        key_shape = key_shape or value_shape
        for name, shape in (("query", query_shape), ("value", value_shape), ("key", key_shape)):
            if len(shape) != 3:
                raise UnsupportedError(
                    f"{type(self).__name__}: the {name} is [batch, places, features], not of "
                    f"{number_of(len(shape), 'axis', 'axes')}"
                )
        features = self._given_output_shape or (known_size(query_shape, -1, "the last axis"),)
        if len(features) != 1:
            raise UnsupportedError(f"{type(self).__name__}: output_shape is one size, not {tuple(features)}")
        self.query_dense = self._dense("abc,cde->abde", (None, self._heads, self._key_size), "de", "query")
        self.key_dense = self._dense("abc,cde->abde", (None, self._groups, self._key_size), "de", "key")
        self.value_dense = self._dense("abc,cde->abde", (None, self._groups, self._value_size), "de", "value")
        self.output_dense = self._dense("abcd,cde->abe", (None, *features), "e", "attention_output")
        self.query_dense.build(query_shape)
        self.key_dense.build(key_shape)
        self.value_dense.build(value_shape)
        self.output_dense.build((*query_shape[:2], self._heads, self._value_size))

    def call(
        self,
        query: Any,
        value: Any,
        key: Any = None,
        query_mask: Any = None,
        value_mask: Any = None,
        key_mask: Any = None,
        attention_mask: Any = None,
        return_attention_scores: bool = False,
        training: bool = False,
        use_causal_mask: bool = False,
    ) -> Any:
        """Queries attend to keys. Masks are true for what takes part: [B, T], [B, S] and [B, T, S]."""
        q, v = self.query_dense(query), self.value_dense(value)
        k = self.key_dense(value if key is None else key)
        mask = _joined_mask(query_mask, value_mask, key_mask, attention_mask)
        weights = None
        if return_attention_scores or (training and self.dropout > 0):
            weights = ir.attention_weights(q, k, None, mask, causal=use_causal_mask)
            found = ir.weighted_values(self.dropout_layer(weights, training=training), v)
        else:
            found = ir.attention(q, k, v, None, mask, causal=use_causal_mask)
        output = self.output_dense(found)
        return (output, weights) if return_attention_scores else output

    def _shared_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "dropout": self.dropout,
            "use_bias": self.use_bias,
            **described(self, "kernel", "bias"),
            "seed": self.seed,
        }


def _joined_mask(query: Any, value: Any, key: Any, both: Any) -> Any:
    """One mask [B, 1, T, S] of those that are given."""
    parts = []
    for mask, axes in ((query, (1, 3)), (value, (1, 2)), (key, (1, 2)), (both, (1,))):
        if mask is not None:
            mask = ops.cast(mask, "bool")
            parts.append(ir.expand_dims(mask, axes if len(mask.shape) + len(axes) == 4 else ()))
    found = None
    for part in parts:
        found = part if found is None else ir.and_(found, part)
    return found


class MultiHeadAttention(_Attention):
    """Attention in several heads: call it on `query`, `value` and `key` (the value, unless given)."""

    def __init__(
        self,
        num_heads: int,
        key_dim: int,
        value_dim: int | None = None,
        dropout: float = 0.0,
        use_bias: bool = True,
        output_shape: Any = None,
        attention_axes: Any = None,
        flash_attention: bool | None = None,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        kernel_constraint: Any = None,
        bias_constraint: Any = None,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        if attention_axes not in (None, 1, (1,), [1]):
            raise UnsupportedError("MultiHeadAttention: attention_axes other than 1, the axis of places")
        self.num_heads, self.key_dim, self.value_dim = num_heads, key_dim, value_dim
        super().__init__(
            num_heads,
            num_heads,
            key_dim,
            key_dim if value_dim is None else value_dim,
            dropout,
            use_bias,
            output_shape,
            kernel_initializer,
            bias_initializer,
            kernel_regularizer,
            bias_regularizer,
            kernel_constraint,
            bias_constraint,
            seed,
            activity_regularizer=activity_regularizer,
            **kwargs,
        )

    def get_config(self) -> dict[str, Any]:
        sizes = {"num_heads": self.num_heads, "key_dim": self.key_dim, "value_dim": self.value_dim}
        return {**self._shared_config(), **sizes, "output_shape": self._given_output_shape}


class GroupedQueryAttention(_Attention):
    """Attention in which groups of heads of queries share a head of keys and values."""

    def __init__(
        self,
        head_dim: int,
        num_query_heads: int,
        num_key_value_heads: int,
        dropout: float = 0.0,
        use_bias: bool = True,
        flash_attention: bool | None = None,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        kernel_constraint: Any = None,
        bias_constraint: Any = None,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        self.head_dim, self.num_query_heads, self.num_key_value_heads = head_dim, num_query_heads, num_key_value_heads
        super().__init__(
            num_query_heads,
            num_key_value_heads,
            head_dim,
            head_dim,
            dropout,
            use_bias,
            None,
            kernel_initializer,
            bias_initializer,
            kernel_regularizer,
            bias_regularizer,
            kernel_constraint,
            bias_constraint,
            seed,
            activity_regularizer=activity_regularizer,
            **kwargs,
        )

    def get_config(self) -> dict[str, Any]:
        heads = {"num_query_heads": self.num_query_heads, "num_key_value_heads": self.num_key_value_heads}
        return {**self._shared_config(), "head_dim": self.head_dim, **heads}


__all__ = ["GroupedQueryAttention", "MultiHeadAttention"]
