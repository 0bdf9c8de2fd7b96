"""The benchmark's models in plain PyTorch. Images come channels first."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class DigitsCNN(nn.Module):
    """`examples/digits_cnn.py`: [B, 1, 8, 8] to [B, 10]."""

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 16, 3, padding=1, bias=False)
        self.stem_bn = nn.BatchNorm2d(16, eps=1e-3, momentum=0.01)
        self.block_conv1 = nn.Conv2d(16, 16, 3, padding=1)
        self.block_conv2 = nn.Conv2d(16, 16, 3, padding=1)
        self.head_conv = nn.Conv2d(16, 32, 3, padding=1)
        self.dropout = nn.Dropout(dropout)
        self.logits = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem_bn(self.stem(x)))
        x = F.relu(x + self.block_conv2(F.relu(self.block_conv1(x))))
        x = F.relu(self.head_conv(F.max_pool2d(x, 2)))
        return self.logits(self.dropout(x.mean((2, 3))))


class BasicBlock(nn.Module):
    def __init__(self, inputs: int, filters: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, filters, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(filters)
        self.conv2 = nn.Conv2d(filters, filters, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(filters)
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or inputs != filters:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, filters, 1, stride, bias=False), nn.BatchNorm2d(filters))

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class ResNet18(nn.Module):
    """He et al., 2015: [B, 3, H, W] to [B, classes]."""

    def __init__(self, classes: int, width: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 7, 2, padding=3, bias=False)
        self.stem_bn = nn.BatchNorm2d(width)
        stages, inputs = [], width
        for stage in range(4):
            filters = width * 2**stage
            stages.append(
                nn.Sequential(BasicBlock(inputs, filters, 2 if stage else 1), BasicBlock(filters, filters, 1))
            )
            inputs = filters
        self.stages = nn.Sequential(*stages)
        self.logits = nn.Linear(inputs, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.stem_bn(self.stem(x))), 3, 2, padding=1)
        return self.logits(self.stages(x).mean((2, 3)))


def rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Pairs of features of [B, H, T, D], D / 2 apart, turned by the angles of [T, D / 2]."""
    a, b = x.chunk(2, -1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), -1)


class Block(nn.Module):
    def __init__(self, width: int, heads: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.attention_norm = nn.RMSNorm(width, eps=1e-6)
        self.query = nn.Linear(width, width, bias=False)
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.mlp_norm = nn.RMSNorm(width, eps=1e-6)
        self.gate = nn.Linear(width, hidden, bias=False)
        self.up = nn.Linear(width, hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        batch, places, width = x.shape
        h = self.attention_norm(x)
        q, k, v = (
            layer(h).view(batch, places, self.heads, width // self.heads).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        y = F.scaled_dot_product_attention(rotated(q, cos, sin), rotated(k, cos, sin), v, is_causal=True)
        y = self.out(y.transpose(1, 2).reshape(batch, places, width))
        x = x + F.dropout(y, self.dropout, self.training)
        h = self.mlp_norm(x)
        y = self.down(F.silu(self.gate(h)) * self.up(h))
        return x + F.dropout(y, self.dropout, self.training)


class GPT(nn.Module):
    """`examples/gpt.py`: tokens [B, T] to the scores [B, T, 256] of the tokens that follow."""

    cos: Tensor
    sin: Tensor

    def __init__(self, layers: int, width: int, heads: int, context: int, dropout: float) -> None:
        super().__init__()
        self.embedding = nn.Embedding(256, width)
        self.blocks = nn.ModuleList(Block(width, heads, 8 * width // 3, dropout) for _ in range(layers))
        self.norm = nn.RMSNorm(width, eps=1e-6)
        half = width // heads // 2
        angles = torch.arange(context)[:, None] * 10000.0 ** (-torch.arange(half, dtype=torch.float64) / half)
        self.register_buffer("cos", angles.cos().float(), persistent=False)
        self.register_buffer("sin", angles.sin().float(), persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens)
        for block in self.blocks:
            x = block(x, self.cos, self.sin)
        return F.linear(self.norm(x), self.embedding.weight)
