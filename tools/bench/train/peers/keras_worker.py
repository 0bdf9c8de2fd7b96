"""`KERAS_BACKEND=torch python keras_worker.py FOLDER`: the task in FOLDER in Keras 3."""

from __future__ import annotations

import sys
from typing import Any

import keras
import keras_models
from protocol import Task, serve


def main(folder: str) -> None:
    if keras.backend.backend() == "torch":
        import torch

        torch.set_num_threads(1)
    task = Task(folder)
    model = made(task)
    for variable in model.weights:
        variable.assign(task.weights[variable.path.removeprefix(f"{model.name}/")])
    model.compile(
        optimizer=made_optimizer(dict(task.optimizer)),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )

    def step(i: int) -> float:
        return float(model.train_on_batch(task.x[i], task.y[i]))

    def infer(i: int) -> None:
        model.predict_on_batch(task.x[i])

    serve(len(task.x), step, infer)


def made(task: Task) -> Any:
    """The model that a task names."""
    options = task.options
    if task.model == "digits":
        return keras_models.digits_cnn(options["dropout"])
    if task.model == "resnet18":
        return keras_models.resnet18(options["classes"], options["size"], options["width"])
    if task.model == "dense":
        return keras_models.dense(options["inputs"], options["units"])
    sizes = (options[name] for name in ("layers", "width", "heads", "context", "dropout"))
    return keras_models.gpt(*sizes)


def made_optimizer(settings: dict[str, Any]) -> Any:
    """Keras's own; weight decay applies to kernels, not to vectors and tables."""
    kind = {"sgd": keras.optimizers.SGD, "adam": keras.optimizers.Adam, "adamw": keras.optimizers.AdamW}
    optimizer = kind[settings.pop("name")](**settings)
    if "weight_decay" in settings:
        optimizer.exclude_from_weight_decay(var_names=["scale", "embeddings"])
    return optimizer


if __name__ == "__main__":
    main(*sys.argv[1:])
