"""A model in PyTorch, with its weights in model.safetensors beside this file.

    model = load()
    outputs = model(image)

forward:
    image: float32[B, 8, 8, 1]
    returns logits: float32[B, 10]
"""

from pathlib import Path

import torch.nn.functional as F
from safetensors.torch import load_model
from torch import nn


class Model(nn.Module):
    """image: float32[B, 8, 8, 1] → logits: float32[B, 10]"""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(1, 16, 3, padding=1, bias=False)
        self.stem_bn = nn.BatchNorm2d(16, eps=0.001)
        self.block_conv1 = nn.Conv2d(16, 16, 3, padding=1)
        self.block_conv2 = nn.Conv2d(16, 16, 3, padding=1)
        self.head_conv = nn.Conv2d(16, 32, 3, padding=1)
        self.logits = nn.Linear(32, 10)

    def forward(self, image):
        x = image.permute(0, 3, 1, 2).contiguous()
        x = F.relu(self.stem_bn(self.stem(x)))
        x = F.relu(x + self.block_conv2(F.relu(self.block_conv1(x))))
        x = F.relu(self.head_conv(F.max_pool2d(x, 2)))
        return self.logits(x.mean(dim=(2, 3)))


def load(folder=None):
    """The model with the weights beside this file, or in `folder`, ready for inference."""
    model = Model()
    load_model(model, Path(folder or Path(__file__).parent) / "model.safetensors")
    return model.eval()
