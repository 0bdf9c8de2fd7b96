"""A model in JAX, with its weights in model.safetensors beside this file.

    model = load()
    outputs = model(tokens)  # or forward(model.params, tokens)

forward:
    tokens: int32[B, 16]
    returns embedding: float32[B, 16, 256]
train_step:
    tokens: int32[B, 16]
    target: int32[B, 16]
    learning_rate: float32[]
    returns loss: float32[]; updates 90 weights and states
test_step:
    tokens: int32[B, 16]
    target: int32[B, 16]
    returns loss: float32[]; updates metrics/loss/total, metrics/loss/count
"""

from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
from jax import lax
from safetensors.flax import load_file


def rope(x, cos, sin):
    """The halves of the last axis of `x` [B, T, H, D], turned by angles of [T, D / 2] or [B, T, D / 2]."""
    first, second = jnp.split(x, 2, axis=-1)
    cos, sin = jnp.expand_dims(cos, -2), jnp.expand_dims(sin, -2)
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)


def sparse_cross_entropy(logits, labels, ignore_index=None, label_smoothing=0.0):
    """-log softmax(logits) at the labels: 0 at `ignore_index`, NaN at what is no class."""
    outside = (labels < 0) | (labels >= logits.shape[-1])
    chances = jax.nn.log_softmax(logits, axis=-1)
    loss = -jnp.take_along_axis(chances, jnp.where(outside, 0, labels)[..., None], -1)[..., 0]
    if label_smoothing:
        loss = loss * (1 - label_smoothing) - chances.mean(-1) * label_smoothing
    loss = jnp.where(outside, jnp.nan, loss)
    return loss if ignore_index is None else jnp.where(labels == ignore_index, 0, loss)


def sparse_cross_entropy_gradient(dy, logits, labels, ignore_index=None, label_smoothing=0.0):
    """The gradient of the logits of `sparse_cross_entropy` from that of the losses: softmax less target."""
    outside = (labels < 0) | (labels >= logits.shape[-1])
    gradient = jax.nn.softmax(logits, axis=-1)
    if label_smoothing:
        gradient = gradient - label_smoothing * (1 / logits.shape[-1])
    at_label = jnp.arange(logits.shape[-1], dtype=jnp.int32) == labels[..., None].astype(jnp.int32)
    gradient = jnp.where(at_label, gradient - (1 - label_smoothing), gradient)
    gradient = jnp.where(outside[..., None], jnp.nan, gradient * dy[..., None])
    return gradient if ignore_index is None else jnp.where((labels == ignore_index)[..., None], 0, gradient)


def rms_norm(x, scale=1, axes=-1, epsilon=1e-6):
    """`x` divided by its root mean square over its last axes."""
    return x / jnp.sqrt(jnp.square(x).mean(axis=axes, keepdims=True) + epsilon) * scale


def attention(params, x, cos, sin):
    """block/attention … block_2/attention"""
    query = rope((x @ params["query"]["kernel"]).reshape(-1, 16, 2, 16), cos, sin).transpose((0, 2, 1, 3))
    key = rope((x @ params["key"]["kernel"]).reshape(-1, 16, 2, 16), cos, sin)
    condition = lax.broadcasted_iota(jnp.int32, (1, 16), 1) <= lax.broadcasted_iota(jnp.int32, (16, 1), 0)
    y = lax.dot_general(query, key, (((3,), (3,)), ((0, 1), (0, 2)))).reshape(-1, 2, 16, 16) * 0.25
    y = jax.nn.softmax(jnp.where(condition, y, -jnp.inf), axis=3).reshape(-1, 2, 16, 16)
    y = lax.dot_general(y, (x @ params["value"]["kernel"]).reshape(-1, 16, 2, 16), (((3,), (1,)), ((0, 1), (0, 2))))
    y = y.reshape(-1, 2, 16, 16).transpose((0, 2, 1, 3))
    return y.reshape(-1, 16, 32) @ params["out"]["kernel"]


def mlp(params, x):
    """block/mlp … block_2/mlp"""
    return jax.nn.silu(x @ params["gate"]["kernel"]) * (x @ params["up"]["kernel"]) @ params["down"]["kernel"]


def block(params, x, cos, sin):
    """block … block_2"""
    x = x + attention(params["attention"], rms_norm(x, params["attention_norm"]["scale"]), cos, sin)
    return x + mlp(params["mlp"], rms_norm(x, params["mlp_norm"]["scale"]))


def adam(parameter, gradient, momentum, velocity, alpha):
    """The update of embedding/embeddings … norm/scale"""
    momentum = momentum + (gradient - momentum) * 0.1
    velocity = velocity + (jnp.square(gradient) - velocity) * 0.001
    return parameter - momentum * alpha / (jnp.sqrt(velocity) + 1e-07), momentum, velocity


def block_with_residuals(params, x, cos, sin):
    """As `block`, and the residuals that `block_backward` takes."""
    attention_norm = rms_norm(x, params["attention_norm"]["scale"])
    query = rope((attention_norm @ params["attention"]["query"]["kernel"]).reshape(-1, 16, 2, 16), cos, sin)
    key = rope((attention_norm @ params["attention"]["key"]["kernel"]).reshape(-1, 16, 2, 16), cos, sin)
    value = (attention_norm @ params["attention"]["value"]["kernel"]).reshape(-1, 16, 2, 16)
    y = query.transpose((0, 2, 1, 3))
    condition = lax.broadcasted_iota(jnp.int32, (1, 16), 1) <= lax.broadcasted_iota(jnp.int32, (16, 1), 0)
    y = lax.dot_general(y, key, (((3,), (3,)), ((0, 1), (0, 2)))).reshape(-1, 2, 16, 16) * 0.25
    y = jax.nn.softmax(jnp.where(condition, y, -jnp.inf), axis=3).reshape(-1, 2, 16, 16)
    attention_1 = (
        lax.dot_general(y, value, (((3,), (1,)), ((0, 1), (0, 2)))).reshape(-1, 2, 16, 16).transpose((0, 2, 1, 3))
    )
    attention_2 = attention_1.reshape(-1, 16, 32)
    hidden = x + attention_2 @ params["attention"]["out"]["kernel"]
    mlp_norm = rms_norm(hidden, params["mlp_norm"]["scale"])
    gate = mlp_norm @ params["mlp"]["gate"]["kernel"]
    gate_1 = jax.nn.silu(gate)
    up = mlp_norm @ params["mlp"]["up"]["kernel"]
    mlp_1 = gate_1 * up
    return hidden + mlp_1 @ params["mlp"]["down"]["kernel"], (
        x,
        attention_norm,
        query,
        key,
        value,
        attention_1,
        attention_2,
        hidden,
        mlp_norm,
        gate,
        gate_1,
        up,
        mlp_1,
    )


def block_backward(params, dy, residuals, cos, sin):
    """From the gradient of the output to those of the input and, by name, of the weights."""
    x, attention_norm, query, key, value, attention_1, attention_2, hidden, mlp_norm, gate, gate_1, up, mlp_1 = (
        residuals
    )

    # mlp
    dx = dy @ params["mlp"]["down"]["kernel"].T
    mlp_down_kernel_gradient = lax.dot_general(mlp_1, dy, (((0, 1), (0, 1)), ((), ())))
    dz = dx * gate_1
    mlp_up_kernel_gradient = lax.dot_general(mlp_norm, dz, (((0, 1), (0, 1)), ((), ())))
    dy_1 = jax.nn.sigmoid(gate)
    dx = dx * up * dy_1 * (gate * (1.0 - dy_1) + 1.0)
    mlp_gate_kernel_gradient = lax.dot_general(mlp_norm, dx, (((0, 1), (0, 1)), ((), ())))
    dz = dz @ params["mlp"]["up"]["kernel"].T + dx @ params["mlp"]["gate"]["kernel"].T

    # mlp_norm
    dx = jnp.square(hidden).mean(axis=2, keepdims=True) + 1e-06
    dx = lax.rsqrt(dx)
    dy_1 = hidden * dx
    dy_2 = dz * params["mlp_norm"]["scale"]
    mlp_norm_scale_gradient = (dz * dy_1).sum(axis=(0, 1))
    dy = dy + dx * (dy_2 - dy_1 * (dy_2 * dy_1).mean(axis=2, keepdims=True))

    # attention
    attention_out_kernel_gradient = lax.dot_general(attention_2, dy, (((0, 1), (0, 1)), ((), ())))
    dx = (dy @ params["attention"]["out"]["kernel"].T).reshape(-1, 16, 2, 16)
    dz = query.transpose((0, 2, 1, 3))
    mask = lax.broadcasted_iota(jnp.int32, (1, 16), 1) <= lax.broadcasted_iota(jnp.int32, (16, 1), 0)
    dz = lax.dot_general(dz, key, (((3,), (3,)), ((0, 1), (0, 2)))).reshape(-1, 2, 16, 16) * 0.25
    dz = jax.nn.softmax(jnp.where(mask, dz, -jnp.inf), axis=3).reshape(-1, 2, 16, 16)
    dy_1 = dx.transpose((0, 2, 1, 3))
    dx = (dx * attention_1).sum(axis=3, keepdims=True).transpose((0, 2, 1, 3))
    dx = dz * (lax.dot_general(dy_1, value, (((3,), (3,)), ((0, 1), (0, 2)))) - dx) * 0.25
    dy_2 = query.transpose((0, 2, 1, 3))
    dz = lax.dot_general(dz, dy_1, (((2,), (2,)), ((0, 1), (0, 1)))).transpose((0, 2, 1, 3))
    dz = dz.reshape(-1, 16, 32)
    attention_value_kernel_gradient = lax.dot_general(attention_norm, dz, (((0, 1), (0, 1)), ((), ())))
    dy_1 = -sin
    dy_2 = lax.dot_general(dx, dy_2, (((2,), (2,)), ((0, 1), (0, 1)))).transpose((0, 2, 1, 3))
    dy_2 = rope(dy_2, cos, dy_1).reshape(-1, 16, 32)
    attention_key_kernel_gradient = lax.dot_general(attention_norm, dy_2, (((0, 1), (0, 1)), ((), ())))
    dx = lax.dot_general(dx, key, (((3,), (1,)), ((0, 1), (0, 2)))).reshape(-1, 2, 16, 16).transpose((0, 2, 1, 3))
    dx = rope(dx, cos, dy_1).reshape(-1, 16, 32)
    attention_query_kernel_gradient = lax.dot_general(attention_norm, dx, (((0, 1), (0, 1)), ((), ())))
    dz = dz @ params["attention"]["value"]["kernel"].T + dy_2 @ params["attention"]["key"]["kernel"].T
    dz = dz + dx @ params["attention"]["query"]["kernel"].T

    # attention_norm
    dx = jnp.square(x).mean(axis=2, keepdims=True) + 1e-06
    dx = lax.rsqrt(dx)
    dy_1 = x * dx
    dy_2 = dz * params["attention_norm"]["scale"]
    attention_norm_scale_gradient = (dz * dy_1).sum(axis=(0, 1))
    return dy + dx * (dy_2 - dy_1 * (dy_2 * dy_1).mean(axis=2, keepdims=True)), {
        "mlp_down_kernel": mlp_down_kernel_gradient,
        "mlp_up_kernel": mlp_up_kernel_gradient,
        "mlp_gate_kernel": mlp_gate_kernel_gradient,
        "mlp_norm_scale": mlp_norm_scale_gradient,
        "attention_out_kernel": attention_out_kernel_gradient,
        "attention_value_kernel": attention_value_kernel_gradient,
        "attention_key_kernel": attention_key_kernel_gradient,
        "attention_query_kernel": attention_query_kernel_gradient,
        "attention_norm_scale": attention_norm_scale_gradient,
    }


@jax.jit
def forward(params, tokens):
    """tokens: int32[B, 16] → embedding: float32[B, 16, 256]"""
    x = jnp.arange(16, dtype=jnp.int32).astype(jnp.float32).reshape(16, 1)
    x = x * jnp.array([1.0, 0.31622776, 0.1, 0.031622775, 0.01, 0.0031622776, 0.001, 0.00031622776], jnp.float32)
    y = jnp.take(params["embedding"]["embeddings"], tokens, axis=0, mode="clip")
    cos = jnp.cos(x)
    sin = jnp.sin(x)
    for layer in params["blocks"]:
        y = block(layer, y, cos, sin)
    return rms_norm(y, params["norm"]["scale"]) @ params["embedding"]["embeddings"].T


@partial(jax.jit, donate_argnums=0)
def train_step(params, tokens, target, learning_rate):
    """tokens, target, learning_rate → loss; types are at the top of the file.

    The memory of `params` is used for the new ones, which are returned: go on with these.
    """
    params = jax.tree.map(lambda leaf: leaf, params)  # new dicts, in which the new weights take their places
    b = tokens.shape[0]

    # forward: rotation
    x = jnp.arange(16, dtype=jnp.int32).astype(jnp.float32).reshape(16, 1)
    x = x * jnp.array([1.0, 0.31622776, 0.1, 0.031622775, 0.01, 0.0031622776, 0.001, 0.00031622776], jnp.float32)
    cos = jnp.cos(x)
    sin = jnp.sin(x)

    # forward: embedding
    x = jnp.take(params["embedding"]["embeddings"], tokens, axis=0, mode="clip")

    # forward: blocks
    residuals = {}
    for i in range(3):
        x, residuals[i] = block_with_residuals(params["blocks"][i], x, cos, sin)

    # forward: norm
    norm = rms_norm(x, params["norm"]["scale"])

    # forward: embedding#1
    embedding = params["embedding"]["embeddings"].T
    embedding_1 = norm @ embedding

    # loss
    loss = sparse_cross_entropy(embedding_1, target).mean()

    # backward: loss
    dx = jnp.broadcast_to(jnp.array(1 / (16 * b), jnp.float32), (b, 16))
    dx = sparse_cross_entropy_gradient(dx, embedding_1, target)

    # backward: embedding#1
    dy = lax.dot_general(dx, embedding, (((2,), (1,)), ((), ())))

    # backward: norm
    dz = jnp.square(x).mean(axis=2, keepdims=True) + 1e-06
    dz = lax.rsqrt(dz)
    dy_1 = x * dz
    dy_2 = dy * params["norm"]["scale"]
    dx_1 = dz * (dy_2 - dy_1 * (dy_2 * dy_1).mean(axis=2, keepdims=True))
    norm_scale_gradient = (dy * dy_1).sum(axis=(0, 1))

    # backward: blocks
    gradients = {}
    for i in reversed(range(3)):
        dx_1, gradients[i] = block_backward(params["blocks"][i], dx_1, residuals.pop(i), cos, sin)

    # backward: embedding
    dy = jnp.broadcast_to(jnp.array(0, jnp.float32), (256, 32))
    x = jnp.clip(tokens, 0, 255)
    dx = lax.dot_general(norm, dx, (((0, 1), (0, 1)), ((), ()))).T
    embedding_embeddings_gradient = dx + dy.at[jnp.where(x < 0, dy.shape[0], x)].add(dx_1, mode="drop")

    # optimizer
    new_optimizer_iteration = params["optimizer"]["iteration"] + 1
    step = new_optimizer_iteration.astype(jnp.float32)
    x = jnp.sqrt(-jnp.expm1(step * -0.0010005003))
    alpha = learning_rate * (x / -jnp.expm1(step * -0.105360515))
    (
        params["embedding"]["embeddings"],
        params["optimizer"]["embedding"]["embeddings"]["momentum"],
        params["optimizer"]["embedding"]["embeddings"]["velocity"],
    ) = adam(
        params["embedding"]["embeddings"],
        embedding_embeddings_gradient,
        params["optimizer"]["embedding"]["embeddings"]["momentum"],
        params["optimizer"]["embedding"]["embeddings"]["velocity"],
        alpha,
    )
    for i in range(3):
        layer, slots, gradient = params["blocks"][i], params["optimizer"]["blocks"][i], gradients.pop(i)
        (
            layer["attention_norm"]["scale"],
            slots["attention_norm"]["scale"]["momentum"],
            slots["attention_norm"]["scale"]["velocity"],
        ) = adam(
            layer["attention_norm"]["scale"],
            gradient["attention_norm_scale"],
            slots["attention_norm"]["scale"]["momentum"],
            slots["attention_norm"]["scale"]["velocity"],
            alpha,
        )
        (
            layer["attention"]["query"]["kernel"],
            slots["attention"]["query"]["kernel"]["momentum"],
            slots["attention"]["query"]["kernel"]["velocity"],
        ) = adam(
            layer["attention"]["query"]["kernel"],
            gradient["attention_query_kernel"],
            slots["attention"]["query"]["kernel"]["momentum"],
            slots["attention"]["query"]["kernel"]["velocity"],
            alpha,
        )
        (
            layer["attention"]["key"]["kernel"],
            slots["attention"]["key"]["kernel"]["momentum"],
            slots["attention"]["key"]["kernel"]["velocity"],
        ) = adam(
            layer["attention"]["key"]["kernel"],
            gradient["attention_key_kernel"],
            slots["attention"]["key"]["kernel"]["momentum"],
            slots["attention"]["key"]["kernel"]["velocity"],
            alpha,
        )
        (
            layer["attention"]["value"]["kernel"],
            slots["attention"]["value"]["kernel"]["momentum"],
            slots["attention"]["value"]["kernel"]["velocity"],
        ) = adam(
            layer["attention"]["value"]["kernel"],
            gradient["attention_value_kernel"],
            slots["attention"]["value"]["kernel"]["momentum"],
            slots["attention"]["value"]["kernel"]["velocity"],
            alpha,
        )
        (
            layer["attention"]["out"]["kernel"],
            slots["attention"]["out"]["kernel"]["momentum"],
            slots["attention"]["out"]["kernel"]["velocity"],
        ) = adam(
            layer["attention"]["out"]["kernel"],
            gradient["attention_out_kernel"],
            slots["attention"]["out"]["kernel"]["momentum"],
            slots["attention"]["out"]["kernel"]["velocity"],
            alpha,
        )
        layer["mlp_norm"]["scale"], slots["mlp_norm"]["scale"]["momentum"], slots["mlp_norm"]["scale"]["velocity"] = (
            adam(
                layer["mlp_norm"]["scale"],
                gradient["mlp_norm_scale"],
                slots["mlp_norm"]["scale"]["momentum"],
                slots["mlp_norm"]["scale"]["velocity"],
                alpha,
            )
        )
        (
            layer["mlp"]["gate"]["kernel"],
            slots["mlp"]["gate"]["kernel"]["momentum"],
            slots["mlp"]["gate"]["kernel"]["velocity"],
        ) = adam(
            layer["mlp"]["gate"]["kernel"],
            gradient["mlp_gate_kernel"],
            slots["mlp"]["gate"]["kernel"]["momentum"],
            slots["mlp"]["gate"]["kernel"]["velocity"],
            alpha,
        )
        (
            layer["mlp"]["up"]["kernel"],
            slots["mlp"]["up"]["kernel"]["momentum"],
            slots["mlp"]["up"]["kernel"]["velocity"],
        ) = adam(
            layer["mlp"]["up"]["kernel"],
            gradient["mlp_up_kernel"],
            slots["mlp"]["up"]["kernel"]["momentum"],
            slots["mlp"]["up"]["kernel"]["velocity"],
            alpha,
        )
        (
            layer["mlp"]["down"]["kernel"],
            slots["mlp"]["down"]["kernel"]["momentum"],
            slots["mlp"]["down"]["kernel"]["velocity"],
        ) = adam(
            layer["mlp"]["down"]["kernel"],
            gradient["mlp_down_kernel"],
            slots["mlp"]["down"]["kernel"]["momentum"],
            slots["mlp"]["down"]["kernel"]["velocity"],
            alpha,
        )
    (
        params["norm"]["scale"],
        params["optimizer"]["norm"]["scale"]["momentum"],
        params["optimizer"]["norm"]["scale"]["velocity"],
    ) = adam(
        params["norm"]["scale"],
        norm_scale_gradient,
        params["optimizer"]["norm"]["scale"]["momentum"],
        params["optimizer"]["norm"]["scale"]["velocity"],
        alpha,
    )

    # metrics
    new_metrics_loss_total = params["metrics"]["loss"]["total"] + loss * b
    new_metrics_loss_count = params["metrics"]["loss"]["count"] + b
    condition = new_metrics_loss_count == 0.0
    loss = jnp.where(condition, 0.0, new_metrics_loss_total / jnp.where(condition, 1.0, new_metrics_loss_count))
    params["optimizer"]["iteration"], params["metrics"]["loss"]["total"], params["metrics"]["loss"]["count"] = (
        new_optimizer_iteration,
        new_metrics_loss_total,
        new_metrics_loss_count,
    )
    return loss, params


@partial(jax.jit, donate_argnums=0)
def test_step(params, tokens, target):
    """tokens, target → loss; types are at the top of the file.

    The memory of `params` is used for the new ones, which are returned: go on with these.
    """
    params = jax.tree.map(lambda leaf: leaf, params)  # new dicts, in which the new weights take their places
    b = tokens.shape[0]

    # forward
    x = jnp.arange(16, dtype=jnp.int32).astype(jnp.float32).reshape(16, 1)
    x = x * jnp.array([1.0, 0.31622776, 0.1, 0.031622775, 0.01, 0.0031622776, 0.001, 0.00031622776], jnp.float32)
    y = jnp.take(params["embedding"]["embeddings"], tokens, axis=0, mode="clip")
    cos = jnp.cos(x)
    sin = jnp.sin(x)
    for layer in params["blocks"]:
        y = block(layer, y, cos, sin)

    # loss
    loss = sparse_cross_entropy(rms_norm(y, params["norm"]["scale"]) @ params["embedding"]["embeddings"].T, target)
    loss = loss.mean()

    # metrics
    new_metrics_loss_total = params["metrics"]["loss"]["total"] + loss * b
    new_metrics_loss_count = params["metrics"]["loss"]["count"] + b
    condition = new_metrics_loss_count == 0.0
    loss = jnp.where(condition, 0.0, new_metrics_loss_total / jnp.where(condition, 1.0, new_metrics_loss_count))
    params["metrics"]["loss"]["total"], params["metrics"]["loss"]["count"] = (
        new_metrics_loss_total,
        new_metrics_loss_count,
    )
    return loss, params


class Model:
    """The entries with the weights they read."""

    def __init__(self, params):
        self.params = params

    def __call__(self, tokens):
        with jax.enable_x64(True):
            return forward(self.params, tokens)

    def train_step(self, tokens, target, learning_rate):
        with jax.enable_x64(True):
            outputs, self.params = train_step(self.params, tokens, target, learning_rate)
            return outputs

    def test_step(self, tokens, target):
        with jax.enable_x64(True):
            outputs, self.params = test_step(self.params, tokens, target)
            return outputs


def load(folder=None):
    """The model with the weights beside this file, or in `folder`."""
    path = Path(folder or Path(__file__).parent) / "model.safetensors"
    with jax.enable_x64(True):
        return Model(nested(load_file(path)))


def nested(weights):
    """Weights named by paths as nested dicts, with lists where the keys are numbers."""
    tree = {}
    for path, array in weights.items():
        *groups, name = path.split("/")
        group = tree
        for key in groups:
            group = group.setdefault(key, {})
        group[name] = array
    return with_lists(tree)


def with_lists(tree):
    if not isinstance(tree, dict):
        return tree
    items = {key: with_lists(item) for key, item in tree.items()}
    if items and all(key.isdigit() for key in items):
        return [items[key] for key in sorted(items, key=int)]
    return items
