"""The benchmark's models in Keras 3. Images come channels last."""

from __future__ import annotations

from typing import Any

import keras
from keras import Input, Model, layers, ops


def digits_cnn(dropout: float) -> Model:
    """`examples/digits_cnn.py`."""
    image = Input((8, 8, 1), name="image")
    x = layers.Conv2D(16, 3, padding="same", use_bias=False, name="stem")(image)
    x = layers.BatchNormalization(name="stem_bn")(x)
    x = layers.ReLU()(x)
    y = layers.Conv2D(16, 3, padding="same", activation="relu", name="block_conv1")(x)
    y = layers.Conv2D(16, 3, padding="same", name="block_conv2")(y)
    x = layers.ReLU()(x + y)
    x = layers.MaxPooling2D(2)(x)
    x = layers.Conv2D(32, 3, padding="same", activation="relu", name="head_conv")(x)
    x = layers.GlobalAveragePooling2D()(x)
    x = layers.Dropout(dropout)(x)
    return Model(image, layers.Dense(10, name="logits")(x))


def convolution(x: Any, filters: int, size: int, strides: int, name: str) -> Any:
    if size > 1:
        x = layers.ZeroPadding2D(size // 2)(x)
    x = layers.Conv2D(filters, size, strides=strides, use_bias=False, name=f"{name}_conv")(x)
    return layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=f"{name}_bn")(x)


def resnet18(classes: int, size: int, width: int) -> Model:
    """`examples/resnet18.py`."""
    image = Input((size, size, 3), name="image")
    x = layers.ReLU()(convolution(image, width, 7, 2, "stem"))
    x = layers.MaxPooling2D(3, strides=2)(layers.ZeroPadding2D(1)(x))
    for stage in range(4):
        for block in range(2):
            name, filters = f"stage{stage + 1}_block{block + 1}", width * 2**stage
            strides = 2 if stage and not block else 1
            y = layers.ReLU()(convolution(x, filters, 3, strides, f"{name}_1"))
            y = convolution(y, filters, 3, 1, f"{name}_2")
            if strides > 1 or x.shape[-1] != filters:
                x = convolution(x, filters, 1, strides, f"{name}_shortcut")
            x = layers.ReLU()(x + y)
    x = layers.GlobalAveragePooling2D()(x)
    return Model(image, layers.Dense(classes, name="logits")(x))


def rotated(x: Any, cos: Any, sin: Any) -> Any:
    """Pairs of features of [B, T, H, D], D / 2 apart, turned by the angles of [T, 1, D / 2]."""
    a, b = ops.split(x, 2, axis=-1)
    return ops.concatenate((a * cos - b * sin, b * cos + a * sin), axis=-1)


class Attention(layers.Layer):
    def __init__(self, heads: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.heads = heads

    def build(self, input_shape: Any) -> None:
        places, width = input_shape[1:]
        for name in ("query", "key", "value", "out"):
            layer = layers.Dense(width, use_bias=False, name=name)
            layer.build(input_shape)
            setattr(self, name, layer)
        half = width // self.heads // 2
        angles = ops.expand_dims(ops.arange(places, dtype="float32"), (1, 2)) * 10000.0 ** (
            -ops.arange(half, dtype="float32") / half
        )
        self.cos, self.sin = ops.cos(angles), ops.sin(angles)

    def call(self, x: Any) -> Any:
        _, places, width = x.shape
        q, k, v = (
            ops.reshape(layer(x), (-1, places, self.heads, width // self.heads))
            for layer in (self.query, self.key, self.value)
        )
        q, k = rotated(q, self.cos, self.sin), rotated(k, self.cos, self.sin)
        y = ops.dot_product_attention(q, k, v, is_causal=True)
        return self.out(ops.reshape(y, (-1, places, width)))


class SwiGLU(layers.Layer):
    def __init__(self, hidden: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.hidden = hidden

    def build(self, input_shape: Any) -> None:
        self.gate = layers.Dense(self.hidden, activation="silu", use_bias=False, name="gate")
        self.up = layers.Dense(self.hidden, use_bias=False, name="up")
        self.down = layers.Dense(input_shape[-1], use_bias=False, name="down")
        self.gate.build(input_shape)
        self.up.build(input_shape)
        self.down.build((*input_shape[:-1], self.hidden))

    def call(self, x: Any) -> Any:
        return self.down(self.gate(x) * self.up(x))


class Block(layers.Layer):
    def __init__(self, heads: int, hidden: int, dropout: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.attention_norm = layers.RMSNormalization(epsilon=1e-6, name="attention_norm")
        self.attention = Attention(heads, name="attention")
        self.mlp_norm = layers.RMSNormalization(epsilon=1e-6, name="mlp_norm")
        self.mlp = SwiGLU(hidden, name="mlp")
        self.dropout = layers.Dropout(dropout)

    def build(self, input_shape: Any) -> None:
        for layer in (self.attention_norm, self.attention, self.mlp_norm, self.mlp):
            layer.build(input_shape)

    def call(self, x: Any) -> Any:
        x = x + self.dropout(self.attention(self.attention_norm(x)))
        return x + self.dropout(self.mlp(self.mlp_norm(x)))


def gpt(blocks: int, width: int, heads: int, context: int, dropout: float) -> Model:
    """`examples/gpt.py`."""
    tokens = Input((context,), dtype="int32", name="tokens")
    embedding = layers.ReversibleEmbedding(256, width, name="embedding")
    x = embedding(tokens)
    for i in range(blocks):
        x = Block(heads, 8 * width // 3, dropout, name=f"block_{i}" if i else "block")(x)
    x = layers.RMSNormalization(epsilon=1e-6, name="norm")(x)
    return Model(tokens, embedding(x, reverse=True))


def dense(inputs: int, units: int) -> Model:
    return keras.Sequential([Input((inputs,)), layers.Dense(units, name="dense")])
