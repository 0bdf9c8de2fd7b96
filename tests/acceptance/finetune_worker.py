"""`python finetune_worker.py FOLDER…`: PEFT trains adapters of twins of the examples, in a process of its own.

A twin is a plain module of PyTorch that computes what `examples/gpt.py` or `examples/digits_cnn.py` does, its modules
called what the layers are. A folder has `job.json`, the weights in `base`, the adapter in `adapter` and with both
merged by graphc in `merged`, `batches.npz` and `held_out.npz`. Written are, in `found.npz`: the losses of the steps in
float32 and in float64; loss and part that is right of all that is held out, before and after; and the outputs for the
first four of it, of the adapter as it came, of the merged weights, and of the trained adapter, which PEFT saves in
`trained`.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from peft import PeftModel
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional


class Attention(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        for name in ("query", "key", "value", "out"):
            setattr(self, name, nn.Linear(width, width, bias=False))

    def forward(self, x, cos, sin):
        batch, places, width = x.shape

        def heads(y):
            return y.reshape(batch, places, self.heads, -1).transpose(1, 2)

        def turned(y):
            first, second = y.chunk(2, -1)
            return torch.cat([first * cos - second * sin, second * cos + first * sin], -1)

        query, key, value = turned(heads(self.query(x))), turned(heads(self.key(x))), heads(self.value(x))
        y = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        return self.out(y.transpose(1, 2).reshape(batch, places, width))


class SwiGLU(nn.Module):
    def __init__(self, width, hidden):
        super().__init__()
        self.gate, self.up = (nn.Linear(width, hidden, bias=False) for _ in range(2))
        self.down = nn.Linear(hidden, width, bias=False)

    def forward(self, x):
        return self.down(functional.silu(self.gate(x)) * self.up(x))


class Block(nn.Module):
    def __init__(self, width, heads, hidden):
        super().__init__()
        self.attention_norm, self.mlp_norm = (nn.RMSNorm(width, eps=1e-6) for _ in range(2))
        self.attention, self.mlp = Attention(width, heads), SwiGLU(width, hidden)

    def forward(self, x, cos, sin):
        x = x + self.attention(self.attention_norm(x), cos, sin)
        return x + self.mlp(self.mlp_norm(x))


class GPT(nn.Module):
    """The table of tokens gives the scores too."""

    def __init__(self, layers=4, width=144, heads=3):
        super().__init__()
        self.size = width // heads
        self.embedding = nn.Embedding(256, width)
        self.blocks = ["block", *(f"block_{i}" for i in range(1, layers))]
        for name in self.blocks:
            self.add_module(name, Block(width, heads, 8 * width // 3))
        self.norm = nn.RMSNorm(width, eps=1e-6)

    def forward(self, tokens):
        x = self.embedding(tokens)
        rates = 10000.0 ** (-torch.arange(0, self.size, 2, dtype=torch.float64) / self.size)
        angles = torch.arange(tokens.shape[1])[:, None] * rates
        for name in self.blocks:
            x = getattr(self, name)(x, angles.cos().to(x.dtype), angles.sin().to(x.dtype))
        return functional.linear(self.norm(x), self.embedding.weight)


class Digits(nn.Module):
    """Without dropout."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(1, 16, 3, padding=1, bias=False)
        self.stem_bn = nn.BatchNorm2d(16, eps=1e-3, momentum=0.01)
        self.block_conv1, self.block_conv2 = (nn.Conv2d(16, 16, 3, padding=1) for _ in range(2))
        self.head_conv = nn.Conv2d(16, 32, 3, padding=1)
        self.logits = nn.Linear(32, 10)

    def forward(self, images):
        x = torch.relu(self.stem_bn(self.stem(images.permute(0, 3, 1, 2))))
        y = self.block_conv2(torch.relu(self.block_conv1(x)))
        x = functional.max_pool2d(torch.relu(x + y), 2)
        return self.logits(torch.relu(self.head_conv(x)).mean((2, 3)))


def twin(job, weights):
    """The plain model with weights from a folder; the count of BatchNorm2d's batches is no weight of graphc's."""
    model = {"gpt": GPT, "digits": Digits}[job["model"]](**job["sizes"])
    lacking, unknown = model.load_state_dict(load_file(weights / "model.safetensors"), strict=False)
    assert not unknown and all(name.endswith("num_batches_tracked") for name in lacking), (lacking, unknown)
    return model.eval()


def loss_of(model, x, y):
    scores = model(x)
    return functional.cross_entropy(scores.flatten(0, -2), y.flatten())


def train(model, job, x, y):
    """The losses of AdamW. PyTorch adds epsilon to √(v / (1 − β₂ᵗ)), Keras and graphc to √v."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, weight_decay=job["weight_decay"], betas=(0.9, 0.999))
    model.train()
    losses = []
    for step, rate in enumerate(job["rates"]):
        (group,) = optimizer.param_groups
        group["lr"], group["eps"] = rate, 1e-7 / (1 - 0.999 ** (step + 1)) ** 0.5
        loss = loss_of(model, x[step], y[step])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    model.eval()
    return losses


def measured(model, x, y):
    """The mean loss, and the part that is right."""
    with torch.no_grad():
        scores = torch.cat([model(part) for part in x.split(32)])
    right = (scores.argmax(-1) == y).double().mean().item()
    return functional.cross_entropy(scores.flatten(0, -2), y.flatten()).item(), right


def work(folder):
    job = json.loads((folder / "job.json").read_text())
    batches, held_out = (
        {key: torch.from_numpy(array) for key, array in np.load(folder / name).items()}
        for name in ("batches.npz", "held_out.npz")
    )
    x, y, some = held_out["x"], held_out["y"].long(), held_out["x"][:4]

    def adapted():
        return PeftModel.from_pretrained(twin(job, folder / "base"), folder / "adapter", is_trainable=True).eval()

    def outputs(model):
        with torch.no_grad():
            return model(some).numpy()

    model, found = adapted(), {}
    found["adapted"], found["merged"] = outputs(model), outputs(twin(job, folder / "merged"))
    found["before"] = measured(model, x, y)
    found["float32"] = train(model, job, batches["x"], batches["y"].long())
    found["trained"], found["after"] = outputs(model), measured(model, x, y)
    model.save_pretrained(folder / "trained")
    wide = batches["x"].double() if batches["x"].is_floating_point() else batches["x"]
    found["float64"] = train(adapted().double(), job, wide, batches["y"].long())
    np.savez(folder / "found.npz", **found)


if __name__ == "__main__":
    for each in sys.argv[1:]:
        work(Path(each))
