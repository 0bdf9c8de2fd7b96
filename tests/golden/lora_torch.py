"""A model in PyTorch, with its weights in model.safetensors beside this file.

    model = load()
    outputs = model(x)

forward:
    x: float32[B, 16]
    returns head: float32[B, 4]
train_step:
    x: float32[B, 16]
    target: float32[B, 4]
    learning_rate: float32[]
    returns loss: float32[]; updates 9 weights and states
test_step:
    x: float32[B, 16]
    target: float32[B, 4]
    returns loss: float32[]; updates metrics/loss/total, metrics/loss/count
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_model
from torch import nn


class LoRALinear(nn.Linear):
    """A frozen linear layer with a low-rank adapter: x @ W.T + bias + x @ A.T * scaling @ B.T."""

    def __init__(self, in_features, out_features, rank, scaling, bias=True, dtype=None):
        super().__init__(in_features, out_features, bias, dtype=dtype)
        self.requires_grad_(False)
        self.lora_a = nn.Parameter(torch.empty(rank, in_features, dtype=dtype))
        self.lora_b = nn.Parameter(torch.empty(out_features, rank, dtype=dtype))
        self.scaling = scaling

    def forward(self, x):
        y = matrix_product(x, self.weight.T)
        if self.bias is not None:
            y += self.bias
        rows, small = y.view(-1, y.shape[-1]), matrix_product(x, self.lora_a.T).view(-1, self.lora_a.shape[0])
        rows.addmm_(small, self.lora_b.T, alpha=self.scaling)
        return y


def matrix_product(x, weight):
    """x @ weight, without a gradient by oneDNN if the processor has AVX-512, which MKL leaves unused on AMD's."""
    whole = weight.is_contiguous() or weight.T.is_contiguous()  # of a part of a matrix oneDNN's product is slow
    plain = x.device.type == "cpu" and x.dtype == torch.float32 and not torch.is_grad_enabled()
    fast = torch.backends.mkldnn.is_available() and torch.backends.cpu.get_cpu_capability() == "AVX512"
    if not (plain and fast and whole and len(weight)):
        return x @ weight
    return torch.ops.mkldnn._linear_pointwise(x, weight.T, None, "none", [], "")


def lora_small_gradient(dy, *b, scaling):
    """The gradients of x @ a for all adapters: dy @ b.T * scaling, each for its columns of dy."""
    parts = dy.split([each.shape[1] for each in b], dim=-1)
    products = [matrix_product(part, each.T * factor) for part, each, factor in zip(parts, b, scaling, strict=True)]
    return torch.cat(products, dim=-1)


def lora_input_gradient(dy, small, weight, *a):
    """dy @ weight.T, plus what came through the adapters: small @ a.T."""
    dx, a = matrix_product(dy, weight.T), torch.cat(a, dim=1)
    dx.view(-1, dx.shape[-1]).addmm_(small.reshape(-1, a.shape[1]), a.T)
    return dx


def lora_factor_gradients(dy, small, x, *factors, scaling):
    """The gradients of each a and b in turn: x.T @ small, and (x @ a * scaling).T @ dy."""
    x, dy, small = (each.reshape(-1, each.shape[-1]) for each in (x, dy, small))
    ranks = [a.shape[1] for a in factors[::2]]
    again = matrix_product(x, torch.cat(factors[::2], dim=1))
    parts = zip(
        matrix_product(small.T, x).T.split(ranks, dim=1),
        again.split(ranks, dim=1),
        dy.split([b.shape[1] for b in factors[1::2]], dim=1),
        scaling,
        strict=True,
    )
    return [d for da, s, d_part, factor in parts for d in (da, (s * factor).T @ d_part)]


def sgd(parameter, gradient, learning_rate):
    """The update of up/lora_kernel_a … head/bias, in place."""
    parameter.addcmul_(gradient, learning_rate, value=-1)


class Model(nn.Module):
    """The entries forward, train_step, test_step over one set of weights."""

    def __init__(self):
        super().__init__()
        self.up = LoRALinear(16, 32, 2, 2.0)
        self.down = LoRALinear(32, 16, 2, 2.0, bias=False)
        self.head = nn.Linear(16, 4)
        self.register_buffer("optimizer_iteration", torch.empty((), dtype=torch.int32))
        self.register_buffer("metrics_loss_total", torch.empty(()))
        self.register_buffer("metrics_loss_count", torch.empty(()))

    def forward(self, x):
        """x: float32[B, 16] → head: float32[B, 4]"""
        x = x + self.down(F.relu(self.up(x)))
        return self.head(x)

    @torch.no_grad()
    def train_step(self, x, target, learning_rate):
        """x, target, learning_rate → loss; types are at the top of the file."""
        b = x.shape[0]

        # forward
        up = F.relu(self.up(x))
        y = x + self.down(up)

        # loss
        loss = target - self.head(y)
        loss_1 = torch.square(loss).mean(dim=1)
        loss_1 = loss_1.mean()

        # optimizer
        new_optimizer_iteration = self.optimizer_iteration + 1

        # metrics
        new_metrics_loss_total = self.metrics_loss_total + loss_1 * b
        new_metrics_loss_count = self.metrics_loss_count + b
        condition = new_metrics_loss_count == 0.0

        # backward: loss
        dx = torch.tensor(1 / b, dtype=torch.float32) / 4.0 * 2.0 * loss
        del loss
        dx = -dx

        # backward: head
        dy = dx @ self.head.weight
        head_kernel_gradient = dx.T @ y
        del y
        head_bias_gradient = dx.sum(dim=0)
        del dx

        # backward: down
        dx = lora_small_gradient(dy, self.down.lora_b.T, scaling=(2.0,))
        dz = lora_input_gradient(dy, dx, self.down.weight.T, self.down.lora_a.T)
        down_lora_kernel_a_gradient, down_lora_kernel_b_gradient = lora_factor_gradients(
            dy, dx, up, self.down.lora_a.T, self.down.lora_b.T, scaling=(2.0,)
        )
        del dx, dy

        # backward: up
        dz = torch.ops.aten.threshold_backward(dz, up, 0)
        del up
        dx = lora_small_gradient(dz, self.up.lora_b.T, scaling=(2.0,))
        up_lora_kernel_a_gradient, up_lora_kernel_b_gradient = lora_factor_gradients(
            dz, dx, x, self.up.lora_a.T, self.up.lora_b.T, scaling=(2.0,)
        )
        del dx, dz
        loss = torch.where(condition, 0.0, new_metrics_loss_total / torch.where(condition, 1.0, new_metrics_loss_count))
        sgd(self.up.lora_a, up_lora_kernel_a_gradient.T, learning_rate)
        sgd(self.up.lora_b, up_lora_kernel_b_gradient.T, learning_rate)
        sgd(self.down.lora_a, down_lora_kernel_a_gradient.T, learning_rate)
        sgd(self.down.lora_b, down_lora_kernel_b_gradient.T, learning_rate)
        sgd(self.head.weight, head_kernel_gradient, learning_rate)
        sgd(self.head.bias, head_bias_gradient, learning_rate)
        self.optimizer_iteration.copy_(new_optimizer_iteration)
        self.metrics_loss_total.copy_(new_metrics_loss_total)
        self.metrics_loss_count.copy_(new_metrics_loss_count)
        return loss

    @torch.no_grad()
    def test_step(self, x, target):
        """x, target → loss; types are at the top of the file."""
        b = x.shape[0]

        # forward
        x = x + self.down(F.relu(self.up(x)))
        x = self.head(x)

        # loss
        loss = target - x
        del x
        loss = torch.square(loss)
        loss = loss.mean(dim=1)
        loss = loss.mean()

        # metrics
        new_metrics_loss_total = self.metrics_loss_total + loss * b
        new_metrics_loss_count = self.metrics_loss_count + b
        condition = new_metrics_loss_count == 0.0
        loss = torch.where(condition, 0.0, new_metrics_loss_total / torch.where(condition, 1.0, new_metrics_loss_count))
        self.metrics_loss_total.copy_(new_metrics_loss_total)
        self.metrics_loss_count.copy_(new_metrics_loss_count)
        return loss


def load(folder=None):
    """The model with the weights beside this file, or in `folder`, ready for inference."""
    model = Model()
    load_model(model, Path(folder or Path(__file__).parent) / "model.safetensors")
    return model.eval()
