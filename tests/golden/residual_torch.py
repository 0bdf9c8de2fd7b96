"""A model in PyTorch, with its weights in model.safetensors beside this file.

    model = load()
    outputs = model(image)

forward:
    image: float32[B, 8, 8, 3]
    returns logits: float32[B, 10]
"""

from pathlib import Path

import torch.nn.functional as F
from safetensors.torch import load_model
from torch import nn


class Residual(nn.Module):
    """residual … residual_11"""

    def __init__(self):
        super().__init__()
        self.conv2d = nn.Conv2d(16, 16, 3, padding=1, bias=False)
        self.batch_normalization = nn.BatchNorm2d(16, eps=0.001)
        self.conv2d_1 = nn.Conv2d(16, 16, 3, padding=1, bias=False)
        self.batch_normalization_1 = nn.BatchNorm2d(16, eps=0.001)

    def forward(self, x):
        y = F.relu(self.batch_normalization(self.conv2d(x)))
        return F.relu(x + self.batch_normalization_1(self.conv2d_1(y)))


class Model(nn.Module):
    """image: float32[B, 8, 8, 3] → logits: float32[B, 10]"""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.residuals = nn.ModuleList(Residual() for _ in range(12))
        self.logits = nn.Linear(16, 10)

    def forward(self, image):
        x = image.permute(0, 3, 1, 2).contiguous()
        x = self.stem(x)
        for residual in self.residuals:
            x = residual(x)
        return self.logits(x.mean(dim=(2, 3)))


def load(folder=None):
    """The model with the weights beside this file, or in `folder`, ready for inference."""
    model = Model()
    load_model(model, Path(folder or Path(__file__).parent) / "model.safetensors")
    return model.eval()
