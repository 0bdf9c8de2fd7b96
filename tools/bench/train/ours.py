"""`python -m graphc.tools.bench.train.ours FOLDER NAME TARGET EXAMPLES`: the task in FOLDER by graphc, on a target."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from graphc.runtime import compile as compile_source
from graphc.runtime.training import losses, optimizers
from graphc.tools.bench.train.peers.protocol import Task, serve
from graphc.tools.bench.train.workloads import WORKLOADS, build


def main(folder: str, name: str, target: str, examples: str) -> None:
    if target == "torch":
        import torch

        torch.set_num_threads(1)
    task = Task(folder)
    model = build(WORKLOADS[name], Path(examples))
    model.compile(
        optimizer=made_optimizer(dict(task.optimizer)),
        loss=losses.SparseCategoricalCrossentropy(from_logits=True),
        target=target,
    )

    def step(i: int) -> float:
        return float(model.train_on_batch(task.x[i], task.y[i]))

    executable = compile_source(model, target=target)
    serve(len(task.x), step, lambda i: executable(task.x[i]))


def made_optimizer(settings: dict[str, Any]) -> Any:
    """graphc's own; weight decay applies to kernels, not to vectors and tables."""
    kind = {"sgd": optimizers.SGD, "adam": optimizers.Adam, "adamw": optimizers.AdamW}
    optimizer = kind[settings.pop("name")](**settings)
    if "weight_decay" in settings:
        optimizer.exclude_from_weight_decay(var_names=["scale", "embeddings"])
    return optimizer


if __name__ == "__main__":
    main(*sys.argv[1:])
