"""A model in PyTorch, with its weights in model.safetensors beside this file.

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

import torch
import torch.nn.functional as F
from safetensors.torch import load_model
from torch import nn


def attention_with_logsumexp(*operands, is_causal=False, scale=None):
    """Attention, and what PyTorch's own gradient of it needs besides; on a GPU it has several forms of that."""
    query, key, value = (x.transpose(1, 2) for x in operands)
    if query.device.type != "cpu":
        y = F.scaled_dot_product_attention(query, key, value, is_causal=is_causal, scale=scale)
        return y.transpose(1, 2), None
    forward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    if not is_causal or query.shape[2] != key.shape[2]:
        y, logsumexp = forward(query, key, value, is_causal=is_causal, scale=scale)
        return y.transpose(1, 2), logsumexp
    found = []  # blocks of queries, each with the keys up to its end: PyTorch goes through those that are not seen too
    for start, end in causal_blocks(query.shape[2]):
        unseen = query.new_full((end - start, end), -torch.inf).triu(start + 1)
        found.append(forward(query[:, :, start:end], key[:, :, :end], value[:, :, :end], attn_mask=unseen, scale=scale))
    return torch.cat([y.transpose(1, 2) for y, _ in found], dim=1), torch.cat([sums for _, sums in found], dim=2)


def causal_blocks(places, size=64):
    """Where blocks of places start and end."""
    return [(start, min(start + size, places)) for start in range(0, places, size)]


def attention_gradient_with_logsumexp(dy, y, logsumexp, *operands, is_causal=False, scale=None):
    """The gradients of query, key and value; without what the forward pass saved, attention is run again."""
    if logsumexp is None:
        with torch.enable_grad():
            operands = [x.detach().requires_grad_() for x in operands]
            query, key, value = (x.transpose(1, 2) for x in operands)
            y = F.scaled_dot_product_attention(query, key, value, is_causal=is_causal, scale=scale)
        return torch.autograd.grad(y.transpose(1, 2), operands, dy)
    dy, y, query, key, value = (x.transpose(1, 2) for x in (dy, y, *operands))
    backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
    if not is_causal or query.shape[2] != key.shape[2]:
        found = backward(dy, query, key, value, y, logsumexp, 0.0, is_causal, scale=scale)
        return tuple(x.transpose(1, 2) for x in found)
    d_query, d_key, d_value = torch.empty_like(operands[0]), None, None
    for start, end in reversed(causal_blocks(query.shape[2])):
        rows = [x[:, :, start:end] for x in (y, logsumexp)]
        unseen = query.new_full((end - start, end), -torch.inf).triu(start + 1)
        given = (dy[:, :, start:end], query[:, :, start:end], key[:, :, :end], value[:, :, :end])
        found = backward(*given, *rows, 0.0, False, attn_mask=unseen, scale=scale)
        d_query[:, start:end] = found[0].transpose(1, 2)
        if d_key is None:  # the last block of queries sees all keys
            d_key, d_value = (x.transpose(1, 2) for x in found[1:])
        else:
            d_key[:, :end] += found[1].transpose(1, 2)
            d_value[:, :end] += found[2].transpose(1, 2)
        del found
    return d_query, d_key, d_value


def rope(x, cos, sin):
    """The halves of the last axis of `x` [B, T, H, D], turned by angles of [T, D / 2] or [B, T, D / 2]."""
    cos, sin = torch.cat([cos, cos], dim=-1).unsqueeze(-2), sin.unsqueeze(-2)
    y = x * cos
    (first, second), (turned, other) = x.chunk(2, dim=-1), y.chunk(2, dim=-1)
    turned.addcmul_(second, sin, value=-1)
    other.addcmul_(first, sin)
    return y


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


def scatter_add(x, indices, updates, dim):
    """`x` with `updates` added to its slices at `indices`; those outside go to a slice that is cut off."""
    size = x.shape[dim]
    out = torch.cat((x, x.new_zeros((*x.shape[:dim], 1, *x.shape[dim + 1 :]))), dim)
    places = torch.where((indices >= 0) & (indices < size), indices.long(), size).flatten()
    rows = updates.reshape((*x.shape[:dim], places.numel(), *x.shape[dim + 1 :]))
    return out.index_add(dim, places, rows).narrow(dim, 0, size)


class Attention(nn.Module):
    """block/attention … block_2/attention"""

    def __init__(self):
        super().__init__()
        self.query = nn.Linear(32, 32, bias=False)
        self.key = nn.Linear(32, 32, bias=False)
        self.value = nn.Linear(32, 32, bias=False)
        self.out = nn.Linear(32, 32, bias=False)
        self.register_buffer("query_kernel_momentum", torch.empty(32, 32))
        self.register_buffer("query_kernel_velocity", torch.empty(32, 32))
        self.register_buffer("key_kernel_momentum", torch.empty(32, 32))
        self.register_buffer("key_kernel_velocity", torch.empty(32, 32))
        self.register_buffer("value_kernel_momentum", torch.empty(32, 32))
        self.register_buffer("value_kernel_velocity", torch.empty(32, 32))
        self.register_buffer("out_kernel_momentum", torch.empty(32, 32))
        self.register_buffer("out_kernel_velocity", torch.empty(32, 32))

    def forward(self, x, cos, sin):
        query = rope(self.query(x).reshape(-1, 16, 2, 16), cos, sin)
        key = rope(self.key(x).reshape(-1, 16, 2, 16), cos, sin)
        value = self.value(x)
        value = value.reshape(-1, 16, 2, 16)
        x = F.scaled_dot_product_attention(
            query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2), is_causal=True
        ).transpose(1, 2)
        del key, query, value
        x = x.flatten(2)
        return self.out(x)


class Mlp(nn.Module):
    """block/mlp … block_2/mlp"""

    def __init__(self):
        super().__init__()
        self.gate = nn.Linear(32, 85, bias=False)
        self.up = nn.Linear(32, 85, bias=False)
        self.down = nn.Linear(85, 32, bias=False)
        self.register_buffer("gate_kernel_momentum", torch.empty(85, 32))
        self.register_buffer("gate_kernel_velocity", torch.empty(85, 32))
        self.register_buffer("up_kernel_momentum", torch.empty(85, 32))
        self.register_buffer("up_kernel_velocity", torch.empty(85, 32))
        self.register_buffer("down_kernel_momentum", torch.empty(32, 85))
        self.register_buffer("down_kernel_velocity", torch.empty(32, 85))

    def forward(self, x):
        gate = F.silu(self.gate(x))
        x = self.up(x)
        x = gate * x
        return self.down(x)


class Block(nn.Module):
    """block … block_2"""

    def __init__(self):
        super().__init__()
        self.attention_norm = nn.RMSNorm(32, eps=1e-06)
        self.attention = Attention()
        self.mlp_norm = nn.RMSNorm(32, eps=1e-06)
        self.mlp = Mlp()
        self.register_buffer("attention_norm_scale_momentum", torch.empty(32))
        self.register_buffer("attention_norm_scale_velocity", torch.empty(32))
        self.register_buffer("mlp_norm_scale_momentum", torch.empty(32))
        self.register_buffer("mlp_norm_scale_velocity", torch.empty(32))

    def forward(self, x, cos, sin):
        x = x + self.attention(self.attention_norm(x), cos, sin)
        return x + self.mlp(self.mlp_norm(x))

    def forward_with_residuals(self, x, cos, sin):
        """As `forward`, and the residuals that `backward` takes."""
        attention_norm = self.attention_norm(x)
        query = rope(self.attention.query(attention_norm).reshape(-1, 16, 2, 16), cos, sin)
        key = rope(self.attention.key(attention_norm).reshape(-1, 16, 2, 16), cos, sin)
        value = self.attention.value(attention_norm).reshape(-1, 16, 2, 16)
        attention, attention_1 = attention_with_logsumexp(query, key, value, is_causal=True)
        attention_2 = attention.flatten(2)
        hidden = x + self.attention.out(attention_2)
        mlp_norm = self.mlp_norm(hidden)
        gate = self.mlp.gate(mlp_norm)
        gate_1 = F.silu(gate)
        up = self.mlp.up(mlp_norm)
        mlp = gate_1 * up
        return hidden + self.mlp.down(mlp), (
            x,
            attention_norm,
            query,
            key,
            value,
            attention,
            attention_1,
            attention_2,
            hidden,
            mlp_norm,
            gate,
            gate_1,
            up,
            mlp,
        )

    def backward(self, dy, residuals, cos, sin):
        """From the gradient of the output to those of the input and, by name, of the weights."""
        (
            x,
            attention_norm,
            query,
            key,
            value,
            attention,
            attention_1,
            attention_2,
            hidden,
            mlp_norm,
            gate,
            gate_1,
            up,
            mlp,
        ) = residuals
        del residuals

        # mlp
        dx = dy @ self.mlp.down.weight
        mlp_down_kernel_gradient = dy.flatten(0, 1).T @ mlp.flatten(0, 1)
        del mlp
        dz = dx * up
        del up
        dx = dx * gate_1
        del gate_1
        dy_1 = dx @ self.mlp.up.weight
        mlp_up_kernel_gradient = dx.flatten(0, 1).T @ mlp_norm.flatten(0, 1)
        del dx
        dz = torch.ops.aten.silu_backward(dz, gate)
        del gate
        dx = dz @ self.mlp.gate.weight
        mlp_gate_kernel_gradient = dz.flatten(0, 1).T @ mlp_norm.flatten(0, 1)
        del dz, mlp_norm
        dy_1 = dy_1 + dx
        del dx

        # mlp_norm
        dx = torch.square(hidden).mean(dim=2, keepdim=True) + 1e-06
        dx = torch.rsqrt(dx)
        dz = hidden * dx
        del hidden
        dy_2 = dy_1 * self.mlp_norm.weight
        dy_2 = dy_2 - dz * (dy_2 * dz).mean(dim=2, keepdim=True)
        dx = dx * dy_2
        del dy_2
        dy_1 = dy_1 * dz
        del dz
        mlp_norm_scale_gradient = dy_1.sum(dim=(0, 1))
        del dy_1
        dy = dy + dx
        del dx

        # attention
        dx = dy @ self.attention.out.weight
        attention_out_kernel_gradient = dy.flatten(0, 1).T @ attention_2.flatten(0, 1)
        del attention_2
        dx = dx.reshape(-1, 16, 2, 16)
        dx, dz, dy_1 = attention_gradient_with_logsumexp(dx, attention, attention_1, query, key, value, is_causal=True)
        del attention, attention_1, key, query, value
        dy_1 = dy_1.flatten(2)
        dy_2 = dy_1 @ self.attention.value.weight
        attention_value_kernel_gradient = dy_1.flatten(0, 1).T @ attention_norm.flatten(0, 1)
        del dy_1
        dy_1 = -sin
        dz = rope(dz, cos, dy_1)
        dz = dz.flatten(2)
        dy_3 = dz @ self.attention.key.weight
        attention_key_kernel_gradient = dz.flatten(0, 1).T @ attention_norm.flatten(0, 1)
        del dz
        dy_2 = dy_2 + dy_3
        del dy_3
        dx = rope(dx, cos, dy_1)
        dx = dx.flatten(2)
        dz = dx @ self.attention.query.weight
        attention_query_kernel_gradient = dx.flatten(0, 1).T @ attention_norm.flatten(0, 1)
        del attention_norm, dx
        dy_2 = dy_2 + dz
        del dz

        # attention_norm
        dx = torch.square(x).mean(dim=2, keepdim=True) + 1e-06
        dx = torch.rsqrt(dx)
        dz = x * dx
        del x
        dy_1 = dy_2 * self.attention_norm.weight
        dy_1 = dy_1 - dz * (dy_1 * dz).mean(dim=2, keepdim=True)
        dx = dx * dy_1
        del dy_1
        dy_2 = dy_2 * dz
        del dz
        attention_norm_scale_gradient = dy_2.sum(dim=(0, 1))
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


def adam(parameter, gradient, momentum, velocity, alpha):
    """The update of embedding/embeddings … norm/scale, in place."""
    momentum.lerp_(gradient, 0.1)
    velocity.lerp_(torch.square(gradient), 0.001)
    parameter.addcdiv_(momentum * alpha, torch.sqrt(velocity) + 1e-07, value=-1)


class Model(nn.Module):
    """The entries forward, train_step, test_step over one set of weights."""

    def __init__(self):
        super().__init__()
        self.embedding_embeddings = nn.Parameter(torch.empty(256, 32))
        self.blocks = nn.ModuleList(Block() for _ in range(3))
        self.norm = nn.RMSNorm(32, eps=1e-06)
        self.register_buffer("optimizer_iteration", torch.empty((), dtype=torch.int32))
        self.register_buffer("optimizer_embedding_embeddings_momentum", torch.empty(256, 32))
        self.register_buffer("optimizer_embedding_embeddings_velocity", torch.empty(256, 32))
        self.register_buffer("optimizer_norm_scale_momentum", torch.empty(32))
        self.register_buffer("optimizer_norm_scale_velocity", torch.empty(32))
        self.register_buffer("metrics_loss_total", torch.empty(()))
        self.register_buffer("metrics_loss_count", torch.empty(()))

    def forward(self, tokens):
        """tokens: int32[B, 16] → embedding: float32[B, 16, 256]"""
        x = torch.arange(16, dtype=torch.int32).float().reshape(16, 1)
        x = x * torch.tensor(
            [1.0, 0.31622776, 0.1, 0.031622775, 0.01, 0.0031622776, 0.001, 0.00031622776], dtype=torch.float32
        )
        y = F.embedding(tokens.clamp(0, self.embedding_embeddings.shape[0] - 1), self.embedding_embeddings)
        cos = torch.cos(x)
        sin = torch.sin(x)
        for block in self.blocks:
            y = block(y, cos, sin)
        y = self.norm(y)
        return y @ self.embedding_embeddings.T

    @torch.no_grad()
    def train_step(self, tokens, target, learning_rate):
        """tokens, target, learning_rate → loss; types are at the top of the file."""
        b = tokens.shape[0]

        # forward: rotation
        x = torch.arange(16, dtype=torch.int32).float().reshape(16, 1)
        x = x * torch.tensor(
            [1.0, 0.31622776, 0.1, 0.031622775, 0.01, 0.0031622776, 0.001, 0.00031622776], dtype=torch.float32
        )
        cos = torch.cos(x)
        sin = torch.sin(x)

        # forward: embedding
        x = F.embedding(tokens.clamp(0, self.embedding_embeddings.shape[0] - 1), self.embedding_embeddings)

        # forward: blocks
        residuals = {}
        for i in range(3):
            x, residuals[i] = self.blocks[i].forward_with_residuals(x, cos, sin)

        # forward: norm
        norm = self.norm(x)

        # forward: embedding#1
        embedding = self.embedding_embeddings.T
        embedding_1 = norm @ embedding

        # loss
        loss = sparse_cross_entropy(embedding_1, target).mean()

        # backward: loss
        dx = torch.tensor(1 / (16 * b), dtype=torch.float32).expand((b, 16))
        dx = sparse_cross_entropy_gradient(dx, embedding_1, target)
        del embedding_1

        # backward: embedding#1
        dy = dx @ embedding.T
        del embedding
        dx = (dx.flatten(0, 1).T @ norm.flatten(0, 1)).T
        del norm
        dx = dx.T

        # backward: norm
        dz = torch.square(x).mean(dim=2, keepdim=True) + 1e-06
        dz = torch.rsqrt(dz)
        dy_1 = x * dz
        del x
        dy_2 = dy * self.norm.weight
        dy_2 = dy_2 - dy_1 * (dy_2 * dy_1).mean(dim=2, keepdim=True)
        dx_1 = dz * dy_2
        del dy_2, dz
        dy = dy * dy_1
        del dy_1
        norm_scale_gradient = dy.sum(dim=(0, 1))
        del dy

        # backward: blocks
        gradients = {}
        for i in reversed(range(3)):
            dx_1, gradients[i] = self.blocks[i].backward(dx_1, residuals.pop(i), cos, sin)

        # backward: embedding
        x = tokens.clamp(0, 255)
        dx_1 = scatter_add(torch.tensor(0, dtype=torch.float32).expand((256, 32)), x, dx_1, 0)
        del x
        embedding_embeddings_gradient = dx + dx_1
        del dx, dx_1

        # optimizer
        new_optimizer_iteration = self.optimizer_iteration + 1
        step = new_optimizer_iteration.float()
        x = torch.sqrt(-torch.expm1(step * -0.0010005003))
        alpha = learning_rate * (x / -torch.expm1(step * -0.105360515))
        adam(
            self.embedding_embeddings,
            embedding_embeddings_gradient,
            self.optimizer_embedding_embeddings_momentum,
            self.optimizer_embedding_embeddings_velocity,
            alpha,
        )
        del embedding_embeddings_gradient
        for i in range(3):
            block, gradient = self.blocks[i], gradients.pop(i)
            adam(
                block.attention_norm.weight,
                gradient.pop("attention_norm_scale"),
                block.attention_norm_scale_momentum,
                block.attention_norm_scale_velocity,
                alpha,
            )
            adam(
                block.attention.query.weight,
                gradient.pop("attention_query_kernel"),
                block.attention.query_kernel_momentum,
                block.attention.query_kernel_velocity,
                alpha,
            )
            adam(
                block.attention.key.weight,
                gradient.pop("attention_key_kernel"),
                block.attention.key_kernel_momentum,
                block.attention.key_kernel_velocity,
                alpha,
            )
            adam(
                block.attention.value.weight,
                gradient.pop("attention_value_kernel"),
                block.attention.value_kernel_momentum,
                block.attention.value_kernel_velocity,
                alpha,
            )
            adam(
                block.attention.out.weight,
                gradient.pop("attention_out_kernel"),
                block.attention.out_kernel_momentum,
                block.attention.out_kernel_velocity,
                alpha,
            )
            adam(
                block.mlp_norm.weight,
                gradient.pop("mlp_norm_scale"),
                block.mlp_norm_scale_momentum,
                block.mlp_norm_scale_velocity,
                alpha,
            )
            adam(
                block.mlp.gate.weight,
                gradient.pop("mlp_gate_kernel"),
                block.mlp.gate_kernel_momentum,
                block.mlp.gate_kernel_velocity,
                alpha,
            )
            adam(
                block.mlp.up.weight,
                gradient.pop("mlp_up_kernel"),
                block.mlp.up_kernel_momentum,
                block.mlp.up_kernel_velocity,
                alpha,
            )
            adam(
                block.mlp.down.weight,
                gradient.pop("mlp_down_kernel"),
                block.mlp.down_kernel_momentum,
                block.mlp.down_kernel_velocity,
                alpha,
            )
        adam(
            self.norm.weight,
            norm_scale_gradient,
            self.optimizer_norm_scale_momentum,
            self.optimizer_norm_scale_velocity,
            alpha,
        )

        # metrics
        new_metrics_loss_total = self.metrics_loss_total + loss * b
        new_metrics_loss_count = self.metrics_loss_count + b
        condition = new_metrics_loss_count == 0.0
        loss = torch.where(condition, 0.0, new_metrics_loss_total / torch.where(condition, 1.0, new_metrics_loss_count))
        self.optimizer_iteration.copy_(new_optimizer_iteration)
        self.metrics_loss_total.copy_(new_metrics_loss_total)
        self.metrics_loss_count.copy_(new_metrics_loss_count)
        return loss

    @torch.no_grad()
    def test_step(self, tokens, target):
        """tokens, target → loss; types are at the top of the file."""
        b = tokens.shape[0]

        # forward
        x = torch.arange(16, dtype=torch.int32).float().reshape(16, 1)
        x = x * torch.tensor(
            [1.0, 0.31622776, 0.1, 0.031622775, 0.01, 0.0031622776, 0.001, 0.00031622776], dtype=torch.float32
        )
        y = F.embedding(tokens.clamp(0, self.embedding_embeddings.shape[0] - 1), self.embedding_embeddings)
        cos = torch.cos(x)
        sin = torch.sin(x)
        for block in self.blocks:
            y = block(y, cos, sin)
        y = self.norm(y)
        y = y @ self.embedding_embeddings.T

        # loss
        loss = sparse_cross_entropy(y, target)
        del y
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
