"""A decoder like Llama: RMS norm, rotary positions, grouped heads, SwiGLU, a head of its own.

`graphc compile examples/llama.py --target torch` takes `model`, a small one with random weights. Layers are called what
they are called in Hugging Face's `LlamaForCausalLM`; `load_weights_of` and `weights_for` carry weights over and back.
Run as a script, the model gets low-rank adapters in all seven projections of each layer, and trains them for ten steps.
"""

from collections.abc import Mapping

import numpy as np

import graphc
from graphc import Input, Model, layers, losses, ops, optimizers

PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""The linear layers of a decoder layer."""
TARGETS = tuple(f"*/{name}" for name in PROJECTIONS)
"""Patterns for adapters in all of them."""


class Rotation(layers.Layer):
    """Cosines and sines of the angles by which queries and keys are turned at each place."""

    def __init__(self, size, **kwargs):
        super().__init__(**kwargs)
        self.size = size

    def call(self, tokens):
        return ops.rope_tables(ops.arange(tokens.shape[1]), size=self.size)


class Attention(layers.Layer):
    """Causal attention with rotary positions; `groups` heads of keys and values serve `heads` heads of queries."""

    def __init__(self, heads, groups, **kwargs):
        super().__init__(**kwargs)
        self.heads, self.groups = heads, groups

    def build(self, input_shape):
        width = input_shape[-1]
        inner = self.groups * (width // self.heads)
        self.q_proj = layers.Dense(width, use_bias=False, name="q_proj")
        self.k_proj = layers.Dense(inner, use_bias=False, name="k_proj")
        self.v_proj = layers.Dense(inner, use_bias=False, name="v_proj")
        self.o_proj = layers.Dense(width, use_bias=False, name="o_proj")

    def call(self, x, cos, sin):
        batch, places, width = x.shape
        size = width // self.heads
        query = ops.reshape(self.q_proj(x), (batch, places, self.heads, size))
        key = ops.reshape(self.k_proj(x), (batch, places, self.groups, size))
        value = ops.reshape(self.v_proj(x), (batch, places, self.groups, size))
        query, key = ops.rope(query, cos, sin), ops.rope(key, cos, sin)
        y = ops.dot_product_attention(query, key, value, is_causal=True)
        return self.o_proj(ops.reshape(y, (batch, places, width)))


class SwiGLU(layers.Layer):
    """silu(gate(x)) · up(x), projected back."""

    def __init__(self, hidden, **kwargs):
        super().__init__(**kwargs)
        self.hidden = hidden

    def build(self, input_shape):
        self.gate_proj = layers.Dense(self.hidden, activation="silu", use_bias=False, name="gate_proj")
        self.up_proj = layers.Dense(self.hidden, use_bias=False, name="up_proj")
        self.down_proj = layers.Dense(input_shape[-1], use_bias=False, name="down_proj")

    def call(self, x):
        return self.down_proj(self.gate_proj(x) * self.up_proj(x))


class DecoderLayer(layers.Layer):
    """Attention and SwiGLU, each on the normalized stream and added to it."""

    def __init__(self, heads, groups, hidden, **kwargs):
        super().__init__(**kwargs)
        self.input_layernorm = layers.RMSNormalization(epsilon=1e-6, name="input_layernorm")
        self.self_attn = Attention(heads, groups, name="self_attn")
        self.post_attention_layernorm = layers.RMSNormalization(epsilon=1e-6, name="post_attention_layernorm")
        self.mlp = SwiGLU(hidden, name="mlp")

    def call(self, x, cos, sin):
        x = x + self.self_attn(self.input_layernorm(x), cos, sin)
        return x + self.mlp(self.post_attention_layernorm(x))


def llama(
    depth: int = 4,
    width: int = 128,
    heads: int = 4,
    groups: int | None = None,
    hidden: int | None = None,
    vocabulary: int = 256,
    context: int | None = 128,
) -> Model:
    """Tokens [B, context] (any number of places, if None) to scores [B, context, vocabulary] of the next token.

    `groups` heads of keys and values, by default as many as of queries; `hidden` is the width inside SwiGLU, by default
    ⅔ of 4 · `width`, up to a multiple of 32.
    """
    hidden = -(-8 * width // 3 // 32) * 32 if hidden is None else hidden
    tokens = Input((context,), dtype="int32", name="tokens")
    cos, sin = Rotation(width // heads, name="rotation")(tokens)
    x = layers.Embedding(vocabulary, width, name="embed_tokens")(tokens)
    for i in range(depth):
        x = DecoderLayer(heads, groups or heads, hidden, name=f"layers_{i}")(x, cos, sin)
    x = layers.RMSNormalization(epsilon=1e-6, name="norm")(x)
    return Model(tokens, layers.Dense(vocabulary, use_bias=False, name="lm_head")(x), name="llama")


# --- weights of LlamaForCausalLM ------------------------------------------------------------------------------------


def name_in_transformers(weight: str) -> str:
    """What a weight is called there: "layers_0/mlp/up_proj/kernel" is "model.layers.0.mlp.up_proj.weight"."""
    path = weight.rpartition("/")[0].replace("layers_", "layers.").replace("/", ".")
    return f"{path}.weight" if path == "lm_head" else f"model.{path}.weight"


def weights_for(model: Model) -> dict[str, np.ndarray]:
    """The weights as `LlamaForCausalLM.load_state_dict` takes them, once made tensors; kernels are [out, in] there."""
    return {name_in_transformers(name): _turned(name, variable.numpy()) for name, variable in _base(model)}


def load_weights_of(model: Model, arrays: Mapping[str, np.ndarray]) -> None:
    """Give the model the weights of a `LlamaForCausalLM` of its sizes, by their names there."""
    for name, variable in _base(model):
        variable.assign(_turned(name, arrays[name_in_transformers(name)]))


def _base(model: Model):
    """The variables with their paths from the root, without those of adapters."""
    pairs = zip(graphc.lower(model).weights, model.weights, strict=True)
    return [(name, variable) for name, variable in pairs if "/lora_" not in name]


def _turned(weight: str, array: np.ndarray) -> np.ndarray:
    return array.T if weight.endswith("/kernel") else array


model = llama()


def main() -> None:
    """Train adapters on windows of this file."""
    with open(__file__, "rb") as file:
        text = np.frombuffer(file.read(), np.uint8).astype(np.int32)
    windows = np.lib.stride_tricks.sliding_window_view(text, 129)[:: len(text) // 40][:40]
    model.add_adapter("default", r=8, alpha=16, targets=TARGETS)
    trained = sum(v.numpy().size for v in model.trainable_weights)
    print(f"{model.name}: {model.count_params():,} parameters, {trained:,} of them in adapters")
    model.compile(optimizers.Adam(1e-3), losses.SparseCategoricalCrossentropy(from_logits=True))
    for step in range(10):
        rows = windows[4 * step : 4 * step + 4]
        print(f"step {step + 1}: loss {float(model.train_on_batch(rows[:, :-1], rows[:, 1:])):.4f}")


if __name__ == "__main__":
    main()
