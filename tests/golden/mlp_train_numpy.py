"""A model in NumPy, with its weights in model.safetensors beside this file.

    model = load()
    outputs = model(image)

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

from pathlib import Path

import numpy as np
from safetensors.numpy import load_file
from scipy import special


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


def adamw(parameter, gradient, momentum, velocity, learning_rate, alpha):
    """The update of hidden/kernel … logits/bias"""
    momentum = momentum + (gradient - momentum) * 0.1
    velocity = velocity + (np.square(gradient) - velocity) * 0.001
    x = momentum * alpha / (np.sqrt(velocity) + 1e-07)
    return parameter - parameter * (learning_rate * 0.004) - x, momentum, velocity


def forward(params, image):
    """image: float32[B, 784] → logits: float32[B, 10]"""
    x = image @ params["hidden"]["kernel"] + params["hidden"]["bias"]
    x = np.maximum(x, 0)
    return x @ params["logits"]["kernel"] + params["logits"]["bias"]


def train_step(params, image, target, learning_rate):
    """image, target, learning_rate → loss, accuracy; types are at the top of the file."""
    b = image.shape[0]

    # forward
    hidden = np.maximum(image @ params["hidden"]["kernel"] + params["hidden"]["bias"], 0)
    logits = hidden @ params["logits"]["kernel"] + params["logits"]["bias"]

    # loss
    loss = sparse_cross_entropy(logits, target).mean()

    # backward: loss
    dx = sparse_cross_entropy_gradient(np.broadcast_to(np.array(1 / b, np.float32), (b,)), logits, target)

    # backward: logits
    dy = dx @ params["logits"]["kernel"].T
    logits_kernel_gradient = hidden.T @ dx
    logits_bias_gradient = dx.sum(axis=0)
    del dx

    # backward: hidden
    mask = hidden <= 0.0
    del hidden
    dy = np.where(mask, 0.0, dy)
    del mask
    hidden_kernel_gradient = image.T @ dy
    hidden_bias_gradient = dy.sum(axis=0)
    del dy

    # optimizer
    new_optimizer_iteration = params["optimizer"]["iteration"] + 1
    step = new_optimizer_iteration.astype(np.float32)
    x = np.sqrt(-np.expm1(step * -0.0010005003))
    alpha = learning_rate * (x / -np.expm1(step * -0.105360515))
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
    del hidden_kernel_gradient
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
    del logits_kernel_gradient
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
    x = logits.argmax(axis=1).astype(np.int32)
    del logits
    new_metrics_accuracy_total = params["metrics"]["accuracy"]["total"] + (target == x).astype(np.float32).sum()
    new_metrics_accuracy_count = params["metrics"]["accuracy"]["count"] + b
    condition = new_metrics_loss_count == 0.0
    condition_1 = new_metrics_accuracy_count == 0.0
    x = new_metrics_accuracy_total / np.where(condition_1, 1.0, new_metrics_accuracy_count)
    loss = np.where(condition, 0.0, new_metrics_loss_total / np.where(condition, 1.0, new_metrics_loss_count))
    accuracy = np.where(condition_1, 0.0, x)
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
    return loss, accuracy


def test_step(params, image, target):
    """image, target → loss, accuracy; types are at the top of the file."""
    b = image.shape[0]

    # forward
    x = image @ params["hidden"]["kernel"] + params["hidden"]["bias"]
    x = np.maximum(x, 0)
    x = x @ params["logits"]["kernel"] + params["logits"]["bias"]

    # loss
    loss = sparse_cross_entropy(x, target).mean()

    # metrics
    new_metrics_loss_total = params["metrics"]["loss"]["total"] + loss * b
    new_metrics_loss_count = params["metrics"]["loss"]["count"] + b
    x = x.argmax(axis=1).astype(np.int32)
    new_metrics_accuracy_total = params["metrics"]["accuracy"]["total"] + (target == x).astype(np.float32).sum()
    new_metrics_accuracy_count = params["metrics"]["accuracy"]["count"] + b
    condition = new_metrics_loss_count == 0.0
    condition_1 = new_metrics_accuracy_count == 0.0
    x = new_metrics_accuracy_total / np.where(condition_1, 1.0, new_metrics_accuracy_count)
    loss = np.where(condition, 0.0, new_metrics_loss_total / np.where(condition, 1.0, new_metrics_loss_count))
    accuracy = np.where(condition_1, 0.0, x)
    (
        params["metrics"]["loss"]["total"],
        params["metrics"]["loss"]["count"],
        params["metrics"]["accuracy"]["total"],
        params["metrics"]["accuracy"]["count"],
    ) = new_metrics_loss_total, new_metrics_loss_count, new_metrics_accuracy_total, new_metrics_accuracy_count
    return loss, accuracy


class Model:
    """The entries with the weights they read."""

    def __init__(self, params):
        self.params = params

    def __call__(self, image):
        return forward(self.params, image)

    def train_step(self, image, target, learning_rate):
        return train_step(self.params, image, target, learning_rate)

    def test_step(self, image, target):
        return test_step(self.params, image, target)


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
