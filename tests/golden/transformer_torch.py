"""A model in PyTorch, with its weights in model.safetensors beside this file.

    model = load()
    outputs = model(hidden)

forward:
    hidden: float32[B, S, 16]
    returns head: float32[B, S, 5]
"""

from pathlib import Path

import torch.nn.functional as F
from safetensors.torch import load_model
from torch import nn


class Attention(nn.Module):
    """block_0/attention … block_2/attention"""

    def __init__(self):
        super().__init__()
        self.q = nn.Linear(16, 16)
        self.k = nn.Linear(16, 16)
        self.v = nn.Linear(16, 16)
        self.out = nn.Linear(16, 16)

    def forward(self, x):
        b, s, _ = x.shape
        q = self.q(x).reshape(b, s, 2, 8).transpose(1, 2)
        k = self.k(x).reshape(b, s, 2, 8).permute(0, 2, 3, 1)
        v = self.v(x).reshape(b, s, 2, 8).transpose(1, 2)
        x = (F.softmax(q @ k * 0.35355338, dim=-1) @ v).transpose(1, 2)
        return self.out(x.flatten(2))


class Block(nn.Module):
    """block_0 … block_2"""

    def __init__(self):
        super().__init__()
        self.norm1 = nn.LayerNorm(16, eps=0.001)
        self.attention = Attention()
        self.norm2 = nn.LayerNorm(16, eps=0.001)
        self.up = nn.Linear(16, 64)
        self.down = nn.Linear(64, 16)

    def forward(self, x):
        x = x + self.attention(self.norm1(x))
        y = F.gelu(self.up(self.norm2(x)))
        return x + self.down(y)


class Model(nn.Module):
    """hidden: float32[B, S, 16] → head: float32[B, S, 5]"""

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList(Block() for _ in range(3))
        self.norm = nn.LayerNorm(16, eps=0.001)
        self.head = nn.Linear(16, 5)

    def forward(self, hidden):
        x = hidden
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


def load(folder=None):
    """The model with the weights beside this file, or in `folder`, ready for inference."""
    model = Model()
    load_model(model, Path(folder or Path(__file__).parent) / "model.safetensors")
    return model.eval()
