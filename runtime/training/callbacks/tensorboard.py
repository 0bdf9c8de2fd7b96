"""`TensorBoard`: the logs as files that TensorBoard shows (`tensorboard --logdir logs`)."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from graphc.ir.errors import GraphcError
from graphc.runtime.training.callbacks.callback import Callback, State
from graphc.runtime.training.callbacks.event_files import EventFile
from graphc.runtime.training.callbacks.places import make_folder, writing


class TensorBoard(Callback):
    """Writes the logs of each epoch, as Keras names them: `epoch_loss` and so on, with the learning rate, below
    `log_dir/train`, and those of the validation data below `log_dir/validation`. `update_freq`: "epoch", "batch" or a
    number of batches after which `batch_loss` and so on are written too. After `evaluate` and validation there are
    `evaluation_loss_vs_iterations` and so on. With `write_steps_per_second` there is how fast it goes.

    No library is needed to write, TensorBoard itself is to look at the files. Keras's other arguments ask for
    histograms, graphs, images, profiles and embeddings, which are not written: only what turns them off is taken.
    """

    def __init__(
        self,
        log_dir: Any = "logs",
        histogram_freq: int = 0,
        write_graph: bool = False,
        write_images: bool = False,
        write_steps_per_second: bool = False,
        update_freq: str | int = "epoch",
        profile_batch: Any = 0,
        embeddings_freq: int = 0,
        embeddings_metadata: Any = None,
    ) -> None:
        super().__init__()
        asked = {
            "histogram_freq": histogram_freq,
            "write_graph": write_graph,
            "write_images": write_images,
            "profile_batch": profile_batch,
            "embeddings_freq": embeddings_freq,
            "embeddings_metadata": embeddings_metadata,
        }
        for name, value in asked.items():
            if value:
                raise GraphcError(f"TensorBoard: {name}={value!r} is not supported: scalars are all that is written")
        if update_freq not in ("epoch", "batch") and (type(update_freq) is not int or update_freq < 1):
            raise GraphcError(f"TensorBoard: update_freq is 'epoch', 'batch' or a number, not {update_freq!r}")
        self.log_dir = os.fspath(log_dir)
        self.update_freq, self.write_steps_per_second = update_freq, write_steps_per_second
        self._every = 1 if update_freq == "batch" else update_freq
        self._files: dict[str, EventFile] = {}
        self._batches = self._at_epoch = 0
        self._epoch_began = self._batch_began = 0.0
        if update_freq != "epoch" or write_steps_per_second:  # logs of batches cost time where somebody listens
            self.on_train_batch_end = self._batch_ended

    def _write(self, part: str, values: Mapping[str, float], step: int) -> None:
        folder = Path(self.log_dir) / part
        if part not in self._files:
            make_folder("TensorBoard", folder)
        with writing("TensorBoard", folder):
            if part not in self._files:
                self._files[part] = EventFile(folder)
            self._files[part].scalars(values, step)

    def on_train_begin(self, logs: Any = None) -> None:
        self._files.clear()
        self._batches = 0
        make_folder("TensorBoard", Path(self.log_dir) / "train")  # told at once if it cannot be

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._epoch_began = self._batch_began = time.perf_counter()
        self._at_epoch = self._batches

    def _batch_ended(self, batch: int, logs: Mapping[str, float] | None = None) -> None:
        self._batches += 1
        now = time.perf_counter()
        if self.update_freq != "epoch" and self._batches % int(self._every) == 0:
            values = {f"batch_{name}": value for name, value in (logs or {}).items()}
            if self.write_steps_per_second:
                values["batch_steps_per_second"] = 1 / max(now - self._batch_began, 1e-9)
            self._write("train", values, self._batches)
        self._batch_began = now

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        logs = logs or {}
        train = {f"epoch_{name}": value for name, value in logs.items() if not name.startswith("val_")}
        if self.model.optimizer is not None:
            train["epoch_learning_rate"] = float(np.asarray(self.model.optimizer.learning_rate))
        if self.write_steps_per_second:
            seconds = max(time.perf_counter() - self._epoch_began, 1e-9)
            train["epoch_steps_per_second"] = (self._batches - self._at_epoch) / seconds
        self._write("train", train, epoch)
        validation = {f"epoch_{name[4:]}": value for name, value in logs.items() if name.startswith("val_")}
        if validation:
            self._write("validation", validation, epoch)

    def on_test_end(self, logs: Mapping[str, float] | None = None) -> None:
        if self.model.optimizer is not None and logs:
            values = {f"evaluation_{name}_vs_iterations": value for name, value in logs.items()}
            self._write("validation", values, int(self.model.optimizer.iterations))

    def get_state(self) -> State:
        """How many batches there were."""
        return {"batches": self._batches}

    def set_state(self, state: Mapping[str, Any]) -> None:
        self._batches = int(state["batches"])


__all__ = ["TensorBoard"]
