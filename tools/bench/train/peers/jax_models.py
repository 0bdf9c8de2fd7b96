"""The benchmark's models in plain JAX: pure functions of a tree of weights. Images come channels last."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

Tree = Any


def convolution(x: jax.Array, kernel: jax.Array, stride: int = 1, padding: int | str = "SAME") -> jax.Array:
    """`kernel` is [*window, in, out].

    At 2 × 2 places XLA's convolution on the CPU, or its gradient, is a plain loop: with 512 channels it takes 93 ms
    where a product of the windows and the kernel takes half of one. So that is written here, as one does who profiles.
    """
    pairs = padding if isinstance(padding, str) else [(padding, padding)] * 2
    window = kernel.shape[:2]
    if not isinstance(pairs, str):
        height, width = (
            (n + 2 * low - k) // stride + 1 for n, k, (low, _) in zip(x.shape[1:3], window, pairs, strict=True)
        )
        if height * width <= 4:
            x = jnp.pad(x, ((0, 0), *pairs, (0, 0)))
            shifts = [
                x[:, i : i + (height - 1) * stride + 1 : stride, j : j + (width - 1) * stride + 1 : stride]
                for i in range(window[0])
                for j in range(window[1])
            ]
            return jnp.concatenate(shifts, -1) @ kernel.reshape(-1, kernel.shape[-1])
    return lax.conv_general_dilated(x, kernel, (stride, stride), pairs, dimension_numbers=("NHWC", "HWIO", "NHWC"))


def batch_norm(x: jax.Array, p: Tree, momentum: float, epsilon: float) -> tuple[jax.Array, Tree]:
    """Normalized by the batch, and the moving statistics after it."""
    mean, variance = jnp.mean(x, (0, 1, 2)), jnp.var(x, (0, 1, 2))
    y = (x - mean) * (lax.rsqrt(variance + epsilon) * p["scale"]) + p["offset"]
    moved = {
        "mean": momentum * p["mean"] + (1 - momentum) * mean,
        "variance": momentum * p["variance"] + (1 - momentum) * variance,
    }
    return y, moved


def max_pool(x: jax.Array, window: int, stride: int, padding: int = 0) -> jax.Array:
    pairs = ((0, 0), (padding, padding), (padding, padding), (0, 0))
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, window, window, 1), (1, stride, stride, 1), pairs)


def dropout(x: jax.Array, key: jax.Array, rate: float) -> jax.Array:
    if rate == 0:
        return x
    return jnp.where(jax.random.bernoulli(key, 1 - rate, x.shape), x / (1 - rate), 0)


def digits_cnn(p: Tree, state: Tree, x: jax.Array, key: jax.Array, rate: float) -> tuple[jax.Array, Tree]:
    """`examples/digits_cnn.py`: [B, 8, 8, 1] to [B, 10]."""
    x, stem_bn = batch_norm(convolution(x, p["stem"]), p["stem_bn"] | state["stem_bn"], 0.99, 1e-3)
    x = jax.nn.relu(x)
    y = jax.nn.relu(convolution(x, p["block_conv1"]["kernel"]) + p["block_conv1"]["bias"])
    x = jax.nn.relu(x + convolution(y, p["block_conv2"]["kernel"]) + p["block_conv2"]["bias"])
    x = max_pool(x, 2, 2)
    x = jax.nn.relu(convolution(x, p["head_conv"]["kernel"]) + p["head_conv"]["bias"])
    x = dropout(jnp.mean(x, (1, 2)), key, rate)
    return x @ p["logits"]["kernel"] + p["logits"]["bias"], {"stem_bn": stem_bn}


def resnet18(p: Tree, state: Tree, x: jax.Array) -> tuple[jax.Array, Tree]:
    """He et al., 2015: [B, H, W, 3] to [B, classes]."""
    moved: dict[str, Any] = {}

    def normalized(x: jax.Array, name: str) -> jax.Array:
        y, moved[name] = batch_norm(x, p[name] | state[name], 0.9, 1e-5)
        return y

    x = jax.nn.relu(normalized(convolution(x, p["stem_conv"], 2, 3), "stem_bn"))
    x = max_pool(x, 3, 2, 1)
    for stage in range(4):
        for block in range(2):
            name = f"stage{stage + 1}_block{block + 1}"
            stride = 2 if stage and not block else 1
            y = jax.nn.relu(normalized(convolution(x, p[f"{name}_1_conv"], stride, 1), f"{name}_1_bn"))
            y = normalized(convolution(y, p[f"{name}_2_conv"], 1, 1), f"{name}_2_bn")
            if f"{name}_shortcut_conv" in p:
                x = normalized(convolution(x, p[f"{name}_shortcut_conv"], stride, 0), f"{name}_shortcut_bn")
            x = jax.nn.relu(x + y)
    return jnp.mean(x, (1, 2)) @ p["logits"]["kernel"] + p["logits"]["bias"], moved


def rms_norm(x: jax.Array, scale: jax.Array) -> jax.Array:
    return x * lax.rsqrt(jnp.mean(x * x, -1, keepdims=True) + 1e-6) * scale


def rotated(x: jax.Array, cos: jax.Array, sin: jax.Array) -> jax.Array:
    """Pairs of features of [B, T, H, D], D / 2 apart, turned by the angles of [T, 1, D / 2]."""
    a, b = jnp.split(x, 2, -1)
    return jnp.concatenate((a * cos - b * sin, b * cos + a * sin), -1)


def gpt(p: Tree, tokens: jax.Array, key: jax.Array, heads: int, rate: float) -> jax.Array:
    """`examples/gpt.py`: tokens [B, T] to the scores [B, T, 256] of the tokens that follow."""
    x = p["embedding"][tokens]
    batch, places, width = x.shape
    half = width // heads // 2
    angles = jnp.arange(places)[:, None, None] * 10000.0 ** (-jnp.arange(half) / half)
    cos, sin = jnp.cos(angles), jnp.sin(angles)
    for block, keys in zip(p["blocks"], jax.random.split(key, (len(p["blocks"]), 2)), strict=True):
        h = rms_norm(x, block["attention_norm"])
        q, k, v = ((h @ block[name]).reshape(batch, places, heads, -1) for name in ("query", "key", "value"))
        y = jax.nn.dot_product_attention(rotated(q, cos, sin), rotated(k, cos, sin), v, is_causal=True)
        x = x + dropout(y.reshape(batch, places, width) @ block["out"], keys[0], rate)
        h = rms_norm(x, block["mlp_norm"])
        y = (jax.nn.silu(h @ block["gate"]) * (h @ block["up"])) @ block["down"]
        x = x + dropout(y, keys[1], rate)
    return rms_norm(x, p["norm"]) @ p["embedding"].T


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    chosen = jnp.take_along_axis(jax.nn.log_softmax(logits), labels[..., None], -1)
    return -jnp.mean(chosen)
