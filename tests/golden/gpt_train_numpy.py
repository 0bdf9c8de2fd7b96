"""A model in NumPy, with its weights in model.safetensors beside this file.

    model = load()
    outputs = model(tokens)

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

from pathlib import Path

import numpy as np
from safetensors.numpy import load_file
from scipy import special


def rope(x, cos, sin):
    """The halves of the last axis of `x` [B, T, H, D], turned by angles of [T, D / 2] or [B, T, D / 2]."""
    first, second = np.split(x, 2, axis=-1)
    cos, sin = np.expand_dims(cos, -2), np.expand_dims(sin, -2)
    return np.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)


def sparse_cross_entropy(logits, labels, ignore_index=None, label_smoothing=0.0):
    """-log softmax(logits) at the labels: 0 at `ignore_index`, NaN at what is no class."""
    outside = (labels < 0) | (labels >= logits.shape[-1])
    chances = special.log_softmax(logits, axis=-1)
    places = np.where(outside, 0, labels).astype(np.int64)[..., None]
    loss = -np.take_along_axis(chances, places, -1)[..., 0]
    if label_smoothing:
        loss = loss * (1 - label_smoothing) - chances.mean(-1) * label_smoothing
    loss = np.where(outside, np.nan, loss).astype(logits.dtype)
    return loss if ignore_index is None else np.where(labels == ignore_index, 0, loss)


def sparse_cross_entropy_gradient(dy, logits, labels, ignore_index=None, label_smoothing=0.0):
    """The gradient of the logits of `sparse_cross_entropy` from that of the losses: softmax less target."""
    outside = (labels < 0) | (labels >= logits.shape[-1])
    classes = np.where(outside, 0, labels).astype(np.int64)[..., None]
    gradient = special.softmax(logits, axis=-1)
    if label_smoothing:
        gradient -= label_smoothing * (1 / logits.shape[-1])
    np.put_along_axis(gradient, classes, np.take_along_axis(gradient, classes, -1) - (1 - label_smoothing), -1)
    gradient *= np.where(outside, np.nan, dy).astype(logits.dtype)[..., None]
    return gradient if ignore_index is None else np.where((labels == ignore_index)[..., None], 0, gradient)


def rms_norm(x, scale=1, axes=-1, epsilon=1e-6):
    """`x` divided by its root mean square over its last axes."""
    return x / np.sqrt(np.square(x).mean(axis=axes, keepdims=True) + epsilon) * scale


def scatter_add(x, indices, updates, axis):
    """`x` with `updates` added to its slices at `indices`; those outside are dropped."""
    out, indices = np.moveaxis(x, axis, 0).copy(), np.asarray(indices)
    updates = np.moveaxis(updates, range(axis, axis + indices.ndim), range(indices.ndim))
    inside = (indices >= 0) & (indices < x.shape[axis])
    np.add.at(out, indices[inside].astype(np.int64), updates[inside])
    return np.moveaxis(out, 0, axis)


def attention(params, x, cos, sin):
    """block/attention … block_2/attention"""
    query = rope((x @ params["query"]["kernel"]).reshape(-1, 16, 2, 16), cos, sin)
    key = rope((x @ params["key"]["kernel"]).reshape(-1, 16, 2, 16), cos, sin)
    value = x @ params["value"]["kernel"]
    value = value.reshape(-1, 16, 2, 16)
    query = query.transpose((0, 2, 1, 3))
    x = np.einsum("abdc,aebc->abde", query, key, optimize=True)
    del key, query
    x = x.reshape(-1, 2, 16, 16)
    x = x * 0.25
    y = np.broadcast_to(np.arange(16, dtype=np.int32), (1, 16))
    y = np.where(y <= np.broadcast_to(np.arange(16, dtype=np.int32)[:, None], (16, 1)), x, -np.inf)
    del x
    y = special.softmax(y, axis=3)
    y = y.reshape(-1, 2, 16, 16)
    y = np.einsum("abdc,acbe->abde", y, value, optimize=True)
    del value
    y = y.reshape(-1, 2, 16, 16)
    y = y.transpose((0, 2, 1, 3))
    y = y.reshape(-1, 16, 32)
    return y @ params["out"]["kernel"]


def mlp(params, x):
    """block/mlp … block_2/mlp"""
    gate = x @ params["gate"]["kernel"]
    gate = gate * special.expit(gate)
    x = x @ params["up"]["kernel"]
    x = gate * x
    return x @ params["down"]["kernel"]


def block(params, x, cos, sin):
    """block … block_2"""
    x = x + attention(params["attention"], rms_norm(x, params["attention_norm"]["scale"]), cos, sin)
    return x + mlp(params["mlp"], rms_norm(x, params["mlp_norm"]["scale"]))


def adam(parameter, gradient, momentum, velocity, alpha):
    """The update of embedding/embeddings … norm/scale"""
    momentum = momentum + (gradient - momentum) * 0.1
    velocity = velocity + (np.square(gradient) - velocity) * 0.001
    return parameter - momentum * alpha / (np.sqrt(velocity) + 1e-07), momentum, velocity


def block_with_residuals(params, x, cos, sin):
    """As `block`, and the residuals that `block_backward` takes."""
    attention_norm = rms_norm(x, params["attention_norm"]["scale"])
    query = rope((attention_norm @ params["attention"]["query"]["kernel"]).reshape(-1, 16, 2, 16), cos, sin)
    key = rope((attention_norm @ params["attention"]["key"]["kernel"]).reshape(-1, 16, 2, 16), cos, sin)
    value = (attention_norm @ params["attention"]["value"]["kernel"]).reshape(-1, 16, 2, 16)
    y = query.transpose((0, 2, 1, 3))
    y = np.einsum("abdc,aebc->abde", y, key, optimize=True)
    y = y.reshape(-1, 2, 16, 16)
    y = y * 0.25
    z = np.broadcast_to(np.arange(16, dtype=np.int32), (1, 16))
    z = np.where(z <= np.broadcast_to(np.arange(16, dtype=np.int32)[:, None], (16, 1)), y, -np.inf)
    del y
    z = special.softmax(z, axis=3)
    z = z.reshape(-1, 2, 16, 16)
    z = np.einsum("abdc,acbe->abde", z, value, optimize=True)
    z = z.reshape(-1, 2, 16, 16)
    attention_1 = z.transpose((0, 2, 1, 3))
    del z
    attention_2 = attention_1.reshape(-1, 16, 32)
    hidden = x + attention_2 @ params["attention"]["out"]["kernel"]
    mlp_norm = rms_norm(hidden, params["mlp_norm"]["scale"])
    gate = mlp_norm @ params["mlp"]["gate"]["kernel"]
    gate_1 = gate * special.expit(gate)
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
    del residuals

    # mlp
    dx = dy @ params["mlp"]["down"]["kernel"].T
    mlp_down_kernel_gradient = np.einsum("abc,abd->cd", mlp_1, dy, optimize=True)
    del mlp_1
    dz = dx * up
    del up
    dx = dx * gate_1
    del gate_1
    dy_1 = dx @ params["mlp"]["up"]["kernel"].T
    mlp_up_kernel_gradient = np.einsum("abc,abd->cd", mlp_norm, dx, optimize=True)
    del dx
    dx = special.expit(gate)
    dz = dz * dx
    dx = 1.0 - dx
    dx = gate * dx
    del gate
    dx = dx + 1.0
    dz = dz * dx
    del dx
    dx = dz @ params["mlp"]["gate"]["kernel"].T
    mlp_gate_kernel_gradient = np.einsum("abc,abd->cd", mlp_norm, dz, optimize=True)
    del dz, mlp_norm
    dy_1 = dy_1 + dx
    del dx

    # mlp_norm
    dx = 1 / np.sqrt(np.square(hidden).mean(axis=2, keepdims=True) + 1e-06)
    dz = hidden * dx
    del hidden
    dy_2 = dy_1 * params["mlp_norm"]["scale"]
    dy_2 = dy_2 - dz * (dy_2 * dz).mean(axis=2, keepdims=True)
    dx = dx * dy_2
    del dy_2
    dy_1 = dy_1 * dz
    del dz
    mlp_norm_scale_gradient = dy_1.sum(axis=(0, 1))
    del dy_1
    dy = dy + dx
    del dx

    # attention
    dx = dy @ params["attention"]["out"]["kernel"].T
    attention_out_kernel_gradient = np.einsum("abc,abd->cd", attention_2, dy, optimize=True)
    del attention_2
    dx = dx.reshape(-1, 16, 2, 16)
    dz = query.transpose((0, 2, 1, 3))
    dz = np.einsum("abdc,aebc->abde", dz, key, optimize=True)
    dz = dz.reshape(-1, 2, 16, 16)
    dz = dz * 0.25
    y = np.broadcast_to(np.arange(16, dtype=np.int32), (1, 16))
    dz = np.where(y <= np.broadcast_to(np.arange(16, dtype=np.int32)[:, None], (16, 1)), dz, -np.inf)
    dz = special.softmax(dz, axis=3)
    dz = dz.reshape(-1, 2, 16, 16)
    dy_1 = dx.transpose((0, 2, 1, 3))
    dy_2 = np.einsum("abcd,abce->abde", dz, dy_1, optimize=True).transpose((0, 2, 1, 3))
    dy_1 = np.einsum("abdc,aebc->abde", dy_1, value, optimize=True)
    del value
    dx = dx * attention_1
    del attention_1
    dx = dx.sum(axis=3, keepdims=True)
    dx = dx.transpose((0, 2, 1, 3))
    dy_1 = dy_1 - dx
    del dx
    dz = dz * dy_1
    del dy_1
    dz = dz * 0.25
    dx = np.einsum("abdc,acbe->abde", dz, key, optimize=True)
    del key
    dx = dx.reshape(-1, 2, 16, 16)
    dx = dx.transpose((0, 2, 1, 3))
    dy_1 = query.transpose((0, 2, 1, 3))
    del query
    dz = np.einsum("abcd,abce->abde", dz, dy_1, optimize=True)
    del dy_1
    dz = dz.transpose((0, 2, 1, 3))
    dy_2 = dy_2.reshape(-1, 16, 32)
    dy_1 = dy_2 @ params["attention"]["value"]["kernel"].T
    attention_value_kernel_gradient = np.einsum("abc,abd->cd", attention_norm, dy_2, optimize=True)
    del dy_2
    dy_2 = -sin
    dz = rope(dz, cos, dy_2)
    dz = dz.reshape(-1, 16, 32)
    dy_3 = dz @ params["attention"]["key"]["kernel"].T
    attention_key_kernel_gradient = np.einsum("abc,abd->cd", attention_norm, dz, optimize=True)
    del dz
    dy_1 = dy_1 + dy_3
    del dy_3
    dx = rope(dx, cos, dy_2)
    dx = dx.reshape(-1, 16, 32)
    dz = dx @ params["attention"]["query"]["kernel"].T
    attention_query_kernel_gradient = np.einsum("abc,abd->cd", attention_norm, dx, optimize=True)
    del attention_norm, dx
    dy_1 = dy_1 + dz
    del dz

    # attention_norm
    dx = 1 / np.sqrt(np.square(x).mean(axis=2, keepdims=True) + 1e-06)
    dz = x * dx
    del x
    dy_2 = dy_1 * params["attention_norm"]["scale"]
    dy_2 = dy_2 - dz * (dy_2 * dz).mean(axis=2, keepdims=True)
    dx = dx * dy_2
    del dy_2
    dy_1 = dy_1 * dz
    del dz
    attention_norm_scale_gradient = dy_1.sum(axis=(0, 1))
    return dy + dx, {
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


def forward(params, tokens):
    """tokens: int32[B, 16] → embedding: float32[B, 16, 256]"""
    x = np.arange(16, dtype=np.int32).astype(np.float32).reshape(16, 1)
    x = x * np.array([1.0, 0.31622776, 0.1, 0.031622775, 0.01, 0.0031622776, 0.001, 0.00031622776], np.float32)
    y = np.take(params["embedding"]["embeddings"], tokens, axis=0, mode="clip")
    cos = np.cos(x)
    sin = np.sin(x)
    for layer in params["blocks"]:
        y = block(layer, y, cos, sin)
    y = rms_norm(y, params["norm"]["scale"])
    return y @ params["embedding"]["embeddings"].T


def train_step(params, tokens, target, learning_rate):
    """tokens, target, learning_rate → loss; types are at the top of the file."""
    b = tokens.shape[0]

    # forward: rotation
    x = np.arange(16, dtype=np.int32).astype(np.float32).reshape(16, 1)
    x = x * np.array([1.0, 0.31622776, 0.1, 0.031622775, 0.01, 0.0031622776, 0.001, 0.00031622776], np.float32)
    cos = np.cos(x)
    sin = np.sin(x)

    # forward: embedding
    x = np.take(params["embedding"]["embeddings"], tokens, axis=0, mode="clip")

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
    dx = sparse_cross_entropy_gradient(
        np.broadcast_to(np.array(1 / (16 * b), np.float32), (b, 16)), embedding_1, target
    )
    del embedding_1

    # backward: embedding#1
    dy = np.einsum("bca,da->bcd", dx, embedding, optimize=True)
    del embedding
    dx = np.einsum("abc,abd->cd", norm, dx, optimize=True)
    del norm
    dx = dx.T

    # backward: norm
    dz = 1 / np.sqrt(np.square(x).mean(axis=2, keepdims=True) + 1e-06)
    dy_1 = x * dz
    del x
    dy_2 = dy * params["norm"]["scale"]
    dy_2 = dy_2 - dy_1 * (dy_2 * dy_1).mean(axis=2, keepdims=True)
    dx_1 = dz * dy_2
    del dy_2, dz
    dy = dy * dy_1
    del dy_1
    norm_scale_gradient = dy.sum(axis=(0, 1))
    del dy

    # backward: blocks
    gradients = {}
    for i in reversed(range(3)):
        dx_1, gradients[i] = block_backward(params["blocks"][i], dx_1, residuals.pop(i), cos, sin)

    # backward: embedding
    x = np.clip(tokens, 0, 255)
    dx_1 = scatter_add(np.broadcast_to(np.array(0, np.float32), (256, 32)), x, dx_1, 0)
    del x
    embedding_embeddings_gradient = dx + dx_1
    del dx, dx_1

    # optimizer
    new_optimizer_iteration = params["optimizer"]["iteration"] + 1
    step = new_optimizer_iteration.astype(np.float32)
    x = np.sqrt(-np.expm1(step * -0.0010005003))
    alpha = learning_rate * (x / -np.expm1(step * -0.105360515))
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
    del embedding_embeddings_gradient
    for i in range(3):
        layer, slots, gradient = params["blocks"][i], params["optimizer"]["blocks"][i], gradients.pop(i)
        (
            layer["attention_norm"]["scale"],
            slots["attention_norm"]["scale"]["momentum"],
            slots["attention_norm"]["scale"]["velocity"],
        ) = adam(
            layer["attention_norm"]["scale"],
            gradient.pop("attention_norm_scale"),
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
            gradient.pop("attention_query_kernel"),
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
            gradient.pop("attention_key_kernel"),
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
            gradient.pop("attention_value_kernel"),
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
            gradient.pop("attention_out_kernel"),
            slots["attention"]["out"]["kernel"]["momentum"],
            slots["attention"]["out"]["kernel"]["velocity"],
            alpha,
        )
        layer["mlp_norm"]["scale"], slots["mlp_norm"]["scale"]["momentum"], slots["mlp_norm"]["scale"]["velocity"] = (
            adam(
                layer["mlp_norm"]["scale"],
                gradient.pop("mlp_norm_scale"),
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
            gradient.pop("mlp_gate_kernel"),
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
            gradient.pop("mlp_up_kernel"),
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
            gradient.pop("mlp_down_kernel"),
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
    loss = np.where(condition, 0.0, new_metrics_loss_total / np.where(condition, 1.0, new_metrics_loss_count))
    params["optimizer"]["iteration"], params["metrics"]["loss"]["total"], params["metrics"]["loss"]["count"] = (
        new_optimizer_iteration,
        new_metrics_loss_total,
        new_metrics_loss_count,
    )
    return loss


def test_step(params, tokens, target):
    """tokens, target → loss; types are at the top of the file."""
    b = tokens.shape[0]

    # forward
    x = np.arange(16, dtype=np.int32).astype(np.float32).reshape(16, 1)
    x = x * np.array([1.0, 0.31622776, 0.1, 0.031622775, 0.01, 0.0031622776, 0.001, 0.00031622776], np.float32)
    y = np.take(params["embedding"]["embeddings"], tokens, axis=0, mode="clip")
    cos = np.cos(x)
    sin = np.sin(x)
    for layer in params["blocks"]:
        y = block(layer, y, cos, sin)
    y = rms_norm(y, params["norm"]["scale"])
    y = y @ params["embedding"]["embeddings"].T

    # loss
    loss = sparse_cross_entropy(y, target)
    del y
    loss = loss.mean()

    # metrics
    new_metrics_loss_total = params["metrics"]["loss"]["total"] + loss * b
    new_metrics_loss_count = params["metrics"]["loss"]["count"] + b
    condition = new_metrics_loss_count == 0.0
    loss = np.where(condition, 0.0, new_metrics_loss_total / np.where(condition, 1.0, new_metrics_loss_count))
    params["metrics"]["loss"]["total"], params["metrics"]["loss"]["count"] = (
        new_metrics_loss_total,
        new_metrics_loss_count,
    )
    return loss


class Model:
    """The entries with the weights they read."""

    def __init__(self, params):
        self.params = params

    def __call__(self, tokens):
        return forward(self.params, tokens)

    def train_step(self, tokens, target, learning_rate):
        return train_step(self.params, tokens, target, learning_rate)

    def test_step(self, tokens, target):
        return test_step(self.params, tokens, target)


def load(folder=None):
    """The model with the weights beside this file, or in `folder`."""
    path = Path(folder or Path(__file__).parent) / "model.safetensors"
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
