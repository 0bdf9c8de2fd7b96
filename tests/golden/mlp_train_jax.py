"""A model in JAX, with its weights in model.safetensors beside this file.

    model = load()
    outputs = model(image)  # or forward(model.params, image)

forward:
    image: float32[B, 784]
    returns logits: float32[B, 10]
train_step:
    image: float32[B, 784]
    target: int32[B]
    learning_rate: float32[]
    returns loss: float32[], accuracy: float32[]; updates 17 weights and states
test_step:
    image: float32[B, 784]
    target: int32[B]
    returns loss: float32[], accuracy: float32[]; updates 4 weights and states
"""

from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
from safetensors.flax import load_file


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


def adamw(parameter, gradient, momentum, velocity, learning_rate, alpha):
    """The update of hidden/kernel … logits/bias"""
    momentum = momentum + (gradient - momentum) * 0.1
    velocity = velocity + (jnp.square(gradient) - velocity) * 0.001
    x = momentum * alpha / (jnp.sqrt(velocity) + 1e-07)
    return parameter - parameter * (learning_rate * 0.004) - x, momentum, velocity


@jax.jit
def forward(params, image):
    """image: float32[B, 784] → logits: float32[B, 10]"""
    x = jax.nn.relu(image @ params["hidden"]["kernel"] + params["hidden"]["bias"])
    return x @ params["logits"]["kernel"] + params["logits"]["bias"]


@partial(jax.jit, donate_argnums=0)
def train_step(params, image, target, learning_rate):
    """image, target, learning_rate → loss, accuracy; types are at the top of the file.

    The memory of `params` is used for the new ones, which are returned: go on with these.
    """
    params = jax.tree.map(lambda leaf: leaf, params)  # new dicts, in which the new weights take their places
    b = image.shape[0]

    # forward
    hidden = jax.nn.relu(image @ params["hidden"]["kernel"] + params["hidden"]["bias"])
    logits = hidden @ params["logits"]["kernel"] + params["logits"]["bias"]

    # loss
    loss = sparse_cross_entropy(logits, target).mean()

    # backward: loss
    dx = sparse_cross_entropy_gradient(jnp.broadcast_to(jnp.array(1 / b, jnp.float32), (b,)), logits, target)

    # backward: logits
    logits_kernel_gradient = hidden.T @ dx
    logits_bias_gradient = dx.sum(axis=0)

    # backward: hidden
    dx = jnp.where(hidden <= 0.0, 0.0, dx @ params["logits"]["kernel"].T)
    hidden_kernel_gradient = image.T @ dx
    hidden_bias_gradient = dx.sum(axis=0)

    # optimizer
    new_optimizer_iteration = params["optimizer"]["iteration"] + 1
    step = new_optimizer_iteration.astype(jnp.float32)
    x = jnp.sqrt(-jnp.expm1(step * -0.0010005003))
    alpha = learning_rate * (x / -jnp.expm1(step * -0.105360515))
    (
        params["hidden"]["kernel"],
        params["optimizer"]["hidden"]["kernel"]["momentum"],
        params["optimizer"]["hidden"]["kernel"]["velocity"],
    ) = adamw(
        params["hidden"]["kernel"],
        hidden_kernel_gradient,
        params["optimizer"]["hidden"]["kernel"]["momentum"],
        params["optimizer"]["hidden"]["kernel"]["velocity"],
        learning_rate,
        alpha,
    )
    (
        params["hidden"]["bias"],
        params["optimizer"]["hidden"]["bias"]["momentum"],
        params["optimizer"]["hidden"]["bias"]["velocity"],
    ) = adamw(
        params["hidden"]["bias"],
        hidden_bias_gradient,
        params["optimizer"]["hidden"]["bias"]["momentum"],
        params["optimizer"]["hidden"]["bias"]["velocity"],
        learning_rate,
        alpha,
    )
    (
        params["logits"]["kernel"],
        params["optimizer"]["logits"]["kernel"]["momentum"],
        params["optimizer"]["logits"]["kernel"]["velocity"],
    ) = adamw(
        params["logits"]["kernel"],
        logits_kernel_gradient,
        params["optimizer"]["logits"]["kernel"]["momentum"],
        params["optimizer"]["logits"]["kernel"]["velocity"],
        learning_rate,
        alpha,
    )
    (
        params["logits"]["bias"],
        params["optimizer"]["logits"]["bias"]["momentum"],
        params["optimizer"]["logits"]["bias"]["velocity"],
    ) = adamw(
        params["logits"]["bias"],
        logits_bias_gradient,
        params["optimizer"]["logits"]["bias"]["momentum"],
        params["optimizer"]["logits"]["bias"]["velocity"],
        learning_rate,
        alpha,
    )

    # metrics
    new_metrics_loss_total = params["metrics"]["loss"]["total"] + loss * b
    new_metrics_loss_count = params["metrics"]["loss"]["count"] + b
    x = (target == logits.argmax(axis=1).astype(jnp.int32)).astype(jnp.float32).sum()
    new_metrics_accuracy_total = params["metrics"]["accuracy"]["total"] + x
    new_metrics_accuracy_count = params["metrics"]["accuracy"]["count"] + b
    condition = new_metrics_loss_count == 0.0
    condition_1 = new_metrics_accuracy_count == 0.0
    x = new_metrics_accuracy_total / jnp.where(condition_1, 1.0, new_metrics_accuracy_count)
    loss = jnp.where(condition, 0.0, new_metrics_loss_total / jnp.where(condition, 1.0, new_metrics_loss_count))
    accuracy = jnp.where(condition_1, 0.0, x)
    (
        params["optimizer"]["iteration"],
        params["metrics"]["loss"]["total"],
        params["metrics"]["loss"]["count"],
        params["metrics"]["accuracy"]["total"],
        params["metrics"]["accuracy"]["count"],
    ) = (
        new_optimizer_iteration,
        new_metrics_loss_total,
        new_metrics_loss_count,
        new_metrics_accuracy_total,
        new_metrics_accuracy_count,
    )
    return (loss, accuracy), params


@partial(jax.jit, donate_argnums=0)
def test_step(params, image, target):
    """image, target → loss, accuracy; types are at the top of the file.

    The memory of `params` is used for the new ones, which are returned: go on with these.
    """
    params = jax.tree.map(lambda leaf: leaf, params)  # new dicts, in which the new weights take their places
    b = image.shape[0]

    # forward
    x = jax.nn.relu(image @ params["hidden"]["kernel"] + params["hidden"]["bias"])
    x = x @ params["logits"]["kernel"] + params["logits"]["bias"]

    # loss
    loss = sparse_cross_entropy(x, target).mean()

    # metrics
    new_metrics_loss_total = params["metrics"]["loss"]["total"] + loss * b
    new_metrics_loss_count = params["metrics"]["loss"]["count"] + b
    x = (target == x.argmax(axis=1).astype(jnp.int32)).astype(jnp.float32).sum()
    new_metrics_accuracy_total = params["metrics"]["accuracy"]["total"] + x
    new_metrics_accuracy_count = params["metrics"]["accuracy"]["count"] + b
    condition = new_metrics_loss_count == 0.0
    condition_1 = new_metrics_accuracy_count == 0.0
    x = new_metrics_accuracy_total / jnp.where(condition_1, 1.0, new_metrics_accuracy_count)
    loss = jnp.where(condition, 0.0, new_metrics_loss_total / jnp.where(condition, 1.0, new_metrics_loss_count))
    accuracy = jnp.where(condition_1, 0.0, x)
    (
        params["metrics"]["loss"]["total"],
        params["metrics"]["loss"]["count"],
        params["metrics"]["accuracy"]["total"],
        params["metrics"]["accuracy"]["count"],
    ) = new_metrics_loss_total, new_metrics_loss_count, new_metrics_accuracy_total, new_metrics_accuracy_count
    return (loss, accuracy), params


class Model:
    """The entries with the weights they read."""

    def __init__(self, params):
        self.params = params

    def __call__(self, image):
        with jax.enable_x64(True):
            return forward(self.params, image)

    def train_step(self, image, target, learning_rate):
        with jax.enable_x64(True):
            outputs, self.params = train_step(self.params, image, target, learning_rate)
            return outputs

    def test_step(self, image, target):
        with jax.enable_x64(True):
            outputs, self.params = test_step(self.params, image, target)
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
