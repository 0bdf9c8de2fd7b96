"""What is trained: the models of `examples/`, with random data, and a single layer for what a step costs beside its
arithmetic. A task is written to a folder, which every process reads."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from graphc.frontends import Input, layers, lower
from graphc.ir.errors import GraphcError
from graphc.runtime import Sequential
from graphc.runtime import conveniences as utils

BATCHES = 8
"""Different batches, taken in turn."""


@dataclass(frozen=True)
class Workload:
    """One model, how large, with which optimizer."""

    name: str
    model: str
    batch: int
    optimizer: dict[str, Any]
    options: dict[str, Any] = field(default_factory=dict)


SGD = {"name": "sgd", "learning_rate": 1e-3, "momentum": 0.9}
ADAM = {"name": "adam", "learning_rate": 1e-3, "beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-7}
ADAMW = ADAM | {"name": "adamw", "beta_2": 0.95, "weight_decay": 0.1}
GPT = {"layers": 4, "width": 144, "heads": 3, "context": 128}

WORKLOADS = {
    each.name: each
    for each in (
        Workload("digits", "digits", 32, ADAM, {"dropout": 0.0}),
        Workload("digits, dropout", "digits", 32, ADAM, {"dropout": 0.2}),
        Workload("gpt", "gpt", 8, ADAMW, GPT | {"dropout": 0.0}),
        Workload("gpt, dropout", "gpt", 8, ADAMW, GPT | {"dropout": 0.1}),
        Workload("resnet18", "resnet18", 8, SGD, {"classes": 10, "size": 64, "width": 64}),
        Workload("dense", "dense", 32, SGD, {"inputs": 32, "units": 10}),
    )
}


def build(workload: Workload, examples: Path) -> Any:
    """The model in graphc, from the examples in this folder; weights by seed, so they are the same in each process."""
    utils.set_random_seed(0)
    options = workload.options
    if workload.model == "dense":
        return Sequential([Input((options["inputs"],)), layers.Dense(options["units"], name="dense")])
    file, function = {
        "digits": ("digits_cnn.py", "digits_cnn"),
        "gpt": ("gpt.py", "gpt"),
        "resnet18": ("resnet18.py", "resnet18"),
    }[workload.model]
    if not (examples / file).is_file():
        raise GraphcError(
            f"{examples} has no {file}: the models are graphc's examples, name their folder by --examples"
        )
    return _program(examples / file)[function](**options)


def _program(path: Path) -> dict[str, Any]:
    """What an example defines."""
    import importlib.util
    import sys

    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.parent))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(path.parent))
    return vars(module)


def write_task(workload: Workload, folder: Path, examples: Path) -> None:
    """Write what `peers.protocol.Task` reads."""
    weights = lower(build(workload, examples), training=True).weights
    scoped = workload.model == "gpt"  # elsewhere the scopes are functions of the example, and layers' names are unique
    names = {name: name if scoped else "/".join(name.split("/")[-2:]) for name in weights}
    arrays: dict[str, Any] = {short: weights[name] for name, short in names.items()}
    np.savez(folder / "weights.npz", **arrays)
    x, y = data(workload)
    np.savez(folder / "data.npz", x=x, y=y)
    task = {"model": workload.model, "options": workload.options, "optimizer": workload.optimizer}
    (folder / "task.json").write_text(json.dumps(task), encoding="utf-8")


def data(workload: Workload) -> tuple[np.ndarray, np.ndarray]:
    """Random batches [BATCHES, B, …] and their labels."""
    rng = np.random.default_rng(0)
    lead, options = (BATCHES, workload.batch), workload.options
    if workload.model == "gpt":
        tokens = rng.integers(0, 256, (*lead, options["context"] + 1)).astype(np.int32)
        return tokens[..., :-1], tokens[..., 1:]
    shapes = {"digits": (8, 8, 1), "dense": (options.get("inputs"),), "resnet18": (options.get("size"),) * 2 + (3,)}
    x = rng.standard_normal((*lead, *shapes[workload.model])).astype(np.float32)
    classes = options.get("classes", options.get("units", 10))
    return x, rng.integers(0, classes, lead).astype(np.int32)
