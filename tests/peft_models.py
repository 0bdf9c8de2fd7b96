"""The models of `peft_worker.py` in the DSL: a small Llama with Hugging Face's names of layers, and a small CNN."""

import numpy as np

import graphc
from graphc import Input, Model, layers, ops

LLAMA_NAMES = {
    "embed_tokens": "model.embed_tokens",
    "layer_*/attention/*": "model.layers.*.self_attn.*",
    "layer_*/mlp/*": "model.layers.*.mlp.*",
    "layer_*/*": "model.layers.*.*",
    "norm": "model.norm",
    "lm_head": "lm_head",
}


class Attention(layers.Layer):
    def __init__(self, heads, groups, **kwargs):
        super().__init__(**kwargs)
        self.heads, self.groups = heads, groups

    def build(self, input_shape):
        width = input_shape[-1]
        size = width // self.heads
        for name, outputs in (("q", width), ("k", self.groups * size), ("v", self.groups * size), ("o", width)):
            setattr(self, name, layers.Dense(outputs, use_bias=False, name=f"{name}_proj"))

    def call(self, x):
        batch, places, width = x.shape
        size = width // self.heads
        cos, sin = ops.rope_tables(ops.arange(places), size=size)
        q = ops.rope(ops.reshape(self.q(x), (batch, places, self.heads, size)), cos, sin)
        k = ops.rope(ops.reshape(self.k(x), (batch, places, self.groups, size)), cos, sin)
        v = ops.reshape(self.v(x), (batch, places, self.groups, size))
        y = ops.dot_product_attention(q, k, v, is_causal=True)
        return self.o(ops.reshape(y, (batch, places, width)))


class Mlp(layers.Layer):
    def __init__(self, hidden, **kwargs):
        super().__init__(**kwargs)
        self.hidden = hidden

    def build(self, input_shape):
        self.gate = layers.Dense(self.hidden, activation="silu", use_bias=False, name="gate_proj")
        self.up = layers.Dense(self.hidden, use_bias=False, name="up_proj")
        self.down = layers.Dense(input_shape[-1], use_bias=False, name="down_proj")

    def call(self, x):
        return self.down(self.gate(x) * self.up(x))


class Block(layers.Layer):
    def __init__(self, heads, groups, hidden, **kwargs):
        super().__init__(**kwargs)
        self.input_layernorm = layers.RMSNormalization(epsilon=1e-6, name="input_layernorm")
        self.attention = Attention(heads, groups, name="attention")
        self.post_attention_layernorm = layers.RMSNormalization(epsilon=1e-6, name="post_attention_layernorm")
        self.mlp = Mlp(hidden, name="mlp")

    def call(self, x):
        x = x + self.attention(self.input_layernorm(x))
        return x + self.mlp(self.post_attention_layernorm(x))


def llama(vocabulary=32, width=16, heads=2, groups=1, hidden=24, depth=2):
    tokens = Input((None,), dtype="int32", name="tokens")
    x = layers.Embedding(vocabulary, width, name="embed_tokens")(tokens)
    for i in range(depth):
        x = Block(heads, groups, hidden, name=f"layer_{i}")(x)
    x = layers.RMSNormalization(epsilon=1e-6, name="norm")(x)
    return Model(tokens, layers.Dense(vocabulary, use_bias=False, name="lm_head")(x), name="llama")


def cnn():
    image = Input((2, 5, 5), name="image")
    x = layers.Conv2D(6, 3, padding="same", activation="relu", data_format="channels_first", name="conv")(image)
    x = layers.GlobalAveragePooling2D(data_format="channels_first")(x)
    x = layers.Dense(5, activation="relu", name="dense")(x)
    return Model(image, layers.Dense(3, name="head")(x), name="cnn")


MODELS = {"llama": (llama, LLAMA_NAMES), "cnn": (cnn, None)}


def with_weights(name, tensors):
    """The model with the weights of PyTorch's."""
    from graphc.runtime.lora.adapters import candidates
    from graphc.runtime.lora.layouts import from_torch, tensor_name

    make, names = MODELS[name]
    model = make()
    forms, variables = candidates(model)
    for weight, variable in variables.items():
        array = tensors[tensor_name(names, weight)]
        variable.assign(from_torch(np.asarray(array), forms.get(weight), tuple(variable.shape)))
    return model


__all__ = ["LLAMA_NAMES", "MODELS", "cnn", "graphc", "llama", "with_weights"]
