"""A model in PyTorch, with its weights in model.safetensors beside this file.

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

import torch
import torch.nn.functional as F
from safetensors.torch import load_model
from torch import nn


def sparse_cross_entropy(logits, labels, ignore_index=None, label_smoothing=0.0):
    """-log softmax(logits) at the labels: 0 at `ignore_index`, NaN at what is no class."""
    labels = labels.long()
    classes = labels.clamp(0, logits.shape[-1] - 1)
    rows = logits.reshape(-1, logits.shape[-1])
    loss = F.cross_entropy(rows, classes.flatten(), reduction="none", label_smoothing=label_smoothing)
    loss = torch.where(labels == classes, loss.view(labels.shape), torch.nan)
    return loss if ignore_index is None else torch.where(labels == ignore_index, 0, loss)


def sparse_cross_entropy_gradient(dy, logits, labels, ignore_index=None, label_smoothing=0.0):
    """The gradient of the logits of `sparse_cross_entropy` from that of the losses: softmax less target."""
    labels = labels.long()
    classes = labels.clamp(0, logits.shape[-1] - 1)
    gradient = F.softmax(logits, dim=-1)
    if label_smoothing:
        gradient -= label_smoothing * (1 / logits.shape[-1])
    gradient.scatter_add_(-1, classes.unsqueeze(-1), logits.new_full((*labels.shape, 1), label_smoothing - 1.0))
    gradient *= torch.where(labels == classes, dy, torch.nan).unsqueeze(-1)
    return gradient if ignore_index is None else gradient.masked_fill_((labels == ignore_index).unsqueeze(-1), 0)


def adamw(parameter, gradient, momentum, velocity, learning_rate, alpha):
    """The update of hidden/kernel … logits/bias, in place."""
    parameter.addcmul_(parameter, learning_rate * 0.004, value=-1)
    momentum.lerp_(gradient, 0.1)
    velocity.lerp_(torch.square(gradient), 0.001)
    parameter.addcdiv_(momentum * alpha, torch.sqrt(velocity) + 1e-07, value=-1)


class Model(nn.Module):
    """The entries forward, train_step, test_step over one set of weights."""

    def __init__(self):
        super().__init__()
        self.hidden = nn.Linear(784, 128)
        self.logits = nn.Linear(128, 10)
        self.register_buffer("optimizer_iteration", torch.empty((), dtype=torch.int32))
        self.register_buffer("optimizer_hidden_kernel_momentum", torch.empty(128, 784))
        self.register_buffer("optimizer_hidden_kernel_velocity", torch.empty(128, 784))
        self.register_buffer("optimizer_hidden_bias_momentum", torch.empty(128))
        self.register_buffer("optimizer_hidden_bias_velocity", torch.empty(128))
        self.register_buffer("optimizer_logits_kernel_momentum", torch.empty(10, 128))
        self.register_buffer("optimizer_logits_kernel_velocity", torch.empty(10, 128))
        self.register_buffer("optimizer_logits_bias_momentum", torch.empty(10))
        self.register_buffer("optimizer_logits_bias_velocity", torch.empty(10))
        self.register_buffer("metrics_loss_total", torch.empty(()))
        self.register_buffer("metrics_loss_count", torch.empty(()))
        self.register_buffer("metrics_accuracy_total", torch.empty(()))
        self.register_buffer("metrics_accuracy_count", torch.empty(()))

    def forward(self, image):
        """image: float32[B, 784] → logits: float32[B, 10]"""
        x = self.hidden(image)
        x = F.relu(x)
        return self.logits(x)

    @torch.no_grad()
    def train_step(self, image, target, learning_rate):
        """image, target, learning_rate → loss, accuracy; types are at the top of the file."""
        b = image.shape[0]

        # forward
        hidden = F.relu(self.hidden(image))
        logits = self.logits(hidden)

        # loss
        loss = sparse_cross_entropy(logits, target).mean()

        # backward: loss
        dx = sparse_cross_entropy_gradient(torch.tensor(1 / b, dtype=torch.float32).expand((b,)), logits, target)

        # backward: logits
        dy = dx @ self.logits.weight
        logits_kernel_gradient = dx.T @ hidden
        logits_bias_gradient = dx.sum(dim=0)
        del dx

        # backward: hidden
        dy = torch.ops.aten.threshold_backward(dy, hidden, 0)
        del hidden
        hidden_kernel_gradient = dy.T @ image
        hidden_bias_gradient = dy.sum(dim=0)
        del dy

        # optimizer
        new_optimizer_iteration = self.optimizer_iteration + 1
        step = new_optimizer_iteration.float()
        x = torch.sqrt(-torch.expm1(step * -0.0010005003))
        alpha = learning_rate * (x / -torch.expm1(step * -0.105360515))
        adamw(
            self.hidden.weight,
            hidden_kernel_gradient,
            self.optimizer_hidden_kernel_momentum,
            self.optimizer_hidden_kernel_velocity,
            learning_rate,
            alpha,
        )
        del hidden_kernel_gradient
        adamw(
            self.hidden.bias,
            hidden_bias_gradient,
            self.optimizer_hidden_bias_momentum,
            self.optimizer_hidden_bias_velocity,
            learning_rate,
            alpha,
        )
        adamw(
            self.logits.weight,
            logits_kernel_gradient,
            self.optimizer_logits_kernel_momentum,
            self.optimizer_logits_kernel_velocity,
            learning_rate,
            alpha,
        )
        del logits_kernel_gradient
        adamw(
            self.logits.bias,
            logits_bias_gradient,
            self.optimizer_logits_bias_momentum,
            self.optimizer_logits_bias_velocity,
            learning_rate,
            alpha,
        )

        # metrics
        new_metrics_loss_total = self.metrics_loss_total + loss * b
        new_metrics_loss_count = self.metrics_loss_count + b
        x = logits.argmax(dim=1).int()
        del logits
        new_metrics_accuracy_total = self.metrics_accuracy_total + (target == x).float().sum()
        new_metrics_accuracy_count = self.metrics_accuracy_count + b
        condition = new_metrics_loss_count == 0.0
        condition_1 = new_metrics_accuracy_count == 0.0
        x = new_metrics_accuracy_total / torch.where(condition_1, 1.0, new_metrics_accuracy_count)
        loss = torch.where(condition, 0.0, new_metrics_loss_total / torch.where(condition, 1.0, new_metrics_loss_count))
        accuracy = torch.where(condition_1, 0.0, x)
        torch._foreach_copy_(
            [
                self.optimizer_iteration,
                self.metrics_loss_total,
                self.metrics_loss_count,
                self.metrics_accuracy_total,
                self.metrics_accuracy_count,
            ],
            [
                new_optimizer_iteration,
                new_metrics_loss_total,
                new_metrics_loss_count,
                new_metrics_accuracy_total,
                new_metrics_accuracy_count,
            ],
        )
        return loss, accuracy

    @torch.no_grad()
    def test_step(self, image, target):
        """image, target → loss, accuracy; types are at the top of the file."""
        b = image.shape[0]

        # forward
        x = self.hidden(image)
        x = F.relu(x)
        x = self.logits(x)

        # loss
        loss = sparse_cross_entropy(x, target).mean()

        # metrics
        new_metrics_loss_total = self.metrics_loss_total + loss * b
        new_metrics_loss_count = self.metrics_loss_count + b
        x = x.argmax(dim=1).int()
        new_metrics_accuracy_total = self.metrics_accuracy_total + (target == x).float().sum()
        new_metrics_accuracy_count = self.metrics_accuracy_count + b
        condition = new_metrics_loss_count == 0.0
        condition_1 = new_metrics_accuracy_count == 0.0
        x = new_metrics_accuracy_total / torch.where(condition_1, 1.0, new_metrics_accuracy_count)
        loss = torch.where(condition, 0.0, new_metrics_loss_total / torch.where(condition, 1.0, new_metrics_loss_count))
        accuracy = torch.where(condition_1, 0.0, x)
        torch._foreach_copy_(
            [
                self.metrics_loss_total,
                self.metrics_loss_count,
                self.metrics_accuracy_total,
                self.metrics_accuracy_count,
            ],
            [new_metrics_loss_total, new_metrics_loss_count, new_metrics_accuracy_total, new_metrics_accuracy_count],
        )
        return loss, accuracy


def load(folder=None):
    """The model with the weights beside this file, or in `folder`, ready for inference."""
    model = Model()
    load_model(model, Path(folder or Path(__file__).parent) / "model.safetensors")
    return model.eval()
