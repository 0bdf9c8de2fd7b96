"""`python torch_worker.py FOLDER eager|compiled`: the task in FOLDER in plain PyTorch."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from protocol import Task, serve
from torch import nn
from torch_models import GPT, DigitsCNN, ResNet18

LEAVES = {
    "kernel": "weight",
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
    "embeddings": "weight",
    "scale": "weight",
}
"""PyTorch's names of weights."""


def main(folder: str, mode: str) -> None:
    torch.set_num_threads(1)
    task = Task(folder)
    model = made(task)
    model.load_state_dict(dict(converted(task)), strict=False)
    model.train()
    optimizer = made_optimizer(task, model)
    images = task.x.ndim == 5
    x = torch.from_numpy(np.moveaxis(task.x, -1, 2).copy() if images else task.x)
    y = torch.from_numpy(task.y.astype(np.int64))
    clip: float | None = task.optimizer.get("global_clipnorm")
    run: Callable[..., Any] = torch.compile(model) if mode == "compiled" else model

    def step(i: int) -> float:
        loss = F.cross_entropy(run(x[i]).flatten(0, -2), y[i].flatten())
        loss.backward()
        if clip is not None:
            nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
        optimizer.zero_grad()
        return loss.item()

    def infer(i: int) -> None:
        model.eval()
        with torch.inference_mode():
            run(x[i])
        model.train()

    serve(len(x), step, infer)


def made(task: Task) -> nn.Module:
    """The model that a task names, weights not yet set."""
    options = task.options
    if task.model == "digits":
        return DigitsCNN(options["dropout"])
    if task.model == "resnet18":
        return ResNet18(options["classes"], options["width"])
    if task.model == "dense":
        return nn.Linear(options["inputs"], options["units"])
    return GPT(options["layers"], options["width"], options["heads"], options["context"], options["dropout"])


def converted(task: Task) -> Iterator[tuple[str, torch.Tensor]]:
    """The weights under PyTorch's names and in its layout."""
    for path, array in task.weights.items():
        *owner, leaf = path.split("/")
        if leaf == "kernel":
            array = array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.T
        name = ".".join([renamed(".".join(owner)), LEAVES.get(leaf, leaf)])
        yield name.removeprefix("dense."), torch.from_numpy(array.copy())


def renamed(path: str) -> str:
    """The path of a layer in the modules here."""
    if found := re.fullmatch(r"stage(\d)_block(\d)_(\w+)_(conv|bn)", path):
        stage, block, place, kind = found.groups()
        inside = f"shortcut.{int(kind == 'bn')}" if place == "shortcut" else f"{kind}{place}"
        return f"stages.{int(stage) - 1}.{int(block) - 1}.{inside}"
    if found := re.fullmatch(r"block(?:_(\d+))?\.(?:attention\.|mlp\.)?(\w+)", path):
        return f"blocks.{found[1] or 0}.{found[2]}"
    return "stem" if path == "stem_conv" else path


def made_optimizer(task: Task, model: nn.Module) -> torch.optim.Optimizer:
    """SGD, Adam or AdamW; weight decay applies to kernels, not to vectors and tables."""
    settings = task.optimizer
    rate = settings["learning_rate"]
    if settings["name"] == "sgd":
        return torch.optim.SGD(model.parameters(), rate, momentum=settings["momentum"], fused=True)
    if settings["name"] == "adam":
        return torch.optim.Adam(model.parameters(), rate, eps=settings["epsilon"], fused=True)
    tables = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    decayed = [p for p in model.parameters() if p.ndim > 1 and id(p) not in tables]
    rest = [p for p in model.parameters() if p.ndim == 1 or id(p) in tables]
    groups = [{"params": decayed, "weight_decay": settings["weight_decay"]}, {"params": rest, "weight_decay": 0.0}]
    betas = (settings["beta_1"], settings["beta_2"])
    return torch.optim.AdamW(groups, rate, betas=betas, eps=settings["epsilon"], fused=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
