"""Tables of vectors."""

from __future__ import annotations

from typing import Any

from graphc.frontends import initializers, ops, regularizers
from graphc.frontends.adapters import Adaptable
from graphc.frontends.layer import Layer
from graphc.frontends.layers.core import described
from graphc.frontends.ops.dispatch import kind
from graphc.ir import ops as ir
from graphc.ir.adapting import Form
from graphc.ir.errors import GraphcError, UnsupportedError


class Embedding(Adaptable, Layer):
    """The rows of a trained table at integer inputs; ids outside it are clamped."""

    _lora_weight = "embeddings"

    def __init__(
        self,
        input_dim: int,
        output_dim: int,
        embeddings_initializer: Any = "uniform",
        embeddings_regularizer: Any = None,
        embeddings_constraint: Any = None,
        mask_zero: bool = False,
        weights: Any = None,
        lora_rank: int | None = None,
        lora_alpha: float | None = None,
        **kwargs: Any,
    ) -> None:
        for name, size in (("input_dim", input_dim), ("output_dim", output_dim)):
            if isinstance(size, bool) or not isinstance(size, int) or size <= 0:
                raise GraphcError(f"Embedding: {name} is a positive integer, not {size!r}")
        if mask_zero:
            raise UnsupportedError("Embedding: mask_zero is not supported; pass masks to the layers that need them")
        super().__init__(**kwargs)
        self.input_dim, self.output_dim = input_dim, output_dim
        self.embeddings_initializer = initializers.get(embeddings_initializer)
        self.embeddings_regularizer = regularizers.get(embeddings_regularizer)
        self.embeddings_constraint = embeddings_constraint
        self._take_lora_options(lora_rank, lora_alpha)
        if weights is not None:
            self.build()
            self.embeddings.assign(weights[0] if isinstance(weights, (list, tuple)) else weights)

    def build(self, input_shape: Any = None) -> None:
        self.embeddings = self.add_weight(
            (self.input_dim, self.output_dim),
            self.embeddings_initializer,
            regularizer=self.embeddings_regularizer,
            constraint=self.embeddings_constraint,
            name="embeddings",
        )
        self.built = True
        self._enable_lora_if_asked()

    def _lora_form(self) -> Form:
        return Form("embedding", (self.input_dim, self.output_dim))

    def call(self, inputs: Any) -> Any:
        if not kind(inputs).is_integer:
            inputs = ops.cast(inputs, "int32")
        found = ir.embedding(self.embeddings, inputs)
        return ops.cast(found, self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "input_dim": self.input_dim,
            "output_dim": self.output_dim,
            **described(self, "embeddings"),
            **self._lora_config(),
        }
