"""`ModelCheckpoint`: the model, or its weights, saved while it trains."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from graphc.ir.errors import GraphcError
from graphc.runtime.training.callbacks.callback import State
from graphc.runtime.training.callbacks.monitoring import Monitor
from graphc.runtime.training.callbacks.places import make_folder, prepare_place


class ModelCheckpoint(Monitor):
    """Saves the model to a `.graphc` file, or with `save_weights_only` its weights to a safetensors file, after each
    epoch or every `save_freq` batches; with `save_best_only` only when `monitor` got better.

    `filepath` may have `{epoch}`, `{batch}` and logs in it: `"{epoch:02d}-{val_loss:.2f}.graphc"`. Folders are made,
    as in Keras, but for one right below the root of the file system; whether files can be written there is seen before
    training. A file appears whole or not at all. What a run needs to go on where it was killed is more than that: see
    checkpoints.
    """

    def __init__(
        self,
        filepath: Any,
        monitor: str = "val_loss",
        verbose: int = 0,
        save_best_only: bool = False,
        save_weights_only: bool = False,
        mode: str = "auto",
        save_freq: str | int = "epoch",
        initial_value_threshold: float | None = None,
    ) -> None:
        super().__init__(monitor, mode if save_best_only or mode != "auto" else "min")
        self.filepath, self.verbose = os.fspath(filepath), verbose
        self.save_best_only, self.save_weights_only = save_best_only, save_weights_only
        if save_freq != "epoch" and (isinstance(save_freq, bool) or not isinstance(save_freq, int) or save_freq < 1):
            raise GraphcError(f"ModelCheckpoint: save_freq is 'epoch' or a number of batches, not {save_freq!r}")
        wanted = ".safetensors" if save_weights_only else ".graphc"
        if not self.filepath.endswith(wanted):
            what = "weights are" if save_weights_only else "a model is"
            raise GraphcError(f"ModelCheckpoint: {what} saved to a file whose name ends in {wanted}, not {filepath!r}")
        self.save_freq = save_freq
        self.best = None if initial_value_threshold is None else float(initial_value_threshold)
        self._epoch = self._unsaved = 0

    def on_train_begin(self, logs: Any = None) -> None:
        super().on_train_begin(logs)
        path = Path(self.filepath)
        parts = path.parent.parts
        fixed = next((i for i, part in enumerate(parts) if "{" in part), len(parts))
        prepare_place("ModelCheckpoint", Path(*parts[:fixed], path.name))

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if self.save_freq == "epoch":
            return
        self._unsaved += 1
        if self._unsaved >= int(self.save_freq):
            self._unsaved = 0
            self._save(self._epoch, batch, logs or {})

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if self.save_freq == "epoch":
            self._save(epoch, None, logs or {})

    def _save(self, epoch: int, batch: int | None, logs: Mapping[str, float]) -> None:
        note = f"\nEpoch {epoch + 1}: "
        if self.save_best_only:
            current = self.watched(logs)
            if current is not None:
                best = self.worst if self.best is None else self.best
                if not self.better(current, best):
                    self._say(f"{note}{self.monitor} did not improve from {best:.5f}")
                    return
                note += f"{self.monitor} improved from {best:.5f} to {current:.5f}, "
                self.best = current
        path = self._path(epoch, batch, logs)
        self._say(f"{note}saving model to {path}")
        make_folder("ModelCheckpoint", path.parent)
        if self.save_weights_only:
            self.model.save_weights(path, overwrite=True)
        else:
            self.model.save(path, overwrite=True)

    def _path(self, epoch: int, batch: int | None, logs: Mapping[str, float]) -> Path:
        known: dict[str, Any] = {"epoch": epoch + 1, **logs}
        if batch is not None:
            known.setdefault("batch", batch + 1)
        try:
            return Path(self.filepath.format(**known))
        except (KeyError, IndexError, ValueError) as error:
            raise GraphcError(
                f"ModelCheckpoint: {self.filepath!r} cannot be filled in ({error}); there are {', '.join(known)}"
            ) from None

    def _say(self, text: str) -> None:
        if self.verbose > 0:
            print(text)

    def get_state(self) -> State:
        best = None if self.best is None or math.isinf(self.best) else self.best
        return {"best": best, "unsaved": self._unsaved}

    def set_state(self, state: Mapping[str, Any]) -> None:
        self.best, self._unsaved = state["best"], state["unsaved"]
