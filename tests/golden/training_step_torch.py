"""A model in PyTorch, with its weights in model.safetensors beside this file.

    model = load()
    outputs = model(x, y)

main:
    x: float32[B, 3]
    y: float32[B, 2]
    returns loss: float32[], before: float32[3, 2]; updates dense/kernel
predict:
    x: float32[B, 3]
    returns y: float32[B, 2]
"""

from pathlib import Path

import torch
from safetensors.torch import load_model
from torch import nn


class Model(nn.Module):
    """The entries main, predict over one set of weights."""

    def __init__(self):
        super().__init__()
        self.dense = nn.Linear(3, 2, bias=False)

    def forward(self, x, y):
        """x: float32[B, 3], y: float32[B, 2] → loss: float32[], before: float32[3, 2]; updates dense/kernel"""
        y = x @ self.dense.weight.T - y
        loss = torch.square(y).mean()
        dense_kernel = self.dense.weight.T.clone()
        with torch.no_grad():
            self.dense.weight.copy_((self.dense.weight.T - x.T @ y * 0.1).T)
        return loss, dense_kernel

    def predict(self, x):
        """x: float32[B, 3] → y: float32[B, 2]"""
        return self.dense(x)


def load(folder=None):
    """The model with the weights beside this file, or in `folder`, ready for inference."""
    model = Model()
    load_model(model, Path(folder or Path(__file__).parent) / "model.safetensors")
    return model.eval()
