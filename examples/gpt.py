"""A small language model over bytes: RMS norm, rotary positions, causal attention, SwiGLU, tied embedding.

`graphc compile examples/gpt.py --target torch` takes `model`, whose weights are random: `gpt_train.py` trains it.
Run as a script, it is compiled to the default target and says how many nats per byte it needs for its own source.
"""

from pathlib import Path

import numpy as np

import graphc
from graphc import Input, Model, initializers, layers, ops

VOCABULARY = 256
"""Tokens are bytes."""


class TiedEmbedding(layers.Embedding):
    """A vector for each token; `reverse` gives the scores of all tokens for a vector, by the same table."""

    def call(self, inputs, reverse=False):
        return ops.matmul(inputs, ops.transpose(self.embeddings)) if reverse else super().call(inputs)


class Rotation(layers.Layer):
    """Cosines and sines of the angles by which queries and keys are turned at each place."""

    def __init__(self, size, **kwargs):
        super().__init__(**kwargs)
        self.size = size

    def call(self, tokens):
        return ops.rope_tables(ops.arange(tokens.shape[1]), size=self.size)


class Attention(layers.Layer):
    """Causal attention in several heads, with rotary positions. Su et al., "RoFormer", 2021."""

    def __init__(self, heads, depth, **kwargs):
        super().__init__(**kwargs)
        self.heads, self.depth = heads, depth

    def build(self, input_shape):
        width = input_shape[-1]
        self.query = layers.Dense(width, use_bias=False, name="query")
        self.key = layers.Dense(width, use_bias=False, name="key")
        self.value = layers.Dense(width, use_bias=False, name="value")
        self.out = layers.Dense(width, use_bias=False, kernel_initializer=residual(width, self.depth), name="out")

    def call(self, x, cos, sin):
        batch, places, width = x.shape
        shape = (batch, places, self.heads, width // self.heads)
        query = ops.rope(ops.reshape(self.query(x), shape), cos, sin)
        key = ops.rope(ops.reshape(self.key(x), shape), cos, sin)
        y = ops.dot_product_attention(query, key, ops.reshape(self.value(x), shape), is_causal=True)
        return self.out(ops.reshape(y, (batch, places, width)))


class SwiGLU(layers.Layer):
    """silu(gate(x)) · up(x), projected back. Shazeer, "GLU Variants Improve Transformer", 2020."""

    def __init__(self, hidden, depth, **kwargs):
        super().__init__(**kwargs)
        self.hidden, self.depth = hidden, depth

    def build(self, input_shape):
        width = input_shape[-1]
        self.gate = layers.Dense(self.hidden, activation="silu", use_bias=False, name="gate")
        self.up = layers.Dense(self.hidden, use_bias=False, name="up")
        self.down = layers.Dense(
            width, use_bias=False, kernel_initializer=residual(self.hidden, self.depth), name="down"
        )

    def call(self, x):
        return self.down(self.gate(x) * self.up(x))


class Block(layers.Layer):
    """Attention and SwiGLU, each on the normalized stream and added to it, with dropout of what is added."""

    def __init__(self, heads, hidden, depth, dropout, **kwargs):
        super().__init__(**kwargs)
        self.attention_norm = layers.RMSNormalization(name="attention_norm")
        self.attention = Attention(heads, depth, name="attention")
        self.mlp_norm = layers.RMSNormalization(name="mlp_norm")
        self.mlp = SwiGLU(hidden, depth, name="mlp")
        self.dropout = layers.Dropout(dropout, name="dropout")

    def call(self, x, cos, sin):
        x = x + self.dropout(self.attention(self.attention_norm(x), cos, sin))
        return x + self.dropout(self.mlp(self.mlp_norm(x)))


def residual(width, depth):
    """How a projection into the residual stream starts: smaller by √(2·depth), as that many are added."""
    return initializers.RandomNormal(stddev=(2 * depth * width) ** -0.5)


def gpt(
    layers: int = 4,
    width: int = 144,
    heads: int = 3,
    context: int | None = 128,
    hidden: int | None = None,
    dropout: float = 0.0,
) -> Model:
    """Tokens [B, context] (any number of places, if None) to scores [B, context, 256] of the token that follows each.

    `hidden` is the width inside SwiGLU, by default ⅔ of 4 · `width`.
    """
    hidden = 8 * width // 3 if hidden is None else hidden
    tokens = Input((context,), dtype="int32", name="tokens")
    embedding = TiedEmbedding(VOCABULARY, width, initializers.RandomNormal(stddev=0.02), name="embedding")
    cos, sin = Rotation(width // heads, name="rotation")(tokens)
    x = embedding(tokens)
    for _ in range(layers):
        x = Block(heads, hidden, layers, dropout)(x, cos, sin)
    x = graphc.layers.RMSNormalization(name="norm")(x)
    return Model(tokens, embedding(x, reverse=True), name="gpt")


model = gpt()


def main() -> None:
    """Compile the model and measure it on this file."""
    executable = graphc.compile(model)
    context = model.inputs[0].shape[1]
    text = np.frombuffer(Path(__file__).read_bytes(), np.uint8).astype(np.int32)
    windows = np.lib.stride_tricks.sliding_window_view(text, context + 1)[::context]
    scores = executable(windows[:, :-1])
    nats = ops.mean(ops.sparse_categorical_crossentropy(windows[:, 1:], scores, from_logits=True))
    print(f"{model.name}: {model.count_params():,} parameters, compiled to the target {graphc.config.target()!r}")
    print(
        f"untrained, it needs {float(nats):.2f} nats per byte for its own source (of random bytes: {np.log(256):.2f})"
    )


if __name__ == "__main__":
    main()
